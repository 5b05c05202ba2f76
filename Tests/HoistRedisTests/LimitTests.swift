import Foundation
import Hoist
import HoistRedis
import HoistTesting
import Logging
import RESP
import Synchronization
import TestServers
import Testing

/// Which jobs ran and when, as the handlers saw it.
private final class Diary: Sendable {
    private struct State {
        var running: [String: Int] = [:]
        var most: [String: Int] = [:]
        var starts: [(text: String, at: ContinuousClock.Instant)] = []
    }

    private let state = Mutex(State())

    func begin(_ key: String, _ text: String) {
        state.withLock { state in
            state.starts.append((text, .now))
            for key in Set([key, ""]) {
                state.running[key, default: 0] += 1
                state.most[key] = max(state.most[key] ?? 0, state.running[key] ?? 0)
            }
        }
    }

    func end(_ key: String) {
        state.withLock { state in for key in Set([key, ""]) { state.running[key, default: 0] -= 1 } }
    }

    /// The largest number of jobs that ran at one time: of a key, or of all.
    func most(_ key: String = "") -> Int { state.withLock { $0.most[key] ?? 0 } }
    var texts: [String] { state.withLock { $0.starts.map(\.text) } }
    var times: [ContinuousClock.Instant] { state.withLock { $0.starts.map(\.at) } }
}

@Suite("Limits on Redis", .timeLimit(.minutes(2)))
struct LimitTests {
    private struct Mail: Job {
        static let name = "mail"
        var tenant: String
        var text = ""
        var milliseconds = 0
        var partitionKey: String? { tenant.isEmpty ? nil : tenant }
    }

    private let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
    private let diary = Diary()
    /// What a job with a gate waits for: the first one for the first ring, the second for the second.
    private let gate = Doorbell()

    private func backend(prefix: String = "l\(UUID().uuidString.prefix(8)):") throws -> RedisBackend {
        try RedisBackend.onTestServer(prefix: prefix).backend
    }

    private func worker(
        _ backend: RedisBackend, slots: Int = 16, queueLimits: [JobLimit]? = nil, _ limits: JobLimit...
    ) -> Worker {
        let (diary, gate) = (diary, gate)
        return Worker(backend, queues: [.queue("default", limits: queueLimits)], lanes: [.async(slots)], logger: silent)
        {
            Handler(
                named: Mail.name, options: JobOptions(limits: limits), partition: { $0.keyword["tenant"]?.stringValue }
            ) {
                arguments, context in
                let (tenant, text) = (
                    arguments.keyword["tenant"]?.stringValue ?? "", arguments.keyword["text"]?.stringValue ?? ""
                )
                diary.begin(tenant, text)
                defer { diary.end(tenant) }
                if text.hasPrefix("fail"), context.attempt == 1 {
                    throw JobDirective.retry(after: .milliseconds(100), maxAttempts: 2)
                }
                if text == "429", context.attempt == 1, diary.texts.count(where: { $0 == "429" }) == 1 {
                    throw JobDirective.closeQueue(for: .milliseconds(700))
                }
                if text.hasPrefix("gated") {
                    await gate.wait(after: text.hasSuffix("2") ? 1 : 0, for: .seconds(30), clock: SystemJobClock())
                }
                try await Task.sleep(for: .milliseconds(arguments.keyword["milliseconds"]?.integerValue ?? 0))
                return .null
            }
            Handler(named: "other") { _, _ in
                diary.begin("other", "other")
                diary.end("other")
                return .null
            }
        }
    }

    /// Runs workers until all of the jobs have ended.
    private func run(_ workers: [Worker], until handles: [JobHandle<NoOutput>]) async throws {
        let running = workers.map { worker in Task { try await worker.run() } }
        for handle in handles { try await handle.output(timeout: .seconds(60)) }
        for worker in workers { worker.stop() }
        for task in running { try await task.value }
    }

    @Test(
        "of a limited kind no more run at once than the limit, on all workers together, and those over it hold no slot")
    func running() async throws {
        let backend = try backend()
        let client = JobClient(backend, logger: silent)
        let handles = try await client.enqueue(
            contentsOf: (0..<40).map { Mail(tenant: "", text: "\($0)", milliseconds: 200) })
        let others = try await client.enqueue(named: "other")
        // Each worker has sixteen slots; the forty jobs may use three in all, so the job behind them starts at once.
        let workers = [worker(backend, .running(3)), worker(backend, .running(3))]
        let tasks = workers.map { worker in Task { try await worker.run() } }
        _ = try await others.output(timeout: .seconds(30))
        #expect(diary.texts.count < 30, "it did not wait for the forty")
        for handle in handles { try await handle.output(timeout: .seconds(60)) }
        #expect(diary.most("") <= 4 && diary.most("") >= 3, "3 mails and the other; \(diary.most(""))")
        // In order, except for the three that run at the same time, of which any may be noted first.
        let order = diary.texts.compactMap { Int($0) }
        for (place, number) in order.enumerated() {
            #expect(order[(place + 1)...].count { $0 < number } <= 2, "\(diary.texts)")
        }
        for worker in workers { worker.stop() }
        for task in tasks { try await task.value }
    }

    @Test("each partition has its own number of running jobs")
    func runningByPartition() async throws {
        let backend = try backend()
        let client = JobClient(backend, logger: silent)
        let jobs = (0..<30).map { Mail(tenant: ["a", "b", "c"][$0 % 3], text: "\($0)", milliseconds: 100) }
        let handles = try await client.enqueue(contentsOf: jobs)
        try await run(
            [worker(backend, .running(2, scope: .partition)), worker(backend, .running(2, scope: .partition))],
            until: handles)
        for tenant in ["a", "b", "c"] { #expect(diary.most(tenant) == 2, "tenant \(tenant): \(diary.most(tenant))") }
        #expect(diary.most() >= 5, "partitions do not wait for one another; \(diary.most())")
    }

    @Test("a rate is kept by all workers together, and costs count")
    func rate() async throws {
        let backend = try backend()
        let client = JobClient(backend, logger: silent)
        var handles = try await client.enqueue(contentsOf: (0..<10).map { Mail(tenant: "", text: "\($0)") })
        handles += try await client.enqueue(contentsOf: [Mail(tenant: "", text: "dear")], [.cost(5)])
        handles += try await client.enqueue(contentsOf: [Mail(tenant: "", text: "last")])
        let limit = JobLimit.rate(20, per: .seconds(1), burst: 1)
        let started = ContinuousClock.now
        try await run([worker(backend, limit), worker(backend, limit)], until: handles)
        // 50 ms between any two starts, and five times that after the job with a cost of 5.
        let whole = started.duration(to: .now)
        #expect(whole >= .milliseconds(10 * 50 + 5 * 50), "\(whole)")
        #expect(Set(diary.texts).count == 12 && diary.texts.count == 12)
    }

    @Test("a rate for each worker is each worker's own")
    func ratePerWorker() async throws {
        let backend = try backend()
        let client = JobClient(backend, logger: silent)
        let handles = try await client.enqueue(contentsOf: (0..<12).map { Mail(tenant: "", text: "\($0)") })
        let limit = JobLimit.rate(10, per: .seconds(1), scope: .worker, burst: 1)
        let started = ContinuousClock.now
        try await run([worker(backend, limit), worker(backend, limit)], until: handles)
        // The two workers together start twenty jobs a second.
        let whole = started.duration(to: .now)
        #expect(whole >= .milliseconds(500), "\(whole)")
    }

    @Test("a queue has limits of its own, for all kinds of jobs")
    func queueLimit() async throws {
        let backend = try backend()
        let client = JobClient(backend, logger: silent)
        let handles = try await client.enqueue(
            contentsOf: (0..<10).map { Mail(tenant: "t\($0)", text: "\($0)", milliseconds: 10) })
        for _ in 0..<5 { try await client.enqueue(named: "other") }
        try await run(
            [worker(backend, queueLimits: [.running(1)]), worker(backend, queueLimits: [.running(1)])], until: handles)
        #expect(try await eventually { diary.texts.count == 15 || true })
        #expect(diary.most() == 1)
    }

    @Test("partitions take turns: one with a thousand jobs does not keep one with two waiting")
    func turns() async throws {
        let backend = try backend()
        let client = JobClient(backend, logger: silent)
        _ = try await client.enqueue(contentsOf: (0..<1000).map { Mail(tenant: "big", text: "big \($0)") })
        let small = try await client.enqueue(contentsOf: (0..<2).map { Mail(tenant: "small", text: "small \($0)") })
        let none = try await client.enqueue(contentsOf: [Mail(tenant: "", text: "none")])
        try await run([worker(backend, slots: 1, .fair)], until: small + none)
        let texts = diary.texts
        #expect(try #require(texts.firstIndex(of: "small 1")) < 10, "\(texts.prefix(12))")
        #expect(try #require(texts.firstIndex(of: "none")) < 20)
    }

    @Test("an ordered partition runs one after the other, in order, through failures and on several workers")
    func ordered() async throws {
        let backend = try backend()
        let client = JobClient(backend, logger: silent)
        var handles: [JobHandle<NoOutput>] = []
        for number in 0..<12 {
            for tenant in ["a", "b"] {
                let text = number == 3 ? "fail \(tenant)" : "\(tenant)\(number)"
                // Priorities do not matter here.
                handles.append(
                    try await client.enqueue(Mail(tenant: tenant, text: text, milliseconds: 2), .priority(number % 10)))
            }
        }
        try await run([worker(backend, .ordered), worker(backend, .ordered)], until: handles)
        for tenant in ["a", "b"] {
            let seen = diary.texts.filter { $0.hasSuffix(tenant) || $0.hasPrefix(tenant) }
            #expect(seen.count == 13)
            let first = try #require(seen.firstIndex(of: "fail \(tenant)"))
            #expect(seen[first + 1] == "fail \(tenant)", "nothing of its partition between the two attempts: \(seen)")
            #expect(diary.most(tenant) == 1)
        }
    }

    @Test("of equally urgent jobs an ordered partition keeps the order exactly")
    func orderedExactly() async throws {
        let backend = try backend()
        let client = JobClient(backend, logger: silent)
        let handles = try await client.enqueue(
            contentsOf: (0..<60).map { Mail(tenant: "a", text: $0 % 10 == 3 ? "fail \($0)" : "\($0)", milliseconds: 1) }
        )
        try await run(
            [worker(backend, .ordered), worker(backend, .ordered), worker(backend, .ordered)], until: handles)
        let expected = (0..<60).flatMap { $0 % 10 == 3 ? ["fail \($0)", "fail \($0)"] : ["\($0)"] }
        #expect(diary.texts == expected)
    }

    @Test("where the limit keeps what runs, a new one is cancelled with the reason")
    func dropNew() async throws {
        let backend = try backend()
        let client = JobClient(backend, logger: silent)
        let worker = worker(backend, .running(1, scope: .partition, whenFull: .dropNew))
        let running = Task { try await worker.run() }
        let first = try await client.enqueue(Mail(tenant: "a", text: "gated first"))
        #expect(try await eventually { diary.texts == ["gated first"] })
        let second = try await client.enqueue(Mail(tenant: "a", text: "second"))
        let other = try await client.enqueue(Mail(tenant: "b", text: "other"))
        #expect(try await eventually { try await second.state() == .cancelled })
        #expect(try await second.record()?.failure?.kind == .dropped)
        try await other.output(timeout: .seconds(30))
        gate.ring()
        try await first.output(timeout: .seconds(30))
        #expect(Set(diary.texts) == ["gated first", "other"])
        worker.stop()
        try await running.value
    }

    @Test(
        "where only the newest counts, the one that runs is stopped and those that wait are dropped, even by a worker without a free slot"
    )
    func cancelOld() async throws {
        let backend = try backend()
        let client = JobClient(backend, logger: silent)
        let worker = worker(backend, slots: 1, .running(1, scope: .partition, whenFull: .cancelOld))
        let running = Task { try await worker.run() }
        let first = try await client.enqueue(Mail(tenant: "a", text: "first", milliseconds: 60_000))
        #expect(try await eventually { diary.texts == ["first"] })
        let later = try await client.enqueue(contentsOf: ["second", "third"].map { Mail(tenant: "a", text: $0) })
        try await later[1].output(timeout: .seconds(30))
        #expect(try await eventually { try await first.state() == .cancelled })
        worker.stop()
        try await running.value
    }

    @Test("a job that closes its queue keeps every worker from it for that time, and is tried again itself")
    func closeQueue() async throws {
        let backend = try backend()
        let client = JobClient(backend, logger: silent)
        let workers = [worker(backend, slots: 1), worker(backend, slots: 1)]
        let tasks = workers.map { worker in Task { try await worker.run() } }
        let refused = try await client.enqueue(Mail(tenant: "", text: "429"))
        #expect(try await eventually { diary.texts.isEmpty ? false : try await refused.state() != .running })
        let next = try await client.enqueue(Mail(tenant: "", text: "next"))
        try await next.output(timeout: .seconds(30))
        let times = zip(diary.texts, diary.times)
        let (first, second) = (times.first { $0.0 == "429" }?.1, times.first { $0.0 == "next" }?.1)
        #expect(try #require(first).duration(to: try #require(second)) >= .milliseconds(650))
        try await refused.output(timeout: .seconds(30))
        #expect(diary.texts.count { $0 == "429" } == 2)
        for worker in workers { worker.stop() }
        for task in tasks { try await task.value }
    }

    @Test("jobs that a limit holds up are counted, listed, found, edited, cancelled and purged like all that wait")
    func administration() async throws {
        let backend = try backend()
        let client = JobClient(backend, logger: silent)
        let worker = worker(backend, .running(1))
        let running = Task { try await worker.run() }
        let first = try await client.enqueue(Mail(tenant: "", text: "gated first"))
        #expect(try await eventually { diary.texts == ["gated first"] })
        for number in 0..<4 { try await client.enqueue(Mail(tenant: "", text: "w\(number)"), .id("w\(number)")) }
        #expect(
            try await eventually {
                let queue = try await backend.queues().first
                return queue?.waiting == 4 && queue?.running == 1
            })
        #expect(Set(try await backend.jobs(JobFilter(states: [.waiting])).map(\.id)) == ["w0", "w1", "w2", "w3"])
        #expect(try await backend.cancel("w1") == .cancelled)
        var arguments = try #require(try await backend.arguments(of: "w2"))
        arguments.keyword["text"] = "changed"
        #expect(try await backend.edit("w2", .arguments(arguments)))
        gate.ring()
        try await first.output(timeout: .seconds(30))
        try await client.handle(of: "w3", Mail.self).output(timeout: .seconds(30))
        #expect(diary.texts == ["gated first", "w0", "changed", "w3"])

        _ = try await client.enqueue(Mail(tenant: "", text: "gated 2"))
        try await client.enqueue(contentsOf: (0..<5).map { Mail(tenant: "", text: "p\($0)") })
        #expect(try await eventually { diary.texts.last == "gated 2" })
        #expect(try await backend.purge(queue: "default") == 5)
        gate.ring()
        let last = try await client.enqueue(Mail(tenant: "", text: "last"))
        try await last.output(timeout: .seconds(30))
        worker.stop()
        try await running.value
    }

    @Test(
        "a person's limits win over those of the code, at once and until they are taken back; without any, what waits goes on"
    )
    func changedLive() async throws {
        let backend = try backend()
        let client = JobClient(backend, logger: silent)
        let worker = worker(backend, .running(1))
        let running = Task { try await worker.run() }
        let handles = try await client.enqueue(
            contentsOf: (0..<12).map { Mail(tenant: "", text: "\($0)", milliseconds: 700) })
        #expect(try await eventually { diary.texts.count >= 2 })
        #expect(diary.most() == 1)
        #expect(try await backend.limits() == [.job("mail"): [.running(1)]])
        try await backend.setLimits([], for: .job("mail"))
        #expect(try await backend.limits() == [:])
        for handle in handles { try await handle.output(timeout: .seconds(30)) }
        #expect(diary.most() > 4, "\(diary.most())")
        try await backend.setLimits(nil, for: .job("mail"))
        #expect(try await backend.limits() == [.job("mail"): [.running(1)]])
        worker.stop()
        try await running.value
    }

    @Test("a message of another producer belongs to what its arguments say")
    func foreignProducer() async throws {
        let backend = try backend()
        let client = JobClient(backend, logger: silent)
        for number in 0..<12 {
            // As Python sends it: nothing of ours in the headers.
            try await client.enqueue(
                named: "mail",
                arguments: Arguments(keyword: ["tenant": "t", "text": .string("\(number)"), "milliseconds": 5]))
        }
        let last = try await client.enqueue(
            named: "mail", arguments: Arguments(keyword: ["tenant": "t", "text": "last"]))
        let worker = worker(backend, .running(1, scope: .partition))
        let running = Task { try await worker.run() }
        _ = try await last.output(timeout: .seconds(20))
        #expect(diary.most("t") == 1)
        #expect(diary.texts == (0..<12).map { "\($0)" } + ["last"])
        worker.stop()
        try await running.value
    }

    @Test("an enqueue that may wait does so until there is room")
    func waitsForRoom() async throws {
        let backend = try backend()
        let client = JobClient(backend, configuration: .init(waitsWhenFull: .seconds(20)), logger: silent)
        try await backend.limit(queue: "default", to: 2)
        try await client.enqueue(contentsOf: ["a", "b"].map { Mail(tenant: "", text: $0) })
        let third = Task { try await client.enqueue(Mail(tenant: "", text: "c")) }
        let hasty = JobClient(backend, configuration: .init(waitsWhenFull: .milliseconds(100)), logger: silent)
        let error = await #expect(throws: BackendError.self) { try await hasty.enqueue(Mail(tenant: "", text: "d")) }
        #expect(error?.code == .full)
        let worker = worker(backend)
        let running = Task { try await worker.run() }
        try await third.value.output(timeout: .seconds(30))
        worker.stop()
        try await running.value
    }

    @Test(
        "a dead worker's jobs give back what they held of a limit, and an ordered partition goes on with the one that it died with"
    )
    func deadWorker() async throws {
        let clock = TestClock()
        let prefix = "l\(UUID().uuidString.prefix(8)):"
        let (backend, _) = try RedisBackend.onTestServer(prefix: prefix) { $0.clock = clock }
        let client = JobClient(backend, logger: silent)
        try await backend.setLimits([.running(2)], for: .job("mail"))
        try await backend.setLimits([.ordered], for: .queue("default"))
        for tenant in ["a", "b", "c"] {
            for number in 1...2 { try await client.enqueue(Mail(tenant: tenant), .id("\(tenant)\(number)")) }
        }
        func claim(_ worker: WorkerID) async throws -> [Delivery] {
            let presence = WorkerPresence(
                id: worker, name: worker, queues: ["default"], jobNames: ["mail"], startedAt: clock.now)
            _ = try await backend.join(presence, lease: .seconds(10))
            let claim = Claim(queue: "default", kind: "async", jobNames: ["mail"])
            return try await backend.turn(
                worker, WorkerTurn(claims: [claim], budget: ClaimBudget(kinds: ["async": 10]))
            )
            .deliveries
        }
        #expect(try await claim("first").map(\.jobID) == ["a1", "b1"])
        #expect(try await claim("second").isEmpty)
        clock.advance(by: .seconds(11))
        var order: [JobID] = []
        for _ in 0..<6 {
            // Two at a time at most, whichever worker had the jobs before; of those whose worker died, one.
            let deliveries = try await claim("third")
            #expect((1...2).contains(deliveries.count) && deliveries.filter { $0.lostWorkers > 0 }.count <= 1)
            order += deliveries.map(\.jobID)
            let settlements = deliveries.map {
                Settlement(
                    jobID: $0.jobID, token: $0.token, outcome: .succeeded(output: Array("null".utf8), retention: nil),
                    startedAt: clock.now,
                    finishedAt: clock.now)
            }
            _ = try await backend.turn("third", WorkerTurn(settlements: settlements))
            if order.count == 6 { break }
        }
        for tenant in ["a", "b", "c"] {
            #expect(order.filter { $0.hasPrefix(tenant) } == ["\(tenant)1", "\(tenant)2"], "\(order)")
        }
    }

    @Test("a worker refuses limits that its backend cannot keep")
    func refused() async throws {
        var backend = MemoryBackend().backend
        backend.limits = nil
        let worker = Worker(backend, logger: silent) {
            Handler(named: "mail", options: JobOptions(limits: [.running(1)])) { _, _ in .null }
        }
        let error = await #expect(throws: WorkerError.self) { try await worker.run() }
        #expect(error?.message.contains("job mail has limits") == true)
    }
}
