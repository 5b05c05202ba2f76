/// A queue that a worker consumes.
public struct QueueSubscription: Sendable, Hashable, ExpressibleByStringLiteral {
    public var name: String
    /// How many of its jobs the worker runs at once; nil for as many as the lanes have slots.
    public var concurrency: Int?
    /// Its share when the order of queues is weighted. 1 by default.
    public var weight: Int
    /// How its jobs start, for all workers together; nil to leave that to others. See ``JobLimit``.
    public var limits: [JobLimit]?
    /// The topics whose jobs come to this queue. A worker binds them when it starts, and nobody unbinds them: see
    /// ``TopicRouting``.
    public var topics: [TopicBinding]

    public init(
        _ name: String, concurrency: Int? = nil, weight: Int = 1, limits: [JobLimit]? = nil, topics: [TopicBinding] = []
    ) {
        self.name = name
        self.concurrency = concurrency.map { max(1, $0) }
        self.weight = max(1, weight)
        self.limits = limits
        self.topics = topics
    }

    public init(stringLiteral value: String) { self.init(value) }

    public static func queue(
        _ name: String, concurrency: Int? = nil, weight: Int = 1, limits: [JobLimit]? = nil, topics: [TopicBinding] = []
    ) -> QueueSubscription {
        QueueSubscription(name, concurrency: concurrency, weight: weight, limits: limits, topics: topics)
    }
}

/// Which queue is asked first when a slot is free.
public struct QueueOrder: Sendable, Hashable {
    enum Kind: Sendable { case strict, weighted }
    let kind: Kind

    /// Always the first one that has a job, in the order in which the worker names them.
    public static let strict = QueueOrder(kind: .strict)
    /// By chance, a queue of weight 3 first three times as often as one of weight 1. No queue starves.
    public static let weighted = QueueOrder(kind: .weighted)

    func arrange(_ queues: [QueueSubscription]) -> [QueueSubscription] {
        guard kind == .weighted, queues.count > 1 else { return queues }
        // The largest of w draws: a queue of weight w comes before one of weight 1 in w of w + 1 cases.
        return queues.map { queue in
            (queue, (0..<min(queue.weight, 1000)).map { _ in Double.random(in: 0..<1) }.max() ?? 0)
        }
        .sorted { $0.1 > $1.1 }.map(\.0)
    }
}
