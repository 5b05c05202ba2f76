import AMQP
import Hoist
import Synchronization

/// A session of a worker on RabbitMQ: a connection, whose end is the end of the lease, and a channel with a consumer for
/// each queue.
final class RabbitMQSession: WorkerSession {
    private struct State {
        var deliveries = HeldDeliveries()
        var queues: [String]
        /// What the channel has been told.
        var prefetch = 0
        var consuming: Set<String> = []
        /// The number of the open channel; nil while there is none.
        var channel: Int?
        /// Whether jobs were lost with a channel, which ends the session.
        var isLost = false
        var isClosed = false
        /// Jobs that are due within a second.
        var timers: [Int64: ScheduledCall] = [:]
        var lastTimer: Int64 = 0
        var running: Task<Void, Never>?
    }

    private let backend: RabbitMQBackend
    private let client: AMQPClient
    private let channel: AMQPRecoveringChannel
    private let events: SessionEvents
    private let sink: any SessionSink
    private let id: WorkerID
    private let state: Mutex<State>
    /// One change of consumers and prefetch at a time, in the order in which they were asked for.
    private let flow = SerialGate()

    init(_ backend: RabbitMQBackend, _ worker: WorkerPresence, sink: any SessionSink) throws(AMQPError) {
        self.backend = backend
        self.sink = sink
        id = worker.id
        state = Mutex(State(queues: worker.queues))
        var server = backend.server.named("worker " + worker.name)
        server.heartbeat = backend.configuration.workerHeartbeat
        client = try AMQPClient(server, group: backend.thread.group)
        events = SessionEvents()
        channel = AMQPRecoveringChannel(
            client,
            .init(topology: Self.topology(of: worker.queues, backend.configuration)), events: events.channelEvents)
        events.session = self
    }

    private static func topology(
        of queues: [String], _ configuration: RabbitMQBackend.Configuration
    ) -> AMQPTopology {
        var topology = AMQPTopology()
        for queue in queues {
            topology.merge(TaskQueue(name: queue, settings: configuration.settings(of: queue)).topology)
        }
        return topology
    }

    private static let openingLimit = Duration.seconds(10)

    /// Opens the channel.
    /// - Throws: ``BackendError``; a retry is safe.
    func start() async throws {
        let running = Task(executorPreference: backend.thread) { [channel] in await channel.run() }
        state.withLock { $0.running = running }
        backend.warnings.add(id, sink)
        do throws(AMQPError) {
            _ = try await channel.channel(within: Self.openingLimit)
        } catch {
            end()
            try Task.checkCancellation()
            throw BackendError(error, doing: "open a channel for a worker")
        }
    }

    // MARK: - What the channel tells

    func opened(_ number: Int) {
        state.withLock { state in
            state.channel = number
            (state.prefetch, state.consuming) = (0, [])
        }
        sink.mayHaveWork()
    }

    func lost() {
        let hasLost = state.withLock { state in
            state.channel = nil
            (state.prefetch, state.consuming) = (0, [])
            let hasLost = state.deliveries.lose()
            if hasLost { state.isLost = true }
            return hasLost
        }
        // The next renewal says so; a turn makes the worker ask.
        if hasLost { sink.mayHaveWork() }
    }

    func warn(_ difference: String) { backend.warnings.tell("a queue or exchange is used as it is: " + difference) }

    func consumerCancelled(_ tag: String) {
        state.withLock { state in
            state.consuming.remove(tag)
            state.prefetch = 0
        }
        // Its queue was deleted, or moved to another node: it is declared again when work is asked for.
        sink.mayHaveWork()
    }

    func delivered(_ arrived: [AMQPDelivery], on number: Int) {
        for delivery in arrived { accept(delivery, on: number) }
        handOut()
    }

    /// Sorts out what is not for this worker now: unreadable, not due, unknown by name.
    private func accept(_ delivery: AMQPDelivery, on number: Int) {
        // The tag of a consumer is the name of its queue.
        let queue = delivery.consumer ?? delivery.routingKey
        let message: Message
        do throws(WireError) {
            message = try delivery.message.taskMessage(from: queue, isRedelivered: delivery.isRedelivered)
        } catch {
            return giveUp(delivery, queue: queue, on: number, error)
        }
        let now = backend.clock.now
        let early = (message.headers.eta?.microsecondsSinceEpoch ?? 0) - now.microsecondsSinceEpoch
        if early >= 1_000_000 {
            move(delivery, to: .delayed(seconds: early / 1_000_000), queue: queue, on: number)
        } else if !state.withLock({ $0.deliveries.knows(message.jobName) }) {
            move(delivery, to: .held, queue: queue, on: number)
        } else if early > 0 {
            hold(delivery, message, queue: queue, on: number, for: .microseconds(early))
        } else {
            add(delivery, message, queue: queue, on: number)
        }
    }

    private func add(_ delivery: AMQPDelivery, _ message: Message, queue: String, on number: Int) {
        state.withLock { state in
            guard state.channel == number else { return }
            _ = state.deliveries.add(delivery, message, queue: queue, channel: number)
        }
    }

    /// Keeps a job that is due within a second: no queue of RabbitMQ holds one for less.
    private func hold(
        _ delivery: AMQPDelivery, _ message: Message, queue: String, on number: Int, for delay: Duration
    ) {
        let timer = state.withLock { state in
            state.lastTimer += 1
            return state.lastTimer
        }
        let call = backend.clock.schedule(after: delay) { [weak self] in
            guard let self else { return }
            state.withLock { $0.timers[timer] = nil }
            add(delivery, message, queue: queue, on: number)
            handOut()
        }
        state.withLock { $0.timers[timer] = call }
    }

    /// Puts a message somewhere else, and acknowledges it there.
    private func move(_ delivery: AMQPDelivery, to place: Publisher.Item.Place, queue: String, on number: Int) {
        let item = Publisher.Item(message: delivery.message, queue: queue, place: place)
        runBeside(on: backend.thread) { [self] in
            do {
                try await backend.publisher.publish([item], within: backend.server.publishTimeout)
                acknowledge([delivery.tag], on: number)
            } catch {
                // It stays where it is, and comes again.
                reject(delivery.tag, on: number)
            }
        }
    }

    private func giveUp(_ delivery: AMQPDelivery, queue: String, on number: Int, _ error: WireError) {
        let failure = JobFailure(kind: .undecodable, type: "WireError", message: error.message)
        let id = Self.callersID(delivery.message)
        let item = Publisher.Item(message: delivery.message.dead(failure), queue: queue, place: .dead)
        let name = delivery.message.properties.headers?["task"]?.textValue ?? "(unreadable)"
        runBeside(on: backend.thread) { [self] in
            do {
                try await backend.publisher.publish([item], within: backend.server.publishTimeout)
            } catch {
                return reject(delivery.tag, on: number)
            }
            acknowledge([delivery.tag], on: number)
            let given = Delivery(
                jobID: id ?? "", jobName: name, queue: queue, payload: .envelope([]), attempt: 1, lostWorkers: 0,
                token: 0)
            sink.noticed([
                JobNotice(.gaveUp(given, failure), jobID: given.jobID, jobName: name, queue: queue, attempt: 1)
            ])
        }
    }

    /// The id under which somebody may wait for the result of a message that cannot be read.
    private static func callersID(_ message: AMQPMessage) -> JobID? {
        let candidates = [message.properties.headers?["id"]?.textValue, message.properties.correlationID]
        return candidates.lazy.compactMap { $0 }.first { (1...1024).contains($0.utf8.count) }
    }

    private func handOut() {
        let (deliveries, isWaiting, isUsedUp) = state.withLock { state -> ([Delivery], Bool, Bool) in
            guard state.deliveries.isOpen else { return ([], state.deliveries.isWaiting, false) }
            let deliveries = state.deliveries.take()
            if !deliveries.isEmpty { state.deliveries.noteArrival() }
            return (deliveries, state.deliveries.isWaiting, !state.deliveries.canTake { _ in true })
        }
        if !deliveries.isEmpty { sink.arrived(TurnResult(deliveries: deliveries, hasMore: isUsedUp)) }
        // RabbitMQ sends the next job as soon as one is acknowledged; only the worker knows whether it has a slot.
        if isWaiting { sink.mayHaveWork() }
    }

    private func acknowledge(_ tags: [UInt64], on number: Int) {
        guard let open = channel.current, open.number == number else { return }
        open.channel.acknowledge(tags)
    }

    private func reject(_ tag: UInt64, on number: Int) {
        guard let open = channel.current, open.number == number else { return }
        open.channel.reject(tag, requeue: true)
    }

    // MARK: - Turns

    func turn(_ turn: WorkerTurn) async throws -> TurnResult {
        var result = TurnResult()
        try checkArrivals(turn)
        try await settle(turn, &result)
        result.lost += state.withLock { state in
            turn.progress.filter { state.deliveries.held[$0.token] == nil }.map(\.jobID)
        }
        if let holding = turn.holding {
            let settled = Set(turn.settlements.map(\.token))
            let unknown = state.withLock { $0.deliveries.unknown(to: holding.union(settled)) }
            try await giveBack(unknown)
        }
        if turn.withdrawsCredit { try await giveBack(state.withLock { $0.deliveries.close() }) }
        if !turn.claims.isEmpty {
            let isUnseen = state.withLock { state in
                guard state.deliveries.arrivals <= turn.arrivalsSeen else { return true }
                state.deliveries.open(turn)
                result.deliveries = state.deliveries.take()
                return false
            }
            result.hasMore = isUnseen
        }
        if turn.creditLasts || turn.withdrawsCredit || turn.claims.isEmpty {
            try await adjustFlow()
        } else {
            try await fetch(turn, &result)
        }
        return result
    }

    /// What is on its way to the worker is not among what it holds.
    private func checkArrivals(_ turn: WorkerTurn) throws {
        guard turn.holding != nil else { return }
        guard state.withLock({ $0.deliveries.arrivals <= turn.arrivalsSeen }) else {
            throw BackendError(.busy, "a job is on its way to the worker")
        }
    }

    /// Publishes what becomes of the jobs, and acknowledges them after that.
    private func settle(_ turn: WorkerTurn, _ result: inout TurnResult) async throws {
        guard !turn.settlements.isEmpty else { return }
        var items: [Publisher.Item] = []
        var settled: [HeldDeliveries.Held] = []
        for settlement in turn.settlements {
            guard let held = state.withLock({ $0.deliveries.held[settlement.token] }) else {
                result.lost.append(settlement.jobID)
                continue
            }
            settled.append(held)
            items += follows(from: settlement, held)
        }
        try await backend.publisher.publish(items, within: backend.server.publishTimeout)
        let tags = state.withLock { state in
            settled.compactMap { held in
                state.deliveries.remove(held.token).flatMap { $0.channel == state.channel ? $0.delivery.tag : nil }
            }
        }
        if let number = settled.first?.channel { acknowledge(tags, on: number) }
    }

    private func follows(from settlement: Settlement, _ held: HeldDeliveries.Held) -> [Publisher.Item] {
        let facts = DeliveryFacts(
            attempt: held.message.headers.retries + 1,
            isAtMostOnce: held.message.headers.hoist.isAtMostOnce)
        let transition = Transition(settlement, of: facts)
        switch transition.move {
        case .back(_, let due, _):
            var message = held.message
            transition.change?.apply(&message)
            if transition.spendsAttempt { message.headers.retries += 1 }
            if let due { message.headers.eta = due }
            message.properties.isRedelivered = false
            return [Publisher.Item(message, now: backend.clock.now)]
        case .end:
            var items = (transition.followUps?.messages ?? []).map { Publisher.Item($0, now: backend.clock.now) }
            if let failure = transition.deadLetter {
                items.append(
                    Publisher.Item(message: held.delivery.message.dead(failure), queue: held.queue, place: .dead))
            }
            return items
        }
    }

    /// Publishes jobs again that were not begun, as they were. Returning them by a reject would count as a death of
    /// their worker, and RabbitMQ drops from a quorum queue what is returned too often.
    private func giveBack(_ given: [HeldDeliveries.Held]) async throws {
        guard !given.isEmpty else { return }
        try await backend.publisher.publish(
            given.map { Publisher.Item(message: $0.delivery.message, queue: $0.queue, place: .ready) },
            within: backend.server.publishTimeout)
        state.withLock { state in for held in given { _ = state.deliveries.remove(held.token) } }
        for held in given { acknowledge([held.delivery.tag], on: held.channel) }
    }

    /// Gets messages one by one, for a worker that is not to be sent any by themselves.
    private func fetch(_ turn: WorkerTurn, _ result: inout TurnResult) async throws {
        guard let open = channel.current else { throw BackendError(channel.reason, doing: "take jobs") }
        do throws(AMQPError) {
            for queue in Self.inOrder(turn.claims.map(\.queue)) {
                while state.withLock({ $0.deliveries.canTake { $0.queue == queue } }) {
                    guard let (delivery, _) = try await open.channel.get(queue) else { break }
                    var named = delivery
                    named.consumer = queue
                    accept(named, on: open.number)
                    result.deliveries += state.withLock { $0.deliveries.take() }
                }
                let waiting = try await open.channel.state(of: queue).messages
                if waiting > 0 { result.hasMore = true }
            }
        } catch {
            throw BackendError(error, doing: "take jobs")
        }
    }

    private static func inOrder(_ names: [String]) -> [String] {
        var seen: Set<String> = []
        return names.filter { seen.insert($0).inserted }
    }

    /// Brings consumers and prefetch to what the credit asks for.
    private func adjustFlow() async throws {
        try await flow.run { [self] in
            let (wanted, queues, prefetch, consuming) = state.withLock { state in
                (state.deliveries.prefetch, state.queues, state.prefetch, state.consuming)
            }
            guard let open = channel.current else { throw BackendError(channel.reason, doing: "take jobs") }
            let targets = wanted == 0 ? [] : Set(queues)
            guard wanted != prefetch || targets != consuming else { return }
            do throws(AMQPError) {
                try await adjust(open.channel, wanted, targets, prefetch, consuming)
            } catch {
                throw BackendError(error, doing: "take jobs")
            }
            state.withLock { state in
                guard state.channel == open.number else { return }
                (state.prefetch, state.consuming) = (wanted, targets)
            }
        }
    }

    private func adjust(
        _ open: AMQPChannel, _ wanted: Int, _ targets: Set<String>, _ prefetch: Int, _ consuming: Set<String>
    ) async throws(AMQPError) {
        for queue in consuming.subtracting(targets).sorted() { try await open.cancel(consumer: queue) }
        // Quorum queues know a prefetch of single consumers only, which is fixed when they begin.
        let isShared = !targets.contains { backend.configuration.settings(of: $0).kind == .quorum }
        if wanted > 0, wanted != prefetch {
            if !isShared {
                for queue in consuming.intersection(targets).sorted() { try await open.cancel(consumer: queue) }
            }
            try await open.setPrefetch(wanted, isShared: isShared)
        }
        let new = isShared || wanted == prefetch ? targets.subtracting(consuming) : targets
        guard !new.isEmpty else { return }
        try await Self.topology(of: new.sorted(), backend.configuration).declare(on: open.connection)
        for queue in new.sorted() { try await open.consume(queue, tag: queue) }
    }

    // MARK: - The lease

    /// The connection is the lease: RabbitMQ gives everything to others when it ends.
    func renew(_ worker: WorkerPresence) async throws -> Bool {
        let (isLost, isOpen) = state.withLock { state in
            if state.queues != worker.queues { state.queues = worker.queues }
            return (state.isLost, state.channel != nil)
        }
        guard isOpen else { throw BackendError(channel.reason, doing: "keep the connection of a worker") }
        guard isLost else { return true }
        end()
        return false
    }

    func close() async throws {
        let given = state.withLock { state in
            state.isClosed = true
            return state.deliveries.close()
        }
        try? await giveBack(given)
        await channel.close()
        end()
    }

    private func end() {
        let (running, timers) = state.withLock { state in
            state.isClosed = true
            defer { (state.timers, state.running) = ([:], nil) }
            return (state.running, Array(state.timers.values))
        }
        for timer in timers { timer.cancel() }
        running?.cancel()
        backend.warnings.remove(id)
        client.close()
    }
}

/// Breaks the circle between a session and its channel.
private final class SessionEvents: Sendable {
    private let state = Mutex<Weak>(Weak())

    private struct Weak: Sendable {
        weak var session: RabbitMQSession?
    }

    var session: RabbitMQSession? {
        get { state.withLock { $0.session } }
        set { state.withLock { $0.session = newValue } }
    }

    var channelEvents: AMQPRecoveringChannel.Events {
        AMQPRecoveringChannel.Events(
            delivered: { [self] deliveries, number in session?.delivered(deliveries, on: number) },
            consumerCancelled: { [self] tag in session?.consumerCancelled(tag) },
            opened: { [self] number in session?.opened(number) },
            lost: { [self] _ in session?.lost() },
            differs: { [self] difference in session?.warn(difference) })
    }
}

/// Lets one caller at a time do something, in the order in which they came.
actor SerialGate {
    private var last: Task<Void, any Error>?

    func run(_ body: @escaping @Sendable () async throws -> Void) async throws {
        let before = last
        let next = Task {
            _ = await before?.result
            try await body()
        }
        last = next
        try await next.value
    }
}
