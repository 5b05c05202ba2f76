@_exported public import Timetables

#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// A job that repeats: when it runs, what runs, and under which rules.
///
/// Declared with a worker, see ``Worker``, or put at run time with ``ScheduleClient/put(_:ifUnchangedSince:)``.
/// ```swift
/// Schedule("nightly-report", .cron("0 3 * * *", in: "Europe/Berlin"), Report(), .queue("reports"), overlap: .skip)
/// Schedule("poll", .every(.seconds(30)), Ping(), jitter: .seconds(5))
/// Schedule("by-date", .cron("@daily")) { tick in Report(day: tick.due) }
/// Schedule("lights", .sun(.sunset, latitude: 52.5, longitude: 13.4), named: "shop.lights", queue: "py")
/// ```
public struct Schedule: Sendable {
    /// What is made of a job before it has an id.
    struct Blueprint: Sendable {
        var name: String
        var secretArguments: Set<String>
        var defaults: JobOptions
        var options: [EnqueueOption]
        var arguments: Arguments
        var partition: String?
    }

    enum Action: Sendable {
        /// One job, the same each time. An error is thrown when the schedule is put.
        case fixed(@Sendable () throws -> Blueprint)
        /// Made for each tick, by a program that declares the schedule.
        case made(name: String, @Sendable (Tick) throws -> Blueprint)
    }

    /// 1 to 200 bytes without control characters.
    public let id: String
    public var timetable: Timetable
    let action: Action
    public var overlap: ScheduleOverlap
    public var catchUp: ScheduleCatchUp
    /// A run that is ticked later than this after its due time counts as missed. 60 seconds by default.
    public var deadline = Duration.seconds(60)
    /// Runs start later by up to this, by an amount that depends on the tick alone, and never later than the next run.
    public var jitter: Duration
    /// No run before.
    public var starts: Date?
    /// No run from here on.
    public var ends: Date?
    /// The schedule is done after so many runs; nil for no limit.
    public var maxRuns: Int?
    /// Pauses the schedule after so many runs in a row that failed for good; nil for never, the default. Runs whose result
    /// is not kept do not count.
    public var pausesAfterFailures: Int?
    /// One run at the first registration, whatever the timetable says.
    public var startsAtOnce = false

    /// A schedule of a job.
    /// - Parameters:
    ///   - id: 1 to 200 bytes without control characters.
    ///   - timetable: when it runs.
    ///   - job: what runs.
    ///   - options: of each run's job. ``EnqueueOption/id(_:)`` has no effect: the id is that of the tick.
    ///   - overlap: what becomes of a run while an earlier one has not ended.
    ///   - catchUp: what becomes of runs that nobody ticked in time.
    ///   - jitter: see ``jitter``.
    ///   - starts: see ``starts``.
    ///   - ends: see ``ends``.
    ///   - maxRuns: see ``maxRuns``.
    public init<J: Job>(
        _ id: String, _ timetable: Timetable, _ job: J, _ options: EnqueueOption..., overlap: ScheduleOverlap = .allow,
        catchUp: ScheduleCatchUp = .once, jitter: Duration = .zero, starts: Date? = nil, ends: Date? = nil,
        maxRuns: Int? = nil
    ) {
        self.init(
            id, timetable, .fixed { try Blueprint(job, options) }, overlap, catchUp, jitter, starts, ends, maxRuns)
    }

    /// A schedule whose job is made for each tick. Only programs that declare it can tick it; it cannot be put at run time.
    /// - Parameters:
    ///   - id: 1 to 200 bytes without control characters.
    ///   - timetable: when it runs.
    ///   - options: of each run's job.
    ///   - overlap: what becomes of a run while an earlier one has not ended.
    ///   - catchUp: what becomes of runs that nobody ticked in time.
    ///   - jitter: see ``jitter``.
    ///   - starts: see ``starts``.
    ///   - ends: see ``ends``.
    ///   - maxRuns: see ``maxRuns``.
    ///   - job: makes the job of a tick. It may be called more than once for a tick, by several programs.
    public init<J: Job>(
        _ id: String, _ timetable: Timetable, _ options: EnqueueOption..., overlap: ScheduleOverlap = .allow,
        catchUp: ScheduleCatchUp = .once, jitter: Duration = .zero, starts: Date? = nil, ends: Date? = nil,
        maxRuns: Int? = nil, job: @escaping @Sendable (Tick) throws -> J
    ) {
        self.init(
            id, timetable, .made(name: J.name) { try Blueprint(job($0), options) }, overlap, catchUp, jitter, starts,
            ends, maxRuns)
    }

    /// A schedule of a job that this program has no type for, such as a Python task.
    /// - Parameters:
    ///   - id: 1 to 200 bytes without control characters.
    ///   - timetable: when it runs.
    ///   - name: the wire name of the job.
    ///   - arguments: by place and by name.
    ///   - queue: the queue; nil for the queue of the rules, or the default.
    ///   - options: of each run's job.
    ///   - overlap: what becomes of a run while an earlier one has not ended.
    ///   - catchUp: what becomes of runs that nobody ticked in time.
    ///   - jitter: see ``jitter``.
    ///   - starts: see ``starts``.
    ///   - ends: see ``ends``.
    ///   - maxRuns: see ``maxRuns``.
    public init(
        _ id: String, _ timetable: Timetable, named name: String, arguments: Arguments = Arguments(),
        queue: String? = nil, options: [EnqueueOption] = [], overlap: ScheduleOverlap = .allow,
        catchUp: ScheduleCatchUp = .once, jitter: Duration = .zero, starts: Date? = nil, ends: Date? = nil,
        maxRuns: Int? = nil
    ) {
        let options = (queue.map { [EnqueueOption.queue($0)] } ?? []) + options
        let blueprint = Blueprint(
            name: name, secretArguments: [], defaults: JobOptions(), options: options, arguments: arguments)
        self.init(id, timetable, .fixed { blueprint }, overlap, catchUp, jitter, starts, ends, maxRuns)
    }

    private init(
        _ id: String, _ timetable: Timetable, _ action: Action, _ overlap: ScheduleOverlap, _ catchUp: ScheduleCatchUp,
        _ jitter: Duration, _ starts: Date?, _ ends: Date?, _ maxRuns: Int?
    ) {
        (self.id, self.timetable, self.action, self.overlap, self.catchUp) = (id, timetable, action, overlap, catchUp)
        (self.jitter, self.starts, self.ends, self.maxRuns) = (jitter, starts, ends, maxRuns)
    }

    /// Refuses what makes no sense, before anything is stored.
    /// - Throws: ``ScheduleError`` with the field and the reason. The same schedule is refused again.
    public func check() throws(ScheduleError) {
        func refuse(_ field: String, _ reason: String) -> ScheduleError {
            ScheduleError(schedule: id, message: "\(field): \(reason)")
        }
        guard (1...200).contains(id.utf8.count) else {
            throw refuse("id", "it has \(id.utf8.count) bytes; 1 to 200 are allowed")
        }
        guard !id.unicodeScalars.contains(where: { $0.value < 0x20 || (0x7F...0x9F).contains($0.value) }) else {
            throw refuse("id", "it holds control characters")
        }
        do throws(TimetableError) {
            try timetable.check()
        } catch {
            throw refuse("timetable", "\(error)")
        }
        if let calendar = timetable.calendars.min() {
            throw refuse("timetable", "it excludes the calendar \"\(calendar)\", and schedules know no calendars")
        }
        if let starts, let ends, ends <= starts { throw refuse("ends", "it is not after starts") }
        if let maxRuns, maxRuns < 1 { throw refuse("maxRuns", "\(maxRuns) is none; 1 or more") }
        if let pausesAfterFailures, pausesAfterFailures < 1 {
            throw refuse("pausesAfterFailures", "\(pausesAfterFailures) is none; 1 or more")
        }
        guard deadline >= .seconds(1) else { throw refuse("deadline", "\(deadline) is none; 1 second or more") }
        guard jitter >= .zero else { throw refuse("jitter", "\(jitter) is negative") }
    }
}

extension Schedule.Blueprint {
    init<J: Job>(_ job: J, _ options: [EnqueueOption]) throws {
        self.init(
            name: J.name, secretArguments: J.secretArguments, defaults: J.options, options: options,
            arguments: Arguments(keyword: try WireEncoder.encodeArguments(job)),
            partition: job.partitionKey ?? (J.options.hasPartitions ? "" : nil))
    }
}

/// A schedule cannot be put, changed or run as it was asked to. The same call fails again, unless the schedule changes.
public struct ScheduleError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The id of the schedule.
    public var schedule: String
    public var message: String
    public var description: String { "the schedule \"\(schedule)\": \(message)" }
}

/// Collects the schedules that a worker declares.
@resultBuilder
public enum ScheduleBuilder {
    public static func buildExpression(_ schedule: Schedule) -> [Schedule] { [schedule] }
    public static func buildExpression(_ schedules: [Schedule]) -> [Schedule] { schedules }
    public static func buildBlock(_ parts: [Schedule]...) -> [Schedule] { parts.flatMap { $0 } }
    public static func buildOptional(_ part: [Schedule]?) -> [Schedule] { part ?? [] }
    public static func buildEither(first: [Schedule]) -> [Schedule] { first }
    public static func buildEither(second: [Schedule]) -> [Schedule] { second }
    public static func buildArray(_ parts: [[Schedule]]) -> [Schedule] { parts.flatMap { $0 } }
}
