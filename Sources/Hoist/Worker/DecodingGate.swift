import Synchronization

/// Keeps the memory that messages take within a limit, all of a process together: who would exceed it waits until others
/// have ended. A message that is larger than the limit is read alone.
final class DecodingGate: Sendable {
    static let shared = DecodingGate()

    private struct Waiting {
        var cost: Int
        var continuation: CheckedContinuation<Void, Never>
    }

    private struct State {
        var used = 0
        var waiting: [Waiting] = []
    }

    private let state = Mutex(State())

    /// What is too small to be counted.
    static let unit = 1 << 20

    /// - Parameter cost: in bytes, an estimate.
    func enter(_ cost: Int, of limit: Int) async {
        guard cost >= Self.unit else { return }
        let cost = min(cost, limit)
        await withCheckedContinuation { continuation in
            let enters = state.withLock { state in
                guard state.waiting.isEmpty, state.used + cost <= limit else {
                    state.waiting.append(Waiting(cost: cost, continuation: continuation))
                    return false
                }
                state.used += cost
                return true
            }
            if enters { continuation.resume() }
        }
    }

    /// Gives back what a message has entered with, but for what it turned out to take.
    func leave(_ cost: Int, keeping kept: Int = 0, of limit: Int) {
        let freed = (cost >= Self.unit ? min(cost, limit) : 0) - (kept >= Self.unit ? min(kept, limit) : 0)
        guard freed > 0 else { return }
        let next = state.withLock { state in
            state.used -= freed
            var next: [CheckedContinuation<Void, Never>] = []
            // In their order, so that a large one is not passed for ever.
            while let first = state.waiting.first, state.used + first.cost <= limit {
                state.used += first.cost
                next.append(first.continuation)
                state.waiting.removeFirst()
            }
            return next
        }
        for continuation in next { continuation.resume() }
    }
}

extension Message {
    /// A value takes many times the room of its text: `1,` becomes an enumeration in an array that has grown.
    private static let expansion = 16

    /// The most memory that reading the body may take.
    func decodingCost(_ limits: WireLimits) -> Int {
        let size =
            switch headers.compression {
            case nil: body.count
            // zlib expands 1,032 times at most.
            case Compression.zlib?: body.count &* 1032
            // Of the others 8 MiB are believed, and more only 1,100 times.
            default: max(8 << 20, body.count &* 1100)
            }
        return min(size, limits.maximumBytes) * Self.expansion
    }
}
