import AMQP
import Hoist

/// How a queue is declared. The default is what Celery declares: a durable classic queue without any arguments.
///
/// A queue that exists with other settings is used as it is, and the worker says how it differs.
public struct QueueSettings: Sendable, Hashable {
    public enum Kind: Sendable, Hashable {
        /// One copy, on one node.
        case classic
        /// Copies on several nodes that agree (`x-queue-type: quorum`). RabbitMQ 3 ignores priorities there.
        case quorum
    }

    public var kind: Kind
    /// The number of priorities (`x-max-priority`), 10 for all that Hoist knows; nil for a queue without any. Without
    /// it jobs come by age alone.
    public var priorities: Int?
    /// How many messages may wait; nil for any number. An enqueue beyond it throws `BackendError` `.full`
    /// (`x-overflow: reject-publish`).
    public var maximumLength: Int?
    /// How many bytes of messages may wait; nil for any number.
    public var maximumBytes: Int?
    /// How long a message may wait before RabbitMQ drops it; nil for ever. Nobody is told of what is dropped.
    public var timeToLive: Duration?
    /// Whether one consumer at a time gets the messages, so that they are performed in order
    /// (`x-single-active-consumer`), together with a concurrency of 1.
    public var isSingleActiveConsumer: Bool
    /// Whether messages are kept on disk until they are asked for (`x-queue-mode: lazy`).
    public var isLazy: Bool

    public init(
        _ kind: Kind = .classic, priorities: Int? = nil, maximumLength: Int? = nil, maximumBytes: Int? = nil,
        timeToLive: Duration? = nil, isSingleActiveConsumer: Bool = false, isLazy: Bool = false
    ) {
        self.kind = kind
        self.priorities = priorities
        self.maximumLength = maximumLength
        self.maximumBytes = maximumBytes
        self.timeToLive = timeToLive
        self.isSingleActiveConsumer = isSingleActiveConsumer
        self.isLazy = isLazy
    }

    var arguments: AMQPTable {
        var arguments = AMQPTable()
        if kind == .quorum { arguments["x-queue-type"] = "quorum" }
        if let priorities { arguments["x-max-priority"] = .integer(Int64(priorities)) }
        if let maximumLength { arguments["x-max-length"] = .integer(Int64(maximumLength)) }
        if let maximumBytes { arguments["x-max-length-bytes"] = .integer(Int64(maximumBytes)) }
        if maximumLength != nil || maximumBytes != nil { arguments["x-overflow"] = "reject-publish" }
        if let timeToLive { arguments["x-message-ttl"] = .integer(timeToLive.inMicroseconds / 1000) }
        if isSingleActiveConsumer { arguments["x-single-active-consumer"] = true }
        if isLazy { arguments["x-queue-mode"] = "lazy" }
        return arguments
    }
}
