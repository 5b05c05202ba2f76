import Foundation
import Hoist
@testable import HoistRedis
import HoistTesting
import Logging
import RESP
import TestServers
import Testing

/// Many jobs in one call, and their records.
@Suite("Enqueueing on Redis", .timeLimit(.minutes(3)))
struct EnqueueTests {
    private struct Note: Job {
        static let name = "note"
        var number: Int
    }

    private let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
    private let prefix = "enqueue\(UUID().uuidString.prefix(8)):"

    private func backend(_ change: (inout RedisBackend.Configuration) -> Void = { _ in }) throws -> (
        RedisBackend, RESPClient
    ) {
        try RedisBackend.onTestServer(prefix: prefix, change)
    }

    private func messages(_ range: Range<Int>) -> [Message] {
        range.map { number in
            Message(
                headers: MessageHeaders(task: "note", id: "note-\(number)"),
                properties: MessageProperties(routingKey: "default", deliveryTag: "note-\(number)"),
                body: Array("[[],{},{}]".utf8))
        }
    }

    /// The numbers of the jobs in the queue, in the order in which they will be taken.
    private func waiting(_ backend: RedisBackend, _ probe: RESPClient) async throws -> [Int] {
        let list = backend.keys.list(
            "default", wirePriority: RedisPriority.wire(urgency: backend.configuration.unlabelledUrgency))
        let elements = try await probe.send(RESPCommand("LRANGE", [.text(list), 0, -1])).elements ?? []
        return try elements.reversed().map { element in
            Int(try Message(envelope: Array((element.text ?? "").utf8)).id.dropFirst(5)) ?? -1
        }
    }

    private func record(_ id: JobID) -> RESPArgument { .text(prefix + "hoist:job:" + id) }

    @Test(
        "a known id among thousands is not enqueued again, and the others once each, in their order",
        arguments: [0, 2499, 4999])
    func known(number: Int) async throws {
        let (backend, probe) = try backend()
        defer { probe.close() }
        #expect(try await backend.publish(messages(number..<number + 1)) == [.enqueued])
        let results = try await backend.publish(messages(0..<5000))
        #expect(results.indices.filter { results[$0] != .enqueued } == [number])
        #expect(results[number] == .alreadyEnqueued)
        #expect(try await waiting(backend, probe) == [number] + (0..<5000).filter { $0 != number })
    }

    @Test("an id that has a result is known, in whatever database results are", arguments: [nil, 5])
    func ended(database: Int?) async throws {
        var results = try RESPConfiguration(url: try RedisServer.shared.get().url)
        results.database = database ?? results.database
        let (backend, probe) = try backend { if database != nil { $0.results = results } }
        let resultProbe = try RESPClient(results)
        defer {
            probe.close()
            resultProbe.close()
        }
        let result = #"{"status": "SUCCESS", "result": null}"#
        try await resultProbe.send(
            RESPCommand("SET", [.text(backend.keys.result("note-300")), .text(result), "EX", 60]))
        let outcomes = try await backend.publish(messages(0..<400))
        #expect(outcomes.indices.filter { outcomes[$0] == .alreadyEnqueued } == [300])
        #expect(try await waiting(backend, probe) == (0..<400).filter { $0 != 300 })
    }

    @Test("where the queue's key is none, nothing is recorded, and the same jobs can be enqueued later")
    func noList() async throws {
        let (backend, probe) = try backend()
        defer { probe.close() }
        let list = backend.keys.list(
            "default", wirePriority: RedisPriority.wire(urgency: backend.configuration.unlabelledUrgency))
        try await probe.send(RESPCommand("SET", [.text(list), "something"]))
        let error = await #expect(throws: BackendError.self) { try await backend.publish(messages(0..<3000)) }
        #expect(error?.code == .corrupt)
        #expect(try await probe.send(RESPCommand("EXISTS", [record("note-0"), record("note-2999")])).integer == 0)
        try await probe.send(RESPCommand("DEL", [.text(list)]))
        #expect(try await backend.publish(messages(0..<3000)).allSatisfy { $0 == .enqueued })
        #expect(try await waiting(backend, probe) == Array(0..<3000))
    }

    @Test("jobs of one call that are delayed alike are due in their order")
    func delayed() async throws {
        let (backend, probe) = try backend()
        defer { probe.close() }
        let ids = try await JobClient(backend, logger: silent).enqueue(
            contentsOf: (0..<600).map(Note.init), [.after(.seconds(1000))]
        )
        .map(\.id)
        let due = try await probe.send(RESPCommand("ZRANGE", [.text(prefix + "hoist:delayed:default"), 0, -1]))
        #expect(due.elements?.compactMap(\.text) == ids)
    }

    @Test("records of jobs that have waited long expire, those of delayed and of new ones do not")
    func expiry() async throws {
        let clock = TestClock()
        let (backend, probe) = try backend { $0.clock = clock }
        defer { probe.close() }
        let client = JobClient(backend, logger: silent)
        let old = try await client.enqueue(Note(number: 1)).id
        let delayed = try await client.enqueue(Note(number: 2), .after(.seconds(90 * 86_400))).id
        func life(_ id: JobID) async throws -> Int64? {
            try await probe.send(RESPCommand("PTTL", [record(id)])).integer
        }
        #expect(try await life(old) == -1)
        clock.advance(by: .seconds(2 * 86_400))
        // This enqueue may already give the old record its expiry.
        let new = try await client.enqueue(Note(number: 3)).id
        // Each call looks at some keys of the whole server. A round that another program began may have passed the
        // record when it was new, so that a second round from the start is needed.
        func lookAtAllKeys() async throws {
            var (calls, rounds) = (0, 0)
            while rounds < 2 {
                try await probe.send(RESPCommand("DEL", [.text(prefix + "hoist:expired")]))
                let replies = try await backend.run(
                    RedisScripts.expireRecords, [backend.timeArgument], doing: "have old records expire")
                let reached = try await probe.send(RESPCommand("GET", [.text(prefix + "hoist:expired:until")])).text
                if replies[0] == .integer(1), reached == "0" { rounds += 1 }
                calls += 1
                try #require(calls < 10_000)
            }
        }
        try await lookAtAllKeys()
        let left = try await life(old) ?? 0
        #expect(left > 6 * 86_400_000 && left <= 7 * 86_400_000)
        try await probe.send(RESPCommand("PEXPIRE", [record(old), 100_000]))
        try await lookAtAllKeys()
        #expect(try await life(old) ?? 0 <= 100_000, "it must not be given time again and again")
        #expect(try await life(delayed) == -1)
        #expect(try await life(new) == -1)
        #expect(try await backend.record(of: old)?.state == .waiting)
    }

    @Test("where only Python's workers run, producers have old records expire")
    func expiryByProducers() async throws {
        // Each call looks at some keys of the whole server, so one with the keys of other tests may need thousands.
        let server = try RedisServer()
        defer { server.stop() }
        let clock = TestClock()
        var configuration = RedisBackend.Configuration()
        configuration.clock = clock
        let backend = try RedisBackend(url: server.url, configuration: configuration)
        let probe = try RESPClient(try RESPConfiguration(url: server.url))
        defer { probe.close() }
        let client = JobClient(backend, logger: silent)
        let old = try await client.enqueue(Note(number: 1)).id
        clock.advance(by: .seconds(2 * 86_400))
        #expect(
            try await eventually {
                try await probe.send(RESPCommand("DEL", ["hoist:expired"]))
                clock.advance(by: .seconds(10))
                try await client.enqueue(Note(number: 2))
                return try await probe.send(RESPCommand("PTTL", [.text("hoist:job:" + old)])).integer ?? -1 > 0
            })
    }

    @Test("a server that is full gets rid of old records")
    func fullServer() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let clock = TestClock()
        var configuration = RedisBackend.Configuration()
        configuration.clock = clock
        let backend = try RedisBackend(url: server.url, configuration: configuration)
        let probe = try RESPClient(try RESPConfiguration(url: server.url))
        defer { probe.close() }
        let old = try await JobClient(backend, logger: silent).enqueue(Note(number: 1)).id
        clock.advance(by: .seconds(2 * 86_400))
        try await probe.send(RESPCommand("DEL", ["hoist:expired"]))
        try await probe.send(RESPCommand("CONFIG SET", ["maxmemory", "1"]))
        let refused = await #expect(throws: BackendError.self) { try await backend.publish(messages(0..<10)) }
        #expect(refused?.code == .full)
        #expect(try await probe.send(RESPCommand("EXISTS", ["hoist:job:note-0"])).integer == 0)
        _ = try await backend.run(RedisScripts.expireRecords, [backend.timeArgument], doing: "have old records expire")
        #expect(try await probe.send(RESPCommand("PTTL", [.text("hoist:job:" + old)])).integer ?? -1 > 0)
    }

    @Test("a user who may push but not record enqueues nothing")
    func narrowUser() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let probe = try RESPClient(try RESPConfiguration(url: server.url))
        defer { probe.close() }
        try await probe.send(RESPCommand("ACL SETUSER", ["narrow", "on", ">secret", "~*", "&*", "+@all", "-msetnx"]))
        let backend = try RedisBackend(url: "redis://narrow:secret@127.0.0.1:\(server.port)/0")
        await #expect(throws: BackendError.self) { try await backend.publish(messages(0..<10)) }
        #expect(try await waiting(backend, probe) == [])
    }
}
