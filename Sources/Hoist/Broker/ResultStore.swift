/// Keeps state, progress and result of each job.
public protocol ResultStore: Sendable {
    /// Writes the states of jobs that another broker holds, or of jobs that were never published. A success is never
    /// written over, and the same states may be written again.
    /// - Throws: ``BackendError``; some of the states may be written then, and writing them again is safe.
    func store(_ results: [ResultWrite]) async throws

    /// Everything known about a job; nil when the id is unknown, or its record has passed its time.
    /// - Throws: ``BackendError``; asking again is safe.
    func record(of id: JobID) async throws -> JobRecord?

    /// The record now, and again whenever it changes, until the job has ended. Changes close together may arrive as
    /// one. There are none for an unknown id.
    func updates(of id: JobID) -> JobUpdates

    /// Waits until the job has ended, one way or the other.
    /// - Parameters:
    ///   - id: of any job.
    ///   - isNew: whether a publish has answered ``PublishResult/enqueued`` for it. A store may then look for the
    ///     result alone.
    ///   - patience: how long an id that nobody knows is waited for. It may be on its way, and a message of a Python
    ///     producer that waits has no record either.
    /// - Returns: its record then, as far as its result tells; nil when the id is unknown, or nothing was kept of the
    ///   job.
    /// - Throws: ``BackendError``; `CancellationError` when the task is cancelled.
    func recordAtEnd(of id: JobID, isNew: Bool, patience: Duration) async throws -> JobRecord?

    /// The last lines that the job wrote, of its last attempt: while it runs, a second or so old; kept as long as its
    /// record. nil when it wrote nothing, or is unknown.
    /// - Throws: ``BackendError``; asking again is safe.
    func log(of id: JobID) async throws -> JobLog?

    /// Removes the record of an ended job. A job that has not ended is left alone.
    /// - Returns: whether there was such a record.
    /// - Throws: ``BackendError``; the record may be gone then, and asking again is safe.
    func forget(_ id: JobID) async throws -> Bool
}

extension ResultStore {
    public func recordAtEnd(of id: JobID, isNew: Bool, patience: Duration) async throws -> JobRecord? {
        // Of a job that was published, no record means that none was kept.
        try await updates(of: id).patient(isNew ? .zero : patience).lastIfEnded
    }
}
