import Foundation
import Hoist
import HoistRedis
import HoistTesting
import Logging
import RESP
import TestServers
import Testing

/// Worker turns by hand, with a clock that the test moves.
private struct LimitBench {
    let clock = TestClock()
    let backend: RedisBackend
    let probe: RESPClient
    let prefix = "c\(UUID().uuidString.prefix(8)):"

    init() throws {
        let clock = clock
        (backend, probe) = try RedisBackend.onTestServer(prefix: prefix) { ($0.scanLimit, $0.clock) = (300, clock) }
    }

    func message(
        _ id: JobID, name: String = "job", queue: String = "q", partition: String? = "p",
        change: (inout Message) -> Void = { _ in }
    ) -> Message {
        var headers = MessageHeaders(task: name, id: id)
        headers.hoist.enqueuedAt = clock.now
        headers.hoist.partition = partition
        let arguments = Arguments(keyword: partition.map { ["partition": .string($0)] } ?? ["partition": "p"])
        var message = Message(
            headers: headers, properties: MessageProperties(routingKey: queue, deliveryTag: id),
            body: MessageBody(arguments: arguments).encoded())
        change(&message)
        return message
    }

    func publish(_ messages: Message...) async throws { _ = try await backend.publish(messages) }

    func turn(
        _ worker: WorkerID = "w", _ limit: Int = 1, names: [String] = ["job"], queues: [String] = ["q"],
        settling: [Settlement] = []
    ) async throws -> TurnResult {
        let presence = WorkerPresence(id: worker, name: worker, queues: queues, jobNames: names, startedAt: clock.now)
        _ = try await backend.join(presence, lease: .seconds(100_000))
        let claims = queues.map { queue in
            Claim(queue: queue, kind: "async", jobNames: names) {
                try? $0.decodedBody().arguments.keyword["partition"]?.stringValue
            }
        }
        return try await backend.turn(
            worker, WorkerTurn(settlements: settling, claims: claims, budget: ClaimBudget(kinds: ["async": limit])))
    }

    func claim(
        _ worker: WorkerID = "w", _ limit: Int = 1, names: [String] = ["job"], queues: [String] = ["q"],
        settling: [Settlement] = []
    ) async throws -> [Delivery] {
        try await turn(worker, limit, names: names, queues: queues, settling: settling).deliveries
    }

    func done(_ delivery: Delivery, _ outcome: Outcome? = nil) -> Settlement {
        Settlement(
            jobID: delivery.jobID, token: delivery.token,
            outcome: outcome ?? .succeeded(output: Array("null".utf8), retention: nil),
            startedAt: clock.now, finishedAt: clock.now)
    }

    /// Claims one job at a time and finishes it, until none is left.
    func runAll(names: [String] = ["job"], queues: [String] = ["q"], most: Int = 100) async throws -> [JobID] {
        var order: [JobID] = []
        var settling: [Settlement] = []
        var misses = 0
        while order.count < most, misses < 4 {
            let deliveries = try await claim(names: names, queues: queues, settling: settling)
            misses = deliveries.isEmpty ? misses + 1 : 0
            order += deliveries.map(\.jobID)
            settling = deliveries.map { done($0) }
        }
        if !settling.isEmpty { _ = try await backend.turn("w", WorkerTurn(settlements: settling)) }
        return order
    }
}

@Suite("Limits on Redis, in corners", .timeLimit(.minutes(3)))
struct LimitCornerTests {
    @Test(
        "whatever a message says that it costs, queues go on",
        arguments: [Int.max, Int.min, -61, 10_000_000_000_000_000])
    func absurdCosts(_ cost: Int) async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        try await bench.backend.setLimits([.rate(1, per: .seconds(86_400 * 365), burst: 2)], for: .job("job"))
        try await bench.publish(bench.message("a") { $0.headers.hoist.cost = cost })
        try await bench.publish(bench.message("b", name: "other", queue: "healthy"))
        let ids = try await bench.claim("w", 5, names: ["job", "other"], queues: ["q", "healthy"]).map(\.jobID)
        #expect(Set(ids) == ["a", "b"])
        // A negative cost gives nothing back.
        for number in 0..<3 { try await bench.publish(bench.message("c\(number)") { $0.headers.hoist.cost = -1000 }) }
        _ = try await bench.claim("w", 5)
    }

    @Test("a job that costs nothing is not held up by a rate")
    func free() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        try await bench.backend.setLimits([.rate(1, per: .seconds(60), burst: 1)], for: .job("job"))
        try await bench.publish(
            bench.message("a", partition: "x"), bench.message("b", partition: "y") { $0.headers.hoist.cost = 0 })
        #expect(try await bench.claim("w", 5).map(\.jobID) == ["a", "b"])
    }

    @Test("a job that was handed out and never began has used up nothing of a rate")
    func notStarted() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        try await bench.backend.setLimits([.rate(1, per: .seconds(3600), burst: 1)], for: .job("job"))
        try await bench.publish(bench.message("a"))
        let first = try #require(try await bench.claim().first)
        let again = try #require(try await bench.claim(settling: [bench.done(first, .notStarted)]).first)
        #expect(again.jobID == "a" && again.attempt == 1)
        try await bench.publish(bench.message("b"))
        #expect(try await bench.claim(settling: [bench.done(again)]).isEmpty, "and a job that did begin has")
    }

    @Test("an error in one queue strands no job of another's line")
    func errorInAnotherQueue() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        for queue in ["q", "r"] {
            try await bench.backend.setLimits([.running(1)], for: .queue(queue))
            try await bench.publish(
                bench.message("\(queue)1", queue: queue, partition: nil),
                bench.message("\(queue)2", queue: queue, partition: nil))
        }
        let first = try await bench.claim("w", 9, queues: ["q", "r"])
        #expect(Set(first.map(\.jobID)) == ["q1", "r1"])
        // While both lines are served, something breaks the second queue.
        _ = try await bench.probe.send(RESPCommand("SET", [.text(bench.prefix + "r"), "broken"]))
        for _ in 0..<2 {
            await #expect(throws: BackendError.self) {
                try await bench.claim("w", 9, queues: ["q", "r"], settling: first.map { bench.done($0) })
            }
        }
        _ = try await bench.probe.send(RESPCommand("DEL", [.text(bench.prefix + "r")]))
        let rest = try await bench.runAll(queues: ["q", "r"])
        #expect(Set(rest) == ["q2", "r2"], "\(rest)")
    }

    @Test("two queues with lines and lists are all served")
    func parity() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        try await bench.backend.setLimits([.running(1, scope: .partition)], for: .job("job"))
        for queue in ["q", "r"] {
            for number in 0..<40 {
                try await bench.publish(bench.message("\(queue)-\(number)", queue: queue, partition: queue))
            }
        }
        // One job of each partition runs, and the others are in their lines.
        let first = try await bench.claim("w", 5, queues: ["q", "r"])
        #expect(first.map(\.jobID) == ["q-0", "r-0"])
        for queue in ["q", "r"] {
            for number in 0..<40 {
                try await bench.publish(
                    bench.message("\(queue)-plain-\(number)", name: "plain", queue: queue, partition: nil))
            }
        }
        _ = try await bench.backend.turn("w", WorkerTurn(settlements: first.map { bench.done($0) }))
        let order = try await bench.runAll(names: ["job", "plain"], queues: ["q", "r"], most: 200)
        #expect(Set(order).count == 158, "\(order.count)")
        // Neither jobs in lines nor jobs straight from the list wait for the others.
        let beginning = order.prefix(24)
        #expect(
            beginning.count { $0.contains("plain") } >= 6 && beginning.count { !$0.contains("plain") } >= 6,
            "\(beginning)")
    }

    @Test("hundreds of jobs with names that nobody knows hide nothing, where partitions take turns")
    func strangersBeforeTurns() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        try await bench.backend.setLimits([.fair], for: .queue("q"))
        for number in 0..<350 { try await bench.publish(bench.message("s\(number)", name: "strange")) }
        try await bench.publish(bench.message("known"))
        #expect(try await bench.runAll() == ["known"])
    }

    @Test("in a line, a job of a name that this worker does not know keeps nobody waiting, unless order is wanted")
    func strangerAtTheHead() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        try await bench.backend.setLimits([.running(1)], for: .queue("q"))
        try await bench.publish(bench.message("x0", name: "new"), bench.message("x1", name: "new"), bench.message("y"))
        // A worker that knows both names puts the jobs into lines, and goes away.
        let first = try await bench.claim("newer", 5, names: ["new", "job"])
        #expect(first.map(\.jobID) == ["x0"])
        _ = try await bench.claim("newer", 5, names: ["new", "job"])
        _ = try await bench.backend.turn("newer", WorkerTurn(settlements: first.map { bench.done($0) }))
        #expect(try await bench.runAll() == ["y"])
        #expect(try await bench.runAll(names: ["job", "new"]) == ["x1"])
    }

    @Test(
        "nothing overtakes in an ordered queue: not what others know, not what has limits of its own, not what must be looked into first"
    )
    func orderedQueue() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        try await bench.backend.setLimits([.ordered], for: .queue("q"))
        try await bench.backend.setLimits([.rate(1, per: .seconds(10), burst: 1)], for: .job("slow"))
        try await bench.publish(bench.message("e1", name: "strange"), bench.message("e2"))
        #expect(try await bench.runAll().isEmpty, "e1 is somebody else's, and first")
        #expect(try await bench.runAll(names: ["job", "strange"]) == ["e1", "e2"])

        try await bench.publish(
            bench.message("s1", name: "slow"), bench.message("s2", name: "slow"), bench.message("j3"),
            bench.message("j4"))
        var order = try await bench.runAll(names: ["job", "slow"])
        bench.clock.advance(by: .seconds(11))
        order += try await bench.runAll(names: ["job", "slow"])
        #expect(order == ["s1", "s2", "j3", "j4"])

        // Two jobs of a producer that names no partition, and one of Hoist's behind them; two workers.
        try await bench.publish(
            bench.message("u1", partition: nil), bench.message("u2", partition: nil), bench.message("o3"))
        var seen: [JobID] = []
        for round in 0..<30 where seen.count < 3 {
            let worker = round % 2 == 0 ? "one" : "two"
            let deliveries = try await bench.claim(worker, 2)
            #expect(deliveries.count <= 1)
            seen += deliveries.map(\.jobID)
            _ = try await bench.backend.turn(worker, WorkerTurn(settlements: deliveries.map { bench.done($0) }))
        }
        #expect(seen == ["u1", "u2", "o3"])
    }

    @Test("where only the newest counts it is the newest that runs, of jobs without a partition too")
    func newest() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        try await bench.backend.setLimits([.running(1, whenFull: .cancelOld)], for: .job("job"))
        try await bench.publish(bench.message("j1", partition: nil))
        let first = try await bench.claim()
        #expect(first.map(\.jobID) == ["j1"])
        try await bench.publish(bench.message("j2", partition: nil))
        // Every slot is in use: the worker hears of the cancellation all the same.
        #expect(try await bench.backend.turn("w", WorkerTurn()).cancellations == ["j1"])
        try await bench.publish(bench.message("j3", partition: nil), bench.message("j4", partition: nil))
        _ = try await bench.claim("w", 3)
        #expect(
            try await bench.claim("w", 3, settling: [bench.done(first[0], .cancelled)]).map(\.jobID) + bench.runAll()
                == ["j4"])
        for id in ["j1", "j2", "j3"] { #expect(try await bench.backend.record(of: id)?.state == .cancelled, "\(id)") }
    }

    @Test("a job that is not due, or too late, uses up no rate")
    func outOfTime() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        try await bench.backend.setLimits([.rate(1, per: .seconds(1000), burst: 1)], for: .job("job"))
        // As a Python producer sends it: straight into the list.
        for (id, change) in [
            ("later", { (message: inout Message) in message.headers.eta = bench.clock.now.addingTimeInterval(500) }),
            ("late", { (message: inout Message) in message.headers.expires = bench.clock.now.addingTimeInterval(-1) }),
        ] {
            let message = bench.message(id, change: change)
            _ = try await bench.probe.send(
                RESPCommand("LPUSH", [.text(bench.prefix + "q"), .bytes(message.encodedEnvelope())]))
        }
        try await bench.publish(bench.message("now"))
        var seen: [JobID] = []
        for _ in 0..<4 { seen += try await bench.claim("w", 5).map(\.jobID) }
        #expect(seen == ["now"])
        #expect(try await bench.backend.record(of: "late")?.state == .expired)
    }

    @Test("looking into a job does not give away its unique key")
    func uniqueKey() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        try await bench.backend.setLimits([.running(1, scope: .partition)], for: .job("job"))
        try await bench.publish(bench.message("busy"))
        #expect(try await bench.claim().count == 1)
        let key = UniqueKey("k", scope: .untilStarted)
        try await bench.publish(bench.message("a", partition: nil) { $0.headers.hoist.unique = key })
        _ = try await bench.claim("w", 2)
        let again = try await bench.backend.publish([bench.message("b") { $0.headers.hoist.unique = key }])
        #expect(again == [.keyHeld(by: "a")])
    }

    @Test(
        "an ordered queue goes on past what cannot be read, and keeps ours between two of another producer's in its place"
    )
    func placing() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        try await bench.backend.setLimits([.ordered], for: .queue("q"))
        // It looks like a message, and is none.
        let bad =
            #"{"headers":{"task":"job","id":"bad","eta":"tomorrow"},"properties":{},"content-type":"application/json","body":""}"#
        for list in ["q", "q\u{06}\u{16}9"] {
            _ = try await bench.probe.send(RESPCommand("LPUSH", [.text(bench.prefix + list), .text(bad)]))
        }
        try await bench.publish(
            bench.message("a", partition: nil), bench.message("b"), bench.message("c", partition: nil),
            bench.message("d"))
        var seen: [JobID] = []
        for _ in 0..<12 {
            let deliveries = try await bench.claim("w", 4)
            seen += deliveries.map(\.jobID)
            _ = try await bench.backend.turn("w", WorkerTurn(settlements: deliveries.map { bench.done($0) }))
        }
        #expect(seen.filter { $0 != "bad" } == ["a", "b", "c", "d"])
        // The other worker does not wait for the first worker to report.
        try await bench.publish(bench.message("e", partition: nil))
        #expect(try await bench.claim("other", 4).map(\.jobID) + bench.claim("other", 4).map(\.jobID) == ["e"])
    }

    @Test("of several that wait before any has started, the newest runs in the end")
    func newestOfMany() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        try await bench.backend.setLimits([.running(1, whenFull: .cancelOld)], for: .job("job"))
        try await bench.publish(bench.message("a", partition: nil), bench.message("b", partition: nil))
        let result = try await bench.turn("w", 5)
        #expect(result.deliveries.map(\.jobID) == ["a"])
        #expect(result.cancellations == ["a"], "the one that has just been handed out makes room at once")
    }

    @Test("a job that costs nothing does not wait behind those that do")
    func freeBehindOthers() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        try await bench.backend.setLimits(
            [.rate(1, per: .seconds(60), burst: 1), .running(9, scope: .partition)], for: .job("job"))
        try await bench.publish(bench.message("a", partition: "a"), bench.message("b", partition: "b"))
        #expect(try await bench.claim("w", 5).map(\.jobID) == ["a"])
        try await bench.publish(bench.message("free", partition: "c") { $0.headers.hoist.cost = 0 })
        #expect(try await bench.claim("w", 5).map(\.jobID) == ["free"])
    }

    @Test("a lane with room hears of new jobs while another lane's wait in front of them")
    func fullLaneInFront() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        let mine = try RedisBackend.onTestServer(prefix: bench.prefix).backend
        let others = try RedisBackend.onTestServer(prefix: bench.prefix).backend
        let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        let release = Doorbell()
        let mark = release.mark
        let worker = Worker(mine, lanes: [.async(8), .blocking(1)], logger: silent) {
            Handler(named: "heavy", in: .blocking) { _, context in
                await release.wait(after: mark, for: .seconds(30), clock: SystemJobClock())
                return .null
            }
            Handler(named: "light") { _, _ in "done" }
        }
        let running = Task { try await worker.run() }
        let client = JobClient(others, logger: silent)
        let heavy = [try await client.enqueue(named: "heavy"), try await client.enqueue(named: "heavy")]
        #expect(try await eventually { try await heavy[0].state() == .running })
        #expect(try await client.enqueue(named: "light").output(timeout: .seconds(30)) == "done")
        release.ring()
        for handle in heavy { try await handle.output(timeout: .seconds(30)) }
        worker.stop()
        try await running.value
    }

    @Test("an alias is under the limits of its kind")
    func aliases() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        try await bench.backend.declareLimits([.job("job"): [.running(1)]], aliases: ["old": "job"])
        try await bench.publish(bench.message("a"), bench.message("b", name: "old"))
        #expect(try await bench.claim("w", 5, names: ["job", "old"]).map(\.jobID) == ["a"])
        #expect(try await bench.runAll(names: ["job", "old"]).isEmpty)
    }

    @Test(
        "when the job that an ordered partition waits for is cancelled, or finished by somebody else, the next one starts"
    )
    func placeGivenUp() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        try await bench.backend.setLimits([.ordered], for: .queue("q"))
        try await bench.publish(bench.message("e1"), bench.message("e2"), bench.message("e3"))
        let later = bench.clock.now.addingTimeInterval(5000)
        let failure = JobFailure(kind: .raised, type: "E", message: "e")
        let first = try await bench.claim()[0]
        #expect(try await bench.claim("w", 5, settling: [bench.done(first, .retry(at: later, failure))]).isEmpty)
        #expect(try await bench.backend.cancel("e1") == .cancelled)
        let second = try await bench.claim()[0]
        #expect(second.jobID == "e2")
        _ = try await bench.claim("w", 5, settling: [bench.done(second, .retry(at: bench.clock.now, failure))])
        // A worker that is not Hoist's takes it out of the list, and succeeds.
        for list in ["q", "q\u{06}\u{16}9"] {
            _ = try await bench.probe.send(RESPCommand("DEL", [.text(bench.prefix + list)]))
        }
        for line in try await bench.probe.send(RESPCommand("KEYS", [.text(bench.prefix + "hoist:held:w*")])).elements?
            .compactMap(\.text)
            ?? []
        {
            _ = try await bench.probe.send(RESPCommand("DEL", [.text(line)]))
        }
        _ = try await bench.probe.send(
            RESPCommand(
                "SET", [.text(bench.prefix + "celery-task-meta-e2"), #"{"status": "SUCCESS", "result": null}"#]))
        bench.clock.advance(by: .seconds(11))
        var seen: [JobID] = []
        for _ in 0..<3 { seen += try await bench.claim("w", 5).map(\.jobID) }
        #expect(seen == ["e3"])
    }

    @Test("an id that is too long is a dead letter, and keeps nobody from the queue")
    func longID() async throws {
        let bench = try LimitBench()
        defer { bench.probe.close() }
        let long = bench.message(String(repeating: "x", count: 2000))
        _ = try await bench.probe.send(
            RESPCommand("LPUSH", [.text(bench.prefix + "q"), .bytes(long.encodedEnvelope())]))
        try await bench.publish(bench.message("good"))
        #expect(try await bench.runAll() == ["good"])
        #expect(try await bench.backend.queues().first?.failed == 1)
        await #expect(throws: WireError.self) {
            try await JobClient(bench.backend, logger: Logger(label: "test")).enqueue(
                named: "job", options: [.id(String(repeating: "x", count: 2000))])
        }
    }
}
