import Timetables

#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// A schedule as it is stored: what it is, and how far it has come. Times are microseconds since 1970, lengths microseconds.
struct ScheduleState: Codable, Sendable, Equatable {
    /// The code that declares a schedule.
    struct Origin: Codable, Sendable, Equatable {
        var app: String
        var revision: Int
    }

    struct Pause: Codable, Sendable, Equatable {
        var note: String
        var at: Int64
    }

    /// The message of each run, but for what differs from run to run.
    struct Template: Codable, Sendable, Equatable {
        /// An envelope, see ``Message/encodedEnvelope()``.
        var envelope: String
        var delay: Int64?
        var expiresAfter: Int64?
    }

    /// A higher one is not read.
    static let currentVersion = 1

    var version = Self.currentVersion
    var timetable: Timetable
    /// The wire name of the job.
    var jobName: String
    var queue: String?
    /// Nil when the job is made for each tick.
    var template: Template?
    var overlap: ScheduleOverlap
    /// "skip", "once" or "all".
    var catchUp: String
    var catchUpWithin: Int64?
    var catchUpAtMost: Int?
    var deadline: Int64
    var jitter: Int64
    var starts: Int64?
    var ends: Int64?
    var maxRuns: Int?
    var pausesAfterFailures: Int?
    /// Nil when it was put at run time.
    var origin: Origin?

    /// The due time that comes next; nil when there is none any more.
    var due: Int64?
    var previousDue: Int64?
    /// Runs so far.
    var number = 0
    /// Ticks so far, those without a run included.
    var ticks = 0
    var pause: Pause?
    var skipsNext = false
    /// Runs that are not known to have ended.
    var open: [JobID] = []
    /// Due times of runs that wait for an earlier one to end.
    var waiting: [Int64] = []
    /// Runs in a row that failed for good.
    var failures = 0
    /// When it was found that no code declares it any more.
    var orphanedAt: Int64?

    init(
        _ schedule: Schedule, template: Template?, jobName: String, queue: String?, origin: Origin?
    ) {
        timetable = schedule.timetable
        self.jobName = jobName
        self.queue = queue
        self.template = template
        overlap = schedule.overlap
        switch schedule.catchUp.kind {
        case .skip: catchUp = "skip"
        case .once: catchUp = "once"
        case .all(let within, let count):
            (catchUp, catchUpWithin, catchUpAtMost) = ("all", within.inMicroseconds, count)
        }
        deadline = schedule.deadline.inMicroseconds
        jitter = schedule.jitter.inMicroseconds
        starts = schedule.starts?.microsecondsSinceEpoch
        ends = schedule.ends?.microsecondsSinceEpoch
        maxRuns = schedule.maxRuns
        pausesAfterFailures = schedule.pausesAfterFailures
        self.origin = origin
    }

    /// Whether runs must be known to have ended.
    var watchesRuns: Bool { overlap != .allow || pausesAfterFailures != nil }

    /// Whether no run will come any more.
    var isDone: Bool { due == nil && waiting.isEmpty }

    var group: String { origin?.app ?? "" }

    /// When it is to be looked at.
    /// - Parameter now: the clock of the backend.
    func wake(now: Int64) -> Date? {
        if pause != nil || orphanedAt != nil { return nil }
        // Whether an earlier run has ended is asked once a second.
        let look = waiting.isEmpty ? nil : now + 1_000_000
        // And that runs fail, before their records are gone.
        let failed = pausesAfterFailures == nil || open.isEmpty ? nil : now + 3_600_000_000
        let next = [due, look, failed].compactMap(\.self).min()
        return next.map(Date.init(microsecondsSinceEpoch:))
    }

    func encoded() throws -> [UInt8] { try JSONText.encode(self) }

    /// - Throws: what is wrong, for people: written by a newer version, or no schedule at all.
    static func read(_ stored: StoredSchedule) throws(ScheduleError) -> ScheduleState {
        struct Version: Decodable { var version: Int }
        do {
            let version = try JSONText.decode(Version.self, from: stored.body).version
            if version <= currentVersion {
                var state = try JSONText.decode(ScheduleState.self, from: stored.body)
                state.bound()
                return state
            }
        } catch {
            throw ScheduleError(schedule: stored.id, message: "it cannot be read, and does not tick: \(error)")
        }
        throw ScheduleError(
            schedule: stored.id, message: "a newer version has written it; this one cannot read it and does not tick it"
        )
    }

    /// Bounds what somebody else may have written, so that no sum of it overflows.
    private mutating func bound() {
        // Some 30,000 years.
        let times: ClosedRange<Int64> = -1_000_000_000_000_000_000...1_000_000_000_000_000_000
        let lengths = 0...times.upperBound
        func time(_ value: Int64?) -> Int64? { value.map { $0.clamped(to: times) } }
        (due, previousDue, starts, ends) = (time(due), time(previousDue), time(starts), time(ends))
        waiting = waiting.prefix(ScheduleDecision.maximumWaiting).map { $0.clamped(to: times) }
        open = open.suffix(ScheduleDecision.maximumOpen)
        (deadline, jitter) = (deadline.clamped(to: lengths), jitter.clamped(to: lengths))
        catchUpWithin = catchUpWithin.map { $0.clamped(to: lengths) }
        (number, ticks) = (number.clamped(to: 0...1 << 53), ticks.clamped(to: 0...1 << 53))
        failures = failures.clamped(to: 0...1 << 53)
        if var template {
            (template.delay, template.expiresAfter) = (time(template.delay), time(template.expiresAfter))
            self.template = template
        }
    }

    /// The first due time after a moment, within ``starts`` and ``ends``.
    func due(after time: Int64) throws(TimetableError) -> Int64? {
        let from = starts.map { max(time, $0 - 1) } ?? time
        guard let next = try timetable.next(after: Date(microsecondsSinceEpoch: from)) else { return nil }
        let due = next.microsecondsSinceEpoch
        return ends.map { due < $0 } ?? true ? due : nil
    }

    /// Takes over what another definition of the same schedule has come to.
    mutating func goOn(from earlier: ScheduleState, now: Int64) throws(TimetableError) {
        let isSameTimetable = earlier.timetable == timetable && earlier.starts == starts && earlier.ends == ends
        (previousDue, number, ticks, pause) = (earlier.previousDue, earlier.number, earlier.ticks, earlier.pause)
        (open, waiting, failures, skipsNext) = (earlier.open, earlier.waiting, earlier.failures, earlier.skipsNext)
        due = isSameTimetable && earlier.due != nil ? earlier.due : try due(after: now)
        if let maxRuns, number >= maxRuns { due = nil }
    }
}

/// One line of a schedule's history.
public struct ScheduleEntry: Codable, Sendable, Hashable {
    /// Microseconds since 1970.
    private var dueTime: Int64
    private var tickTime: Int64
    /// Counts the ticks of the schedule.
    public var number: Int
    /// Who ticked.
    public var by: String
    /// Why there was a run: ``Tick/Reason-swift.enum``; or why there was none.
    public var reason: String
    /// The run's job; nil when there was none.
    public var job: JobID?

    private enum CodingKeys: String, CodingKey {
        case dueTime = "due", tickTime = "ticked_at", number, by, reason, job
    }

    public var due: JobDate { JobDate(microsecondsSinceEpoch: dueTime) }
    public var tickedAt: JobDate { JobDate(microsecondsSinceEpoch: tickTime) }

    init(due: Int64, tickedAt: Int64, number: Int, by: String, reason: String, job: JobID? = nil) {
        (dueTime, tickTime, self.number) = (due, tickedAt, number)
        (self.by, self.reason, self.job) = (by, reason, job)
    }

    /// At most 4,096 bytes, whatever the reason says.
    func encoded() throws -> [UInt8] {
        var entry = self
        if entry.reason.utf8.count > 2000 { entry.reason = String(entry.reason.prefix(400)) }
        if entry.by.utf8.count > 1000 { entry.by = String(entry.by.prefix(200)) }
        return try JSONText.encode(entry)
    }
}
