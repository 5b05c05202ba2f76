public import NIOCore
public import NIOPosix
import Synchronization

/// A connection that is made when it is first needed, and again after it was lost.
public final class AMQPClient: Sendable {
    public let configuration: AMQPConfiguration
    private let connector: Connector

    private struct State {
        var connection: AMQPConnection?
        var opening: EventLoopFuture<AMQPConnection>?
        /// Which of the servers comes first.
        var first = 0
        var isClosed = false
    }

    private let state = Mutex(State())

    /// - Parameters:
    ///   - configuration: where the server is.
    ///   - group: the event loops of the connections; the group of the process by default.
    /// - Throws: ``AMQPError`` `.tls` when certificates or keys cannot be read.
    public init(
        _ configuration: AMQPConfiguration, group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton
    ) throws(AMQPError) {
        self.configuration = configuration
        connector = try Connector(configuration, group: group)
    }

    deinit { state.withLock { $0.connection }?.close() }

    /// The open connection; opened first when there is none. One attempt, which all callers at the time share.
    /// - Throws: ``AMQPError`` `.unreachable`, `.authentication`, `.tls`, or `.closed` after ``close()``; a retry is safe.
    public func connection() async throws(AMQPError) -> AMQPConnection {
        let (opening, isNew) = try state.withLock {
            state throws(AMQPError) -> (EventLoopFuture<AMQPConnection>, Bool) in
            if state.isClosed { throw AMQPError(.closed, "this client was closed") }
            if let connection = state.connection, connection.reason == nil {
                return (connection.loop.makeSucceededFuture(connection), false)
            }
            if let opening = state.opening { return (opening, false) }
            let opening = connector.connect(beginningWith: state.first)
            state.opening = opening
            return (opening, true)
        }
        // Not under the lock: it may be complete already.
        if isNew { opening.whenComplete { [weak self] result in self?.opened(result) } }
        return try await opening.value()
    }

    private func opened(_ result: Result<AMQPConnection, any Error>) {
        let late = state.withLock { state -> AMQPConnection? in
            state.opening = nil
            guard case .success(let connection) = result else { return nil }
            if state.isClosed { return connection }
            state.connection = connection
            return nil
        }
        late?.close()
        guard late == nil, case .success(let connection) = result else { return }
        let place = configuration.servers.firstIndex(of: connection.address) ?? 0
        connection.onEnd { [weak self, count = configuration.servers.count] _ in
            // The same server may be down: the others are asked first.
            self?.state.withLock { $0.first = (place + 1) % max(1, count) }
        }
    }

    /// Whether a connection is open at the moment.
    public var isConnected: Bool { state.withLock { $0.connection?.reason == nil && $0.connection != nil } }

    /// Closes the connection for good.
    public func close() {
        let connection = state.withLock { state in
            state.isClosed = true
            return state.connection
        }
        connection?.close()
    }
}
