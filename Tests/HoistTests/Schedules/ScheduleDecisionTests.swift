import Foundation
import Testing

@testable import Hoist

/// What each policy makes of due times, by a table: no backend, no waiting.
@Suite("Decisions of schedules")
struct ScheduleDecisionTests {
    private static let second: Int64 = 1_000_000
    /// Midnight of 1 January 2026.
    private static let start = Date(timeIntervalSince1970: 1_767_225_600).microsecondsSinceEpoch

    private func state(
        _ change: (inout Schedule) -> Void = { _ in }, timetable: Timetable = .every(.seconds(10)),
        due: Int64 = 0
    ) -> ScheduleState {
        var schedule = Schedule("s", timetable, named: "job")
        change(&schedule)
        var state = ScheduleState(schedule, template: nil, jobName: "job", queue: "q", origin: nil)
        state.due = Self.start + due * Self.second
        return state
    }

    private func decide(
        _ state: ScheduleState, at seconds: Int64, ends: [JobID: ScheduleDecision.End] = [:]
    ) throws -> ScheduleDecision {
        try ScheduleDecision("s", state, now: Self.start + seconds * Self.second, by: "w", ends: ends)
    }

    /// Seconds after the start.
    private func dues(_ decision: ScheduleDecision) -> [Int64] {
        decision.runs.map { ($0.due.microsecondsSinceEpoch - Self.start) / Self.second }
    }

    private func next(_ decision: ScheduleDecision) -> Int64? {
        decision.state.due.map { ($0 - Self.start) / Self.second }
    }

    @Test("a run on time, and the next due time")
    func onTime() throws {
        let decision = try decide(state(), at: 3)
        #expect(dues(decision) == [0] && next(decision) == 10)
        #expect(decision.runs[0].reason == .onTime && decision.runs[0].number == 1)
        #expect(decision.runs[0].previousDue == nil)
        #expect(decision.runs[0].jobID == "s@2026-01-01T00:00:00Z")
        #expect(decision.entries.map(\.reason) == ["on time"])
        let second = try decide(decision.state, at: 10)
        #expect(second.runs[0].number == 2 && second.runs[0].previousDue == decision.runs[0].due)
        #expect(try decide(second.state, at: 11).runs.isEmpty, "nothing is due")
    }

    @Test("all due times within the deadline run, however many")
    func withinDeadline() throws {
        let decision = try decide(state(), at: 45)
        #expect(dues(decision) == [0, 10, 20, 30, 40] && next(decision) == 50)
        #expect(decision.runs.allSatisfy { $0.reason == .onTime })
    }

    @Test("missed runs are dropped")
    func skipMissed() throws {
        let decision = try decide(state { $0.catchUp = .skip }, at: 205)
        #expect(dues(decision) == [150, 160, 170, 180, 190, 200])
        #expect(decision.entries[0].reason.contains("missed"))
    }

    @Test("the latest missed run is made up for")
    func onceMissed() throws {
        let decision = try decide(state(), at: 205)
        #expect(dues(decision) == [140, 150, 160, 170, 180, 190, 200])
        #expect(decision.runs[0].reason == .caughtUp && decision.runs[1].reason == .onTime)
        let daily = try decide(state(timetable: .cron("0 0 * * *")), at: 10 * 86_400 + 3600)
        #expect(dues(daily) == [10 * 86_400] && daily.runs[0].reason == .caughtUp)
        #expect(next(daily) == Int64(11 * 86_400))
    }

    @Test("all missed runs are made up for, the oldest first, within bounds")
    func allMissed() throws {
        let all = try decide(state { $0.catchUp = .all(within: .seconds(100)) }, at: 205)
        #expect(dues(all) == [110, 120, 130, 140, 150, 160, 170, 180, 190, 200])
        let few = try decide(state { $0.catchUp = .all(within: .seconds(100), atMost: 2) }, at: 205)
        #expect(dues(few) == [130, 140, 150, 160, 170, 180, 190, 200])
        // A year of every second is not gone through.
        let long = try decide(
            state({ $0.catchUp = .all(within: .seconds(86_400 * 365)) }, timetable: .every(.seconds(1))),
            at: 86_400 * 365)
        #expect(long.runs.count == 161)
    }

    @Test("overlap: the new run is dropped while the earlier one goes on")
    func skipOverlap() throws {
        let first = try decide(state { $0.overlap = .skip }, at: 0)
        #expect(first.state.open == ["s@2026-01-01T00:00:00Z"])
        let second = try decide(first.state, at: 10)
        #expect(second.runs.isEmpty && second.entries[0].reason.hasPrefix("skipped"))
        let third = try decide(second.state, at: 20, ends: [first.state.open[0]: .otherwise])
        #expect(dues(third) == [20])
    }

    @Test("overlap: one waits, or all in order")
    func queueOverlap() throws {
        for (overlap, expected) in [(ScheduleOverlap.queueOne, [10]), (.queueAll, [10, 20, 30])] as [(_, [Int64])] {
            var decision = try decide(state { $0.overlap = overlap }, at: 0)
            for time in [10, 20, 30] as [Int64] { decision = try decide(decision.state, at: time) }
            #expect(decision.runs.isEmpty)
            #expect(
                decision.state.wake(now: Self.start + 30 * Self.second)
                    == Date(microsecondsSinceEpoch: Self.start + 31 * Self.second))
            var started: [Int64] = []
            for time in 31...33 as ClosedRange<Int64> {
                let ends = Dictionary(
                    uniqueKeysWithValues: decision.state.open.map { ($0, ScheduleDecision.End.failed) })
                decision = try decide(decision.state, at: time, ends: ends)
                started += dues(decision)
                #expect(decision.runs.allSatisfy { $0.reason == .afterEarlier })
            }
            #expect(started == expected, "\(overlap)")
        }
    }

    @Test("overlap: the earlier run is cancelled, and the latest starts when it has ended")
    func cancelOverlap() throws {
        let first = try decide(state { $0.overlap = .cancelPrevious }, at: 0)
        let second = try decide(first.state, at: 10)
        #expect(second.runs.isEmpty && second.cancels == first.state.open)
        let third = try decide(second.state, at: 20)
        #expect(third.state.waiting == [Self.start + 20 * Self.second])
        #expect(try decide(third.state, at: 21).cancels == first.state.open, "asked again, for a request may be lost")
        let fourth = try decide(third.state, at: 21, ends: [first.state.open[0]: .otherwise])
        #expect(dues(fourth) == [20])
    }

    @Test("bounds: no run before the start, from the end on, or above the most")
    func bounds() throws {
        var late = state { $0.starts = Date(microsecondsSinceEpoch: Self.start + 25 * Self.second) }
        late.due = try late.due(after: Self.start)
        #expect(late.due == Self.start + 30 * Self.second)
        let ending = try decide(
            state { $0.ends = Date(microsecondsSinceEpoch: Self.start + 20 * Self.second) }, at: 45)
        #expect(dues(ending) == [0, 10] && ending.state.isDone)
        let few = try decide(state { $0.maxRuns = 3 }, at: 45)
        #expect(dues(few) == [0, 10, 20] && few.state.isDone)
        // What is missed ends where the schedule does.
        let missed = try decide(
            state { $0.ends = Date(microsecondsSinceEpoch: Self.start + 200 * Self.second) }, at: 1000)
        #expect(dues(missed) == [190] && missed.state.isDone)
        // A schedule that may run more often goes on.
        var more = state { $0.maxRuns = 5 }
        try more.goOn(from: few.state, now: Self.start + 45 * Self.second)
        #expect(more.due == Self.start + 50 * Self.second)
        var waiting = few.state
        waiting.waiting = [1]
        #expect(try decide(waiting, at: 50).state.isDone, "nothing waits for ever")
    }

    @Test("a queue that has no room for all runs gets one at a time")
    func oneAtATime() throws {
        var state = state { $0.catchUp = .all(within: .seconds(100), atMost: 3) }
        var started: [Int64] = []
        for _ in 0..<10 {
            let decision = try ScheduleDecision(
                "s", state, now: Self.start + 205 * Self.second, by: "w", ends: [:], limit: 1)
            #expect(decision.runs.count <= 1)
            started += dues(decision)
            state = decision.state
        }
        #expect(started == [120, 130, 140, 150, 160, 170, 180, 190, 200])
    }

    @Test("a run whose record is gone neither counts as failed nor as done")
    func unknownEnds() throws {
        var decision = try decide(state { $0.pausesAfterFailures = 2 }, at: 0)
        decision = try decide(decision.state, at: 10, ends: [decision.state.open[0]: .failed])
        decision = try decide(decision.state, at: 20, ends: [decision.state.open[0]: .unknown])
        #expect(decision.state.failures == 1)
    }

    @Test("runs in a row that failed pause the schedule; one that succeeds begins anew")
    func failures() throws {
        var decision = try decide(state { $0.pausesAfterFailures = 2 }, at: 0)
        for (time, end) in [(10, .failed), (20, .otherwise), (30, .failed), (40, .failed)]
            as [(Int64, ScheduleDecision.End)]
        {
            decision = try decide(decision.state, at: time, ends: [decision.state.open[0]: end])
            #expect(decision.state.pause == nil || time == 40)
        }
        #expect(decision.state.pause?.note.contains("2 runs") == true && decision.runs.isEmpty)
        #expect(decision.state.wake(now: 0) == nil)
        #expect(try decide(decision.state, at: 100).runs.isEmpty)
    }

    @Test("the next run is skipped by hand, one alone")
    func skippedByHand() throws {
        var skipping = state()
        skipping.skipsNext = true
        let decision = try decide(skipping, at: 10)
        #expect(dues(decision) == [10] && decision.entries[0].reason == "skipped by hand")
    }

    @Test("a run by hand moves no due time, and has an id of its own")
    func byHand() throws {
        let now = Self.start + 5 * Self.second
        let decision = ScheduleDecision(
            "s", state(due: 10), now: now, by: "me", ends: [:], starting: [now], .byHand, overlap: nil)
        #expect(next(decision) == 10 && decision.runs[0].reason == .byHand)
        #expect(decision.runs[0].jobID == "s@2026-01-01T00:00:05Z#1" && decision.state.previousDue == nil)
        let skipping = ScheduleDecision(
            "s", decision.state, now: now, by: "me", ends: [:], starting: [now], .byHand, overlap: .skip)
        #expect(skipping.runs.count == 1, "the schedule does not watch its runs")
    }

    @Test("what is stored is read again; what a newer version wrote is left alone")
    func stored() throws {
        var full = state {
            $0.overlap = .queueAll
            $0.catchUp = .all(within: .seconds(5), atMost: 7)
            $0.jitter = .seconds(3)
            $0.maxRuns = 9
        }
        full.pause = .init(note: "why", at: 5)
        full.waiting = [1, 2]
        let bytes = try full.encoded()
        func stored(_ body: [UInt8]) -> StoredSchedule {
            StoredSchedule(id: "s", group: "", revision: 1, wake: nil, body: body)
        }
        #expect(try ScheduleState.read(stored(bytes)) == full)
        full.version = 2
        let newer = try full.encoded()
        #expect(throws: ScheduleError.self) { try ScheduleState.read(stored(newer)) }
        #expect(throws: ScheduleError.self) { try ScheduleState.read(stored(Array("{}".utf8))) }
        #expect(ScheduleRecord(stored(newer)).state == .unreadable)
    }

    @Test("numbers at the edge, as somebody else may have written them, give no trap")
    func edges() throws {
        for number in [Int64.min, .max, -1, 0] {
            var state = state { $0.overlap = .queueAll }
            (state.due, state.previousDue, state.starts, state.ends) = (number, number, nil, number)
            (state.deadline, state.jitter, state.waiting) = (number, number, [number])
            (state.catchUp, state.catchUpWithin, state.catchUpAtMost) = ("all", number, Int(number))
            (state.number, state.ticks, state.failures) = (Int(number), Int(number), Int(number))
            let stored = StoredSchedule(id: "s", group: "", revision: 1, wake: nil, body: try state.encoded())
            let read = try ScheduleState.read(stored)
            _ = try decide(read, at: 0)
            _ = ScheduleDecision("s", read, now: Self.start, by: "w", ends: [:], starting: [0], .byHand, overlap: .skip)
            _ = read.wake(now: Self.start)
            _ = ScheduleRecord(stored)
        }
    }

    @Test(
        "what makes no sense is refused with field and reason",
        arguments: [
            (Schedule("", .every(.seconds(1)), named: "j"), "id"),
            (Schedule("a\u{1B}b", .every(.seconds(1)), named: "j"), "control"),
            (Schedule("s", .cron("nonsense"), named: "j"), "timetable"),
            (Schedule("s", .every(.zero), named: "j"), "interval"),
            (Schedule("s", .every(.seconds(1)), named: "j", jitter: .seconds(-1)), "jitter"),
            (Schedule("s", .every(.seconds(1)), named: "j", maxRuns: 0), "maxRuns"),
            (
                Schedule(
                    "s", .every(.seconds(1)), named: "j", starts: Date(timeIntervalSince1970: 9),
                    ends: Date(timeIntervalSince1970: 9)), "ends"
            ),
            (Schedule("s", .cron("@daily").excluding("holidays"), named: "j"), "holidays"),
        ] as [(Schedule, String)])
    func refused(_ schedule: Schedule, _ reason: String) {
        let error = #expect(throws: ScheduleError.self) { try schedule.check() }
        #expect("\(String(describing: error))".contains(reason))
    }
}
