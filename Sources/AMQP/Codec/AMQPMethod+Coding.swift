import NIOCore

/// The payload of a method frame: class, method, arguments (AMQP 0-9-1 §4.2.4). Bits next to each other share an octet.
extension AMQPMethod {
    init(from buffer: inout ByteBuffer, _ limits: AMQPLimits) throws(AMQPViolation) {
        let classID = try buffer.number(UInt16.self)
        let methodID = try buffer.number(UInt16.self)
        switch classID {
        case 10: self = try Self.connection(methodID, &buffer, limits)
        case 20: self = try Self.channel(methodID, &buffer)
        case 40: self = try Self.exchange(methodID, &buffer, limits)
        case 50: self = try Self.queue(methodID, &buffer, limits)
        case 60: self = try Self.basic(methodID, &buffer, limits)
        case 85: self = try Self.confirm(methodID, &buffer)
        default: throw Self.unknown(classID, methodID)
        }
        guard buffer.readableBytes == 0 else {
            throw AMQPViolation("the method \(classID).\(methodID) is longer than its arguments")
        }
    }

    private static func unknown(_ classID: UInt16, _ methodID: UInt16) -> AMQPViolation {
        AMQPViolation("the method \(classID).\(methodID) is unknown")
    }

    private static func connection(
        _ id: UInt16, _ buffer: inout ByteBuffer, _ limits: AMQPLimits
    ) throws(AMQPViolation) -> AMQPMethod {
        switch id {
        case 10:
            return .connectionStart(
                major: try buffer.number(), minor: try buffer.number(), properties: try buffer.table(limits),
                mechanisms: try buffer.longString(), locales: try buffer.longString())
        case 11:
            return .connectionStartOK(
                properties: try buffer.table(limits), mechanism: try buffer.shortString(),
                response: try buffer.longString(), locale: try buffer.shortString())
        case 20: return .connectionSecure(challenge: try buffer.longString())
        case 21: return .connectionSecureOK(response: try buffer.longString())
        case 30: return .connectionTune(try Tuning(from: &buffer))
        case 31: return .connectionTuneOK(try Tuning(from: &buffer))
        case 40:
            let virtualHost = try buffer.shortString()
            _ = try buffer.shortString()
            _ = try buffer.number(UInt8.self)
            return .connectionOpen(virtualHost: virtualHost)
        case 41:
            _ = try buffer.shortString()
            return .connectionOpenOK
        case 50: return .connectionClose(try Closing(from: &buffer))
        case 51: return .connectionCloseOK
        case 60: return .connectionBlocked(reason: try buffer.shortString())
        case 61: return .connectionUnblocked
        case 70:
            return .connectionUpdateSecret(secret: try buffer.longString(), reason: try buffer.shortString())
        case 71: return .connectionUpdateSecretOK
        default: throw unknown(10, id)
        }
    }

    private static func channel(_ id: UInt16, _ buffer: inout ByteBuffer) throws(AMQPViolation) -> AMQPMethod {
        switch id {
        case 10:
            _ = try buffer.shortString()
            return .channelOpen
        case 11:
            _ = try buffer.longString()
            return .channelOpenOK
        case 20: return .channelFlow(isActive: try buffer.number(UInt8.self) & 1 != 0)
        case 21: return .channelFlowOK(isActive: try buffer.number(UInt8.self) & 1 != 0)
        case 40: return .channelClose(try Closing(from: &buffer))
        case 41: return .channelCloseOK
        default: throw unknown(20, id)
        }
    }

    private static func exchange(
        _ id: UInt16, _ buffer: inout ByteBuffer, _ limits: AMQPLimits
    ) throws(AMQPViolation) -> AMQPMethod {
        switch id {
        case 10:
            _ = try buffer.number(UInt16.self)
            return .exchangeDeclare(
                name: try buffer.shortString(), type: try buffer.shortString(),
                flags: ExchangeFlags(rawValue: try buffer.number(UInt8.self) & 15), arguments: try buffer.table(limits))
        case 11: return .exchangeDeclareOK
        case 20:
            _ = try buffer.number(UInt16.self)
            return .exchangeDelete(
                name: try buffer.shortString(), ifUnused: try buffer.number(UInt8.self) & 1 != 0)
        case 21: return .exchangeDeleteOK
        case 30, 40:
            _ = try buffer.number(UInt16.self)
            let (destination, source) = (try buffer.shortString(), try buffer.shortString())
            let key = try buffer.shortString()
            _ = try buffer.number(UInt8.self)
            let arguments = try buffer.table(limits)
            return id == 30
                ? .exchangeBind(destination: destination, source: source, key: key, arguments: arguments)
                : .exchangeUnbind(destination: destination, source: source, key: key, arguments: arguments)
        case 31: return .exchangeBindOK
        case 51: return .exchangeUnbindOK
        default: throw unknown(40, id)
        }
    }

    private static func queue(
        _ id: UInt16, _ buffer: inout ByteBuffer, _ limits: AMQPLimits
    ) throws(AMQPViolation) -> AMQPMethod {
        switch id {
        case 10:
            _ = try buffer.number(UInt16.self)
            return .queueDeclare(
                name: try buffer.shortString(), flags: QueueFlags(rawValue: try buffer.number(UInt8.self) & 15),
                arguments: try buffer.table(limits))
        case 11:
            return .queueDeclareOK(
                name: try buffer.shortString(), messages: try buffer.number(), consumers: try buffer.number())
        case 20:
            _ = try buffer.number(UInt16.self)
            let (queue, exchange, key) =
                (try buffer.shortString(), try buffer.shortString(), try buffer.shortString())
            _ = try buffer.number(UInt8.self)
            return .queueBind(queue: queue, exchange: exchange, key: key, arguments: try buffer.table(limits))
        case 21: return .queueBindOK
        case 30:
            _ = try buffer.number(UInt16.self)
            let name = try buffer.shortString()
            _ = try buffer.number(UInt8.self)
            return .queuePurge(name: name)
        case 31: return .queuePurgeOK(messages: try buffer.number())
        case 40:
            _ = try buffer.number(UInt16.self)
            let (name, bits) = (try buffer.shortString(), try buffer.number(UInt8.self))
            return .queueDelete(name: name, ifUnused: bits & 1 != 0, ifEmpty: bits & 2 != 0)
        case 41: return .queueDeleteOK(messages: try buffer.number())
        case 50:
            _ = try buffer.number(UInt16.self)
            return .queueUnbind(
                queue: try buffer.shortString(), exchange: try buffer.shortString(), key: try buffer.shortString(),
                arguments: try buffer.table(limits))
        case 51: return .queueUnbindOK
        default: throw unknown(50, id)
        }
    }

    private static func basic(
        _ id: UInt16, _ buffer: inout ByteBuffer, _ limits: AMQPLimits
    ) throws(AMQPViolation) -> AMQPMethod {
        switch id {
        case 10:
            _ = try buffer.number(UInt32.self)
            return .basicQoS(count: try buffer.number(), isShared: try buffer.number(UInt8.self) & 1 != 0)
        case 11: return .basicQoSOK
        case 20:
            _ = try buffer.number(UInt16.self)
            return .basicConsume(
                queue: try buffer.shortString(), tag: try buffer.shortString(),
                flags: ConsumeFlags(rawValue: try buffer.number(UInt8.self) & 7), arguments: try buffer.table(limits))
        case 21: return .basicConsumeOK(tag: try buffer.shortString())
        case 30:
            return .basicCancel(tag: try buffer.shortString(), noWait: try buffer.number(UInt8.self) & 1 != 0)
        case 31: return .basicCancelOK(tag: try buffer.shortString())
        case 40:
            _ = try buffer.number(UInt16.self)
            return .basicPublish(
                exchange: try buffer.shortString(), key: try buffer.shortString(),
                isMandatory: try buffer.number(UInt8.self) & 1 != 0)
        case 50:
            return .basicReturn(
                code: try buffer.number(), text: try buffer.shortString(), exchange: try buffer.shortString(),
                key: try buffer.shortString())
        case 60:
            return .basicDeliver(
                consumer: try buffer.shortString(), tag: try buffer.number(),
                isRedelivered: try buffer.number(UInt8.self) & 1 != 0, exchange: try buffer.shortString(),
                key: try buffer.shortString())
        case 70:
            _ = try buffer.number(UInt16.self)
            return .basicGet(
                queue: try buffer.shortString(), noAcknowledgement: try buffer.number(UInt8.self) & 1 != 0)
        case 71:
            return .basicGetOK(
                tag: try buffer.number(), isRedelivered: try buffer.number(UInt8.self) & 1 != 0,
                exchange: try buffer.shortString(), key: try buffer.shortString(), messages: try buffer.number())
        case 72:
            _ = try buffer.shortString()
            return .basicGetEmpty
        case 80: return .basicAck(tag: try buffer.number(), multiple: try buffer.number(UInt8.self) & 1 != 0)
        case 90: return .basicReject(tag: try buffer.number(), requeue: try buffer.number(UInt8.self) & 1 != 0)
        case 110: return .basicRecover(requeue: try buffer.number(UInt8.self) & 1 != 0)
        case 111: return .basicRecoverOK
        case 120:
            let (tag, bits) = (try buffer.number(UInt64.self), try buffer.number(UInt8.self))
            return .basicNack(tag: tag, multiple: bits & 1 != 0, requeue: bits & 2 != 0)
        default: throw unknown(60, id)
        }
    }

    private static func confirm(_ id: UInt16, _ buffer: inout ByteBuffer) throws(AMQPViolation) -> AMQPMethod {
        switch id {
        case 10:
            _ = try buffer.number(UInt8.self)
            return .confirmSelect
        case 11: return .confirmSelectOK
        default: throw unknown(85, id)
        }
    }
}

extension AMQPMethod.Tuning {
    init(from buffer: inout ByteBuffer) throws(AMQPViolation) {
        self.init(
            channelMaximum: try buffer.number(), frameMaximum: try buffer.number(), heartbeat: try buffer.number())
    }

    func write(to buffer: inout ByteBuffer) {
        buffer.writeInteger(channelMaximum)
        buffer.writeInteger(frameMaximum)
        buffer.writeInteger(heartbeat)
    }
}

extension AMQPMethod.Closing {
    init(from buffer: inout ByteBuffer) throws(AMQPViolation) {
        self.init(
            code: try buffer.number(), text: try buffer.shortString(), classID: try buffer.number(),
            methodID: try buffer.number())
    }

    func write(to buffer: inout ByteBuffer) throws(AMQPError) {
        buffer.writeInteger(code)
        try buffer.write(shortString: text)
        buffer.writeInteger(classID)
        buffer.writeInteger(methodID)
    }
}

extension AMQPMethod {
    /// Writes class, method and arguments.
    /// - Throws: ``AMQPError`` `.misuse` for a name of more than 255 bytes.
    func write(to buffer: inout ByteBuffer) throws(AMQPError) {
        func begin(_ classID: UInt16, _ methodID: UInt16) {
            buffer.writeInteger(classID)
            buffer.writeInteger(methodID)
        }
        func bits(_ bits: Bool...) {
            buffer.writeInteger(bits.reversed().reduce(UInt8(0)) { $0 << 1 | ($1 ? 1 : 0) })
        }
        func reserved() { buffer.writeInteger(UInt16(0)) }
        switch self {
        case .connectionStart(let major, let minor, let properties, let mechanisms, let locales):
            begin(10, 10)
            buffer.writeInteger(major)
            buffer.writeInteger(minor)
            try buffer.write(properties)
            buffer.write(longString: mechanisms)
            buffer.write(longString: locales)
        case .connectionStartOK(let properties, let mechanism, let response, let locale):
            begin(10, 11)
            try buffer.write(properties)
            try buffer.write(shortString: mechanism)
            buffer.write(longString: response)
            try buffer.write(shortString: locale)
        case .connectionSecure(let challenge):
            begin(10, 20)
            buffer.write(longString: challenge)
        case .connectionSecureOK(let response):
            begin(10, 21)
            buffer.write(longString: response)
        case .connectionTune(let tuning):
            begin(10, 30)
            tuning.write(to: &buffer)
        case .connectionTuneOK(let tuning):
            begin(10, 31)
            tuning.write(to: &buffer)
        case .connectionOpen(let virtualHost):
            begin(10, 40)
            try buffer.write(shortString: virtualHost)
            try buffer.write(shortString: "")
            bits(false)
        case .connectionOpenOK:
            begin(10, 41)
            try buffer.write(shortString: "")
        case .connectionClose(let closing):
            begin(10, 50)
            try closing.write(to: &buffer)
        case .connectionCloseOK: begin(10, 51)
        case .connectionBlocked(let reason):
            begin(10, 60)
            try buffer.write(shortString: reason)
        case .connectionUnblocked: begin(10, 61)
        case .connectionUpdateSecret(let secret, let reason):
            begin(10, 70)
            buffer.write(longString: secret)
            try buffer.write(shortString: reason)
        case .connectionUpdateSecretOK: begin(10, 71)

        case .channelOpen:
            begin(20, 10)
            try buffer.write(shortString: "")
        case .channelOpenOK:
            begin(20, 11)
            buffer.write(longString: [])
        case .channelFlow(let isActive):
            begin(20, 20)
            bits(isActive)
        case .channelFlowOK(let isActive):
            begin(20, 21)
            bits(isActive)
        case .channelClose(let closing):
            begin(20, 40)
            try closing.write(to: &buffer)
        case .channelCloseOK: begin(20, 41)

        case .exchangeDeclare(let name, let type, let flags, let arguments):
            begin(40, 10)
            reserved()
            try buffer.write(shortString: name)
            try buffer.write(shortString: type)
            buffer.writeInteger(flags.rawValue)
            try buffer.write(arguments)
        case .exchangeDeclareOK: begin(40, 11)
        case .exchangeDelete(let name, let ifUnused):
            begin(40, 20)
            reserved()
            try buffer.write(shortString: name)
            bits(ifUnused, false)
        case .exchangeDeleteOK: begin(40, 21)
        case .exchangeBind(let destination, let source, let key, let arguments):
            begin(40, 30)
            reserved()
            for name in [destination, source, key] { try buffer.write(shortString: name) }
            bits(false)
            try buffer.write(arguments)
        case .exchangeBindOK: begin(40, 31)
        case .exchangeUnbind(let destination, let source, let key, let arguments):
            begin(40, 40)
            reserved()
            for name in [destination, source, key] { try buffer.write(shortString: name) }
            bits(false)
            try buffer.write(arguments)
        case .exchangeUnbindOK: begin(40, 51)

        case .queueDeclare(let name, let flags, let arguments):
            begin(50, 10)
            reserved()
            try buffer.write(shortString: name)
            buffer.writeInteger(flags.rawValue)
            try buffer.write(arguments)
        case .queueDeclareOK(let name, let messages, let consumers):
            begin(50, 11)
            try buffer.write(shortString: name)
            buffer.writeInteger(messages)
            buffer.writeInteger(consumers)
        case .queueBind(let queue, let exchange, let key, let arguments):
            begin(50, 20)
            reserved()
            for name in [queue, exchange, key] { try buffer.write(shortString: name) }
            bits(false)
            try buffer.write(arguments)
        case .queueBindOK: begin(50, 21)
        case .queuePurge(let name):
            begin(50, 30)
            reserved()
            try buffer.write(shortString: name)
            bits(false)
        case .queuePurgeOK(let messages):
            begin(50, 31)
            buffer.writeInteger(messages)
        case .queueDelete(let name, let ifUnused, let ifEmpty):
            begin(50, 40)
            reserved()
            try buffer.write(shortString: name)
            bits(ifUnused, ifEmpty, false)
        case .queueDeleteOK(let messages):
            begin(50, 41)
            buffer.writeInteger(messages)
        case .queueUnbind(let queue, let exchange, let key, let arguments):
            begin(50, 50)
            reserved()
            for name in [queue, exchange, key] { try buffer.write(shortString: name) }
            try buffer.write(arguments)
        case .queueUnbindOK: begin(50, 51)

        case .basicQoS(let count, let isShared):
            begin(60, 10)
            buffer.writeInteger(UInt32(0))
            buffer.writeInteger(count)
            bits(isShared)
        case .basicQoSOK: begin(60, 11)
        case .basicConsume(let queue, let tag, let flags, let arguments):
            begin(60, 20)
            reserved()
            try buffer.write(shortString: queue)
            try buffer.write(shortString: tag)
            buffer.writeInteger(flags.rawValue)
            try buffer.write(arguments)
        case .basicConsumeOK(let tag):
            begin(60, 21)
            try buffer.write(shortString: tag)
        case .basicCancel(let tag, let noWait):
            begin(60, 30)
            try buffer.write(shortString: tag)
            bits(noWait)
        case .basicCancelOK(let tag):
            begin(60, 31)
            try buffer.write(shortString: tag)
        case .basicPublish(let exchange, let key, let isMandatory):
            begin(60, 40)
            reserved()
            try buffer.write(shortString: exchange)
            try buffer.write(shortString: key)
            bits(isMandatory, false)
        case .basicReturn(let code, let text, let exchange, let key):
            begin(60, 50)
            buffer.writeInteger(code)
            for name in [text, exchange, key] { try buffer.write(shortString: name) }
        case .basicDeliver(let consumer, let tag, let isRedelivered, let exchange, let key):
            begin(60, 60)
            try buffer.write(shortString: consumer)
            buffer.writeInteger(tag)
            bits(isRedelivered)
            try buffer.write(shortString: exchange)
            try buffer.write(shortString: key)
        case .basicGet(let queue, let noAcknowledgement):
            begin(60, 70)
            reserved()
            try buffer.write(shortString: queue)
            bits(noAcknowledgement)
        case .basicGetOK(let tag, let isRedelivered, let exchange, let key, let messages):
            begin(60, 71)
            buffer.writeInteger(tag)
            bits(isRedelivered)
            try buffer.write(shortString: exchange)
            try buffer.write(shortString: key)
            buffer.writeInteger(messages)
        case .basicGetEmpty:
            begin(60, 72)
            try buffer.write(shortString: "")
        case .basicAck(let tag, let multiple):
            begin(60, 80)
            buffer.writeInteger(tag)
            bits(multiple)
        case .basicReject(let tag, let requeue):
            begin(60, 90)
            buffer.writeInteger(tag)
            bits(requeue)
        case .basicNack(let tag, let multiple, let requeue):
            begin(60, 120)
            buffer.writeInteger(tag)
            bits(multiple, requeue)
        case .basicRecover(let requeue):
            begin(60, 110)
            bits(requeue)
        case .basicRecoverOK: begin(60, 111)

        case .confirmSelect:
            begin(85, 10)
            bits(false)
        case .confirmSelectOK: begin(85, 11)
        }
    }
}
