import AMQP
import Hoist

/// A frame of events or control, which the core has in the envelope of kombu's other transports: on RabbitMQ headers
/// and properties are the message's own, and the body is as it is.
extension AMQPMessage {
    /// Of a frame that is no envelope.
    private static let rawType = "application/x-hoist-frame"

    init(frame bytes: [UInt8]) {
        if let message = try? AMQPMessage(envelope: bytes) {
            self = message
        } else {
            self.init(body: bytes)
            (properties.contentType, properties.contentEncoding) = (Self.rawType, "binary")
        }
    }

    /// The frame as its sender gave it, or as an envelope where the sender is another program.
    func frame(exchange: String, key: String) -> [UInt8] {
        properties.contentType == Self.rawType ? body : envelope(exchange: exchange, key: key)
    }

    /// - Throws: ``WireError`` for what is no envelope.
    private init(envelope bytes: [UInt8]) throws(WireError) {
        guard case .object(let envelope) = try JSONParser.parse(bytes), envelope["body"] != nil else {
            throw WireError("the frame is no envelope")
        }
        let own = envelope["properties"]
        let content = envelope["body"]?.stringValue ?? ""
        let isBase64 = own?["body_encoding"]?.stringValue == "base64"
        var properties = AMQPProperties()
        properties.contentType = envelope["content-type"]?.stringValue
        properties.contentEncoding = envelope["content-encoding"]?.stringValue
        properties.headers = AMQPTable(envelope["headers"]?.objectValue ?? [:])
        properties.deliveryMode = own?["delivery_mode"]?.integerValue == 2 ? 2 : 1
        properties.priority = UInt8((own?["priority"]?.integerValue ?? 0).clamped(to: 0...255))
        properties.correlationID = own?["correlation_id"]?.stringValue
        properties.replyTo = own?["reply_to"]?.stringValue
        self.init(properties: properties, body: isBase64 ? try Base64.decode(content.utf8) : Array(content.utf8))
    }

    /// The message as an envelope.
    private func envelope(exchange: String, key: String) -> [UInt8] {
        var own: WireValue.Object = [
            "delivery_mode": .integer(Int64(properties.deliveryMode ?? 1)),
            "delivery_info": ["exchange": .string(exchange), "routing_key": .string(key)],
            "priority": .integer(Int64(properties.priority ?? 0)), "body_encoding": "base64",
            "delivery_tag": .string(properties.messageID ?? ""),
        ]
        if let id = properties.correlationID { own["correlation_id"] = .string(id) }
        if let replyTo = properties.replyTo { own["reply_to"] = .string(replyTo) }
        return JSONWriter.bytes(
            of: [
                "headers": .object(properties.headers?.wireObject ?? [:]),
                "content-type": .string(properties.contentType ?? "application/json"),
                "content-encoding": .string(properties.contentEncoding ?? "utf-8"), "properties": .object(own),
                "body": .string(Base64.text(body)),
            ])
    }
}
