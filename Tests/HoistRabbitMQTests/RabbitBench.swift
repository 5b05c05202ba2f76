import AMQP
import Foundation
import Hoist
import HoistRabbitMQ
import HoistRedis
import HoistTesting
import Logging
import RESP
import TestServers
import Testing

/// A virtual host of its own on the shared server, results in Redis, and Python programs that use both.
struct RabbitBench {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Python")
        .path
    let server: RabbitServer
    let virtualHost: String
    let prefix = "t\(UUID().uuidString.prefix(8)):"
    let redisURL: String
    let broker: RabbitMQBackend
    let backend: Backend
    let client: JobClient
    private let observer: AMQPClient
    let log = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-peer-\(UUID().uuidString).log")

    init(
        on server: RabbitServer? = nil, port: Int? = nil,
        _ configuration: RabbitMQBackend.Configuration = .init(workerHeartbeat: .seconds(2))
    ) async throws {
        let shared = try await RabbitServer.shared
        let server = server ?? shared
        self.server = server
        virtualHost = try await server.makeVirtualHost()
        redisURL = try RedisServer.shared.get().url
        broker = try RabbitMQBackend(
            url: RabbitServer.url(port ?? server.port, virtualHost), configuration: configuration)
        let store = try RedisBackend(
            RESPConfiguration(url: redisURL),
            configuration: .init(keyPrefix: prefix, resultKeyPrefix: prefix))
        backend = Backend(broker, results: store)
        observer = try AMQPClient(AMQPConfiguration(url: server.url(virtualHost)))
        client = JobClient(backend, logger: Self.silent)
    }

    static let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

    var url: String { server.url(virtualHost) }

    /// A client that looks at the server directly.
    func probe() async throws -> AMQPChannel { try await observer.connection().openChannel() }

    var environment: [String: String] { ["PEER_BROKER": url, "PEER_RESULTS": redisURL, "PEER_PREFIX": prefix] }

    /// What a Python client prints.
    func python(_ arguments: String...) async throws -> WireValue {
        let (folder, environment) = (Self.folder, environment)
        let output = try await RabbitServer.onThread {
            try PythonPeer.run(["producer.py"] + arguments, in: folder, environment: environment)
        }
        // The last line: others tell what the program is about to do.
        return try JSONParser.parse(Array((output.split(separator: "\n").last ?? "").utf8))
    }

    /// The lines that a Python client prints.
    func lines(_ arguments: String..., environment other: [String: String] = [:]) async throws -> [String] {
        let (folder, environment) = (Self.folder, environment.merging(other) { $1 })
        let output = try await RabbitServer.onThread {
            try PythonPeer.run(["producer.py"] + arguments, in: folder, environment: environment)
        }
        return output.split(separator: "\n").map(String.init)
    }

    func startPythonWorker(_ options: [String] = [], environment other: [String: String] = [:]) throws -> Process {
        try PythonPeer.start(
            ["-m", "celery", "-A", "peer_tasks", "worker", "--concurrency", "2", "--loglevel", "INFO"] + options,
            in: Self.folder, environment: environment.merging(other) { $1 }, log: log)
    }
}
