public import Hoist
import NIOCore
import RESP
import Synchronization

/// Frames on kombu's fanout channels: `/<database>.<exchange>`, with `/<key>` behind where there is a key.
extension RedisBackend: Fanout {
    public func send(_ frame: [UInt8], exchange: String, key: String) async throws -> Int? {
        let channel = broadcasts.name(of: exchange) + (key.isEmpty ? "" : "/" + key)
        let heard = try await send(
            RESPCommand("PUBLISH", [.text(channel), .bytes(frame)]), doing: "send a frame on \(exchange)")
        // In a cluster the number counts the listeners of one node alone.
        if case .cluster = client.configuration.topology { return nil }
        return Int(heard.integer ?? 0)
    }

    public func frames(exchange: String, pattern: String) async throws -> AsyncStream<FanoutFrame> {
        try await frames.listen(to: exchange, pattern: pattern, clock: clock)
    }

    /// As kombu does: the asker has bound a queue of its own, named after its key, to the exchange.
    public func reply(_ frame: [UInt8], to address: ReplyAddress) async throws -> Bool {
        let queue = ReplyList(address, keys: keys)
        let isBound = try await send(
            RESPCommand("SISMEMBER", [.text(queue.binding), .text(queue.member)]), doing: "look for the asker")
        guard isBound.integer == 1 else { return false }
        // Should the asker die, its queue does not stay.
        _ = try await pipeline(
            [
                RESPCommand("LPUSH", [.text(queue.list), .bytes(frame)]),
                RESPCommand("EXPIRE", [.text(queue.list), "300"]),
            ], doing: "reply to a request")
        return true
    }

    public func replies(exchange: String) async throws -> ReplyQueue {
        let address = ReplyAddress(exchange: exchange, key: JobIdentifier.make())
        let queue = ReplyList(address, keys: keys)
        _ = try await send(
            RESPCommand("SADD", [.text(queue.binding), .text(queue.member)]), doing: "open a queue for replies")
        let frames = AsyncStream<[UInt8]>.fed(bufferingPolicy: .bufferingNewest(10_000), on: thread) {
            [client, weak self] frames in
            while !Task.isCancelled {
                // In a cluster this is how the node of the queue becomes known.
                let exists = RESPCommand("EXISTS", [.text(queue.list)], key: queue.list)
                if (try? await client.send(exists)) != nil,
                    let connection = try? await client.openConnection(for: queue.list).get()
                {
                    await Self.read(queue.list, on: connection) { frames.yield($0) }
                    connection.close()
                }
                if !Task.isCancelled { try? await Task.sleep(for: .milliseconds(200)) }
            }
            self?.beside { backend in
                _ = try await backend.pipeline(
                    [
                        RESPCommand("SREM", [.text(queue.binding), .text(queue.member)]),
                        RESPCommand("DEL", [.text(queue.list)]),
                    ], doing: "close a queue for replies")
            }
        }
        return ReplyQueue(address: address, frames: frames)
    }
}

extension RedisBackend {
    /// Takes what comes into a list, until the connection or the server fails or the task is cancelled.
    private static func read(_ list: String, on connection: RESPConnection, _ pass: ([UInt8]) -> Void) async {
        while !Task.isCancelled {
            let answers = try? await connection.send([RESPCommand("BRPOP", [.text(list), "1"])], timeout: .seconds(4))
            switch answers?.first {
            case nil, .error?: return
            case let answer?: if let bytes = answer.elements?.last?.bytes { pass(bytes) }
            }
        }
    }
}

/// Where kombu keeps the queue of an asker.
private struct ReplyList: Sendable {
    let list: String
    let binding: String
    let member: String

    init(_ address: ReplyAddress, keys: RedisKeys) {
        let name = address.key + "." + address.exchange
        list = keys.prefix + name
        binding = keys.bindingSet(of: address.exchange)
        member = address.key + RedisKeys.separator + RedisKeys.separator + name
    }
}

/// Who listens to the frames of which exchange. Two subscriptions serve all listeners of an exchange in this program.
final class FanoutChannels: Sendable {
    private let subscriptions: RESPSubscriptions
    private let prefix: String
    private let listeners: FanoutListeners
    private let confirmed = Mutex<[String: Set<RESPSubscriptions.Target>]>([:])
    private let bell = Doorbell()

    /// - Parameter prefix: in front of the names of exchanges, as ``Broadcasts``.
    init(_ subscriptions: RESPSubscriptions, prefix: String) {
        self.subscriptions = subscriptions
        self.prefix = prefix
        let left = Left()
        listeners = FanoutListeners(onChange: { exchange, count in if count == 0 { left.tell(exchange) } })
        left.whom.withLock { $0 = { [weak self] exchange in self?.release(exchange) } }
    }

    /// Passes on that the last listener of an exchange has left.
    private final class Left: Sendable {
        let whom = Mutex<(@Sendable (String) -> Void)?>(nil)

        func tell(_ exchange: String) { whom.withLock { $0 }?(exchange) }
    }

    private func release(_ exchange: String) {
        confirmed.withLock { confirmed in
            guard listeners.count(of: exchange) == 0, confirmed.removeValue(forKey: exchange) != nil else { return }
            for target in targets(exchange) { subscriptions.unsubscribe(from: target) }
        }
    }

    /// Between an exchange and the one key of it that somebody listens to.
    private static let exact = "\u{0}"

    private func targets(_ exchange: String) -> [RESPSubscriptions.Target] {
        if let mark = exchange.firstRange(of: Self.exact) {
            return [
                .pattern(RedisKeys.quoted(prefix + exchange[..<mark.lowerBound] + "/" + exchange[mark.upperBound...]))
            ]
        }
        let quoted = RedisKeys.quoted(prefix + exchange)
        // A name of its own for each: a broadcast of jobs on the same exchange has its own subscriptions.
        return [.pattern(quoted), .pattern(quoted + "/?*")]
    }

    /// Returns once the server has the subscriptions, so that no later frame is missed.
    func listen(to exchange: String, pattern: String, clock: any JobClock) async throws -> AsyncStream<FanoutFrame> {
        // Who wants to hear one key alone is not sent all others: an exchange of events may be busy.
        let isExact = !pattern.isEmpty && !pattern.contains { "*#".contains($0) }
        let exchange = isExact ? exchange + Self.exact + pattern : exchange
        let stream = listeners.listen(exchange: exchange, pattern: pattern)
        // Under the lock, so that the last listener who leaves does not undo the subscription of a new one.
        confirmed.withLock { confirmed in
            guard confirmed[exchange] == nil else { return }
            confirmed[exchange] = []
            for target in targets(exchange) {
                subscriptions.subscribe(to: target) { [weak self] event in self?.heard(event, target, exchange) }
            }
        }
        let end = clock.uptime + 10_000_000
        while true {
            let mark = bell.mark
            if confirmed.withLock({ $0[exchange]?.count == targets(exchange).count }) { return stream }
            guard clock.uptime < end, !Task.isCancelled else {
                throw BackendError(.timedOut, "the server did not confirm the subscription to \(exchange)")
            }
            await bell.wait(after: mark, for: .microseconds(end - clock.uptime), clock: clock)
        }
    }

    private func heard(_ event: RESPSubscriptions.Event, _ target: RESPSubscriptions.Target, _ exchange: String) {
        switch event {
        case .subscribed:
            let isNew = confirmed.withLock { $0[exchange]?.insert(target).inserted ?? true }
            // The connection was away.
            if !isNew { listeners.noteGap(exchange: exchange) }
            bell.ring()
        case .message(let channel, let bytes):
            let name = exchange.prefix { !Self.exact.contains($0) }
            let key = channel.dropFirst(prefix.count + name.count)
            let frame = FanoutFrame(key: key.hasPrefix("/") ? String(key.dropFirst()) : "", bytes: bytes)
            listeners.hear(frame, exchange: exchange)
        }
    }
}
