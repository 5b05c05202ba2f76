import Synchronization

extension Backend {
    /// A broker with another result store.
    ///
    /// What became of a job is stored first, then what follows from it is published, and then the delivery is
    /// acknowledged: a crash in between repeats the job and loses nothing. Where broker and store are one, this is one
    /// step.
    /// - Parameters:
    ///   - broker: holds the queues. Its other parts are kept.
    ///   - results: keeps states and outputs.
    ///   - maximumLostWorkers: for a broker that keeps no leases: a job becomes a dead letter when so many workers have
    ///     died with it. A worker that lives and loses its connection counts as well, which is why this is more than
    ///     elsewhere: 5 by default.
    public init(
        _ broker: some BackendConvertible, results: some BackendConvertible, maximumLostWorkers: Int = 5
    ) {
        var joined = broker.backend
        let store = results.backend.results
        joined.results = JoinedResults(
            store: store, local: joined.results, knowsWaiting: joined.broker.abilities.contains(.storesResults))
        // Members of groups are counted where outputs are kept.
        let groups = results.backend.groups
        let workflows = results.backend.workflows
        joined.broker = JoinedBroker(
            base: joined.broker, store: store, groups: groups, workflows: workflows,
            maximumLostWorkers: max(1, maximumLostWorkers))
        (joined.groups, joined.workflows) = (groups, workflows)
        self = joined
    }
}

/// A broker whose deliveries are settled in another store.
struct JoinedBroker: Broker {
    let base: any Broker
    let store: any ResultStore
    let groups: (any GroupCounting)?
    let workflows: (any WorkflowKeeping)?
    let maximumLostWorkers: Int

    var clock: any JobClock { base.clock }
    /// A late finish is refused by the broker, and its output is in the store all the same.
    var abilities: BrokerAbilities { base.abilities.subtracting([.storesResults, .fencing]) }
    var workDoorbell: Doorbell { base.workDoorbell }
    var threads: WorkerThreads? { base.threads }
    var address: BrokerAddress { base.address }

    func publish(_ messages: [Message]) async throws -> [PublishResult] { try await base.publish(messages) }

    func publish(_ messages: [Message], within limit: Duration) async throws -> [PublishResult] {
        try await base.publish(messages, within: limit)
    }

    func publish(followUps messages: [Message]) async throws { try await base.publish(followUps: messages) }

    func cancel(_ id: JobID) async throws -> CancelResult {
        let result = try await base.cancel(id)
        guard result == .cancelled else { return result }
        let record = JobRecord(id: id, name: "", queue: "", state: .cancelled, endedAt: clock.now)
        try await store.store([ResultWrite(record, kept: .standard)])
        return result
    }

    func open(_ worker: WorkerPresence, lease: Duration, sink: any SessionSink) async throws -> any WorkerSession {
        // A broker with leases knows by itself what became of a delivery that it hands out again.
        guard !base.abilities.contains(.leases) else {
            return Settler(
                session: try await base.open(worker, lease: lease, sink: sink), broker: base, store: store,
                continuing: continuing, worker: worker.name, repeats: nil)
        }
        let repeats = RepeatGuard(base, store, continuing, telling: sink, maximum: maximumLostWorkers)
        let sorting = RepeatSink(
            base: sink, repeats: repeats, store: store, clock: clock, threads: base.threads?.tasks)
        let session = try await base.open(worker, lease: lease, sink: sorting)
        repeats.use(session)
        return Settler(
            session: session, broker: base, store: store, continuing: continuing, worker: worker.name,
            repeats: repeats)
    }

    private var continuing: JoinedContinuing { JoinedContinuing(groups: groups, workflows: workflows, clock: clock) }
}

/// Counts members of groups, and continues workflows, where results are kept.
struct JoinedContinuing: Sendable {
    let groups: (any GroupCounting)?
    let workflows: (any WorkflowKeeping)?
    let clock: any JobClock

    /// What follows from the end of a job, with all that its members and steps start.
    /// - Throws: ``BackendError``; concluding again is safe.
    func conclude(_ followUps: FollowUps?) async throws -> FollowUps? {
        guard var followUps, followUps.needsConclusion else { return followUps }
        guard let groups else {
            // Without a store that counts, what is counted for can never be complete.
            (followUps.openings, followUps.arrivals, followUps.steps) = ([], [], [])
            return followUps
        }
        try await followUps.conclude(
            now: clock.now, plan: { try await workflows?.workflow($0) }, open: { try await groups.open([$0]) },
            count: { try await groups.count($0) })
        return followUps
    }

    /// Notes what is over once the messages are published.
    /// - Throws: ``BackendError``; noting it again is safe.
    func close(_ followUps: FollowUps?) async throws {
        guard let followUps else { return }
        if !followUps.closings.isEmpty { try await groups?.close(followUps.closings) }
        for end in followUps.workflowEnds { try await workflows?.end(end) }
    }
}

/// Settles in two places, in the order that repeats and never loses: store, publish what follows, acknowledge.
struct Settler: WorkerSession {
    let session: any WorkerSession
    let broker: any Broker
    let store: any ResultStore
    let continuing: JoinedContinuing
    let worker: String
    /// Nil for a broker that needs none.
    let repeats: RepeatGuard?
    /// Deliveries whose follow-ups are published, while it is not known whether they are acknowledged: a turn that fails
    /// is sent again.
    private let continued = Continued()

    private final class Continued: Sendable {
        let tokens = Mutex<Set<Int64>>([])
    }

    init(
        session: any WorkerSession, broker: any Broker, store: any ResultStore, continuing: JoinedContinuing,
        worker: String, repeats: RepeatGuard?
    ) {
        self.continuing = continuing
        self.session = session
        self.broker = broker
        self.store = store
        self.worker = worker
        self.repeats = repeats
    }

    func renew(_ worker: WorkerPresence) async throws -> Bool {
        let isAlive = try await session.renew(worker)
        if !isAlive { repeats?.close() }
        return isAlive
    }

    func close() async throws {
        repeats?.close()
        try await session.close()
    }

    func turn(_ turn: WorkerTurn) async throws -> TurnResult {
        var turn = turn
        var writes: [ResultWrite] = []
        var messages: [Message] = []
        var (followed, concluded): ([Int64], [FollowUps]) = ([], [])
        for index in turn.settlements.indices {
            let settlement = turn.settlements[index]
            let transition = Transition(settlement, of: facts(settlement))
            // Only the broker knows whether a cancellation was asked for: what gives way to one it keeps itself.
            if case .end = transition.move, transition.yieldsToCancellation, knowsCancellations { continue }
            if var write = write(settlement, transition) {
                write.log = settlement.log
                writes.append(write)
            }
            var followUps = try await continuing.conclude(transition.followUps)
            var own = FollowUps()
            if let replacing = followUps, replacing.replacesJob {
                // What has the id of the job takes its place in the step that ends the job.
                own.messages = replacing.messages.filter { $0.id == settlement.jobID }
                own.replacesJob = true
                followUps?.messages.removeAll { $0.id == settlement.jobID }
            }
            if let followUps { concluded.append(followUps) }
            writes += followUps?.ends ?? []
            if let following = followUps?.messages, !following.isEmpty {
                followed.append(settlement.token)
                let isPublished = continued.tokens.withLock { $0.contains(settlement.token) }
                if !isPublished { messages += following }
            }
            // What goes back may end after all, by a cancellation that only the broker knows of.
            guard case .end = transition.move else { continue }
            turn.settlements[index].storesResult = false
            // None, which is not the same as unknown: the broker must not make them again from the message.
            turn.settlements[index].followUps = own
        }
        for report in turn.progress {
            guard var record = report.facts.map({ Self.record(report.jobID, $0, .running) }) else { continue }
            record.progress = report.progress
            writes.append(ResultWrite(record, kept: .standard))
        }
        for report in turn.logs {
            let record = report.facts.map { Self.record(report.jobID, $0, .running) }
            let unknown = JobRecord(id: report.jobID, name: "", queue: "", state: .running)
            writes.insert(ResultWrite(record ?? unknown, kept: .standard, log: report.log), at: 0)
        }
        if !writes.isEmpty { try await store.store(writes) }
        if !messages.isEmpty { try await broker.publish(followUps: messages) }
        if !followed.isEmpty { continued.tokens.withLock { $0.formUnion(followed) } }
        for followUps in concluded { try await continuing.close(followUps) }
        var result = try await session.turn(turn)
        if let repeats { result.deliveries = try await repeats.sort(result.deliveries) }
        if !followed.isEmpty { continued.tokens.withLock { $0.subtract(followed) } }
        guard let repeats else { return result }
        if result.hasMore, result.deliveries.isEmpty { await repeats.waitForArrivals() }
        return result
    }

    /// Whether the broker tells of cancellations, and keeps the end of a job that gives way to one.
    private var knowsCancellations: Bool { broker.abilities.contains(.cancellation) }

    private func facts(_ settlement: Settlement) -> DeliveryFacts {
        DeliveryFacts(
            attempt: settlement.facts?.attempt ?? 1, worker: settlement.facts?.worker ?? worker,
            lostWorkers: settlement.facts?.lostWorkers ?? 0,
            isAtMostOnce: settlement.facts?.headers.hoist.isAtMostOnce ?? false)
    }

    /// What the store is told; nil for a job that goes back as if it had never been claimed.
    private func write(_ settlement: Settlement, _ transition: Transition) -> ResultWrite? {
        guard transition.attempt != nil || transition.output != nil || transition.failure != nil else { return nil }
        var record =
            settlement.facts.map { Self.record(settlement.jobID, $0, transition.state(at: settlement.finishedAt)) }
            ?? JobRecord(
                id: settlement.jobID, name: "(unreadable)", queue: "",
                state: transition.state(at: settlement.finishedAt))
        record.startedAt = settlement.startedAt
        record.usage = settlement.usage
        record.failure = transition.failure
        if transition.countsDeath { record.lostWorkers += 1 }
        if let attempt = transition.attempt { record.history = [attempt] }
        if let output = transition.output { record.output = (try? JSONParser.parse(output)) ?? .null }
        switch transition.move {
        case .end(_, let date, let kept):
            record.endedAt = date
            // What the job reported while it ran is removed with an ignored result.
            let isIgnored = settlement.facts?.ignoresResult == true && transition.output != nil
            return ResultWrite(record, kept: isIgnored ? .nothing : kept == .standard ? asked(settlement) : kept)
        case .back(_, let due, _):
            record.dueAt = due
            return ResultWrite(record, kept: .standard)
        }
    }

    private func asked(_ settlement: Settlement) -> Transition.Retention {
        settlement.facts?.headers.hoist.resultRetention.map { .seconds($0) } ?? .standard
    }

    static func record(_ id: JobID, _ facts: SettlementFacts, _ state: JobState) -> JobRecord {
        var record = JobRecord(
            id: id, name: facts.name, queue: facts.queue, state: state, priority: facts.properties.priority ?? 0,
            attempts: facts.attempt, lostWorkers: facts.lostWorkers, enqueuedAt: facts.headers.hoist.enqueuedAt,
            worker: facts.worker)
        record.describe(facts.headers)
        return record
    }
}

/// The results of a store, and what the broker itself tells of jobs that the store knows nothing final of.
struct JoinedResults: ResultStore {
    let store: any ResultStore
    /// What the broker knows of the jobs that it holds.
    let local: any ResultStore
    /// Whether the broker knows of the jobs that wait.
    let knowsWaiting: Bool

    func store(_ results: [ResultWrite]) async throws { try await store.store(results) }

    func record(of id: JobID) async throws -> JobRecord? {
        let stored = try await store.record(of: id)
        if let stored, stored.state.hasEnded { return stored }
        guard var held = try await local.record(of: id) else {
            // It may have been settled between the two looks.
            return try await store.record(of: id)
        }
        // What a running job reports is in the store, and where it runs is at the broker.
        held.progress = held.progress ?? stored?.progress
        if held.history.isEmpty { held.history = stored?.history ?? [] }
        held.failure = held.failure ?? stored?.failure
        held.revision = held.revision &* 1_000_003 &+ (stored?.revision ?? 0)
        return held
    }

    func updates(of id: JobID) -> JobUpdates {
        // The store rings when the job ends; the waits in between bring what only the broker knows.
        store.updates(of: id).reading { try await record(of: id) }
    }

    func recordAtEnd(of id: JobID, isNew: Bool, patience: Duration) async throws -> JobRecord? {
        // A published job that waits has no record at such a broker: it is waited for as long as the caller does.
        let known: Duration = knowsWaiting ? .zero : .seconds(365 * 86_400)
        return try await updates(of: id).patient(isNew ? known : patience).lastIfEnded
    }

    func log(of id: JobID) async throws -> JobLog? {
        if let log = try await store.log(of: id) { return log }
        return try await local.log(of: id)
    }

    func forget(_ id: JobID) async throws -> Bool {
        let wasStored = try await store.forget(id)
        let wasHeld = try await local.forget(id)
        return wasStored || wasHeld
    }
}
