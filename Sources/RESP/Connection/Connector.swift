import Endpoints
import NIOCore
import NIOPosix
import NIOSSL

/// Opens connections. Works on event loops alone, so that a program whose other threads are busy still reconnects.
struct Connector: Sendable {
    let configuration: RESPConfiguration
    let group: any EventLoopGroup
    let tlsContext: NIOSSLContext?

    /// - Throws: ``RESPError`` when certificates or keys cannot be read.
    init(_ configuration: RESPConfiguration, group: any EventLoopGroup) throws(RESPError) {
        self.configuration = configuration
        self.group = group
        do {
            tlsContext = try configuration.tls.map { try NIOSSLContext(configuration: $0.nioConfiguration()) }
        } catch let error as RESPError {
            throw error
        } catch {
            throw RESPError(.tls, "the TLS configuration is of no use: \(error)")
        }
    }

    enum Purpose {
        case commands
        case sentinel
        case subscriptions(onMessage: @Sendable ([RESPValue]) -> Void)
    }

    func connect(to address: ServerAddress, for purpose: Purpose, mustBePrimary: Bool = false) -> EventLoopFuture<
        RESPConnection
    > {
        let loop = group.next()
        let ready = loop.makePromise(of: RESPConnection.self)
        var settings = HandshakeStateMachine.Settings(
            database: configuration.database, clientName: configuration.clientName)
        let credentials = configuration.credentials()
        (settings.username, settings.password) = (credentials?.username, credentials?.password)
        settings.mustBePrimary = mustBePrimary
        var (onMessage, isSubscriber): ((@Sendable ([RESPValue]) -> Void)?, Bool) = (nil, false)
        switch purpose {
        case .commands: break
        case .subscriptions(let handler): (onMessage, isSubscriber) = (handler, true)
        case .sentinel:
            settings.database = 0
            let own = configuration.sentinelCredentials
            (settings.username, settings.password) = (own?.username, own?.password)
        }
        let bootstrap = ClientBootstrap(group: loop)
            .connectTimeout(TimeAmount(bounded: configuration.connectTimeout))
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.socketOption(.so_keepalive), value: 1)
            .channelInitializer { [configuration, tlsContext, settings, onMessage, isSubscriber] channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tlsContext, case .host(let host, _) = address {
                        try channel.pipeline.syncOperations.addHandler(TLSSettings.handler(tlsContext, host: host))
                    }
                    try channel.pipeline.syncOperations.addHandler(
                        RESPChannelHandler(
                            settings: settings, address: address, limits: configuration.limits,
                            keepAlive: TimeAmount(bounded: configuration.keepAlive),
                            spinLimit: TimeAmount(bounded: configuration.spinLimit),
                            isSubscriber: isSubscriber, ready: ready, onMessage: onMessage))
                }
            }
        let opened =
            switch address {
            case .host(let host, let port): bootstrap.connect(host: host, port: port)
            case .unix(let path): bootstrap.connect(unixDomainSocketPath: path)
            }
        let timeout = loop.scheduleTask(in: TimeAmount(bounded: configuration.connectTimeout)) {
            ready.fail(RESPError(.unreachable, "\(address) did not finish its greeting in time"))
        }
        opened.whenFailure { error in
            ready.fail(RESPError(.unreachable, "\(address) cannot be reached: \(ConnectFailure.reason(error))"))
        }
        // A handshake that succeeds too late must not leave a connection without an owner behind.
        opened.whenSuccess { channel in ready.futureResult.whenFailure { _ in channel.close(promise: nil) } }
        ready.futureResult.whenComplete { _ in timeout.cancel() }
        return ready.futureResult
    }
}
