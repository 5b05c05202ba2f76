import AMQP
import Hoist

/// What is declared for a queue of jobs: Celery's objects, and Hoist's own beside them.
struct TaskQueue {
    var name: String
    var settings: QueueSettings

    /// As Celery declares a queue that its configuration does not describe: an exchange of the same name, and a binding
    /// with the same key (`celery/app/amqp.py`).
    var topology: AMQPTopology {
        AMQPTopology(
            exchanges: [.init(name, .direct)], queues: [.init(name, arguments: settings.arguments)],
            bindings: [.init(.queue(name), to: name, key: name)])
    }

    /// Keeps jobs that no worker could do anything with.
    var deadLetters: String { "hoist.dead." + name }

    func deadLetterTopology(keptFor retention: Duration, atMost limit: Int) -> AMQPTopology {
        AMQPTopology(queues: [
            .init(
                deadLetters,
                arguments: [
                    "x-message-ttl": .integer(retention.inMicroseconds / 1000), "x-max-length": .integer(Int64(limit)),
                ])
        ])
    }

    /// Holds jobs that this worker does not know, and gives them back after a while.
    var holding: String { "hoist.held." + name }

    /// - Parameter kind: a quorum queue keeps a job until its own queue has room for it, where a classic one gives it
    ///   up.
    func holdingTopology(for pause: Duration, _ kind: QueueSettings.Kind) -> AMQPTopology {
        var arguments: AMQPTable = [
            "x-message-ttl": .integer(pause.inMicroseconds / 1000), "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": .text(name),
        ]
        if kind == .quorum {
            arguments["x-queue-type"] = "quorum"
            arguments["x-dead-letter-strategy"] = "at-least-once"
            arguments["x-overflow"] = "reject-publish"
        }
        return AMQPTopology(queues: [.init(holding, arguments: arguments)])
    }
}
