/// How many jobs of a kind may start on one worker now: a token for each start, added at the rate, at most one second's
/// worth of them. Pure: time is an argument, in microseconds of uptime.
struct RateBucket {
    private let perMicrosecond: Double
    private let capacity: Double
    private var level: Double
    private var filledAt: Int64
    /// Whether the worker has found it empty, and waits for a token.
    private var isAwaited = false

    init(_ rate: StartRate, now: Int64) {
        perMicrosecond = rate.perSecond / 1_000_000
        capacity = max(1, rate.perSecond)
        level = 1
        filledAt = now
    }

    private func level(at now: Int64) -> Double {
        min(capacity, level + Double(max(0, now - filledAt)) * perMicrosecond)
    }

    /// How many may start.
    mutating func tokens(now: Int64) -> Int {
        let tokens = Int(level(at: now) + 1e-6)
        isAwaited = tokens == 0
        return tokens
    }

    /// - Returns: false when none may start now.
    mutating func take(now: Int64) -> Bool {
        let level = level(at: now)
        guard level >= 1 - 1e-6 else {
            isAwaited = true
            return false
        }
        (self.level, filledAt) = (level - 1, now)
        return true
    }

    /// When there is a token again; nil while nobody waits for one.
    var nextRefill: Int64? {
        guard isAwaited else { return nil }
        return filledAt + Int64(bounded: max(0, (1 - level) / perMicrosecond).rounded(.up))
    }

    func hasRefilled(now: Int64) -> Bool { nextRefill.map { $0 <= now } ?? false }

    mutating func noteRefill(now: Int64) { if hasRefilled(now: now) { isAwaited = false } }
}
