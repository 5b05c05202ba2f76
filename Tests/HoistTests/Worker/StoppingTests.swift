import Foundation
import Hoist
import HoistTesting
import Synchronization
import Testing

@Suite("Stopping a worker", .timeLimit(.minutes(3)))
struct StoppingTests {
    let backend = MemoryBackend()
    var client: JobClient { JobClient(backend, logger: quiet) }

    private func worker(drain: Duration, _ handle: Handler) -> Worker {
        var configuration = Worker.Configuration()
        configuration.drainTimeout = drain
        return Worker(backend, configuration: configuration, logger: quiet) { handle }
    }

    @Test("a drained worker finishes what it has and takes no more")
    func drain() async throws {
        let started = Shared(0)
        let go = Shared(false)
        let worker = worker(
            drain: .seconds(20),
            Handler(Work.self) { _, _ in
                started.change { $0 += 1 }
                _ = await go.wait { $0 }
            })
        let running = Task { try await worker.run() }
        let first = try await client.enqueue(Work())
        #expect(await started.wait { $0 == 1 })
        worker.stop()
        #expect(try await eventually { !worker.health.isConsuming })
        let second = try await client.enqueue(Work())
        go.change { $0 = true }
        try await running.value
        #expect(try await first.state() == .succeeded)
        #expect(try await second.state() == .waiting)
    }

    @Test("what is not finished by the deadline goes back at once, with no attempt spent", arguments: [true, false])
    func handBack(handlerListens: Bool) async throws {
        let started = Shared(0)
        let worker = worker(
            drain: .milliseconds(50),
            Handler(Work.self) { _, _ in
                started.change { $0 += 1 }
                repeat { try? await Task.sleep(for: .milliseconds(20)) } while !handlerListens && started.value < 2
                try Task.checkCancellation()
            })
        let running = Task { try await worker.run() }
        let handle = try await client.enqueue(Work())
        #expect(await started.wait { $0 == 1 })
        worker.stop()
        try await running.value
        let record = try #require(try await handle.record())
        if !handlerListens {
            #expect(record.state == .waiting && record.lostWorkers == 0)
            #expect(record.history.map(\.outcome) == ["handed back"])
        }
        started.change { $0 = 2 }
    }

    @Test("a second, harder stop shortens the first")
    func secondStop() async throws {
        let started = Shared(false)
        let worker = worker(
            drain: .seconds(3600),
            Handler(Work.self) { _, _ in
                started.change { $0 = true }
                try await Task.sleep(for: .seconds(3600))
            })
        let running = Task { try await worker.run() }
        let handle = try await client.enqueue(Work())
        #expect(await started.wait { $0 })
        worker.stop(.drain)
        worker.stop(.immediately)
        try await running.value
        #expect(try await handle.state() == .waiting)
    }

    @Test("burst mode ends when the queues are empty, delayed jobs included")
    func burst() async throws {
        var configuration = Worker.Configuration()
        configuration.isBurst = true
        let done = Shared(0)
        try await client.enqueue(contentsOf: (0..<10).map { Work(number: $0) })
        try await client.enqueue(Work(), .after(.milliseconds(100)))
        try await Worker(backend, configuration: configuration, logger: quiet) {
            Handler(Work.self) { _, _ in done.change { $0 += 1 } }
        }.run()
        #expect(done.value == 11)
    }

    @Test("a backend that is away for a while loses nothing")
    func faults() async throws {
        let faulty = FaultyBackend(backend)
        var configuration = Worker.Configuration()
        configuration.isBurst = true
        let done = Shared(0)
        try await client.enqueue(contentsOf: (0..<20).map { Work(number: $0) })
        faulty.inject(nil, .refuse, nil, .refuse, .refuse, nil, .loseAnswer, nil)
        try await Worker(faulty, lanes: [.async(4)], configuration: configuration, logger: quiet) {
            Handler(Work.self) { _, _ in done.change { $0 += 1 } }
        }.run()
        let states = try await backend.jobs(JobFilter()).map(\.state)
        #expect(states.count == 20)
        #expect(states.allSatisfy { $0 == .succeeded }, "\(states)")
        #expect(done.value >= 20)
    }

    @Test("a job that was given up because its worker died runs the failure hooks of a live worker, once")
    func hooksAfterDeath() async throws {
        let clock = TestClock()
        let backend = MemoryBackend(clock: clock)
        let client = JobClient(backend, logger: quiet)
        let heard = Mutex<[String]>([])
        var configuration = Worker.Configuration()
        // The clock is moved by more than a usual lease: this worker is to live on.
        configuration.lease = .seconds(60)
        configuration.onDeadLetter = { id, failure in heard.withLock { $0.append("dead letter \(id) \(failure.kind)") }
        }
        let worker = Worker(backend, configuration: configuration, logger: quiet) {
            Handler(named: "known") { _, _ in .null }.onFailure { context, failure in
                heard.withLock { $0.append("failure \(context.id) \(failure.kind) \(context.lostWorkers)") }
            }
        }
        let dead = WorkerPresence(
            id: "dead", name: "dead", queues: ["default"], jobNames: ["known", "strange"], startedAt: clock.now)
        #expect(try await backend.join(dead, lease: .seconds(10)))
        let atMostOnce = JobOptions(delivery: .atMostOnce)
        for name in ["known", "strange"] {
            try await client.enqueue(named: name, defaults: atMostOnce, options: [.id(name)])
        }
        let claims = [Claim(queue: "default", kind: "k", jobNames: ["known", "strange"])]
        let turn = WorkerTurn(claims: claims, budget: ClaimBudget(kinds: ["k": 9]))
        #expect(try await backend.turn("dead", turn).deliveries.count == 2)
        try await withWorker(worker) {
            let isConsuming = try await eventually { worker.health.isConsuming }
            clock.advance(by: .seconds(11))
            let hasHeard = try await eventually {
                // The worker itself may look only when it renews its lease. Any program's look finds the dead one.
                _ = try await backend.jobs(JobFilter())
                return heard.withLock { $0.count } >= 3
            }
            #expect(isConsuming && hasHeard, "\(heard.withLock { $0 }) \(worker.health)")
        }
        #expect(
            heard.withLock { $0.sorted() } == [
                "dead letter known workerLost", "dead letter strange workerLost", "failure known workerLost 1",
            ])
    }
}
