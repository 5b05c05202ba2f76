/// A reference to a job: await its output, follow it, cancel it or forget it.
public struct JobHandle<Output: Codable & Sendable>: Sendable {
    public let id: JobID
    /// False when a job with this id or unique key existed already, or the handle was made from an id.
    public let isNew: Bool
    private let backend: Backend
    private let sealing: (any Sealing)?
    private let patience: Duration
    private let events: EventStream

    init(_ published: (id: JobID, isNew: Bool), backend: Backend, _ configuration: JobClient.Configuration) {
        sealing = configuration.sealing
        patience = configuration.unknownPatience
        events = EventStream(configuration.sinks)
        id = published.id
        isNew = published.isNew
        self.backend = backend
    }

    /// Waits for the job to end.
    /// - Parameter timeout: the longest wait; nil for no limit.
    /// - Returns: its output.
    /// - Throws: ``JobError`` when the job did not succeed, is unknown, or has not ended in time; `DecodingError` when
    ///   the output is not an `Output`; ``WireError`` when the output is sealed and the client cannot open it, or is
    ///   not sealed and the client accepts sealed outputs only; ``BackendError`` when the backend cannot answer;
    ///   `CancellationError` when the task is cancelled. The call only reads, so a retry is safe.
    @discardableResult
    public func output(timeout: Duration? = nil) async throws -> Output {
        let follow: @Sendable () async throws -> JobRecord? = { [id, isNew, backend, patience] in
            try await backend.results.recordAtEnd(of: id, isNew: isNew, patience: patience)
        }
        let record: JobRecord?
        do {
            record =
                if let timeout { try await withDeadline(timeout, clock: backend.clock, follow) } else {
                    try await follow()
                }
        } catch let error as BackendError where error.code == .timedOut {
            // The caller was less patient than the client.
            if isNew { throw JobError(.notEnded, jobID: id) }
            throw JobError(try await backend.record(of: id) == nil ? .unknown : .notEnded, jobID: id)
        }
        guard let record else { throw JobError(.unknown, jobID: id) }
        switch record.state {
        case .succeeded:
            return try WireDecoder.decode(
                Output.self, from: try SealedOutput.open(record.output ?? .null, of: id, with: sealing))
        case .failed: throw JobError(.failed, jobID: id, failure: record.failure)
        case .cancelled: throw JobError(.cancelled, jobID: id)
        case .expired: throw JobError(.expired, jobID: id)
        case .waiting, .scheduled, .retrying, .running: throw JobError(.unknown, jobID: id)
        }
    }

    /// The record now, and again whenever it changes, until the job has ended.
    public var updates: JobUpdates { backend.updates(of: id).patient(isNew ? .zero : patience) }

    /// Everything known about the job; nil when the id is unknown or the record is no longer kept.
    /// - Throws: ``BackendError`` when the backend cannot answer; `CancellationError` when the task is cancelled. The
    ///   call only reads, so a retry is safe.
    public func record() async throws -> JobRecord? { try await backend.record(of: id) }

    /// The state of the job; nil when the id is unknown, which is not the same as waiting.
    /// - Throws: as ``record()``.
    public func state() async throws -> JobState? { try await record()?.state }

    /// The last lines that the job wrote, also while it runs; nil when there are none.
    /// - Throws: ``BackendError`` when the backend cannot answer; `CancellationError` when the task is cancelled. The
    ///   call only reads, so a retry is safe.
    public func log() async throws -> JobLog? { try await backend.log(of: id) }

    /// Cancels the job: a waiting job at once, a running job by a request to its handler. In the process lane a job
    /// that continues is stopped by force, see ``ProcessOptions/grace``.
    /// - Throws: ``BackendError``; `CancellationError` when the task is cancelled. The job may be cancelled then. A
    ///   retry is always safe, but may return ``CancelResult/alreadyEnded`` for a job that the first call has
    ///   cancelled.
    @discardableResult
    public func cancel() async throws -> CancelResult {
        let result = try await backend.cancel(id)
        events.tell(.sent, of: id) {
            JobEvent(
                .cancelAsked(result), jobID: id, jobName: "", queue: "", attempt: 0, worker: nil, at: backend.clock.now)
        }
        return result
    }

    /// Removes the result of the ended job.
    /// - Returns: whether there was a result.
    /// - Throws: ``BackendError``; `CancellationError` when the task is cancelled. The result may be removed then. A
    ///   retry is always safe, but may return false for a result that the first call has removed.
    @discardableResult
    public func forget() async throws -> Bool { try await backend.forget(id) }
}

/// The output of a job is not available.
public struct JobError: Error, Sendable, CustomStringConvertible {
    public struct Code: Sendable, Hashable, CustomStringConvertible {
        private enum Value: String { case failed, cancelled, expired, unknown, notEnded }
        private let value: Value
        public var description: String { value.rawValue }

        public static let failed = Code(value: .failed)
        public static let cancelled = Code(value: .cancelled)
        public static let expired = Code(value: .expired)
        /// The job does not exist, or its result was not kept or is no longer kept.
        public static let unknown = Code(value: .unknown)
        /// The job had not ended when the wait was over.
        public static let notEnded = Code(value: .notEnded)
    }

    public var code: Code
    public var jobID: JobID
    /// The cause of the failure, for a job that failed.
    public var failure: JobFailure?

    init(_ code: Code, jobID: JobID, failure: JobFailure? = nil) {
        self.code = code
        self.jobID = jobID
        self.failure = failure
    }

    public var description: String {
        if let failure { return "the job \(jobID) failed: \(failure)" }
        guard code == .unknown else { return "the job \(jobID) has no output: \(code)" }
        return
            "the job \(jobID) is unknown: it was never enqueued, or nothing was kept of it, or it waits as a message of "
            + "a Python producer, which looks the same"
    }
}
