import AMQP
import Hoist

/// A task message on RabbitMQ: headers, properties and body apart, as Celery's producers send it.
extension AMQPMessage {
    init(_ message: Message) {
        var properties = AMQPProperties()
        properties.contentType = message.contentType
        properties.contentEncoding = message.contentEncoding
        properties.headers = AMQPTable(message.headers.members)
        let own = message.properties
        properties.deliveryMode = own.deliveryMode == 1 ? 1 : 2
        properties.priority = UInt8((own.priority ?? 0).clamped(to: 0...255))
        properties.correlationID = own.correlationID ?? message.id
        properties.replyTo = own.replyTo
        properties.expiration = own.expiration
        for (key, path) in Self.others { properties[keyPath: path] = own.custom[key]?.stringValue }
        properties.timestamp = own.custom["timestamp"]?.integerValue.flatMap { UInt64(exactly: $0) }
        self.init(properties: properties, body: message.body)
    }

    /// Properties of other producers that have no meaning here, and are passed on.
    private static var others: [(String, WritableKeyPath<AMQPProperties, String?>)] {
        [
            ("message_id", \.messageID), ("type", \.type), ("user_id", \.userID), ("app_id", \.applicationID),
            ("cluster_id", \.clusterID),
        ]
    }

    /// The task message that this one is.
    /// - Parameters:
    ///   - queue: where it was taken from.
    ///   - isRedelivered: whether it was handed out before.
    /// - Throws: ``WireError`` that says what is missing, malformed or too large.
    func taskMessage(from queue: String, isRedelivered: Bool) throws(WireError) -> Message {
        if let skippedBytes { throw WireError("\(skippedBytes) bytes exceed the limit of a message") }
        var own = MessageProperties(routingKey: queue, deliveryTag: properties.correlationID ?? "")
        own.correlationID = properties.correlationID
        own.replyTo = properties.replyTo
        own.deliveryMode = Int64(properties.deliveryMode ?? 1)
        own.priority = properties.priority.map { Int($0) }
        own.isRedelivered = isRedelivered
        for (key, path) in Self.others {
            if let text = properties[keyPath: path] { own.custom[key] = .string(text) }
        }
        if let timestamp = properties.timestamp { own.custom["timestamp"] = .integer(Int64(clamping: timestamp)) }
        var headers = properties.headers?.wireObject ?? [:]
        // What RabbitMQ has noted of the message is not part of it.
        for name in Self.brokersOwn { headers[name] = nil }
        return try Message(
            headers: headers, properties: own, contentType: properties.contentType ?? "application/json",
            contentEncoding: properties.contentEncoding ?? "utf-8", body: body)
    }

    private static let brokersOwn = [
        "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason", "x-delivery-count",
        "x-acquired-count", "x-last-death-exchange", "x-last-death-queue", "x-last-death-reason", Self.reasonHeader,
    ]

    /// How often the message came back to its quorum queue; nil in other queues.
    var deliveryCount: Int? {
        properties.headers?["x-delivery-count"]?.integerValue.map { Int(clamping: $0) }
    }

    /// In a dead letter: why it is one, as JSON.
    static let reasonHeader = "x-hoist-reason"

    /// The same message as a dead letter.
    func dead(_ failure: JobFailure) -> AMQPMessage {
        var dead = self
        var headers = dead.properties.headers ?? [:]
        headers[Self.reasonHeader] = (try? WireEncoder.encode(failure)).map {
            .longString(JSONWriter.bytes(of: $0))
        }
        dead.properties.headers = headers
        // It is kept for a person, not for as long as it was worth starting.
        dead.properties.expiration = nil
        dead.properties.deliveryMode = 2
        return dead
    }
}
