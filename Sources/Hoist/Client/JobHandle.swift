/// The producer's hold on a job: await its output, follow it, cancel it, forget it.
public struct JobHandle<Output: Codable & Sendable>: Sendable {
    public let id: JobID
    /// False when the job was there already, by its id or unique key, or the handle was made from an id.
    public let isNew: Bool
    private let backend: any Backend
    private let sealing: (any Sealing)?

    init(_ published: (id: JobID, isNew: Bool), backend: any Backend, sealing: (any Sealing)? = nil) {
        self.sealing = sealing
        id = published.id
        isNew = published.isNew
        self.backend = backend
    }

    /// Waits for the job to end.
    /// - Parameter timeout: how long to wait at most; nil for as long as it takes.
    /// - Returns: its output.
    /// - Throws: ``JobError`` when it did not succeed, is unknown, or has not ended in time (asking again is safe
    ///   then); `DecodingError` when the output is not an `Output`; ``WireError`` when it is sealed and the client
    ///   cannot open it, or not sealed and the client takes none that are not.
    @discardableResult
    public func output(timeout: Duration? = nil) async throws -> Output {
        let follow: @Sendable () async throws -> JobRecord? = { [id, isNew, backend] in
            try await backend.recordAtEnd(of: id, isNew: isNew)
        }
        let record: JobRecord?
        do {
            record =
                if let timeout { try await withDeadline(timeout, clock: backend.clock, follow) } else {
                    try await follow()
                }
        } catch let error as BackendError where error.code == .timedOut {
            throw JobError(.notEnded, jobID: id)
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
    public var updates: JobUpdates { backend.updates(of: id) }

    /// Everything known about the job; nil when the id is unknown or the record has passed its time.
    public func record() async throws -> JobRecord? { try await backend.record(of: id) }

    /// Where the job stands; nil when the id is unknown, which is not the same as waiting.
    public func state() async throws -> JobState? { try await record()?.state }

    /// The last lines that the job wrote, also while it runs; nil when there are none.
    public func log() async throws -> JobLog? { try await backend.log(of: id) }

    /// Stops the job: at once when it waits, by asking its handler when it runs. In the process lane it is stopped by
    /// force when it goes on all the same, see ``ProcessOptions/grace``.
    @discardableResult
    public func cancel() async throws -> CancelResult { try await backend.cancel(id) }

    /// Removes the result of the ended job.
    @discardableResult
    public func forget() async throws -> Bool { try await backend.forget(id) }
}

/// A job has no output to give.
public struct JobError: Error, Sendable, CustomStringConvertible {
    public struct Code: Sendable, Hashable, CustomStringConvertible {
        private enum Value: String { case failed, cancelled, expired, unknown, notEnded }
        private let value: Value
        public var description: String { value.rawValue }

        public static let failed = Code(value: .failed)
        public static let cancelled = Code(value: .cancelled)
        public static let expired = Code(value: .expired)
        /// No such job, or its result was not kept or is no longer.
        public static let unknown = Code(value: .unknown)
        /// The wait was over before the job.
        public static let notEnded = Code(value: .notEnded)
    }

    public var code: Code
    public var jobID: JobID
    /// Why it failed, when it did.
    public var failure: JobFailure?

    init(_ code: Code, jobID: JobID, failure: JobFailure? = nil) {
        self.code = code
        self.jobID = jobID
        self.failure = failure
    }

    public var description: String {
        failure.map { "the job \(jobID) failed: \($0)" } ?? "the job \(jobID) has no output: \(code)"
    }
}
