extension JobRecord {
    /// The output as the type that the job declares.
    ///
    /// ```swift
    /// if let record = try await handle.record(), record.state == .succeeded {
    ///     print(try record.output(as: VideoReport.self).duration)
    /// }
    /// ```
    /// A sealed output is opened by ``JobHandle/output(timeout:)`` alone.
    /// - Throws: ``JobError``: with the failure when the job failed, `.notEnded` when it has not ended. `DecodingError` when
    ///   the output is no `Output`; a retry cannot help then.
    public func output<Output: Decodable>(as type: Output.Type) throws -> Output {
        switch state {
        case .succeeded: try WireDecoder.decode(type, from: output ?? .null)
        case .failed: throw JobError(.failed, jobID: id, failure: failure)
        case .cancelled: throw JobError(.cancelled, jobID: id)
        case .expired: throw JobError(.expired, jobID: id)
        case .waiting, .scheduled, .retrying, .running: throw JobError(.notEnded, jobID: id)
        }
    }
}
