/// The properties of a message. AMQP keeps them beside the headers, Redis and SQLite inside the envelope.
public struct MessageProperties: Sendable, Hashable {
    /// The job's id again, for replies.
    public var correlationID: String?
    /// The queue in which a producer waits for the result over RabbitMQ; passed on unchanged.
    public var replyTo: String?
    /// 2: survives a restart of the broker (default). 1: may be lost.
    public var deliveryMode: Int64 = 2
    public var exchange: String = ""
    /// The queue, when the exchange is the default one.
    public var routingKey: String
    /// The priority on the wire. Its meaning depends on the broker; nil when the producer set none.
    public var priority: Int?
    /// Milliseconds as text, for RabbitMQ.
    public var expiration: String?
    public var deliveryTag: String
    /// True when the message was delivered before and returned to its queue.
    public var isRedelivered: Bool = false
    /// Properties of other producers that have no meaning here.
    public var custom: WireValue.Object = [:]

    public init(routingKey: String, deliveryTag: String) {
        self.routingKey = routingKey
        self.deliveryTag = deliveryTag
    }

    /// Empty properties, to be filled with `set(_:_:)`.
    init() { self.init(routingKey: "", deliveryTag: "") }

    /// Sets one property by its wire name.
    mutating func set(_ key: String, _ value: WireValue) {
        switch key {
        case "correlation_id": correlationID = value.stringValue
        case "reply_to": replyTo = value.stringValue
        case "delivery_mode": deliveryMode = value.integerValue ?? 2
        case "priority": priority = value.integerValue.map { Int(clamping: $0) }
        case "expiration": expiration = value.stringValue
        case "delivery_tag": deliveryTag = value.stringValue ?? ""
        case "delivery_info":
            exchange = value["exchange"]?.stringValue ?? ""
            routingKey = value["routing_key"]?.stringValue ?? ""
            isRedelivered = value["redelivered"]?.boolValue ?? false
        case "body_encoding": break
        default: custom[key] = value
        }
    }

    /// - Parameter isBase64: whether the body is written as base64.
    func write(to json: inout JSONWriter, isBase64: Bool) {
        json.token("{\"delivery_mode\":")
        json.integer(deliveryMode)
        if let correlationID {
            json.token(",\"correlation_id\":")
            json.string(correlationID)
        }
        if let replyTo {
            json.token(",\"reply_to\":")
            json.string(replyTo)
        }
        json.token(",\"delivery_info\":{\"exchange\":")
        json.string(exchange)
        json.token(",\"routing_key\":")
        json.string(routingKey)
        if isRedelivered { json.token(",\"redelivered\":true") }
        json.token("}")
        if let priority {
            json.token(",\"priority\":")
            json.integer(Int64(priority))
        }
        if let expiration {
            json.token(",\"expiration\":")
            json.string(expiration)
        }
        if isBase64 {
            json.token(",\"body_encoding\":\"base64\",\"delivery_tag\":")
        } else {
            json.token(",\"body_encoding\":null,\"delivery_tag\":")
        }
        json.string(deliveryTag)
        for (key, value) in custom {
            json.token(",")
            json.string(key)
            json.token(":")
            json.write(value)
        }
        json.token("}")
    }
}
