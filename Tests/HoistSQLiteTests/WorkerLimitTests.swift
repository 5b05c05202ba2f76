import Foundation
import Hoist
import HoistSQLite
import HoistTesting
import Logging
import Testing

/// What limits do to real workers on the embedded backends.
@Suite("Limits of workers without a server", .timeLimit(.minutes(3)))
struct WorkerLimitTests {
    private let folder: TemporaryFolder
    private let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

    init() throws { folder = try TemporaryFolder() }

    private func backends() throws -> [Backend] {
        [MemoryBackend().backend, try SQLiteBackend(path: folder.path("jobs.db")).backend]
    }

    private struct Mail: Job {
        static let name = "mail"
        static let options = JobOptions(limits: [.running(2), .running(1, scope: .partition)])
        var tenant: String
        var partitionKey: String? { tenant }
    }

    @Test("two workers together run no more than the limit, and all of the jobs")
    func running() async throws {
        for backend in try backends() {
            let (now, most, perTenant) = (Shared([String]()), Shared(0), Shared(0))
            let workers = (0..<2).map { _ in
                Worker(backend, configuration: .init(isBurst: false), logger: silent) {
                    Handler(Mail.self) { job, _ in
                        now.change { $0.append(job.tenant) }
                        let running = now.value
                        most.change { $0 = max($0, running.count) }
                        perTenant.change { $0 = max($0, running.count { $0 == job.tenant }) }
                        // The work itself.
                        try await Task.sleep(for: .milliseconds(5))
                        now.change { $0.remove(at: $0.firstIndex(of: job.tenant)!) }
                    }
                }
            }
            let client = JobClient(backend, logger: silent)
            try await client.enqueue(contentsOf: (0..<40).map { Mail(tenant: "t\($0 % 5)") })
            try await withWorker(workers[0]) {
                try await withWorker(workers[1]) {
                    let isDone = try await eventually(.seconds(20)) {
                        try await backend.queues().allSatisfy { $0.waiting + $0.running == 0 }
                    }
                    #expect(isDone)
                }
            }
            #expect(most.value == 2 && perTenant.value == 1, "\(most.value) at a time, \(perTenant.value) of a tenant")
        }
    }

    @Test("a rate is kept, and nobody needs to ask again and again")
    func rate() async throws {
        for backend in try backends() {
            let starts = Shared(0)
            let worker = Worker(backend, logger: silent) {
                Handler(named: "job", options: JobOptions(limits: [.rate(20, per: .seconds(1), burst: 1)])) { _, _ in
                    starts.change { $0 += 1 }
                    return .null
                }
            }
            let client = JobClient(backend, logger: silent)
            for _ in 0..<10 { try await client.enqueue(named: "job") }
            // From before the first start to after the last: what is noted late makes it longer, never shorter.
            let begin = ContinuousClock.now
            try await withWorker(worker) {
                let all = await starts.wait { $0 == 10 }
                #expect(all)
            }
            // Nine pauses of 50 ms.
            let span = begin.duration(to: .now)
            #expect(span >= .milliseconds(450), "\(span)")
        }
    }

    @Test("a paused queue of a running worker rests and goes on; a topic and a broadcast reach it")
    func queues() async throws {
        for backend in try backends() {
            let done = Shared([JobID]())
            let worker = Worker(
                backend, queues: [.queue("default", topics: [.topic("a.*", exchange: "x")])],
                configuration: .init(broadcastChannels: ["news"]), logger: silent
            ) {
                Handler(Mail.self) { _, context in done.change { $0.append(context.id) } }
            }
            let client = JobClient(backend, logger: silent)
            let control = try #require(backend.queueControl)
            try await control.pause(queue: "default")
            try await withWorker(worker) {
                try await client.enqueue(Mail(tenant: "a"), .id("paused"))
                let isConsuming = try await eventually { worker.health.isConsuming }
                #expect(isConsuming && done.value.isEmpty)
                try await control.resume(queue: "default")
                let resumed = await done.wait { $0 == ["paused"] }
                #expect(resumed)
                let copies = try await client.publish(Mail(tenant: "b"), topic: "a.b", exchange: "x")
                #expect(copies.count == 1)
                let topical = await done.wait { $0.contains(copies[0].id) }
                #expect(topical)
                var heard = 0
                let broadcast = try await eventually {
                    heard = try await client.broadcast(Mail(tenant: "c"), on: "news")
                    return heard > 0
                }
                #expect(broadcast)
                let all = await done.wait { $0.count >= 3 }
                #expect(all)
            }
        }
    }
}
