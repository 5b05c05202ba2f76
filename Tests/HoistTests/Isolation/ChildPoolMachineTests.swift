import Testing

@testable import Hoist

@Suite("What becomes of children, decided")
struct ChildPoolMachineTests {
    private static let settings = ChildPoolMachine.Settings(
        grace: 1000, startTimeout: 10_000, recycleAfterJobs: 3, recycleAboveMemory: 500, recycleAfterAge: 1_000_000)

    private static func ready(_ count: Int) -> ChildPoolMachine {
        var machine = ChildPoolMachine(settings)
        _ = machine.resize(to: count, now: 0)
        for id in 1...UInt64(count) { _ = machine.becameReady(id, now: 10) }
        return machine
    }

    /// A machine with one child that has the run 7.
    private static func busy(_ limits: RunLimits = RunLimits()) -> ChildPoolMachine {
        var machine = ready(1)
        _ = machine.start(7, limits, now: 20)
        return machine
    }

    private func words(_ actions: [ChildPoolMachine.Action]) -> [String] {
        actions.map { action in
            switch action {
            case .spawn(let id): "spawn \(id)"
            case .perform(let id, let run): "perform \(run) in \(id)"
            case .cancel(let id, let run, _): "cancel \(run) in \(id)"
            case .askToEnd(let id): "ask \(id)"
            case .terminate(let id): "terminate \(id)"
            case .kill(let id): "kill \(id)"
            case .end(let run, _, .finished): "end \(run): finished"
            case .end(let run, _, .notStarted): "end \(run): not started"
            case .end(let run, _, .died(let verdict, _, _, _, _)):
                "end \(run): died \(verdict.map { "\($0)" } ?? "by itself")"
            case .becomeUsable(let isUsable): isUsable ? "usable" : "unusable"
            }
        }
    }

    private func done(_ run: UInt64, memory: Int = 0, leavesProcesses: Bool = false) -> IsolatedResult {
        var result = IsolatedResult(run: run, outcome: .cancelled)
        (result.memory, result.hasDescendants) = (memory, leavesProcesses)
        return result
    }

    @Test("children are started at once, and get jobs when they are ready, one each")
    func starting() {
        var machine = ChildPoolMachine(Self.settings)
        #expect(words(machine.resize(to: 2, now: 0)) == ["spawn 1", "spawn 2"])
        #expect(words(machine.start(7, RunLimits(), now: 1)) == [])
        #expect(words(machine.becameReady(1, now: 2)) == ["perform 7 in 1"])
        #expect(words(machine.becameReady(2, now: 2)) == [])
        #expect(words(machine.start(8, RunLimits(), now: 3)) == ["perform 8 in 2"])
        #expect(words(machine.start(9, RunLimits(), now: 3)) == [])
        #expect(words(machine.finished(1, done(7), now: 4)) == ["end 7: finished", "perform 9 in 1"])
    }

    @Test("a child that dies costs its job and is replaced")
    func death() {
        var machine = Self.busy()
        #expect(words(machine.exited(1, .init(signal: 11), now: 30)) == ["end 7: died by itself", "spawn 2"])
        #expect(words(machine.exited(1, .init(signal: 11), now: 31)) == [])
    }

    @Test("a hard limit: told, terminated, killed after the grace; and a result that comes in time counts")
    func hardLimit() {
        let limits = RunLimits(hardTime: .microseconds(100))
        var machine = Self.busy(limits)
        #expect(machine.nextDeadline() == 120)
        #expect(words(machine.tick(now: 119)) == [])
        #expect(words(machine.tick(now: 120)) == ["cancel 7 in 1", "terminate 1", "spawn 2"])
        #expect(words(machine.tick(now: 1119)) == [])
        #expect(words(machine.tick(now: 1120)) == ["kill 1"])
        #expect(words(machine.tick(now: 1121)) == [])
        #expect(words(machine.exited(1, .init(signal: 9), now: 1130)) == ["end 7: died timedOut"])

        machine = Self.busy(limits)
        _ = machine.tick(now: 120)
        #expect(words(machine.finished(1, done(7), now: 130)) == ["end 7: finished", "kill 1"])
        #expect(words(machine.exited(1, .init(signal: 9), now: 140)) == [])
    }

    @Test("no sign of progress: the grace is for the job's own end; a sign starts the time anew")
    func heartbeat() {
        var machine = Self.busy(RunLimits(heartbeat: .microseconds(100)))
        machine.signed(1, 7, now: 80)
        #expect(words(machine.tick(now: 1179)) == [])
        #expect(words(machine.tick(now: 1180)) == ["terminate 1", "spawn 2"])
        #expect(words(machine.exited(1, .init(signal: 15), now: 1190)) == ["end 7: died stuck"])
    }

    @Test("a cancelled job has the grace, and is then stopped by force; one that waits never begins")
    func cancelling() {
        var machine = Self.busy()
        _ = machine.start(8, RunLimits(), now: 20)
        #expect(words(machine.cancel(8, .requested, now: 30)) == ["end 8: not started"])
        #expect(words(machine.cancel(7, .requested, now: 30)) == ["cancel 7 in 1"])
        #expect(words(machine.cancel(7, .requested, now: 900)) == ["cancel 7 in 1"], "a second time changes nothing")
        #expect(words(machine.tick(now: 1030)) == ["terminate 1", "spawn 2"])
        #expect(words(machine.cancel(99, .requested, now: 30)) == [])
    }

    @Test("too much memory, garbage and a closed channel end a child at once")
    func brokenChildren() {
        var machine = Self.busy(RunLimits(memory: 100))
        #expect(words(machine.measured(1, 7, memory: 100, now: 30)) == [])
        #expect(words(machine.measured(1, 7, memory: 101, now: 31)) == ["kill 1"])
        #expect(words(machine.measured(1, 7, memory: 500, now: 32)) == [])
        #expect(words(machine.exited(1, .init(signal: 9), now: 40)) == ["end 7: died memoryExceeded(101)", "spawn 2"])
        machine = Self.busy()
        #expect(words(machine.broke(1, "x", now: 30)) == ["kill 1"])
        #expect(words(machine.broke(1, "x", now: 30)) == [])
        #expect(words(machine.finished(1, done(99), now: 31)) == [])
        machine = Self.busy()
        #expect(words(machine.finished(1, done(99), now: 31)) == ["kill 1"], "a result of another job")
        machine = Self.busy()
        #expect(words(machine.becameReady(1, now: 31)) == ["kill 1"], "ready twice")
    }

    @Test("one whose runtime prints a backtrace has time for it, and counts as crashed")
    func backtrace() {
        var machine = Self.busy(RunLimits(hardTime: .microseconds(100)))
        #expect(words(machine.crashes(1, 11, now: 110)) == [])
        #expect(words(machine.tick(now: 200)) == ["spawn 2"])
        #expect(words(machine.tick(now: 10_000_111)).contains("kill 1"))
        #expect(words(machine.exited(1, .init(signal: 9), now: 10_000_120)) == ["end 7: died crashed(11)"])
    }

    @Test(
        "children are replaced after so many jobs, above so much memory, when they are old, and when they leave processes behind"
    )
    func recycling() {
        var machine = Self.ready(1)
        for run in 1...UInt64(2) {
            _ = machine.start(run, RunLimits(), now: 20)
            #expect(words(machine.finished(1, done(run), now: 30)) == ["end \(run): finished"])
        }
        _ = machine.start(3, RunLimits(), now: 40)
        #expect(words(machine.finished(1, done(3), now: 50)) == ["end 3: finished", "ask 1", "spawn 2"])
        #expect(words(machine.tick(now: 1050)) == ["kill 1"], "it did not end when it was asked")
        machine = Self.busy()
        #expect(words(machine.finished(1, done(7, memory: 500), now: 30)) == ["end 7: finished", "ask 1", "spawn 2"])
        machine = Self.busy()
        #expect(
            words(machine.finished(1, done(7, leavesProcesses: true), now: 30)) == [
                "end 7: finished", "ask 1", "spawn 2",
            ])
        machine = Self.ready(1)
        #expect(machine.nextDeadline() == 1_000_000)
        #expect(words(machine.tick(now: 1_000_000)) == ["ask 1", "spawn 2"])
    }

    @Test(
        "children that cannot be started are tried again later and later, and jobs go back where others can take them")
    func failingStarts() {
        var machine = ChildPoolMachine(Self.settings)
        _ = machine.resize(to: 2, now: 0)
        _ = machine.start(7, RunLimits(), now: 0)
        #expect(words(machine.exited(1, .init(status: 1), now: 10)) == [])
        #expect(words(machine.exited(2, .init(status: 1), now: 10)) == [])
        #expect(machine.nextDeadline() == 400_010)
        #expect(words(machine.tick(now: 400_010)) == ["spawn 3"], "one at a time")
        #expect(machine.nextDeadline() == 410_010, "nothing to do until it is ready, or late")
        #expect(words(machine.tick(now: 410_010)) == ["kill 3", "unusable", "end 7: not started"])
        #expect(words(machine.exited(3, .init(signal: 9), now: 410_020)) == [])
        #expect(words(machine.tick(now: 1_210_010)) == ["spawn 4"])
        #expect(words(machine.becameReady(4, now: 1_210_020)) == ["usable"])
        #expect(words(machine.tick(now: 1_210_030)) == ["spawn 5"], "the other one follows")
        #expect(
            words(machine.exited(4, .init(signal: 11), now: 1_210_040)) == [],
            "one that dies as soon as it is ready is not hurried either")
    }

    @Test("jobs that were claimed ahead go back when they are held up; those that there are children for stay")
    func patience() {
        var machine = ChildPoolMachine(Self.settings)
        _ = machine.resize(to: 2, now: 0)
        _ = machine.becameReady(1, now: 10)
        for run in 1...UInt64(4) { _ = machine.start(run, RunLimits(), now: 20) }
        #expect(words(machine.tick(now: 9_999)) == [], "the second one waits for its child, two others for their turn")
        #expect(machine.nextDeadline() == 10_000)
        _ = machine.becameReady(2, now: 9_999)
        #expect(machine.nextDeadline() == 50_020)
        #expect(words(machine.tick(now: 50_020)) == ["end 3: not started", "end 4: not started"])
        #expect(machine.nextDeadline() == nil)
    }

    @Test("a smaller pool lets children end as they get idle")
    func shrinking() {
        var machine = Self.ready(2)
        _ = machine.start(7, RunLimits(), now: 20)
        #expect(words(machine.resize(to: 1, now: 30)) == ["ask 1"], "the one without a job")
        #expect(words(machine.resize(to: 0, now: 40)) == [])
        #expect(words(machine.finished(2, done(7), now: 50)) == ["end 7: finished", "ask 2"])
        _ = machine.exited(1, .init(), now: 60)
        #expect(words(machine.exited(2, .init(), now: 60)) == [])
        #expect(machine.isEmpty)
        #expect(words(machine.resize(to: 1, now: 70)) == ["spawn 3"])
    }

    @Test("closing asks the idle to end, kills the others, and starts none")
    func closing() {
        var machine = Self.ready(2)
        _ = machine.start(7, RunLimits(), now: 20)
        #expect(words(machine.close(now: 30)) == ["ask 1", "kill 2"])
        #expect(words(machine.exited(2, .init(signal: 9), now: 40)) == ["end 7: died by itself"])
        #expect(words(machine.tick(now: 1029)) == [])
        #expect(words(machine.tick(now: 1030)) == ["kill 1"], "it was asked, and did not")
        #expect(words(machine.exited(1, .init(signal: 9), now: 1040)) == [])
        #expect(machine.isEmpty && machine.nextDeadline() == nil)

        machine = Self.busy()
        _ = machine.start(8, RunLimits(), now: 20)
        #expect(words(machine.close(now: 30)) == ["end 8: not started", "kill 1"])
    }

    @Test("a channel that closes is a death that will be heard of, or a child that cannot be heard")
    func closedChannel() {
        var machine = Self.busy()
        #expect(words(machine.closedChannel(1, now: 30)) == [])
        #expect(words(machine.tick(now: 31)) == ["spawn 2"])
        #expect(
            words(machine.exited(1, .init(signal: 6), now: 40)) == ["end 7: died by itself"], "its own signal is told")

        machine = Self.busy()
        _ = machine.closedChannel(1, now: 30)
        #expect(machine.nextDeadline() == 0, "another one is missing")
        _ = machine.tick(now: 31)
        _ = machine.becameReady(2, now: 50)
        #expect(words(machine.tick(now: 200_030)) == ["kill 1"])
        #expect(words(machine.exited(1, .init(signal: 9), now: 200_040)) == ["end 7: died mute"])

        machine = Self.ready(1)
        _ = machine.closedChannel(1, now: 30)
        #expect(words(machine.start(7, RunLimits(), now: 40)) == [], "nothing is given to one that hears nothing")
    }

    @Test("a death that is reported late is what it is")
    func lateExit() {
        var machine = Self.busy()
        _ = machine.closedChannel(1, now: 30)
        _ = machine.tick(now: 200_030)
        #expect(words(machine.exited(1, .init(signal: 11), now: 200_040)).first == "end 7: died by itself")
    }

    @Test(
        "what a job left behind is not counted against the next one, and a look at one job is not taken for another's")
    func memoryOfOthers() {
        var machine = Self.busy()
        _ = machine.finished(1, done(7, memory: 400), now: 30)
        #expect(words(machine.start(8, RunLimits(memory: 100), now: 40)) == ["perform 8 in 1"])
        #expect(words(machine.measured(1, 8, memory: 500, now: 50)) == [])
        #expect(words(machine.measured(1, 7, memory: 9999, now: 50)) == [], "looked at before")
        #expect(words(machine.measured(1, 8, memory: 501, now: 60)) == ["kill 1"])
    }

    @Test("a job is not given to a child that is dead, and comes back when it was")
    func deadChildren() {
        var machine = Self.busy()
        _ = machine.start(8, RunLimits(), now: 21)
        machine.gone(1)
        #expect(words(machine.finished(1, done(7), now: 30)) == ["end 7: finished"], "said before it died")
        #expect(words(machine.exited(1, .init(signal: 11), now: 31)).contains("spawn 2"))
        #expect(words(machine.becameReady(2, now: 40)) == ["perform 8 in 2"])
        #expect(words(machine.undelivered(2, 8, now: 41)) == ["spawn 3"])
        #expect(words(machine.exited(2, .init(signal: 11), now: 42)) == [])
        #expect(words(machine.becameReady(3, now: 50)) == ["perform 8 in 3"])
    }

    @Test("one that speaks after its runtime said that it crashes has not crashed: that was a program of its own")
    func falseCrash() {
        var machine = Self.busy(RunLimits(hardTime: .microseconds(100)))
        _ = machine.crashes(1, 11, now: 30)
        machine.signed(1, 7, now: 40)
        #expect(words(machine.tick(now: 120)) == ["cancel 7 in 1", "terminate 1", "spawn 2"])
        machine = Self.busy()
        _ = machine.crashes(1, 11, now: 30)
        #expect(words(machine.finished(1, done(7), now: 40)) == ["end 7: finished"])
        #expect(words(machine.start(8, RunLimits(), now: 50)) == ["perform 8 in 1"])
    }

    @Test("a child that has lost its output is replaced, at once or after its job")
    func wear() {
        var machine = Self.busy()
        #expect(words(machine.noteWear(1, now: 30)) == [])
        #expect(words(machine.finished(1, done(7), now: 40)) == ["end 7: finished", "ask 1", "spawn 2"])
        #expect(words(machine.becameReady(2, now: 50)) == [])
        #expect(
            words(machine.noteWear(2, now: 60)) == ["ask 2"], "one that has done nothing yet is not replaced in no time"
        )
        for id in 1...UInt64(2) { _ = machine.exited(id, .init(), now: 70) }
        #expect(words(machine.tick(now: 200_060)) == ["spawn 3"])
    }

    @Test("children that crash while they start are not started again and again in no time")
    func crashingStarts() {
        var machine = ChildPoolMachine(Self.settings)
        _ = machine.resize(to: 2, now: 0)
        #expect(words(machine.crashes(1, 5, now: 10)) == [])
        #expect(words(machine.tick(now: 11)) == [])
        #expect(words(machine.exited(1, .init(signal: 5), now: 20)) == [])
        #expect(words(machine.crashes(2, 5, now: 20)) == [])
        #expect(machine.nextDeadline() == 400_020)
        #expect(words(machine.tick(now: 400_020)) == ["spawn 3"])
        #expect(words(machine.crashes(3, 5, now: 400_030)) == ["unusable"])
    }

    @Test("a job whose lease was lost is stopped at once: another worker has it")
    func lostLease() {
        var machine = Self.busy()
        #expect(words(machine.cancel(7, .leaseLost, now: 30)) == ["kill 1"])
        guard
            case .end(7, 1, .died(.ignoredCancellation(.leaseLost), _, _, _, _))? = machine.exited(
                1, .init(signal: 9), now: 40
            ).first
        else {
            return #expect(Bool(false), "the run did not end")
        }
    }

    @Test("where no child can be started, jobs go back at once")
    func unusable() {
        var machine = ChildPoolMachine(Self.settings)
        _ = machine.resize(to: 1, now: 0)
        var now: Int64 = 10
        for child in 1...UInt64(3) {
            let actions = words(machine.exited(child, .init(status: 1), now: now))
            #expect(actions == (child == 3 ? ["unusable"] : []))
            now = machine.nextDeadline() ?? 0
            #expect(words(machine.tick(now: now)) == ["spawn \(child + 1)"])
        }
        #expect(words(machine.start(7, RunLimits(), now: now)) == ["end 7: not started"])
        #expect(words(machine.becameReady(4, now: now + 10)) == ["usable"])
        #expect(words(machine.start(8, RunLimits(), now: now + 20)) == ["perform 8 in 4"])
    }
}
