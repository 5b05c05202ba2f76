import NIOCore
import Synchronization

/// The subscriptions of a client to channels and patterns, on one connection that is opened again when it is lost.
public final class RESPSubscriptions: Sendable {
    public enum Event: Sendable, Hashable {
        /// A message, and the channel it came on.
        case message(channel: String, [UInt8])
        /// The subscription is active from now on. Messages published before are missed, also those between the loss of
        /// a connection and this event.
        case subscribed
    }

    public enum Target: Sendable, Hashable {
        case channel(String)
        case pattern(String)

        var subscribe: RESPCommand {
            switch self {
            case .channel(let name): RESPCommand("SUBSCRIBE", [.text(name)])
            case .pattern(let pattern): RESPCommand("PSUBSCRIBE", [.text(pattern)])
            }
        }

        var unsubscribe: RESPCommand {
            switch self {
            case .channel(let name): RESPCommand("UNSUBSCRIBE", [.text(name)])
            case .pattern(let pattern): RESPCommand("PUNSUBSCRIBE", [.text(pattern)])
            }
        }
    }

    private struct State {
        var handlers: [Target: @Sendable (Event) -> Void] = [:]
        var connection: RESPConnection?
        var isConnecting = false
        var isClosed = false
        var failures = 0
    }

    private let client: RESPClient
    private let loop: any EventLoop
    private let state = Mutex(State())

    public init(_ client: RESPClient) {
        self.client = client
        loop = client.eventLoop
    }

    /// Listens to a target, until ``unsubscribe(from:)`` or ``close()``.
    /// - Parameters:
    ///   - target: a channel or a pattern.
    ///   - handler: called on an event loop: it must be quick and must not block. A second handler of the same target
    ///     replaces the first.
    public func subscribe(to target: Target, _ handler: @escaping @Sendable (Event) -> Void) {
        // Sent under the lock, so that the server receives changes in the order in which they were made.
        let isConnected = state.withLock { state in
            // The server has a known target already, or gets it when the connection is open.
            let isNew = state.handlers.updateValue(handler, forKey: target) == nil
            if isNew { state.connection?.sendWithoutReply(target.subscribe) }
            return state.connection != nil
        }
        if !isConnected { connect() }
    }

    public func unsubscribe(from target: Target) {
        state.withLock { state in
            if state.handlers.removeValue(forKey: target) != nil {
                state.connection?.sendWithoutReply(target.unsubscribe)
            }
        }
    }

    public func close() {
        let connection = state.withLock { state in
            state.isClosed = true
            state.handlers = [:]
            return state.connection.take()
        }
        connection?.close()
    }

    private func connect() {
        let mustConnect = state.withLock { state in
            guard !state.isConnecting, !state.isClosed, state.connection == nil, !state.handlers.isEmpty else {
                return false
            }
            state.isConnecting = true
            return true
        }
        guard mustConnect else { return }
        client.openSubscriptions { [weak self] in self?.received($0) }.whenComplete { [weak self] result in
            guard let self else {
                if case .success(let connection) = result { connection.close() }
                return
            }
            opened(result)
        }
    }

    private func opened(_ result: Result<RESPConnection, any Error>) {
        switch result {
        case .success(let connection):
            let isWanted = state.withLock { state in
                state.isConnecting = false
                // A connection counts as a failure until the server has confirmed a subscription.
                state.failures += 1
                guard !state.isClosed, !state.handlers.isEmpty else { return false }
                state.connection = connection
                for target in state.handlers.keys { connection.sendWithoutReply(target.subscribe) }
                return true
            }
            if !isWanted { connection.close() }
            connection.closeFuture.whenComplete { [weak self] _ in self?.lost() }
        case .failure:
            state.withLock { state in
                state.isConnecting = false
                state.failures += 1
            }
            connectLater()
        }
    }

    private func lost() {
        state.withLock { $0.connection = nil }
        connectLater()
    }

    /// Connects again after 25 milliseconds at first, and after up to 2 seconds when it fails repeatedly: subscribers
    /// wait for messages.
    private func connectLater() {
        let (failures, isClosed) = state.withLock { ($0.failures, $0.isClosed) }
        // After the close the event loop may be gone.
        if isClosed { return }
        loop.scheduleTask(in: .milliseconds(min(2000, 25 << min(failures, 7)))) { [weak self] in self?.connect() }
    }

    private func received(_ elements: [RESPValue]) {
        guard let kind = elements.first?.text else { return }
        switch kind {
        case "message" where elements.count == 3:
            deliver(
                .channel(elements[1].text ?? ""), .message(channel: elements[1].text ?? "", elements[2].bytes ?? []))
        case "pmessage" where elements.count == 4:
            deliver(
                .pattern(elements[1].text ?? ""), .message(channel: elements[2].text ?? "", elements[3].bytes ?? []))
        case "subscribe" where elements.count == 3:
            state.withLock { $0.failures = 0 }
            deliver(.channel(elements[1].text ?? ""), .subscribed)
        case "psubscribe" where elements.count == 3:
            state.withLock { $0.failures = 0 }
            deliver(.pattern(elements[1].text ?? ""), .subscribed)
        default: break
        }
    }

    private func deliver(_ target: Target, _ event: Event) {
        state.withLock { $0.handlers[target] }?(event)
    }
}
