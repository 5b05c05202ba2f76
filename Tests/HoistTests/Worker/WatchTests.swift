import Foundation
@testable import Hoist
import HoistTesting
import Logging
import Synchronization
import Testing

/// What a worker finds out about jobs that wait and that it does not take.
@Suite("Watches of a worker", .timeLimit(.minutes(1)))
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
}
