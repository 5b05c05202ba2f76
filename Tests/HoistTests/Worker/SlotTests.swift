import Testing

@testable import Hoist

@Suite("Slots and lanes that grow")
struct SlotTests {
    private let light = SlotNeeds(lane: .process, slots: 1, resources: [:])
    private let heavy = SlotNeeds(lane: .process, slots: 4, resources: [:])
    private let graphics = SlotNeeds(lane: .process, slots: 1, resources: ["gpu": 1])
    private let other = SlotNeeds(lane: .async, slots: 1, resources: [:])

    private func ledger() -> SlotLedger {
        SlotLedger(lanes: [.process: 6, .async: 2], resources: ["gpu": 1], queues: ["narrow": 2])
    }

    @Test("a budget for each kind of needs")
    func budgets() {
        var ledger = ledger()
        #expect(
            ledger.budget(for: [light, heavy, graphics, other]).kinds == [
                "process": 6, "process*4": 1, "process+gpu:1": 1, "async": 2,
            ])
        #expect(ledger.admit(1, heavy, queue: "q") == .start)
        #expect(
            ledger.budget(for: [light, heavy, graphics, other]).kinds == [
                "process": 2, "process*4": 1, "process+gpu:1": 1, "async": 2,
            ])
        #expect(ledger.admit(2, graphics, queue: "q") == .start)
        #expect(
            ledger.budget(for: [light, graphics]).kinds == ["process": 1, "process+gpu:1": 0], "the one GPU is taken")
        #expect(ledger.release(2) == [])
        #expect(ledger.budget(for: [graphics]).kinds == ["process+gpu:1": 1])
    }

    @Test("a heavy job waits for its slots, and light ones do not starve it")
    func heavyJobs() {
        var ledger = ledger()
        for run in 1...4 { #expect(ledger.admit(UInt64(run), light, queue: "q") == .start) }
        #expect(ledger.admit(5, heavy, queue: "q") == .wait, "two slots are free")
        #expect(ledger.budget(for: [light, heavy, other]).kinds == ["process": 0, "process*4": 0, "async": 2])
        #expect(
            ledger.admit(6, light, queue: "q") == .refuse,
            "claimed in the same round; it must not pass, and others have time for it")
        #expect(ledger.used(.process) == 8, "four in use, and four spoken for")
        #expect(ledger.notStarted == [5])
        #expect(ledger.release(1) == [])
        #expect(ledger.release(2) == [5])
        #expect(ledger.used(.process) == 6)
        for run in 3...5 { #expect(ledger.release(UInt64(run)) == []) }
        #expect(ledger.used(.process) == 0)
    }

    @Test("a job that waits and is given up leaves its place")
    func givingUp() {
        var ledger = ledger()
        for run in 1...5 { #expect(ledger.admit(UInt64(run), light, queue: "narrow") == .start) }
        #expect(ledger.admit(6, heavy, queue: "narrow") == .wait)
        #expect(ledger.available(light, queue: "q") == 0)
        #expect(ledger.release(6) == [])
        #expect(ledger.available(light, queue: "q") == 1)
    }

    @Test("one job of a lane waits at a time: no second one is claimed that would have to")
    func oneWaits() {
        var ledger = ledger()
        #expect(ledger.admit(1, graphics, queue: "q") == .start)
        #expect(ledger.admit(2, graphics, queue: "q") == .wait)
        #expect(ledger.available(heavy, queue: "q") == 1)
        for run in 3...4 { #expect(ledger.admit(UInt64(run), light, queue: "q") == .start) }
        #expect(ledger.available(heavy, queue: "q") == 0, "three slots are free, and somebody waits")
        #expect(ledger.available(light, queue: "q") == 3)
    }

    @Test("where jobs are no longer started, one that waits does not start when a place falls free")
    func frozen() {
        var ledger = ledger()
        for run in 1...3 { #expect(ledger.admit(UInt64(run), light, queue: "q") == .start) }
        #expect(ledger.admit(4, heavy, queue: "q") == .wait)
        ledger.freeze()
        #expect(ledger.release(1) == [])
        #expect(ledger.thaw() == [4])
    }

    @Test("queues with a limit, and lanes of another size")
    func sizes() {
        var ledger = ledger()
        #expect(ledger.available(light, queue: "narrow") == 2)
        #expect(ledger.admit(1, light, queue: "narrow") == .start)
        #expect(ledger.available(light, queue: "narrow") == 1)
        #expect(ledger.resize(.process, to: 1) == [])
        #expect(ledger.available(light, queue: "q") == 0)
        #expect(ledger.admit(2, light, queue: "q") == .wait)
        #expect(ledger.resize(.process, to: 2) == [2])
        #expect(ledger.release(1) == [])
        #expect(ledger.budget(for: []).queues == ["narrow": 2])
    }

    @Test("short jobs are claimed ahead, a few milliseconds of them, long ones and heavy ones are not")
    func ahead() {
        var ahead = ClaimAhead()
        #expect(ahead.count(children: 2) == 0, "nothing is known yet")
        ahead.note(run: 50)
        #expect(ahead.count(children: 2) == 128)
        ahead.note(run: 8000)
        #expect(ahead.count(children: 2) == 8)
        ahead.noteDelay()
        #expect(ahead.count(children: 2) == 0)
        for _ in 0..<60 { ahead.note(run: 100) }
        #expect(ahead.count(children: 1) > 40)

        var ledger = ledger()
        ledger.ahead[.process] = 10
        #expect(
            ledger.budget(for: [light, heavy, graphics]).kinds == ["process": 16, "process*4": 1, "process+gpu:1": 1])
        for run in 1...16 { #expect(ledger.admit(UInt64(run), light, queue: "q") == .start) }
        #expect(
            ledger.budget(for: [light, heavy, graphics]).kinds == ["process": 0, "process*4": 0, "process+gpu:1": 0])
        #expect(ledger.used(.process) == 6, "those claimed ahead have no slot")
    }

    @Test("a lane grows when jobs wait too long or are too many, to no more than it may, and shrinks when it is idle")
    func scaling() {
        let policy = Autoscaling(growsAfterWait: .seconds(1), growsAtBacklogPerSlot: 10, shrinksAfter: .seconds(30))
        var scaler = LaneScaler(2...8, policy)
        func slots(_ used: Int, _ size: Int, _ waiting: Int, wait: Int64, _ second: Int64) -> Int {
            scaler.slots(
                used: used, of: size, backlog: .init(waiting: waiting, oldestWait: wait), now: second * 1_000_000)
        }
        #expect(slots(2, 2, 5, wait: 100, 0) == 2, "they wait, but not for long")
        #expect(slots(2, 2, 1, wait: 1_000_000, 1) == 3, "one slot for one job")
        #expect(slots(3, 3, 30, wait: 0, 2) == 6, "twice as many at most")
        #expect(slots(6, 6, 100, wait: 0, 3) == 8, "and no more than allowed")
        #expect(slots(8, 8, 1_000_000, wait: 9_000_000, 4) == 8)
        #expect(slots(7, 8, 0, wait: 0, 20) == 8)
        #expect(slots(7, 8, 0, wait: 0, 34) == 7)
        #expect(slots(0, 7, 0, wait: 0, 35) == 6)
        #expect(slots(0, 2, 0, wait: 0, 90) == 2, "never below its least")
        #expect(slots(0, 1, 0, wait: 0, 91) == 2)
    }
}
