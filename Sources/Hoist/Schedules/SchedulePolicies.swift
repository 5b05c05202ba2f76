/// What becomes of a run that is due while an earlier one has not ended.
public enum ScheduleOverlap: String, Sendable, Codable, CaseIterable {
    /// Both run.
    case allow
    /// The new one is dropped, and the history says why.
    case skip
    /// The new one starts when the earlier one has ended, in whatever way. One waits at most; others are dropped.
    case queueOne
    /// As ``queueOne``, but all wait, in order, 1,000 at most.
    case queueAll
    /// The earlier one is cancelled. The new one starts when it has ended.
    case cancelPrevious
}

/// What becomes of runs that nobody ticked in time: within ``Schedule/deadline`` of their due time.
public struct ScheduleCatchUp: Sendable, Hashable {
    enum Kind: Sendable, Hashable { case skip, once, all(within: Duration, atMost: Int) }
    let kind: Kind

    /// They are dropped.
    public static let skip = ScheduleCatchUp(kind: .skip)
    /// The latest of them runs as soon as somebody ticks. The default.
    public static let once = ScheduleCatchUp(kind: .once)
    /// All of them run, the oldest first.
    /// - Parameters:
    ///   - duration: older ones are dropped.
    ///   - count: of more than these the oldest are dropped; 1 to 1,000.
    public static func all(within duration: Duration, atMost count: Int = 100) -> ScheduleCatchUp {
        ScheduleCatchUp(kind: .all(within: duration, atMost: count.clamped(to: 1...1000)))
    }
}
