public import Hoist

extension SQLiteBackend {
    public func open(
        _ worker: WorkerPresence, lease: Duration, sink: any SessionSink
    ) async throws -> any WorkerSession {
        guard try await renew(worker, lease: lease) else {
            throw BackendError(
                .misuse, "the worker id \(worker.id) has been used before; each incarnation needs its own")
        }
        jobNotices.add(worker, sink)
        return SQLiteSession(self, worker.id, lease: lease, listening: workDoorbell.listen { sink.mayHaveWork() })
    }
}

/// A session of a worker on the file.
final class SQLiteSession: WorkerSession {
    private let backend: SQLiteBackend
    private let worker: WorkerID
    private let lease: Duration
    private let listening: ScheduledCall

    init(_ backend: SQLiteBackend, _ worker: WorkerID, lease: Duration, listening: ScheduledCall) {
        (self.backend, self.worker, self.lease, self.listening) = (backend, worker, lease, listening)
    }

    deinit {
        listening.cancel()
        backend.jobNotices.remove(worker)
    }

    func turn(_ turn: WorkerTurn) async throws -> TurnResult { try await backend.turn(turn, of: worker) }

    func renew(_ worker: WorkerPresence) async throws -> Bool { try await backend.renew(worker, lease: lease) }

    func close() async throws {
        listening.cancel()
        backend.jobNotices.remove(worker)
        try await backend.resign(worker)
    }
}
