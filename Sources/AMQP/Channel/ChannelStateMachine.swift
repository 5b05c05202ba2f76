import DequeModule

/// One channel from its opening to its end. Pure. `Call` is somebody who waits for an answer, `Publication` somebody who
/// waits for a confirm.
///
/// Methods that have an answer are sent without waiting for the answers before them: a server answers in order.
struct ChannelStateMachine<Call, Publication>: ~Copyable {
    enum Reply: Equatable {
        case method(AMQPMethod)
        case message(AMQPDelivery, remaining: Int)
    }

    enum Action {
        case nothing
        case complete(Call, Reply)
        case deliver(AMQPDelivery)
        case confirmed([(Publication, AMQPConfirm)])
        /// The server has taken a consumer away, for instance because its queue was deleted.
        case consumerCancelled(tag: String)
        case send(AMQPMethod)
        /// The channel has ended; those who wait are told.
        case end(AMQPError, answer: AMQPMethod?, calls: [Call], publications: [Publication])
    }

    private enum State { case open, closing, closed }

    private var state = State.open
    private var calls = Deque<(kind: AMQPMethod.Exchange, call: Call)>()
    private var ledger = ConfirmLedger<Publication>()
    /// Why the channel was closed; nil while it is open.
    private(set) var reason: AMQPError?
    private(set) var usesConfirms = false
    /// Whether this program has closed the channel, and the server has agreed.
    private(set) var wasClosedByCall = false

    init() {}

    /// - Returns: why the method must not be sent; nil when it may.
    mutating func calling(_ kind: AMQPMethod.Exchange, _ call: Call) -> AMQPError? {
        if let reason { return reason }
        guard case .open = state else { return AMQPError(.closed, "the channel is being closed") }
        calls.append((kind, call))
        if kind == .channelClose { state = .closing }
        // What is published from here on is numbered, and comes after the method.
        if kind == .confirmSelect { usesConfirms = true }
        return nil
    }

    /// - Returns: why the message must not be sent; nil when it may.
    mutating func publishing(
        _ publication: Publication, mandatory route: ConfirmLedger<Publication>.Route?
    ) -> AMQPError? {
        if let refusal = refusal { return refusal }
        if usesConfirms { ledger.published(publication, mandatory: route) }
        return nil
    }

    /// Why nothing may be sent; nil when it may.
    var refusal: AMQPError? {
        if let reason { return reason }
        if case .open = state { return nil }
        return AMQPError(.closed, "the channel is being closed")
    }

    mutating func received(_ method: AMQPMethod) throws(AMQPViolation) -> Action {
        if case .closed = state { return .nothing }
        switch method {
        case .channelClose(let closing):
            return end(
                AMQPError(
                    .channelClosed, "the server closed the channel: \(closing.text)",
                    replyCode: Int(closing.code)), answer: .channelCloseOK)
        case .channelFlow(let isActive): return .send(.channelFlowOK(isActive: isActive))
        case .basicCancel(let tag, _): return .consumerCancelled(tag: tag)
        case .basicAck(let tag, let multiple): return try settled(tag, multiple, isTaken: true)
        case .basicNack(let tag, let multiple, _): return try settled(tag, multiple, isTaken: false)
        default:
            guard let kind = method.answers else { throw AMQPViolation("a server must not send \(method.name)") }
            let call = try answered(kind, by: method)
            if kind == .channelClose {
                var rest = calls.map(\.call)
                rest.insert(call, at: 0)
                calls.removeAll()
                state = .closed
                wasClosedByCall = true
                let error = AMQPError(.closed, "the channel was closed")
                reason = error
                return .end(error, answer: nil, calls: rest, publications: ledger.abandon())
            }
            return .complete(call, .method(method))
        }
    }

    private mutating func answered(_ kind: AMQPMethod.Exchange, by method: AMQPMethod) throws(AMQPViolation) -> Call {
        guard calls.first?.kind == kind, let call = calls.popFirst()?.call else {
            throw AMQPViolation("\(method.name) answers nothing that was asked")
        }
        return call
    }

    private mutating func settled(_ tag: UInt64, _ multiple: Bool, isTaken: Bool) throws(AMQPViolation) -> Action {
        .confirmed(try ledger.settled(tag, multiple: multiple, isTaken: isTaken))
    }

    mutating func received(_ content: ContentAssembler.Content) throws(AMQPViolation) -> Action {
        if case .closed = state { return .nothing }
        switch content.method {
        case .basicDeliver(let consumer, let tag, let isRedelivered, let exchange, let key):
            return .deliver(
                AMQPDelivery(
                    consumer: consumer, tag: tag, isRedelivered: isRedelivered, exchange: exchange, routingKey: key,
                    message: content.message))
        case .basicGetOK(let tag, let isRedelivered, let exchange, let key, let messages):
            let delivery = AMQPDelivery(
                consumer: nil, tag: tag, isRedelivered: isRedelivered, exchange: exchange, routingKey: key,
                message: content.message)
            return .complete(try answered(.get, by: content.method), .message(delivery, remaining: Int(messages)))
        case .basicReturn(let code, let text, let exchange, let key):
            ledger.returned(
                .init(exchange: exchange, key: key, properties: content.message.properties), code: Int(code),
                reason: text)
            return .nothing
        default: throw AMQPViolation("a server must not send \(content.method.name)")
        }
    }

    /// The connection is gone.
    mutating func lost(_ error: AMQPError) -> Action {
        if case .closed = state { return .nothing }
        return end(error, answer: nil)
    }

    private mutating func end(_ error: AMQPError, answer: AMQPMethod?) -> Action {
        state = .closed
        reason = error
        defer { calls.removeAll() }
        return .end(error, answer: answer, calls: calls.map(\.call), publications: ledger.abandon())
    }
}

/// A message that a server has handed out.
public struct AMQPDelivery: Sendable, Hashable {
    /// The tag of the consumer; nil for a message that was asked for (`basic.get`).
    public var consumer: String?
    /// Names the delivery on its channel, until it is acknowledged.
    public var tag: UInt64
    /// Whether the message was handed out before, and came back.
    public var isRedelivered: Bool
    public var exchange: String
    public var routingKey: String
    public var message: AMQPMessage

    public init(
        consumer: String?, tag: UInt64, isRedelivered: Bool, exchange: String, routingKey: String, message: AMQPMessage
    ) {
        self.consumer = consumer
        self.tag = tag
        self.isRedelivered = isRedelivered
        self.exchange = exchange
        self.routingKey = routingKey
        self.message = message
    }
}
