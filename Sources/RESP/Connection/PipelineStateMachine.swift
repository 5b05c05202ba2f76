import DequeModule

/// The commands under way on one ready connection, and what becomes of them. Pure: time is an argument, in nanoseconds.
struct PipelineStateMachine<Request>: ~Copyable {
    struct Pending {
        /// nil for a keep-alive PING of the connection itself.
        var request: Request?
        var expectedReplies: Int
        var replies: [RESPValue] = []
        /// When the connection counts as dead unless the last reply has come.
        var deadline: Int64
    }

    enum Received {
        case nothing
        case complete(Request, [RESPValue])
        case push([RESPValue])
        case close(RESPError)
    }

    enum Tick {
        case nothing
        case ping
        case close(RESPError)
    }

    /// How long a connection may be silent before it is pinged, and how long the answer may take.
    let keepAlive: Int64
    /// A connection for subscriptions gets messages as plain arrays when the server speaks RESP2.
    let isSubscriber: Bool
    private var pending: Deque<Pending> = []
    private var lastHeard: Int64

    init(keepAlive: Int64, isSubscriber: Bool, now: Int64) {
        self.keepAlive = keepAlive
        self.isSubscriber = isSubscriber
        lastHeard = now
    }

    mutating func sent(_ request: Request?, expecting replies: Int, deadline: Int64) {
        pending.append(Pending(request: request, expectedReplies: replies, deadline: deadline))
    }

    mutating func received(_ reply: RESPParser.Reply, now: Int64) -> Received {
        lastHeard = now
        switch reply {
        case .push(let elements): return .push(elements)
        case .value(let value):
            if isSubscriber {
                if let elements = value.elements, Self.isMessage(elements) { return .push(elements) }
                // The server refuses one subscription; the others stay active.
                if case .error = value { return .nothing }
            }
            guard !pending.isEmpty else {
                return .close(RESPError(.protocolViolation, "the server answered what nobody asked"))
            }
            pending[0].replies.append(value)
            guard pending[0].replies.count == pending[0].expectedReplies else { return .nothing }
            let done = pending.removeFirst()
            return done.request.map { .complete($0, done.replies) } ?? .nothing
        }
    }

    private static func isMessage(_ elements: [RESPValue]) -> Bool {
        switch elements.first?.text {
        case "message", "pmessage", "subscribe", "psubscribe", "unsubscribe", "punsubscribe": true
        default: false
        }
    }

    mutating func tick(now: Int64) -> Tick {
        if let deadline = pending.lazy.map(\.deadline).min() {
            return deadline <= now
                ? .close(RESPError(.timedOut, "the server did not answer in time", mayHaveRun: true)) : .nothing
        }
        guard now - lastHeard >= keepAlive else { return .nothing }
        sent(nil, expecting: 1, deadline: now + keepAlive)
        return .ping
    }

    /// The connection is gone.
    /// - Returns: the requests that will get no answer.
    mutating func close() -> [Request] {
        defer { pending.removeAll() }
        return pending.compactMap(\.request)
    }

    var isIdle: Bool { pending.isEmpty }
}
