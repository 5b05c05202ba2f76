import Endpoints
import NIOCore
import NIOPosix
import NIOSSL

/// Opens connections. Works on event loops alone, so that a program whose other threads are busy still reconnects.
struct Connector: Sendable {
    let configuration: AMQPConfiguration
    let group: any EventLoopGroup
    let tlsContext: NIOSSLContext?

    /// - Throws: ``AMQPError`` `.tls` when certificates or keys cannot be read.
    init(_ configuration: AMQPConfiguration, group: any EventLoopGroup) throws(AMQPError) {
        self.configuration = configuration
        self.group = group
        do {
            tlsContext = try configuration.tls.map { try NIOSSLContext(configuration: $0.nioConfiguration()) }
        } catch {
            throw AMQPError(.tls, "the TLS configuration is of no use: \(error)")
        }
    }

    /// Tries the servers in turn, beginning with the one at `first`.
    func connect(beginningWith first: Int) -> EventLoopFuture<AMQPConnection> {
        let servers = configuration.servers
        let loop = group.next()
        guard !servers.isEmpty else {
            return loop.makeFailedFuture(AMQPError(.misuse, "the configuration names no server"))
        }
        let order = (0..<servers.count).map { servers[(first + $0) % servers.count] }
        let opening = connect(to: order[0], on: loop)
        return order.dropFirst().reduce(opening) { opening, address in
            opening.flatMapError { error in
                // Another server of the cluster would refuse the same login.
                if (error as? AMQPError)?.code == .authentication { return loop.makeFailedFuture(error) }
                return connect(to: address, on: loop)
            }
        }
    }

    private func connect(to address: ServerAddress, on loop: any EventLoop) -> EventLoopFuture<AMQPConnection> {
        let ready = loop.makePromise(of: AMQPConnection.self)
        let settings = settings
        let bootstrap = ClientBootstrap(group: loop)
            .connectTimeout(TimeAmount(bounded: configuration.connectTimeout))
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.socketOption(.so_keepalive), value: 1)
            .channelInitializer { [configuration, tlsContext] channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tlsContext, case .host(let host, _) = address {
                        try channel.pipeline.syncOperations.addHandler(TLSSettings.handler(tlsContext, host: host))
                    }
                    try channel.pipeline.syncOperations.addHandler(
                        ConnectionHandler(configuration, settings: settings, address: address, ready: ready))
                }
            }
        let opened =
            switch address {
            case .host(let host, let port): bootstrap.connect(host: host, port: port)
            case .unix(let path): bootstrap.connect(unixDomainSocketPath: path)
            }
        let timeout = loop.scheduleTask(in: TimeAmount(bounded: configuration.connectTimeout)) {
            ready.fail(AMQPError(.unreachable, "\(address) did not open a connection in time"))
        }
        opened.whenFailure { error in
            ready.fail(AMQPError(.unreachable, "\(address) cannot be reached: \(ConnectFailure.reason(error))"))
        }
        // A connection that opens too late must not be left without an owner.
        opened.whenSuccess { channel in
            ready.futureResult.whenFailure { (_: any Error) in channel.close(mode: .all, promise: nil) }
        }
        ready.futureResult.whenComplete { _ in timeout.cancel() }
        return ready.futureResult
    }

    private var settings: ConnectionStateMachine.Settings {
        var properties: AMQPTable = [
            "product": "hoist", "platform": "Swift",
            "capabilities": .table([
                "publisher_confirms": true, "exchange_exchange_bindings": true, "basic.nack": true,
                "consumer_cancel_notify": true, "connection.blocked": true, "authentication_failure_close": true,
            ]),
        ]
        if let name = configuration.connectionName { properties["connection_name"] = .text(name) }
        let heartbeat = UInt16(configuration.heartbeat.components.seconds.clamped(to: 0...65_535))
        return ConnectionStateMachine.Settings(
            authentication: configuration.authentication(), virtualHost: configuration.virtualHost,
            properties: properties,
            tuning: AMQPMethod.Tuning(
                channelMaximum: UInt16(configuration.channelMaximum.clamped(to: 0...65_535)),
                frameMaximum: UInt32(configuration.frameMaximum.clamped(to: Frame.minimumSize...(16 << 20))),
                heartbeat: heartbeat))
    }
}

extension Comparable {
    func clamped(to range: ClosedRange<Self>) -> Self { min(max(self, range.lowerBound), range.upperBound) }
}
