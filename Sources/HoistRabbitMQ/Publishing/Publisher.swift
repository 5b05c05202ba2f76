import AMQP
import Hoist
import Synchronization

/// Publishes with confirms, over a connection of its own: RabbitMQ blocks connections that publish when it is short of
/// memory, and workers must go on to acknowledge then.
final class Publisher: Sendable {
    /// A message and the queue of jobs that it is for.
    struct Item {
        enum Place: Hashable {
            /// Into the queue itself.
            case ready
            /// Into the queue after so many seconds.
            case delayed(seconds: Int64)
            /// Into the queue of its dead letters.
            case dead
            /// Into the queue that gives jobs back after a while.
            case held
        }

        var message: AMQPMessage
        var queue: String
        var place: Place
    }

    private let configuration: RabbitMQBackend.Configuration
    private let channel: AMQPRecoveringChannel
    private let thread: any TaskExecutor
    private let warn: @Sendable (String) -> Void
    /// What has been declared on the channel of this number.
    private let declared = Mutex<(channel: Int, objects: Set<Need>)>((0, []))
    private let running = Mutex<Task<Void, Never>?>(nil)
    /// One declaration at a time: a thousand callers who need the same queue declare it once.
    private let gate: SerialGate

    init(
        _ client: AMQPClient, _ configuration: RabbitMQBackend.Configuration, thread: any TaskExecutor,
        warn: @escaping @Sendable (String) -> Void
    ) {
        self.configuration = configuration
        self.thread = thread
        self.warn = warn
        gate = SerialGate(on: thread)
        channel = AMQPRecoveringChannel(client, .init(confirmsPublishes: true), events: .init(differs: warn))
    }

    deinit { running.withLock { $0 }?.cancel() }

    /// Opens the channel when it is first needed.
    private func start() {
        running.withLock { running in
            guard running == nil else { return }
            running = Task(executorPreference: thread) { [channel] in await channel.run() }
        }
    }

    /// An open channel with confirms.
    /// - Throws: ``BackendError``; a retry is safe.
    func openChannel(within limit: Duration, doing what: String) async throws -> AMQPChannel {
        start()
        do throws(AMQPError) {
            return try await channel.channel(within: limit)
        } catch {
            try Task.checkCancellation()
            // Nothing was sent, whatever the last channel ended with.
            var told = error
            told.mayHaveRun = false
            throw BackendError(told, doing: what)
        }
    }

    /// What became of an item.
    enum Outcome {
        case stored
        /// The queue is full, or there is none.
        case refused(String)
        /// The message can never be sent as it is.
        case impossible(String)
    }

    /// Publishes, and waits for the confirms.
    /// - Throws: ``BackendError``; where its `isRetrySafe` is true, nothing was stored.
    func publish(_ items: [Item], within limit: Duration) async throws {
        let outcomes = try await publish(each: items, within: limit)
        let count = outcomes.count { if case .stored = $0 { true } else { false } }
        for outcome in outcomes {
            switch outcome {
            case .stored: continue
            case .refused(let why):
                throw BackendError(
                    .full, "\(items.count - count) of \(items.count) jobs were not taken: \(why)",
                    isRetrySafe: count == 0)
            case .impossible(let why): throw BackendError(.misuse, why, isRetrySafe: count == 0)
            }
        }
    }

    /// Publishes, and waits for the confirms.
    /// - Returns: what became of each item.
    /// - Throws: ``BackendError`` when that is not known; where its `isRetrySafe` is true, nothing was stored.
    func publish(each items: [Item], within limit: Duration) async throws -> [Outcome] {
        guard !items.isEmpty else { return [] }
        let what = "enqueue on \(Set(items.map(\.queue)).sorted().prefix(3).joined(separator: ", "))"
        let begun = ContinuousClock.now
        let open = try await openChannel(within: limit, doing: what)
        var isAnyStored = false
        do throws(AMQPError) {
            try await declare(items, on: open)
            let left = limit - (ContinuousClock.now - begun)
            guard left > .zero else { throw AMQPError(.timedOut, "the queues could not be declared in time") }
            var confirms = try await open.publish(items.map(Self.publication), within: left)
            isAnyStored = confirms.contains(.confirmed)
            // A queue was deleted since it was declared: it is made again, once.
            let homeless = confirms.indices.filter { if case .returned = confirms[$0] { true } else { false } }
            if !homeless.isEmpty {
                forgetDeclarations()
                let again = homeless.map { items[$0] }
                try await declare(again, on: open)
                let second = try await open.publish(again.map(Self.publication), within: left)
                for (index, confirm) in zip(homeless, second) { confirms[index] = confirm }
            }
            return zip(items, confirms).map { item, confirm in
                switch confirm {
                case .confirmed: .stored
                case .refused: .refused("the queue \(item.queue) is full")
                case .returned(_, let reason): .refused("the queue \(item.queue) does not exist: \(reason)")
                }
            }
        } catch {
            // Nothing of a batch is sent when one of its messages cannot be written.
            if error.code == .misuse, !isAnyStored {
                guard items.count > 1 else { return [.impossible(error.message)] }
                var outcomes: [Outcome] = []
                for item in items {
                    do {
                        outcomes += try await publish(each: [item], within: limit)
                    } catch var error as BackendError {
                        let isStored = outcomes.contains { if case .stored = $0 { true } else { false } }
                        if isStored { error.isRetrySafe = false }
                        throw error
                    }
                }
                return outcomes
            }
            var told = error
            if isAnyStored { told.mayHaveRun = true }
            throw BackendError(told, doing: what)
        }
    }

    private static func publication(_ item: Item) -> AMQPChannel.Publication {
        let queue = TaskQueue(name: item.queue, settings: QueueSettings())
        return switch item.place {
        case .ready: .init(item.message, routingKey: item.queue, isMandatory: true)
        case .dead: .init(item.message, routingKey: queue.deadLetters, isMandatory: true)
        case .held: .init(item.message, routingKey: queue.holding, isMandatory: true)
        case .delayed(let seconds):
            .init(
                item.message, exchange: DelayLadder.entrance,
                routingKey: DelayLadder.key(seconds: seconds, queue: item.queue), isMandatory: true)
        }
    }

    private func forgetDeclarations() { declared.withLock { $0.objects = [] } }

    /// Something that must be declared before a message can be published. Queues come before what leads to them.
    private enum Need: Hashable {
        case queue(String), deadLetters(String), holding(String), ladder, ladderExit(String)

        var order: Int {
            switch self {
            case .queue: 0
            case .deadLetters, .holding, .ladder: 1
            case .ladderExit: 2
            }
        }
    }

    private static func needs(of item: Item) -> [Need] {
        switch item.place {
        case .ready: [.queue(item.queue)]
        case .dead: [.queue(item.queue), .deadLetters(item.queue)]
        case .held: [.queue(item.queue), .holding(item.queue)]
        case .delayed: [.queue(item.queue), .ladder, .ladderExit(item.queue)]
        }
    }

    private func topology(of need: Need) -> AMQPTopology {
        func queue(_ name: String) -> TaskQueue { TaskQueue(name: name, settings: configuration.settings(of: name)) }
        return switch need {
        case .queue(let name): queue(name).topology
        case .deadLetters(let name):
            queue(name).deadLetterTopology(
                keptFor: configuration.deadLetterRetention, atMost: configuration.deadLetterLimit)
        case .holding(let name):
            queue(name).holdingTopology(for: configuration.unknownNamePause, configuration.delayQueues)
        case .ladder: DelayLadder(kind: configuration.delayQueues).topology
        case .ladderExit(let name): DelayLadder.topology(to: name)
        }
    }

    /// Declares what the items need, once for each connection.
    private func declare(_ items: [Item], on open: AMQPChannel) async throws(AMQPError) {
        let needs = items.reduce(into: Set<Need>()) { $0.formUnion(Self.needs(of: $1)) }
        guard !missing(needs).isEmpty else { return }
        do {
            try await gate.run { [self] in try await declare(needs, on: open.connection) }
        } catch let error as AMQPError {
            // Nothing was published yet.
            var told = error
            told.mayHaveRun = false
            throw told
        } catch {
            throw AMQPError(.timedOut, "\(error)")
        }
    }

    private func missing(_ needs: Set<Need>) -> [Need] {
        let number = channel.current?.number ?? 0
        let missing = declared.withLock { declared in
            if declared.channel != number { declared = (number, []) }
            return needs.subtracting(declared.objects)
        }
        return missing.sorted { $0.order < $1.order }
    }

    private func declare(_ needs: Set<Need>, on connection: AMQPConnection) async throws(AMQPError) {
        let number = channel.current?.number ?? 0
        let missing = missing(needs)
        guard !missing.isEmpty else { return }
        var topology = AMQPTopology()
        for need in missing { topology.merge(self.topology(of: need)) }
        for difference in try await topology.declare(on: connection) { warn(difference) }
        declared.withLock { declared in
            if declared.channel == number { declared.objects.formUnion(missing) }
        }
    }
}
