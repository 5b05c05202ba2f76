/// The state of a job, as it is written into a result store.
public struct ResultWrite: Sendable, Hashable {
    public var record: JobRecord
    /// For how long the store keeps an ended job. A job that has not ended is kept until it ends, or for a number of
    /// seconds where this is one.
    public var kept: Transition.Retention
    /// What the job wrote; nil keeps the log that is stored.
    public var log: JobLog?

    public init(_ record: JobRecord, kept: Transition.Retention, log: JobLog? = nil) {
        self.log = log
        self.record = record
        self.kept = kept
    }

    /// Whether the record is forgotten after a time.
    package var isKeptForATime: Bool {
        if case .seconds = kept { return true }
        return record.state.hasEnded
    }
}
