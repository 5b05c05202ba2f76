#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// Keeps schedules: named values with the moment at which each is to be looked at next.
///
/// A backend stores what it is told and decides nothing. That a tick starts one job, however many programs tick, rests
/// on ``write(_:)`` alone.
public protocol ScheduleKeeping: Sendable {
    /// Changes schedules, each if it is as it was read, and publishes in the same step what it starts.
    ///
    /// Each write is one atomic step of its own: of two programs that write the same revision at once, one succeeds, and
    /// only its messages are published.
    /// - Parameter writes: any number; of one schedule only one.
    /// - Returns: what became of each, in order.
    /// - Throws: ``BackendError``. Some writes may be done then; repeating them is safe, for their schedules are no longer
    ///   as they were read. `.misuse` for an id, body or entry of a length that is not allowed: nothing is written then.
    func write(_ writes: [ScheduleWrite]) async throws -> [ScheduleWriteResult]

    /// The schedules with these ids, as far as they exist, in no order.
    /// - Throws: ``BackendError``; asking again is safe.
    func schedules(_ ids: [String]) async throws -> [StoredSchedule]

    /// Schedules in the order of their ids.
    /// - Parameters:
    ///   - id: those behind this one; empty for the first.
    ///   - limit: 1 to 1,000.
    /// - Throws: ``BackendError``; asking again is safe.
    func schedules(after id: String, limit: Int) async throws -> [StoredSchedule]

    /// Schedules whose moment has come by the clock of the backend, the longest due first.
    /// - Parameters:
    ///   - groups: those that belong to one of these.
    ///   - limit: 1 to 1,000.
    /// - Throws: ``BackendError``; asking again is safe.
    func dueSchedules(in groups: [String], limit: Int) async throws -> DueSchedules

    /// The entries that writes have left of a schedule, the newest first, at most ``ScheduleWrite/historyLimit``.
    /// - Throws: ``BackendError``; asking again is safe.
    func scheduleHistory(of id: String) async throws -> [[UInt8]]
}

/// A schedule as a backend stores it.
public struct StoredSchedule: Sendable, Hashable {
    public var id: String
    /// Who keeps time for it: empty for everybody, or the name of the app whose code declares it.
    public var group: String
    /// Grows with each write.
    public var revision: Int64
    /// When it is to be looked at; nil for never.
    public var wake: Date?
    /// What only programs understand.
    public var body: [UInt8]

    public init(id: String, group: String, revision: Int64, wake: Date?, body: [UInt8]) {
        (self.id, self.group, self.revision, self.wake, self.body) = (id, group, revision, wake, body)
    }
}

/// A change of a schedule.
public struct ScheduleWrite: Sendable {
    public struct Content: Sendable {
        public var group: String
        public var wake: Date?
        public var body: [UInt8]

        public init(group: String, wake: Date?, body: [UInt8]) {
            (self.group, self.wake, self.body) = (group, wake, body)
        }
    }

    /// How many entries are kept of each schedule.
    public static let historyLimit = 100

    /// 1 to 200 bytes.
    public var id: String
    /// The revision that was read; nil when there was none.
    public var expected: Int64?
    /// The schedule from now on; nil to remove it with its history.
    public var content: Content?
    /// The write is refused while the clock of the backend has not reached this; nil for no such condition.
    public var notBefore: Date?
    /// For the history, oldest first, at most 4,096 bytes each.
    public var entries: [[UInt8]] = []
    /// What the schedule starts.
    public var messages: [Message] = []

    public init(id: String, expected: Int64?, content: Content?) {
        (self.id, self.expected, self.content) = (id, expected, content)
    }

    /// - Throws: ``BackendError`` `.misuse` for lengths that are not allowed.
    package func check() throws(BackendError) {
        guard (1...200).contains(id.utf8.count) else {
            throw BackendError(.misuse, "the id of a schedule has \(id.utf8.count) bytes; 1 to 200 are allowed")
        }
        guard content?.body.count ?? 0 <= 1 << 20 else {
            throw BackendError(
                .misuse, "the schedule \(id) has \(content?.body.count ?? 0) bytes; 1,048,576 are allowed")
        }
        guard entries.allSatisfy({ $0.count <= 4096 }) else {
            throw BackendError(.misuse, "an entry in the history of \(id) is longer than 4,096 bytes")
        }
    }
}

public enum ScheduleWriteResult: Sendable, Equatable {
    /// It is done; what became of each message, in order.
    case written(revision: Int64, [PublishResult])
    /// The schedule is not as it was read. Nothing has changed.
    case changed
    /// The clock of the backend has not reached ``ScheduleWrite/notBefore``. Nothing has changed.
    case early
    /// A queue has no room for the messages. Nothing has changed.
    case full(queue: String)
}

/// What is to be looked at now.
public struct DueSchedules: Sendable {
    /// The clock of the backend.
    public var now: Date
    public var due: [StoredSchedule]
    /// When the next of those that are not due yet is; nil when there is none.
    public var next: Date?

    public init(now: Date, due: [StoredSchedule], next: Date?) { (self.now, self.due, self.next) = (now, due, next) }
}
