import Foundation
import Hoist
@testable import HoistRedis
import HoistTesting
import RESP
import TestServers
import Testing

/// Messages with job names that no worker here knows.
@Suite("Strangers on Redis", .timeLimit(.minutes(3)))
struct StrangerTests {
    private static func message(named name: String, _ change: (String) -> String = { $0 }) -> [UInt8] {
        let message = Message(
            headers: MessageHeaders(task: name, id: UUID().uuidString),
            properties: MessageProperties(routingKey: "default", deliveryTag: "t"),
            body: Array("[[],{},{}]".utf8))
        return Array(change(String(decoding: message.encodedEnvelope(), as: UTF8.self)).utf8)
    }

    private func settled(_ element: [UInt8]) async throws -> (left: Int, dead: Int) {
        let (backend, probe) = try RedisBackend.onTestServer(prefix: "stranger\(UUID().uuidString.prefix(8)):")
        defer { probe.close() }
        let presence = WorkerPresence(
            id: "w", name: "w", queues: ["default"], jobNames: ["note"], startedAt: Date(), concurrency: 1)
        #expect(try await backend.join(presence, lease: .seconds(60)))
        let list = backend.keys.list("default", wirePriority: 0)
        try await probe.send(RESPCommand("LPUSH", [.text(list), .bytes(element)]))
        _ = try await backend.turn(
            "w",
            WorkerTurn(
                claims: [Claim(queue: "default", kind: "async", jobNames: ["note"])],
                budget: ClaimBudget(kinds: ["async": 8]))
        )
        let left = try await probe.send(RESPCommand("LLEN", [.text(list)])).integer ?? -1
        return (Int(left), try await backend.jobs(JobFilter(states: [.failed], limit: .max)).count)
    }

    @Test(
        "what has the name of somebody else's job waits for that somebody, in whatever form it is",
        arguments: [
            message(named: "other"), message(named: "größer \"\\ 名"),
            message(named: "other") { $0.replacing(",", with: " ,\n\t").replacing(":0", with: ":-0.5e+3") },
            message(named: "other") { $0.replacing("\"retries\":0", with: "\"retries\":00") },
            message(named: "other") { $0.replacing("\"retries\":0", with: "\"retries\":nan") },
            message(named: "other") { $0.replacing("\"retries\":0", with: "\"retries\":0,\"x\":Infinity") },
            // Protocol 1, as kombu writes it: the name is in the body.
            Array(
                #"""
                {"body": "eyJ0YXNrIjogInB5dGhvbi5vbmx5IiwgImlkIjogIngifQ==", "content-encoding": "utf-8", "content-type": "application/json", "headers": {}, "properties": {"body_encoding": "base64", "delivery_info": {}, "delivery_tag": "t"}}
                """#.utf8),
            Array(
                #"{"body": "W10=", "headers": {"lang": "py", "task": "python.only", "id": 42}, "properties": {}}"#.utf8),
        ])
    func others(element: [UInt8]) async throws {
        let (left, dead) = try await settled(element)
        #expect(left == 1 && dead == 0)
    }

    @Test(
        "what has no name that anybody could have is a dead letter, and waits for nobody",
        arguments: [
            message(named: "other") { $0.replacing("other", with: "ot\u{5}er") },
            message(named: "other") { $0.replacing("other", with: "ot\ter") },
            message(named: "other").map { $0 == UInt8(ascii: "h") ? 0xC3 : $0 },
            message(named: "ot☃er").map { $0 == 0x98 ? UInt8(0xE2) : $0 },
            Array("no message".utf8), [], Array(#"{"headers":{"task":""},"body":"x"}"#.utf8),
        ])
    func unsound(element: [UInt8]) async throws {
        let (left, dead) = try await settled(element)
        #expect(left == 0 && dead == 1)
    }

    @Test(
        "an id that is no strict UTF-8 makes a dead letter at once, and costs nobody anything afterwards",
        arguments: [
            [0xED, 0xA0, 0x80], [0xE0, 0x80, 0x80], [0xF4, 0x90, 0x80, 0x80], [0xC3], [0xE0, 0xC3, 0xA4, 0xA0, 0x80],
        ])
    func notUTF8(bytes: [UInt8]) async throws {
        let text = String(decoding: Self.message(named: "note"), as: UTF8.self)
        let id = try #require(text.firstMatch(of: /"id":"([^"]*)"/)).1
        let element = Array(text[..<id.startIndex].utf8) + bytes + Array(text[id.endIndex...].utf8)
        let (left, dead) = try await settled(element)
        #expect(left == 0 && dead == 1)
    }

    // MARK: - Many

    /// A worker's claims on a queue with strangers, as the server sees them.
    private struct Crowd {
        let backend: RedisBackend
        let probe: RESPClient
        let list: String

        init(_ count: Int, of size: Int) async throws {
            (backend, probe) = try RedisBackend.onTestServer(prefix: "crowd\(UUID().uuidString.prefix(8)):")
            list = backend.keys.list("default", wirePriority: 0)
            let presence = WorkerPresence(
                id: "w", name: "w", queues: ["default"], jobNames: ["note"], startedAt: Date(), concurrency: 1)
            _ = try await backend.join(presence, lease: .seconds(600))
            for start in stride(from: 0, to: count, by: 100) {
                let elements = (start..<min(start + 100, count)).map { stranger($0, size) }
                try await probe.send(RESPCommand("LPUSH", [.text(list)] + elements.map { .bytes($0) }))
            }
        }

        /// As kombu writes it.
        func stranger(_ number: Int, _ size: Int) -> [UInt8] {
            Array(
                #"""
                {"body": "\#(String(repeating: "A", count: size))", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"lang": "py", "task": "python.only", "id": "s\#(number)", "retries": 0, "eta": null, "expires": null}, "properties": {"correlation_id": "s\#(number)", "delivery_mode": 2, "delivery_info": {"exchange": "", "routing_key": "default"}, "priority": 0, "body_encoding": "base64", "delivery_tag": "\#(UUID())"}}
                """#.utf8)
        }

        func claim(_ limit: Int = 4) async throws -> TurnResult {
            try await backend.turn(
                "w",
                WorkerTurn(
                    claims: [Claim(queue: "default", kind: "async", jobNames: ["note"])],
                    budget: ClaimBudget(kinds: ["async": limit])))
        }

        /// Asks until there is nothing more to be found.
        func claimAll() async throws -> [JobID] {
            var found: [JobID] = []
            while true {
                let result = try await claim(100)
                found += result.deliveries.map(\.jobID)
                if !result.hasMore { return found }
            }
        }

        func elements() async throws -> [RESPValue] {
            try await probe.send(RESPCommand("LRANGE", [.text(list), 0, -1])).elements ?? []
        }

        /// How much memory traffic the reads of a claim cause, by the length of what scripts read.
        func ours(_ id: String) -> [UInt8] {
            let text = String(decoding: StrangerTests.message(named: "note"), as: UTF8.self)
            return Array(text.replacing(/"id":"[^"]*"/, with: "\"id\":\"\(id)\"").utf8)
        }
    }

    @Test(
        "a crowd of strangers stays as it is, byte for byte, is read once, and lets our own jobs pass",
        arguments: [(5000, 400), (300, 20_000), (12, 2_000_000)])
    func crowd(count: Int, size: Int) async throws {
        let crowd = try await Crowd(count, of: size)
        defer { crowd.probe.close() }
        let before = try await crowd.elements()
        #expect(try await crowd.claimAll().isEmpty)
        #expect(try await crowd.elements() == before)
        // From now on a look reads the end of the list and no more, and finds what came behind the strangers.
        try await crowd.probe.send(RESPCommand("CONFIG RESETSTAT"))
        try await crowd.probe.send(RESPCommand("LPUSH", [.text(crowd.list), .bytes(crowd.ours("mine"))]))
        #expect(try await crowd.claim().deliveries.map(\.jobID) == ["mine"])
        // What others put in front is seen as well, whether it is ours or not.
        try await crowd.probe.send(RESPCommand("RPUSH", [.text(crowd.list), .bytes(crowd.ours("front"))]))
        #expect(try await crowd.claimAll() == ["front"])
        let another = crowd.stranger(count, size)
        try await crowd.probe.send(RESPCommand("RPUSH", [.text(crowd.list), .bytes(another)]))
        try await crowd.probe.send(RESPCommand("LPUSH", [.text(crowd.list), .bytes(crowd.ours("last"))]))
        #expect(try await crowd.claimAll() == ["last"])
        #expect(try await crowd.elements() == before + [.bulk(another)])
        // Their own worker takes some.
        for _ in 0..<min(count, 7) { try await crowd.probe.send(RESPCommand("RPOP", [.text(crowd.list)])) }
        try await crowd.probe.send(RESPCommand("LPUSH", [.text(crowd.list), .bytes(crowd.ours("then"))]))
        #expect(try await crowd.claimAll() == ["then"])
        // All gone.
        try await crowd.probe.send(RESPCommand("DEL", [.text(crowd.list)]))
        try await crowd.probe.send(RESPCommand("LPUSH", [.text(crowd.list), .bytes(crowd.ours("alone"))]))
        #expect(try await crowd.claimAll() == ["alone"])
    }

    @Test("a worker that gets to know a name finds the jobs that it passed over before")
    func newName() async throws {
        let crowd = try await Crowd(50, of: 100)
        defer { crowd.probe.close() }
        #expect(try await crowd.claimAll().isEmpty)
        let claim = Claim(queue: "default", kind: "async", jobNames: ["note", "python.only"])
        let result = try await crowd.backend.turn(
            "w", WorkerTurn(claims: [claim], budget: ClaimBudget(kinds: ["async": 10])))
        #expect(result.deliveries.map(\.jobID) == (0..<10).map { "s\($0)" })
    }

    @Test("large messages are handed out a few at a time, so that an answer comes in good time; all come")
    func largeMessages() async throws {
        let crowd = try await Crowd(0, of: 0)
        defer { crowd.probe.close() }
        let padding = String(repeating: "x", count: 1_500_000)
        for number in 0..<12 {
            let text = String(decoding: crowd.ours("big\(number)"), as: UTF8.self)
            let element = text.replacing("\"body\":\"", with: "\"body\":\"\(padding)")
            try await crowd.probe.send(RESPCommand("LPUSH", [.text(crowd.list), .text(element)]))
        }
        var sizes: [Int] = []
        var found: [JobID] = []
        while found.count < 12, sizes.count < 12 {
            let result = try await crowd.claim(64)
            found += result.deliveries.map(\.jobID)
            sizes.append(result.deliveries.count)
            #expect(found.count == 12 || result.hasMore)
        }
        #expect(found == (0..<12).map { "big\($0)" } && sizes.allSatisfy { (1...4).contains($0) }, "\(sizes)")
    }

    @Test("a worker asks again after a claim that was as large as one may be", arguments: [1, 4])
    func largeLast(count: Int) async throws {
        let crowd = try await Crowd(0, of: 0)
        defer { crowd.probe.close() }
        let padding = String(repeating: "x", count: 5_000_000 / count)
        for number in 0..<count {
            let text = String(decoding: crowd.ours("big\(number)"), as: UTF8.self)
            let element = text.replacing("\"body\":\"", with: "\"body\":\"\(padding)")
            try await crowd.probe.send(RESPCommand("LPUSH", [.text(crowd.list), .text(element)]))
        }
        // Less urgent, in a list that is looked at later.
        let later = crowd.backend.keys.list("default", wirePriority: 9)
        try await crowd.probe.send(RESPCommand("LPUSH", [.text(later), .bytes(crowd.ours("small"))]))
        let first = try await crowd.claim(64)
        #expect(first.deliveries.count == count && first.hasMore)
        #expect(try await crowd.claim(64).deliveries.map(\.jobID) == ["small"])
    }

    @Test("many large messages behind small ones are not all read at once")
    func largeBehindSmall() async throws {
        let crowd = try await Crowd(0, of: 0)
        defer { crowd.probe.close() }
        let padding = String(repeating: "x", count: 1_000_000)
        for number in 0..<60 {
            let text = String(decoding: crowd.ours("j\(number)"), as: UTF8.self)
            let element = number < 21 ? text : text.replacing("\"body\":\"", with: "\"body\":\"\(padding)")
            try await crowd.probe.send(RESPCommand("LPUSH", [.text(crowd.list), .text(element)]))
        }
        var found: [JobID] = []
        for _ in 0..<60 where found.count < 60 {
            let result = try await crowd.claim(64)
            let bytes = result.deliveries.reduce(0) { $0 + ($1.message?.body.count ?? 0) }
            #expect(bytes < 6_000_000, "\(bytes) bytes in one turn")
            found += result.deliveries.map(\.jobID)
        }
        #expect(found == (0..<60).map { "j\($0)" })
    }

    @Test(
        "own jobs that come in front of strangers that are known, among others that are not, are all found",
        arguments: [(3000, 300, 400), (20, 12, 600_000)])
    func ownInFront(known: Int, new: Int, size: Int) async throws {
        let crowd = try await Crowd(known, of: 400)
        defer { crowd.probe.close() }
        #expect(try await crowd.claimAll().isEmpty)
        var mine: [JobID] = []
        for number in 0..<new {
            let isMine = number % 10 == 3
            if isMine { mine.append("m\(number)") }
            let element = isMine ? crowd.ours("m\(number)") : crowd.stranger(known + number, size)
            try await crowd.probe.send(RESPCommand("RPUSH", [.text(crowd.list), .bytes(element)]))
        }
        var found = Set(try await crowd.claimAll())
        for _ in 0..<20 where found.count < mine.count { found.formUnion(try await crowd.claimAll()) }
        #expect(found == Set(mine))
        #expect(try await crowd.elements().count == known + new - mine.count)
    }

    @Test("very many jobs whose worker died let fresh ones pass, and are all there")
    func manySuspects() async throws {
        let crowd = try await Crowd(0, of: 0)
        defer { crowd.probe.close() }
        for number in 0..<1500 {
            let id = "s\(number)"
            let record = "p{\"q\":\"default\",\"n\":\"note\",\"s\":\"waiting\",\"p\":9,\"t\":1,\"lost\":1}"
            try await crowd.probe.send(RESPCommand("SET", [.text(crowd.backend.keys.job(id)), .text(record)]))
            try await crowd.probe.send(RESPCommand("LPUSH", [.text(crowd.list), .bytes(crowd.ours(id))]))
        }
        for number in 0..<5 {
            try await crowd.probe.send(RESPCommand("LPUSH", [.text(crowd.list), .bytes(crowd.ours("f\(number)"))]))
        }
        var found: [Delivery] = []
        for _ in 0..<20 where found.count < 6 { found += try await crowd.claim(8).deliveries }
        #expect(found.filter { $0.lostWorkers > 0 }.count >= 1 && found.filter { $0.jobID.hasPrefix("f") }.count == 5)
        let delayed =
            try await crowd.probe.send(
                RESPCommand("ZCARD", [.text(crowd.backend.keys.own + "delayed:default")])
            ).integer ?? 0
        let waiting = try await crowd.probe.send(RESPCommand("LLEN", [.text(crowd.list)])).integer ?? 0
        #expect(Int(delayed + waiting) + found.count == 1505)
    }

    @Test("a job that stays between strangers does not make the worker ask without a pause")
    func noBusyLoop() async throws {
        let crowd = try await Crowd(3000, of: 300)
        defer { crowd.probe.close() }
        #expect(try await crowd.claimAll().isEmpty)
        let record = "p{\"q\":\"default\",\"n\":\"note\",\"s\":\"waiting\",\"p\":9,\"t\":1,\"lost\":1}"
        for id in ["s-a", "s-b"] {
            try await crowd.probe.send(RESPCommand("SET", [.text(crowd.backend.keys.job(id)), .text(record)]))
            try await crowd.probe.send(RESPCommand("RPUSH", [.text(crowd.list), .bytes(crowd.ours(id))]))
        }
        try await crowd.probe.send(RESPCommand("RPUSH", [.text(crowd.list), .bytes(crowd.stranger(9000, 300))]))
        var turn = WorkerTurn(
            claims: [Claim(queue: "default", kind: "async", jobNames: ["note"])],
            budget: ClaimBudget(kinds: ["async": 8]))
        #expect(try await crowd.backend.turn("w", turn).deliveries.count == 1)
        turn.takesSuspects = false
        var asksAgain = 0
        for _ in 0..<20 where try await crowd.backend.turn("w", turn).hasMore { asksAgain += 1 }
        #expect(asksAgain < 8, "\(asksAgain) of 20 turns ask again")
        // And what comes behind them all is found.
        try await crowd.probe.send(RESPCommand("LPUSH", [.text(crowd.list), .bytes(crowd.ours("fresh"))]))
        var found: [JobID] = []
        for _ in 0..<20 where found.isEmpty { found = try await crowd.backend.turn("w", turn).deliveries.map(\.jobID) }
        #expect(found == ["fresh"])
    }

    @Test("a job that another producer puts again under the id of one that has succeeded runs again; a copy does not")
    func sameIDAgain() async throws {
        let crowd = try await Crowd(0, of: 0)
        defer { crowd.probe.close() }
        let theirs = String(decoding: crowd.stranger(1, 8), as: UTF8.self).replacing("python.only", with: "note")
        func run(_ element: String) async throws -> TurnResult {
            try await crowd.probe.send(RESPCommand("LPUSH", [.text(crowd.list), .text(element)]))
            let result = try await crowd.claim()
            let settlements = result.deliveries.map {
                Settlement(
                    jobID: $0.jobID, token: $0.token, outcome: .succeeded(output: Array("1".utf8), retention: nil),
                    startedAt: Date(), finishedAt: Date())
            }
            _ = try await crowd.backend.turn("w", WorkerTurn(settlements: settlements))
            return result
        }
        #expect(try await run(theirs).deliveries.map(\.jobID) == ["s1"])
        let again = try await run(theirs)
        #expect(again.deliveries.map(\.jobID) == ["s1"] && again.copies.isEmpty)
        let redelivered = theirs.replacing("\"delivery_info\": {", with: "\"delivery_info\": {\"redelivered\": true, ")
        let dropped = try await run(redelivered)
        #expect(dropped.deliveries.isEmpty && dropped.copies == ["s1"])
        let ours = String(decoding: crowd.ours("o1"), as: UTF8.self)
        #expect(try await run(ours).deliveries.map(\.jobID) == ["o1"])
        #expect(try await run(ours).copies == ["o1"])
        #expect(try await crowd.elements().isEmpty)
    }

    @Test("a message of another producer that was revoked before anybody knew it ends without being started")
    func revokedBefore() async throws {
        let crowd = try await Crowd(0, of: 0)
        defer { crowd.probe.close() }
        let theirs = String(decoding: crowd.stranger(1, 8), as: UTF8.self).replacing("python.only", with: "note")
        var record = JobRecord(id: "s1", name: "", queue: "", state: .cancelled)
        record.endedAt = Date()
        try await crowd.backend.store([ResultWrite(record, kept: .standard)])
        try await crowd.probe.send(RESPCommand("LPUSH", [.text(crowd.list), .text(theirs)]))
        #expect(try await crowd.claim().deliveries.isEmpty)
        #expect(try await crowd.elements().isEmpty)
        #expect(try await crowd.backend.record(of: "s1")?.state == .cancelled)
        // An id that is used again is another job: what became of the one before holds for that one alone.
        let key = crowd.backend.keys.result("s2")
        let revoked = #"{"status": "REVOKED", "result": {"exc_type": "TaskRevokedError"}, "task_id": "s2"}"#
        try await crowd.probe.send(RESPCommand("SET", [.text(key), .text(revoked)]))
        let again = theirs.replacing("s1", with: "s2")
        try await crowd.probe.send(RESPCommand("LPUSH", [.text(crowd.list), .text(again)]))
        #expect(try await crowd.claim().deliveries.map(\.jobID) == ["s2"])
    }
}
