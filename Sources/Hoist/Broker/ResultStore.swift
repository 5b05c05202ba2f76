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
    /// one.
    func updates(of id: JobID) -> JobUpdates

    /// Waits until the job has ended, one way or the other.
    /// - Parameters:
    ///   - id: of any job. One that nobody knows may be on its way: whether that is waited for is the backend's affair.
    ///   - isNew: whether a publish has answered ``PublishResult/enqueued`` for it. A backend may then look for the
    ///     result alone, and such a job is never on its way.
    /// - Returns: its record then, as far as its result tells; nil when the id is unknown, or nothing was kept of the
    ///   job.
    /// - Throws: ``BackendError``; `CancellationError` when the task is cancelled.
    func recordAtEnd(of id: JobID, isNew: Bool) async throws -> JobRecord?

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
    public func recordAtEnd(of id: JobID, isNew: Bool) async throws -> JobRecord? {
        try await updates(of: id).lastIfEnded
    }
}
