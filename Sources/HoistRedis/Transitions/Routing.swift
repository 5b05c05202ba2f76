public import Hoist
import RESP

extension RedisBackend: TopicRouting, JobBroadcasting {
    public func bind(queue: String, to topics: TopicBinding) async throws {
        try await announce([queue])
        for key in keys.bindings(of: topics.exchange) {
            _ = try await send(
                RESPCommand("SADD", [.text(key), .text(keys.member(queue, pattern: topics.pattern))]),
                doing: "bind the queue \(queue) to \(topics.exchange)")
        }
    }

    public func unbind(queue: String, from topics: TopicBinding) async throws {
        for key in keys.bindings(of: topics.exchange) {
            _ = try await send(
                RESPCommand("SREM", [.text(key), .text(keys.member(queue, pattern: topics.pattern))]),
                doing: "unbind the queue \(queue) from \(topics.exchange)")
        }
    }

    public func queues(of exchange: String, topic: String) async throws -> [String] {
        let members = try await send(
            RESPCommand("SMEMBERS", [.text(keys.bindings(of: exchange)[0])]),
            doing: "look for the queues of \(exchange)")
        let found = (members.elements ?? []).compactMap(\.text).compactMap { member -> String? in
            guard let (pattern, queue) = keys.binding(ofMember: member) else { return nil }
            return pattern == topic || TopicBinding.topic(pattern, exchange: exchange).matches(topic) ? queue : nil
        }
        return Set(found).sorted()
    }

    public func broadcast(_ message: Message, on channel: String) async throws -> Int {
        var message = wireMessage(message)
        // Hoist's workers listen without a key; Celery's with the one of their queue, which is that of the default
        // queue unless it was given.
        var (heard, others) = (0, 0)
        for key in [""] + (try await routingKeys(of: channel)) {
            message.properties.routingKey = key
            let name = broadcasts.name(of: channel) + (key.isEmpty ? "" : "/" + key)
            let count = try await send(
                RESPCommand("PUBLISH", [.text(name), .bytes(message.encodedEnvelope())]),
                doing: "broadcast on \(channel)")
            // Those without a key get the others as well, and drop them.
            if key.isEmpty {
                heard = Int(count.integer ?? 0)
            } else {
                others += max(0, Int(count.integer ?? 0) - heard)
            }
        }
        return heard + others
    }

    /// The keys that Celery's workers listen to on a fanout exchange.
    private func routingKeys(of exchange: String) async throws -> [String] {
        let members = try await send(
            RESPCommand("SMEMBERS", [.text(keys.bindings(of: exchange)[0])]),
            doing: "look for the queues of \(exchange)")
        let found = (members.elements ?? []).compactMap(\.text).compactMap { keys.binding(ofMember: $0)?.pattern }
        return Set(found).subtracting([""]).sorted()
    }

    public func broadcasts(on channel: String) async throws -> AsyncStream<Message> {
        try await broadcasts.listen(to: channel, clock: clock)
    }
}
