import NIOCore
import NIOPosix
import Synchronization

/// A TCP proxy in front of a server, which cuts, stalls or half-closes connections when a test wants it to.
public final class TroubleProxy: Sendable {
    private struct State {
        var pairs: [ObjectIdentifier: (client: any Channel, server: any Channel)] = [:]
        var isSwallowing = false
        var swallowedBytes = 0
        /// Connections that go on in silence.
        var silenced: Set<ObjectIdentifier> = []
        /// Connections to the server whose clients are gone.
        var orphans: [any Channel] = []
        var delay = TimeAmount.zero
        /// Bytes a second from the server to all clients together; 0 for any number.
        var rate = 0
        /// When the line is free again, at that rate.
        var freeAt = NIODeadline.now()
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

    deinit {
        listener.close(promise: nil)
        for orphan in state.withLock({ $0.orphans }) { orphan.close(promise: nil) }
    }

    private func added(_ client: any Channel, _ server: any Channel) {
        state.withLock { state in
            state.pairs[ObjectIdentifier(client)] = (client, server)
            // The memory of a channel that is gone may be used again.
            state.silenced.subtract([ObjectIdentifier(client), ObjectIdentifier(server)])
        }
        client.closeFuture.whenComplete { [weak self] _ in
            if self?.state.withLock({ $0.orphans.contains { $0 === server } }) != true { server.close(promise: nil) }
            self?.state.withLock { $0.pairs[ObjectIdentifier(client)] = nil }
        }
        server.closeFuture.whenComplete { _ in client.close(promise: nil) }
    }

    /// Closes every connection at once.
    public func cut() { for pair in state.withLock({ Array($0.pairs.values) }) { pair.client.close(promise: nil) } }

    /// Closes every connection to a client, and keeps those to the server: the server believes that its clients live,
    /// as when a reset gets lost.
    public func cutClients() {
        for pair in state.withLock({ Array($0.pairs.values) }) {
            state.withLock { state in
                state.orphans.append(pair.server)
                state.silenced.insert(ObjectIdentifier(pair.server))
            }
            pair.client.close(promise: nil)
        }
    }

    /// Drops everything that either side sends, and closes nothing: both ends believe that the other lives.
    public var isSwallowing: Bool {
        get { state.withLock { $0.isSwallowing } }
        set { state.withLock { $0.isSwallowing = newValue } }
    }

    /// How much was dropped while ``isSwallowing`` was true.
    public var swallowedBytes: Int { state.withLock { $0.swallowedBytes } }

    /// Drops everything on the connections that are open now, and closes none; new connections work. As when a firewall
    /// forgets its connections.
    public func silence() {
        state.withLock { state in
            for pair in state.pairs.values {
                state.silenced.formUnion([ObjectIdentifier(pair.client), ObjectIdentifier(pair.server)])
            }
        }
    }

    /// Lets through so many bytes a second to the clients, in all; 0 for any number.
    public func limit(toBytesPerSecond rate: Int) { state.withLock { $0.rate = rate } }

    /// Delays every piece of data from now on, in milliseconds.
    public func delay(by milliseconds: Int64) { state.withLock { $0.delay = .milliseconds(milliseconds) } }

    /// Closes the direction from the server to its clients, and leaves the other open.
    public func halfClose() {
        for pair in state.withLock({ Array($0.pairs.values) }) { pair.client.close(mode: .output, promise: nil) }
    }

    /// - Returns: when what was read is passed on; nil for never.
    fileprivate func delay(of size: Int, from channel: any Channel) -> TimeAmount? {
        state.withLock { state in
            if state.isSwallowing { state.swallowedBytes += size }
            if state.isSwallowing || state.silenced.contains(ObjectIdentifier(channel)) { return nil }
            guard state.rate > 0, state.pairs.values.contains(where: { $0.server === channel }) else {
                return state.delay
            }
            let now = NIODeadline.now()
            let time = TimeAmount.nanoseconds(Int64(size) * 1_000_000_000 / Int64(state.rate))
            state.freeAt = max(now, state.freeAt) + time
            return state.freeAt - now
        }
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
            guard let delay = owner.proxy?.delay(of: bytes.readableBytes, from: context.channel) else { return }
            let other = other
            if delay == .zero {
                other.writeAndFlush(bytes, promise: nil)
            } else {
                context.eventLoop.scheduleTask(in: delay) { other.writeAndFlush(bytes, promise: nil) }
            }
        }
    }
}
