import Synchronization

/// Those who listen to frames in this process, and what they want to hear.
package final class FanoutListeners: Sendable {
    private struct Listener {
        var exchange: String
        var pattern: TopicPattern
        var continuation: AsyncStream<FanoutFrame>.Continuation
        /// Frames were missed since the last one.
        var hasGap = false
        /// How many frames it has lost, because it was too far behind.
        var lost = 0
    }

    private let state = Mutex<(next: Int, listeners: [Int: Listener])>((0, [:]))
    /// Called with the number of listeners of an exchange whenever it changes.
    private let onChange: @Sendable (_ exchange: String, _ count: Int) -> Void

    package init(onChange: @escaping @Sendable (_ exchange: String, _ count: Int) -> Void = { _, _ in }) {
        self.onChange = onChange
    }

    package func listen(exchange: String, pattern: String) -> AsyncStream<FanoutFrame> {
        // Whoever reaches the broker may flood workers with requests.
        let most = exchange == ControlRequest.exchange ? 1000 : 10_000
        let (stream, continuation) = AsyncStream.makeStream(
            of: FanoutFrame.self, bufferingPolicy: .bufferingNewest(most))
        let listener = Listener(exchange: exchange, pattern: TopicPattern(pattern), continuation: continuation)
        let (id, count) = state.withLock { state in
            state.next += 1
            state.listeners[state.next] = listener
            return (state.next, Self.count(state.listeners, exchange))
        }
        continuation.onTermination = { [weak self] _ in self?.remove(id, exchange) }
        onChange(exchange, count)
        return stream
    }

    /// - Returns: how many heard the frame.
    @discardableResult
    package func hear(_ frame: FanoutFrame, exchange: String) -> Int {
        // A request that is too large is refused before it is kept.
        let largest = exchange == ControlRequest.exchange ? 2 * WireLimits.request.maximumBytes : .max
        guard frame.bytes.count <= largest else { return 0 }
        let hearing = state.withLock { state in
            let hearing = state.listeners.filter { $1.exchange == exchange && $1.pattern.matches(frame.key) }
            for (id, listener) in hearing where listener.hasGap { state.listeners[id]?.hasGap = false }
            return hearing
        }
        for (id, listener) in hearing {
            var frame = frame
            frame.isAfterGap = listener.hasGap
            // It is too far behind, and has lost its oldest frame.
            if case .dropped = listener.continuation.yield(frame) {
                state.withLock { state in
                    state.listeners[id]?.lost += 1
                    // Not at each of them: a listener that stays behind loses one for each that comes.
                    if (state.listeners[id]?.lost ?? 0) % 1000 == 1 { state.listeners[id]?.hasGap = true }
                }
            }
        }
        return hearing.count
    }

    /// Says that the listeners of an exchange may have missed frames.
    package func noteGap(exchange: String) {
        state.withLock { state in
            for (id, listener) in state.listeners where listener.exchange == exchange {
                state.listeners[id]?.hasGap = true
            }
        }
    }

    package func count(of exchange: String) -> Int { state.withLock { Self.count($0.listeners, exchange) } }

    private static func count(_ listeners: [Int: Listener], _ exchange: String) -> Int {
        listeners.values.count { $0.exchange == exchange }
    }

    private func remove(_ id: Int, _ exchange: String) {
        let count = state.withLock { state in
            state.listeners[id] = nil
            return Self.count(state.listeners, exchange)
        }
        onChange(exchange, count)
    }
}

/// Routing keys as AMQP's topic exchanges match them: words with dots between, `*` for one word, `#` for any number of
/// words, also none.
///
/// Topics of jobs are matched by ``TopicBinding``, which reads `#` as kombu on Redis does.
package struct TopicPattern: Sendable {
    private let words: [Substring]

    package init(_ pattern: String) { words = pattern.split(separator: ".", omittingEmptySubsequences: false) }

    package func matches(_ key: String) -> Bool {
        let key = key.isEmpty ? [] : key.split(separator: ".", omittingEmptySubsequences: false)
        // Where `#` may begin to match: all places at once, so that the time is bounded by words times words.
        var reached = [Bool](repeating: false, count: key.count + 1)
        reached[0] = true
        for word in words where !(words.count == 1 && word.isEmpty) {
            var next = [Bool](repeating: false, count: key.count + 1)
            if word == "#" {
                guard let first = reached.firstIndex(of: true) else { return false }
                for index in first...key.count { next[index] = true }
            } else {
                for index in key.indices where reached[index] && (word == "*" || word == key[index]) {
                    next[index + 1] = true
                }
            }
            reached = next
        }
        return reached[key.count]
    }
}
