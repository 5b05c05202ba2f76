/// How a lane with a range of slots, as in `.process(2...8)`, grows and shrinks.
public struct Autoscaling: Sendable, Hashable {
    /// A lane that is full grows when a job of its queues has waited for so long. 1 second by default.
    public var growsAfterWait: Duration
    /// It grows as well when so many jobs wait for each slot that it has. 10 by default.
    public var growsAtBacklogPerSlot: Int
    /// A lane that was not full for so long gives slots back, one at a time. 30 seconds by default.
    public var shrinksAfter: Duration
    /// How often it looks. 1 second by default, at least 10 milliseconds.
    public var interval: Duration

    public init(
        growsAfterWait: Duration = .seconds(1), growsAtBacklogPerSlot: Int = 10, shrinksAfter: Duration = .seconds(30),
        interval: Duration = .seconds(1)
    ) {
        self.growsAfterWait = growsAfterWait
        self.growsAtBacklogPerSlot = max(1, growsAtBacklogPerSlot)
        self.shrinksAfter = shrinksAfter
        self.interval = max(interval, .milliseconds(10))
    }
}

/// Decides how many slots a lane should have. Pure: time is an argument, in microseconds of uptime.
struct LaneScaler {
    private let range: ClosedRange<Int>
    private let policy: Autoscaling
    /// When the lane was full last.
    private var fullAt: Int64?

    init(_ range: ClosedRange<Int>, _ policy: Autoscaling) {
        self.range = range
        self.policy = policy
    }

    /// What waits in the queues of a lane.
    struct Backlog {
        var waiting: Int
        /// Microseconds that the oldest job has waited.
        var oldestWait: Int64
    }

    /// - Parameters:
    ///   - used: slots in use.
    ///   - slots: slots there are.
    ///   - backlog: what waits; of interest only while the lane is full.
    /// - Returns: how many there should be.
    mutating func slots(used: Int, of slots: Int, backlog: Backlog, now: Int64) -> Int {
        if used >= slots {
            fullAt = now
            // A job that takes several slots waits for them: it is in no queue any more.
            if used > slots { return used.clamped(to: range) }
            let isLate = backlog.waiting > 0 && backlog.oldestWait >= policy.growsAfterWait.inMicroseconds
            guard isLate || backlog.waiting >= slots * policy.growsAtBacklogPerSlot else {
                return slots.clamped(to: range)
            }
            // Twice as many at most, and no more than have something to do.
            return (slots + min(slots, max(1, backlog.waiting))).clamped(to: range)
        }
        let since = fullAt ?? now
        if fullAt == nil { fullAt = now }
        guard now - since >= policy.shrinksAfter.inMicroseconds else { return slots.clamped(to: range) }
        return max(used, slots - 1).clamped(to: range)
    }
}
