import NIOCore

/// A frame (AMQP 0-9-1 §4.2.3).
enum Frame: Hashable {
    case method(channel: UInt16, AMQPMethod)
    case header(channel: UInt16, ContentHeader)
    case body(channel: UInt16, ByteBuffer)
    case heartbeat

    static let methodType: UInt8 = 1
    static let headerType: UInt8 = 2
    static let bodyType: UInt8 = 3
    static let heartbeatType: UInt8 = 8
    static let end: UInt8 = 0xCE
    /// Type, channel, size and the octet at the end.
    static let overhead = 8
    /// What a client sends first (AMQP 0-9-1 §4.2.2).
    static let protocolHeader: [UInt8] = Array("AMQP".utf8) + [0, 0, 9, 1]
    /// Every peer must take frames of this size, also before others are negotiated (AMQP 0-9-1 §4.2.3).
    static let minimumSize = 4096
}

/// Cuts a stream of bytes into frames.
struct FrameDecoder {
    private static let roomForHeaders = 64 << 10
    private let limits: AMQPLimits
    /// The largest frame with its overhead, in bytes.
    var frameMaximum: Int

    init(limits: AMQPLimits, frameMaximum: Int) {
        self.limits = limits
        self.frameMaximum = frameMaximum
    }

    /// - Returns: the next frame; nil when more bytes are needed.
    mutating func next(from buffer: inout ByteBuffer) throws(AMQPViolation) -> Frame? {
        guard let type = buffer.getInteger(at: buffer.readerIndex, as: UInt8.self) else { return nil }
        // A server that refuses the version answers with the header of its own (AMQP 0-9-1 §4.2.2).
        guard type != UInt8(ascii: "A") else { throw AMQPViolation("the server speaks another version of AMQP") }
        guard [Frame.methodType, Frame.headerType, Frame.bodyType, Frame.heartbeatType].contains(type) else {
            throw AMQPViolation("a frame of the unknown type \(type)")
        }
        guard let channel = buffer.getInteger(at: buffer.readerIndex + 1, as: UInt16.self),
            let size = buffer.getInteger(at: buffer.readerIndex + 3, as: UInt32.self)
        else { return nil }
        // RabbitMQ adds headers of its own to a message, and does not divide the frame.
        let room = frameMaximum + (type == Frame.headerType ? Self.roomForHeaders : 0)
        guard Int(size) + Frame.overhead <= room else {
            throw AMQPViolation("a frame of \(size) bytes; \(frameMaximum - Frame.overhead) were agreed on")
        }
        guard buffer.readableBytes >= Int(size) + Frame.overhead else { return nil }
        buffer.moveReaderIndex(forwardBy: 7)
        var payload = try buffer.need(buffer.readSlice(length: Int(size)))
        guard try buffer.number(UInt8.self) == Frame.end else { throw AMQPViolation("a frame has no end") }
        switch type {
        case Frame.methodType: return .method(channel: channel, try AMQPMethod(from: &payload, limits))
        case Frame.headerType: return .header(channel: channel, try ContentHeader(from: &payload, limits))
        case Frame.bodyType: return .body(channel: channel, payload)
        default:
            guard channel == 0 else { throw AMQPViolation("a heartbeat on the channel \(channel)") }
            return .heartbeat
        }
    }
}

extension ByteBuffer {
    /// Writes a frame around `payload`.
    mutating func writeFrame(
        _ type: UInt8, channel: UInt16, _ payload: (inout ByteBuffer) throws(AMQPError) -> Void
    ) throws(AMQPError) {
        writeInteger(type)
        writeInteger(channel)
        let place = writerIndex
        writeInteger(UInt32(0))
        try payload(&self)
        setInteger(UInt32(writerIndex - place - 4), at: place)
        writeInteger(Frame.end)
    }

    mutating func write(_ method: AMQPMethod, channel: UInt16) throws(AMQPError) {
        try writeFrame(Frame.methodType, channel: channel) { (buffer) throws(AMQPError) in try method.write(to: &buffer)
        }
    }

    /// Writes a publish with its content, the body in frames of at most `frameMaximum` bytes.
    /// - Throws: ``AMQPError`` `.misuse` for a name of more than 255 bytes, or properties that do not fit into a frame.
    mutating func write(
        _ message: AMQPMessage, exchange: String, key: String, isMandatory: Bool, channel: UInt16, frameMaximum: Int
    ) throws(AMQPError) {
        try write(.basicPublish(exchange: exchange, key: key, isMandatory: isMandatory), channel: channel)
        let place = writerIndex
        let header = ContentHeader(bodySize: UInt64(message.body.count), properties: message.properties)
        try writeFrame(Frame.headerType, channel: channel) { (buffer) throws(AMQPError) in try header.write(to: &buffer)
        }
        guard writerIndex - place <= frameMaximum else {
            throw AMQPError(
                .misuse,
                "the properties of a message for \(key) have \(writerIndex - place) bytes; a frame has \(frameMaximum)")
        }
        let room = frameMaximum - Frame.overhead
        var rest = message.body[...]
        while !rest.isEmpty {
            let part = rest.prefix(room)
            rest = rest.dropFirst(room)
            try writeFrame(Frame.bodyType, channel: channel) { (buffer) throws(AMQPError) in buffer.writeBytes(part) }
        }
    }

    mutating func writeHeartbeat() {
        writeBytes([Frame.heartbeatType, 0, 0, 0, 0, 0, 0, Frame.end])
    }
}
