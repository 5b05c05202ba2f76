import Foundation
import Hoist
import HoistRedis
import HoistTesting
import Logging
import RESP
import Synchronization
import TestServers
import Testing

/// A caller that enqueued a job and waits for its output reads the result alone, and everything else only when it heard
/// of no result.
@Suite("Waiting for outputs on Redis", .timeLimit(.minutes(3)))
final class OutputTests: Sendable {
    private struct Half: Job {
        static let name = "half"
        var number: Int
        typealias Output = Int
    }

    private struct Odd: Error {}

    private let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
    private let takesOddNumbers = Atomic(false)

    private func withWorker(_ backend: RedisBackend, _ body: () async throws -> Void) async throws {
        let worker = Worker(backend, logger: silent) {
            Handler(Half.self) { [self] job, _ in
                guard job.number.isMultiple(of: 2) || takesOddNumbers.load(ordering: .relaxed) else { throw Odd() }
                return job.number / 2
            }
        }
        let running = Task { try await worker.run() }
        defer { running.cancel() }
        try await body()
        worker.stop(.immediately)
        try await running.value
    }

    private func error(of handle: JobHandle<Int>, within limit: Duration = .seconds(20)) async -> JobError.Code? {
        await #expect(throws: JobError.self) { try await handle.output(timeout: limit) }?.code
    }

    @Test("an output, a failure, and the output of another life after it")
    func lives() async throws {
        let (backend, _) = try RedisBackend.onTestServer(prefix: "output\(UUID().uuidString.prefix(8)):")
        let jobs = JobClient(backend, logger: silent)
        try await withWorker(backend) {
            let even = try await jobs.enqueue(Half(number: 8))
            #expect(try await even.output(timeout: .seconds(20)) == 4)
            #expect(try await even.output(timeout: .seconds(20)) == 4, "it is still there")
            let odd = try await jobs.enqueue(Half(number: 7))
            #expect(await error(of: odd) == .failed)
            takesOddNumbers.store(true, ordering: .relaxed)
            #expect(try await backend.requeue(JobFilter(ids: [odd.id]), arguments: nil) == 1)
            #expect(try await odd.output(timeout: .seconds(20)) == 3)
        }
    }

    @Test("jobs that end without a worker, and without a result")
    func others() async throws {
        let (backend, _) = try RedisBackend.onTestServer(prefix: "output\(UUID().uuidString.prefix(8)):")
        let jobs = JobClient(backend, logger: silent)
        let cancelled = try await jobs.enqueue(Half(number: 2))
        let cancelledUnkept = try await jobs.enqueue(Half(number: 2), .result(.ignore))
        let ends = [cancelled, cancelledUnkept].map { handle in Task { await error(of: handle) } }
        for handle in [cancelled, cancelledUnkept] { #expect(try await handle.cancel() == .cancelled) }
        for end in ends { #expect(await end.value == .cancelled) }
        // A caller that hears nothing looks again only after two seconds.
        for handle in [cancelled, cancelledUnkept] {
            #expect(await error(of: handle, within: .milliseconds(1500)) == .cancelled)
        }
        let unkept = try await jobs.enqueue(Half(number: 2), .result(.ignore))
        try await withWorker(backend) { #expect(await error(of: unkept) == .unknown) }
        #expect(await error(of: unkept, within: .milliseconds(1500)) == .unknown)
        let waiting = try await jobs.enqueue(Half(number: 2))
        let late = await #expect(throws: JobError.self) { try await waiting.output(timeout: .milliseconds(20)) }
        #expect(late?.code == .notEnded)
    }

    @Test("a job of whose end nothing was heard is found all the same")
    func unheard() async throws {
        let (backend, probe) = try RedisBackend.onTestServer(prefix: "output\(UUID().uuidString.prefix(8)):")
        let job = try await JobClient(backend, logger: silent).enqueue(Half(number: 10))
        #expect(try await job.cancel() == .cancelled)
        try await probe.send(
            RESPCommand("DEL", [.text("\(backend.configuration.resultKeyPrefix)celery-task-meta-\(job.id)")]))
        #expect(await error(of: job) == .cancelled)
    }

    @Test("while a job is under way no script is run to see whether it has ended")
    func cost() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let backend = try RedisBackend(url: server.url)
        let probe = try RESPClient(RESPConfiguration(url: server.url))
        let job = try await JobClient(backend, logger: silent).enqueue(Half(number: 2))
        func scripts() async throws -> String? {
            try await probe.send(RESPCommand("INFO commandstats")).text?.split(separator: "\r\n").first {
                $0.hasPrefix("cmdstat_eval")
            }
            .map { String($0.prefix { $0 != "," }) }
        }
        // The producer has old records expire beside what it enqueues; that script is counted as well.
        #expect(try await eventually { try await probe.send(RESPCommand("EXISTS", ["hoist:expired"])) == .integer(1) })
        let before = try await scripts()
        #expect(before != nil)
        #expect(await error(of: job, within: .milliseconds(500)) == .notEnded)
        let after = try await scripts()
        #expect(after == before)
    }
}
