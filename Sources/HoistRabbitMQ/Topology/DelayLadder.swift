import AMQP
import Hoist

/// Celery's queues for delays ("native delayed delivery", kombu `kombu/transport/native_delayed_delivery.py`).
///
/// A delay in whole seconds is a number of 28 binary digits. There is a queue for each digit, which holds a message for
/// 2 to the power of its place, and a message visits the queues of the digits that are 1. So a message that waits is
/// with the broker alone, and survives its restart.
struct DelayLadder {
    /// Whether the queues are classic or quorum queues. Celery's default is quorum.
    var kind: QueueSettings.Kind

    static let steps = 28
    static let longest: Int64 = (1 << 28) - 1
    /// Where a message leaves the ladder.
    static let exit = "celery_delayed_delivery"
    static func level(_ number: Int) -> String { "celery_delayed_\(number)" }
    /// Where a message enters it.
    static let entrance = level(steps - 1)

    var topology: AMQPTopology {
        var topology = AMQPTopology(exchanges: [.init(Self.exit, .topic)])
        for number in 0..<Self.steps {
            let name = Self.level(number)
            let next = number == 0 ? Self.exit : Self.level(number - 1)
            topology.exchanges.append(.init(name, .topic))
            topology.queues.append(.init(name, arguments: arguments(seconds: 1 << Int64(number), next: next)))
            // The places of the higher digits are passed already, whatever they were.
            let passed = String(repeating: "*.", count: Self.steps - 1 - number)
            topology.bindings.append(.init(.queue(name), to: name, key: passed + "1.#"))
            topology.bindings.append(.init(.exchange(next), to: name, key: passed + "0.#"))
        }
        return topology
    }

    private func arguments(seconds: Int64, next: String) -> AMQPTable {
        var arguments = AMQPTable()
        if kind == .quorum { arguments["x-queue-type"] = "quorum" }
        if kind == .quorum { arguments["x-dead-letter-strategy"] = "at-least-once" }
        arguments["x-overflow"] = "reject-publish"
        arguments["x-message-ttl"] = .integer(seconds * 1000)
        arguments["x-dead-letter-exchange"] = .text(next)
        return arguments
    }

    /// Leads messages from the ladder's end to a queue of jobs. Exactly as many words as a key has digits come before its
    /// name: the name of another queue may end alike.
    static func topology(to queue: String) -> AMQPTopology {
        AMQPTopology(
            exchanges: [.init(exit, .topic)],
            bindings: [.init(.queue(queue), to: exit, key: String(repeating: "*.", count: steps) + queue)])
    }

    /// The routing key of a message that is due in so many seconds: 1 at least. What is further away than the ladder is
    /// long goes through it again.
    static func key(seconds: Int64, queue: String) -> String {
        let delay = seconds.clamped(to: 1...longest)
        let digits = (0..<steps).map { (delay >> Int64(steps - 1 - $0)) & 1 == 1 ? "1" : "0" }
        return digits.joined(separator: ".") + "." + queue
    }
}
