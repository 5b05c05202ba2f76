/// Why a timetable cannot be used.
///
/// Every case but ``noZoneDatabase(_:)`` is a fault of the text or of a number in it: the same timetable fails again.
public enum TimetableError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The text is none that can be read. Names the field, what stands there and what may.
    case malformed(String)
    /// The text is well formed, and no date ever matches.
    case neverRuns(String)
    /// The zone is not in this machine's database. Names those that are spelt alike.
    case unknownZone(String)
    /// This machine has no database of time zones, or one that cannot be read.
    case noZoneDatabase(String)
    /// A number is out of its range.
    case outOfRange(String)
    /// A calendar that the timetable names was not given.
    case unknownCalendar(String)

    public var description: String {
        switch self {
        case .malformed(let text), .neverRuns(let text), .unknownZone(let text), .noZoneDatabase(let text),
            .outOfRange(let text), .unknownCalendar(let text):
            text
        }
    }
}
