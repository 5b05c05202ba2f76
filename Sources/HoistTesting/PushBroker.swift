public import Hoist
import Synchronization

/// A small broker that pushes, in the memory of one process: as AMQP's brokers do it, and no more than they can.
///
/// It keeps the seams of the core honest: credit is a number of deliveries at once, messages are pushed whatever their
/// name, a delivery is a tag of one channel and dies with it, and there is no result store. Join it with one:
/// ```swift
/// let backend = Backend(PushBroker(), results: MemoryBackend())
/// ```
public final class PushBroker: Broker, BackendConvertible {
    private struct Waiting {
        var message: Message
        var isRedelivered = false
    }

    private struct Channel {
        var queues: [String]
        var sink: any SessionSink
        /// How many deliveries may be unacknowledged at once.
        var prefetch = 0
        var unacknowledged: [Int64: Waiting] = [:]
        var arrivals = 0
    }

    private struct State {
        var queues: [String: [Waiting]] = [:]
        var channels: [WorkerID: Channel] = [:]
        var nextTag: Int64 = 0
    }

    public let clock: any JobClock
    public let workDoorbell = Doorbell()
    public let abilities: BrokerAbilities = [.lastingCredit]
    private let state = Mutex(State())

    public init(clock: any JobClock = SystemJobClock()) { self.clock = clock }

    /// The broker has no store: its jobs have no records until it is joined with one.
    public var backend: Backend { Backend(broker: self, results: MemoryBackend(clock: clock)) }

    /// How many messages wait, and how many are with workers.
    public var counts: (waiting: Int, unacknowledged: Int) {
        state.withLock { state in
            (
                state.queues.values.reduce(0) { $0 + $1.count },
                state.channels.values.reduce(0) { $0 + $1.unacknowledged.count }
            )
        }
    }

    public func publish(_ messages: [Message]) async throws -> [PublishResult] {
        state.withLock { state in
            for message in messages {
                var waiting = state.queues[message.queue] ?? []
                let urgency = message.properties.priority ?? 0
                let place = waiting.firstIndex { $0.message.properties.priority ?? 0 < urgency } ?? waiting.count
                waiting.insert(Waiting(message: message), at: place)
                state.queues[message.queue] = waiting
            }
        }
        push()
        workDoorbell.ring()
        return messages.map { _ in .enqueued }
    }

    /// A message cannot be taken out of a queue, and nobody knows which worker has it.
    public func cancel(_ id: JobID) async throws -> CancelResult { .unknown }

    public func open(
        _ worker: WorkerPresence, lease: Duration, sink: any SessionSink
    ) async throws -> any WorkerSession {
        state.withLock { $0.channels[worker.id] = Channel(queues: worker.queues, sink: sink) }
        return PushSession(self, worker.id)
    }

    /// Closes the channel of every worker, as when connections are lost: all that is unacknowledged goes back, and the
    /// tags are worth nothing any more.
    public func loseConnections() {
        let sinks = state.withLock { state in
            let sinks = state.channels.values.map(\.sink)
            for worker in state.channels.keys { Self.close(worker, &state) }
            return sinks
        }
        for sink in sinks { sink.mayHaveWork() }
        push()
    }

    /// - Returns: false when the channel is gone.
    fileprivate func consume(_ queues: [String], by worker: WorkerID) -> Bool {
        let isOpen = state.withLock { state in
            state.channels[worker]?.queues = queues
            return state.channels[worker] != nil
        }
        push()
        return isOpen
    }

    fileprivate func close(_ worker: WorkerID) {
        state.withLock { Self.close(worker, &$0) }
        push()
    }

    private static func close(_ worker: WorkerID, _ state: inout State) {
        guard let channel = state.channels.removeValue(forKey: worker) else { return }
        for waiting in channel.unacknowledged.sorted(by: { $0.key > $1.key }).map(\.value) {
            putBack(waiting, isRedelivered: true, &state)
        }
    }

    /// - Parameter isRedelivered: whether a connection has ended with it, as AMQP's brokers mark it.
    private static func putBack(_ waiting: Waiting, isRedelivered: Bool = false, _ state: inout State) {
        var again = waiting
        again.isRedelivered = isRedelivered
        state.queues[waiting.message.queue, default: []].insert(again, at: 0)
    }

    fileprivate func turn(_ turn: WorkerTurn, of worker: WorkerID) throws -> TurnResult {
        var result = TurnResult()
        try state.withLock { state in
            guard var channel = state.channels[worker] else {
                result.lost = turn.settlements.map(\.jobID) + turn.progress.map(\.jobID)
                return
            }
            // What is on its way to the sink is not known to the worker yet.
            guard turn.holding == nil || channel.arrivals <= turn.arrivalsSeen else {
                throw BackendError(.busy, "a job is on its way to the worker")
            }
            for settlement in turn.settlements {
                guard let waiting = channel.unacknowledged.removeValue(forKey: settlement.token) else {
                    result.lost.append(settlement.jobID)
                    continue
                }
                if let again = Self.returned(waiting, settlement) {
                    state.queues[again.message.queue, default: []].append(again)
                }
                if case .handedBack = settlement.outcome { Self.putBack(waiting, &state) }
                if case .notStarted = settlement.outcome { Self.putBack(waiting, &state) }
            }
            if let holding = turn.holding {
                for (tag, waiting) in channel.unacknowledged.sorted(by: { $0.key > $1.key })
                where !holding.contains(tag) {
                    channel.unacknowledged[tag] = nil
                    Self.putBack(waiting, &state)
                }
            }
            if turn.withdrawsCredit { channel.prefetch = 0 }
            if !turn.claims.isEmpty {
                let unseen = channel.arrivals - turn.arrivalsSeen
                if unseen > 0 {
                    result.hasMore = true
                } else {
                    let room = Set(turn.claims.map(\.kind)).reduce(0) { $0 + max(0, turn.budget.kinds[$1] ?? 0) }
                    channel.prefetch = channel.unacknowledged.count + room
                }
            }
            state.channels[worker] = channel
            // Within the turn, so that a caller without a sink gets what there is.
            if !turn.claims.isEmpty, !result.hasMore { result.deliveries = Self.take(worker, &state) }
            if !turn.creditLasts, !turn.claims.isEmpty { state.channels[worker]?.prefetch = 0 }
            result.hasMore =
                result.hasMore || channel.queues.contains { !(state.queues[$0]?.isEmpty ?? true) } && !turn.creditLasts
        }
        push()
        return result
    }

    /// The next attempt, which is a message of its own.
    private static func returned(_ waiting: Waiting, _ settlement: Settlement) -> Waiting? {
        var again = waiting
        switch settlement.outcome {
        case .retry(_, _, let change):
            change?.apply(&again.message)
            again.message.headers.retries += 1
        case .snoozed, .refused: break
        case .succeeded, .failed, .cancelled, .expired, .handedBack, .notStarted: return nil
        }
        again.isRedelivered = false
        return again
    }

    private static func take(_ worker: WorkerID, _ state: inout State) -> [Delivery] {
        var deliveries: [Delivery] = []
        guard var channel = state.channels[worker] else { return [] }
        for queue in channel.queues {
            while channel.unacknowledged.count < channel.prefetch, var waiting = state.queues[queue],
                !waiting.isEmpty
            {
                var next = waiting.removeFirst()
                next.message.properties.isRedelivered = next.isRedelivered
                state.queues[queue] = waiting
                state.nextTag += 1
                channel.unacknowledged[state.nextTag] = next
                deliveries.append(
                    Delivery(
                        jobID: next.message.id, jobName: next.message.jobName, queue: queue,
                        payload: .message(next.message), attempt: next.message.headers.retries + 1,
                        lostWorkers: 0, token: state.nextTag))
            }
        }
        state.channels[worker] = channel
        return deliveries
    }

    /// Pushes what there is credit for.
    private func push() {
        let pushed = state.withLock { state in
            state.channels.keys.compactMap { worker -> (any SessionSink, [Delivery])? in
                let deliveries = Self.take(worker, &state)
                guard !deliveries.isEmpty, let sink = state.channels[worker]?.sink else { return nil }
                state.channels[worker]?.arrivals += 1
                return (sink, deliveries)
            }
        }
        for (sink, deliveries) in pushed { sink.arrived(TurnResult(deliveries: deliveries)) }
    }
}

/// A channel.
private final class PushSession: WorkerSession {
    private let broker: PushBroker
    private let worker: WorkerID

    init(_ broker: PushBroker, _ worker: WorkerID) { (self.broker, self.worker) = (broker, worker) }

    func turn(_ turn: WorkerTurn) async throws -> TurnResult { try broker.turn(turn, of: worker) }

    /// The connection is the lease.
    func renew(_ presence: WorkerPresence) async throws -> Bool { broker.consume(presence.queues, by: worker) }

    func close() async throws { broker.close(worker) }
}
