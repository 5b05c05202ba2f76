import Foundation
import Testing

@testable import Hoist

/// What a worker decides, with no broker: each test is a state and what comes into it.
@Suite("The worker's machine")
struct WorkerMachineTests {
    private typealias Machine = WorkerMachine

    private let start = Date(timeIntervalSince1970: 1_800_000_000)
    private func at(_ milliseconds: Int64) -> Machine.Moment {
        Machine.Moment(now: start.addingTimeInterval(Double(milliseconds) / 1000), uptime: milliseconds * 1000)
    }

    private let light = SlotNeeds(lane: .async, slots: 1, resources: [:])
    private let isolated = SlotNeeds(lane: .process, slots: 1, resources: [:])
    private let heavy = SlotNeeds(lane: .async, slots: 2, resources: [:])

    private func machine(
        slots: Int = 2, queues: [QueueSubscription] = ["q"], names: [String: SlotNeeds]? = nil,
        _ change: (inout Machine.Rules) -> Void = { _ in }
    ) -> Machine {
        var rules = Machine.Rules(needs: names ?? ["light": light])
        change(&rules)
        return Machine(rules, queues: queues, lanes: [.async: slots, .process: 1])
    }

    private func delivery(_ id: String, name: String = "light", queue: String = "q", token: Int64 = 7) -> Delivery {
        Delivery(
            jobID: id, jobName: name, queue: queue, payload: .envelope([]), attempt: 1, lostWorkers: 0, token: token)
    }

    private func settlement(_ id: String, token: Int64 = 7) -> Settlement {
        Settlement(
            jobID: id, token: token, outcome: .succeeded(output: [], retention: nil), startedAt: start,
            finishedAt: start)
    }

    /// A turn, or nil where the machine wants something else.
    private func turn(_ machine: inout Machine, at time: Int64 = 0) -> Machine.Turn? {
        if case .turn(let turn) = machine.next(at(time)) { turn } else { nil }
    }

    /// Actions as text.
    private func told(_ machine: inout Machine) -> [String] {
        machine.takeActions().map { action in
            switch action {
            case .admit(let run, let delivery): "admit \(run) \(delivery.jobID)"
            case .start(let runs): "start \(runs)"
            case .cancel(let run, let reason): "cancel \(run) \(reason.kind)"
            case .drop(let run): "drop \(run)"
            case .refuse(let delivery): "refuse \(delivery.jobID)"
            case .revoke(let delivery): "revoke \(delivery.jobID)"
            case .resize(let lane, let slots, let before): "resize \(lane) \(before) to \(slots)"
            }
        }
    }

    /// A machine that has taken in these jobs.
    private func working(
        on deliveries: [Delivery], slots: Int = 2, names: [String: SlotNeeds]? = nil,
        _ change: (inout Machine.Rules) -> Void = { _ in }
    ) throws -> Machine {
        var machine = machine(slots: slots, names: names, change)
        let first = try #require(turn(&machine))
        #expect(ended(&machine, first, TurnResult(deliveries: deliveries), at(0)))
        _ = machine.takeActions()
        return machine
    }

    @Test("there is room for what lane, queue and resources leave, unless a rate or a suspect stands in the way")
    func room() throws {
        let gpu = SlotNeeds(lane: .async, slots: 1, resources: ["gpu": 1])
        var two = try working(on: [delivery("a")])
        #expect(two.hasRoom(for: "light", of: "q") && !two.hasRoom(for: "unknown", of: "q"))
        two.setRate(try StartRate("1/m"), of: ["light"], at(0))
        #expect(!two.hasRoom(for: "light", of: "q"))
        #expect(try !working(on: [delivery("a"), delivery("b")]).hasRoom(for: "light", of: "q"))
        #expect(try !working(on: [delivery("a")], names: ["light": light, "gpu": gpu]).hasRoom(for: "gpu", of: "q"))
        var suspect = delivery("s")
        suspect.lostWorkers = 1
        #expect(try !working(on: [suspect]).hasRoom(for: "light", of: "q"))
        var limited = machine(queues: [.queue("q", concurrency: 1), "other"])
        let first = try #require(turn(&limited))
        #expect(ended(&limited, first, TurnResult(deliveries: [delivery("a")]), at(0)))
        #expect(!limited.hasRoom(for: "light", of: "q") && limited.hasRoom(for: "light", of: "other"))
    }

    private func outcomes(_ turn: Machine.Turn?) -> [String] {
        turn?.request.settlements.map { "\($0.jobID) \($0.outcome.label)" } ?? ["no turn"]
    }

    // The macros of the testing library take no mutating call.
    private func ended(
        _ machine: inout Machine, _ turn: Machine.Turn, _ result: TurnResult, _ time: Machine.Moment
    ) -> Bool { machine.ended(turn, result, time) }

    private func cancel(
        _ machine: inout Machine, _ id: JobID, _ reason: JobContext.CancellationReason, _ time: Machine.Moment
    ) -> Bool { machine.cancel(id, reason, time) }

    private func add(_ machine: inout Machine, _ queue: QueueSubscription) -> Bool { machine.add(queue) }
    private func remove(_ machine: inout Machine, queue: String) -> Bool { machine.remove(queue: queue) }
    private func noteProcessLane(_ machine: inout Machine, isUsable: Bool) -> Bool {
        machine.noteProcessLane(isUsable: isUsable)
    }

    // MARK: - Idle

    @Test("an idle worker asks for as much as it has room for, and then sleeps for as long as nothing comes")
    func idle() throws {
        var machine = machine()
        let first = try #require(turn(&machine))
        #expect(first.request.claims.map(\.queue) == ["q"] && first.request.budget.kinds == ["async": 2])
        #expect(ended(&machine, first, TurnResult(), at(0)))
        guard case .sleep(nil) = machine.next(at(0)) else { Issue.record("it does not sleep"); return }
        machine.rang()
        #expect(turn(&machine)?.request.claims.count == 1, "a ring is worth a turn")
    }

    @Test("an idle worker wakes for the next delayed job")
    func delayed() throws {
        var machine = machine()
        let first = try #require(turn(&machine))
        #expect(ended(&machine, first, TurnResult(nextDue: at(1500).now), at(0)))
        guard case .sleep(let limit?) = machine.next(at(500)) else { Issue.record("it does not sleep"); return }
        #expect(limit == .seconds(1))
        #expect(turn(&machine, at: 1500)?.request.claims.count == 1)
    }

    @Test("more work is asked for at once, and a full worker asks for none until a job ends")
    func full() throws {
        var machine = machine(slots: 1)
        let first = try #require(turn(&machine))
        #expect(ended(&machine, first, TurnResult(deliveries: [delivery("a")], hasMore: true), at(0)))
        #expect(told(&machine) == ["admit 1 a", "start [1]"])
        guard case .sleep(nil) = machine.next(at(0)) else { Issue.record("a full worker asks"); return }
        machine.finished(1, settlement("a"))
        #expect(told(&machine) == ["drop 1"])
        let next = try #require(turn(&machine))
        #expect(outcomes(next) == ["a succeeded"] && next.request.claims.count == 1)
    }

    @Test(
        "a burst is over when there is nothing, and not before a delayed job unless told so", arguments: [true, false])
    func burst(leavesDelayedJobs: Bool) throws {
        var machine = machine { rules in
            (rules.isBurst, rules.burstLeavesDelayedJobs) = (true, leavesDelayedJobs)
        }
        let first = try #require(turn(&machine))
        #expect(ended(&machine, first, TurnResult(nextDue: at(1000).now), at(0)))
        switch machine.next(at(0)) {
        case .end: #expect(leavesDelayedJobs)
        case .sleep: #expect(!leavesDelayedJobs)
        default: Issue.record("neither ends nor sleeps")
        }
    }

    // MARK: - Jobs

    @Test("a job with no handler is refused, one with no place goes back, one whose slots are taken waits")
    func admission() throws {
        var machine = try working(on: [delivery("a")], names: ["light": light, "heavy": heavy])
        machine.rang()
        let next = try #require(turn(&machine))
        let more = [delivery("h", name: "heavy"), delivery("x", name: "stranger"), delivery("i", name: "heavy")]
        #expect(ended(&machine, next, TurnResult(deliveries: more), at(0)))
        #expect(told(&machine) == ["admit 2 h", "refuse x"])
        #expect(outcomes(turn(&machine)) == ["i not started"], "one job of a lane waits at a time")
        machine.finished(1, settlement("a"))
        #expect(told(&machine) == ["drop 1", "start [2]"], "what waited starts when there are slots")
    }

    @Test("what the end of a run brings after it was given up is nobody's")
    func late() throws {
        var machine = try working(on: [delivery("a")])
        machine.loseLease()
        #expect(told(&machine) == ["cancel 1 leaseLost", "drop 1"])
        machine.finished(1, settlement("a"))
        #expect(outcomes(turn(&machine)) == [])
    }

    @Test("a cancelled job is asked to stop, and one that has not begun goes back at once")
    func cancelled() throws {
        var machine = try working(
            on: [delivery("a"), delivery("b"), delivery("h", name: "heavy")], names: ["light": light, "heavy": heavy])
        #expect(cancel(&machine, "a", .requested, at(0)))
        #expect(cancel(&machine, "h", .requested, at(0)))
        #expect(!cancel(&machine, "nobody", .requested, at(0)))
        #expect(told(&machine) == ["cancel 1 requested", "cancel 3 requested", "drop 3"])
        #expect(outcomes(turn(&machine)) == ["h not started"] && machine.runs.count == 2)
    }

    @Test("progress goes out twenty times a second, the last of each; logs once a second")
    func reports() throws {
        var machine = try working(on: [delivery("a")])
        for fraction in 1...3 { machine.reported(1, JobProgress(fraction: Double(fraction) / 10)) }
        machine.wrote([1])
        let first = try #require(turn(&machine, at: 10))
        #expect(first.progress.map { $0.progress.fraction } == [0.3] && first.written == [1])
        #expect(ended(&machine, first, TurnResult(), at(10)))
        machine.reported(1, JobProgress(fraction: 0.4))
        machine.wrote([1])
        guard case .sleep(let limit?) = machine.next(at(20)) else { Issue.record("it does not wait"); return }
        #expect(limit == .milliseconds(40))
        let second = try #require(turn(&machine, at: 60))
        #expect(second.progress.count == 1 && second.written.isEmpty, "the log waits for its second")
        #expect(ended(&machine, second, TurnResult(), at(60)))
        #expect(turn(&machine, at: 1010)?.written == [1])
    }

    // MARK: - Answers that get lost

    @Test("after a lost answer the settlements go again, and the broker is told what is here")
    func lostAnswer() throws {
        var machine = try working(on: [delivery("a", token: 1), delivery("b", token: 2)])
        machine.finished(1, settlement("a", token: 1))
        let lost = try #require(turn(&machine))
        machine.failed(lost)
        let again = try #require(turn(&machine))
        #expect(outcomes(again) == ["a succeeded"] && again.request.holding == [2])
        #expect(ended(&machine, again, TurnResult(), at(0)))
        machine.rang()
        #expect(turn(&machine)?.request.holding == nil, "once")
    }

    @Test("a turn under way when the lease is lost settles nothing afterwards", arguments: [true, false])
    func lostLeaseMeanwhile(answers: Bool) throws {
        var machine = try working(on: [delivery("a")])
        machine.finished(1, settlement("a"))
        let under = try #require(turn(&machine))
        machine.loseLease()
        if answers {
            #expect(!ended(&machine, under, TurnResult(deliveries: [delivery("b")]), at(0)))
        } else {
            machine.failed(under)
        }
        #expect(machine.runs.isEmpty)
        let next = try #require(turn(&machine))
        #expect(next.request.settlements.isEmpty && next.request.claims.count == 1 && next.request.arrivalsSeen == 0)
    }

    @Test("a report that is refused costs the job, and no other")
    func refusedReport() throws {
        var machine = try working(on: [delivery("a", token: 1), delivery("b", token: 2)])
        machine.reported(1, JobProgress(fraction: 0.5))
        let report = try #require(turn(&machine))
        #expect(ended(&machine, report, TurnResult(lost: ["a"]), at(0)))
        #expect(told(&machine) == ["cancel 1 leaseLost", "drop 1"] && machine.runs.keys.sorted() == [2])
    }

    // MARK: - Credit that lasts

    @Test("jobs that come by themselves start and are counted; lost ones are asked for")
    func arrivals() throws {
        var machine = machine { $0.creditMayLast = true }
        let first = try #require(turn(&machine))
        #expect(first.request.creditLasts)
        #expect(ended(&machine, first, TurnResult(), at(0)))
        machine.arrived(TurnResult(deliveries: [delivery("a")]), at(0))
        #expect(told(&machine) == ["admit 1 a", "start [1]"])
        machine.arrivalWasLost()
        let next = try #require(turn(&machine))
        #expect(next.request.arrivalsSeen == 2 && next.request.holding == [7])
    }

    @Test(
        "credit is withdrawn when a lane shrinks, a queue goes, or the worker stops",
        arguments: ["lane", "queue", "stop"])
    func withdrawal(cause: String) throws {
        var machine = machine(slots: 4, queues: ["q", "r"]) { $0.creditMayLast = true }
        let first = try #require(turn(&machine))
        #expect(ended(&machine, first, TurnResult(), at(0)))
        switch cause {
        case "lane": machine.resize(.async, to: 2)
        case "queue": #expect(remove(&machine, queue: "r"))
        default: machine.stop(.drain, at(0))
        }
        let next = try #require(turn(&machine))
        #expect(next.request.withdrawsCredit)
        #expect(ended(&machine, next, TurnResult(), at(0)))
        switch machine.next(at(0)) {
        case .end: #expect(cause == "stop")
        case .sleep: #expect(cause != "stop")
        default: Issue.record("it asks again")
        }
    }

    // MARK: - Queues and lanes

    @Test("a queue that is added is asked, one that is taken away is not, and the last may go")
    func queues() throws {
        var machine = try working(on: [])
        let added = [machine.add(QueueSubscription("r", concurrency: 1)), machine.add("r")]
        #expect(added == [true, false])
        let both = try #require(turn(&machine))
        #expect(both.request.claims.map(\.queue) == ["q", "r"] && both.request.budget.queues == ["r": 1])
        #expect(ended(&machine, both, TurnResult(deliveries: [delivery("a", queue: "r")]), at(0)))
        let removed = ["q", "r", "r"].map { machine.remove(queue: $0) }
        #expect(removed == [true, true, false])
        #expect(machine.runs.count == 1, "what runs goes on")
        #expect(turn(&machine)?.request.claims.isEmpty ?? true)
        #expect(add(&machine, QueueSubscription("r", concurrency: 1)))
        #expect(machine.slots.available(light, queue: "r") == 0, "what runs counts")
    }

    @Test("a job that was revoked is not started, and the slot that it was claimed for is asked for again")
    func revoked() throws {
        var machine = try working(on: [], slots: 1) { $0.isRevoked = { $0.jobID == "a" } }
        machine.rang()
        let first = try #require(turn(&machine))
        #expect(ended(&machine, first, TurnResult(deliveries: [delivery("a")]), at(0)))
        #expect(told(&machine) == ["revoke a"] && machine.runs.isEmpty)
        machine.settle(
            Settlement(jobID: "a", token: 1, outcome: .cancelled, startedAt: at(0).now, finishedAt: at(0).now))
        let next = try #require(turn(&machine))
        #expect(next.request.settlements.map(\.jobID) == ["a"])
        #expect(next.request.claims.count == 1, "others may wait behind it")
    }

    @Test("a quiet worker asks for nothing until it is told to go on")
    func quiet() throws {
        var machine = try working(on: [])
        machine.setQuiet(true)
        machine.rang()
        #expect(turn(&machine)?.request.claims.isEmpty ?? true)
        machine.setQuiet(false)
        #expect(turn(&machine)?.request.claims.count == 1)
    }

    @Test("a kind of job whose rate is used up is not asked for, and again when it has a token")
    func rates() throws {
        var machine = try working(on: [], slots: 4)
        machine.setRate(try StartRate("1/s"), of: ["light"], at(0))
        let first = try #require(turn(&machine))
        #expect(first.request.claims.map(\.jobNames) == [["light"]] && !first.request.creditLasts)
        #expect(first.request.budget.available(to: first.request.claims[0]) == 1, "one token, of four slots")
        #expect(ended(&machine, first, TurnResult(deliveries: [delivery("a"), delivery("b")]), at(0)))
        #expect(told(&machine) == ["admit 1 a", "start [1]"])
        let second = try #require(turn(&machine))
        #expect(second.request.claims.isEmpty && second.request.settlements.map(\.jobID) == ["b"], "b goes back")
        #expect(ended(&machine, second, TurnResult(), at(0)))
        guard case .sleep(let limit?) = machine.next(at(0)) else { return #expect(Bool(false), "it waits for a token") }
        #expect(limit > .milliseconds(900) && limit <= .milliseconds(1001))
        #expect(turn(&machine, at: 1_001_000)?.request.claims.count == 1)
        machine.setRate(nil, of: ["light"], at(0))
        #expect(turn(&machine)?.request.budget.kinds.count == 1)
    }

    @Test("a lane has at least the slots of its heaviest job")
    func heaviest() throws {
        var machine = try working(on: [], slots: 4, names: ["heavy": heavy])
        machine.resize(.async, to: 1)
        #expect(told(&machine) == ["resize async 4 to 2"])
        machine.resize(.async, to: 2)
        #expect(told(&machine) == [], "no news")
    }

    @Test("a worker that has refused a job leaves jobs of its kind to others until they had time for it")
    func refusals() throws {
        var machine = try working(on: [delivery("a")], names: ["light": light, "heavy": heavy])
        let failure = JobFailure(kind: .badArguments, type: "ArgumentError", message: "no")
        let message = Message(
            headers: MessageHeaders(task: "light", id: "a"),
            properties: MessageProperties(routingKey: "q", deliveryTag: "t"), contentType: "application/json", body: [])
        let refusal = Settlement(
            jobID: "a", token: 7, outcome: .refused(until: start.addingTimeInterval(1), failure), startedAt: start,
            finishedAt: start, facts: SettlementFacts(message, of: delivery("a"), worker: "w"))
        machine.finished(1, refusal)
        machine.rang()
        let next = try #require(turn(&machine))
        #expect(next.request.settlements.count == 1)
        #expect(next.request.claims.flatMap(\.jobNames) == ["heavy"], "\(next.request.claims)")
        #expect(!machine.hasRoom(for: "light", of: "q"))
        #expect(ended(&machine, next, TurnResult(), at(10)))
        #expect(turn(&machine, at: 1400) == nil, "the head start of the others")
        let later = try #require(turn(&machine, at: 1600))
        #expect(later.request.claims.flatMap(\.jobNames).contains("light"))
    }

    @Test("a short job of the process lane makes room for more, which is asked for at once")
    func shortJobs() throws {
        var machine = machine(names: ["isolated": isolated])
        let first = try #require(turn(&machine))
        #expect(ended(&machine, first, TurnResult(deliveries: [delivery("a", name: "isolated")]), at(0)))
        #expect(turn(&machine) == nil, "the only child is busy")
        var quick = settlement("a")
        quick.usage = ResourceUsage(cpuSeconds: 0.0001, wallSeconds: 0.0001, peakMemory: nil)
        machine.finished(1, quick)
        let second = try #require(turn(&machine))
        #expect(second.request.settlements.count == 1 && !second.request.claims.isEmpty)
    }

    @Test("while no child can be started, the jobs of the process lane wait elsewhere")
    func closedLane() throws {
        var machine = try working(on: [], names: ["light": light, "isolated": isolated])
        let isNews = (0..<2).map { _ in machine.noteProcessLane(isUsable: false) }
        #expect(isNews == [true, false])
        machine.rang()
        let without = try #require(turn(&machine))
        #expect(without.request.claims.flatMap(\.jobNames) == ["light"])
        #expect(ended(&machine, without, TurnResult(), at(0)))
        #expect(noteProcessLane(&machine, isUsable: true))
        #expect(turn(&machine)?.request.claims.flatMap(\.jobNames).sorted() == ["isolated", "light"])
    }

    @Test("a withdrawal that is asked for while another is under way is done as well, and again after a failure")
    func twoWithdrawals() throws {
        var machine = machine(queues: ["q", "r", "s"]) { $0.creditMayLast = true }
        let first = try #require(turn(&machine))
        #expect(ended(&machine, first, TurnResult(), at(0)))
        #expect(remove(&machine, queue: "q"))
        let one = try #require(turn(&machine))
        #expect(one.request.withdrawsCredit && remove(&machine, queue: "r"))
        #expect(ended(&machine, one, TurnResult(), at(0)))
        let two = try #require(turn(&machine))
        #expect(two.request.withdrawsCredit)
        machine.failed(two)
        #expect(turn(&machine)?.request.withdrawsCredit == true)
    }

    @Test("a burst without any queue is over")
    func burstWithoutQueues() throws {
        var machine = machine { $0.isBurst = true }
        #expect(remove(&machine, queue: "q"))
        machine.rang()
        guard case .end = machine.next(at(0)) else { Issue.record("it goes on"); return }
    }

    // MARK: - Stopping

    @Test("a stop takes no more, gives back what has not begun, and ends when the rest is settled")
    func drain() throws {
        var machine = try working(
            on: [delivery("a"), delivery("h", name: "heavy")], names: ["light": light, "heavy": heavy])
        machine.stop(.drain, at(0))
        let next = try #require(turn(&machine))
        #expect(outcomes(next) == ["h not started"] && next.request.claims.isEmpty)
        #expect(ended(&machine, next, TurnResult(deliveries: [delivery("b")], hasMore: true), at(0)))
        #expect(outcomes(turn(&machine)) == ["b not started"], "what comes now goes back")
        machine.finished(1, settlement("a"))
        let last = try #require(turn(&machine))
        #expect(outcomes(last) == ["a succeeded"])
        #expect(ended(&machine, last, TurnResult(), at(0)))
        guard case .end = machine.next(at(0)) else { Issue.record("it goes on"); return }
    }

    @Test(
        "a drain ends at its deadline, a quiet stop never, a hard one at once",
        arguments: [(Worker.StopMode.quiet, [false, false]), (.drain, [false, true]), (.immediately, [true, true])])
    func deadlines(mode: Worker.StopMode, handsBack: [Bool]) throws {
        var machine = try working(on: [delivery("a")]) { $0.drainTimeout = 10_000_000 }
        machine.stop(mode, at(0))
        let asked = [Int64(9999), 10_000].map { time in
            if case .handBack = machine.next(at(time)) { true } else { false }
        }
        #expect(asked == handsBack)
    }

    @Test("a harder stop shortens the one before, and a softer one does nothing")
    func harder() throws {
        var machine = try working(on: [delivery("a")])
        machine.stop(.drain, at(0))
        machine.stop(.immediately, at(100))
        guard case .handBack = machine.next(at(100)) else { Issue.record("it waits"); return }
        machine.stop(.quiet, at(100))
        #expect(machine.stop == .immediately)
        let last = machine.handBackAll(at(100))
        #expect(outcomes(last) == ["a handed back"] && machine.runs.isEmpty)
    }

    @Test("a worker that stops while its broker is away, with nothing to settle, leaves")
    func leavesAnyway() throws {
        var machine = machine { $0.creditMayLast = true }
        let first = try #require(turn(&machine))
        #expect(ended(&machine, first, TurnResult(), at(0)))
        machine.stop(.drain, at(0))
        let withdrawal = try #require(turn(&machine))
        machine.failed(withdrawal)
        guard case .end = machine.next(at(0)) else { Issue.record("it stays"); return }
    }
}
