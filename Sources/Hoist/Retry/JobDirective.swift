/// What a handler throws to say what becomes of its job, in place of its retry policy.
///
/// ```swift
/// throw JobDirective.retry(after: .seconds(30))          // the server answered 429 with Retry-After: 30
/// throw JobDirective.snooze(for: .seconds(300))          // not ready yet; costs no attempt
/// throw JobDirective.deadLetter("the file is not a video")
/// ```
public struct JobDirective: Error, Sendable {
    enum Kind: Sendable {
        case retry(after: Duration, reason: String)
        case snooze(Duration)
        case deadLetter(reason: String)
    }

    let kind: Kind

    /// Try again after `delay`. Spends an attempt; when the policy allows no more, the job becomes a dead letter.
    public static func retry(after delay: Duration, reason: String = "asked for by the job") -> JobDirective {
        JobDirective(kind: .retry(after: delay, reason: reason))
    }

    /// Put the job off for `delay` without spending an attempt. There is no limit to how often.
    public static func snooze(for delay: Duration) -> JobDirective { JobDirective(kind: .snooze(delay)) }

    /// Give up at once, whatever the policy says.
    public static func deadLetter(_ reason: String) -> JobDirective { JobDirective(kind: .deadLetter(reason: reason)) }
}
