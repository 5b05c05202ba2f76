import Foundation
import Hoist
@testable import HoistRedis
import HoistTesting
import RESP
import TestServers
import Testing

/// A worker that dies after the end of its job was counted and before the job is settled.
@Suite("Members of groups, counted on Redis", .timeLimit(.minutes(1)))
struct CountedMemberTests {
    private let clock = TestClock()
    private let prefix = "counted\(UUID().uuidString.prefix(8)):"

    private func join(_ backend: RedisBackend, _ name: String, lease: Duration) async throws -> any WorkerSession {
        let presence = WorkerPresence(
            id: name, name: name, queues: ["default"], jobNames: ["job", "body"], startedAt: clock.now)
        return try await backend.open(presence, lease: lease, sink: Deaf())
    }

    private struct Deaf: SessionSink {
        func arrived(_ result: TurnResult) {}
        func arrivalWasLost(_ error: any Error) {}
        func mayHaveWork() {}
    }

    private func claims() -> WorkerTurn {
        WorkerTurn(
            claims: [Claim(queue: "default", kind: "async", jobNames: ["job", "body"])],
            budget: ClaimBudget(kinds: ["async": 10]))
    }

    private func member(_ index: Int64, _ embed: WireValue) -> Message {
        var headers = MessageHeaders(task: "job", id: "member-\(index)")
        (headers.group, headers.groupIndex) = ("g", index)
        var properties = MessageProperties(routingKey: "default", deliveryTag: "d\(index)")
        properties.correlationID = headers.id
        return Message(
            headers: headers, properties: properties,
            body: MessageBody(arguments: Arguments(), embed: embed).encoded())
    }

    @Test("the next worker settles the job with what was counted, without running it, and the body starts once")
    func diedInBetween() async throws {
        let clock = clock
        let (backend, probe) = try RedisBackend.onTestServer(prefix: prefix) { $0.clock = clock }
        let body: WireValue = [
            "task": "body", "args": [], "kwargs": [:], "options": ["task_id": "body", "queue": "default"],
            "subtask_type": nil,
        ]
        let messages = (0..<2).map { member(Int64($0), ["chord": body]) }
        try await backend.open([GroupOpening("g", size: 2)])
        _ = try await backend.publish(messages)
        let dying = try await join(backend, "dying", lease: .seconds(10))
        let deliveries = try await dying.turn(claims()).deliveries
        #expect(deliveries.count == 2)
        // Both end. The first is settled, the second is only counted.
        for (number, delivery) in deliveries.enumerated() {
            let message = try #require(delivery.message)
            let continuation = try #require(
                try Continuation(message.decodedBody().embed, message.headers))
            var settlement = Settlement(
                jobID: delivery.jobID, token: delivery.token,
                outcome: .succeeded(output: Array("\(number)".utf8), retention: nil), startedAt: clock.now,
                finishedAt: clock.now)
            let followUps = try continuation.afterSuccess(
                .integer(Int64(number)), of: FinishedJob(message.headers), .standard, now: clock.now)
            settlement.followUps = followUps
            if number == 0 {
                _ = try await dying.turn(WorkerTurn(settlements: [settlement]))
            } else {
                let concluded = try await backend.conclude(followUps)
                #expect(concluded.messages.map(\.id) == ["body"], "it is the last")
            }
        }
        #expect(try await backend.record(of: "body") == nil, "nothing is published yet")
        clock.advance(by: .seconds(11))
        let next = try await join(backend, "next", lease: .seconds(1000))
        var seen: [JobID] = []
        for _ in 0..<4 { seen += try await next.turn(claims()).deliveries.map(\.jobID) }
        #expect(seen == ["body"], "the member does not run again, and the body comes once")
        let second = try #require(try await backend.record(of: deliveries[1].jobID))
        #expect(second.state == .succeeded && second.output == 1)
        let left = try await probe.send(RESPCommand("KEYS", [.text("\(prefix)*taskset-meta-g*")])).elements ?? []
        #expect(left.compactMap(\.text).allSatisfy { $0.hasSuffix(".c") }, "\(left)")
    }
}
