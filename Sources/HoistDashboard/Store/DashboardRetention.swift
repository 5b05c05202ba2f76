import Hoist

/// How long a dashboard keeps jobs that have ended.
public struct DashboardRetention: Sendable, Hashable {
    /// Jobs that succeeded, were cancelled or expired. 7 days by default.
    public var succeeded: Duration
    /// Jobs that failed, or were lost. 90 days by default.
    public var failed: Duration

    /// - Parameters:
    ///   - succeeded: also of jobs that were cancelled or expired. 7 days by default.
    ///   - failed: also of jobs that were lost. 90 days by default.
    public init(succeeded: Duration = .seconds(7 * 86_400), failed: Duration = .seconds(90 * 86_400)) {
        self.succeeded = succeeded
        self.failed = failed
    }

    var ages: [([HistoryState], Duration)] {
        [
            ([.succeeded, .cancelled, .expired], succeeded), ([.failed, .lost], failed),
            // What has not ended and of which nothing was heard for so long has no end to come.
            ([.waiting, .scheduled, .running, .retrying], max(succeeded, failed)),
        ]
    }
}
