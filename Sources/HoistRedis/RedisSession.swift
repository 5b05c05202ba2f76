public import Hoist
import RESP
import Synchronization

extension RedisBackend {
    public func open(
        _ worker: WorkerPresence, lease: Duration, sink: any SessionSink
    ) async throws -> any WorkerSession {
        for warning in try await checkServer() { sink.warned(warning) }
        try await prepare(worker)
        let leases = try leaseClient(for: lease)
        guard try await renew(worker, lease: lease, over: leases) else {
            throw BackendError(
                .misuse, "the worker id \(worker.id) has been used before; each incarnation needs its own")
        }
        jobNotices.add(worker, sink)
        return RedisSession(self, worker, lease: lease, over: leases, sink: sink)
    }
}

/// A session of a worker on Redis. What makes turns fast lives here: claims that wait on the server, settlements that
/// are encoded on the threads of jobs, turns in parts.
final class RedisSession: WorkerSession {
    let id: WorkerID
    let name: String
    let sink: any SessionSink
    let standing = Mutex(StandingClaims())
    private let backend: RedisBackend
    private let lease: Duration
    /// For renewals alone.
    private let leases: RESPClient
    private let listening: ScheduledCall

    init(
        _ backend: RedisBackend, _ worker: WorkerPresence, lease: Duration, over leases: RESPClient,
        sink: any SessionSink
    ) {
        (self.backend, id, name, self.lease, self.leases, self.sink) = (
            backend, worker.id, worker.name, lease, leases, sink
        )
        listening = backend.workDoorbell.listen { sink.mayHaveWork() }
    }

    deinit {
        listening.cancel()
        backend.jobNotices.remove(id)
        backend.watcher.drop(id)
    }

    func encode(_ settlement: Settlement) -> Settlement { backend.encode(settlement) }

    func turn(_ turn: WorkerTurn) async throws -> TurnResult { try await backend.turn(turn, of: self) }

    func renew(_ worker: WorkerPresence) async throws -> Bool {
        let isAlive = try await backend.renew(worker, lease: lease, over: leases)
        if !isAlive { end() }
        return isAlive
    }

    func close() async throws {
        end()
        try await backend.resign(id)
    }

    private func end() {
        listening.cancel()
        backend.jobNotices.remove(id)
        backend.stopClaiming(self)
    }

    /// The answer to claims did not arrive, and the jobs in it are unknown to the worker.
    func lostAnswer() { failed(BackendError(.unavailable, "the answer to a claim got lost", isRetrySafe: false)) }

    /// Gives up an answer that takes too long.
    func giveUpOverdue() {
        guard standing.withLock({ $0.giveUpOverdue(now: .now) }) else { return }
        sink.arrivalWasLost(BackendError(.unavailable, "the answer to a claim did not come", isRetrySafe: false))
    }

    /// Jobs that claims got may be lost on the way.
    func failed(_ error: BackendError) {
        if standing.withLock({ $0.fail() }) { sink.arrivalWasLost(error) }
    }
}
