import Foundation
import HoistRedis
import RESP
import TestServers

extension RedisBackend {
    /// A backend on the server that all tests share, under a key prefix of its own.
    /// - Returns: the backend, and a client that inspects the server directly.
    static func onTestServer(
        prefix: String, _ change: (inout Configuration) -> Void = { _ in }
    ) throws -> (backend: RedisBackend, probe: RESPClient) {
        var configuration = Configuration(keyPrefix: prefix, resultKeyPrefix: prefix)
        change(&configuration)
        let server = try RESPConfiguration(url: try RedisServer.shared.get().url)
        return (try RedisBackend(server, configuration: configuration), try RESPClient(server))
    }
}
