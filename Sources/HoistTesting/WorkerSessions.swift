public import Hoist
import Synchronization

/// Sessions of several workers at one broker, by the id of the worker: for tests that take and settle jobs themselves.
public final class WorkerSessions: Sendable {
    private let broker: any Broker
    private let sessions = Mutex<[WorkerID: any WorkerSession]>([:])

    public init(_ broker: any Broker) { self.broker = broker }

    /// Opens the session of a worker, or renews its lease.
    /// - Parameters:
    ///   - worker: the worker.
    ///   - lease: how long it counts as alive.
    ///   - sink: is told what arrives between turns; nil to miss it.
    /// - Returns: false when the lease was lost.
    /// - Throws: what the broker throws.
    public func join(
        _ worker: WorkerPresence, lease: Duration = .seconds(10), sink: (any SessionSink)? = nil
    ) async throws -> Bool {
        if let session = sessions.withLock({ $0[worker.id] }) { return try await session.renew(worker) }
        let session = try await broker.open(worker, lease: lease, sink: sink ?? DeafSink())
        sessions.withLock { $0[worker.id] = session }
        return true
    }

    /// One turn of a worker.
    /// - Returns: nothing for a worker that has not joined.
    /// - Throws: what the session throws.
    public func turn(_ worker: WorkerID, _ turn: WorkerTurn) async throws -> TurnResult {
        try await sessions.withLock { $0[worker] }?.turn(turn) ?? TurnResult()
    }

    /// Does what a worker does on the thread of a job.
    public func encode(_ settlement: Settlement, of worker: WorkerID) -> Settlement {
        sessions.withLock { $0[worker] }?.encode(settlement) ?? settlement
    }

    /// Ends the session of a worker.
    /// - Throws: what the session throws.
    public func leave(_ worker: WorkerID) async throws {
        try await sessions.withLock { $0.removeValue(forKey: worker) }?.close()
    }

    private struct DeafSink: SessionSink {
        func arrived(_ result: TurnResult) {}
        func arrivalWasLost(_ error: any Error) {}
        func mayHaveWork() {}
    }

    private struct Known: Sendable {
        weak let broker: (any Broker & AnyObject)?
        var sessions: WorkerSessions
    }

    private static let known = Mutex<[ObjectIdentifier: Known]>([:])

    /// The sessions of a broker, the same for every caller.
    static func of(_ broker: any Broker & AnyObject) -> WorkerSessions {
        known.withLock { known in
            if let found = known[ObjectIdentifier(broker)], found.broker === broker { return found.sessions }
            known = known.filter { $0.value.broker != nil }
            let sessions = WorkerSessions(Unowned(broker))
            known[ObjectIdentifier(broker)] = Known(broker: broker, sessions: sessions)
            return sessions
        }
    }

    /// A broker that is not kept alive by its sessions.
    private struct Unowned: Broker {
        private weak let base: (any Broker & AnyObject)?

        init(_ base: any Broker & AnyObject) { self.base = base }

        private var broker: any Broker { base! }
        var clock: any JobClock { broker.clock }
        var abilities: BrokerAbilities { broker.abilities }
        var workDoorbell: Doorbell { broker.workDoorbell }
        func publish(_ messages: [Message]) async throws -> [PublishResult] { try await broker.publish(messages) }
        func cancel(_ id: JobID) async throws -> CancelResult { try await broker.cancel(id) }
        func open(
            _ worker: WorkerPresence, lease: Duration, sink: any SessionSink
        ) async throws -> any WorkerSession { try await broker.open(worker, lease: lease, sink: sink) }
    }
}

extension Broker where Self: AnyObject {
    /// Opens the session of a worker, or renews its lease: see ``WorkerSessions/join(_:lease:sink:)``.
    /// - Throws: what the broker throws.
    public func join(
        _ worker: WorkerPresence, lease: Duration = .seconds(10), sink: (any SessionSink)? = nil
    ) async throws -> Bool { try await WorkerSessions.of(self).join(worker, lease: lease, sink: sink) }

    /// One turn of a worker that has joined.
    /// - Throws: what the session throws.
    public func turn(_ worker: WorkerID, _ turn: WorkerTurn) async throws -> TurnResult {
        try await WorkerSessions.of(self).turn(worker, turn)
    }

    /// Ends the session of a worker.
    /// - Throws: what the session throws.
    public func leave(_ worker: WorkerID) async throws { try await WorkerSessions.of(self).leave(worker) }
}
