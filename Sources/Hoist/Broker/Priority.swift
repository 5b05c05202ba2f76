/// Urgency in one direction on every backend: 0 is the least urgent, 9 the most.
package enum Priority {
    package static let range = 0...9

    /// The urgency that a message asks for where the number on the wire means urgency, as on SQLite, in memory and on
    /// RabbitMQ.
    package static func urgency(of message: Message) -> Int {
        (message.properties.priority ?? 0).clamped(to: range)
    }
}
