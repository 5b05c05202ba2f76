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
        properties.correlationID = Self.short(own.correlationID ?? message.id)
        properties.replyTo = Self.short(own.replyTo)
        properties.expiration = own.expiration
        for (key, path) in Self.others { properties[keyPath: path] = Self.short(own.custom[key]?.stringValue) }
        properties.timestamp = own.custom["timestamp"]?.integerValue.flatMap { UInt64(exactly: $0) }
        self.init(properties: properties, body: message.body)
    }

    /// What a property can hold; nil for more.
    private static func short(_ text: String?) -> String? { (text?.utf8.count ?? 0) <= 255 ? text : nil }

    /// Properties of other producers that have no meaning here, and are passed on. The user is not: RabbitMQ takes no
    /// other than that of the connection.
    private static var others: [(String, WritableKeyPath<AMQPProperties, String?>)] {
        [
            ("message_id", \.messageID), ("type", \.type), ("app_id", \.applicationID), ("cluster_id", \.clusterID),
        ]
    }

    /// The task message that this one is.
    /// - Parameters:
    ///   - queue: where it was taken from.
    ///   - isRedelivered: whether it was handed out before.
    /// - Throws: ``WireError`` that says what is missing, malformed or too large.
    func taskMessage(from queue: String, isRedelivered: Bool) throws(WireError) -> Message {
        if let skippedBytes { throw WireError("\(skippedBytes) bytes exceed the limit of a message") }
        if let headerViolation { throw WireError("the headers cannot be read: \(headerViolation)") }
        var own = MessageProperties(routingKey: queue, deliveryTag: properties.correlationID ?? "")
        own.correlationID = properties.correlationID
        own.replyTo = properties.replyTo
        own.deliveryMode = Int64(properties.deliveryMode ?? 1)
        own.priority = properties.priority.map { Int($0) }
        own.isRedelivered = isRedelivered || properties.headers?[Self.redeliveredHeader] != nil
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
        Self.redeliveredHeader, "CC", "BCC",
    ]

    /// How often the message came back to its quorum queue; nil in other queues.
    var deliveryCount: Int? {
        properties.headers?["x-delivery-count"]?.integerValue.map { Int($0.clamped(to: 0...1000)) }
    }

    /// Marks a message that was handed out before and is published again as it was: RabbitMQ does not know that then.
    static let redeliveredHeader = "x-hoist-redelivered"

    /// The message as it goes into a queue again, without what RabbitMQ has noted: a message that comes to a queue of
    /// the ladder a second time would count as one that goes in a circle, and be dropped.
    func again(isRedelivered: Bool) -> AMQPMessage {
        var again = self
        again.properties.userID = nil
        let names = Set(Self.brokersOwn).subtracting([Self.redeliveredHeader])
        again.properties.headers?.fields.removeAll { names.contains($0.name) }
        if isRedelivered { again.properties.headers = again.properties.headers ?? [:] }
        if isRedelivered { again.properties.headers?[Self.redeliveredHeader] = true }
        return again
    }

    /// In a dead letter: why it is one, as JSON.
    static let reasonHeader = "x-hoist-reason"

    /// The same message as a dead letter.
    func dead(_ failure: JobFailure) -> AMQPMessage {
        var dead = again(isRedelivered: false)
        dead.properties.headers?[Self.redeliveredHeader] = nil
        var headers = dead.properties.headers ?? [:]
        // All headers together must fit into a frame.
        var reason = failure
        reason.message = String(reason.message.prefix(1000))
        (reason.arguments, reason.crash) = (nil, nil)
        headers[Self.reasonHeader] = (try? WireEncoder.encode(reason)).map {
            .longString(JSONWriter.bytes(of: $0))
        }
        dead.properties.headers = headers
        // It is kept for a person, not for as long as it was worth starting.
        dead.properties.expiration = nil
        dead.properties.deliveryMode = 2
        return dead
    }

    /// What is left of a dead letter whose headers do not fit into a frame: its body, its name and id, and why.
    var essentials: AMQPMessage {
        var message = AMQPMessage(body: body)
        message.properties.contentType = properties.contentType
        message.properties.contentEncoding = properties.contentEncoding
        message.properties.deliveryMode = 2
        message.properties.correlationID = properties.correlationID
        let kept = ["task", "id", Self.reasonHeader]
        message.properties.headers = AMQPTable(
            (properties.headers?.fields ?? []).filter {
                kept.contains($0.name) && ($0.value.textValue?.utf8.count ?? 9999) < 4096
            })
        return message
    }
}
