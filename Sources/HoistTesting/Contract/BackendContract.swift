public import Hoist

/// What every backend must do, as checks that need no test framework.
///
/// ```swift
/// @Test(arguments: BackendContract.checks)
/// func contract(_ check: BackendContract.Check) async throws {
///     try await check.run { clock in MyBackend(clock: clock) }
/// }
/// ```
public enum BackendContract {
    /// Makes an empty backend that keeps time by `clock`.
    public typealias Factory = @Sendable (_ clock: TestClock) async throws -> any BackendConvertible

    public struct Check: Sendable, CustomStringConvertible {
        /// The behaviour, in words.
        public let description: String
        let body: @Sendable (ContractBench) async throws -> Void

        init(_ description: String, _ body: @escaping @Sendable (ContractBench) async throws -> Void) {
            self.description = description
            self.body = body
        }

        /// - Throws: ``ContractViolation``, or what the backend throws.
        public func run(_ factory: Factory) async throws {
            let clock = TestClock()
            try await body(ContractBench(try await factory(clock), clock: clock))
        }
    }

    public static let checks: [Check] = queueing + leases + outcomes + followUps + timing + uniqueness + administration
}

/// A backend did something else than the contract says.
public struct ContractViolation: Error, CustomStringConvertible {
    public let description: String
}

/// A backend on the bench, with the motions that checks are made of.
struct ContractBench: Sendable {
    let backend: Backend
    let sessions: WorkerSessions
    let clock: TestClock

    init(_ backend: some BackendConvertible, clock: TestClock) {
        self.backend = backend.backend
        sessions = WorkerSessions(self.backend.broker)
        self.clock = clock
    }

    func expect(_ condition: Bool, _ what: @autoclosure () -> String, line: Int = #line) throws {
        guard condition else { throw ContractViolation(description: "line \(line): \(what())") }
    }

    func message(
        _ id: JobID, name: String = "job", queue: String = "default", change: (inout Message) -> Void = { _ in }
    ) -> Message {
        var headers = MessageHeaders(task: name, id: id)
        headers.rootID = id
        headers.hoist.enqueuedAt = clock.now
        let body = MessageBody(arguments: Arguments(keyword: ["n": 1])).encoded()
        var message = Message(
            headers: headers, properties: MessageProperties(routingKey: queue, deliveryTag: id), body: body)
        change(&message)
        return message
    }

    @discardableResult
    func publish(_ messages: Message...) async throws -> [PublishResult] { try await backend.publish(messages) }

    func join(
        _ worker: WorkerID, names: [String] = ["job"], queues: [String] = ["default"], lease: Duration = .seconds(10)
    ) async throws {
        let presence = WorkerPresence(
            id: worker, name: "worker \(worker)", queues: queues, jobNames: names, startedAt: clock.now)
        try expect(try await sessions.join(presence, lease: lease), "a new worker gets a lease")
    }

    func renews(_ worker: WorkerID, lease: Duration = .seconds(10)) async throws -> Bool {
        let presence = WorkerPresence(
            id: worker, name: worker, queues: ["default"], jobNames: ["job"], startedAt: clock.now)
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
        let settlement = Settlement(
            jobID: delivery.jobID, token: delivery.token, outcome: outcome, startedAt: clock.now, finishedAt: clock.now)
        return try await sessions.turn(worker, WorkerTurn(settlements: [settlement]))
    }

    /// The time so many seconds from now.
    func after(_ seconds: Int64) -> JobDate {
        JobDate(microsecondsSinceEpoch: clock.now.microsecondsSinceEpoch + seconds * 1_000_000)
    }

    func record(_ id: JobID) async throws -> JobRecord {
        guard let record = try await backend.record(of: id) else {
            throw ContractViolation(description: "\(id) has no record")
        }
        return record
    }

    func state(_ id: JobID) async throws -> JobState { try await record(id).state }
}
