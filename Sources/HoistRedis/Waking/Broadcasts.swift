import Hoist
import RESP
import Synchronization

/// The listeners of each broadcast channel. All listeners of this program share one subscription to a channel.
final class Broadcasts: Sendable {
    private struct Channel {
        var listeners: [Int: AsyncStream<Message>.Continuation] = [:]
        var isSubscribed: Set<RESPSubscriptions.Target> = []
    }

    private struct State {
        var channels: [String: Channel] = [:]
        var nextListener = 0
    }

    private let subscriptions: RESPSubscriptions
    private let prefix: String
    private let state = Mutex(State())
    private let bell = Doorbell()

    /// - Parameter prefix: prefix of channels: the key prefix, then kombu's `fanout_prefix` with the database.
    init(_ subscriptions: RESPSubscriptions, prefix: String) {
        self.subscriptions = subscriptions
        self.prefix = prefix
    }

    func name(of channel: String) -> String { prefix + channel }

    /// Messages come on the channel itself when they have no routing key, else on the channel, a slash and the key.
    private func targets(_ channel: String) -> [RESPSubscriptions.Target] {
        return [.channel(name(of: channel)), .pattern(RedisKeys.quoted(name(of: channel)) + "/*")]
    }

    /// Returns once the server has the subscription, so that nothing that is sent afterwards is missed.
    func listen(to channel: String, clock: any JobClock) async throws -> AsyncStream<Message> {
        // A worker that falls far behind loses the oldest broadcasts, so that they do not fill the memory.
        let (stream, continuation) = AsyncStream.makeStream(of: Message.self, bufferingPolicy: .bufferingNewest(10_000))
        let (listener, isNew) = state.withLock { state in
            let isNew = state.channels[channel] == nil
            state.nextListener += 1
            state.channels[channel, default: Channel()].listeners[state.nextListener] = continuation
            return (state.nextListener, isNew)
        }
        continuation.onTermination = { [weak self] _ in self?.remove(listener, from: channel) }
        if isNew {
            for target in targets(channel) {
                subscriptions.subscribe(to: target) { [weak self] event in self?.heard(event, target, channel) }
            }
        }
        let end = clock.uptime + 10_000_000
        while true {
            let mark = bell.mark
            if state.withLock({ $0.channels[channel]?.isSubscribed.count == 2 }) { return stream }
            guard clock.uptime < end, !Task.isCancelled else {
                continuation.finish()
                throw BackendError(.timedOut, "the server did not subscribe to broadcasts on \(channel)")
            }
            await bell.wait(after: mark, for: .microseconds(end - clock.uptime), clock: clock)
        }
    }

    private func heard(_ event: RESPSubscriptions.Event, _ target: RESPSubscriptions.Target, _ channel: String) {
        switch event {
        case .subscribed:
            state.withLock { _ = $0.channels[channel]?.isSubscribed.insert(target) }
            bell.ring()
        case .message(_, let bytes):
            // An unreadable broadcast is dropped: there is no job that could fail.
            guard var message = try? Message(envelope: bytes) else { return }
            message.properties.priority = RedisPriority.urgency(wire: message.properties.priority)
            // Hoist also publishes each broadcast without a key: its copies with a key are for Celery's workers.
            if case .pattern = target, message.headers.language == "swift" { return }
            let listeners = state.withLock { Array(($0.channels[channel]?.listeners ?? [:]).values) }
            for listener in listeners { listener.yield(message) }
        }
    }

    private func remove(_ listener: Int, from channel: String) {
        let isLast = state.withLock { state in
            state.channels[channel]?.listeners[listener] = nil
            guard state.channels[channel]?.listeners.isEmpty == true else { return false }
            state.channels[channel] = nil
            return true
        }
        if isLast { for target in targets(channel) { subscriptions.unsubscribe(from: target) } }
    }
}
