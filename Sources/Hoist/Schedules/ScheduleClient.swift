import Timetables

#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// Puts, changes and shows schedules, from any program. See ``JobClient/schedules``.
///
/// A change takes effect in every program that keeps time, as soon as it hears of it.
public struct ScheduleClient: Sendable {
    private let client: JobClient
    /// Where the schedules are kept; nil where the backend keeps none.
    private let keeping: (any ScheduleKeeping)?

    init(_ client: JobClient) {
        self.client = client
        keeping = client.backend.schedules
    }

    private func keeper() throws(BackendError) -> any ScheduleKeeping {
        guard let keeping else {
            throw BackendError(.misuse, "this backend keeps no schedules; memory, SQLite and Redis do")
        }
        return keeping
    }

    // MARK: - Changes

    /// Stores a schedule, or changes the one with its id. Where the timetable is the same, its next run stays.
    /// - Parameters:
    ///   - schedule: a schedule whose job is given, and not made for each tick.
    ///   - revision: the ``ScheduleRecord/revision`` that was read; nil to replace any revision.
    /// - Returns: the schedule as it is now.
    /// - Throws: ``ScheduleError`` when the schedule makes no sense, when code declares its id, and when it is not as it was
    ///   read; nothing is stored then. `EncodingError` and ``WireError`` as ``JobClient/enqueue(_:_:)->JobHandle<J.Output>``. ``BackendError``; the
    ///   schedule may be stored then, and putting it again is safe.
    @discardableResult
    public func put(_ schedule: Schedule, ifUnchangedSince revision: Int64? = nil) async throws -> ScheduleRecord {
        guard case .fixed = schedule.action else {
            throw ScheduleError(
                schedule: schedule.id, message: "its job is made for each tick, which only code that declares it can do"
            )
        }
        let messages = ScheduleMessages(client: client)
        let definition = try Self.definition(of: schedule, messages, origin: nil)
        return try await change(schedule.id, mayCreate: true, revision: revision) { earlier, now in
            if let app = earlier?.origin?.app {
                throw ScheduleError(
                    schedule: schedule.id,
                    message: "the code of \(app) declares it; change it there, or take another id")
            }
            return try Self.placed(definition, over: earlier, startsAtOnce: schedule.startsAtOnce, now: now)
        }
    }

    /// Stops a schedule from running until it is resumed. Runs that are under way go on.
    /// - Parameters:
    ///   - id: the id of the schedule.
    ///   - note: why, for people.
    /// - Throws: ``ScheduleError`` when there is no such schedule. ``BackendError``; it may be paused then, and pausing it
    ///   again is safe.
    @discardableResult
    public func pause(_ id: String, note: String = "") async throws -> ScheduleRecord {
        try await change(id) { state, now in state.pause = .init(note: note, at: now) }
    }

    /// Lets a paused schedule run again. What was due meanwhile is missed, and made up for by its ``ScheduleCatchUp``.
    /// - Throws: as ``pause(_:note:)``.
    @discardableResult
    public func resume(_ id: String) async throws -> ScheduleRecord {
        try await change(id) { state, _ in (state.pause, state.failures) = (nil, 0) }
    }

    /// Leaves out the next run.
    /// - Throws: as ``pause(_:note:)``.
    @discardableResult
    public func skipNext(_ id: String) async throws -> ScheduleRecord {
        try await change(id) { state, _ in state.skipsNext = true }
    }

    /// Removes a schedule and its history. Runs that were started stay. One that code declares comes back when a worker that
    /// declares it starts.
    /// - Returns: false when there is no such schedule.
    /// - Throws: ``BackendError``; it may be removed then, and removing it again is safe.
    @discardableResult
    public func remove(_ id: String) async throws -> Bool {
        let keeping = try keeper()
        while let stored = try await keeping.schedules([id]).first {
            let result = try await keeping.write([ScheduleWrite(id: id, expected: stored.revision, content: nil)])
            guard case .changed? = result.first else {
                await tellOthers()
                return true
            }
        }
        return false
    }

    // MARK: - Runs by hand

    /// Starts a run now. The timetable is not moved.
    /// - Parameters:
    ///   - id: the id of the schedule.
    ///   - overlap: in place of the schedule's own policy; nil for that.
    /// - Returns: the run's job; nil when the overlap policy keeps it from starting now.
    /// - Throws: ``ScheduleError`` when there is no such schedule, or its job is made by code that this program does not
    ///   have. ``BackendError``; the job may be enqueued then.
    @discardableResult
    public func runNow(_ id: String, overlap: ScheduleOverlap? = nil) async throws -> JobID? {
        try await start(id, .byHand, overlap) { _, now in [now] }.first
    }

    /// Starts the runs of a time that has passed.
    /// - Parameters:
    ///   - id: the id of the schedule.
    ///   - begin: runs after this moment.
    ///   - end: and not after this one.
    ///   - overlap: in place of the schedule's own policy; nil for that.
    /// - Returns: the jobs that were started. The job of a tick that has been is not started again, as long as the backend
    ///   knows its id.
    /// - Throws: as ``runNow(_:overlap:)``; ``ScheduleError`` for more than 1,000 runs, and nothing is started then.
    @discardableResult
    public func backfill(
        _ id: String, from begin: Date, to end: Date, overlap: ScheduleOverlap? = nil
    ) async throws -> [JobID] {
        try await start(id, .backfilled, overlap) { state, now in
            guard end.microsecondsSinceEpoch <= now else {
                throw ScheduleError(schedule: id, message: "runs that are still to come cannot be backfilled")
            }
            let limit = ScheduleDecision.maximumTicks
            let runs = try state.timetable.next(limit + 1, after: begin).filter { $0 <= end }
            guard runs.count <= limit else {
                throw ScheduleError(
                    schedule: id, message: "more than \(limit) runs are to be backfilled; take a shorter time")
            }
            return runs.map(\.microsecondsSinceEpoch)
        }
    }

    private func start(
        _ id: String, _ reason: Tick.Reason, _ overlap: ScheduleOverlap?,
        at dues: (ScheduleState, Int64) throws -> [Int64]
    ) async throws -> [JobID] {
        let keeping = try keeper()
        let messages = ScheduleMessages(client: client)
        for _ in 0..<Self.attempts {
            let stored = try await existing(id)
            let state = try ScheduleState.read(stored)
            let now = try await backendTime()
            let ends = try await ScheduleEnds.of(state.open, in: client.backend)
            let decision = ScheduleDecision(
                id, state, now: now, by: ProcessIdentity.name, ends: ends, starting: try dues(state, now), reason,
                overlap: overlap)
            var write = try decision.write(over: stored)
            write.messages = try decision.runs.map { try messages.message(of: $0, decision.state, now: now) }
            switch try await keeping.write([write]).first {
            case .written(_, let published):
                for job in decision.cancels { _ = try await client.backend.cancel(job) }
                await tellOthers()
                return zip(decision.runs, published).compactMap { $1 == .enqueued ? $0.jobID : nil }
            case .full(let queue): throw BackendError.atLimit(queue)
            case .changed, .early, nil: continue
            }
        }
        throw busy(id)
    }

    // MARK: - Reading

    /// One schedule; nil when there is none.
    /// - Throws: ``BackendError``; asking again is safe.
    public func schedule(_ id: String) async throws -> ScheduleRecord? {
        try await keeper().schedules([id]).first.map(ScheduleRecord.init)
    }

    /// Schedules in the order of their ids.
    /// - Parameters:
    ///   - id: those behind this one; empty for the first.
    ///   - limit: 1 to 1,000.
    /// - Throws: ``BackendError``; asking again is safe.
    public func list(after id: String = "", limit: Int = 1000) async throws -> [ScheduleRecord] {
        try await keeper().schedules(after: id, limit: limit.clamped(to: 1...1000)).map(ScheduleRecord.init)
    }

    /// The runs that come next, jitter not counted.
    /// - Throws: ``ScheduleError`` when there is no such schedule, ``BackendError``; asking again is safe.
    public func next(_ id: String, count: Int = 10) async throws -> [Date] {
        let state = try ScheduleState.read(try await existing(id))
        guard let due = state.due, count > 0 else { return [] }
        let left = state.maxRuns.map { max(0, $0 - state.number) } ?? count
        var runs = [due]
        while runs.count < min(count, left), let next = try state.due(after: runs[runs.count - 1]) { runs.append(next) }
        return runs.prefix(min(count, left)).map(Date.init(microsecondsSinceEpoch:))
    }

    /// What became of the last ticks, the newest first, at most 100.
    /// - Throws: ``BackendError``; asking again is safe.
    public func history(of id: String) async throws -> [ScheduleEntry] {
        try await keeper().scheduleHistory(of: id).compactMap { try? JSONText.decode(ScheduleEntry.self, from: $0) }
    }

    // MARK: - Declared in code

    /// Stores what a worker declares. Of two revisions of an app the higher wins; of one revision the later start.
    /// - Throws: ``ScheduleError`` when a schedule makes no sense, or when another app or a program at run time has its id;
    ///   some of the others may be stored then.
    func declare(
        _ schedules: [Schedule], by origin: ScheduleState.Origin, messages: ScheduleMessages
    ) async throws {
        let keeping = try keeper()
        var definitions: [String: (Schedule, ScheduleState)] = [:]
        for schedule in schedules {
            let definition = try Self.definition(of: schedule, messages, origin: origin)
            guard definitions.updateValue((schedule, definition), forKey: schedule.id) == nil else {
                throw ScheduleError(schedule: schedule.id, message: "it is declared twice")
            }
        }
        var left = Array(definitions.keys).sorted()[...]
        var attempts = 0
        while !left.isEmpty {
            let page = Array(left.prefix(500))
            let now = try await backendTime()
            let stored = Dictionary(uniqueKeysWithValues: try await keeping.schedules(page).map { ($0.id, $0) })
            var writes: [ScheduleWrite] = []
            for id in page {
                guard let (schedule, definition) = definitions[id] else { continue }
                let earlier = try stored[id].map { try ScheduleState.read($0) }
                if let earlier {
                    guard let other = earlier.origin else {
                        throw ScheduleError(
                            schedule: id, message: "it was put at run time; remove it, or declare another id")
                    }
                    guard other.app == origin.app else {
                        throw ScheduleError(
                            schedule: id, message: "both \(other.app) and \(origin.app) declare it; give one another id"
                        )
                    }
                    if other.revision > origin.revision { continue }
                }
                let state = try Self.placed(definition, over: earlier, startsAtOnce: schedule.startsAtOnce, now: now)
                if state == earlier { continue }
                writes.append(try Self.write(id, state, over: stored[id], now: now))
            }
            let results = try await keeping.write(writes)
            let changed = zip(writes, results).filter { $1 == .changed }.map(\.0.id)
            attempts = changed.isEmpty ? 0 : attempts + 1
            if attempts > Self.attempts { throw busy(changed[0]) }
            left = left.dropFirst(page.count) + changed
        }
        await tellOthers()
    }

    private static func definition(
        of schedule: Schedule, _ messages: ScheduleMessages, origin: ScheduleState.Origin?
    ) throws -> ScheduleState {
        try schedule.check()
        let (template, name, queue) = try messages.template(of: schedule)
        let state = ScheduleState(schedule, template: template, jobName: name, queue: queue, origin: origin)
        if state.watchesRuns, let template,
            try Message(envelope: Array(template.envelope.utf8)).headers.ignoresResult == true
        {
            throw ScheduleError(
                schedule: schedule.id,
                message:
                    "overlap: the job keeps no result, so that nobody knows when a run has ended; allow is possible")
        }
        return state
    }

    /// The definition, with what the schedule has come to.
    private static func placed(
        _ definition: ScheduleState, over earlier: ScheduleState?, startsAtOnce: Bool, now: Int64
    ) throws -> ScheduleState {
        var state = definition
        if let earlier {
            try state.goOn(from: earlier, now: now)
        } else {
            let first = max(now, state.starts ?? now)
            let isWithin = state.ends.map { first < $0 } ?? true
            state.due = startsAtOnce && isWithin ? first : try state.due(after: now)
        }
        return state
    }

    // MARK: - Writing

    private static let attempts = 50

    private static func write(
        _ id: String, _ state: ScheduleState, over stored: StoredSchedule?, now: Int64
    ) throws -> ScheduleWrite {
        ScheduleWrite(
            id: id, expected: stored?.revision,
            content: .init(group: state.group, wake: state.wake(now: now), body: try state.encoded()))
    }

    private func change(_ id: String, _ body: (inout ScheduleState, Int64) -> Void) async throws -> ScheduleRecord {
        try await change(id, mayCreate: false, revision: nil) { earlier, now in
            guard var state = earlier else { throw ScheduleError(schedule: id, message: "there is none of this id") }
            body(&state, now)
            return state
        }
    }

    private func change(
        _ id: String, mayCreate: Bool, revision: Int64?, _ body: (ScheduleState?, Int64) throws -> ScheduleState
    ) async throws -> ScheduleRecord {
        let keeping = try keeper()
        for _ in 0..<Self.attempts {
            let stored = try await keeping.schedules([id]).first
            if let revision, stored?.revision != revision {
                throw ScheduleError(schedule: id, message: "somebody has changed it since it was read; read it again")
            }
            let now = try await backendTime()
            let state = try body(try stored.map { try ScheduleState.read($0) }, now)
            let write = try Self.write(id, state, over: stored, now: now)
            guard case .written(let written, _)? = try await keeping.write([write]).first, let content = write.content
            else { continue }
            await tellOthers()
            return ScheduleRecord(
                StoredSchedule(id: id, group: content.group, revision: written, wake: content.wake, body: content.body))
        }
        throw busy(id)
    }

    private func existing(_ id: String) async throws -> StoredSchedule {
        guard let stored = try await keeper().schedules([id]).first else {
            throw ScheduleError(schedule: id, message: "there is none of this id")
        }
        return stored
    }

    /// The clock of the backend, in microseconds.
    private func backendTime() async throws -> Int64 {
        try await keeper().dueSchedules(in: [], limit: 1).now.microsecondsSinceEpoch
    }

    /// Has the programs that keep time look at once. One that does not hear it looks after half a minute.
    private func tellOthers() async {
        _ = try? await client.backend.fanout?.send([], exchange: ScheduleTicker.exchange, key: "")
    }

    private func busy(_ id: String) -> BackendError {
        BackendError(.busy, "the schedule \(id) is changed all the time; try again")
    }
}

extension JobClient {
    /// The schedules of the backend.
    public var schedules: ScheduleClient { ScheduleClient(self) }
}
