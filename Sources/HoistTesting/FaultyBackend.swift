public import Hoist
import Synchronization

/// A backend that fails on purpose: it loses answers, refuses calls, delivers twice. For tests of what must survive
/// that.
///
/// Only the broker fails; the other parts are those of the base.
public final class FaultyBackend: BackendConvertible {
    /// What goes wrong with one call.
    public enum Fault: Sendable {
        /// The call fails and nothing has happened.
        case refuse
        /// The call happens and its answer is lost.
        case loseAnswer
        /// The call takes this long.
        case delay(Duration)
        /// The call happens twice; the second answer is given.
        case repeatCall
    }

    private let base: Backend
    private let faults: Faults

    /// - Parameters:
    ///   - base: what the calls go to.
    ///   - faults: for the calls to publish, open, turn and renew in order; nil lets a call through. Afterwards every
    ///     call goes through.
    public init(_ base: some BackendConvertible, faults: [Fault?] = []) {
        self.base = base.backend
        self.faults = Faults(faults)
    }

    public var backend: Backend {
        var backend = base
        backend.broker = FaultyBroker(base: base.broker, faults: faults)
        return backend
    }

    /// Adds faults for the calls to come.
    public func inject(_ more: Fault?...) { faults.add(more) }

    /// How many turns have asked for jobs.
    public var claimCount: Int { faults.claims.load(ordering: .relaxed) }
}

private final class Faults: Sendable {
    private let faults: Mutex<[FaultyBackend.Fault?]>
    let claims = Atomic(0)

    init(_ faults: [FaultyBackend.Fault?]) { self.faults = Mutex(faults) }

    func add(_ more: [FaultyBackend.Fault?]) { faults.withLock { $0 += more } }

    func call<T>(_ body: () async throws -> T) async throws -> T {
        switch faults.withLock({ $0.isEmpty ? nil : $0.removeFirst() }) {
        case nil: return try await body()
        case .refuse?: throw BackendError(.unavailable, "refused on purpose")
        case .loseAnswer?:
            _ = try await body()
            throw BackendError(.unavailable, "answer lost on purpose", isRetrySafe: false)
        case .delay(let duration)?:
            try await Task.sleep(for: duration)
            return try await body()
        case .repeatCall?:
            _ = try await body()
            return try await body()
        }
    }
}

private struct FaultyBroker: Broker {
    let base: any Broker
    let faults: Faults

    var clock: any JobClock { base.clock }
    var abilities: BrokerAbilities { base.abilities }
    var workDoorbell: Doorbell { base.workDoorbell }
    var threads: WorkerThreads? { base.threads }

    func publish(_ messages: [Message]) async throws -> [PublishResult] {
        try await faults.call { try await base.publish(messages) }
    }

    func cancel(_ id: JobID) async throws -> CancelResult { try await base.cancel(id) }

    func open(_ worker: WorkerPresence, lease: Duration, sink: any SessionSink) async throws -> any WorkerSession {
        try await faults.call {
            FaultySession(base: try await base.open(worker, lease: lease, sink: sink), faults: faults)
        }
    }
}

private struct FaultySession: WorkerSession {
    let base: any WorkerSession
    let faults: Faults

    func encode(_ settlement: Settlement) -> Settlement { base.encode(settlement) }

    func turn(_ turn: WorkerTurn) async throws -> TurnResult {
        if !turn.claims.isEmpty { faults.claims.add(1, ordering: .relaxed) }
        return try await faults.call { try await base.turn(turn) }
    }

    func renew(_ worker: WorkerPresence) async throws -> Bool {
        try await faults.call { try await base.renew(worker) }
    }

    func close() async throws { try await base.close() }
}
