/// What becomes of a fixed time of day where clocks are changed. Timetables whose minutes or hours begin with a star go by
/// what clocks show: they run at no time that does not exist, and twice at one that is repeated.
public struct ClockChange: Hashable, Sendable {
    /// What happens at a time that clocks leave out when they are put forward.
    public enum Gap: String, Sendable, Codable, CaseIterable {
        /// It runs at the first moment after the gap. Several times in one gap are one run.
        case after
        /// It does not run.
        case skip
    }

    /// What happens at a time that clocks show twice when they are put back.
    public enum Repeated: String, Sendable, Codable, CaseIterable {
        /// It runs the first time.
        case first
        /// It runs both times.
        case both
    }

    public var gap: Gap
    public var repeated: Repeated

    public init(gap: Gap = .after, repeated: Repeated = .first) { (self.gap, self.repeated) = (gap, repeated) }

    /// Once for each local time that the timetable names, as cron does.
    public static let cron = ClockChange()
    /// Times in a gap do not run.
    public static let skip = ClockChange(gap: .skip)
    /// Times that are repeated run twice.
    public static let both = ClockChange(repeated: .both)
}
