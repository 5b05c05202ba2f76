#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// One run of a schedule: the schedule and the time at which the run is due. No two jobs exist for one tick.
public struct Tick: Sendable, Hashable {
    public enum Reason: String, Sendable, Codable, CaseIterable {
        case onTime = "on time"
        /// Nobody ticked in time; it runs by the schedule's ``ScheduleCatchUp``.
        case caughtUp = "caught up"
        /// It waited for an earlier run to end.
        case afterEarlier = "after an earlier run"
        case byHand = "by hand"
        case backfilled
    }

    /// The id of the schedule.
    public var schedule: String
    public var due: Date
    /// The due time of the run before; nil for the first.
    public var previousDue: Date?
    /// Counts the runs of the schedule, 1 for the first.
    public var number: Int
    public var reason: Reason

    public init(schedule: String, due: Date, previousDue: Date? = nil, number: Int, reason: Reason) {
        (self.schedule, self.due, self.previousDue) = (schedule, due, previousDue)
        (self.number, self.reason) = (number, reason)
    }

    /// The header by which Celery knows what beat has sent.
    static let beatHeader = "celery_beat_task"

    /// The id of the run's job: the same, whoever ticks.
    package var jobID: JobID {
        let time = WireTimestamp.string(from: due).replacing("+00:00", with: "Z")
        return reason == .byHand ? "\(schedule)@\(time)#\(number)" : "\(schedule)@\(time)"
    }

    init?(_ value: WireValue) {
        guard let schedule = value["id"]?.stringValue, let due = value["due"]?.integerValue else { return nil }
        self.init(
            schedule: schedule, due: Date(microsecondsSinceEpoch: due),
            previousDue: value["previous_due"]?.integerValue.map(Date.init(microsecondsSinceEpoch:)),
            number: Int((value["number"]?.integerValue ?? 0).clamped(to: 0...(1 << 53))),
            reason: value["reason"]?.stringValue.flatMap(Reason.init) ?? .onTime)
    }

    var wireValue: WireValue {
        var object: WireValue.Object = [
            "id": .string(schedule), "due": .integer(due.microsecondsSinceEpoch), "number": .integer(Int64(number)),
            "reason": .string(reason.rawValue),
        ]
        if let previousDue { object["previous_due"] = .integer(previousDue.microsecondsSinceEpoch) }
        return .object(object)
    }
}
