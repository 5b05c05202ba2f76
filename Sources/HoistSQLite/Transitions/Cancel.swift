public import Hoist

extension SQLiteBackend {
    public func cancel(_ id: JobID) async throws -> CancelResult {
        let now = clock.now.microsecondsSinceEpoch
        let result = try await writer.transaction("cancel the job \(id)") { try $0.cancel(id, now: now) }
        if result == .requested { ringReady() }
        ringChanged()
        return result
    }

    public func forget(_ id: JobID) async throws -> Bool {
        if try await drop(JobFilter(ids: [id])) == 1 { return true }
        return try await writer.transaction("forget the job \(id)") { try $0.forgetForeignResult(id) }
    }
}

extension JobStore {
    func cancel(_ id: JobID, now: Int64) throws -> CancelResult {
        let select = try sql("SELECT seq, state FROM job WHERE id = ?").bind(id)
        guard try select.step() else { return .unknown }
        let (sequence, state) = (select.int(0), select.int(1))
        select.end()
        switch StoredState(rawValue: state) {
        case .waiting?, .scheduled?, .retrying?:
            _ = try apply(
                .waitedInVain(.cancelled, at: JobDate(microsecondsSinceEpoch: now)), to: sequence, now: now)
            return .cancelled
        case .running?:
            try sql("UPDATE job SET cancel = 1, revision = revision + 1 WHERE seq = ?").bind(sequence).run()
            return .requested
        default: return .alreadyEnded
        }
    }
}
