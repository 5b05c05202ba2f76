import NIOCore

/// Puts a method, a content header and body frames of one channel together (AMQP 0-9-1 §4.2.6). Pure.
struct ContentAssembler {
    struct Content: Equatable {
        var method: AMQPMethod
        var message: AMQPMessage
    }

    private enum State {
        case idle
        case awaitingHeader(AMQPMethod)
        case awaitingBody(AMQPMethod, AMQPMessage, missing: UInt64)
    }

    private let limits: AMQPLimits
    private var state = State.idle

    init(_ limits: AMQPLimits) { self.limits = limits }

    /// A method that carries content has arrived.
    mutating func begin(_ method: AMQPMethod) throws(AMQPViolation) {
        guard case .idle = state else { throw AMQPViolation("a message ends before its body") }
        state = .awaitingHeader(method)
    }

    /// Whether a method may come that carries no content.
    var isIdle: Bool { if case .idle = state { true } else { false } }

    mutating func received(_ header: ContentHeader) throws(AMQPViolation) -> Content? {
        guard case .awaitingHeader(let method) = state else {
            throw AMQPViolation("a content header without a message")
        }
        var message = AMQPMessage(properties: header.properties, body: [])
        message.headerViolation = header.headerViolation
        if header.bodySize > UInt64(limits.maximumBodyBytes) {
            message.skippedBytes = header.bodySize
        } else {
            // No more than a part in advance: the size is only a promise.
            message.body.reserveCapacity(Int(min(header.bodySize, 1 << 20)))
        }
        return finish(method, message, missing: header.bodySize)
    }

    mutating func received(_ part: ByteBuffer) throws(AMQPViolation) -> Content? {
        guard case .awaitingBody(let method, var message, let missing) = state else {
            throw AMQPViolation("a body without a message")
        }
        let count = UInt64(part.readableBytes)
        guard count <= missing else { throw AMQPViolation("a body is longer than its header says") }
        // Else the message would be copied.
        state = .idle
        if message.skippedBytes == nil { message.body.append(contentsOf: part.readableBytesView) }
        return finish(method, message, missing: missing - count)
    }

    private mutating func finish(_ method: AMQPMethod, _ message: AMQPMessage, missing: UInt64) -> Content? {
        guard missing > 0 else {
            state = .idle
            return Content(method: method, message: message)
        }
        state = .awaitingBody(method, message, missing: missing)
        return nil
    }
}
