import Foundation
import NIOCore
import Synchronization
import TestServers
import Testing

@testable import RESP

@Suite("With a real server", .timeLimit(.minutes(2)))
struct ClientTests {
    private func client(_ url: String) throws -> RESPClient { try RESPClient(RESPConfiguration(url: url)) }

    @Test("commands of many tasks at once are answered each with its own")
    func concurrent() async throws {
        let client = try client(try RedisServer.shared.get().url)
        defer { client.close() }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<500 {
                group.addTask {
                    let echoed = try await client.send(RESPCommand("ECHO", [.integer(Int64(number))]))
                    #expect(echoed.integer == Int64(number))
                }
            }
            try await group.waitForAll()
        }
    }

    @Test("scripts run by their digest, and again after the server forgot them")
    func scripts() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let client = try client(server.url)
        defer { client.close() }
        let script = RESPScript("return {KEYS[1], ARGV[1]}")
        for round in 0..<3 {
            let answer = try await client.evaluate(script, keys: ["k"], arguments: [.integer(Int64(round))])[0]
            #expect(answer.elements?.last?.integer == Int64(round))
            if round == 1 { try await client.send(RESPCommand("SCRIPT FLUSH")) }
        }
        await #expect(throws: RESPServerError.self) {
            try await client.evaluate(RESPScript("return redis.call('NOPE')"), keys: [], arguments: [])
        }
    }

    @Test("a transaction runs whole or not at all")
    func transactions() async throws {
        let client = try client(try RedisServer.shared.get().url)
        defer { client.close() }
        let key = UUID().uuidString
        let replies = try await client.transaction([
            RESPCommand("SET", [.text(key), "1"]), RESPCommand("INCR", [.text(key)]),
        ])
        #expect(replies == [.simple("OK"), .integer(2)])
        await #expect(throws: RESPServerError.self) {
            try await client.transaction([RESPCommand("INCR", [.text(key)]), RESPCommand("NOPE")])
        }
        #expect(try await client.send(RESPCommand("GET", [.text(key)])).integer == 2, "nothing has run")
    }

    @Test("a Unix socket, a user with a password, a database")
    func variants() async throws {
        let server = try RedisServer(["--requirepass", "p w"])
        defer { server.stop() }
        let client = try client("unix://:p%20w@\(server.socketPath)?db=3")
        defer { client.close() }
        #expect(try await client.send(RESPCommand("CLIENT INFO")).text?.contains("db=3") == true)
        let wrong = try self.client("redis://:wrong@127.0.0.1:\(server.port)")
        let error = await #expect(throws: RESPError.self) { try await wrong.send(RESPCommand("PING")) }
        #expect(error?.code == .authentication && error?.message.contains("wrong@") == false)
    }

    @Test("a server that is away is an error that says so, and is found again when it is back")
    func reconnect() async throws {
        let server = try RedisServer()
        let client = try client(server.url)
        defer { client.close() }
        try await client.send(RESPCommand("PING"))
        server.stop()
        let error = await #expect(throws: RESPError.self) {
            for _ in 0..<3 { try await client.send(RESPCommand("PING")) }
        }
        #expect(error?.code == .unreachable || error?.code == .connectionLost)
        try server.start()
        var isBack = false
        for _ in 0..<100 where !isBack {
            isBack = (try? await client.send(RESPCommand("PING"))) != nil
            if !isBack { try await Task.sleep(for: .milliseconds(20)) }
        }
        #expect(isBack)
    }

    @Test(
        "a connection whose other end says nothing is noticed within 10 seconds, idle, in a command and while it blocks"
    )
    func halfOpen() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let proxy = try TroubleProxy(to: server.port)
        let client = try client("redis://127.0.0.1:\(proxy.port)")
        defer { client.close() }
        try await client.send(RESPCommand("PING"))
        let blocking = try await client.openConnection().get()
        proxy.isSwallowing = true
        let begin = ContinuousClock.now
        let blocked = Task { try await blocking.send([RESPCommand("BLPOP", ["nothing", 3])], timeout: .seconds(5)) }
        let error = await #expect(throws: RESPError.self) { try await client.send(RESPCommand("PING")) }
        #expect(error?.code == .timedOut && error?.mayHaveRun == true)
        await #expect(throws: RESPError.self) { try await blocked.value }
        #expect(ContinuousClock.now - begin < .seconds(30))
    }

    @Test("an idle connection whose other end is gone is closed by its keep-alive")
    func idleHalfOpen() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let proxy = try TroubleProxy(to: server.port)
        let client = try client("redis://127.0.0.1:\(proxy.port)")
        let connection = try await client.openConnection().get()
        proxy.isSwallowing = true
        let begin = ContinuousClock.now
        try await connection.closeFuture.get()
        #expect(ContinuousClock.now - begin < .seconds(30))
    }

    @Test("subscriptions hear messages, and again after the connection was lost")
    func subscriptions() async throws {
        let server = try RedisServer.shared.get()
        let proxy = try TroubleProxy(to: server.port)
        let listener = try client("redis://127.0.0.1:\(proxy.port)")
        let speaker = try client(server.url)
        defer { listener.close(); speaker.close() }
        let subscriptions = RESPSubscriptions(listener)
        defer { subscriptions.close() }
        let channel = UUID().uuidString
        let (events, continuation) = AsyncStream.makeStream(of: RESPSubscriptions.Event.self)
        subscriptions.subscribe(to: .channel(channel)) { continuation.yield($0) }
        subscriptions.subscribe(to: .pattern(channel + "-*")) { continuation.yield($0) }
        var iterator = events.makeAsyncIterator()
        #expect(await iterator.next() == .subscribed)
        #expect(await iterator.next() == .subscribed)
        try await speaker.send(RESPCommand("PUBLISH", [.text(channel), "one"]))
        #expect(await iterator.next() == .message(channel: channel, Array("one".utf8)))
        proxy.cut()
        #expect(await iterator.next() == .subscribed)
        #expect(await iterator.next() == .subscribed)
        try await speaker.send(RESPCommand("PUBLISH", [.text(channel + "-x"), "two"]))
        #expect(await iterator.next() == .message(channel: channel + "-x", Array("two".utf8)))
    }

    @Test("over TLS: a trusted certificate is accepted, an unknown one refused")
    func tls() async throws {
        let certificates = try TestCertificates()
        let (certificate, key) = try certificates.make("localhost")
        let tlsPort = try RedisServer.freePort()
        let server = try RedisServer([
            "--tls-port", "\(tlsPort)", "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file",
            certificates.authority,
        ])
        defer { server.stop() }
        let files = "ssl_ca_certs=\(certificates.authority)&ssl_certfile=\(certificate)&ssl_keyfile=\(key)"
        let trusted = try client("rediss://localhost:\(tlsPort)?\(files)")
        defer { trusted.close() }
        #expect(try await trusted.send(RESPCommand("PING")).text == "PONG")
        let strict = try client("rediss://localhost:\(tlsPort)?ssl_certfile=\(certificate)&ssl_keyfile=\(key)")
        let error = await #expect(throws: RESPError.self) { try await strict.send(RESPCommand("PING")) }
        #expect(error?.code == .tls)
    }
}
