import Hoist
import HoistRedis
import Logging
import RESP
import ServiceLifecycle
import UnixSignals

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// A worker that performs the tasks of Celery's own integration tests, in place of a Python worker.
@main
struct Main {
    static func main() async throws {
        var logger = Logger(label: "conformance")
        logger.logLevel = .info
        let environment = ProcessInfo.processInfo.environment
        let broker = environment["BROKER_URL"] ?? "redis://localhost:6379/0"
        let host = environment["REDIS_HOST"] ?? "localhost"
        let port = environment["REDIS_PORT"] ?? "6379"

        var configuration = RedisBackend.Configuration(unlabelledUrgency: 9, extendsResults: true)
        if let results = environment["RESULT_BACKEND"] { configuration.results = try RESPConfiguration(url: results) }
        let backend = try RedisBackend(RESPConfiguration(url: broker), configuration: configuration)
        let redis = try RESPClient(RESPConfiguration(url: "redis://\(host):\(port)"))

        // The tests expect the name that a Python worker in their process would have, and one task at a time.
        let worker = Worker(
            backend, queues: ["celery"], lanes: [.async(1)], configuration: .init(name: environment["WORKER_NODENAME"]),
            logger: logger
        ) {
            BuiltInTasks.handles
            ArithmeticTasks.handles
            FailingTasks.handles
            RetryingTasks.handles
            RequestTasks.handles
            CanvasTasks.handles
            RedisTasks.handles(redis)
        }
        let services = ServiceGroup(
            configuration: .init(
                services: [.init(service: worker)], gracefulShutdownSignals: [.sigterm, .sigint], logger: logger))
        try await services.run()
    }
}
