import Endpoints
import NIOCore
import NIOPosix
import Synchronization

/// A channel that is opened again after it was lost, with everything that belongs to it: topology, prefetch, consumers.
///
/// Deliveries of a channel that was lost cannot be acknowledged any more: the server hands them out again. Each channel
/// has a number, by which a caller tells the deliveries of one from those of the next.
public final class AMQPRecoveringChannel: Sendable {
    /// What belongs to the channel.
    public struct Description: Sendable {
        public var confirmsPublishes: Bool
        /// See ``AMQPChannel/setPrefetch(_:isShared:)``; nil for any number.
        public var prefetch: Int?
        public var sharesPrefetch: Bool
        public var topology: AMQPTopology
        public var consumers: [Consumer]

        public init(
            confirmsPublishes: Bool = false, prefetch: Int? = nil, sharesPrefetch: Bool = false,
            topology: AMQPTopology = AMQPTopology(), consumers: [Consumer] = []
        ) {
            self.confirmsPublishes = confirmsPublishes
            self.prefetch = prefetch
            self.sharesPrefetch = sharesPrefetch
            self.topology = topology
            self.consumers = consumers
        }
    }

    public struct Consumer: Sendable, Hashable {
        public var queue: String
        /// Names the consumer on the channel.
        public var tag: String
        public var acknowledges: Bool
        public var arguments: AMQPTable

        public init(queue: String, tag: String, acknowledges: Bool = true, arguments: AMQPTable = [:]) {
            self.queue = queue
            self.tag = tag
            self.acknowledges = acknowledges
            self.arguments = arguments
        }
    }

    /// What happens to the channel. Called on any thread: each must be quick and must not block.
    public struct Events: Sendable {
        public var delivered: @Sendable ([AMQPDelivery], _ channel: Int) -> Void
        public var consumerCancelled: @Sendable (_ tag: String) -> Void
        /// A channel is open, and everything is declared.
        public var opened: @Sendable (_ channel: Int) -> Void
        /// The channel is over, or could not be opened. It is opened again after a while.
        public var lost: @Sendable (AMQPError) -> Void
        /// Something had been declared otherwise, and is used as it is.
        public var differs: @Sendable (_ difference: String) -> Void

        public init(
            delivered: @escaping @Sendable ([AMQPDelivery], Int) -> Void = { _, _ in },
            consumerCancelled: @escaping @Sendable (String) -> Void = { _ in },
            opened: @escaping @Sendable (Int) -> Void = { _ in },
            lost: @escaping @Sendable (AMQPError) -> Void = { _ in },
            differs: @escaping @Sendable (String) -> Void = { _ in }
        ) {
            self.delivered = delivered
            self.consumerCancelled = consumerCancelled
            self.opened = opened
            self.lost = lost
            self.differs = differs
        }
    }

    private struct State {
        var description: Description
        var channel: AMQPChannel?
        var number = 0
        /// Why there is no channel.
        var reason = AMQPError(.unreachable, "the channel is not open yet")
        var isClosed = false
        var waiters: [Int: CheckedContinuation<AMQPChannel?, Never>] = [:]
        var lastWaiter = 0
    }

    private let client: AMQPClient
    private let events: Events
    private let state: Mutex<State>

    /// The pauses between attempts to open a channel.
    private static let pauses: [Duration] = [
        .milliseconds(20), .milliseconds(100), .milliseconds(300), .milliseconds(500), .seconds(1), .seconds(2),
    ]

    public init(_ client: AMQPClient, _ description: Description, events: Events = Events()) {
        self.client = client
        self.events = events
        state = Mutex(State(description: description))
    }

    /// The open channel and its number; nil when there is none at the moment.
    public var current: (channel: AMQPChannel, number: Int)? {
        state.withLock { state in state.channel.map { ($0, state.number) } }
    }

    /// Why no channel is open.
    public var reason: AMQPError { state.withLock { $0.reason } }

    /// Changes what the next channel begins with. The open one is left as it is.
    public func change(_ change: (inout Description) -> Void) { state.withLock { change(&$0.description) } }

    /// The open channel; waits for one.
    /// - Throws: ``AMQPError``, why none could be opened in time.
    public func channel(within limit: Duration) async throws(AMQPError) -> AMQPChannel {
        if let open = current { return open.channel }
        let id = state.withLock { state in
            state.lastWaiter += 1
            return state.lastWaiter
        }
        let channel = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let channel: AMQPChannel?? = state.withLock { state in
                    if state.isClosed { return .some(nil) }
                    if let channel = state.channel { return channel }
                    if Task.isCancelled { return .some(nil) }
                    state.waiters[id] = continuation
                    return nil
                }
                if let channel { return continuation.resume(returning: channel) }
                // Not before somebody waits.
                _ = MultiThreadedEventLoopGroup.singleton.next().scheduleTask(in: TimeAmount(bounded: limit)) {
                    [weak self] in self?.release(id)
                }
            }
        } onCancel: {
            release(id)
        }
        guard let channel else { throw reason }
        return channel
    }

    private func release(_ id: Int) { state.withLock { $0.waiters.removeValue(forKey: id) }?.resume(returning: nil) }

    /// Keeps a channel open until ``close()`` or until the task is cancelled.
    public func run() async {
        var failures = 0
        while !state.withLock({ $0.isClosed }), !Task.isCancelled {
            do throws(AMQPError) {
                let (channel, ended) = try await open()
                let opened = ContinuousClock.now
                // Cancelling the task closes the channel, which ends it.
                let error = await withTaskCancellationHandler {
                    await ended.value
                } onCancel: {
                    channel.abandon()
                }
                // One that is lost again and again at once is no success.
                if ContinuousClock.now - opened > .seconds(3) { failures = 0 }
                lost(error)
            } catch {
                lost(error)
            }
            guard !state.withLock({ $0.isClosed }), !Task.isCancelled else { break }
            let pause = Self.pauses[min(failures, Self.pauses.count - 1)]
            failures += 1
            // Not all clients at once.
            try? await Task.sleep(for: pause * Double.random(in: 0.7...1.3))
        }
        finish()
    }

    private func open() async throws(AMQPError) -> (AMQPChannel, Ending) {
        let description = state.withLock { $0.description }
        let number = state.withLock { state in
            state.number += 1
            return state.number
        }
        let connection = try await client.connection()
        for difference in try await description.topology.declare(on: connection) { events.differs(difference) }
        let ending = Ending()
        let channel = try await connection.openChannel(
            AMQPChannel.Events(
                delivered: { [events] in events.delivered($0, number) },
                consumerCancelled: { [events] in events.consumerCancelled($0) },
                ended: { ending.end($0) }))
        do throws(AMQPError) {
            try await prepare(channel, description, number)
        } catch {
            channel.abandon()
            throw error
        }
        return (channel, ending)
    }

    private func prepare(
        _ channel: AMQPChannel, _ description: Description, _ number: Int
    ) async throws(AMQPError) {
        if description.confirmsPublishes { try await channel.confirmPublishes() }
        if let prefetch = description.prefetch {
            try await channel.setPrefetch(prefetch, isShared: description.sharesPrefetch)
        }
        let waiters = state.withLock { state in
            state.channel = channel
            defer { state.waiters = [:] }
            return state.waiters
        }
        // Before the first delivery.
        events.opened(number)
        for waiter in waiters.values { waiter.resume(returning: channel) }
        for consumer in description.consumers {
            try await channel.consume(
                consumer.queue, tag: consumer.tag, acknowledges: consumer.acknowledges, arguments: consumer.arguments)
        }
    }

    private func lost(_ error: AMQPError) {
        let isClosed = state.withLock { state in
            state.channel?.abandon()
            state.channel = nil
            state.reason = error
            return state.isClosed
        }
        if !isClosed { events.lost(error) }
    }

    /// Closes the channel for good. What was not acknowledged goes back to its queue.
    public func close() async {
        let channel = state.withLock { state in
            state.isClosed = true
            state.reason = AMQPError(.closed, "the channel was closed")
            return state.channel
        }
        try? await channel?.close()
        finish()
    }

    private func finish() {
        let waiters = state.withLock { state in
            state.channel = nil
            defer { state.waiters = [:] }
            return state.waiters
        }
        for waiter in waiters.values { waiter.resume(returning: nil) }
    }
}

/// The end of a channel, for the one who waits for it.
private final class Ending: Sendable {
    private enum State {
        case open(CheckedContinuation<AMQPError, Never>?)
        case ended(AMQPError)
    }

    private let state = Mutex(State.open(nil))

    func end(_ error: AMQPError) {
        let continuation = state.withLock { state -> CheckedContinuation<AMQPError, Never>? in
            guard case .open(let continuation) = state else { return nil }
            state = .ended(error)
            return continuation
        }
        continuation?.resume(returning: error)
    }

    var value: AMQPError {
        get async {
            await withCheckedContinuation { continuation in
                let error = state.withLock { state -> AMQPError? in
                    if case .ended(let error) = state { return error }
                    state = .open(continuation)
                    return nil
                }
                if let error { continuation.resume(returning: error) }
            }
        }
    }
}
