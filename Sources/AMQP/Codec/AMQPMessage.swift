import NIOCore

/// A message: its properties, and its body as bytes.
public struct AMQPMessage: Sendable, Hashable {
    public var properties: AMQPProperties
    public var body: [UInt8]
    /// The size of a body that was larger than ``AMQPLimits/maximumBodyBytes`` and was skipped: `body` is empty then.
    /// nil for a body that is all there.
    public var skippedBytes: UInt64?
    /// Why the headers could not be read; they are missing then. nil for headers that are all there.
    public var headerViolation: String?

    public init(properties: AMQPProperties = AMQPProperties(), body: [UInt8]) {
        self.properties = properties
        self.body = body
    }
}

/// The properties of a message (AMQP 0-9-1, class basic). A property that is nil is not sent.
public struct AMQPProperties: Sendable, Hashable {
    public var contentType: String?
    public var contentEncoding: String?
    public var headers: AMQPTable?
    /// 2 for a message that survives a restart of the server, in a queue that does.
    public var deliveryMode: UInt8?
    public var priority: UInt8?
    public var correlationID: String?
    public var replyTo: String?
    /// Milliseconds as text.
    public var expiration: String?
    public var messageID: String?
    /// Seconds since 1970.
    public var timestamp: UInt64?
    public var type: String?
    /// The server refuses any other than the user of the connection.
    public var userID: String?
    public var applicationID: String?
    public var clusterID: String?

    public init() {}
}

/// The payload of a content header frame (AMQP 0-9-1 §4.2.6.1).
struct ContentHeader: Hashable {
    var bodySize: UInt64
    var properties: AMQPProperties
    /// What was wrong with the table of headers, which has a length of its own and can be passed over.
    var headerViolation: String?

    init(bodySize: UInt64, properties: AMQPProperties) {
        self.bodySize = bodySize
        self.properties = properties
    }

    init(from buffer: inout ByteBuffer, _ limits: AMQPLimits) throws(AMQPViolation) {
        let classID = try buffer.number(UInt16.self)
        guard classID == 60 else { throw AMQPViolation("a content header of the class \(classID)") }
        _ = try buffer.number(UInt16.self)
        bodySize = try buffer.number()
        let flags = try buffer.number(UInt16.self)
        // The last bit says that more flags follow; no property of this version needs them.
        guard flags & 3 == 0 else { throw AMQPViolation("a content header has unknown properties") }
        properties = AMQPProperties()
        func has(_ bit: Int) -> Bool { flags & (1 << bit) != 0 }
        if has(15) { properties.contentType = try buffer.shortString() }
        if has(14) { properties.contentEncoding = try buffer.shortString() }
        if has(13) {
            // A message with such headers must not cost the connection: the next consumer would get it too.
            let place = buffer.readerIndex
            do throws(AMQPViolation) {
                properties.headers = try buffer.table(limits)
            } catch {
                headerViolation = error.description
                buffer.moveReaderIndex(to: place)
                _ = try buffer.longString()
            }
        }
        if has(12) { properties.deliveryMode = try buffer.number() }
        if has(11) { properties.priority = try buffer.number() }
        if has(10) { properties.correlationID = try buffer.shortString() }
        if has(9) { properties.replyTo = try buffer.shortString() }
        if has(8) { properties.expiration = try buffer.shortString() }
        if has(7) { properties.messageID = try buffer.shortString() }
        if has(6) { properties.timestamp = try buffer.number() }
        if has(5) { properties.type = try buffer.shortString() }
        if has(4) { properties.userID = try buffer.shortString() }
        if has(3) { properties.applicationID = try buffer.shortString() }
        if has(2) { properties.clusterID = try buffer.shortString() }
        guard buffer.readableBytes == 0 else { throw AMQPViolation("a content header is longer than its properties") }
    }

    func write(to buffer: inout ByteBuffer) throws(AMQPError) {
        buffer.writeInteger(UInt16(60))
        buffer.writeInteger(UInt16(0))
        buffer.writeInteger(bodySize)
        let place = buffer.writerIndex
        buffer.writeInteger(UInt16(0))
        var flags: UInt16 = 0
        func text(_ bit: Int, _ value: String?) throws(AMQPError) {
            guard let value else { return }
            flags |= 1 << bit
            try buffer.write(shortString: value)
        }
        func number(_ bit: Int, _ value: (some FixedWidthInteger)?) {
            guard let value else { return }
            flags |= 1 << bit
            buffer.writeInteger(value)
        }
        try text(15, properties.contentType)
        try text(14, properties.contentEncoding)
        if let headers = properties.headers {
            flags |= 1 << 13
            try buffer.write(headers)
        }
        number(12, properties.deliveryMode)
        number(11, properties.priority)
        try text(10, properties.correlationID)
        try text(9, properties.replyTo)
        try text(8, properties.expiration)
        try text(7, properties.messageID)
        number(6, properties.timestamp)
        try text(5, properties.type)
        try text(4, properties.userID)
        try text(3, properties.applicationID)
        try text(2, properties.clusterID)
        buffer.setInteger(flags, at: place)
    }
}
