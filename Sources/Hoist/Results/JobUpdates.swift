/// The records of one job as they change; the last record shows the ended job.
///
/// The sequence ends early when the backend has no record of the job. On Redis a job that was never seen reads as
/// waiting instead, because a Celery worker may not have begun it yet.
public struct JobUpdates: AsyncSequence, Sendable {
    private let changes: Doorbell
    private let clock: any JobClock
    private let read: @Sendable () async throws -> JobRecord?
    /// How long an id that nobody knows is waited for.
    private var patience = Duration.zero

    /// - Parameters:
    ///   - changes: rung when any record may have changed.
    ///   - read: reads the current record.
    package init(changes: Doorbell, clock: any JobClock, read: @escaping @Sendable () async throws -> JobRecord?) {
        self.changes = changes
        self.clock = clock
        self.read = read
    }

    /// The same changes, of records that are read in another way.
    func reading(_ read: @escaping @Sendable () async throws -> JobRecord?) -> JobUpdates {
        var updates = JobUpdates(changes: changes, clock: clock, read: read)
        updates.patience = patience
        return updates
    }

    /// The same changes, of an id that may be unknown for a while.
    package func patient(_ patience: Duration) -> JobUpdates {
        var updates = self
        updates.patience = patience
        return updates
    }

    public struct AsyncIterator: AsyncIteratorProtocol {
        let updates: JobUpdates
        var lastRevision: Int64?
        var hasEnded = false
        /// Since when it is known that the id is not known, by the uptime; nil once a record was seen.
        var unknownSince: Int64?
        var hasSeen = false

        /// - Throws: ``BackendError`` when the record cannot be read; `CancellationError` when the task is cancelled.
        ///   The call only reads, so a retry is safe.
        public mutating func next() async throws -> JobRecord? {
            while !hasEnded {
                try Task.checkCancellation()
                let mark = updates.changes.mark
                guard let record = try await updates.read() else {
                    if let left = patienceLeft() {
                        await updates.changes.wait(after: mark, for: Swift.min(left, .seconds(2)), clock: updates.clock)
                        continue
                    }
                    hasEnded = true
                    return nil
                }
                hasSeen = true
                if record.revision != lastRevision || record.state.hasEnded {
                    lastRevision = record.revision
                    hasEnded = record.state.hasEnded
                    return record
                }
                // The time limit covers a lost ring: the process that should have rung may have died.
                await updates.changes.wait(after: mark, for: .seconds(2), clock: updates.clock)
            }
            return nil
        }

        /// Nil when an unknown id is not waited for any more. A job that was seen and is gone has ended.
        private mutating func patienceLeft() -> Duration? {
            let now = updates.clock.uptime
            let since = unknownSince ?? now
            unknownSince = since
            let left = updates.patience.inMicroseconds - (now - since)
            return hasSeen || left <= 0 ? nil : .microseconds(left)
        }
    }

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(updates: self) }

    /// Waits for the job to end and returns its last record; nil when the job vanished instead of ending.
    /// - Throws: ``BackendError`` when the record cannot be read; `CancellationError` when the task is cancelled. The
    ///   call only reads, so a retry is safe.
    package var lastIfEnded: JobRecord? {
        get async throws {
            for try await record in self where record.state.hasEnded { return record }
            return nil
        }
    }
}
