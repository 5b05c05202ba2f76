/// The state of a job, as it is written into a result store.
public struct ResultWrite: Sendable, Hashable {
    public var record: JobRecord
    /// For how long the store keeps an ended job.
    public var kept: Transition.Retention

    public init(_ record: JobRecord, kept: Transition.Retention) {
        self.record = record
        self.kept = kept
    }
}
