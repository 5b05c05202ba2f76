import Foundation
import Hoist
import HoistRedis
import HoistTesting
import RESP
import TestServers
import Testing

@Suite("The contract on Redis")
struct RedisContractTests {
    @Test(arguments: BackendContract.checks)
    func contract(_ check: BackendContract.Check) async throws {
        let server = try RedisServer.shared.get()
        try await check.run { clock in
            try RedisBackend(
                RESPConfiguration(url: server.url),
                configuration: .init(keyPrefix: "\(UUID().uuidString):", resultKeyPrefix: UUID().uuidString, clock: clock))
        }
    }
}
