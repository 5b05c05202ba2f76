import Hoist
import HoistTesting
import Logging
import Synchronization
import Testing

/// A broker without leases, joined with a store: what becomes of a delivery that is handed out a second time.
@Suite("Deliveries that come again", .timeLimit(.minutes(2)))
struct RepeatTests {
    private let broker = PushBroker()
    private let store = MemoryBackend()

    private func message(_ id: JobID, embed: WireValue = [:], isAtMostOnce: Bool = false) -> Message {
        var headers = MessageHeaders(task: "job", id: id)
        headers.hoist.isAtMostOnce = isAtMostOnce
        return Message(
            headers: headers, properties: MessageProperties(routingKey: "default", deliveryTag: id),
            body: MessageBody(arguments: Arguments(), embed: embed).encoded())
    }

    private final class Sink: SessionSink {
        let notices = Mutex<[JobNotice]>([])
        let arrivals = Mutex<[Delivery]>([])

        func arrived(_ result: TurnResult) { arrivals.withLock { $0 += result.deliveries } }
        func arrivalWasLost(_ error: any Error) {}
        func mayHaveWork() {}
        func noticed(_ notices: [JobNotice]) { self.notices.withLock { $0 += notices } }
    }

    private func presence(_ worker: WorkerID) throws -> WorkerPresence {
        try WireDecoder.decode(
            WorkerPresence.self,
            from: [
                "id": .string(worker), "name": .string(worker), "queues": ["default"], "job_names": ["job"],
                "started_at": 0, "running": 0, "concurrency": 1, "is_draining": false,
            ])
    }

    /// Joins as a new worker and takes what there is.
    private func claim(_ worker: WorkerID, _ backend: Backend, sink: any SessionSink = Sink()) async throws
        -> [Delivery]
    {
        let sessions = WorkerSessions(backend.broker)
        _ = try await sessions.join(try presence(worker), sink: sink)
        let turn = WorkerTurn(
            claims: [Claim(queue: "default", kind: "async", jobNames: ["job"])],
            budget: ClaimBudget(kinds: ["async": 10]))
        return try await sessions.turn(worker, turn).deliveries
    }

    @Test("a job that has ended is not run again, and what follows from its end is published")
    func ended() async throws {
        let backend = Backend(broker, results: store)
        let next: WireValue = [
            "task": "job", "args": [], "kwargs": [:], "options": ["task_id": "next", "queue": "default"],
            "subtask_type": nil, "immutable": false,
        ]
        _ = try await backend.publish([message("first", embed: ["callbacks": [next]])])
        #expect(try await claim("one", backend).map(\.jobID) == ["first"])
        var record = JobRecord(id: "first", name: "job", queue: "default", state: .succeeded, endedAt: store.clock.now)
        record.output = 42
        try await store.store([ResultWrite(record, kept: .standard)])
        broker.loseConnections()
        // The worker that gets it has nothing to run of it, but the job behind it.
        let sink = Sink()
        let first = try await claim("two", backend, sink: sink)
        #expect(first.isEmpty)
        let after = try await claim("three", backend)
        #expect(after.map(\.jobID) == ["next"])
        #expect(try after.first?.message?.decodedBody().arguments.positional == [42])
        #expect(broker.counts == (0, 1))
    }

    @Test(
        "a job that failed, was cancelled or has expired is not run again either",
        arguments: [
            JobState.failed, .cancelled, .expired,
        ])
    func endedOtherwise(_ state: JobState) async throws {
        let backend = Backend(broker, results: store)
        _ = try await backend.publish([message("a")])
        _ = try await claim("one", backend)
        var record = JobRecord(id: "a", name: "job", queue: "default", state: state, endedAt: store.clock.now)
        if state == .failed { record.failure = JobFailure(kind: .raised, type: "E", message: "no") }
        try await store.store([ResultWrite(record, kept: .standard)])
        broker.loseConnections()
        #expect(try await claim("two", backend).isEmpty)
        #expect(broker.counts == (0, 0))
        #expect(try await store.record(of: "a")?.state == state)
    }

    @Test("a job that has not ended counts its lost workers, and is given up in the end")
    func counted() async throws {
        let backend = Backend(broker, results: store, maximumLostWorkers: 3)
        _ = try await backend.publish([message("a")])
        for lost in 0..<3 {
            let deliveries = try await claim("worker \(lost)", backend)
            #expect(deliveries.map(\.lostWorkers) == [lost])
            broker.loseConnections()
        }
        let sink = Sink()
        #expect(try await claim("last", backend, sink: sink).isEmpty)
        let record = try #require(try await store.record(of: "a"))
        #expect(record.state == .failed && record.lostWorkers == 3 && record.failure?.kind == .workerLost)
        #expect(record.history.map(\.outcome) == ["worker lost", "worker lost", "worker lost"])
        #expect(broker.counts == (0, 0))
    }

    @Test("the end of a life before a requeue says nothing")
    func anotherLife() async throws {
        let backend = Backend(broker, results: store)
        var record = JobRecord(id: "a", name: "job", queue: "default", state: .failed, endedAt: store.clock.now)
        record.failure = JobFailure(kind: .raised, type: "E", message: "no")
        try await store.store([ResultWrite(record, kept: .standard)])
        var requeued = message("a")
        requeued.noteAnotherLife(at: store.clock.now)
        _ = try await backend.publish([requeued])
        #expect(try await claim("one", backend).map(\.jobID) == ["a"])
        broker.loseConnections()
        #expect(try await claim("two", backend).map(\.jobID) == ["a"])
    }

    @Test("a job that may begin only once is given up at once")
    func atMostOnce() async throws {
        let backend = Backend(broker, results: store)
        _ = try await backend.publish([message("a", isAtMostOnce: true)])
        _ = try await claim("one", backend)
        broker.loseConnections()
        #expect(try await claim("two", backend).isEmpty)
        #expect(try await store.record(of: "a")?.failure?.kind == .workerLost)
    }

    @Test("while the store is away a repeat waits for it, and then runs")
    func storeAway() async throws {
        let away = Atomic(true)
        var results = store.backend
        results.results = Away(base: store, isAway: { away.load(ordering: .relaxed) })
        let backend = Backend(broker, results: results)
        _ = try await backend.publish([message("a")])
        _ = try await claim("one", backend)
        broker.loseConnections()
        // A turn fails, and says that it may be sent again.
        let error = await #expect(throws: BackendError.self) { try await claim("two", backend) }
        #expect(error?.code == .unavailable)
        broker.loseConnections()
        // What arrives by itself waits for the store.
        let sink = Sink()
        let sessions = WorkerSessions(backend.broker)
        _ = try await sessions.join(try presence("three"), sink: sink)
        var turn = WorkerTurn(
            claims: [Claim(queue: "default", kind: "async", jobNames: ["job"])],
            budget: ClaimBudget(kinds: ["async": 10]))
        turn.creditLasts = true
        _ = try? await sessions.turn("three", turn)
        broker.loseConnections()
        _ = try await sessions.join(try presence("four"), sink: sink)
        away.store(false, ordering: .relaxed)
        let deliveries = try await sessions.turn("four", turn).deliveries
        #expect(deliveries.map(\.jobID) == ["a"])
    }

    /// A store that cannot be reached for a while.
    private struct Away: ResultStore {
        let base: any ResultStore
        let isAway: @Sendable () -> Bool

        private func check() throws { if isAway() { throw BackendError(.unavailable, "away") } }

        func store(_ results: [ResultWrite]) async throws {
            try check()
            try await base.store(results)
        }

        func record(of id: JobID) async throws -> JobRecord? {
            try check()
            return try await base.record(of: id)
        }

        func updates(of id: JobID) -> JobUpdates { base.updates(of: id) }
        func log(of id: JobID) async throws -> JobLog? { try await base.log(of: id) }
        func forget(_ id: JobID) async throws -> Bool { try await base.forget(id) }
    }
}
