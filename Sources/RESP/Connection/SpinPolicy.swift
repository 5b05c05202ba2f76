/// Who may keep its thread while it waits for an answer, and the event loop for the next command. Pure: time is an
/// argument, in nanoseconds.
///
/// A server on the same machine answers sooner than a thread goes to sleep and is woken again, and a caller that awaits
/// one command after the other pays for that three times a command: for the event loop that is to write, for the event
/// loop that is to read, for itself. So within such a sequence both stay awake, as long as answers do come that soon.
/// Those of commands that come alone, together with others or from far away sleep. Where the processors are busy, who
/// stays awake is made to wait for them longer than who is woken; so each spin in vain is followed by commands without,
/// by more of them the less those in between were good for.
struct SpinPolicy {
    /// A command that follows the last answer so closely belongs to a sequence. Longer than threads take that had to be
    /// woken.
    static let longestPause: Int64 = 300_000
    /// How long the event loop stays awake for the next command of a sequence, where the last one came that soon.
    static let wakefulness: Int64 = 100_000
    /// After so long a caller gives its thread up once: other tasks may wait for it.
    static let longestTurn: Int64 = 2_000_000
    /// The highest limit that there may be.
    static let longestSpin: Int64 = 1_000_000
    /// How many commands go without after a spin in vain.
    static let skips = 8...1024
    /// So many spins since the last in vain were worth that loss.
    static let goodRun = 64

    private let limit: Int64
    private var commandsUnderWay = 0
    /// When the connection was last without commands, and when the first came then.
    private var idleSince: Int64?
    private var busySince: Int64 = 0
    private var lastPause = Int64.max
    private var lastRoundTrip = Int64.max
    /// When a caller's turn began that has not given its thread up since.
    private var turnSince: Int64?
    private var spinsUntil: Int64?
    private var spinsSinceLoss = goodRun
    /// How many commands were to go without after the last spin in vain, and how many still are.
    private var penalty = 0
    private var skipsLeft = 0

    /// - Parameter limit: how long an answer may take; 0 for callers that always give their threads up.
    init(limit: Int64) { self.limit = min(limit, Self.longestSpin) }

    /// A command is about to be sent.
    /// - Parameter canSpin: whether its caller has a thread to keep, which is not the event loop's.
    /// - Returns: until when the caller may keep it; nil for one that must not.
    mutating func sent(canSpin: Bool, now: Int64) -> Int64? {
        commandsUnderWay += 1
        spinsUntil = nil
        guard commandsUnderWay == 1 else { return nil }
        busySince = now
        lastPause = idleSince.map { now - $0 } ?? .max
        guard canSpin, isSequence(now), isWorthwhile() else {
            turnSince = nil
            return nil
        }
        spinsSinceLoss += 1
        spinsUntil = now + limit
        return spinsUntil
    }

    private mutating func isSequence(_ now: Int64) -> Bool {
        guard limit > 0, lastRoundTrip <= limit, lastPause <= Self.longestPause else { return false }
        let since = turnSince ?? now
        turnSince = since
        return now - since < Self.longestTurn
    }

    private mutating func isWorthwhile() -> Bool {
        guard skipsLeft > 0 else { return true }
        skipsLeft -= 1
        return false
    }

    /// The time of a spin was over before its caller saw an answer.
    mutating func spunInVain() {
        penalty = spinsSinceLoss >= Self.goodRun ? Self.skips.lowerBound : min(penalty * 2, Self.skips.upperBound)
        skipsLeft = penalty
        spinsSinceLoss = 0
    }

    /// A command has its answer.
    /// - Returns: until when the event loop is to stay awake; nil when it may sleep.
    mutating func answered(now: Int64) -> Int64? {
        commandsUnderWay -= 1
        guard commandsUnderWay == 0 else { return nil }
        idleSince = now
        lastRoundTrip = now - busySince
        guard let spinsUntil, now <= spinsUntil, lastPause <= Self.wakefulness else { return nil }
        return now + Self.wakefulness
    }
}
