/// Thrown by a handler to decide what happens to its job, in place of the retry policy.
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
        case replace(Signature)
    }

    let kind: Kind

    /// What is to run in place of the job; nil when it is not to be replaced.
    var replacement: Signature? { if case .replace(let canvas) = kind { canvas } else { nil } }

    /// Try again after `delay`. Spends an attempt; when the policy allows no more, the job becomes a dead letter.
    /// - Parameters:
    ///   - delay: the wait; 0 or more.
    ///   - reason: for the history.
    ///   - arguments: the arguments of the next attempt; nil for the arguments of the job.
    ///   - maxAttempts: the total number of attempts, in place of the number in the policy; nil for the number in the
    ///     policy.
    public static func retry(
        after delay: Duration, reason: String = "asked for by the job", arguments: Arguments? = nil,
        maxAttempts: Int? = nil
    ) -> JobDirective {
        let failure = JobFailure(kind: .raised, type: "JobDirective", message: reason)
        return JobDirective(
            kind: .retry(after: delay, failure: failure, arguments: arguments, maxAttempts: maxAttempts))
    }

    /// Try again after `delay`, because of an error. When no attempts are left, the job fails with this error.
    public static func retry(
        after delay: Duration, because error: any Error, arguments: Arguments? = nil, maxAttempts: Int? = nil
    ) -> JobDirective {
        JobDirective(
            kind: .retry(
                after: delay, failure: JobFailure(raised: error), arguments: arguments, maxAttempts: maxAttempts))
    }

    /// Put the job off for `delay` without spending an attempt. The number of snoozes is not limited.
    public static func snooze(for delay: Duration) -> JobDirective {
        JobDirective(kind: .snooze(delay, closesQueue: false))
    }

    /// Put the job off for `duration` without spending an attempt, and start no other job of its queue on any worker
    /// meanwhile: for a service that answered 429. On a backend that cannot close queues, as
    /// RabbitMQ, the job fails with the kind `unsupported`.
    public static func closeQueue(for duration: Duration) -> JobDirective {
        JobDirective(kind: .snooze(duration, closesQueue: true))
    }

    /// Give up at once, whatever the policy says.
    public static func deadLetter(_ reason: String) -> JobDirective { JobDirective(kind: .deadLetter(reason: reason)) }

    /// Run a canvas in place of the job: its end has the id of the job, its place in a group, and whatever follows the
    /// job. Nothing is stored for the job itself. Not in the process lane.
    /// - Parameter canvas: a task, chain, group or chord. A group hands on the list of its outputs.
    public static func replace(by canvas: Signature) -> JobDirective { JobDirective(kind: .replace(canvas)) }
}
