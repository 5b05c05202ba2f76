/// Decides when a caller keeps its thread while it waits for an answer, and when the event loop stays awake for the
/// next command. Pure: time is an argument, in nanoseconds.
///
/// A server on the same machine answers sooner than a thread goes to sleep and is woken again. A caller that awaits one
/// command after the other pays for waking three times a command: for the event loop that writes, for the event loop
/// that reads, and for its own thread. Within such a sequence the caller and the event loop therefore stay awake, as
/// long as answers arrive that soon. They sleep for a command that comes alone or together with others, and for a
/// distant server. On busy processors a thread that stays awake waits longer for a processor than a thread that is
/// woken. So after a spin in vain some commands do not spin: the fewer spins there were since the spin in vain before,
/// the more commands.
struct SpinPolicy {
    /// A command that follows the last answer within this time belongs to a sequence. The time is longer than threads
    /// need that had to be woken.
    static let longestPause: Int64 = 300_000
    /// How long the event loop stays awake for the next command of a sequence, if the last command came within this
    /// time.
    static let wakefulness: Int64 = 100_000
    /// After this time a caller gives its thread up once: other tasks may wait for the thread.
    static let longestTurn: Int64 = 2_000_000
    /// The upper bound of the limit.
    static let longestSpin: Int64 = 1_000_000
    /// How many commands do not spin after a spin in vain.
    static let skips = 8...1024
    /// This number of spins since the last spin in vain was worth that loss.
    static let goodRun = 64

    private let limit: Int64
    private var commandsUnderWay = 0
    /// `idleSince` is when the connection last became idle, `busySince` when the first command came after that.
    private var idleSince: Int64?
    private var busySince: Int64 = 0
    private var lastPause = Int64.max
    private var lastRoundTrip = Int64.max
    /// When the current series of spins began; nil after a caller has given its thread up.
    private var turnSince: Int64?
    private var spinsUntil: Int64?
    private var spinsSinceLoss = goodRun
    /// How many commands must not spin after the last spin in vain, and how many of them are left.
    private var penalty = 0
    private var skipsLeft = 0

    /// - Parameter limit: the longest round trip that is worth a spin; 0 for callers that always give their threads up.
    init(limit: Int64) { self.limit = min(limit, Self.longestSpin) }

    /// A command is about to be sent.
    /// - Parameter canSpin: whether the caller has a thread to keep, other than the event loop's.
    /// - Returns: the time until which the caller may keep its thread; nil when it must give the thread up.
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

    /// A spin ended before its caller saw an answer.
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
