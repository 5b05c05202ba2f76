import Synchronization

/// Keeps the memory within a limit that messages take while they are decoded, all of a process together: who would
/// exceed it waits until others are done. One is always decoded, however much is kept, so that nobody waits for the end
/// of a job.
final class DecodingGate: Sendable {
    static let shared = DecodingGate()

    private struct Waiting {
        var id: UInt64
        var cost: Int
        var continuation: CheckedContinuation<Bool, Never>
    }

    private struct State {
        /// Of those that are being decoded, and what is kept of those that run.
        var used = 0
        var decoding = 0
        var waiting: [Waiting] = []
        var nextID: UInt64 = 0

        /// Takes in those whose turn it is.
        mutating func admit(_ limit: Int) -> [CheckedContinuation<Bool, Never>] {
            var admitted: [CheckedContinuation<Bool, Never>] = []
            // In their order, so that a large one is not passed for ever.
            while let first = waiting.first, decoding == 0 || used + first.cost <= limit {
                decoding += 1
                used += first.cost
                admitted.append(first.continuation)
                waiting.removeFirst()
            }
            return admitted
        }
    }

    private let state = Mutex(State())

    /// What is too small to be counted.
    static let unit = 1 << 20

    /// - Parameter cost: of decoding, in bytes, an estimate.
    /// - Returns: false when the task was cancelled while it waited: it has not entered.
    func enter(_ cost: Int, of limit: Int) async -> Bool {
        guard cost >= Self.unit else { return true }
        let id = state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let admitted = state.withLock { state in
                    state.waiting.append(Waiting(id: id, cost: cost, continuation: continuation))
                    return state.admit(limit)
                }
                for continuation in admitted { continuation.resume(returning: true) }
                // The cancellation may have come before.
                if Task.isCancelled { giveUp(id) }
            }
        } onCancel: {
            giveUp(id)
        }
    }

    private func giveUp(_ id: UInt64) {
        let given = state.withLock { state in
            state.waiting.firstIndex { $0.id == id }.map { state.waiting.remove(at: $0).continuation }
        }
        given?.resume(returning: false)
    }

    /// A message is decoded.
    /// - Parameter kept: what it takes as long as its job runs.
    func decoded(_ cost: Int, keeping kept: Int, of limit: Int) {
        guard cost >= Self.unit else { return }
        change(limit) { state in
            state.decoding -= 1
            state.used -= cost - kept
        }
    }

    /// A job has ended whose message was counted.
    func ended(_ cost: Int, keeping kept: Int, of limit: Int) {
        guard cost >= Self.unit, kept > 0 else { return }
        change(limit) { $0.used -= kept }
    }

    private func change(_ limit: Int, _ body: (inout State) -> Void) {
        let admitted = state.withLock { state in
            body(&state)
            return state.admit(limit)
        }
        for continuation in admitted { continuation.resume(returning: true) }
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
