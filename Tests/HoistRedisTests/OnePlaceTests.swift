import Foundation
import Hoist
@testable import HoistRedis
import HoistTesting
import RESP
import TestServers
import Testing

/// Every transition, while a key that it needs holds something else: a job is in exactly one place afterwards.
@Suite("A job is in one place, whatever the keys hold", .serialized, .timeLimit(.minutes(2)))
struct OnePlaceTests {
    /// What is done to the job `a` of the queue `q`, and what must have been done before.
    struct Motion: Sendable, CustomTestStringConvertible {
        let testDescription: String
        var prepare: @Sendable (Bench) async throws -> Void
        var perform: @Sendable (Bench) async throws -> Void
    }

    static let failure = JobFailure(kind: .raised, type: "Oops", message: "oops")

    private static func settling(_ name: String, _ outcome: @escaping @Sendable (Bench) -> Outcome) -> Motion {
        Motion(
            testDescription: name, prepare: { try await $0.publishAndClaim() },
            perform: { bench in try await bench.settle(outcome(bench)) })
    }

    static let motions: [Motion] = [
        settling("success") { _ in .succeeded(output: Array("1".utf8), retention: nil) },
        settling("failure") { _ in .failed(failure) },
        settling("retry now") { .retry(at: $0.clock.now, failure) },
        settling("retry later") { .retry(at: $0.clock.now.addingTimeInterval(60), failure) },
        settling("retry before 1970") { _ in .retry(at: .distantPast, failure) },
        settling("snooze") { .snoozed(until: $0.clock.now.addingTimeInterval(60)) },
        settling("snooze before 1970") { _ in .snoozed(until: .distantPast) },
        settling("snooze for ever") { _ in .snoozed(until: Date(timeIntervalSince1970: .infinity)) },
        settling("cancellation") { _ in .cancelled },
        settling("hand back") { _ in .handedBack },
        settling("not started") { _ in .notStarted },
        Motion(testDescription: "resigning", prepare: { try await $0.publishAndClaim() }) {
            try await $0.sessions.leave("w")
        },
        Motion(testDescription: "takeover", prepare: { try await $0.publishAndClaim() }) { bench in
            bench.clock.advance(by: .seconds(11))
            try await bench.join("other")
            _ = try await bench.sessions.turn("other", WorkerTurn())
        },
        Motion(testDescription: "claim", prepare: { try await $0.publish() }) { _ = try await $0.claim() },
        Motion(testDescription: "becoming due", prepare: { try await $0.publish(delay: 60) }) { bench in
            bench.clock.advance(by: .seconds(61))
            try await bench.join("w", lease: 1000)
            _ = try await bench.claim()
        },
        Motion(
            testDescription: "requeue",
            prepare: { bench in
                try await bench.publishAndClaim()
                try await bench.settle(.failed(failure))
            },
            perform: { _ = try await $0.backend.requeue(JobFilter(states: [.failed]), arguments: nil) }),
        Motion(testDescription: "cancelling", prepare: { try await $0.publish() }) {
            _ = try await $0.backend.cancel("a")
        },
        Motion(testDescription: "cancelling a delayed job", prepare: { try await $0.publish(delay: 60) }) {
            _ = try await $0.backend.cancel("a")
        },
        Motion(testDescription: "rescheduling", prepare: { try await $0.publish() }) {
            _ = try await $0.backend.edit("a", .reschedule($0.clock.now.addingTimeInterval(600)))
        },
        Motion(testDescription: "making ready", prepare: { try await $0.publish(delay: 60) }) {
            _ = try await $0.backend.edit("a", .reschedule($0.clock.now))
        },
        Motion(testDescription: "changing the priority", prepare: { try await $0.publish() }) {
            _ = try await $0.backend.edit("a", .priority(9))
        },
    ]

    /// The keys that a job of `q` passes, its worker's, and those of limits. A name without a prefix is a list's.
    static let keys =
        ["q", "q\u{06}\u{16}9", "q\u{06}\u{16}0"]
        + [
            "delayed:q", "delayed:q:jobs", "dead:q", "dead:q:jobs", "stopped:q", "stopped:q:jobs", "held:w",
            "held:w:info",
            "cancel:w", "permits", "job:a", "queues", "workers", "dying", "leases", "token", "lines:q", "flow",
            "in-lines", "front:q", "limits", "closed", "paused", "caps", "full", "standing:w", "placing:q",
        ].map { "hoist:" + $0 }

    struct Bench: Sendable {
        let clock = TestClock()
        let backend: RedisBackend
        let probe: RESPClient
        /// Not those that are kept for each backend: there are hundreds of these.
        let sessions: WorkerSessions
        let prefix = "one\(UUID().uuidString.prefix(8)):"

        init() throws {
            let clock = clock
            (backend, probe) = try RedisBackend.onTestServer(prefix: prefix) { $0.clock = clock }
            sessions = WorkerSessions(backend)
        }

        func publish(delay: TimeInterval = 0) async throws {
            var headers = MessageHeaders(task: "job", id: "a")
            headers.hoist.enqueuedAt = clock.now
            if delay > 0 { headers.eta = clock.now.addingTimeInterval(delay) }
            let message = Message(
                headers: headers, properties: MessageProperties(routingKey: "q", deliveryTag: "a"),
                body: MessageBody(arguments: Arguments()).encoded())
            _ = try await backend.publish([message])
        }

        func join(_ worker: WorkerID, lease: Int64 = 10) async throws {
            let presence = WorkerPresence(
                id: worker, name: worker, queues: ["q"], jobNames: ["job"], startedAt: clock.now)
            _ = try await sessions.join(presence, lease: .seconds(lease))
        }

        func claim() async throws -> [Delivery] {
            try await join("w")
            let claim = Claim(queue: "q", kind: "async", jobNames: ["job"])
            return try await sessions.turn(
                "w", WorkerTurn(claims: [claim], budget: ClaimBudget(kinds: ["async": 4]))
            ).deliveries
        }

        func publishAndClaim() async throws {
            try await publish()
            #expect(try await claim().map(\.jobID) == ["a"])
        }

        func settle(_ outcome: Outcome) async throws {
            let line = try await probe.send(
                RESPCommand("HGET", [.text(prefix + "hoist:held:w:info"), "a"])
            ).bytes
            guard let held = line.flatMap({ HeldJob($0, envelope: []) }) else { return }
            let settlement = Settlement(
                jobID: "a", token: held.token, outcome: outcome, startedAt: clock.now, finishedAt: clock.now)
            _ = try await sessions.turn("w", WorkerTurn(settlements: [settlement]))
        }

        /// Where the job is, each place once.
        func places() async throws -> [String] {
            var places: [String] = []
            for step in [0, 3, 6, 9] {
                let list = backend.keys.list("q", wirePriority: step)
                guard try await probe.send(RESPCommand("TYPE", [.text(list)])).text == "list" else { continue }
                let count = try await probe.send(RESPCommand("LLEN", [.text(list)])).integer ?? 0
                for _ in 0..<count { places.append("list \(step)") }
            }
            for key in ["held:w:info", "held:other:info", "delayed:q:jobs", "dead:q:jobs", "stopped:q:jobs"] {
                let hash = prefix + "hoist:" + key
                guard try await probe.send(RESPCommand("TYPE", [.text(hash)])).text == "hash" else { continue }
                if try await probe.send(RESPCommand("HEXISTS", [.text(hash), "a"])).integer == 1 { places.append(key) }
            }
            let result = try await probe.send(RESPCommand("GET", [.text(backend.keys.result("a"))])).text ?? ""
            if places.isEmpty, result.contains("SUCCESS") { places.append("its result") }
            return places
        }
    }

    @Test(arguments: motions)
    func afterEvery(_ motion: Motion) async throws {
        for key in Self.keys {
            let bench = try Bench()
            defer {
                bench.probe.close()
                bench.backend.close()
            }
            try await motion.prepare(bench)
            let name = bench.prefix + key
            // An empty list or hash is no key, so that nothing keeps anybody from writing something else.
            let isFree = try await bench.probe.send(RESPCommand("EXISTS", [.text(name)])).integer == 0
            guard isFree else { continue }
            try await bench.probe.send(RESPCommand("SET", [.text(name), "x"]))
            do { try await motion.perform(bench) } catch {}
            let places = try await bench.places()
            #expect(places.count == 1, "\(key) held a text: \(places)")
            // Once the key is free again the motion can be made, and changes nothing about that.
            try await bench.probe.send(RESPCommand("DEL", [.text(name)]))
            do { try await motion.perform(bench) } catch {}
            let after = try await bench.places()
            #expect(after.count == 1, "\(key) was put right: \(after)")
        }
    }

    @Test("a message that a Celery worker left goes back to every queue that it was sent to, or to none")
    func restoring() async throws {
        for isBroken in [true, false] {
            let bench = try Bench()
            defer { bench.probe.close() }
            let prefix = bench.prefix
            let arguments: [RESPArgument] = [
                .text(prefix + "unacked"), .text(prefix + "unacked_index"), "tag", "entry", .text(prefix + "q1"), "m1",
                .text(prefix + "q2"), "m2",
            ]
            try await bench.probe.send(RESPCommand("HSET", [.text(prefix + "unacked"), "tag", "entry"]))
            try await bench.probe.send(RESPCommand("ZADD", [.text(prefix + "unacked_index"), "1", "tag"]))
            if isBroken { try await bench.probe.send(RESPCommand("SET", [.text(prefix + "q2"), "x"])) }
            do {
                _ = try await bench.backend.run(RedisScripts.restoreUnacknowledged, arguments, doing: "restore")
            } catch {}
            let kept = try await bench.probe.send(RESPCommand("HEXISTS", [.text(prefix + "unacked"), "tag"])).integer
            let first = try await bench.probe.send(RESPCommand("LLEN", [.text(prefix + "q1")])).integer
            #expect(kept == (isBroken ? 1 : 0) && first == (isBroken ? 0 : 1))
        }
    }

    @Test("two jobs of one id that are both for later are both there when they are due")
    func bothLater() async throws {
        let bench = try Bench()
        defer { bench.probe.close() }
        let list = bench.backend.keys.list("q", wirePriority: 0)
        for number in 1...2 {
            let eta = WireTimestamp.string(from: bench.clock.now.addingTimeInterval(60))
            let body = Data("[[\(number)],{},{}]".utf8).base64EncodedString()
            let message = #"""
                {"body": "\#(body)", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"lang": "py", "task": "job", "id": "a", "eta": "\#(eta)"}, "properties": {"body_encoding": "base64", "delivery_info": {"routing_key": "q"}, "delivery_tag": "t\#(number)"}}
                """#
            try await bench.probe.send(RESPCommand("LPUSH", [.text(list), .text(message)]))
            _ = try await bench.claim()
        }
        bench.clock.advance(by: .seconds(5))
        _ = try await bench.claim()
        let delayed = try await bench.probe.send(RESPCommand("HLEN", [.text(bench.prefix + "hoist:delayed:q:jobs")]))
        #expect(delayed.integer == 2)
        bench.clock.advance(by: .seconds(56))
        var bodies: [[UInt8]] = []
        for _ in 0..<4 {
            for delivery in try await bench.claim() {
                bodies.append(delivery.message?.body ?? [])
                try await bench.settle(.succeeded(output: Array("1".utf8), retention: nil))
            }
        }
        #expect(Set(bodies).count == 2)
    }
}
