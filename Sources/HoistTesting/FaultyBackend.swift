public import Hoist
import Synchronization

/// A backend that fails on purpose: it refuses, delays or repeats calls, and loses their answers. For tests of code
/// that must survive such faults.
public final class FaultyBackend: Backend {
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

    private let base: any Backend
    private let faults: Mutex<[Fault?]>
    private let claims = Atomic(0)

    /// - Parameters:
    ///   - base: the backend that performs the calls.
    ///   - faults: one for each call of publish, turn and renew, in the order of the calls; nil lets a call through.
    ///     Calls after the last fault go through.
    public init(_ base: any Backend, faults: [Fault?] = []) {
        self.base = base
        self.faults = Mutex(faults)
    }

    /// Adds faults for the calls to come.
    public func inject(_ more: Fault?...) { faults.withLock { $0 += more } }

    /// How many turns have asked for jobs.
    public var claimCount: Int { claims.load(ordering: .relaxed) }

    private func call<T: Sendable>(_ body: @Sendable () async throws -> T) async throws -> T {
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

    public var clock: any JobClock { base.clock }
    public var workDoorbell: Doorbell { base.workDoorbell }
    public func publish(_ messages: [Message]) async throws -> [PublishResult] {
        try await call { try await self.base.publish(messages) }
    }
    public func turn(_ request: WorkerTurn) async throws -> TurnResult {
        if !request.claims.isEmpty { claims.add(1, ordering: .relaxed) }
        return try await call { try await self.base.turn(request) }
    }
    public func prepare(_ settlement: Settlement) -> Settlement { base.prepare(settlement) }
    public func renew(_ worker: WorkerPresence, lease: Duration) async throws -> Bool {
        try await call { try await self.base.renew(worker, lease: lease) }
    }
    public func resign(_ worker: WorkerID) async throws { try await base.resign(worker) }
    public func cancel(_ id: JobID) async throws -> CancelResult { try await base.cancel(id) }
    public func record(of id: JobID) async throws -> JobRecord? { try await base.record(of: id) }
    public func updates(of id: JobID) -> JobUpdates { base.updates(of: id) }
    public func recordAtEnd(of id: JobID, isNew: Bool) async throws -> JobRecord? {
        try await base.recordAtEnd(of: id, isNew: isNew)
    }
    public func log(of id: JobID) async throws -> JobLog? { try await base.log(of: id) }
    public func forget(_ id: JobID) async throws -> Bool { try await base.forget(id) }
}
