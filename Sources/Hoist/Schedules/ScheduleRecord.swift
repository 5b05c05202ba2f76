public import Timetables

#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// What is known of a schedule.
public struct ScheduleRecord: Sendable {
    public enum State: String, Sendable, Codable, CaseIterable {
        case active, paused
        /// No run will come any more.
        case done
        /// No code declares it any more.
        case orphaned
        /// A newer version has written it, or it is damaged. It does not tick.
        case unreadable
    }

    public var id: String
    public var state: State
    /// Nil when the schedule cannot be read.
    public var timetable: Timetable?
    /// The wire name of the job.
    public var jobName: String
    /// Nil when the job is made for each tick.
    public var queue: String?
    public var overlap: ScheduleOverlap
    /// The due time that comes next; nil when there is none.
    public var next: Date?
    /// The due time of the last run.
    public var previous: Date?
    /// Runs so far.
    public var runs: Int
    /// Why it is paused, or why it cannot be read.
    public var note: String?
    /// The app whose code declares it; nil when it was put at run time.
    public var app: String?
    /// For ``ScheduleClient/put(_:ifUnchangedSince:)``.
    public var revision: Int64

    init(_ stored: StoredSchedule) {
        (id, revision) = (stored.id, stored.revision)
        do throws(ScheduleError) {
            let schedule = try ScheduleState.read(stored)
            timetable = schedule.timetable
            (jobName, queue, overlap, app) = (schedule.jobName, schedule.queue, schedule.overlap, schedule.origin?.app)
            next = schedule.due.map(Date.init(microsecondsSinceEpoch:))
            previous = schedule.previousDue.map(Date.init(microsecondsSinceEpoch:))
            runs = schedule.number
            note = schedule.pause?.note
            state =
                if schedule.orphanedAt != nil {
                    .orphaned
                } else if schedule.pause != nil {
                    .paused
                } else {
                    schedule.isDone ? .done : .active
                }
        } catch {
            (jobName, overlap, runs, state, note) = ("", .allow, 0, .unreadable, error.message)
        }
    }
}
