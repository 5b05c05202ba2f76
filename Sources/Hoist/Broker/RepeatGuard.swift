import Synchronization

/// Looks up deliveries that were handed out before, for a broker that keeps no leases: its deliveries come back when a
/// connection ends, and only the result store knows what became of them.
///
/// A job that has ended is not run again: what follows from its end is published, with the same ids, and the delivery is
/// acknowledged. A job that has not ended has cost a worker, which counts towards giving it up.
final class RepeatGuard: Sendable {
    private let broker: any Broker
    private let store: any ResultStore
    private let continuing: JoinedContinuing
    private let clock: any JobClock
    private let sink: any SessionSink
    private let maximum: Int
    private let session = Mutex<(any WorkerSession)?>(nil)
    private let isClosed = Atomic(false)
    /// Arrivals that wait for the store.
    private let pending = Mutex(0)
    private let bell = Doorbell()

    /// - Parameter maximum: a job that so many workers died with is given up.
    init(
        _ broker: any Broker, _ store: any ResultStore, _ continuing: JoinedContinuing, telling sink: any SessionSink,
        maximum: Int
    ) {
        self.broker = broker
        self.continuing = continuing
        self.sink = sink
        self.store = store
        clock = broker.clock
        self.maximum = maximum
    }

    func use(_ session: any WorkerSession) { self.session.withLock { $0 = session } }

    func close() {
        isClosed.store(true, ordering: .relaxed)
        session.withLock { $0 = nil }
    }

    static func isRepeat(_ delivery: Delivery) -> Bool {
        if case .message(let message) = delivery.payload { message.properties.isRedelivered } else { false }
    }

    /// Looks each delivery up once.
    /// - Returns: the deliveries that are to be run.
    /// - Throws: ``BackendError`` when the store cannot be asked. Some may be settled then.
    func sort(_ deliveries: [Delivery]) async throws -> [Delivery] {
        // All are read before one is counted: a turn that fails is repeated as a whole.
        var records: [JobRecord?] = []
        for delivery in deliveries {
            records.append(Self.isRepeat(delivery) ? try await store.record(of: delivery.jobID) : nil)
        }
        var left: [Delivery] = []
        for (delivery, record) in zip(deliveries, records) {
            guard Self.isRepeat(delivery), case .message(let message) = delivery.payload else {
                left.append(delivery)
                continue
            }
            if let again = try await decide(delivery, message, record) { left.append(again) }
        }
        return left
    }

    /// Looks an arrival up, and waits for the store as long as it takes, or until the session is over.
    func sortArrival(_ deliveries: [Delivery]) async -> [Delivery] {
        pending.withLock { $0 += 1 }
        defer {
            pending.withLock { $0 -= 1 }
            bell.ring()
        }
        var left: [Delivery] = []
        for delivery in deliveries {
            var pause = Duration.milliseconds(50)
            while !isClosed.load(ordering: .relaxed) {
                do {
                    left += try await sort([delivery])
                    break
                } catch {
                    await clock.sleep(for: pause)
                    pause = min(pause * 2, .seconds(2))
                }
            }
        }
        return left
    }

    /// Waits a while for arrivals that wait for the store. The broker gives nothing before the worker has seen them, and
    /// says that there may be more: the worker would ask again and again.
    func waitForArrivals() async {
        let mark = bell.mark
        guard pending.withLock({ $0 }) > 0 else { return }
        await bell.wait(after: mark, for: .seconds(1), clock: clock)
    }

    /// - Returns: the delivery when it is to be run.
    private func decide(
        _ delivery: Delivery, _ message: Message, _ stored: JobRecord?
    ) async throws -> Delivery? {
        // The end of a life before this one says nothing.
        let record = stored.flatMap { message.isAnotherLife(than: $0) ? nil : $0 }
        if let record, record.state.hasEnded {
            try await settle(delivery, message, as: record)
            return nil
        }
        let facts = DeliveryFacts(
            attempt: delivery.attempt, worker: record?.worker,
            // A quorum queue has counted this return already.
            lostWorkers: max(record?.lostWorkers ?? 0, delivery.lostWorkers - 1),
            isAtMostOnce: message.headers.hoist.isAtMostOnce)
        let now = clock.now
        let transition = Transition.workerLost(
            facts, worker: record?.worker ?? "unknown", maximum: maximum, at: now
        ).continued(message)
        var noted = Settler.record(
            delivery.jobID, SettlementFacts(message, of: delivery, worker: record?.worker ?? "unknown"),
            transition.state(at: now))
        noted.lostWorkers = facts.lostWorkers + 1
        noted.history = (record?.history ?? []) + (transition.attempt.map { [$0] } ?? [])
        guard let failure = transition.deadLetter else {
            try await store.store([ResultWrite(noted, kept: .standard)])
            var again = delivery
            again.lostWorkers = noted.lostWorkers
            return again
        }
        (noted.failure, noted.endedAt) = (failure, now)
        try await store.store([ResultWrite(noted, kept: .deadLetter)])
        try await settle(delivery, .failed(failure), transition.followUps)
        sink.noticed([
            JobNotice(
                .gaveUp(delivery, failure), jobID: delivery.jobID, jobName: delivery.jobName, queue: delivery.queue,
                attempt: delivery.attempt)
        ])
        return nil
    }

    /// The end is in the store; what should have come after it may not have.
    private func settle(_ delivery: Delivery, _ message: Message, as record: JobRecord) async throws {
        switch record.state {
        case .failed:
            let failure =
                record.failure
                ?? JobFailure(kind: .raised, type: "Unknown", message: "the failure of the job was not kept")
            try await settle(
                delivery, .failed(failure), FollowUps(of: message, endedAs: .failed, failure, now: clock.now))
        case .cancelled:
            let followUps = FollowUps(of: message, endedAs: .cancelled, nil, now: clock.now)
            try await settle(delivery, .cancelled, followUps)
        case .expired:
            let followUps = FollowUps(of: message, endedAs: .expired, nil, now: clock.now)
            try await settle(delivery, .expired, followUps)
        case .succeeded, .waiting, .scheduled, .retrying, .running:
            let output = record.output ?? .null
            let continuation = (try? message.decodedBody()).flatMap { try? Continuation($0.embed, message.headers) }
            // A step that could not be continued has failed when it ended; it is not in the store as a success.
            let followUps = try? continuation?.afterSuccess(
                output, of: FinishedJob(message.headers), .standard, now: clock.now)
            try await settle(
                delivery, .succeeded(output: JSONWriter.bytes(of: output), retention: nil), followUps)
        }
    }

    private func settle(_ delivery: Delivery, _ outcome: Outcome, _ followUps: FollowUps?) async throws {
        guard let session = session.withLock({ $0 }) else { return }
        let now = clock.now
        var settlement = Settlement(
            jobID: delivery.jobID, token: delivery.token, outcome: outcome, startedAt: now, finishedAt: now)
        // In the order that repeats and never loses.
        let followUps = try await continuing.conclude(followUps)
        if let ends = followUps?.ends, !ends.isEmpty { try await store.store(ends) }
        if let messages = followUps?.messages, !messages.isEmpty { try await broker.publish(followUps: messages) }
        try await continuing.close(followUps)
        (settlement.followUps, settlement.storesResult) = (FollowUps(), false)
        _ = try await session.turn(WorkerTurn(settlements: [settlement]))
    }
}

/// Passes on what the broker tells a worker, after repeats have been looked up.
struct RepeatSink: SessionSink {
    let base: any SessionSink
    let repeats: RepeatGuard
    let store: any ResultStore
    let clock: any JobClock
    let threads: (any TaskExecutor)?

    func arrived(_ result: TurnResult) {
        guard result.deliveries.contains(where: RepeatGuard.isRepeat) else { return base.arrived(result) }
        // The worker counts an arrival when it gets one; until then the broker gives it nothing more.
        runBeside(on: threads) {
            var sorted = result
            sorted.deliveries = await repeats.sortArrival(result.deliveries)
            base.arrived(sorted)
        }
    }

    func arrivalWasLost(_ error: any Error) { base.arrivalWasLost(error) }
    func mayHaveWork() { base.mayHaveWork() }
    func warned(_ text: String) { base.warned(text) }

    /// What the broker has given up by itself has no record yet.
    func noticed(_ notices: [JobNotice]) {
        base.noticed(notices)
        let writes = notices.compactMap { notice -> ResultWrite? in
            guard !notice.jobID.isEmpty else { return nil }
            var record = JobRecord(
                id: notice.jobID, name: notice.jobName, queue: notice.queue, state: .failed, attempts: notice.attempt,
                endedAt: clock.now)
            switch notice.kind {
            case .gaveUp(_, let failure):
                record.failure = failure
                return ResultWrite(record, kept: .deadLetter)
            case .expired:
                record.state = .expired
                return ResultWrite(record, kept: .standard)
            case .cancelled, .tookOver: return nil
            }
        }
        guard !writes.isEmpty else { return }
        runBeside(on: threads) {
            // The store may be away for a moment; somebody waits for the answer.
            for pause in [Duration.milliseconds(100), .seconds(1), .seconds(5), .seconds(30), .seconds(60)] {
                if (try? await store.store(writes)) != nil { return }
                await clock.sleep(for: pause)
            }
        }
    }
}

extension Message {
    private static let lifeHeader = "x-hoist-requeued"

    /// Notes that an ended job was given another life, for a broker whose store does not hear of that.
    package mutating func noteAnotherLife(at now: JobDate) {
        headers.custom[Self.lifeHeader] = .integer(now.microsecondsSinceEpoch)
    }

    /// Whether the job was given another life after it had ended as `record` tells.
    func isAnotherLife(than record: JobRecord) -> Bool {
        guard let begun = headers.custom[Self.lifeHeader]?.integerValue, let ended = record.endedAt else {
            return false
        }
        return ended.microsecondsSinceEpoch <= begun
    }
}
