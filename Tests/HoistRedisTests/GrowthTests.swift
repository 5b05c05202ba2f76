import Foundation
import Hoist
@testable import HoistRedis
import HoistTesting
import Logging
import RESP
import TestServers
import Testing

/// What a call costs the server, where that must not grow.
@Suite("Costs that do not grow on Redis", .serialized, .timeLimit(.minutes(2)))
struct GrowthTests {
    let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

    @Test(
        "a cancellation reads no queue: by the record, near the front or far behind, and not at all for an unknown id")
    func cancelling() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let backend = try RedisBackend(url: server.url)
        let client = JobClient(backend, logger: silent)
        struct Numbered: Job {
            static let name = "job"
            var number: Int
        }
        let handles = try await client.enqueue(contentsOf: (0..<20_000).map(Numbered.init))
        let probe = try RESPClient(RESPConfiguration(url: server.url))
        defer { probe.close() }
        func sent() async throws -> Int64 {
            let text = try await probe.send(RESPCommand("INFO", ["stats"])).text ?? ""
            return text.firstMatch(of: /total_net_output_bytes:(\d+)/).flatMap { Int64($0.1) } ?? 0
        }
        for (handle, limit) in [(handles[0], 50_000), (handles[19_999], 600_000)] {
            let before = try await sent()
            #expect(try await handle.cancel() == .cancelled)
            let cost = try await sent() - before
            #expect(cost < limit, "\(cost) bytes")
        }
        let before = try await sent()
        #expect(try await backend.cancel("nobody") == .unknown)
        #expect(try await sent() - before < 10_000)
        for handle in [handles[0], handles[19_999]] { #expect(try await handle.state() == .cancelled) }
        let ran = Shared<Set<JobID>>([])
        let worker = Worker(backend, configuration: .init(isBurst: true), logger: silent) {
            Handler(Numbered.self) { _, context in ran.change { _ = $0.insert(context.id) } }
        }
        try await worker.run()
        #expect(ran.value.count == 19_998)
        #expect(ran.value.isDisjoint(with: [handles[0].id, handles[19_999].id]))
    }

    @Test("an enqueue into a queue with a cap costs the same with many lines of jobs as with none")
    func caps() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let backend = try RedisBackend(url: server.url)
        let client = JobClient(backend, logger: silent)
        let worker = Worker(backend, lanes: [.async(1)], logger: silent) {
            Handler(named: "job", options: JobOptions(limits: [.running(1, scope: .partition)])) { _, _ in
                try await Task.sleep(for: .seconds(60))
                return .null
            }
        }
        try await withWorker(worker) {
            for number in 0..<600 {
                try await client.enqueue(named: "job", options: [.partition("p\(number % 300)")])
            }
            try await backend.limit(queue: "default", to: 10_000)
            let hasLines = try await eventually {
                let counts = try await backend.queues()
                return counts.first?.waiting ?? 0 > 500
            }
            #expect(hasLines)
            let probe = try RESPClient(RESPConfiguration(url: server.url))
            defer { probe.close() }
            try await probe.send(RESPCommand("CONFIG RESETSTAT"))
            for _ in 0..<20 { try await client.enqueue(named: "other", options: [.partition("x")]) }
            let text = try await probe.send(RESPCommand("INFO", ["commandstats"])).text ?? ""
            let lengths = text.firstMatch(of: /cmdstat_llen:calls=(\d+)/).flatMap { Int($0.1) } ?? 0
            #expect(lengths < 20 * 30, "\(lengths) lengths of lists were asked for")
        }
    }

    @Test("what an enqueue into a full queue is told counts the jobs in lines as well")
    func capCountsLines() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let backend = try RedisBackend(url: server.url)
        let client = JobClient(backend, logger: silent)
        let release = Shared(false)
        let worker = Worker(backend, lanes: [.async(4)], logger: silent) {
            Handler(named: "job", options: JobOptions(limits: [.running(1, scope: .partition)])) { _, _ in
                _ = await release.wait(.seconds(60)) { $0 }
                return .null
            }
        }
        try await withWorker(worker) {
            for _ in 0..<10 { try await client.enqueue(named: "job", options: [.partition("same")]) }
            let isHeld = try await eventually { try await backend.queues().first?.running == 1 }
            #expect(isHeld)
            try await backend.limit(queue: "default", to: 10)
            try await client.enqueue(named: "job", options: [.partition("same")])
            let error = await #expect(throws: BackendError.self) {
                try await client.enqueue(named: "job", options: [.partition("same")])
            }
            #expect(error?.code == .full)
            release.change { $0 = true }
            let isDone = try await eventually(.seconds(20)) { try await backend.queues().isEmpty }
            #expect(isDone)
            try await client.enqueue(named: "job", options: [.partition("same")])
        }
    }

    @Test(
        "a job that begins is stored as STARTED where that is asked for, and not otherwise", arguments: [true, false])
    func started(isAsked: Bool) async throws {
        let (backend, probe) = try RedisBackend.onTestServer(prefix: "st\(UUID().uuidString.prefix(8)):") {
            $0.storesStarted = isAsked
        }
        defer { probe.close() }
        let (began, release) = (Shared(0), Shared(false))
        let worker = Worker(backend, configuration: .init(name: "me@here"), logger: silent) {
            Handler(named: "job") { _, _ in
                began.change { $0 += 1 }
                _ = await release.wait { $0 }
                return 7
            }
        }
        let client = JobClient(backend, logger: silent)
        try await withWorker(worker) {
            let handle = try await client.enqueue(named: "job")
            let silentJob = try await client.enqueue(named: "job", options: [.result(.ignore)])
            let both = await began.wait { $0 == 2 }
            #expect(both)
            let stored = try await probe.send(RESPCommand("GET", [.text(backend.keys.result(handle.id))])).text ?? ""
            #expect(stored.contains("STARTED") == isAsked && stored.contains("\"me@here\"") == isAsked)
            let ignored = try await probe.send(RESPCommand("GET", [.text(backend.keys.result(silentJob.id))]))
            #expect(ignored.isNull)
            let record = try await handle.record()
            #expect(record?.state == .running && record?.progress == nil)
            release.change { $0 = true }
            let output = try await handle.output(timeout: .seconds(30))
            #expect(output == 7)
        }
    }
}
