public import Hoist

/// What every backend must do, as checks that need no test framework.
///
/// ```swift
/// @Test(arguments: BackendContract.checks)
/// func contract(_ check: BackendContract.Check) async throws {
///     try await check.run { clock in MyBackend(clock: clock) }
/// }
/// ```
/// A check names the abilities and parts that it needs, and is skipped where the backend declares that it has not all
/// of them. ``realChecks`` repeat the checks as workers really call a backend: by the real clock, and with settlements
/// that are encoded on the thread of a job.
public enum BackendContract {
    /// Makes an empty backend that keeps time by `clock`.
    public typealias Factory = @Sendable (_ clock: any JobClock) async throws -> any BackendConvertible

    public struct Check: Sendable, CustomStringConvertible {
        /// The behaviour, in words.
        public let description: String
        /// What the broker must be able to do.
        public fileprivate(set) var abilities: BrokerAbilities = []
        /// The parts that the backend must have.
        fileprivate var parts: [Part] = []
        /// Whether the time is the machine's own, and settlements are encoded.
        fileprivate var isReal = false
        let body: @Sendable (ContractBench) async throws -> Void

        init(
            _ description: String, needs abilities: BrokerAbilities = [], parts: [Part] = [],
            _ body: @escaping @Sendable (ContractBench) async throws -> Void
        ) {
            self.description = description
            self.abilities = abilities
            self.parts = parts
            self.body = body
        }

        /// - Returns: why the check was skipped; nil when the backend passed it.
        /// - Throws: ``ContractViolation``, or what the backend throws.
        @discardableResult
        public func run(_ factory: Factory) async throws -> String? {
            let clock = TestClock()
            let backend = try await factory(isReal ? SystemJobClock() : clock).backend
            let missing = abilities.subtracting(backend.broker.abilities)
            guard missing.isEmpty else { return "the broker has not all abilities: \(missing.names)" }
            if let part = parts.first(where: { !$0.isThere(backend) }) { return "the backend has no \(part)" }
            do {
                try await body(ContractBench(backend, clock: isReal ? nil : clock))
                return nil
            } catch is ContractBench.NeedsMovableClock {
                return "the rest needs a clock that can be moved"
            }
        }
    }

    /// A part that a check needs.
    enum Part: Sendable {
        case directory, editing, fanout, coordination, upkeep, queueControl, topics, broadcasts, limits, schedules,
            groups, workflows

        func isThere(_ backend: Backend) -> Bool {
            switch self {
            // Of jobs that wait, that is.
            case .directory: backend.directory != nil && backend.broker.abilities.contains(.waitingRecords)
            case .editing: backend.editing != nil && backend.broker.abilities.contains(.waitingRecords)
            case .fanout: backend.fanout != nil
            case .coordination: backend.coordination != nil
            case .upkeep: backend.upkeep != nil
            case .queueControl: backend.queueControl != nil
            case .topics: backend.topics != nil
            case .broadcasts: backend.broadcasts != nil
            case .limits: backend.limits != nil
            case .schedules: backend.schedules != nil
            case .groups: backend.groups != nil
            case .workflows: backend.workflows != nil
            }
        }
    }

    /// With a clock that the check moves.
    public static let checks: [Check] =
        queueing + leases.map { $0.needing([.leases]) }
        + outcomes.map { $0.needing([], [.directory]) } + followUps.map { $0.needing([], [.directory]) } + timing
        + uniqueness.map { $0.needing([.uniqueKeys]) } + administration + sharing + queueControl
        + limits + schedules + groups + workflows

    /// By the real clock, with settlements as workers encode them. Checks go as far as they can without moving the
    /// time.
    public static let realChecks: [Check] =
        (checks + credit + control).map { check in
            var check = check
            check.isReal = true
            return check
        }
}

extension BackendContract.Check {
    fileprivate func needing(_ abilities: BrokerAbilities, _ parts: [BackendContract.Part] = []) -> Self {
        var check = self
        check.abilities.formUnion(abilities)
        check.parts += parts
        return check
    }
}

extension BrokerAbilities {
    fileprivate var names: String {
        let all: [(BrokerAbilities, String)] = [
            (.uniqueKeys, "unique keys"), (.knownIDs, "known ids"), (.delays, "delays"), (.fencing, "fencing"),
            (.selectsByName, "selection by name"), (.storesResults, "results"), (.tenPriorities, "ten priorities"),
            (.leases, "leases"), (.cancellation, "cancellation"), (.expiry, "expiry"), (.progress, "progress"),
            (.history, "history"), (.lastingCredit, "lasting credit"), (.waitingRecords, "records of waiting jobs"),
        ]
        return all.filter { contains($0.0) }.map(\.1).joined(separator: ", ")
    }
}

/// A backend did something else than the contract says.
public struct ContractViolation: Error, CustomStringConvertible {
    public let description: String
}

/// A backend on the bench, with the motions that checks are made of.
struct ContractBench: Sendable {
    let backend: Backend
    let sessions: WorkerSessions
    /// Nil when the time is the machine's own.
    private let testClock: TestClock?

    init(_ backend: Backend, clock: TestClock?) {
        self.backend = backend
        sessions = WorkerSessions(backend.broker)
        testClock = clock
    }

    struct NeedsMovableClock: Error {}

    /// A client that waits for an unknown id no longer than it takes to look twice.
    var impatient: JobClient.Configuration {
        var configuration = JobClient.Configuration()
        configuration.unknownPatience = testClock == nil ? .milliseconds(100) : .zero
        return configuration
    }

    /// In whole microseconds, as backends keep times.
    var now: JobDate {
        testClock?.now ?? JobDate(microsecondsSinceEpoch: SystemJobClock().now.microsecondsSinceEpoch)
    }

    /// Moves the time. A check ends here where the time is the machine's own.
    func advance(by duration: Duration) throws {
        guard let testClock else { throw NeedsMovableClock() }
        testClock.advance(by: duration)
    }

    func expect(_ condition: Bool, _ what: @autoclosure () -> String, line: Int = #line) throws {
        guard condition else { throw ContractViolation(description: "line \(line): \(what())") }
    }

    func message(
        _ id: JobID, name: String = "job", queue: String = "default", change: (inout Message) -> Void = { _ in }
    ) -> Message {
        var headers = MessageHeaders(task: name, id: id)
        headers.rootID = id
        headers.hoist.enqueuedAt = now
        let body = MessageBody(arguments: Arguments(keyword: ["n": 1])).encoded()
        var message = Message(
            headers: headers, properties: MessageProperties(routingKey: queue, deliveryTag: id), body: body)
        change(&message)
        return message
    }

    @discardableResult
    func publish(_ messages: Message...) async throws -> [PublishResult] { try await backend.publish(messages) }

    func join(
        _ worker: WorkerID, names: [String] = ["job"], queues: [String] = ["default"], lease: Duration = .seconds(10),
        sink: (any SessionSink)? = nil
    ) async throws {
        let presence = WorkerPresence(
            id: worker, name: "worker \(worker)", queues: queues, jobNames: names, startedAt: now)
        // By the real clock no check waits for a lease to pass, and a busy machine must not make one do.
        let lease = testClock == nil ? max(lease, .seconds(300)) : lease
        try expect(try await sessions.join(presence, lease: lease, sink: sink), "a new worker gets a lease")
    }

    func renews(_ worker: WorkerID, lease: Duration = .seconds(10)) async throws -> Bool {
        let presence = WorkerPresence(
            id: worker, name: worker, queues: ["default"], jobNames: ["job"], startedAt: now)
        return try await sessions.join(presence, lease: lease)
    }

    func claim(
        _ worker: WorkerID, _ limit: Int = 10, names: [String] = ["job"], queue: String = "default"
    ) async throws -> [Delivery] {
        try await turn(worker, limit: limit, names: names, queue: queue).deliveries
    }

    func turn(
        _ worker: WorkerID, limit: Int = 10, names: [String] = ["job"], queue: String = "default"
    ) async throws -> TurnResult {
        try await sessions.turn(
            worker,
            WorkerTurn(
                claims: [Claim(queue: queue, kind: "async", jobNames: names)],
                budget: ClaimBudget(kinds: ["async": limit]))
        )
    }

    @discardableResult
    func settle(_ worker: WorkerID, _ delivery: Delivery, _ outcome: Outcome) async throws -> TurnResult {
        try await settle(worker, settlement(delivery, outcome))
    }

    /// A settlement as workers make them.
    func settlement(_ delivery: Delivery, _ outcome: Outcome) -> Settlement {
        var settlement = Settlement(
            jobID: delivery.jobID, token: delivery.token, outcome: outcome, startedAt: now, finishedAt: now)
        let message: Message? =
            switch delivery.payload {
            case .message(let message): message
            case .envelope(let bytes): try? Message(envelope: bytes)
            }
        settlement.facts = message.map { SettlementFacts($0, of: delivery, worker: "worker w") }
        return settlement
    }

    func settle(_ worker: WorkerID, _ settlement: Settlement) async throws -> TurnResult {
        let encoded = testClock == nil ? sessions.encode(settlement, of: worker) : settlement
        return try await sessions.turn(worker, WorkerTurn(settlements: [encoded]))
    }

    /// The time so many seconds from now.
    func after(_ seconds: Int64) -> JobDate {
        JobDate(microsecondsSinceEpoch: now.microsecondsSinceEpoch + seconds * 1_000_000)
    }

    func record(_ id: JobID) async throws -> JobRecord {
        guard let record = try await backend.record(of: id) else {
            throw ContractViolation(description: "\(id) has no record")
        }
        return record
    }

    func state(_ id: JobID) async throws -> JobState { try await record(id).state }
}
