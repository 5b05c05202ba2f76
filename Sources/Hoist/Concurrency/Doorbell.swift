import Synchronization

/// Wakes tasks that wait for a change, without polling and without losing a ring.
///
/// A waiter first reads the ``mark``, then checks for a change, and without a change waits for a ring after that mark.
public final class Doorbell: Sendable {
    private struct State {
        var rings: UInt64 = 0
        var nextWaiter: UInt64 = 0
        var waiters: [UInt64: CheckedContinuation<Void, Never>] = [:]
        var listeners: [UInt64: @Sendable () -> Void] = [:]
    }

    private let state = Mutex(State())

    public init() {}

    /// How often the bell has been rung.
    public var mark: UInt64 { state.withLock { $0.rings } }

    public func ring() {
        let (waiters, listeners) = state.withLock { state in
            state.rings &+= 1
            defer { state.waiters.removeAll() }
            return (Array(state.waiters.values), Array(state.listeners.values))
        }
        for waiter in waiters { waiter.resume() }
        for listener in listeners { listener() }
    }

    /// Suspends until the bell is rung after `mark`, `limit` has passed, or the task is cancelled.
    public func wait(after mark: UInt64, for limit: Duration?, clock: any JobClock) async {
        let id = state.withLock { state in
            state.nextWaiter += 1
            return state.nextWaiter
        }
        var timer: ScheduledCall?
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isOver = state.withLock { state in
                    if state.rings != mark || Task.isCancelled { return true }
                    state.waiters[id] = continuation
                    return false
                }
                if isOver {
                    continuation.resume()
                } else if let limit {
                    // The timer starts after the waiter is registered, so that it finds the waiter however soon it
                    // fires.
                    timer = clock.schedule(after: limit) { self.resume(id) }
                }
            }
        } onCancel: {
            resume(id)
        }
        timer?.cancel()
    }

    private func resume(_ id: UInt64) {
        state.withLock { $0.waiters.removeValue(forKey: id) }?.resume()
    }

    /// Calls `listener` at every ring until the returned call is cancelled. `listener` must be quick and must not
    /// block.
    package func listen(_ listener: @escaping @Sendable () -> Void) -> ScheduledCall {
        let id = state.withLock { state in
            state.nextWaiter += 1
            state.listeners[state.nextWaiter] = listener
            return state.nextWaiter
        }
        return ScheduledCall { self.state.withLock { $0.listeners[id] = nil } }
    }
}
