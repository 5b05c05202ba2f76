import Hoist
import Synchronization

/// A value in which tests count or collect across tasks.
package final class Shared<Value: Sendable>: Sendable {
    private let state: Mutex<Value>
    private let bell = Doorbell()

    package init(_ value: Value) { state = Mutex(value) }

    package var value: Value { state.withLock { $0 } }

    package func change(_ body: (inout Value) -> Void) {
        state.withLock { body(&$0) }
        bell.ring()
    }

    /// Waits until the value meets the condition, at most `limit`.
    package func wait(_ limit: Duration = .seconds(30), until condition: (Value) -> Bool) async -> Bool {
        let clock = SystemJobClock()
        let deadline = ContinuousClock.now + limit
        while true {
            let mark = bell.mark
            if condition(value) { return true }
            guard ContinuousClock.now < deadline else { return false }
            await bell.wait(after: mark, for: .milliseconds(200), clock: clock)
        }
    }
}
