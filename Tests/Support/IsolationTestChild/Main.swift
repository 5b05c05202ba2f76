import Hoist
import HoistRedis
import HoistSQLite
import IsolationTestJobs
import Logging

/// What the workers of the isolation tests run as their children; with the URL of a backend it is a worker itself.
@main
struct Main {
    static func main() async throws {
        var logger = Logger(label: "child", factory: { StreamLogHandler.standardError(label: $0) })
        logger.logLevel = .info
        let arguments = CommandLine.arguments.dropFirst()
        let url = arguments.first { $0.contains(":") }
        let backend: any BackendConvertible =
            if let inherited = WorkerChild.backend {
                inherited
            } else if let url {
                url.hasPrefix("sqlite:") ? try SQLiteBackend(url: url) : try RedisBackend(url: url)
            } else {
                MemoryBackend()
            }
        let worker = Worker(backend, lanes: [.process(2)], logger: logger) {
            isolationHandlers(hasHeavy: arguments.contains("heavy"))
        }
        try await worker.run()
    }
}
