import Endpoints
import NIOCore

/// Moves bytes between a socket and the state machines of a connection and its channels, and does what they decide.
///
/// Lives on its channel's event loop.
final class ConnectionHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// One channel of the connection.
    final class Slot {
        let id: UInt16
        var machine = ChannelStateMachine<Call, Publication>()
        var assembler: ContentAssembler
        let events: AMQPChannel.Events
        /// What has come in this turn of the event loop.
        var delivered: [AMQPDelivery] = []

        init(_ id: UInt16, _ limits: AMQPLimits, _ events: AMQPChannel.Events) {
            self.id = id
            assembler = ContentAssembler(limits)
            self.events = events
        }
    }

    typealias Reply = ChannelStateMachine<Call, Publication>.Reply

    /// Somebody who waits for an answer.
    final class Call {
        private var completion: ((Result<Reply, AMQPError>) -> Void)?
        var timeout: Scheduled<Void>?

        init(_ completion: @escaping (Result<Reply, AMQPError>) -> Void) { self.completion = completion }

        func complete(_ result: Result<Reply, AMQPError>) {
            timeout?.cancel()
            let completion = completion
            self.completion = nil
            completion?(result)
        }
    }

    /// One of the messages of a batch.
    struct Publication {
        var batch: PublishBatch
        var index: Int
    }

    private let configuration: AMQPConfiguration
    private let address: ServerAddress
    /// Completed when the connection is open, or has failed.
    private let ready: EventLoopPromise<AMQPConnection>
    private var machine: ConnectionStateMachine
    private var decoder: FrameDecoder
    private var received = ByteBuffer()
    private var heartbeats: HeartbeatMonitor?
    private var ticker: RepeatedTask?
    private var context: ChannelHandlerContext?
    private var connection: AMQPConnection?
    private var slots: [UInt16: Slot] = [:]
    private var lastID: UInt16 = 0
    private var isFlushPending = false
    /// Why the server takes no messages; nil when it does.
    private var blockReason: String?
    /// Messages that wait for the server to take messages again.
    private var held: [(batch: PublishBatch, slot: Slot)] = []
    private var channelMaximum = 0
    private(set) var frameMaximum = Frame.minimumSize
    /// Why the connection has ended; nil while it lives.
    private(set) var reason: AMQPError?

    init(
        _ configuration: AMQPConfiguration, settings: ConnectionStateMachine.Settings, address: ServerAddress,
        ready: EventLoopPromise<AMQPConnection>
    ) {
        self.configuration = configuration
        self.address = address
        self.ready = ready
        machine = ConnectionStateMachine(settings)
        // Until another size is agreed on; a server's first frame, with all it says of itself, may be larger than the
        // least.
        decoder = FrameDecoder(limits: configuration.limits, frameMaximum: max(configuration.frameMaximum, 131_072))
    }

    private var now: Int64 { NIODeadline.now().nanoseconds }

    // MARK: - From the socket

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func channelActive(context: ChannelHandlerContext) {
        machine.begun()
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: Frame.protocolHeader)), promise: nil)
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        heartbeats?.read(at: now)
        var bytes = unwrapInboundIn(data)
        if received.readableBytes == 0 { received = bytes } else { received.writeBuffer(&bytes) }
        do throws(AMQPViolation) {
            while reason == nil, let frame = try decoder.next(from: &received) { try handle(frame) }
        } catch {
            perform(machine.violated(error))
        }
        for slot in slots.values { handOut(slot) }
        if received.readableBytes == 0 { received.clear(minimumCapacity: 0) } else { received.discardReadBytes() }
    }

    private func handle(_ frame: Frame) throws(AMQPViolation) {
        switch frame {
        case .heartbeat: break
        case .method(0, let method): perform(machine.received(method))
        case .header(0, _), .body(0, _): throw AMQPViolation("a message on the channel 0")
        case .method(let id, let method):
            // A channel that was closed meanwhile may still be spoken to.
            guard let slot = slots[id] else { return }
            if method.hasContent {
                try slot.assembler.begin(method)
            } else {
                guard slot.assembler.isIdle else { throw AMQPViolation("a message ends before its body") }
                perform(try slot.machine.received(method), slot)
            }
        case .header(let id, let header):
            guard let slot = slots[id] else { return }
            if let content = try slot.assembler.received(header) { perform(try slot.machine.received(content), slot) }
        case .body(let id, let part):
            guard let slot = slots[id] else { return }
            if let content = try slot.assembler.received(part) { perform(try slot.machine.received(content), slot) }
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        end(
            AMQPError(
                TLSSettings.isFailure(error) ? .tls : connection == nil ? .unreachable : .connectionLost,
                "the connection to \(address) failed: \(error)"))
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        // RabbitMQ closes the socket without a word when the login is wrong and the client does not say that it
        // understands more; this one does.
        end(
            AMQPError(
                connection == nil ? .unreachable : .connectionLost, "\(address) closed the connection without a reason")
        )
        context.fireChannelInactive()
    }

    // MARK: - What the machines decide

    private func perform(_ action: ConnectionStateMachine.Action) {
        switch action {
        case .nothing: break
        case .send(let methods): for method in methods { send(method, channel: 0) }
        case .becomeOpen(let tuning, let server): becomeOpen(tuning, server)
        case .block(let reason):
            blockReason = reason
            connection?.note(isBlocked: true)
        case .unblock:
            blockReason = nil
            connection?.note(isBlocked: false)
            let held = held
            self.held = []
            for (batch, slot) in held { write(batch, on: slot) }
        case .finish(let answer, let failure):
            if let answer { send(answer, channel: 0) }
            flush()
            let failed = failure.map {
                AMQPError($0.code, "\(address): \($0.message)", replyCode: $0.replyCode)
            }
            end(failed ?? AMQPError(.closed, "the connection to \(address) was closed"))
            context?.close(promise: nil)
        }
    }

    private func becomeOpen(_ tuning: AMQPMethod.Tuning, _ server: AMQPTable) {
        guard let context else { return }
        channelMaximum = tuning.channelMaximum == 0 ? 65_535 : Int(tuning.channelMaximum)
        frameMaximum = Int(min(tuning.frameMaximum, UInt32(Int32.max)))
        decoder.frameMaximum = frameMaximum
        let monitor = HeartbeatMonitor(interval: Int64(tuning.heartbeat) * 1_000_000_000, now: now)
        heartbeats = monitor
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        let connection = AMQPConnection(
            handler: bound, loop: context.eventLoop, address: address, configuration: configuration,
            serverProperties: server, frameMaximum: frameMaximum,
            heartbeat: .seconds(Int64(tuning.heartbeat)))
        self.connection = connection
        ticker = context.eventLoop.scheduleRepeatedTask(
            initialDelay: .nanoseconds(monitor.pace), delay: .nanoseconds(monitor.pace)
        ) { _ in
            bound.value.tick()
        }
        ready.succeed(connection)
    }

    private func tick() {
        switch heartbeats?.tick(now: now) ?? .nothing {
        case .nothing: break
        case .send:
            var buffer = ByteBuffer()
            buffer.writeHeartbeat()
            write(buffer)
        case .giveUp:
            end(AMQPError(.connectionLost, "\(address) is silent; the connection counts as lost"))
            context?.close(promise: nil)
        }
    }

    private func handOut(_ slot: Slot) {
        guard !slot.delivered.isEmpty else { return }
        let deliveries = slot.delivered
        slot.delivered = []
        slot.events.delivered(deliveries)
    }

    private func perform(_ action: ChannelStateMachine<Call, Publication>.Action, _ slot: Slot) {
        switch action {
        case .nothing: break
        case .complete(let call, let reply): call.complete(.success(reply))
        case .deliver(let delivery): slot.delivered.append(delivery)
        case .confirmed(let publications):
            for (publication, confirm) in publications { publication.batch.settle(publication.index, confirm) }
        case .consumerCancelled(let tag):
            handOut(slot)
            slot.events.consumerCancelled(tag)
        case .send(let method): send(method, channel: slot.id)
        case .end(let error, let answer, let calls, let publications):
            if let answer { send(answer, channel: slot.id) }
            slots[slot.id] = nil
            end(slot, error, calls, publications)
        }
    }

    private func end(_ slot: Slot, _ error: AMQPError, _ calls: [Call], _ publications: [Publication]) {
        handOut(slot)
        var lost = error
        lost.mayHaveRun = true
        // The call that closed the channel comes first, and is the only one that has got what it asked for.
        let closing = slot.machine.wasClosedByCall ? calls.first : nil
        for call in calls { call.complete(call === closing ? .success(.method(.channelCloseOK)) : .failure(lost)) }
        for publication in publications { publication.batch.fail(lost) }
        let waiting = held.filter { $0.slot === slot }
        held.removeAll { $0.slot === slot }
        for (batch, _) in waiting { batch.fail(error) }
        slot.events.ended(error)
    }

    /// The connection is over. Does so at once and not when the socket is closed: over TLS the close takes a while.
    private func end(_ error: AMQPError) {
        guard reason == nil else { return }
        reason = error
        ticker?.cancel()
        ready.fail(error)
        let slots = slots.values
        self.slots = [:]
        for slot in slots {
            guard case .end(let error, _, let calls, let publications) = slot.machine.lost(error) else { continue }
            end(slot, error, calls, publications)
        }
        // The two hold each other.
        let connection = connection
        self.connection = nil
        connection?.noteClosed(error)
    }

    // MARK: - From this program

    func openChannel(_ events: AMQPChannel.Events) throws(AMQPError) -> Slot {
        if let reason { throw reason }
        guard slots.count < channelMaximum else {
            throw AMQPError(.misuse, "the connection to \(address) has \(channelMaximum) channels, as many as it may")
        }
        repeat { lastID = Int(lastID) >= channelMaximum ? 1 : lastID + 1 } while slots[lastID] != nil
        let slot = Slot(lastID, configuration.limits, events)
        slots[slot.id] = slot
        return slot
    }

    /// Sends a method that has an answer.
    func call(_ method: AMQPMethod, on slot: Slot, _ completion: @escaping (Result<Reply, AMQPError>) -> Void) {
        guard let kind = method.asks, let context else {
            return completion(.failure(reason ?? AMQPError(.misuse, "\(method.name) has no answer")))
        }
        var buffer = ByteBuffer()
        do throws(AMQPError) {
            try buffer.write(method, channel: slot.id)
        } catch {
            return completion(.failure(error))
        }
        let call = Call(completion)
        if let refusal = slot.machine.calling(kind, call) { return completion(.failure(refusal)) }
        let name = method.name
        let bound = NIOLoopBound((call: call, address: address), eventLoop: context.eventLoop)
        call.timeout = context.eventLoop.scheduleTask(in: TimeAmount(bounded: configuration.callTimeout)) {
            bound.value.call.complete(
                .failure(
                    AMQPError(.timedOut, "\(bound.value.address) did not answer \(name) in time", mayHaveRun: true)))
        }
        write(buffer)
    }

    /// Sends a method that has no answer.
    func tell(_ method: AMQPMethod, on slot: Slot) {
        guard slot.machine.refusal == nil else { return }
        send(method, channel: slot.id)
    }

    func publish(_ batch: PublishBatch, on slot: Slot) {
        if let refusal = reason ?? slot.machine.refusal { return batch.fail(refusal) }
        guard let context else { return }
        let bound = NIOLoopBound((handler: self, batch: batch), eventLoop: context.eventLoop)
        batch.timeout = context.eventLoop.scheduleTask(in: TimeAmount(bounded: batch.limit)) {
            bound.value.handler.expire(bound.value.batch)
        }
        if blockReason != nil { held.append((batch, slot)) } else { write(batch, on: slot) }
    }

    private func expire(_ batch: PublishBatch) {
        if let place = held.firstIndex(where: { $0.batch === batch }) {
            held.remove(at: place)
            let why = blockReason ?? "no reason given"
            return batch.fail(AMQPError(.blocked, "\(address) takes no messages at the moment: \(why)"))
        }
        batch.fail(AMQPError(.timedOut, "\(address) did not confirm messages in time", mayHaveRun: true))
    }

    private func write(_ batch: PublishBatch, on slot: Slot) {
        for (index, route) in batch.routes.enumerated() {
            if let refusal = slot.machine.publishing(Publication(batch: batch, index: index), mandatory: route) {
                return batch.fail(refusal)
            }
        }
        write(batch.bytes)
        if !slot.machine.usesConfirms { batch.settleAll() }
    }

    func close() {
        perform(machine.close())
        guard reason == nil, let context else { return }
        // A server that does not read does not answer either.
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        _ = context.eventLoop.scheduleTask(in: TimeAmount(bounded: configuration.connectTimeout)) {
            bound.value.giveUpClosing()
        }
    }

    private func giveUpClosing() {
        guard reason == nil else { return }
        end(AMQPError(.closed, "the connection to \(address) was closed"))
        context?.close(promise: nil)
    }

    private func send(_ method: AMQPMethod, channel: UInt16) {
        var buffer = ByteBuffer()
        // Names were checked where they came from; an answer to a server has none.
        guard (try? buffer.write(method, channel: channel)) != nil else { return }
        write(buffer)
    }

    /// Writes now, and flushes when everything of this turn of the event loop is written.
    private func write(_ buffer: ByteBuffer) {
        guard let context else { return }
        heartbeats?.written(at: now)
        context.write(wrapOutboundOut(buffer), promise: nil)
        guard !isFlushPending else { return }
        isFlushPending = true
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        context.eventLoop.execute { bound.value.flush() }
    }

    private func flush() {
        isFlushPending = false
        context?.flush()
    }
}
