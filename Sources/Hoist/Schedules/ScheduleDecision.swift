import Timetables

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// What a look at a schedule comes to. Pure: no backend, and time is an argument.
struct ScheduleDecision: Equatable {
    /// How a run ended, as far as its record tells.
    enum End: Sendable {
        case failed, otherwise
        /// Its record is gone.
        case unknown
    }

    /// The schedule from now on.
    private(set) var state: ScheduleState
    private(set) var entries: [ScheduleEntry] = []
    /// The runs that start now, in order.
    private(set) var runs: [Tick] = []
    /// Earlier runs that are to be cancelled.
    private(set) var cancels: [JobID] = []

    private let id: String
    private let now: Int64
    private let by: String

    /// The most due times that one look deals with. The next look goes on behind them.
    static let maximumTicks = 1000
    /// The most runs that wait for an earlier one.
    static let maximumWaiting = 1000
    /// The most runs that are watched; of more the oldest are forgotten.
    static let maximumOpen = 1000

    /// Keeps time.
    /// - Parameters:
    ///   - id: the id of the schedule.
    ///   - state: as it was read.
    ///   - now: the clock of the backend.
    ///   - by: who ticks.
    ///   - ends: of ``ScheduleState/open`` those that have ended.
    ///   - limit: the most due times to deal with.
    init(
        _ id: String, _ state: ScheduleState, now: Int64, by: String, ends: [JobID: End], limit: Int = Self.maximumTicks
    ) throws(TimetableError) {
        (self.id, self.state, self.now, self.by) = (id, state, now, by)
        noteEnds(ends)
        guard self.state.pause == nil else { return }
        startWaiting()
        try tick(limit)
        if isOver { (self.state.due, self.state.waiting) = (nil, []) }
        cancelEarlier(state.overlap)
    }

    /// Starts one run now, and moves nothing.
    /// - Parameters:
    ///   - due: the due time that the run gets.
    ///   - reason: ``Tick/Reason/byHand`` or ``Tick/Reason/backfilled``.
    ///   - overlap: in place of the schedule's own policy; nil for that.
    init(
        _ id: String, _ state: ScheduleState, now: Int64, by: String, ends: [JobID: End], starting dues: [Int64],
        _ reason: Tick.Reason, overlap: ScheduleOverlap?
    ) {
        (self.id, self.state, self.now, self.by) = (id, state, now, by)
        noteEnds(ends)
        for due in dues { take(due, reason, overlap ?? state.overlap) }
        cancelEarlier(overlap ?? state.overlap)
    }

    /// What the schedule writes. The caller adds the messages of the runs.
    func write(over stored: StoredSchedule) throws -> ScheduleWrite {
        var write = ScheduleWrite(
            id: id, expected: stored.revision,
            content: .init(group: state.group, wake: state.wake(now: now), body: try state.encoded()))
        write.entries = try entries.map { try $0.encoded() }
        return write
    }

    // MARK: - Earlier runs

    private mutating func noteEnds(_ ends: [JobID: End]) {
        for job in state.open {
            switch ends[job] {
            case nil: continue
            case .unknown?: break
            case .failed?: state.failures += 1
            case .otherwise?: state.failures = 0
            }
            state.open.removeAll { $0 == job }
            if let limit = state.pausesAfterFailures, state.failures >= limit, state.pause == nil {
                state.pause = .init(note: "\(state.failures) runs in a row have failed", at: now)
            }
        }
    }

    private mutating func startWaiting() {
        while state.open.isEmpty, let due = state.waiting.first, !isOver {
            state.waiting.removeFirst()
            start(due, .afterEarlier)
        }
    }

    /// Asked for at each look, until they have ended: a request may be lost.
    private mutating func cancelEarlier(_ overlap: ScheduleOverlap) {
        if overlap == .cancelPrevious, !state.waiting.isEmpty { cancels = state.open }
    }

    // MARK: - Due times

    private mutating func tick(_ limit: Int) throws(TimetableError) {
        guard let due = state.due, due <= now else { return }
        let isMissed = due < now - state.deadline
        var dues = isMissed ? try missed(from: due) : [(due, .onTime)]
        var next = try state.due(after: isMissed ? now - state.deadline - 1 : due)
        while let due = next, due <= now, dues.count < limit {
            dues.append((due, .onTime))
            next = try state.due(after: due)
        }
        if dues.count > limit {
            next = dues[limit].0
            dues = Array(dues.prefix(limit))
        }
        state.due = next
        for (due, reason) in dues where !isOver {
            if state.skipsNext {
                state.skipsNext = false
                note(due, "skipped by hand")
                state.previousDue = due
            } else {
                take(due, reason, state.overlap)
            }
        }
    }

    private var isOver: Bool { state.maxRuns.map { state.number >= $0 } ?? false }

    /// The runs that make up for due times which nobody ticked in time.
    private mutating func missed(from due: Int64) throws(TimetableError) -> [(Int64, Tick.Reason)] {
        // Up to here they are missed.
        let end = now - state.deadline
        let caughtUp: [Int64] =
            switch state.catchUp {
            case "once": try last(1, before: end, from: due)
            case "all":
                try last(
                    (state.catchUpAtMost ?? 100).clamped(to: 1...Self.maximumTicks), before: end,
                    from: max(due, now - (state.catchUpWithin ?? 0)))
            default: []
            }
        if caughtUp.first != due { note(due, "missed: nobody ticked in time") }
        return caughtUp.map { ($0, .caughtUp) }
    }

    /// The last due times before a moment, in order.
    private func last(_ count: Int, before end: Int64, from begin: Int64) throws(TimetableError) -> [Int64] {
        // Forwards as long as there are few: to look backwards costs many times more.
        var (found, time): ([Int64], Int64) = ([], begin - 1)
        while found.count < 2 * count + 10 {
            guard let next = try state.due(after: time), next < end else { return found.suffix(count) }
            found.append(next)
            time = next
        }
        (found, time) = ([], min(end, state.ends ?? end))
        while found.count < count,
            let last = try state.timetable.previous(before: Date(microsecondsSinceEpoch: time))?.microsecondsSinceEpoch,
            last >= begin
        {
            found.append(last)
            time = last
        }
        return found.reversed()
    }

    /// One due time, under the overlap policy.
    private mutating func take(_ due: Int64, _ reason: Tick.Reason, _ overlap: ScheduleOverlap) {
        let isBusy = !state.open.isEmpty || !state.waiting.isEmpty
        switch overlap {
        case .allow: start(due, reason)
        case _ where !isBusy: start(due, reason)
        case .skip: note(due, "skipped: \(state.open.first ?? "an earlier run") has not ended")
        case .queueOne:
            guard state.waiting.isEmpty else {
                return note(due, "dropped: another run waits for \(state.open.first ?? "an earlier one") to end")
            }
            state.waiting = [due]
        case .queueAll:
            guard state.waiting.count < Self.maximumWaiting else {
                return note(due, "dropped: \(Self.maximumWaiting) runs wait")
            }
            state.waiting.append(due)
        case .cancelPrevious:
            if let waiting = state.waiting.first { note(waiting, "dropped: a later run takes its place") }
            state.waiting = [due]
        }
    }

    private mutating func start(_ due: Int64, _ reason: Tick.Reason) {
        state.number += 1
        let tick = Tick(
            schedule: id, due: Date(microsecondsSinceEpoch: due),
            previousDue: state.previousDue.map(Date.init(microsecondsSinceEpoch:)), number: state.number, reason: reason
        )
        if reason != .byHand, reason != .backfilled { state.previousDue = max(due, state.previousDue ?? due) }
        runs.append(tick)
        if state.watchesRuns { state.open = (state.open + [tick.jobID]).suffix(Self.maximumOpen) }
        note(due, reason.rawValue, tick.jobID)
    }

    private mutating func note(_ due: Int64, _ reason: String, _ job: JobID? = nil) {
        state.ticks += 1
        entries.append(
            ScheduleEntry(due: due, tickedAt: now, number: state.ticks, by: by, reason: reason, job: job))
    }
}
