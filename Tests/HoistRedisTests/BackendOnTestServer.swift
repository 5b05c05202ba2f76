import Foundation
import HoistRedis
import RESP
import TestServers

extension RedisBackend {
    /// On the server that all tests share, under a prefix of its own.
    /// - Returns: the backend, and a client that looks behind it.
    static func onTestServer(
        prefix: String, _ change: (inout Configuration) -> Void = { _ in }
    ) throws -> (backend: RedisBackend, probe: RESPClient) {
        var configuration = Configuration(keyPrefix: prefix, resultKeyPrefix: prefix)
        change(&configuration)
        let server = try RESPConfiguration(url: try RedisServer.shared.get().url)
        return (try RedisBackend(server, configuration: configuration), try RESPClient(server))
    }
}
