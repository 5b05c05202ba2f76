import NIOCore
import Testing

@testable import AMQP

@Suite("Frames and their content") struct CodecTests {
    static let everyType: AMQPTable = [
        "bool": true, "int8": .int8(-3), "uint8": .uint8(200), "int16": .int16(-300), "uint16": .uint16(60_000),
        "int32": .int32(-70_000), "uint32": .uint32(4_000_000_000), "int64": .int64(-5_000_000_000),
        "float": .float(1.5), "double": .double(-2.25), "decimal": .decimal(scale: 2, value: 314), "text": "grüße",
        "bytes": .bytes([0, 255]), "array": .array([1, "two", .void, .array([])]), "time": .timestamp(1_700_000_000),
        "table": .table(["inner": .table([:])]), "void": .void,
    ]

    /// Every method, with arguments that differ from zero.
    static let methods: [AMQPMethod] = [
        .connectionStart(
            major: 0, minor: 9, properties: everyType, mechanisms: Array("PLAIN AMQPLAIN".utf8),
            locales: Array("en_US".utf8)),
        .connectionStartOK(properties: ["a": 1], mechanism: "PLAIN", response: [0, 1], locale: "en_US"),
        .connectionSecure(challenge: [1]), .connectionSecureOK(response: [2]),
        .connectionTune(.init(channelMaximum: 2047, frameMaximum: 131_072, heartbeat: 60)),
        .connectionTuneOK(.init(channelMaximum: 1, frameMaximum: 4096, heartbeat: 1)),
        .connectionOpen(virtualHost: "/"), .connectionOpenOK,
        .connectionClose(.init(code: 320, text: "forced", classID: 10, methodID: 40)), .connectionCloseOK,
        .connectionBlocked(reason: "low on memory"), .connectionUnblocked,
        .connectionUpdateSecret(secret: [9], reason: "new"), .connectionUpdateSecretOK,
        .channelOpen, .channelOpenOK, .channelFlow(isActive: true), .channelFlowOK(isActive: false),
        .channelClose(.init(code: 404, text: "no queue")), .channelCloseOK,
        .exchangeDeclare(name: "x", type: "topic", flags: [.durable, .isInternal], arguments: ["a": 1]),
        .exchangeDeclareOK, .exchangeDelete(name: "x", ifUnused: true), .exchangeDeleteOK,
        .exchangeBind(destination: "d", source: "s", key: "k", arguments: ["b": true]), .exchangeBindOK,
        .exchangeUnbind(destination: "d", source: "s", key: "k", arguments: [:]), .exchangeUnbindOK,
        .queueDeclare(name: "q", flags: [.passive, .durable, .exclusive, .autoDelete], arguments: ["x-expires": 5]),
        .queueDeclareOK(name: "q", messages: 7, consumers: 8),
        .queueBind(queue: "q", exchange: "x", key: "k", arguments: ["x-match": "any"]), .queueBindOK,
        .queuePurge(name: "q"), .queuePurgeOK(messages: 3), .queueDelete(name: "q", ifUnused: true, ifEmpty: false),
        .queueDelete(name: "q", ifUnused: false, ifEmpty: true), .queueDeleteOK(messages: 4),
        .queueUnbind(queue: "q", exchange: "x", key: "k", arguments: [:]), .queueUnbindOK,
        .basicQoS(count: 12, isShared: true), .basicQoSOK,
        .basicConsume(queue: "q", tag: "t", flags: [.noAcknowledgement, .exclusive], arguments: ["x-priority": 1]),
        .basicConsumeOK(tag: "t"), .basicCancel(tag: "t", noWait: true), .basicCancelOK(tag: "t"),
        .basicPublish(exchange: "x", key: "k", isMandatory: true),
        .basicReturn(code: 312, text: "NO_ROUTE", exchange: "x", key: "k"),
        .basicDeliver(consumer: "t", tag: 1 << 40, isRedelivered: true, exchange: "x", key: "k"),
        .basicGet(queue: "q", noAcknowledgement: true),
        .basicGetOK(tag: 5, isRedelivered: false, exchange: "x", key: "k", messages: 6), .basicGetEmpty,
        .basicAck(tag: 1, multiple: true), .basicReject(tag: 2, requeue: true),
        .basicNack(tag: 3, multiple: false, requeue: true), .basicNack(tag: 3, multiple: true, requeue: false),
        .basicRecover(requeue: true), .basicRecoverOK, .confirmSelect, .confirmSelectOK,
    ]

    static var allProperties: AMQPProperties {
        var properties = AMQPProperties()
        properties.contentType = "application/json"
        properties.contentEncoding = "utf-8"
        properties.headers = everyType
        properties.deliveryMode = 2
        properties.priority = 9
        properties.correlationID = "c"
        properties.replyTo = "r"
        properties.expiration = "60000"
        properties.messageID = "m"
        properties.timestamp = 1_700_000_000
        properties.type = "t"
        properties.userID = "guest"
        properties.applicationID = "a"
        properties.clusterID = "x"
        return properties
    }

    static func bytes(_ method: AMQPMethod, channel: UInt16 = 1) throws -> [UInt8] {
        var buffer = ByteBuffer()
        try buffer.write(method, channel: channel)
        return Array(buffer.readableBytesView)
    }

    /// Frames of a delivery with a body of `count` bytes in parts of at most `part`.
    static func delivery(_ count: Int, part: Int = 1000) throws -> [UInt8] {
        var buffer = ByteBuffer()
        try buffer.write(
            .basicDeliver(consumer: "t", tag: 1, isRedelivered: false, exchange: "", key: "q"), channel: 1)
        let header = ContentHeader(bodySize: UInt64(count), properties: allProperties)
        try buffer.writeFrame(Frame.headerType, channel: 1) { (buffer) throws(AMQPError) in
            try header.write(to: &buffer)
        }
        for start in stride(from: 0, to: count, by: part) {
            try buffer.writeFrame(Frame.bodyType, channel: 1) { (buffer) throws(AMQPError) in
                buffer.writeRepeatingByte(7, count: min(part, count - start))
            }
        }
        return Array(buffer.readableBytesView)
    }

    static func frames(_ buffer: inout ByteBuffer, maximum: Int = 131_072) throws -> [Frame] {
        var decoder = FrameDecoder(limits: AMQPLimits(), frameMaximum: maximum)
        var frames: [Frame] = []
        while let frame = try decoder.next(from: &buffer) { frames.append(frame) }
        return frames
    }

    @Test("every method comes back as it was", arguments: methods)
    func roundTrip(_ method: AMQPMethod) throws {
        var buffer = ByteBuffer(bytes: try Self.bytes(method, channel: 513))
        #expect(try Self.frames(&buffer) == [.method(channel: 513, method)])
        #expect(buffer.readableBytes == 0)
    }

    @Test("all properties, and none, come back as they were")
    func properties() throws {
        for properties in [Self.allProperties, AMQPProperties()] {
            let header = ContentHeader(bodySize: 1 << 33, properties: properties)
            var buffer = ByteBuffer()
            try header.write(to: &buffer)
            #expect(try ContentHeader(from: &buffer, AMQPLimits()) == header)
        }
    }

    @Test("Python's 64-bit integers are read under their own letter")
    func pythonIntegers() throws {
        // name "n", type L, 8 bytes
        var buffer = ByteBuffer(bytes: [0, 0, 0, 11, 1, UInt8(ascii: "n"), UInt8(ascii: "L"), 0, 0, 0, 1, 0, 0, 0, 5])
        #expect(try buffer.table(AMQPLimits()) == ["n": .int64(4_294_967_301)])
    }

    @Test("frames come whole from single bytes, and apart when glued")
    func fragments() throws {
        let bytes = try Self.methods.flatMap { try Self.bytes($0) } + Self.delivery(2500)
        var glued = ByteBuffer(bytes: bytes)
        let expected = try Self.frames(&glued)
        #expect(expected.count == Self.methods.count + 5)
        var decoder = FrameDecoder(limits: AMQPLimits(), frameMaximum: 131_072)
        var buffer = ByteBuffer()
        var frames: [Frame] = []
        for byte in bytes {
            buffer.writeInteger(byte)
            while let frame = try decoder.next(from: &buffer) { frames.append(frame) }
        }
        #expect(frames == expected)
    }

    @Test("a frame that is cut anywhere gives no frame and no error", arguments: [0, 1, 20, 40])
    func truncated(_ index: Int) throws {
        let bytes = try Self.bytes(Self.methods[index])
        for count in 0..<bytes.count {
            var buffer = ByteBuffer(bytes: bytes.prefix(count))
            #expect(try Self.frames(&buffer).isEmpty)
        }
    }

    /// Bytes and what is said of them.
    static let hostile: [([UInt8], String)] = [
        (Array("AMQP".utf8) + [0, 0, 9, 1], "another version"),
        ([4, 0, 0, 0, 0, 0, 0, 0xCE], "unknown type"),
        ([1, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF], "were agreed on"),
        ([1, 0, 1, 0, 2, 0, 0], "were agreed on"),
        ([1, 0, 1, 0, 0, 0, 4, 0, 20, 0, 11, 0], "no end"),
        ([8, 0, 1, 0, 0, 0, 0, 0xCE], "heartbeat on the channel"),
        ([1, 0, 1, 0, 0, 0, 4, 0, 99, 0, 1, 0xCE], "99.1 is unknown"),
        ([1, 0, 1, 0, 0, 0, 4, 0, 60, 0, 99, 0xCE], "60.99 is unknown"),
        ([1, 0, 1, 0, 0, 0, 3, 0, 20, 0, 0xCE], "middle of a value"),
        ([1, 0, 1, 0, 0, 0, 5, 0, 85, 0, 11, 7, 0xCE], "longer than its arguments"),
        // channel.open-ok with a string of 4 GiB
        ([1, 0, 1, 0, 0, 0, 8, 0, 20, 0, 11, 0xFF, 0xFF, 0xFF, 0xFF, 0xCE], "longer than its frame"),
        // a content header of another class, and one with flags that nobody knows
        ([2, 0, 1, 0, 0, 0, 14, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0xCE], "header of the class 10"),
        ([2, 0, 1, 0, 0, 0, 14, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0xCE], "unknown properties"),
    ]

    @Test("bytes that violate the protocol give a typed error", arguments: hostile)
    func violations(_ bytes: [UInt8], _ words: String) {
        var buffer = ByteBuffer(bytes: bytes)
        let error = #expect(throws: AMQPViolation.self) { try Self.frames(&buffer) }
        #expect(error?.description.contains(words) == true, "\(error?.description ?? "no error")")
    }

    @Test("tables are bounded in depth and number before they are built")
    func tableLimits() throws {
        var deep = AMQPFieldValue.table([:])
        for _ in 0..<40 { deep = .table(["n": deep]) }
        let wide = AMQPTable((0..<20).map { AMQPTable.Field("f\($0)", .void) })
        var deepArray = AMQPFieldValue.array([])
        for _ in 0..<40 { deepArray = .array([deepArray]) }
        for (table, limits) in [
            (AMQPTable([.init("n", deep)]), AMQPLimits()), (AMQPTable([.init("n", deepArray)]), AMQPLimits()),
            (wide, AMQPLimits(maximumFields: 19)),
        ] {
            var buffer = ByteBuffer()
            try buffer.write(table)
            #expect(throws: AMQPViolation.self) { try buffer.table(limits) }
        }
        // Lengths that promise more than is there.
        for bytes in [
            [0xFF, 0xFF, 0xFF, 0xFF], [0, 0, 0, 3, 1, 97, 83], [0, 0, 0, 2, 5, 97], [0, 0, 0, 3, 1, 97, 33],
        ]
            as [[UInt8]]
        {
            var buffer = ByteBuffer(bytes: bytes)
            #expect(throws: AMQPViolation.self) { try buffer.table(AMQPLimits()) }
        }
    }

    @Test("names of more than 255 bytes and properties larger than a frame are refused")
    func tooLong() {
        let name = String(repeating: "ö", count: 128)
        #expect(throws: AMQPError.self) { try Self.bytes(.queuePurge(name: name)) }
        var message = AMQPMessage(body: [])
        message.properties.headers = ["h": .longString(Array(repeating: 0, count: 5000))]
        var buffer = ByteBuffer()
        let error = #expect(throws: AMQPError.self) {
            try buffer.write(message, exchange: "", key: "q", isMandatory: false, channel: 1, frameMaximum: 4096)
        }
        #expect(error?.code == .misuse)
    }

    @Test("a body is cut into frames of the agreed size")
    func bodyFrames() throws {
        var buffer = ByteBuffer()
        let body = (0..<10_000).map { UInt8(truncatingIfNeeded: $0) }
        try buffer.write(
            AMQPMessage(body: body), exchange: "x", key: "k", isMandatory: true, channel: 2, frameMaximum: 4096)
        let frames = try Self.frames(&buffer, maximum: 4096)
        #expect(frames.first == .method(channel: 2, .basicPublish(exchange: "x", key: "k", isMandatory: true)))
        let parts = frames.compactMap { if case .body(2, let part) = $0 { part } else { nil } }
        #expect(parts.map(\.readableBytes) == [4088, 4088, 1824])
        #expect(parts.flatMap { Array($0.readableBytesView) } == body)
    }
}
