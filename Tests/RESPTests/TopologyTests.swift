import Foundation
import TestServers
import Testing

@testable import RESP

/// Real sentinels and a real cluster, of real servers.
@Suite("Sentinels and clusters", .timeLimit(.minutes(3)))
struct TopologyTests {
    private func wait(_ limit: Duration, until condition: () async throws -> Bool) async throws -> Bool {
        let deadline = ContinuousClock.now + limit
        while ContinuousClock.now < deadline {
            if (try? await condition()) == true { return true }
            try await Task.sleep(for: .milliseconds(50))
        }
        return false
    }

    @Test("the primary that sentinels name is used, and the next one after a failover")
    func sentinels() async throws {
        let primary = try RedisServer()
        let replica = try RedisServer(["--replicaof", "127.0.0.1 \(primary.port)"])
        let sentinel = try RedisServer(sentinelOf: primary.port)
        defer { for server in [primary, replica, sentinel] { server.stop() } }
        let client = try RESPClient(RESPConfiguration(url: "sentinel://127.0.0.1:\(sentinel.port)?master_name=main"))
        defer { client.close() }
        #expect(try await wait(.seconds(20)) { try await client.send(RESPCommand("SET", ["key", "1"])).text == "OK" })
        let toReplica = try RESPClient(RESPConfiguration(url: replica.url))
        #expect(try await wait(.seconds(20)) { try await toReplica.send(RESPCommand("GET", ["key"])).integer == 1 })
        primary.stop()
        #expect(try await wait(.seconds(60)) { try await client.send(RESPCommand("INCR", ["key"])).integer ?? 0 >= 2 })
        #expect(try await toReplica.send(RESPCommand("ROLE")).elements?.first?.text == "master")
        toReplica.close()
    }

    @Test("commands find the node of their key, also after it moved")
    func cluster() async throws {
        let busPorts = try (0..<3).map { _ in try RedisServer.freePort() }
        let nodes = try busPorts.map { try RedisServer(["--cluster-enabled", "yes", "--cluster-port", "\($0)"]) }
        defer { for node in nodes { node.stop() } }
        let clients = try nodes.map { try RESPClient(RESPConfiguration(url: $0.url)) }
        defer { for client in clients { client.close() } }
        for (index, client) in clients.enumerated() {
            let (first, last) = ([0, 5461, 10923][index], [5460, 10922, 16383][index])
            try await client.send(RESPCommand("CLUSTER ADDSLOTSRANGE", [.integer(Int64(first)), .integer(Int64(last))]))
            try await client.send(RESPCommand("CLUSTER SET-CONFIG-EPOCH", [.integer(Int64(index + 1))]))
        }
        for (node, busPort) in zip(nodes, busPorts).dropFirst() {
            try await clients[0].send(RESPCommand("CLUSTER MEET", ["127.0.0.1", .integer(Int64(node.port)), .integer(Int64(busPort))]))
        }
        #expect(
            try await wait(.seconds(30)) {
                for client in clients where try await client.send(RESPCommand("CLUSTER INFO")).text?.contains("cluster_state:ok") != true { return false }
                return true
            })
        let client = try RESPClient(RESPConfiguration(url: "redis+cluster://127.0.0.1:\(nodes[0].port)"))
        defer { client.close() }
        for number in 0..<50 { try await client.send(RESPCommand("SET", [.text("key-\(number)"), .integer(Int64(number))], key: "key-\(number)")) }
        for number in 0..<50 {
            #expect(try await client.send(RESPCommand("GET", [.text("key-\(number)")], key: "key-\(number)")).integer == Int64(number))
        }
        // A slot on its way: the old node says ASK for what it has no more, then MOVED.
        let slot = ClusterSlot.of(Array("moving".utf8))
        let source = slot < 5461 ? 0 : slot < 10923 ? 1 : 2
        let target = (source + 1) % 3
        let ids = try await clients.asyncMap { try await $0.send(RESPCommand("CLUSTER MYID")).text ?? "" }
        try await clients[target].send(RESPCommand("CLUSTER SETSLOT", [.integer(Int64(slot)), "IMPORTING", .text(ids[source])]))
        try await clients[source].send(RESPCommand("CLUSTER SETSLOT", [.integer(Int64(slot)), "MIGRATING", .text(ids[target])]))
        try await client.send(RESPCommand("SET", ["moving", "1"], key: "moving"))
        #expect(try await client.send(RESPCommand("INCR", ["moving"], key: "moving")).integer == 2, "on the node it moves to")
        for index in [target, source] {
            try await clients[index].send(RESPCommand("CLUSTER SETSLOT", [.integer(Int64(slot)), "NODE", .text(ids[target])]))
        }
        #expect(try await client.send(RESPCommand("INCR", ["moving"], key: "moving")).integer == 3, "and after it moved")
    }
}

extension Array {
    fileprivate func asyncMap<T>(_ body: (Element) async throws -> T) async throws -> [T] {
        var results: [T] = []
        for element in self { results.append(try await body(element)) }
        return results
    }
}
