/// What a handler throws to say what becomes of its job, in place of its retry policy.
///
/// ```swift
/// throw JobDirective.retry(after: .seconds(30))          // the server answered 429 with Retry-After: 30
/// throw JobDirective.snooze(for: .seconds(300))          // not ready yet; costs no attempt
/// throw JobDirective.deadLetter("the file is not a video")
/// ```
public struct JobDirective: Error, Sendable {
    enum Kind: Sendable {
        case retry(after: Duration, failure: JobFailure, arguments: Arguments?, maxAttempts: Int?)
        case snooze(Duration, closesQueue: Bool)
        case deadLetter(reason: String)
    }

    let kind: Kind

    /// Try again after `delay`. Spends an attempt; when the policy allows no more, the job becomes a dead letter.
    /// - Parameters:
    ///   - delay: the wait; 0 or more.
    ///   - reason: for the history.
    ///   - arguments: what the next attempt gets in place of the job's arguments; nil for the same.
    ///   - maxAttempts: how many attempts there may be in all, in place of the policy's number; nil to leave that to
    ///     the policy.
    public static func retry(
        after delay: Duration, reason: String = "asked for by the job", arguments: Arguments? = nil,
        maxAttempts: Int? = nil
    ) -> JobDirective {
        let failure = JobFailure(kind: .raised, type: "JobDirective", message: reason)
        return JobDirective(
            kind: .retry(after: delay, failure: failure, arguments: arguments, maxAttempts: maxAttempts))
    }

    /// Try again after `delay`, because of an error; it is what the job fails with when there are no attempts left.
    public static func retry(
        after delay: Duration, because error: any Error, arguments: Arguments? = nil, maxAttempts: Int? = nil
    ) -> JobDirective {
        JobDirective(
            kind: .retry(
                after: delay, failure: JobFailure(raised: error), arguments: arguments, maxAttempts: maxAttempts))
    }

    /// Put the job off for `delay` without spending an attempt. There is no limit to how often.
    public static func snooze(for delay: Duration) -> JobDirective {
        JobDirective(kind: .snooze(delay, closesQueue: false))
    }

    /// Put the job off for `duration` without spending an attempt, and start no other job of its queue meanwhile, on
    /// any worker: the service behind it answered 429. Where the backend cannot close a queue only this job is put off.
    public static func closeQueue(for duration: Duration) -> JobDirective {
        JobDirective(kind: .snooze(duration, closesQueue: true))
    }

    /// Give up at once, whatever the policy says.
    public static func deadLetter(_ reason: String) -> JobDirective { JobDirective(kind: .deadLetter(reason: reason)) }
}
