import Foundation
import Hoist
import HoistSQLite
import HoistTesting
import Logging
import Synchronization
import Testing

/// Brokers with their results in SQLite.
@Suite("A broker with another result store", .serialized, .timeLimit(.minutes(2)))
struct JoinedBackendTests {
    private struct Double: Job {
        static let name = "double"
        var number: Int
        typealias Output = Int
    }

    private struct Fail: Job {
        static let name = "fail"
        static let options = JobOptions(retry: .fixed(.milliseconds(1), maxAttempts: 3))
        var reason: String
    }

    private let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

    private func store(_ folder: TemporaryFolder, clock: any JobClock = SystemJobClock()) throws -> SQLiteBackend {
        try SQLiteBackend(path: folder.path("results.db"), configuration: .init(clock: clock))
    }

    @Test("the contract holds for the broker in memory", arguments: BackendContract.checks)
    func memory(_ check: BackendContract.Check) async throws {
        let folder = try TemporaryFolder()
        try await check.run { clock in Backend(MemoryBackend(clock: clock), results: try store(folder, clock: clock)) }
    }

    @Test(
        "the contract holds for a broker that pushes, as far as it declares abilities",
        arguments: BackendContract.checks + BackendContract.realChecks)
    func push(_ check: BackendContract.Check) async throws {
        let folder = try TemporaryFolder()
        try await check.run { clock in Backend(PushBroker(clock: clock), results: try store(folder, clock: clock)) }
    }

    @Test("a broker that pushes passes a part of the contract, and is skipped for the rest with a reason")
    func skipped() async throws {
        var (passed, reasons): (Int, Set<String>) = (0, [])
        for check in BackendContract.realChecks {
            let folder = try TemporaryFolder()
            let reason = try await check.run { clock in
                Backend(PushBroker(clock: clock), results: try store(folder, clock: clock))
            }
            if let reason { reasons.insert(reason) } else { passed += 1 }
        }
        #expect(passed >= 8, "\(passed) checks: \(reasons)")
        #expect(reasons.contains { $0.contains("unique keys") } && reasons.contains { $0.contains("directory") })
    }

    @Test("a worker runs on pushed deliveries, and outputs, failures and retries are in the store")
    func worker() async throws {
        let folder = try TemporaryFolder()
        let broker = PushBroker()
        let backend = Backend(broker, results: try store(folder))
        let client = JobClient(backend, logger: silent)
        let worker = Worker(backend, lanes: [.async(4)], logger: silent) {
            Handler(Double.self) { job, _ in job.number * 2 }
            Handler(Fail.self) { job, _ in throw JobFailure(kind: .raised, type: "Oops", message: job.reason) }
        }
        try await withWorker(worker) {
            let handles = try await client.enqueue(contentsOf: (0..<200).map(Double.init))
            for (number, handle) in handles.enumerated() {
                #expect(try await handle.output(timeout: .seconds(20)) == number * 2)
            }
            let failed = try await client.enqueue(Fail(reason: "no"))
            let error = await #expect(throws: JobError.self) { try await failed.output(timeout: .seconds(20)) }
            #expect(error?.failure?.message == "no")
            #expect(try await eventually { broker.counts == (0, 0) })
        }
    }

    @Test("a message whose name nobody knows is a failure, for a broker that pushes cannot leave it in its queue")
    func unknownName() async throws {
        let folder = try TemporaryFolder()
        let broker = PushBroker()
        let backend = Backend(broker, results: try store(folder))
        let client = JobClient(backend, logger: silent)
        let worker = Worker(backend, logger: silent) { Handler(Double.self) { job, _ in job.number } }
        try await withWorker(worker) {
            let handle = try await client.enqueue(named: "stranger")
            let error = await #expect(throws: JobError.self) { try await handle.output(timeout: .seconds(20)) }
            #expect(error?.failure?.type == "NotRegistered")
            #expect(try await client.enqueue(Double(number: 1)).output(timeout: .seconds(20)) == 1)
        }
        #expect(broker.counts == (0, 0))
    }

    @Test("lost connections give everything back, and each job still ends once in the store")
    func connections() async throws {
        let folder = try TemporaryFolder()
        let broker = PushBroker()
        let backend = Backend(broker, results: try store(folder))
        let client = JobClient(backend, logger: silent)
        var configuration = Worker.Configuration()
        configuration.lease = .seconds(1)
        let runs = Atomic(0)
        let worker = Worker(backend, lanes: [.async(8)], configuration: configuration, logger: silent) {
            Handler(Double.self) { job, _ in
                runs.add(1, ordering: .relaxed)
                try await Task.sleep(for: .milliseconds(20))
                return job.number * 2
            }
        }
        try await withWorker(worker) {
            let handles = try await client.enqueue(contentsOf: (0..<60).map(Double.init))
            for _ in 0..<3 {
                let before = runs.load(ordering: .relaxed)
                _ = try await eventually { runs.load(ordering: .relaxed) > before }
                broker.loseConnections()
            }
            for (number, handle) in handles.enumerated() {
                #expect(try await handle.output(timeout: .seconds(30)) == number * 2)
            }
        }
    }

    @Test("an option that the broker cannot keep is refused by its name, and nothing is enqueued")
    func refusals() async throws {
        let folder = try TemporaryFolder()
        let broker = PushBroker()
        let client = JobClient(Backend(broker, results: try store(folder)), logger: silent)
        for (option, word) in [(EnqueueOption.unique(UniqueKey("k")), "unique"), (.after(.seconds(1)), "after")] {
            let error = await #expect(throws: BackendError.self) { try await client.enqueue(Double(number: 1), option) }
            #expect(error?.code == .misuse && error?.message.contains(word) == true, "\(String(describing: error))")
        }
        #expect(broker.counts == (0, 0))
    }

    @Test(
        "a crash at each of the points between storing and acknowledging repeats, and loses nothing",
        arguments: ["store", "publish", "acknowledge"], [false, true])
    func crashes(_ point: String, _ hasHappened: Bool) async throws {
        let folder = try TemporaryFolder()
        let broker = MemoryBackend()
        let crash = Crash(at: point, afterwards: hasHappened)
        var parts = broker.backend
        parts.broker = CrashingBroker(base: broker, crash: crash)
        var results = try store(folder).backend
        results.results = CrashingStore(base: results.results, crash: crash)
        let backend = Backend(parts, results: results)
        let sessions = WorkerSessions(backend.broker)

        var headers = MessageHeaders(task: "job", id: "a")
        headers.rootID = "a"
        let message = Message(
            headers: headers, properties: MessageProperties(routingKey: "default", deliveryTag: "t"),
            body: MessageBody(arguments: Arguments()).encoded())
        _ = try await broker.publish([message])
        // Each round is an incarnation that crashes where it is told to, until one does not.
        for round in 0..<3 {
            let worker = "w\(round)"
            let presence = WorkerPresence(
                id: worker, name: worker, queues: ["default"], jobNames: ["job"], startedAt: Date())
            _ = try await sessions.join(presence)
            let turn = WorkerTurn(
                claims: [Claim(queue: "default", kind: "async", jobNames: ["job"])],
                budget: ClaimBudget(kinds: ["async": 1]))
            guard let delivery = try await sessions.turn(worker, turn).deliveries.first else { break }
            if delivery.jobID == "b" { break }
            var settlement = Settlement(
                jobID: "a", token: delivery.token, outcome: .succeeded(output: Array("7".utf8), retention: nil),
                startedAt: Date(), finishedAt: Date(), facts: SettlementFacts(message, of: delivery, worker: worker))
            var next = message
            (next.headers.id, next.headers.parentID) = ("b", "a")
            var followUps = FollowUps()
            followUps.messages = [next]
            settlement.followUps = followUps
            _ = try? await sessions.turn(worker, WorkerTurn(settlements: [settlement]))
            // Its jobs go back, as when the lease of a dead worker passes.
            try await sessions.leave(worker)
        }
        #expect(crash.hasStruck)
        #expect(try await backend.record(of: "a")?.output == 7, "the result is there")
        let next = try #require(try await backend.record(of: "b"))
        #expect(next.state == .waiting || next.state == .running, "and what follows: \(next.state)")
        #expect(try await broker.record(of: "a") == nil, "and nothing is left of the job at the broker")
    }
}

/// Strikes once, at one of the points.
private final class Crash: Sendable {
    private let state: Mutex<(point: String?, hasStruck: Bool)>
    private let afterwards: Bool
    var hasStruck: Bool { state.withLock { $0.hasStruck } }

    init(at point: String, afterwards: Bool) {
        state = Mutex((point, false))
        self.afterwards = afterwards
    }

    func pass<T>(_ point: String, _ body: () async throws -> T) async throws -> T {
        let strikes = state.withLock { state in
            guard state.point == point else { return false }
            state = (nil, true)
            return true
        }
        guard strikes else { return try await body() }
        if afterwards { _ = try await body() }
        throw BackendError(.unavailable, "the process is gone", isRetrySafe: false)
    }
}

private struct CrashingStore: ResultStore {
    let base: any ResultStore
    let crash: Crash

    func store(_ results: [ResultWrite]) async throws {
        try await crash.pass("store") { try await base.store(results) }
    }
    func record(of id: JobID) async throws -> JobRecord? { try await base.record(of: id) }
    func updates(of id: JobID) -> JobUpdates { base.updates(of: id) }
    func log(of id: JobID) async throws -> JobLog? { try await base.log(of: id) }
    func forget(_ id: JobID) async throws -> Bool { try await base.forget(id) }
}

private struct CrashingBroker: Broker {
    let base: any Broker
    let crash: Crash

    var clock: any JobClock { base.clock }
    var abilities: BrokerAbilities { base.abilities }
    var workDoorbell: Doorbell { base.workDoorbell }

    func publish(_ messages: [Message]) async throws -> [PublishResult] {
        try await crash.pass("publish") { try await base.publish(messages) }
    }

    func cancel(_ id: JobID) async throws -> CancelResult { try await base.cancel(id) }

    func open(_ worker: WorkerPresence, lease: Duration, sink: any SessionSink) async throws -> any WorkerSession {
        CrashingSession(base: try await base.open(worker, lease: lease, sink: sink), crash: crash)
    }
}

private struct CrashingSession: WorkerSession {
    let base: any WorkerSession
    let crash: Crash

    func turn(_ turn: WorkerTurn) async throws -> TurnResult {
        guard !turn.settlements.isEmpty else { return try await base.turn(turn) }
        return try await crash.pass("acknowledge") { try await base.turn(turn) }
    }

    func renew(_ worker: WorkerPresence) async throws -> Bool { try await base.renew(worker) }
    func close() async throws { try await base.close() }
}
