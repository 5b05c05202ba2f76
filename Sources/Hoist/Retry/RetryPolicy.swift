/// How often a failed job is retried, and after which waits.
///
/// The policy of a job is part of its ``JobOptions``; a call may override it. An error can override the policy, see
/// ``JobDirective``.
public struct RetryPolicy: Sendable, Hashable, Codable {
    /// How many times the job is started at most, the first one included. At least 1.
    public private(set) var maximumAttempts: Int
    private var initialSeconds: Double
    private var factor: Double
    private var capSeconds: Double
    private var jitter: Double
    private var windowSeconds: Double?

    /// One attempt only.
    public static let none = RetryPolicy(
        maximumAttempts: 1, initialSeconds: 0, factor: 1, capSeconds: 0, jitter: 0, windowSeconds: nil)

    /// The same wait before every further attempt.
    /// - Parameters:
    ///   - delay: the wait; 0 or more.
    ///   - maxAttempts: 1 or more; less counts as 1.
    public static func fixed(_ delay: Duration, maxAttempts: Int) -> RetryPolicy {
        exponential(initial: delay, factor: 1, cap: delay, jitter: 0, maxAttempts: maxAttempts)
    }

    /// Waits that grow: `initial`, `initial × factor`, … up to `cap`.
    /// - Parameters:
    ///   - initial: the first wait; 0 or more.
    ///   - factor: the factor between one wait and the next; 1 or more.
    ///   - cap: the longest wait.
    ///   - jitter: the random share of each wait, 0...1. With 0.25 a wait of 8 s lies between 6 s and 8 s, so that jobs
    ///     that failed together are not retried together.
    ///   - maxAttempts: 1 or more; less counts as 1.
    public static func exponential(
        initial: Duration = .seconds(1), factor: Double = 2, cap: Duration = .seconds(600), jitter: Double = 0.25,
        maxAttempts: Int
    ) -> RetryPolicy {
        RetryPolicy(
            maximumAttempts: max(1, maxAttempts), initialSeconds: max(0, initial.inSeconds), factor: max(1, factor),
            capSeconds: max(0, cap.inSeconds), jitter: jitter.clamped(to: 0...1), windowSeconds: nil)
    }

    /// The same policy, but no attempt begins later than `window` after the job was enqueued.
    public func within(_ window: Duration) -> RetryPolicy {
        var policy = self
        policy.windowSeconds = max(0, window.inSeconds)
        return policy
    }

    /// The time after enqueueing in which attempts may begin; nil without limit.
    public var window: Duration? { windowSeconds.map { Duration(boundedSeconds: $0) } }

    /// The wait after the attempt with number `attempt` (1 for the first) has failed.
    /// - Parameters:
    ///   - attempt: the number of the attempt that failed, 1 for the first.
    ///   - draw: a number in 0..<1 that decides the jitter.
    public func delay(afterAttempt attempt: Int, draw: Double) -> Duration {
        var seconds = initialSeconds
        var remaining = max(0, attempt - 1)
        while remaining > 0, seconds > 0, seconds < capSeconds, factor > 1 {
            seconds *= factor
            remaining -= 1
        }
        seconds = min(seconds, capSeconds)
        return Duration(boundedSeconds: seconds * (1 - jitter.clamped(to: 0...1) * draw))
    }

    /// The wait before the next attempt, or nil when this was the last one.
    /// - Parameters:
    ///   - attempt: the number of the attempt that failed, 1 for the first.
    ///   - age: time since the job was enqueued.
    func nextDelay(afterAttempt attempt: Int, age: Duration, draw: Double) -> Duration? {
        guard attempt < maximumAttempts else { return nil }
        let delay = delay(afterAttempt: attempt, draw: draw)
        if let window, age + delay > window { return nil }
        return delay
    }
}
