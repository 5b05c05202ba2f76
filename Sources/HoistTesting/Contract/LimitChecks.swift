import Hoist

extension BackendContract {
    private static let failure = JobFailure(kind: .raised, type: "Oops", message: "it broke")
    private static let output = Outcome.succeeded(output: Array("1".utf8), retention: nil)

    /// Limits on how jobs start.
    static let limits: [Check] = [
        Check("no more jobs run than the limit of their kind, and one that ends makes room", parts: [.limits]) {
            bench in
            try await bench.limit(.job("job"), .running(2))
            for id in ["a", "b", "c"] { try await bench.publish(bench.message(id)) }
            try await bench.publish(bench.message("x", name: "other"))
            try await bench.join("w", names: ["job", "other"], lease: .seconds(1000))
            let first = try await bench.claim("w", names: ["job", "other"])
            try bench.expect(
                first.map(\.jobID).sorted() == ["a", "b", "x"],
                "two of the kind, and another kind: \(first.map(\.jobID))")
            try bench.expect(try await bench.claim("w").isEmpty, "the third waits")
            let settled = try await bench.settle("w", first.first { $0.jobID == "a" }!, output)
            try bench.expect(settled.hasMore, "there is more, says the turn that makes room")
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["c"], "it starts")
        },
        Check("a limit holds for all workers together, and for each alias of the kind", parts: [.limits]) { bench in
            try await bench.declare([.job("job"): [.running(1)]], aliases: ["old": "job"])
            try await bench.publish(bench.message("a", name: "old"), bench.message("b"))
            try await bench.join("v", names: ["job", "old"], lease: .seconds(1000))
            try await bench.join("w", names: ["job", "old"], lease: .seconds(1000))
            let first = try await bench.claim("v", names: ["job", "old"])
            let second = try await bench.claim("w", names: ["job", "old"])
            try bench.expect(first.count == 1 && second.isEmpty, "one of both: \(first.count) and \(second.count)")
            try await bench.settle("v", first[0], output)
            try bench.expect(try await bench.claim("w", names: ["job", "old"]).count == 1, "then the other")
        },
        Check("of each partition no more run than its limit; jobs without one are not limited", parts: [.limits]) {
            bench in
            try await bench.limit(.job("job"), .running(1, scope: .partition))
            for id in ["p1", "p2", "q1", "q2", "-1", "-2"] { try await bench.publish(bench.partitioned(id)) }
            try await bench.join("w", lease: .seconds(1000))
            let first = try await bench.claim("w")
            try bench.expect(
                Set(first.map(\.jobID)) == ["p1", "q1", "-1", "-2"], "one of each: \(first.map(\.jobID))")
            try await bench.settle("w", first.first { $0.jobID == "q1" }!, output)
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["q2"], "the next of q")
        },
        Check("a partition with very many jobs hides no other", parts: [.limits]) { bench in
            try await bench.limit(.job("job"), .running(1, scope: .partition))
            _ = try await bench.backend.broker.publish((0..<3000).map { bench.partitioned("p\($0)") })
            try await bench.publish(bench.partitioned("q1"))
            try await bench.join("w", lease: .seconds(1000))
            var found: Set<JobID> = []
            for _ in 0..<40 where found.count < 2 { found.formUnion(try await bench.claim("w").map(\.jobID)) }
            try bench.expect(found == ["p0", "q1"], "one of each: \(found)")
        },
        Check("a rate lets so many start in each period, and says when the next may", parts: [.limits]) { bench in
            try await bench.limit(.job("job"), .rate(2, per: .seconds(10), burst: 2))
            for id in ["a", "b", "c", "d"] { try await bench.publish(bench.message(id)) }
            try await bench.join("w", lease: .seconds(1000))
            try bench.expect(try await bench.claim("w").count == 2, "two at once")
            let turn = try await bench.turn("w")
            let wait = (turn.nextDue?.microsecondsSinceEpoch ?? 0) - bench.now.microsecondsSinceEpoch
            try bench.expect(
                turn.deliveries.isEmpty && (1...5_100_000).contains(wait), "then one in 5 seconds: \(wait)")
            try bench.advance(by: .seconds(5))
            try bench.expect(try await bench.claim("w").count == 1, "the third")
            try bench.expect(try await bench.claim("w").isEmpty, "and no more")
            try bench.advance(by: .seconds(5))
            try bench.expect(try await bench.claim("w").count == 1, "the fourth")
        },
        Check("a job counts as many starts as it costs", parts: [.limits]) { bench in
            try await bench.limit(.job("job"), .rate(1, per: .seconds(1), burst: 1))
            try await bench.publish(
                bench.message("dear") { $0.headers.hoist.cost = 5 },
                bench.message("free") { $0.headers.hoist.cost = 0 },
                bench.message("next"))
            try await bench.join("w", lease: .seconds(1000))
            try bench.expect(Set(try await bench.claim("w").map(\.jobID)) == ["dear", "free"], "the free one too")
            try bench.advance(by: .seconds(4))
            try bench.expect(try await bench.claim("w").isEmpty, "four seconds are not enough")
            try bench.advance(by: .seconds(1))
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["next"], "five are")
        },
        Check("a job that was handed out and never began has used up nothing", parts: [.limits]) { bench in
            try await bench.limit(.job("job"), .rate(1, per: .seconds(100), burst: 1))
            try await bench.publish(bench.message("a"))
            try await bench.join("w", lease: .seconds(1000))
            let delivery = try await bench.claim("w")[0]
            try await bench.settle("w", delivery, .notStarted)
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["a"], "it starts")
        },
        Check("the jobs of an ordered partition run one after the other, a failed one first", parts: [.limits]) {
            bench in
            try await bench.limit(.job("job"), .ordered)
            for id in ["p1", "p2", "q1"] { try await bench.publish(bench.partitioned(id)) }
            try await bench.join("w", lease: .seconds(1000))
            let first = try await bench.claim("w")
            try bench.expect(Set(first.map(\.jobID)) == ["p1", "q1"], "the first of each: \(first.map(\.jobID))")
            try await bench.settle("w", first.first { $0.jobID == "p1" }!, .retry(at: bench.after(60), failure))
            try bench.expect(try await bench.claim("w").isEmpty, "p2 waits for p1")
            try bench.advance(by: .seconds(61))
            let again = try await bench.claim("w")
            try bench.expect(again.map(\.jobID) == ["p1"], "p1 again: \(again.map(\.jobID))")
            try await bench.settle("w", again[0], .failed(failure))
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["p2"], "given up, it keeps nobody")
        },
        Check("a dead worker's jobs give back what limits counted", parts: [.limits]) { bench in
            try await bench.limit(.job("job"), .running(1))
            try await bench.publish(bench.message("a"), bench.message("b"))
            try await bench.join("dead")
            try bench.expect(try await bench.claim("dead").count == 1, "one runs")
            try bench.advance(by: .seconds(11))
            try await bench.join("w", lease: .seconds(1000))
            let next = try await bench.claim("w")
            try bench.expect(next.count == 1, "one again: \(next.count)")
            try await bench.settle("w", next[0], output)
            try bench.expect(try await bench.claim("w").count == 1, "and the other")
        },
        Check("partitions take turns, however many jobs one of them has", parts: [.limits]) { bench in
            try await bench.limit(.job("job"), .fair)
            for id in ["p1", "p2", "p3", "p4", "q1", "r1"] { try await bench.publish(bench.partitioned(id)) }
            try await bench.join("w", lease: .seconds(1000))
            var order: [String] = []
            for _ in 0..<40 where order.count < 6 {
                for delivery in try await bench.claim("w", 1) {
                    order.append(String(delivery.jobID.prefix(1)))
                    try await bench.settle("w", delivery, output)
                }
            }
            try bench.expect(
                order.count == 6 && Set(order.prefix(3)) == ["p", "q", "r"], "each has its turn: \(order)")
        },
        Check("where the limit keeps what runs, a new job is cancelled with the reason", parts: [.limits, .directory]) {
            bench in
            try await bench.limit(.job("job"), .running(1, whenFull: .dropNew))
            try await bench.publish(bench.message("a"))
            try await bench.join("w", lease: .seconds(1000))
            let first = try await bench.claim("w")
            try await bench.publish(bench.message("b"))
            try bench.expect(try await bench.claim("w").isEmpty, "it does not start")
            let record = try await bench.record("b")
            try bench.expect(
                record.state == .cancelled && record.failure?.kind == .dropped, "cancelled: \(record.state)")
            try await bench.settle("w", first[0], output)
            try await bench.publish(bench.message("c"))
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["c"], "a later one starts")
        },
        Check(
            "where the newest counts, the one that runs is asked to stop and older ones are cancelled", parts: [.limits]
        ) {
            bench in
            try await bench.limit(.job("job"), .running(1, whenFull: .cancelOld))
            try await bench.publish(bench.message("a"))
            try await bench.join("w", lease: .seconds(1000))
            let first = try await bench.claim("w")
            try await bench.publish(bench.message("b"))
            try await bench.publish(bench.message("c"))
            let turn = try await bench.turn("w")
            let later = try await bench.turn("w")
            try bench.expect(turn.deliveries.isEmpty && later.deliveries.isEmpty, "none starts yet")
            try bench.expect(Set(turn.cancellations + later.cancellations) == ["a"], "the first is asked to stop")
            try await bench.settle("w", first[0], .cancelled)
            var started: [JobID] = []
            for _ in 0..<3 { started += try await bench.claim("w").map(\.jobID) }
            try bench.expect(started == ["c"], "the newest runs: \(started)")
            try bench.expect(try await bench.state("b") == .cancelled, "the one between is cancelled")
        },
        Check("limits that a person sets come before those in code, until they are taken back", parts: [.limits]) {
            bench in
            guard let keeper = bench.backend.limits else { return }
            try await bench.declare([.job("job"): [.running(1)], .queue("default"): [.running(5)]], aliases: [:])
            try await keeper.setLimits([.running(2)], for: .job("job"))
            try bench.expect(
                try await keeper.limits() == [.job("job"): [.running(2)], .queue("default"): [.running(5)]], "set")
            try await keeper.setLimits([], for: .job("job"))
            try bench.expect(try await keeper.limits() == [.queue("default"): [.running(5)]], "no limit at all")
            try await keeper.setLimits(nil, for: .job("job"))
            try bench.expect(try await keeper.limits()[.job("job")] == [.running(1)], "as the code says")
            try await bench.declare([.job("job"): []], aliases: [:])
            try bench.expect(try await keeper.limits()[.job("job")] == nil, "and no longer")
        },
        Check("a job that nobody can say what it belongs to is asked of its worker", parts: [.limits]) { bench in
            try await bench.limit(.job("job"), .running(1, scope: .partition))
            try await bench.publish(bench.message("a"), bench.message("b"), bench.message("c"))
            try await bench.join("w", lease: .seconds(1000))
            let claim = Claim(queue: "default", kind: "async", jobNames: ["job"]) { $0.id == "c" ? "other" : "same" }
            var found: [JobID] = []
            for _ in 0..<4 {
                let turn = try await bench.sessions.turn(
                    "w", WorkerTurn(claims: [claim], budget: ClaimBudget(kinds: ["async": 10])))
                found += turn.deliveries.map(\.jobID)
            }
            try bench.expect(found.sorted() == ["a", "c"], "one of each: \(found)")
        },
    ]
}

extension ContractBench {
    /// A job of the partition that its id begins with; `-` for none.
    fileprivate func partitioned(_ id: JobID) -> Message {
        message(id) { $0.headers.hoist.partition = id.hasPrefix("-") ? "" : String(id.prefix(1)) }
    }

    fileprivate func declare(_ limits: [LimitTarget: [JobLimit]], aliases: [String: String]) async throws {
        guard let keeper = backend.limits else { throw ContractViolation(description: "no limits") }
        try await keeper.declareLimits(limits, aliases: aliases)
    }

    fileprivate func limit(_ target: LimitTarget, _ limits: JobLimit...) async throws {
        try await declare([target: limits], aliases: [:])
    }
}
