import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Runs scheduled calls on a thread of its own, so that a pool full of blocking job code cannot delay a timer.
final class TimerThread: Sendable {
    static let shared = TimerThread()

    private struct Entry {
        var at: Int64
        var id: UInt64
        var body: @Sendable () -> Void
    }

    private struct State {
        /// A binary heap, the earliest first.
        var heap: [Entry] = []
        var cancelled: Set<UInt64> = []
        var pending: Set<UInt64> = []
        var nextID: UInt64 = 0
        var isRunning = false
    }

    private let signal = ThreadSignal()
    private let state = Mutex(State())

    func schedule(at uptime: Int64, _ body: @escaping @Sendable () -> Void) -> ScheduledCall {
        let (id, mustStart, isEarliest) = state.withLock { state in
            state.nextID += 1
            state.pending.insert(state.nextID)
            state.heap.append(Entry(at: uptime, id: state.nextID, body: body))
            Self.siftUp(&state.heap)
            defer { state.isRunning = true }
            return (state.nextID, !state.isRunning, state.heap[0].id == state.nextID)
        }
        if mustStart { startThread(named: "hoist-timers") { self.run() } }
        if isEarliest { signal.notify() }
        return ScheduledCall {
            self.state.withLock { state in
                guard state.pending.contains(id) else { return }
                state.cancelled.insert(id)
                // Calls that were cancelled long before their time must not accumulate.
                guard state.cancelled.count > 1024, state.cancelled.count * 2 > state.heap.count else { return }
                state.heap.removeAll { state.cancelled.contains($0.id) }
                state.pending.subtract(state.cancelled)
                state.cancelled.removeAll()
                state.heap.sort { $0.at < $1.at }
            }
        }
    }

    private func run() -> Never {
        while true {
            let now = SystemJobClock().uptime
            let (due, wait) = state.withLock { state -> ([@Sendable () -> Void], Int64?) in
                var due: [@Sendable () -> Void] = []
                while let first = state.heap.first {
                    let isCancelled = state.cancelled.contains(first.id)
                    guard isCancelled || first.at <= now else { return (due, first.at - now) }
                    if !isCancelled { due.append(first.body) }
                    state.cancelled.remove(first.id)
                    state.pending.remove(first.id)
                    Self.removeFirst(&state.heap)
                }
                return (due, nil)
            }
            for body in due { body() }
            if due.isEmpty { signal.wait(microseconds: wait) }
        }
    }

    private static func siftUp(_ heap: inout [Entry]) {
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard heap[child].at < heap[parent].at else { return }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    private static func removeFirst(_ heap: inout [Entry]) {
        heap.swapAt(0, heap.count - 1)
        heap.removeLast()
        var parent = 0
        while true {
            var smallest = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && heap[child].at < heap[smallest].at
            {
                smallest = child
            }
            guard smallest != parent else { return }
            heap.swapAt(parent, smallest)
            parent = smallest
        }
    }
}
