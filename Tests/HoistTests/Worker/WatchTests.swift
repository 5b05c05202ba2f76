import Foundation
@testable import Hoist
import HoistTesting
import Logging
import Synchronization
import Testing

/// What a worker finds out about jobs that wait and that it does not take.
@Suite("Watches of a worker", .timeLimit(.minutes(3)))
struct WatchTests {
    /// Keeps the texts of warnings and errors.
    private struct Listener: LogHandler {
        let texts: Shared<[String]>
        var logLevel = Logger.Level.warning
        var metadata: Logger.Metadata = [:]
        subscript(metadataKey key: String) -> Logger.MetadataValue? {
            get { nil }
            set {}
        }

        func log(event: LogEvent) { texts.change { $0.append("\(event.message)") } }
    }

    private let clock = TestClock()
    private let texts = Shared<[String]>([])
    private var warnings: [String] { texts.value.filter { $0.contains("jobs of the name") } }
    private var logger: Logger { Logger(label: "watch") { [texts] _ in Listener(texts: texts) } }

    @Test("jobs whose name no live worker knows are warned of, each name once")
    func strangers() async throws {
        let backend = MemoryBackend(clock: clock)
        let client = JobClient(backend, logger: logger)
        for name in ["stranger", "stranger", "other's"] { try await client.enqueue(named: name) }
        let other = WorkerPresence(
            id: "other", name: "other", queues: ["default"], jobNames: ["other's"], startedAt: clock.now)
        #expect(try await backend.join(other, lease: .seconds(100_000)))
        // The clock jumps: the lease is to hold.
        let options = Worker.Configuration(lease: .seconds(100_000))
        let worker = Worker(backend, configuration: options, logger: logger) {
            Handler(named: "known") { _, _ in .null }
        }
        try await withWorker(worker) {
            let isConsuming = try await eventually { worker.health.isConsuming }
            #expect(isConsuming)
            let isWarned = try await eventually {
                clock.advance(by: .seconds(3))
                return warnings.contains { $0.contains("jobs of the name stranger wait in the queue default") }
            }
            #expect(isWarned)
            for _ in 0..<20 {
                clock.advance(by: .seconds(100))
                await Task.yield()
            }
            let count = warnings.count
            #expect(count == 1)
        }
    }

    /// A broker that hands out nothing.
    private struct DeafBroker: Broker {
        let base: MemoryBackend
        var clock: any JobClock { base.clock }
        var abilities: BrokerAbilities { base.abilities }
        var workDoorbell: Doorbell { base.workDoorbell }
        func publish(_ messages: [Message]) async throws -> [PublishResult] { try await base.publish(messages) }
        func cancel(_ id: JobID) async throws -> CancelResult { try await base.cancel(id) }
        func open(
            _ worker: WorkerPresence, lease: Duration, sink: any SessionSink
        ) async throws -> any WorkerSession {
            Session(base: try await base.open(worker, lease: lease, sink: sink))
        }

        struct Session: WorkerSession {
            let base: any WorkerSession
            func turn(_ turn: WorkerTurn) async throws -> TurnResult {
                var turn = turn
                turn.claims = []
                return try await base.turn(turn)
            }
            func renew(_ worker: WorkerPresence) async throws -> Bool { try await base.renew(worker) }
            func close() async throws { try await base.close() }
        }
    }

    @Test("a worker that takes nothing though it could is deaf, and one whose queue is paused is not")
    func deafness() async throws {
        let base = MemoryBackend(clock: clock)
        var backend = Backend(broker: DeafBroker(base: base), results: base)
        (backend.directory, backend.queueControl) = (base.backend.directory, base.backend.queueControl)
        let client = JobClient(backend, logger: logger)
        try await client.enqueue(named: "known")
        let options = Worker.Configuration(lease: .seconds(100_000))
        let worker = Worker(backend, configuration: options, logger: logger) {
            Handler(named: "known") { _, _ in .null }
        }
        try await withWorker(worker) {
            let isReady = try await eventually { worker.health.isReady }
            #expect(isReady)
            let isDeaf = try await eventually {
                clock.advance(by: .seconds(2))
                return worker.health.isDeaf
            }
            #expect(isDeaf)
            let isUnready = !worker.health.isReady
            #expect(isUnready)
            try await backend.queueControl?.pause(queue: "default")
            let hears = try await eventually {
                clock.advance(by: .seconds(2))
                return !worker.health.isDeaf
            }
            #expect(hears)
            var steps = 0
            let staysSo = try await eventually {
                clock.advance(by: .seconds(10))
                steps += 1
                return worker.health.isDeaf || steps > 50
            }
            #expect(staysSo)
            let isStillReady = worker.health.isReady
            #expect(isStillReady)
        }
    }
}
