import NIOCore
import NIOPosix
import Synchronization

/// A TCP proxy in front of a server, which cuts, stalls or half-closes connections when a test wants it to.
public final class TroubleProxy: Sendable {
    private struct State {
        var pairs: [ObjectIdentifier: (client: any Channel, server: any Channel)] = [:]
        var isSwallowing = false
        var delay = TimeAmount.zero
    }

    public let port: Int
    private let listener: any Channel
    private let state: Mutex<State>

    /// Listens on a free port of the loopback interface; each client gets a connection of its own to `serverPort`.
    /// - Throws: the error of NIO when no port can be bound. A retry is safe.
    public init(to serverPort: Int) throws {
        let group = MultiThreadedEventLoopGroup.singleton
        let box = StateBox()
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { client in
                // The two ends live on one event loop, so that each may write to the other without a hop.
                ClientBootstrap(group: client.eventLoop).connect(host: "127.0.0.1", port: serverPort).flatMap {
                    server in
                    client.eventLoop.makeCompletedFuture {
                        try client.pipeline.syncOperations.addHandler(Relay(other: server, owner: box))
                        try server.pipeline.syncOperations.addHandler(Relay(other: client, owner: box))
                        box.proxy?.added(client, server)
                    }
                }
            }
        listener = try bootstrap.bind(host: "127.0.0.1", port: 0).wait()
        port = listener.localAddress?.port ?? 0
        state = Mutex(State())
        box.proxy = self
    }

    deinit { listener.close(promise: nil) }

    private func added(_ client: any Channel, _ server: any Channel) {
        state.withLock { $0.pairs[ObjectIdentifier(client)] = (client, server) }
        client.closeFuture.whenComplete { [weak self] _ in
            server.close(promise: nil)
            self?.state.withLock { $0.pairs[ObjectIdentifier(client)] = nil }
        }
        server.closeFuture.whenComplete { _ in client.close(promise: nil) }
    }

    /// Closes every connection at once.
    public func cut() { for pair in state.withLock({ Array($0.pairs.values) }) { pair.client.close(promise: nil) } }

    /// Drops everything that either side sends, and closes nothing: both ends believe that the other lives.
    public var isSwallowing: Bool {
        get { state.withLock { $0.isSwallowing } }
        set { state.withLock { $0.isSwallowing = newValue } }
    }

    /// Delays every piece of data from now on, in milliseconds.
    public func delay(by milliseconds: Int64) { state.withLock { $0.delay = .milliseconds(milliseconds) } }

    /// Closes the direction from the server to its clients, and leaves the other open.
    public func halfClose() {
        for pair in state.withLock({ Array($0.pairs.values) }) { pair.client.close(mode: .output, promise: nil) }
    }

    fileprivate var behaviour: (isSwallowing: Bool, delay: TimeAmount) {
        state.withLock { ($0.isSwallowing, $0.delay) }
    }

    private final class StateBox: Sendable {
        private let reference = Mutex<Weak>(Weak())
        private struct Weak { weak var proxy: TroubleProxy? }

        var proxy: TroubleProxy? {
            get { reference.withLock { $0.proxy } }
            set { reference.withLock { $0.proxy = newValue } }
        }
    }

    private final class Relay: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let other: any Channel
        private let owner: StateBox

        init(other: any Channel, owner: StateBox) {
            self.other = other
            self.owner = owner
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let bytes = unwrapInboundIn(data)
            let (isSwallowing, delay) = owner.proxy?.behaviour ?? (false, .zero)
            if isSwallowing { return }
            let other = other
            if delay == .zero {
                other.writeAndFlush(bytes, promise: nil)
            } else {
                context.eventLoop.scheduleTask(in: delay) { other.writeAndFlush(bytes, promise: nil) }
            }
        }
    }
}
