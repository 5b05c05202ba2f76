import Hoist
import Synchronization

/// Lets one caller at a time do something, in the order in which they came.
final class SerialGate: Sendable {
    private let thread: any TaskExecutor
    private let last = Mutex<Task<Void, any Error>?>(nil)

    init(on thread: any TaskExecutor) { self.thread = thread }

    /// - Throws: what `body` throws.
    func run(_ body: @escaping @Sendable () async throws -> Void) async throws {
        let next = last.withLock { last in
            let before = last
            let next = Task(executorPreference: thread) {
                _ = await before?.result
                try await body()
            }
            last = next
            return next
        }
        try await next.value
    }
}
