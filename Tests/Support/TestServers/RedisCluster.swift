import Foundation
public import RESP

/// Three servers that are one cluster, each with a third of the slots. They end with the object.
public final class RedisCluster: Sendable {
    public let nodes: [RedisServer]
    /// One client for each node, to inspect it.
    public let clients: [RESPClient]

    /// - Throws: `TestServerError` when a server does not start, or the cluster is not ready within 30 seconds;
    ///   `RESPError` or `RESPServerError` when a node does not obey; `CancellationError`. A retry is safe: it starts
    ///   new servers.
    public init() async throws {
        let busPorts = try (0..<3).map { _ in try RedisServer.freePort() }
        nodes = try busPorts.map { try RedisServer(["--cluster-enabled", "yes", "--cluster-port", "\($0)"]) }
        clients = try nodes.map { try RESPClient(RESPConfiguration(url: $0.url)) }
        for (index, client) in clients.enumerated() {
            let (first, last): (Int64, Int64) = [(0, 5460), (5461, 10922), (10923, 16383)][index]
            try await client.send(RESPCommand("CLUSTER ADDSLOTSRANGE", [.integer(first), .integer(last)]))
            try await client.send(RESPCommand("CLUSTER SET-CONFIG-EPOCH", [.integer(Int64(index + 1))]))
        }
        for (node, busPort) in zip(nodes, busPorts).dropFirst() {
            try await clients[0].send(
                RESPCommand("CLUSTER MEET", ["127.0.0.1", .integer(Int64(node.port)), .integer(Int64(busPort))]))
        }
        for _ in 0..<600 {
            var isReady = true
            for client in clients
            where try await client.send(RESPCommand("CLUSTER INFO")).text?.contains("cluster_state:ok") != true {
                isReady = false
            }
            if isReady { return }
            try await Task.sleep(for: .milliseconds(50))
        }
        throw TestServerError(description: "the cluster did not come up")
    }

    deinit {
        for client in clients { client.close() }
        for node in nodes { node.stop() }
    }

    public var url: String { "redis+cluster://127.0.0.1:\(nodes[0].port);127.0.0.1:\(nodes[1].port)" }
}
