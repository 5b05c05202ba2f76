import AMQP
import Hoist
import Synchronization

/// A session of a worker on RabbitMQ: a connection, whose end is the end of the lease, and a channel with a consumer for
/// each queue.
final class RabbitMQSession: WorkerSession {
    fileprivate struct State {
        var deliveries = HeldDeliveries()
        var queues: [String]
        /// What the channel has been told.
        var prefetch = 0
        /// The tag of the consumer of each queue.
        var consuming: [String: String] = [:]
        /// The queue of each consumer by its tag. A tag is never used again: a quorum queue would hand the deliveries of
        /// the old consumer to the new one once more.
        var tags: [String: String] = [:]
        var lastTag = 0
        /// Queues that are asked one message at a time, and are declared.
        var fetched: Set<String> = []
        /// The number of the open channel; nil while there is none.
        var channel: Int?
        /// Whether jobs were lost with a channel, which ends the session.
        var isLost = false
        /// Jobs that are due within a second.
        var timers: [Int64: ScheduledCall] = [:]
        var lastTimer: Int64 = 0
        /// Messages that were set aside, until they are given back.
        var pauses: [Int64: ScheduledCall] = [:]
        /// Set for a worker that asks by itself, until it is to ask again.
        var asking: ScheduledCall?
        /// Messages that are with neither the worker nor its waiting jobs, and that RabbitMQ counts.
        var aside = 0
        /// Messages on their way somewhere else.
        var moving = 0
        /// Whether a queue is a quorum queue, which knows no prefetch that consumers share.
        var hasQuorumQueue: Bool
        var running: Task<Void, Never>?
    }

    private let backend: RabbitMQBackend
    private let client: AMQPClient
    private let channel: AMQPRecoveringChannel
    private let events: SessionEvents
    private let sink: any SessionSink
    private let id: WorkerID
    private let state: Mutex<State>
    /// The names of jobs that the worker performs.
    private let jobNames: Set<String>
    /// One change of consumers and prefetch at a time, in the order in which they were asked for.
    private let flow: SerialGate

    init(_ backend: RabbitMQBackend, _ worker: WorkerPresence, sink: any SessionSink) throws(AMQPError) {
        self.backend = backend
        self.sink = sink
        id = worker.id
        let hasQuorumQueue = worker.queues.contains { backend.configuration.settings(of: $0).kind == .quorum }
        state = Mutex(State(queues: worker.queues, hasQuorumQueue: hasQuorumQueue))
        jobNames = Set(worker.jobNames)
        flow = SerialGate(on: backend.thread)
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
            // A queue that somebody has made anew gets its delayed jobs again.
            topology.merge(DelayLadder.topology(to: queue))
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
            (state.prefetch, state.consuming, state.fetched, state.aside) = (0, [:], [], 0)
        }
        sink.mayHaveWork()
    }

    func lost(_ error: AMQPError) {
        let hasLost = state.withLock { state in
            // 540 NOT_IMPLEMENTED: somebody else has made it a quorum queue.
            if error.replyCode == 540 { state.hasQuorumQueue = true }
            state.channel = nil
            (state.prefetch, state.consuming, state.fetched, state.aside) = (0, [:], [], 0)
            let hasLost = state.deliveries.lose()
            if hasLost { state.isLost = true }
            return hasLost
        }
        // The next renewal says so; a turn makes the worker ask.
        if hasLost { sink.mayHaveWork() }
    }

    func warn(_ difference: String) {
        if difference.contains("'x-queue-type'"), difference.contains("'quorum'") {
            state.withLock { ($0.hasQuorumQueue, $0.prefetch) = (true, 0) }
        }
        backend.warnings.tell("a queue or exchange is used as it is: " + difference)
    }

    func consumerCancelled(_ tag: String) {
        state.withLock { state in
            if let queue = state.tags[tag] {
                state.consuming[queue] = nil
                state.fetched.remove(queue)
            }
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
        let tag = delivery.consumer ?? ""
        let queue = state.withLock { $0.tags[tag] } ?? tag
        let message: Message
        do throws(WireError) {
            message = try delivery.message.taskMessage(from: queue, isRedelivered: delivery.isRedelivered)
        } catch {
            return giveUp(delivery, queue: queue, on: number, error)
        }
        let now = backend.clock.now
        if let expires = message.headers.expires, expires <= now {
            return expire(delivery, message, queue: queue, on: number)
        }
        let early = (message.headers.eta?.microsecondsSinceEpoch ?? 0) - now.microsecondsSinceEpoch
        if early >= 1_000_000 {
            move(delivery, message, to: .delayed(seconds: early / 1_000_000), queue: queue, on: number)
        } else if !jobNames.contains(message.jobName) {
            move(delivery, message, to: .held, queue: queue, on: number)
        } else if early > 0 {
            hold(delivery, message, queue: queue, on: number, for: .microseconds(early))
        } else {
            add(delivery, message, queue: queue, on: number)
        }
    }

    /// Ends a job that was not started in time.
    private func expire(_ delivery: AMQPDelivery, _ message: Message, queue: String, on number: Int) {
        let now = backend.clock.now
        let ended = Transition.waitedInVain(.expired, at: now).continued(message)
        let follows = (ended.followUps?.messages ?? []).map { Publisher.Item($0, now: now) }
        beside(delivery, on: number, publishing: follows) { [sink] in
            sink.noticed([
                JobNotice(
                    .expired, jobID: message.id, jobName: message.jobName, queue: queue,
                    attempt: message.headers.retries + 1)
            ])
        }
    }

    /// Publishes something in place of a delivery, and acknowledges the delivery after that. Tries as long as the channel
    /// lives: giving the delivery back would have RabbitMQ send it again at once.
    private func beside(
        _ delivery: AMQPDelivery, on number: Int, publishing items: [Publisher.Item],
        then tell: @escaping @Sendable () -> Void = {}
    ) {
        state.withLock { $0.moving += 1 }
        runBeside(on: backend.thread) { [self] in
            defer { state.withLock { $0.moving -= 1 } }
            var items = items
            var pause = Duration.milliseconds(100)
            while channel.current?.number == number {
                do {
                    let outcomes = try await backend.publisher.publish(
                        each: items, within: backend.server.publishTimeout)
                    items = zip(items, outcomes).compactMap { item, outcome in
                        switch outcome {
                        case .stored: return nil
                        case .refused: return item
                        case .impossible: return item.inPlace
                        }
                    }
                    guard !items.isEmpty else {
                        acknowledge([delivery.tag], on: number)
                        return tell()
                    }
                } catch {
                    if pause > .seconds(1) {
                        backend.warnings.tell("a message cannot be moved, and is tried again: \(error)")
                    }
                }
                await backend.clock.sleep(for: pause)
                pause = min(pause * 2, .seconds(5))
            }
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

    /// Puts a message somewhere else.
    private func move(
        _ delivery: AMQPDelivery, _ message: Message, to place: Publisher.Item.Place, queue: String, on number: Int
    ) {
        let again = delivery.message.again(isRedelivered: message.properties.isRedelivered)
        beside(delivery, on: number, publishing: [Publisher.Item(message: again, queue: queue, place: place)])
    }

    private func giveUp(_ delivery: AMQPDelivery, queue: String, on number: Int, _ error: WireError) {
        let failure = JobFailure(kind: .undecodable, type: "WireError", message: error.message)
        // What was too large to be received stays with RabbitMQ, as long as the worker is there, for a person to see.
        guard delivery.message.skippedBytes == nil else {
            setAside(delivery, on: number)
            return warn("a message in \(queue) is too large: \(error.message)")
        }
        let id = Self.callersID(delivery.message) ?? ""
        let item = Publisher.Item(message: delivery.message.dead(failure), queue: queue, place: .dead)
        let name = delivery.message.properties.headers?["task"]?.textValue ?? "(unreadable)"
        beside(delivery, on: number, publishing: [item]) { [sink] in
            let given = Delivery(
                jobID: id, jobName: name, queue: queue, payload: .envelope([]), attempt: 1, lostWorkers: 0, token: 0)
            sink.noticed([JobNotice(.gaveUp(given, failure), jobID: id, jobName: name, queue: queue, attempt: 1)])
        }
    }

    /// Leaves a message with RabbitMQ that nothing can be done with, for a person to see. It is given back before the
    /// server's `consumer_timeout` closes the channel.
    private func setAside(_ delivery: AMQPDelivery, on number: Int) {
        state.withLock { $0.aside += 1 }
        let call = backend.clock.schedule(after: .seconds(1200)) { [weak self] in
            guard let self, let open = channel.current, open.number == number else { return }
            state.withLock { $0.aside = max(0, $0.aside - 1) }
            open.channel.reject(delivery.tag, requeue: true)
        }
        state.withLock { state in
            state.lastTimer += 1
            state.pauses[state.lastTimer] = call
        }
        // A turn raises the prefetch by it.
        sink.mayHaveWork()
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

    // MARK: - Turns

    func turn(_ turn: WorkerTurn) async throws -> TurnResult {
        var result = TurnResult()
        try checkArrivals(turn)
        do {
            try await settle(turn, &result)
        } catch {
            // Other work must not wait for what cannot be published.
            await supplyAside(turn)
            throw error
        }
        result.lost += state.withLock { state in
            turn.progress.filter { state.deliveries.held[$0.token] == nil }.map(\.jobID)
        }
        // The worker learns of its loss at the next renewal; until then it gets nothing new.
        guard state.withLock({ !$0.isLost }) else { return result }
        do {
            try await supply(turn, &result)
        } catch {
            // What is settled is settled: the worker asks again for the rest.
            guard !turn.settlements.isEmpty, result.deliveries.isEmpty else { throw error }
            askAgain()
        }
        return result
    }

    /// Gets what a turn asks for that cannot answer, by way of the sink.
    private func supplyAside(_ turn: WorkerTurn) async {
        guard turn.holding == nil, state.withLock({ !$0.isLost }) else { return }
        var result = TurnResult()
        try? await supply(turn, &result)
        guard !result.deliveries.isEmpty else { return }
        state.withLock { $0.deliveries.noteArrival() }
        sink.arrived(TurnResult(deliveries: result.deliveries))
    }

    /// Gives back what is not wanted, and gets what is.
    private func supply(_ turn: WorkerTurn, _ result: inout TurnResult) async throws {
        if let holding = turn.holding {
            let settled = Set(turn.settlements.map(\.token))
            try await giveBack(state.withLock { $0.deliveries.unknown(to: holding.union(settled)) })
        }
        if turn.withdrawsCredit { state.withLock { $0.deliveries.close() } }
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
            try await giveBack(state.withLock { $0.deliveries.stray(consumed: Set($0.queues)) })
        }
        if !turn.creditLasts, !turn.claims.isEmpty, !result.hasMore { try await fetch(turn, &result) }
    }

    /// A worker that is sent nothing by itself looks again after a while.
    private func askAgain(after pause: Duration = .milliseconds(200)) {
        let call = backend.clock.schedule(after: pause) { [weak self] in self?.sink.mayHaveWork() }
        let before = state.withLock { state in
            defer { state.asking = call }
            return state.asking
        }
        before?.cancel()
    }

    /// What is on its way to the worker is not among what it holds.
    private func checkArrivals(_ turn: WorkerTurn) throws {
        guard turn.holding != nil else { return }
        guard state.withLock({ $0.deliveries.arrivals <= turn.arrivalsSeen }) else {
            throw BackendError(.busy, "a job is on its way to the worker")
        }
    }

    /// Publishes what becomes of the jobs, and acknowledges each after that.
    private func settle(_ turn: WorkerTurn, _ result: inout TurnResult) async throws {
        guard !turn.settlements.isEmpty else { return }
        var parts: [(held: HeldDeliveries.Held, items: [Publisher.Item], isHandedBack: Bool)] = []
        for settlement in turn.settlements {
            guard let held = state.withLock({ $0.deliveries.held[settlement.token] }) else {
                result.lost.append(settlement.jobID)
                continue
            }
            let isHandedBack =
                switch settlement.outcome {
                case .handedBack, .notStarted: true
                default: false
                }
            parts.append((held, follows(from: settlement, held), isHandedBack))
        }
        // What only has to be acknowledged waits for nobody.
        finish(parts.filter(\.items.isEmpty).map(\.held))
        parts.removeAll(where: \.items.isEmpty)
        var isRefused = false
        for _ in 0..<3 where !parts.isEmpty {
            let outcomes: [Publisher.Outcome]
            do {
                outcomes = try await backend.publisher.publish(
                    each: parts.flatMap(\.items), within: backend.server.publishTimeout)
            } catch {
                // A worker that stops does not wait for a server that takes nothing. It counts as a return.
                for (held, _, isHandedBack) in parts where isHandedBack { putBack(held) }
                throw error
            }
            var rest = outcomes[...]
            var left: [(held: HeldDeliveries.Held, items: [Publisher.Item], isHandedBack: Bool)] = []
            var settled: [HeldDeliveries.Held] = []
            isRefused = false
            for (held, items, isHandedBack) in parts {
                var open: [Publisher.Item] = []
                for item in items {
                    switch rest.popFirst() {
                    case .stored?, nil: break
                    case .refused?:
                        // The ladder keeps it until its queue has room.
                        if let later = item.later(backend.configuration) {
                            open.append(later)
                        } else {
                            isRefused = true
                            open.append(item)
                        }
                    case .impossible?: open.append(item.inPlace)
                    }
                }
                if open.isEmpty { settled.append(held) } else { left.append((held, open, isHandedBack)) }
            }
            finish(settled)
            parts = left
            if isRefused { break }
        }
        guard parts.isEmpty else {
            throw BackendError(.full, "RabbitMQ did not take what follows from \(parts.count) jobs: a queue is full")
        }
    }

    /// Returns a job to its queue without publishing it.
    private func putBack(_ held: HeldDeliveries.Held) {
        let isOpen = state.withLock { $0.deliveries.remove(held.token) != nil && held.channel == $0.channel }
        guard isOpen, let open = channel.current, open.number == held.channel else { return }
        open.channel.reject(held.delivery.tag, requeue: true)
    }

    private func finish(_ settled: [HeldDeliveries.Held]) {
        guard !settled.isEmpty else { return }
        let (tags, number) = state.withLock { state in
            let tags = settled.compactMap { held in
                state.deliveries.remove(held.token).flatMap { $0.channel == state.channel ? $0.delivery.tag : nil }
            }
            return (tags, state.channel)
        }
        if let number, !tags.isEmpty { acknowledge(tags, on: number) }
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
    private func giveBack(_ given: [HeldDeliveries.Held], within limit: Duration? = nil) async throws {
        guard !given.isEmpty else { return }
        let items = given.map { held in
            Publisher.Item(
                message: held.delivery.message.again(isRedelivered: held.message.properties.isRedelivered),
                queue: held.queue, place: .ready)
        }
        try await backend.publisher.publish(items, within: limit ?? backend.server.publishTimeout)
        finish(given)
    }

    /// Gets messages one by one, for a worker that is not to be sent any by themselves.
    private func fetch(_ turn: WorkerTurn, _ result: inout TurnResult) async throws {
        guard let open = channel.current else { throw BackendError(channel.reason, doing: "take jobs") }
        let queues = Self.inOrder(turn.claims.map(\.queue))
        do throws(AMQPError) {
            let undeclared = state.withLock { state in queues.filter { !state.fetched.contains($0) } }
            if !undeclared.isEmpty {
                try await Self.topology(of: undeclared, backend.configuration).declare(on: open.channel.connection)
                state.withLock { $0.fetched.formUnion(undeclared) }
            }
            for queue in queues {
                // Messages that are not for now take no room, and must not keep the turn going.
                var tries = 0
                while state.withLock({ $0.mayFetch(queue) }) {
                    guard tries < 200 else {
                        result.hasMore = true
                        break
                    }
                    tries += 1
                    guard let (delivery, remaining) = try await open.channel.get(queue) else { break }
                    var named = delivery
                    named.consumer = queue
                    accept(named, on: open.number)
                    result.deliveries += state.withLock { $0.deliveries.take() }
                    if remaining > 0, !state.withLock({ $0.deliveries.canTake { $0.queue == queue } }) {
                        result.hasMore = true
                    }
                }
            }
        } catch {
            // An answer that comes too late would hold its message.
            if error.code == .timedOut { open.channel.connection.close() }
            throw BackendError(error, doing: "take jobs")
        }
        if state.withLock({ $0.deliveries.canTake { _ in true } }) { askAgain() }
    }

    private static func inOrder(_ names: [String]) -> [String] {
        var seen: Set<String> = []
        return names.filter { seen.insert($0).inserted }
    }

    private struct Flow: Equatable {
        var prefetch: Int
        var queues: Set<String>
    }

    private func flows() -> (wanted: Flow, current: Flow) {
        state.withLock { state in
            let current = Flow(prefetch: state.prefetch, queues: Set(state.consuming.keys))
            let prefetch = state.deliveries.prefetch
            guard prefetch > 0 else { return (Flow(prefetch: 0, queues: []), current) }
            let queues = state.deliveries.queues.intersection(state.queues)
            // A consumer of a quorum queue would have to begin anew for every change.
            guard !state.hasQuorumQueue else {
                return (Flow(prefetch: max(prefetch + state.aside, current.prefetch), queues: queues), current)
            }
            // Jobs that wait for their second are with RabbitMQ unacknowledged as well.
            return (Flow(prefetch: prefetch + state.timers.count + state.aside, queues: queues), current)
        }
    }

    /// Brings consumers and prefetch to what the credit asks for.
    private func adjustFlow() async throws {
        let (wanted, current) = flows()
        guard wanted != current else { return }
        try await flow.run { [self] in
            guard let open = channel.current else { throw BackendError(channel.reason, doing: "take jobs") }
            let (wanted, current) = flows()
            guard wanted != current else { return }
            do throws(AMQPError) {
                try await adjust(open.channel, open.number, wanted, current)
            } catch {
                throw BackendError(error, doing: "take jobs")
            }
        }
    }

    /// Each step is noted when it is done: the next adjustment begins there.
    private func adjust(_ open: AMQPChannel, _ number: Int, _ wanted: Flow, _ current: Flow) async throws(AMQPError) {
        @Sendable func note(_ change: (inout State) -> Void) {
            state.withLock { state in if state.channel == number { change(&state) } }
        }
        func stop(_ queues: Set<String>) async throws(AMQPError) {
            for queue in queues.sorted() {
                guard let tag = state.withLock({ $0.consuming[queue] }) else { continue }
                try await open.cancel(consumer: tag)
                note { $0.consuming[queue] = nil }
            }
        }
        try await stop(current.queues.subtracting(wanted.queues))
        guard wanted.prefetch > 0, !wanted.queues.isEmpty else { return note { $0.prefetch = wanted.prefetch } }
        let declared = state.withLock { $0.fetched }
        let new = wanted.queues.subtracting(current.queues).subtracting(declared)
        if !new.isEmpty {
            for difference in try await Self.topology(of: new.sorted(), backend.configuration).declare(
                on: open.connection)
            {
                warn(difference)
            }
            note { $0.fetched.formUnion(new) }
        }
        // Quorum queues know a prefetch of single consumers only, which is fixed when they begin.
        let isShared = state.withLock { !$0.hasQuorumQueue }
        let share = isShared ? wanted.prefetch : max(1, wanted.prefetch / wanted.queues.count)
        if wanted.prefetch != state.withLock({ $0.prefetch }) {
            if !isShared {
                try await stop(current.queues.intersection(wanted.queues))
                // Lifts a limit of the channel, which these queues refuse.
                try await open.setPrefetch(0, isShared: true)
            }
            try await open.setPrefetch(share, isShared: isShared)
            note { $0.prefetch = wanted.prefetch }
        }
        let begun = state.withLock { Set($0.consuming.keys) }
        for queue in wanted.queues.subtracting(begun).sorted() {
            // Noted before: a consumer that is taken away at once is taken off the list again.
            let tag = state.withLock { state in
                state.lastTag += 1
                let tag = "hoist\(state.lastTag)"
                (state.tags[tag], state.consuming[queue]) = (queue, tag)
                if state.tags.count > 1000 {
                    let live = Set(state.consuming.values)
                    state.tags = state.tags.filter { live.contains($0.key) }
                }
                return tag
            }
            do throws(AMQPError) {
                try await open.consume(queue, tag: tag)
            } catch {
                note { $0.consuming[queue] = nil }
                throw error
            }
        }
    }

    // MARK: - The lease

    /// The connection is the lease: RabbitMQ gives everything to others when it ends.
    func renew(_ worker: WorkerPresence) async throws -> Bool {
        let (isLost, isOpen) = state.withLock { state in
            if state.queues != worker.queues { state.queues = worker.queues }
            let settings = backend.configuration
            if !state.hasQuorumQueue, worker.queues.contains(where: { settings.settings(of: $0).kind == .quorum }) {
                (state.hasQuorumQueue, state.prefetch) = (true, 0)
            }
            return (state.isLost, state.channel != nil)
        }
        guard isOpen else { throw BackendError(channel.reason, doing: "keep the connection of a worker") }
        guard isLost else { return true }
        end()
        return false
    }

    func close() async throws {
        let given = state.withLock { state in
            state.deliveries.close()
            return state.deliveries.stray(consumed: [])
        }
        // What cannot be published again in time goes back with the channel.
        try? await giveBack(given, within: .seconds(1))
        await channel.close()
        end()
    }

    private func end() {
        let (running, timers) = state.withLock { state in
            defer { (state.timers, state.pauses, state.running, state.asking) = ([:], [:], nil, nil) }
            let calls = Array(state.timers.values) + state.pauses.values + (state.asking.map { [$0] } ?? [])
            return (state.running, calls)
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
            lost: { [self] error in session?.lost(error) },
            differs: { [self] difference in session?.warn(difference) })
    }
}

extension RabbitMQSession.State {
    /// Whether one more message is to be got: a job of the queue could start, and what waits or is moved has an end.
    fileprivate func mayFetch(_ queue: String) -> Bool {
        deliveries.waitingCount < 16 && moving < 64 && deliveries.canTake { $0.queue == queue }
    }
}

extension Publisher.Item {
    /// The same in a second, for a queue that is full: the ladder tries until there is room. Nil where it does not.
    func later(_ configuration: RabbitMQBackend.Configuration) -> Publisher.Item? {
        guard place == .ready, configuration.delayQueues == .quorum else { return nil }
        return Publisher.Item(message: message, queue: queue, place: .delayed(seconds: 1))
    }

    /// What is sent in place of a message that can never be sent as it is: a dead letter, and of a dead letter what
    /// fits.
    var inPlace: Publisher.Item {
        guard place != .dead else { return Publisher.Item(message: message.essentials, queue: queue, place: .dead) }
        let failure = JobFailure(
            kind: .notEncodable, type: "MessageTooLarge", message: "the message does not fit into RabbitMQ's frames")
        return Publisher.Item(message: message.dead(failure), queue: queue, place: .dead)
    }
}
