import Foundation
import Hoist
import HoistTesting
import Logging
import Testing

@Suite("Events", .timeLimit(.minutes(3)))
struct EventTests {
    /// Keeps what it hears.
    private struct Listener: EventSink {
        let heard = Shared<[String]>([])
        var interests: EventInterests = .all

        func record(_ event: JobEvent) {
            let text =
                switch event.kind {
                case .sent(let message): "sent \(message.jobName)"
                case .received(let delivery): "received \(delivery.jobID == event.jobID)"
                case .started: "started \(event.attempt)"
                case .progressed(let progress): "progressed \(progress.fraction ?? -1)"
                case .retried(let end): "\(end.outcome.label) \(event.attempt)"
                case .putBack(let end): "put back: \(end.outcome.label)"
                case .ended(let end): "ended: \(end.outcome.label)"
                case .wrote(let lines): "wrote \(lines.map(\.text))"
                case .givenUp(let failure, _): "given up: \(failure.kind)"
                case .takenOver(let worker): "taken over from \(worker)"
                case .cancelAsked(let result): "cancel: \(result)"
                }
            heard.change { $0.append(text) }
        }

        func record(_ event: WorkerEvent) {
            guard event.kind != .heartbeat else { return }
            heard.change { $0.append("\(event.kind)") }
        }
    }

    @Test("a sink hears of a job from the producer to its end, in order")
    func life() async throws {
        let (producer, listener) = (Listener(), Listener())
        let backend = MemoryBackend()
        var configuration = JobClient.Configuration()
        configuration.sinks = [producer]
        let client = JobClient(backend, configuration: configuration, logger: quiet)
        var options = Worker.Configuration(isBurst: true)
        options.sinks = [listener]
        let worker = Worker(backend, configuration: options, logger: quiet) {
            Handler(Work.self) { job, context in
                try await context.report(progress: 0.5)
                if context.attempt == 1 { throw JobDirective.retry(after: .milliseconds(1), maxAttempts: 2) }
                if job.number == 2 { throw JobDirective.deadLetter("no") }
            }
        }
        try await client.enqueue(Work(number: 1), .id("a"))
        try await client.enqueue(Work(number: 1), .id("a"))
        #expect(producer.heard.value == ["sent test.work"], "once for a job that is there already")
        try await worker.run()
        #expect(
            listener.heard.value == [
                "online", "received true", "started 1", "progressed 0.5", "retried 1", "received true", "started 2",
                "progressed 0.5", "ended: succeeded", "offline",
            ])
        listener.heard.change { $0 = [] }
        try await client.enqueue(Work(number: 2))
        try await Worker(backend, configuration: options, logger: quiet) {
            Handler(Work.self) { _, _ in throw JobDirective.deadLetter("no") }
        }.run()
        #expect(listener.heard.value == ["online", "received true", "started 1", "ended: failed", "offline"])
    }

    @Test("a sink hears only what it is interested in, as of now")
    func interests() async throws {
        let (ends, failures) = (Listener(interests: [.ends]), Listener(interests: [.failures]))
        let backend = MemoryBackend()
        var options = Worker.Configuration(isBurst: true)
        options.sinks = [ends, failures, Listener(interests: [])]
        try await JobClient(backend, logger: quiet).enqueue(contentsOf: [Work(number: 1), Work(number: 2)])
        let worker = Worker(backend, lanes: [.async(1)], configuration: options, logger: quiet) {
            Handler(Work.self) { job, _ in if job.number == 2 { throw JobDirective.deadLetter("no") } }
        }
        try await worker.run()
        #expect(ends.heard.value == ["ended: succeeded", "ended: failed"])
        #expect(failures.heard.value == ["ended: failed"])
    }

    @Test("a job given up because its worker died, and a lost lease, are heard")
    func deaths() async throws {
        let clock = TestClock()
        let backend = MemoryBackend(clock: clock)
        let client = JobClient(backend, logger: quiet)
        let dead = WorkerPresence(
            id: "dead", name: "dead", queues: ["default"], jobNames: ["test.work"], startedAt: clock.now)
        #expect(try await backend.join(dead, lease: .seconds(2)))
        try await client.enqueue(named: "test.work", defaults: JobOptions(delivery: .atMostOnce))
        let claim = Claim(queue: "default", kind: "k", jobNames: ["test.work"])
        let turn = WorkerTurn(claims: [claim], budget: ClaimBudget(kinds: ["k": 1]))
        #expect(try await backend.turn("dead", turn).deliveries.count == 1)
        let listener = Listener()
        var options = Worker.Configuration()
        options.sinks = [listener]
        let worker = Worker(backend, configuration: options, logger: quiet) { Handler(Work.self) { _, _ in } }
        // Whatever the worker waits for when it stops: time goes on.
        let time = Task {
            while !Task.isCancelled {
                clock.advance(by: .milliseconds(1))
                try? await Task.sleep(for: .milliseconds(2))
            }
        }
        defer { time.cancel() }
        try await withWorker(worker) {
            let isConsuming = try await eventually { worker.health.isConsuming }
            #expect(isConsuming)
            // In small steps, for whoever looks next may not be asleep yet, and the lease of this worker must hold.
            let isGivenUp = try await eventually {
                clock.advance(by: .milliseconds(500))
                return listener.heard.value.contains("given up: workerLost")
            }
            #expect(isGivenUp)
            // More than once, for the keeper of the lease may not be asleep yet.
            let isLost = try await eventually {
                clock.advance(by: .seconds(10))
                return listener.heard.value.contains("leaseLost")
            }
            #expect(isLost)
        }
    }
}
