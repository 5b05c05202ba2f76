/// The records of one job as they change; the last record shows the ended job.
///
/// The sequence ends early when the backend has no record of the job. On Redis a job that was never seen reads as
/// waiting instead, because a Celery worker may not have begun it yet.
public struct JobUpdates: AsyncSequence, Sendable {
    private let changes: Doorbell
    private let clock: any JobClock
    private let read: @Sendable () async throws -> JobRecord?

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
        JobUpdates(changes: changes, clock: clock, read: read)
    }

    public struct AsyncIterator: AsyncIteratorProtocol {
        let updates: JobUpdates
        var lastRevision: Int64?
        var hasEnded = false

        /// - Throws: ``BackendError`` when the record cannot be read; `CancellationError` when the task is cancelled.
        ///   The call only reads, so a retry is safe.
        public mutating func next() async throws -> JobRecord? {
            while !hasEnded {
                try Task.checkCancellation()
                let mark = updates.changes.mark
                guard let record = try await updates.read() else {
                    hasEnded = true
                    return nil
                }
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
