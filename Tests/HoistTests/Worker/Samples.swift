import Foundation
import Hoist
import HoistTesting
import Logging
import Synchronization

let quiet = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

struct Echo: Job, Equatable {
    static let name = "test.echo"
    static let aliases = ["test.echo_old"]
    var text: String
    typealias Output = String
}

struct Work: Job {
    static let name = "test.work"
    var number: Int = 0
}

struct Broken: Error, CustomStringConvertible { var description = "it broke" }
struct Hopeless: Error {}

/// A value in which tests count or collect across tasks.
final class Shared<Value: Sendable>: Sendable {
    private let state: Mutex<Value>
    private let bell = Doorbell()

    init(_ value: Value) { state = Mutex(value) }

    var value: Value { state.withLock { $0 } }

    func change(_ body: (inout Value) -> Void) {
        state.withLock { body(&$0) }
        bell.ring()
    }

    /// Waits until the value meets the condition, at most `limit`.
    func wait(_ limit: Duration = .seconds(10), until condition: (Value) -> Bool) async -> Bool {
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
