import Foundation
import Hoist
@testable import HoistRedis
import HoistTesting
import Logging
import RESP
import Synchronization
import TestServers
import Testing

/// Options of Redis, each of which must make a difference.
@Suite("Options on Redis", .serialized, .timeLimit(.minutes(2)))
struct RedisOptionTests {
    private let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

    @Test("a queue keeps so many dead letters, the newest")
    func deadLetterLimit() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        var configuration = RedisBackend.Configuration()
        configuration.deadLetterLimit = 3
        let backend = try RedisBackend(url: server.url, configuration: configuration)
        let client = JobClient(backend, logger: silent)
        struct Broken: Error {}
        for number in 0..<8 { try await client.enqueue(named: "job", options: [.id("j\(number)")]) }
        let worker = Worker(
            backend, lanes: [.async(1)], configuration: .init(isBurst: true), logger: silent
        ) { Handler(named: "job") { _, _ in throw Broken() } }
        try await worker.run()
        let probe = try RESPClient(RESPConfiguration(url: server.url))
        defer { probe.close() }
        // Due at once, in place of ten seconds after the last time.
        try await probe.send(RESPCommand("DEL", ["hoist:swept"]))
        _ = try await backend.run(RedisScripts.removeExpired, ["", 3], doing: "sweep")
        let kept = try await backend.jobs(JobFilter(states: [.failed], limit: .max)).map(\.id)
        #expect(Set(kept) == ["j5", "j6", "j7"], "\(kept)")
    }

    @Test("credentials are asked for at each connection, so that a password may change while the program runs")
    func changingCredentials() async throws {
        let server = try RedisServer(["--requirepass", "first"])
        defer { server.stop() }
        let password = Mutex("first")
        var configuration = try RESPConfiguration(url: server.url)
        configuration.credentials = { .init(password: password.withLock { $0 }) }
        let client = try RESPClient(configuration)
        defer { client.close() }
        #expect(try await client.send(RESPCommand("PING")).text == "PONG")
        try await client.send(RESPCommand("CONFIG SET", ["requirepass", "second"]))
        password.withLock { $0 = "second" }
        try await client.send(RESPCommand("CLIENT KILL", ["TYPE", "normal", "SKIPME", "no"]))
        #expect(try await eventually { (try? await client.send(RESPCommand("PING")).text) == "PONG" })
    }

    @Test("of a list of servers the first that answers is used")
    func firstServerAway() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let away = try RedisServer()
        let port = away.port
        away.stop()
        let backend = try RedisBackend(url: "redis://127.0.0.1:\(port);redis://127.0.0.1:\(server.port)")
        try await JobClient(backend, logger: silent).enqueue(named: "job")
        let worker = Worker(backend, configuration: .init(isBurst: true), logger: silent) {
            Handler(named: "job") { _, _ in .null }
        }
        try await worker.run()
        #expect(try await backend.queues().isEmpty)
    }

    @Test("an enqueue that waits for replicas says so when there are none, and the jobs are enqueued")
    func replication() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        var configuration = RedisBackend.Configuration()
        configuration.replication = .replicas(1, timeout: .milliseconds(50))
        let backend = try RedisBackend(url: server.url, configuration: configuration)
        let error = await #expect(throws: BackendError.self) {
            try await JobClient(backend, logger: silent).enqueue(named: "job")
        }
        #expect(error?.code == .timedOut && error?.isRetrySafe == false)
        #expect(try await backend.queues().first?.waiting == 1)
        let replica = try RedisServer(["--replicaof", "127.0.0.1 \(server.port)"])
        defer { replica.stop() }
        #expect(
            try await eventually {
                (try? await JobClient(backend, logger: silent).enqueue(named: "job")) != nil
            })
    }

    @Test("the limit of messages can be raised by the URL")
    func messageLimit() throws {
        defer { WireLimits.setDefault(WireLimits()) }
        _ = try RedisBackend(url: "redis://localhost?max_message_bytes=100000000")
        #expect(WireLimits.default.maximumBytes == 100_000_000)
        #expect(throws: BackendError.self) { _ = try RedisBackend(url: "redis://localhost?max_message_bytes=x") }
    }
}
