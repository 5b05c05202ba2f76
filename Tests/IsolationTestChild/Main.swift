import Hoist
import IsolationTestJobs
import Logging

/// What the workers of the isolation tests run as their children.
@main
struct Main {
    static func main() async throws {
        var logger = Logger(label: "child", factory: { StreamLogHandler.standardError(label: $0) })
        logger.logLevel = .info
        let worker = Worker(WorkerChild.backend ?? MemoryBackend(), logger: logger) {
            isolationHandlers(hasHeavy: CommandLine.arguments.contains("heavy"))
        }
        try await worker.run()
    }
}
