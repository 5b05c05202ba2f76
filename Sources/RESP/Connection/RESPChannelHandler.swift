import Endpoints
import NIOCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Moves bytes between a channel and the state machines, and does what they decide.
///
/// Lives on its channel's event loop.
final class RESPChannelHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum Phase: ~Copyable {
        case handshaking(HandshakeStateMachine)
        case ready(PipelineStateMachine<RESPConnection.Request>)
        case closed
    }

    private let settings: HandshakeStateMachine.Settings
    private let address: ServerAddress
    private let keepAlive: TimeAmount
    private let spinLimit: TimeAmount
    private let isSubscriber: Bool
    private let onMessage: (@Sendable ([RESPValue]) -> Void)?
    /// Completed when the handshake has succeeded or failed.
    private let ready: EventLoopPromise<RESPConnection>

    private var phase: Phase
    private var parser: RESPParser
    private var received = ByteBuffer()
    private var connection: RESPConnection?
    private var reason: RESPError?
    private var ticker: RepeatedTask?

    init(
        settings: HandshakeStateMachine.Settings, address: ServerAddress, limits: RESPParser.Limits,
        keepAlive: TimeAmount,
        spinLimit: TimeAmount, isSubscriber: Bool, ready: EventLoopPromise<RESPConnection>,
        onMessage: (@Sendable ([RESPValue]) -> Void)?
    ) {
        self.settings = settings
        self.address = address
        self.keepAlive = keepAlive
        self.spinLimit = spinLimit
        self.isSubscriber = isSubscriber
        self.ready = ready
        self.onMessage = onMessage
        phase = .handshaking(HandshakeStateMachine(settings))
        parser = RESPParser(limits: limits)
    }

    /// Takes the phase, which the caller puts back after its decision. Meanwhile the phase is `closed`.
    private func takePhase() -> Phase {
        var taken = Phase.closed
        swap(&taken, &phase)
        return taken
    }

    private var now: Int64 { NIODeadline.now().nanoseconds }

    func channelActive(context: ChannelHandlerContext) {
        if case .handshaking(var machine) = takePhase() {
            let action = machine.begin()
            phase = .handshaking(machine)
            perform(action, context)
        }
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        if received.readableBytes == 0 { received = bytes } else { received.writeBuffer(&bytes) }
        do throws(RESPParser.Violation) {
            while reason == nil, let reply = try parser.next(from: &received) { handle(reply, context) }
        } catch {
            close(
                context,
                RESPError(.protocolViolation, "\(address) does not speak Redis' protocol: \(error)", mayHaveRun: true))
        }
        if received.readableBytes == 0 { received.clear(minimumCapacity: 0) } else { received.discardReadBytes() }
    }

    private func handle(_ reply: RESPParser.Reply, _ context: ChannelHandlerContext) {
        switch takePhase() {
        case .handshaking(var machine):
            guard case .value(let value) = reply else {
                phase = .handshaking(machine)
                return
            }
            let action = machine.received(value)
            phase = .handshaking(machine)
            perform(action, context)
        case .ready(var machine):
            let action = machine.received(reply, now: now)
            phase = .ready(machine)
            switch action {
            case .nothing: break
            case .complete(let request, let replies):
                // Noted before the caller resumes: its next command comes after this answer.
                let wakesUntil = connection?.noteAnswered(now: now)
                request.completion(.success(replies))
                if let wakesUntil { stayAwake(until: wakesUntil, NIOLoopBound(context, eventLoop: context.eventLoop)) }
            case .push(let elements): onMessage?(elements)
            case .close(let error): close(context, error)
            }
        case .closed: break
        }
    }

    /// Keeps the event loop turning without sleep until there is a command again. Tasks on the event loop still run;
    /// data for other connections waits meanwhile.
    private func stayAwake(until deadline: Int64, _ context: NIOLoopBound<ChannelHandlerContext>) {
        guard isIdle, now < deadline else { return }
        sched_yield()
        let bound = NIOLoopBound(self, eventLoop: context.value.eventLoop)
        context.value.eventLoop.execute { bound.value.stayAwake(until: deadline, context) }
    }

    private var isIdle: Bool {
        switch phase {
        case .ready(let machine): machine.isIdle
        default: false
        }
    }

    private func perform(_ action: HandshakeStateMachine.Action, _ context: ChannelHandlerContext) {
        switch action {
        case .send(let command): context.writeAndFlush(wrapOutboundOut(command.bytes), promise: nil)
        case .becomeReady(let isRESP3):
            phase = .ready(PipelineStateMachine(keepAlive: keepAlive.nanoseconds, isSubscriber: isSubscriber, now: now))
            let connection = RESPConnection(
                address: address, channel: context.channel, isRESP3: isRESP3, spinLimit: spinLimit)
            self.connection = connection
            let bound = NIOLoopBound((handler: self, context: context), eventLoop: context.eventLoop)
            // Often enough for short time-outs.
            let pace = TimeAmount.nanoseconds(min(max(keepAlive.nanoseconds / 3, 50_000_000), 1_000_000_000))
            ticker = context.eventLoop.scheduleRepeatedTask(initialDelay: pace, delay: pace) { _ in
                bound.value.handler.tick(bound.value.context)
            }
            ready.succeed(connection)
        case .fail(let error): close(context, RESPError(error.code, "\(address): \(error.message)", mayHaveRun: false))
        }
    }

    private func tick(_ context: ChannelHandlerContext) {
        guard case .ready(var machine) = takePhase() else { return }
        let action = machine.tick(now: now)
        phase = .ready(machine)
        switch action {
        case .nothing: break
        case .ping: context.writeAndFlush(wrapOutboundOut(RESPCommand("PING").bytes), promise: nil)
        case .close(let error): close(context, RESPError(error.code, "\(address): \(error.message)", mayHaveRun: true))
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard let flush = event as? FlushOutbox else { return context.fireUserInboundEventTriggered(event) }
        let requests = flush.connection.takeOutbox()
        guard case .ready(var machine) = takePhase() else {
            let error = reason ?? RESPError(.connectionLost, "the connection to \(address) is gone")
            for request in requests { request.completion(.failure(error)) }
            return
        }
        guard !requests.isEmpty else {
            phase = .ready(machine)
            return
        }
        let sentAt = now
        var bytes = requests[0].bytes
        for (index, request) in requests.enumerated() {
            if index > 0 { bytes.writeImmutableBuffer(request.bytes) }
            guard request.expectedReplies > 0 else { continue }
            machine.sent(request, expecting: request.expectedReplies, deadline: sentAt + request.timeout.nanoseconds)
        }
        phase = .ready(machine)
        context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        let what = String(describing: error)
        let isTLS = TLSSettings.isFailure(error)
        close(
            context,
            RESPError(
                isTLS ? .tls : .connectionLost, "the connection to \(address) failed: \(what)",
                mayHaveRun: connection != nil))
    }

    private func close(_ context: ChannelHandlerContext, _ error: RESPError) {
        end(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        end(RESPError(.connectionLost, "\(address) closed the connection"))
        context.fireChannelInactive()
    }

    /// Fails all requests that wait. Does so at once and not when the channel is closed: over TLS the close takes a
    /// while.
    private func end(_ error: RESPError) {
        guard reason == nil else { return }
        reason = error
        ticker?.cancel()
        // A caller that waits for the connection has sent nothing yet.
        ready.fail(RESPError(error.code, error.message))
        let requests = if case .ready(var machine) = takePhase() { machine.close() } else { [RESPConnection.Request]() }
        connection?.noteClosed(error)
        for request in requests { request.completion(.failure(RESPError(error.code, error.message, mayHaveRun: true))) }
    }
}
