import AMQP
import Foundation
import Hoist
import HoistRabbitMQ
import HoistRedis
import HoistSQLite
import HoistTesting
import RESP
import TestServers
import Testing

@Suite("The contract on RabbitMQ", .timeLimit(.minutes(3)))
struct RabbitContractTests {
    private func broker() async throws -> RabbitMQBackend {
        let server = try await RabbitServer.shared
        return try RabbitMQBackend(
            url: server.url(try await server.makeVirtualHost()),
            configuration: .init(defaultQueue: .init(priorities: 10), delayQueues: .classic))
    }

    @Test(
        "the contract holds with results in SQLite, as far as abilities are declared", .serialized,
        arguments: BackendContract.realChecks)
    func sqlite(_ check: BackendContract.Check) async throws {
        let folder = try TemporaryFolder()
        try await check.run { _ in
            Backend(try await broker(), results: try SQLiteBackend(path: folder.path("results.db")))
        }
    }

    @Test("the contract holds with results in Redis, and a part of it is not skipped")
    func redis() async throws {
        let redis = try RedisServer.shared.get()
        var (passed, reasons): (Int, Set<String>) = (0, [])
        for check in BackendContract.realChecks {
            let reason = try await check.run { _ in
                let prefix = "\(UUID().uuidString):"
                let store = try RedisBackend(
                    RESPConfiguration(url: redis.url),
                    configuration: .init(keyPrefix: prefix, resultKeyPrefix: prefix))
                return Backend(try await broker(), results: store)
            }
            if let reason { reasons.insert(reason) } else { passed += 1 }
        }
        #expect(passed >= 12, "\(passed) checks: \(reasons)")
    }
}
