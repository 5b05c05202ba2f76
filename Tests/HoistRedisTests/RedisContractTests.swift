import Foundation
import Hoist
import HoistRedis
import HoistSQLite
import HoistTesting
import Logging
import RESP
import TestServers
import Testing

@Suite("The contract on Redis", .timeLimit(.minutes(3)))
struct RedisContractTests {
    /// The clock for a backend: none, for the server's own time, where the check does not move one.
    private func moved(_ clock: any JobClock) -> (any JobClock)? { clock is SystemJobClock ? nil : clock }

    // One after the other: each check opens files, and a process with more than 1,300 open files cannot start another
    // with Foundation, which other suites do meanwhile.
    @Test(.serialized, arguments: BackendContract.checks + BackendContract.realChecks)
    func contract(_ check: BackendContract.Check) async throws {
        let server = try RedisServer.shared.get()
        try await check.run { clock in
            try RedisBackend(
                RESPConfiguration(url: server.url),
                configuration: .init(
                    keyPrefix: "\(UUID().uuidString):", resultKeyPrefix: UUID().uuidString, clock: moved(clock)))
        }
    }

    @Test("all ten priorities are kept apart where the server has a list for each, and the ability says so")
    func tenPriorities() async throws {
        let server = try RedisServer.shared.get()
        for check in BackendContract.checks {
            try await check.run { clock in
                let backend = try RedisBackend(
                    RESPConfiguration(url: server.url),
                    configuration: .init(
                        keyPrefix: "\(UUID().uuidString):", resultKeyPrefix: UUID().uuidString,
                        prioritySteps: Array(0...9), clock: moved(clock)))
                #expect(backend.abilities.contains(.tenPriorities))
                return backend
            }
        }
    }

    @Test("the whole contract holds with results in another database")
    func otherDatabase() async throws {
        let server = try RedisServer.shared.get()
        for check in BackendContract.checks {
            try await check.run { clock in
                let results = try RESPConfiguration(url: server.url.dropLast() + "7")
                return try RedisBackend(
                    RESPConfiguration(url: server.url),
                    configuration: .init(
                        keyPrefix: "\(UUID().uuidString):", resultKeyPrefix: UUID().uuidString, results: results,
                        clock: moved(clock)))
            }
        }
    }

    @Test("the whole contract holds with results on another server, but for what only one server can know")
    func otherServer() async throws {
        let server = try RedisServer.shared.get()
        let other = try RedisServer()
        defer { other.stop() }
        // Only the server of results knows whether an id has ended.
        let exempt = ["an id is stored once", "a job that has succeeded already is not started again"]
        for check in BackendContract.checks where !exempt.contains(check.description) {
            try await check.run { clock in
                try RedisBackend(
                    RESPConfiguration(url: server.url),
                    configuration: .init(
                        keyPrefix: "\(UUID().uuidString):", resultKeyPrefix: UUID().uuidString,
                        results: try RESPConfiguration(url: other.url),
                        clock: moved(clock)))
            }
        }
    }

    @Test("the whole contract holds with results in SQLite")
    func resultsInSQLite() async throws {
        let server = try RedisServer.shared.get()
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        for check in BackendContract.checks {
            try await check.run { clock in
                let prefix = "\(UUID().uuidString):"
                let broker = try RedisBackend(
                    RESPConfiguration(url: server.url),
                    configuration: .init(keyPrefix: prefix, resultKeyPrefix: prefix, clock: moved(clock)))
                let path = folder.appendingPathComponent(UUID().uuidString).path
                let results = try SQLiteBackend(path: path, configuration: .init(clock: clock))
                return Backend(broker, results: results)
            }
        }
    }

    @Test("the whole contract holds in a cluster, with the default configuration")
    func cluster() async throws {
        let cluster = try await RedisCluster()
        for check in BackendContract.checks {
            for client in cluster.clients { try await client.send(RESPCommand("FLUSHALL")) }
            try await check.run { clock in
                try RedisBackend(RESPConfiguration(url: cluster.url), configuration: .init(clock: moved(clock)))
            }
        }
        // A worker on a cluster is woken as well.
        let backend = try RedisBackend(url: cluster.url)
        let logger = Logger(label: "cluster", factory: { _ in SwiftLogNoOpLogHandler() })
        let worker = Worker(backend, logger: logger) {
            Handler(named: "echo") { arguments, _ in .array(arguments.positional) }
        }
        let running = Task { try await worker.run() }
        let client = JobClient(backend, logger: logger)
        for number in 0..<5 {
            let handle = try await client.enqueue(
                named: "echo", arguments: Arguments(positional: [.integer(Int64(number))]))
            #expect(try await handle.output(timeout: .seconds(30)) == [.integer(Int64(number))])
        }
        worker.stop()
        try await running.value
    }
}
