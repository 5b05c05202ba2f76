public import Hoist
public import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
public import PrometheusText
public import ServiceLifecycle

/// Answers probes of a worker over HTTP: `/live`, `/ready` and `/metrics`.
///
/// ```swift
/// let metrics = PrometheusFactory()
/// let worker = Worker(backend, configuration: .init(metrics: metrics), logger: logger) { … }
/// try await worker.runUntilSignalled(besides: [WorkerProbes(worker, at: .tcp(host: "127.0.0.1", port: 9090), metrics: metrics, logger: logger)])
/// ```
/// It answers on an event loop of its own, so that also a worker whose jobs occupy every thread is seen to live.
/// Whoever reaches the address may ask: bind it to where only the probes of the platform come from.
///
/// | path | 200 | otherwise 503 |
/// |---|---|---|
/// | `/live` | the worker has its lease and renews it in time | |
/// | `/ready` | the backend answered, the worker takes jobs and is not `WorkerHealth.isDeaf` | also while it drains |
/// | `/metrics` | the metrics, in Prometheus' text format | 404 without metrics |
public struct WorkerProbes: Service {
    /// Where probes come in.
    public enum Address: Sendable, Hashable {
        case tcp(host: String, port: Int)
        /// The path of a Unix socket, which is removed at the end.
        case unix(String)

        /// - Parameter text: `HOST:PORT`, `[::1]:PORT` or the path of a socket, which begins with a slash.
        /// - Returns: nil for anything else.
        public init?(_ text: String) {
            if text.hasPrefix("/") {
                self = .unix(text)
                return
            }
            guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
                (0...65_535).contains(port)
            else { return nil }
            var host = String(text[..<colon])
            if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
            guard !host.isEmpty else { return nil }
            self = .tcp(host: host, port: port)
        }

        /// The address in its text form, with the port that it got.
        fileprivate func text(boundTo bound: Int?) -> String {
            switch self {
            case .tcp(let host, let port): (host.contains(":") ? "[\(host)]" : host) + ":\(bound ?? port)"
            case .unix(let path): path
            }
        }
    }

    private let worker: Worker
    private let address: Address
    private let metrics: PrometheusFactory?
    private let logger: Logger
    private let onListening: (@Sendable (_ port: Int?) -> Void)?

    /// - Parameters:
    ///   - worker: whose health is told.
    ///   - address: where to listen; port 0 for any that is free.
    ///   - metrics: what `/metrics` tells; nil for nothing.
    ///   - logger: is told where it listens.
    ///   - onListening: called once it listens, with the port; nil for a Unix socket.
    public init(
        _ worker: Worker, at address: Address, metrics: PrometheusFactory? = nil, logger: Logger,
        onListening: (@Sendable (_ port: Int?) -> Void)? = nil
    ) {
        self.worker = worker
        self.address = address
        self.metrics = metrics
        self.logger = logger
        self.onListening = onListening
    }

    /// Answers until a graceful shutdown, or until the task is cancelled.
    /// - Throws: what the system says when the address cannot be listened on: a retry may help once it is free.
    public func run() async throws {
        // A child of the process lane runs the same program: its worker answers, and it only lives on.
        guard !WorkerChild.isChild else { return try await gracefulShutdown() }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        do {
            let channel = try await bind(group)
            logger.info(
                "probes are answered", metadata: ["address": "\(address.text(boundTo: channel.localAddress?.port))"])
            onListening?(channel.localAddress?.port)
            try await withTaskCancellationHandler {
                try await withGracefulShutdownHandler {
                    try await channel.closeFuture.get()
                } onGracefulShutdown: {
                    channel.close(promise: nil)
                }
            } onCancel: {
                channel.close(promise: nil)
            }
        } catch {
            try? await group.shutdownGracefully()
            throw error
        }
        try await group.shutdownGracefully()
    }

    private func bind(_ group: MultiThreadedEventLoopGroup) async throws -> any Channel {
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { [worker, metrics] channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(IdleStateHandler(allTimeout: .seconds(15)))
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline(withErrorHandling: true)
                    try channel.pipeline.syncOperations.addHandler(ProbeHandler(worker, metrics))
                }
            }
        return switch address {
        case .tcp(let host, let port): try await bootstrap.bind(host: host, port: port).get()
        case .unix(let path):
            try await bootstrap.bind(unixDomainSocketPath: path, cleanupExistingSocketFile: true).get()
        }
    }
}

/// Answers the requests of one connection.
///
/// `@unchecked Sendable` is not needed: it stays on its event loop.
private final class ProbeHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let worker: Worker
    private let metrics: PrometheusFactory?
    private var head: HTTPRequestHead?

    init(_ worker: Worker, _ metrics: PrometheusFactory?) {
        self.worker = worker
        self.metrics = metrics
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): self.head = head
        // A probe has no body: what comes is dropped.
        case .body: break
        case .end:
            guard let head else { return }
            self.head = nil
            answer(head, context)
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is IdleStateHandler.IdleStateEvent { context.close(promise: nil) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func answer(_ request: HTTPRequestHead, _ context: ChannelHandlerContext) {
        let path = request.uri.prefix { $0 != "?" }
        let (status, type, body): (HTTPResponseStatus, String, String)
        if request.method != .GET, request.method != .HEAD {
            (status, type, body) = (.methodNotAllowed, "text/plain", "GET or HEAD\n")
        } else if path == "/live" || path == "/ready" {
            let health = worker.health
            let isGood = path == "/live" ? health.isAlive : health.isReady
            (status, type) = (isGood ? .ok : .serviceUnavailable, "application/json")
            body = (try? JSONText.shown(health)) ?? "{}"
        } else if path == "/metrics", let metrics {
            (status, type, body) = (.ok, PrometheusFactory.contentType, metrics.text())
        } else {
            (status, type, body) = (.notFound, "text/plain", "/live, /ready\(metrics == nil ? "" : ", /metrics")\n")
        }
        var headers = HTTPHeaders([
            ("Content-Type", type), ("Content-Length", String(body.utf8.count)), ("Cache-Control", "no-store"),
        ])
        if !request.isKeepAlive { headers.add(name: "Connection", value: "close") }
        let head = HTTPResponseHead(version: request.version, status: status, headers: headers)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if request.method != .HEAD {
            context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: body)))), promise: nil)
        }
        let isLast = !request.isKeepAlive
        let loopBound = NIOLoopBound(context, eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in
            if isLast { loopBound.value.close(promise: nil) }
        }
    }
}
