/// The records of one job as they change; the last one is that of the ended job.
///
/// The sequence ends early, with nothing, when the id is unknown or its record is gone.
public struct JobUpdates: AsyncSequence, Sendable {
    private let changes: Doorbell
    private let clock: any JobClock
    private let read: @Sendable () async throws -> JobRecord?

    /// - Parameters:
    ///   - changes: rung when any record may have changed.
    ///   - read: the record now.
    package init(changes: Doorbell, clock: any JobClock, read: @escaping @Sendable () async throws -> JobRecord?) {
        self.changes = changes
        self.clock = clock
        self.read = read
    }

    public struct AsyncIterator: AsyncIteratorProtocol {
        let updates: JobUpdates
        var lastRevision: Int64?
        var hasEnded = false

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
                // The limit covers a ring that got lost with the process that should have rung.
                await updates.changes.wait(after: mark, for: .seconds(2), clock: updates.clock)
            }
            return nil
        }
    }

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(updates: self) }

    /// The last record, once there are no more; nil when the job has vanished instead of ending.
    package var lastIfEnded: JobRecord? {
        get async throws {
            for try await record in self where record.state.hasEnded { return record }
            return nil
        }
    }
}
