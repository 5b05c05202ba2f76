import NIOCore

/// A channel of a connection. It may be shared by any number of tasks.
///
/// A method that the server refuses ends the channel, and nothing else of the connection.
public final class AMQPChannel: Sendable {
    /// What a server sends by itself. Called on the event loop of the connection: each must be quick and must not
    /// block.
    public struct Events: Sendable {
        /// Messages for the consumers, those that came together at once.
        public var delivered: @Sendable ([AMQPDelivery]) -> Void
        /// The server has taken a consumer away, for instance because its queue was deleted.
        public var consumerCancelled: @Sendable (_ tag: String) -> Void
        /// The channel is over. What was not acknowledged goes back to its queue.
        public var ended: @Sendable (AMQPError) -> Void

        public init(
            delivered: @escaping @Sendable ([AMQPDelivery]) -> Void = { _ in },
            consumerCancelled: @escaping @Sendable (_ tag: String) -> Void = { _ in },
            ended: @escaping @Sendable (AMQPError) -> Void = { _ in }
        ) {
            self.delivered = delivered
            self.consumerCancelled = consumerCancelled
            self.ended = ended
        }
    }

    public let connection: AMQPConnection
    private let id: UInt16
    private let slot: NIOLoopBound<ConnectionHandler.Slot>

    init(connection: AMQPConnection, id: UInt16, slot: NIOLoopBound<ConnectionHandler.Slot>) {
        self.connection = connection
        self.id = id
        self.slot = slot
    }

    @discardableResult
    private func call(_ method: AMQPMethod) async throws(AMQPError) -> ConnectionHandler.Reply {
        let promise = connection.loop.makePromise(of: ConnectionHandler.Reply.self)
        onLoop { handler, slot in handler.call(method, on: slot) { promise.complete($0) } }
        return try await promise.futureResult.value()
    }

    private func onLoop(_ body: @escaping @Sendable (ConnectionHandler, ConnectionHandler.Slot) -> Void) {
        let (handler, slot) = (connection.handler, slot)
        if connection.loop.inEventLoop { return body(handler.value, slot.value) }
        connection.loop.execute { body(handler.value, slot.value) }
    }

    /// Closes the channel. What was not acknowledged goes back to its queue.
    /// - Throws: ``AMQPError`` when the connection is lost first: the channel is over then too.
    public func close() async throws(AMQPError) {
        try await call(.channelClose(AMQPMethod.Closing(code: 200, text: "goodbye")))
    }

    /// Closes the channel without waiting for the answer.
    func abandon() {
        onLoop { handler, slot in
            handler.call(.channelClose(AMQPMethod.Closing(code: 200, text: "goodbye")), on: slot) { _ in }
        }
    }

    // MARK: - Publishing

    /// A message and where it goes.
    public struct Publication: Sendable {
        /// Empty for the default exchange, which leads to the queue of the name `routingKey`.
        public var exchange: String
        public var routingKey: String
        public var message: AMQPMessage
        /// Whether the server gives the message back when no queue takes it. Else it drops the message.
        public var isMandatory: Bool

        public init(_ message: AMQPMessage, exchange: String = "", routingKey: String, isMandatory: Bool = false) {
            self.exchange = exchange
            self.routingKey = routingKey
            self.message = message
            self.isMandatory = isMandatory
        }
    }

    /// Asks the server to confirm what is published on this channel from now on.
    /// - Throws: ``AMQPError``; a retry is safe.
    public func confirmPublishes() async throws(AMQPError) { try await call(.confirmSelect) }

    /// Publishes messages back to back, and waits until the server has confirmed all of them. On a channel without
    /// ``confirmPublishes()`` it waits for nothing.
    /// - Parameters:
    ///   - publications: any number.
    ///   - limit: how long to wait; nil for ``AMQPConfiguration/publishTimeout``.
    /// - Returns: what the server said of each, in order.
    /// - Throws: ``AMQPError``. Where its ``AMQPError/mayHaveRun`` is true, each of the messages may be with the server;
    ///   else none is. `.blocked` when the server takes no messages, `.timedOut` without a confirm in time, `.misuse`
    ///   for a name of more than 255 bytes or properties larger than a frame.
    @discardableResult
    public func publish(
        _ publications: [Publication], within limit: Duration? = nil
    ) async throws(AMQPError) -> [AMQPConfirm] {
        guard !publications.isEmpty else { return [] }
        // Encoded here and not on the event loop, of which there is one for everybody.
        var bytes = ByteBuffer()
        for publication in publications {
            try bytes.write(
                publication.message, exchange: publication.exchange, key: publication.routingKey,
                isMandatory: publication.isMandatory, channel: id, frameMaximum: connection.frameMaximum)
        }
        let promise = connection.loop.makePromise(of: [AMQPConfirm].self)
        let limit = limit ?? connection.configuration.publishTimeout
        let frames = bytes
        onLoop { handler, slot in
            let routes = publications.map { publication in
                publication.isMandatory
                    ? ConfirmLedger<ConnectionHandler.Publication>.Route(
                        exchange: publication.exchange, key: publication.routingKey,
                        properties: publication.message.properties) : nil
            }
            handler.publish(
                PublishBatch(bytes: frames, routes: routes, limit: limit) { promise.complete($0) }, on: slot)
        }
        return try await promise.futureResult.value()
    }

    // MARK: - Consuming

    /// How many deliveries may be unacknowledged at once.
    /// - Parameters:
    ///   - count: 0 for any number.
    ///   - isShared: whether all consumers of the channel share that number, which quorum queues refuse. Else each
    ///     consumer that begins from now on has it for itself.
    /// - Throws: ``AMQPError``.
    public func setPrefetch(_ count: Int, isShared: Bool) async throws(AMQPError) {
        try await call(.basicQoS(count: UInt16(count.clamped(to: 0...65_535)), isShared: isShared))
    }

    /// Starts a consumer, whose deliveries go to ``Events/delivered``.
    /// - Parameters:
    ///   - queue: the name of the queue.
    ///   - tag: names the consumer on this channel; empty for a name of the server's choice.
    ///   - acknowledges: whether deliveries are acknowledged. Else the server forgets each as it sends it.
    ///   - isExclusive: whether no other consumer may share the queue.
    ///   - arguments: such as `x-priority`.
    /// - Returns: the tag.
    /// - Throws: ``AMQPError``; `.channelClosed` with the reply code 404 for a queue that does not exist.
    @discardableResult
    public func consume(
        _ queue: String, tag: String = "", acknowledges: Bool = true, isExclusive: Bool = false,
        arguments: AMQPTable = [:]
    ) async throws(AMQPError) -> String {
        var flags: AMQPMethod.ConsumeFlags = []
        if !acknowledges { flags.insert(.noAcknowledgement) }
        if isExclusive { flags.insert(.exclusive) }
        let reply = try await call(.basicConsume(queue: queue, tag: tag, flags: flags, arguments: arguments))
        guard case .method(.basicConsumeOK(let tag)) = reply else { return tag }
        return tag
    }

    /// Ends a consumer. Its deliveries stay, and may be acknowledged.
    /// - Throws: ``AMQPError``.
    public func cancel(consumer tag: String) async throws(AMQPError) {
        try await call(.basicCancel(tag: tag, noWait: false))
    }

    /// Takes one message.
    /// - Returns: the message and how many are left; nil when the queue is empty.
    /// - Throws: ``AMQPError``; the message may be unacknowledged on the channel then, and goes back when that closes.
    public func get(
        _ queue: String, acknowledges: Bool = true
    ) async throws(AMQPError) -> (delivery: AMQPDelivery, remaining: Int)? {
        guard
            case .message(let delivery, let remaining) =
                try await call(.basicGet(queue: queue, noAcknowledgement: !acknowledges))
        else { return nil }
        return (delivery, remaining)
    }

    /// Acknowledges a delivery. Nothing is answered; when the channel is over already, nothing happens.
    /// - Parameters:
    ///   - tag: of the delivery.
    ///   - multiple: whether all deliveries before it are acknowledged too.
    public func acknowledge(_ tag: UInt64, multiple: Bool = false) {
        onLoop { handler, slot in handler.tell(.basicAck(tag: tag, multiple: multiple), on: slot) }
    }

    /// Acknowledges deliveries, in one step.
    public func acknowledge(_ tags: [UInt64]) {
        onLoop { handler, slot in
            for tag in tags { handler.tell(.basicAck(tag: tag, multiple: false), on: slot) }
        }
    }

    /// Gives a delivery back, or up.
    /// - Parameters:
    ///   - tag: of the delivery.
    ///   - multiple: whether all deliveries before it are meant too.
    ///   - requeue: whether it goes back to its queue. Else it goes to the dead letter exchange of its queue, or is
    ///     dropped.
    public func reject(_ tag: UInt64, multiple: Bool = false, requeue: Bool) {
        onLoop { handler, slot in
            handler.tell(.basicNack(tag: tag, multiple: multiple, requeue: requeue), on: slot)
        }
    }

    /// Waits until the server has seen all that was acknowledged before.
    ///
    /// Acknowledgements have no answer of their own; the answer to another method comes after them.
    /// - Throws: ``AMQPError``; it is unknown then whether it has.
    public func settleAcknowledgements() async throws(AMQPError) {
        // Asks for what is the case anyway.
        try await call(.channelFlow(isActive: true))
    }

    // MARK: - Topology

    public enum ExchangeType: Sendable, Hashable {
        case direct, fanout, topic, headers
        /// One of a plugin.
        case other(String)

        var name: String {
            switch self {
            case .direct: "direct"
            case .fanout: "fanout"
            case .topic: "topic"
            case .headers: "headers"
            case .other(let name): name
            }
        }
    }

    /// Makes an exchange, or finds one that was declared alike.
    /// - Parameters:
    ///   - name: of the exchange.
    ///   - type: how it chooses queues.
    ///   - isDurable: whether it survives a restart of the server.
    ///   - autoDeletes: whether it is deleted when the last queue is unbound.
    ///   - isInternal: whether programs may not publish to it.
    ///   - arguments: such as `alternate-exchange`.
    /// - Throws: ``AMQPError`` `.channelClosed` with the reply code 406 where one was declared otherwise.
    public func declare(
        exchange name: String, _ type: ExchangeType, isDurable: Bool = true, autoDeletes: Bool = false,
        isInternal: Bool = false, arguments: AMQPTable = [:]
    ) async throws(AMQPError) {
        var flags: AMQPMethod.ExchangeFlags = []
        if isDurable { flags.insert(.durable) }
        if autoDeletes { flags.insert(.autoDelete) }
        if isInternal { flags.insert(.isInternal) }
        try await call(.exchangeDeclare(name: name, type: type.name, flags: flags, arguments: arguments))
    }

    /// Deletes an exchange.
    /// - Throws: ``AMQPError``; a retry is safe.
    public func delete(exchange name: String) async throws(AMQPError) {
        try await call(.exchangeDelete(name: name, ifUnused: false))
    }

    /// Leads messages of one exchange to another (RabbitMQ's extension).
    /// - Parameters:
    ///   - destination: where the messages go.
    ///   - source: where they were published.
    ///   - key: which of them.
    ///   - arguments: which of them, by their headers.
    /// - Throws: ``AMQPError``; a retry is safe.
    public func bind(
        exchange destination: String, to source: String, key: String, arguments: AMQPTable = [:]
    ) async throws(AMQPError) {
        try await call(.exchangeBind(destination: destination, source: source, key: key, arguments: arguments))
    }

    public struct QueueState: Sendable, Hashable {
        public var name: String
        /// Messages that wait, without those that consumers have.
        public var messages: Int
        public var consumers: Int
    }

    /// Makes a queue, or finds one that was declared alike.
    /// - Parameters:
    ///   - name: empty for a name of the server's choice.
    ///   - isDurable: whether the queue, with its messages that are meant to, survives a restart of the server.
    ///   - isExclusive: whether it is this connection's own, and ends with it.
    ///   - autoDeletes: whether it is deleted when its last consumer ends.
    ///   - arguments: such as `x-queue-type`. Their types count when it is declared again.
    /// - Throws: ``AMQPError`` `.channelClosed` with the reply code 406 where it was declared otherwise, 405 where it is
    ///   another connection's own.
    @discardableResult
    public func declare(
        queue name: String, isDurable: Bool = true, isExclusive: Bool = false, autoDeletes: Bool = false,
        arguments: AMQPTable = [:]
    ) async throws(AMQPError) -> QueueState {
        var flags: AMQPMethod.QueueFlags = []
        if isDurable { flags.insert(.durable) }
        if isExclusive { flags.insert(.exclusive) }
        if autoDeletes { flags.insert(.autoDelete) }
        return try await declare(name, flags, arguments)
    }

    /// What a queue holds.
    /// - Throws: ``AMQPError`` `.channelClosed` with the reply code 404 where there is no such queue.
    public func state(of queue: String) async throws(AMQPError) -> QueueState {
        try await declare(queue, .passive, [:])
    }

    private func declare(
        _ name: String, _ flags: AMQPMethod.QueueFlags, _ arguments: AMQPTable
    ) async throws(AMQPError) -> QueueState {
        let reply = try await call(.queueDeclare(name: name, flags: flags, arguments: arguments))
        guard case .method(.queueDeclareOK(let name, let messages, let consumers)) = reply else {
            return QueueState(name: name, messages: 0, consumers: 0)
        }
        return QueueState(name: name, messages: Int(messages), consumers: Int(consumers))
    }

    /// Leads messages of an exchange to a queue.
    /// - Parameters:
    ///   - queue: where the messages go.
    ///   - exchange: where they were published.
    ///   - key: which of them.
    ///   - arguments: which of them, by their headers.
    /// - Throws: ``AMQPError``; a retry is safe.
    public func bind(
        queue: String, to exchange: String, key: String, arguments: AMQPTable = [:]
    ) async throws(AMQPError) {
        try await call(.queueBind(queue: queue, exchange: exchange, key: key, arguments: arguments))
    }

    /// Undoes ``bind(queue:to:key:arguments:)``.
    /// - Parameters:
    ///   - queue: as it was bound.
    ///   - exchange: as it was bound.
    ///   - key: as it was bound.
    ///   - arguments: as it was bound.
    /// - Throws: ``AMQPError``; a retry is safe.
    public func unbind(
        queue: String, from exchange: String, key: String, arguments: AMQPTable = [:]
    ) async throws(AMQPError) {
        try await call(.queueUnbind(queue: queue, exchange: exchange, key: key, arguments: arguments))
    }

    /// Removes the messages that wait, without those that consumers have.
    /// - Returns: how many there were.
    /// - Throws: ``AMQPError``.
    @discardableResult
    public func purge(queue name: String) async throws(AMQPError) -> Int {
        guard case .method(.queuePurgeOK(let messages)) = try await call(.queuePurge(name: name)) else { return 0 }
        return Int(messages)
    }

    /// Deletes a queue with its messages.
    /// - Throws: ``AMQPError``; a retry is safe.
    public func delete(queue name: String) async throws(AMQPError) {
        try await call(.queueDelete(name: name, ifUnused: false, ifEmpty: false))
    }
}
