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
        let cluster = try await RedisCluster()
        let clients = cluster.clients
        let client = try RESPClient(RESPConfiguration(url: cluster.url))
        defer { client.close() }
        for number in 0..<50 {
            try await client.send(
                RESPCommand("SET", [.text("key-\(number)"), .integer(Int64(number))], key: "key-\(number)"))
        }
        for number in 0..<50 {
            #expect(
                try await client.send(RESPCommand("GET", [.text("key-\(number)")], key: "key-\(number)")).integer
                    == Int64(number))
        }
        // A slot in migration: the old node answers ASK for a key that it has no more, then MOVED.
        let slot = ClusterSlot.of(Array("moving".utf8))
        let source = slot < 5461 ? 0 : slot < 10923 ? 1 : 2
        let target = (source + 1) % 3
        let ids = try await clients.asyncMap { try await $0.send(RESPCommand("CLUSTER MYID")).text ?? "" }
        try await clients[target].send(
            RESPCommand("CLUSTER SETSLOT", [.integer(Int64(slot)), "IMPORTING", .text(ids[source])]))
        try await clients[source].send(
            RESPCommand("CLUSTER SETSLOT", [.integer(Int64(slot)), "MIGRATING", .text(ids[target])]))
        try await client.send(RESPCommand("SET", ["moving", "1"], key: "moving"))
        #expect(
            try await client.send(RESPCommand("INCR", ["moving"], key: "moving")).integer == 2,
            "on the node it moves to")
        for index in [target, source] {
            try await clients[index].send(
                RESPCommand("CLUSTER SETSLOT", [.integer(Int64(slot)), "NODE", .text(ids[target])]))
        }
        #expect(
            try await client.send(RESPCommand("INCR", ["moving"], key: "moving")).integer == 3, "and after it moved")
    }
}

extension Array {
    fileprivate func asyncMap<T>(_ body: (Element) async throws -> T) async throws -> [T] {
        var results: [T] = []
        for element in self { results.append(try await body(element)) }
        return results
    }
}
