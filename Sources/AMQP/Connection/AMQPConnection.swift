public import Endpoints
import NIOCore
import NIOPosix
import Synchronization

/// An open connection to a server, which carries channels.
///
/// It is not made again when it is lost: ``AMQPClient`` does that.
public final class AMQPConnection: Sendable {
    public let address: ServerAddress
    /// What the server says of itself: `product`, `version`, `capabilities`.
    public let serverProperties: AMQPTable
    /// The interval that was agreed on; zero for none.
    public let heartbeat: Duration
    let configuration: AMQPConfiguration
    let loop: any EventLoop
    let handler: NIOLoopBound<ConnectionHandler>
    let frameMaximum: Int

    private struct State {
        var isBlocked = false
        var reason: AMQPError?
        var listeners: [@Sendable (AMQPError) -> Void] = []
    }

    private let state = Mutex(State())

    init(
        handler: NIOLoopBound<ConnectionHandler>, loop: any EventLoop, address: ServerAddress,
        configuration: AMQPConfiguration, serverProperties: AMQPTable, frameMaximum: Int, heartbeat: Duration
    ) {
        self.handler = handler
        self.loop = loop
        self.address = address
        self.configuration = configuration
        self.serverProperties = serverProperties
        self.frameMaximum = frameMaximum
        self.heartbeat = heartbeat
    }

    /// Why the connection has ended; nil while it is open.
    public var reason: AMQPError? { state.withLock { $0.reason } }

    /// Whether the server takes no messages at the moment (`connection.blocked`).
    public var isBlocked: Bool { state.withLock { $0.isBlocked } }

    /// The version of the server, such as `3.10.8`; nil where it does not say.
    public var serverVersion: String? { serverProperties["version"]?.textValue }

    /// Opens a channel.
    /// - Parameter events: is told what the server sends by itself, on the event loop of the connection.
    /// - Throws: ``AMQPError``; a retry is safe.
    public func openChannel(_ events: AMQPChannel.Events = AMQPChannel.Events()) async throws(AMQPError) -> AMQPChannel
    {
        let promise = loop.makePromise(of: AMQPChannel.self)
        loop.execute { [self] in
            let handler = handler.value
            do throws(AMQPError) {
                let slot = try handler.openChannel(events)
                let channel = AMQPChannel(
                    connection: self, id: slot.id, slot: NIOLoopBound(slot, eventLoop: loop))
                handler.call(.channelOpen, on: slot) { result in promise.complete(result.map { _ in channel }) }
            } catch {
                promise.fail(error)
            }
        }
        return try await promise.futureResult.value()
    }

    /// Closes the connection in order. What waits for an answer fails.
    public func close() {
        loop.execute { [self] in handler.value.close() }
    }

    /// Calls `body` once when the connection has ended, on its event loop or at once.
    func onEnd(_ body: @escaping @Sendable (AMQPError) -> Void) {
        let reason = state.withLock { state in
            if state.reason == nil { state.listeners.append(body) }
            return state.reason
        }
        if let reason { body(reason) }
    }

    func note(isBlocked: Bool) { state.withLock { $0.isBlocked = isBlocked } }

    func noteClosed(_ error: AMQPError) {
        let listeners = state.withLock { state in
            state.reason = error
            defer { state.listeners = [] }
            return state.listeners
        }
        for listener in listeners { listener(error) }
    }
}

extension EventLoopFuture where Value: Sendable {
    /// The value, with the only kind of error that there is.
    func value() async throws(AMQPError) -> Value {
        do {
            return try await get()
        } catch let error as AMQPError {
            throw error
        } catch {
            throw AMQPError(.connectionLost, "\(error)", mayHaveRun: true)
        }
    }
}

extension EventLoopPromise where Value: Sendable {
    func complete(_ result: Result<Value, AMQPError>) { completeWith(result.mapError { $0 as any Error }) }
}
