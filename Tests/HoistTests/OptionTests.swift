import Foundation
import Hoist
import HoistTesting
import Testing

/// Public options, each of which must make a difference.
@Suite("Options", .timeLimit(.minutes(3)))
struct OptionTests {
    private struct Odd: Error {}
    private struct Even: Error {}

    @Test("a route by regular expression sends the names that contain a match, and no others")
    func regexRoute() async throws {
        let backend = MemoryBackend()
        let configuration = JobClient.Configuration(routes: [.regex({ #/^media\.(?:video|audio)\./# }, to: "media")])
        let client = JobClient(backend, configuration: configuration, logger: quiet)
        for name in ["media.video.cut", "media.audio.mix", "media.text.spell", "my.media.video.x"] {
            try await client.enqueue(named: name, options: [.id(name)])
        }
        let queues = try await backend.jobs(JobFilter(limit: .max)).reduce(into: [:]) { $0[$1.id] = $1.queue }
        #expect(
            queues == [
                "media.video.cut": "media", "media.audio.mix": "media", "media.text.spell": "default",
                "my.media.video.x": "default",
            ])
    }

    @Test("the priority of a kind of job counts, and a call's own comes before it")
    func priority() async throws {
        struct Urgent: Job {
            static let name = "option.urgent"
            static let options = JobOptions(priority: 8)
        }
        let backend = MemoryBackend()
        let client = JobClient(backend, logger: quiet)
        try await client.enqueue(Work(), .id("usual"))
        try await client.enqueue(Urgent(), .id("urgent"))
        try await client.enqueue(Urgent(), .id("calm"), .priority(0))
        try await client.enqueue(Work(), .id("most"), .priority(9))
        let order = Shared([JobID]())
        let worker = Worker(backend, lanes: [.async(1)], configuration: .init(isBurst: true), logger: quiet) {
            Handler(Work.self) { _, context in order.change { $0.append(context.id) } }
            Handler(Urgent.self) { _, context in order.change { $0.append(context.id) } }
        }
        try await worker.run()
        #expect(order.value.prefix(2) == ["most", "urgent"] && order.value.last == "calm", "\(order.value)")
    }

    @Test("retryOnly gives up at any other error, neverRetryAfter at any other kind of failure")
    func retries() async throws {
        struct Choosy: Job {
            static let name = "option.choosy"
            static let options = JobOptions(retry: .fixed(.seconds(1), maxAttempts: 5), retryOnly: [Odd.self])
            var isOdd: Bool
        }
        struct Slow: Job {
            static let name = "option.slow"
            static let options = JobOptions(
                retry: .fixed(.seconds(1), maxAttempts: 5), neverRetryAfter: [.timedOut], timeLimit: .milliseconds(20))
            var waits: Bool
        }
        let inline = InlineJobs {
            Handler(Choosy.self) { job, _ in if job.isOdd { throw Odd() } else { throw Even() } }
            Handler(Slow.self) { _, _ in throw Odd() }
        }
        #expect(try await inline.client.enqueue(Choosy(isOdd: true)).state() == .retrying)
        #expect(try await inline.client.enqueue(Choosy(isOdd: false)).state() == .failed)
        #expect(try await inline.client.enqueue(Slow(waits: false)).state() == .retrying)
        let backend = MemoryBackend()
        let worker = Worker(backend, logger: quiet) {
            Handler(Slow.self) { _, _ in try await Task.sleep(for: .seconds(60)) }
        }
        try await withWorker(worker) {
            let slow = try await JobClient(backend, logger: quiet).enqueue(Slow(waits: true))
            let isGivenUp = try await eventually { try await slow.state() == .failed }
            let kind = try await slow.record()?.failure?.kind
            #expect(isGivenUp && kind == .timedOut)
        }
    }

    @Test("a job expires after the time that its kind says")
    func expiry() async throws {
        struct Fleeting: Job {
            static let name = "option.fleeting"
            static let options = JobOptions(expiresAfter: .seconds(30))
        }
        let clock = TestClock()
        let backend = MemoryBackend(clock: clock)
        let handle = try await JobClient(backend, logger: quiet).enqueue(Fleeting())
        clock.advance(by: .seconds(29))
        #expect(try await handle.state() == .waiting)
        clock.advance(by: .seconds(2))
        #expect(try await handle.state() == .expired)
    }

    @Test("a result is kept as long as its kind says, or its call")
    func retention() async throws {
        struct Kept: Job {
            static let name = "option.kept"
            static let options = JobOptions(result: .keep(for: .seconds(60)))
            typealias Output = Int
        }
        let inline = InlineJobs { Handler(Kept.self) { _, _ in 1 } }
        let usual = try await inline.client.enqueue(Kept())
        let longer = try await inline.client.enqueue(Kept(), .result(.keep(for: .seconds(600))))
        inline.clock.advance(by: .seconds(61))
        #expect(try await usual.record() == nil)
        #expect(try await longer.state() == .succeeded)
        inline.clock.advance(by: .seconds(540))
        #expect(try await longer.record() == nil)
    }

    @Test("a call may ask that its job begins once only")
    func delivery() async throws {
        let clock = TestClock()
        let backend = MemoryBackend(clock: clock)
        let client = JobClient(backend, logger: quiet)
        let once = try await client.enqueue(Work(), .delivery(.atMostOnce))
        let usual = try await client.enqueue(Work())
        let presence = WorkerPresence(
            id: "w", name: "w", queues: ["default"], jobNames: [Work.name], startedAt: clock.now)
        _ = try await backend.join(presence, lease: .seconds(10))
        let claim = Claim(queue: "default", kind: "async", jobNames: [Work.name])
        _ = try await backend.turn("w", WorkerTurn(claims: [claim], budget: ClaimBudget(kinds: ["async": 2])))
        clock.advance(by: .seconds(11))
        #expect(try await once.state() == .failed)
        #expect(try await usual.state() == .waiting)
    }

    @Test("the limits of a worker count where neither job nor call sets one")
    func workerLimits() async throws {
        let backend = MemoryBackend()
        let configuration = Worker.Configuration(limits: RunLimits(time: .milliseconds(30)))
        let worker = Worker(backend, configuration: configuration, logger: quiet) {
            Handler(named: "waits") { _, _ in
                try await Task.sleep(for: .milliseconds(300))
                return 1
            }
        }
        let client = JobClient(backend, logger: quiet)
        try await withWorker(worker) {
            let limited = try await client.enqueue(named: "waits")
            let free = try await client.enqueue(named: "waits", options: [.timeLimit(.seconds(30))])
            let output = try await free.output(timeout: .seconds(30))
            let hasEnded = try await eventually { try await limited.record()?.state.hasEnded == true }
            let failure = try await limited.record()?.failure?.kind
            #expect(output == 1 && hasEnded && failure == .timedOut)
        }
    }

    @Test("jobs that need a resource run as many at a time as there is of it")
    func resources() async throws {
        let backend = MemoryBackend()
        let (now, most) = (Shared(0), Shared(0))
        let worker = Worker(
            backend, lanes: [.async(8)], configuration: .init(isBurst: true, resources: ["gpu": 2]), logger: quiet
        ) {
            Handler(Work.self) { _, _ in
                now.change { $0 += 1 }
                let running = now.value
                most.change { $0 = max($0, running) }
                try await Task.sleep(for: .milliseconds(5))
                now.change { $0 -= 1 }
            }.needs("gpu")
        }
        try await JobClient(backend, logger: quiet).enqueue(contentsOf: (0..<12).map { Work(number: $0) })
        try await worker.run()
        #expect(most.value == 2)
    }

    @Test("a quiet worker takes nothing more, and lets what runs end, however long that takes")
    func quietStop() async throws {
        let backend = MemoryBackend()
        let client = JobClient(backend, logger: quiet)
        let (began, go) = (Shared(0), Shared(false))
        let worker = Worker(
            backend, configuration: .init(drainTimeout: .milliseconds(10)), logger: quiet
        ) {
            Handler(Work.self) { _, _ in
                began.change { $0 += 1 }
                _ = await go.wait { $0 }
            }
        }
        let running = Task { try await worker.run() }
        let first = try await client.enqueue(Work())
        #expect(await began.wait { $0 == 1 })
        worker.stop(.quiet)
        #expect(try await eventually { !worker.health.isConsuming })
        let second = try await client.enqueue(Work())
        // Longer than a drain would wait.
        #expect(await !began.wait(.milliseconds(100)) { $0 == 2 })
        #expect(try await first.state() == .running)
        go.change { $0 = true }
        try await running.value
        #expect(try await first.state() == .succeeded)
        #expect(try await second.state() == .waiting)
    }
}
