import Foundation
import Hoist
@testable import HoistRedis
import HoistTesting
import RESP
import TestServers
import Testing

/// Messages with job names that no worker here knows.
@Suite("Strangers on Redis", .timeLimit(.minutes(1)))
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
        "what is sound waits for a worker that knows its name",
        arguments: [
            message(named: "other"), message(named: "größer \"\\ 名"),
            message(named: "other") { $0.replacing(",", with: " ,\n\t").replacing(":0", with: ":-0.5e+3") },
        ])
    func sound(element: [UInt8]) async throws {
        let (left, dead) = try await settled(element)
        #expect(left == 1 && dead == 0)
    }

    @Test(
        "what no reader takes for a message is a dead letter, and waits for nobody",
        arguments: [
            message(named: "other") { $0.replacing("other", with: "ot\u{5}er") },
            message(named: "other") { $0.replacing("other", with: "ot\ter") },
            message(named: "other") { $0.replacing("\"retries\":0", with: "\"retries\":00") },
            message(named: "other") { $0.replacing("\"retries\":0", with: "\"retries\":0x1") },
            message(named: "other") { $0.replacing("\"retries\":0", with: "\"retries\":nan") },
            message(named: "other").map { $0 == UInt8(ascii: "h") ? 0xC3 : $0 },
            message(named: "ot☃er").map { $0 == 0x98 ? UInt8(0xE2) : $0 },
        ])
    func unsound(element: [UInt8]) async throws {
        let (left, dead) = try await settled(element)
        #expect(left == 0 && dead == 1)
    }
}
