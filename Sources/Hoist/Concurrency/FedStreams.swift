extension AsyncStream where Element: Sendable {
    /// A stream that a task of its own feeds: the stream outlives the call that makes it, so that no task of the caller
    /// can be the parent. The task is cancelled when the stream is given up, and the stream ends with the task.
    /// - Parameters:
    ///   - bufferingPolicy: what is kept for a reader that falls behind.
    ///   - executor: where the task runs; nil for where tasks run by default.
    ///   - feed: yields the elements.
    package static func fed(
        bufferingPolicy: Continuation.BufferingPolicy = .unbounded, on executor: (any TaskExecutor)? = nil,
        by feed: @escaping @Sendable (Continuation) async -> Void
    ) -> AsyncStream {
        AsyncStream(bufferingPolicy: bufferingPolicy) { continuation in
            let feeding = Task(executorPreference: executor) {
                await feed(continuation)
                continuation.finish()
            }
            continuation.onTermination = { _ in feeding.cancel() }
        }
    }
}

extension AsyncThrowingStream where Element: Sendable, Failure == any Error {
    /// As `AsyncStream.fed`. The stream ends with what `feed` throws.
    package static func fed(
        on executor: (any TaskExecutor)? = nil, by feed: @escaping @Sendable (Continuation) async throws -> Void
    ) -> AsyncThrowingStream {
        AsyncThrowingStream { continuation in
            let feeding = Task(executorPreference: executor) {
                do {
                    try await feed(continuation)
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
            continuation.onTermination = { _ in feeding.cancel() }
        }
    }
}

/// Runs both side by side until one of them ends, and cancels the other.
package func untilEitherEnds(
    _ first: @escaping @Sendable () async -> Void, _ second: @escaping @Sendable () async -> Void
) async {
    await withTaskGroup { group in
        group.addTask { await first() }
        group.addTask { await second() }
        await group.next()
        group.cancelAll()
    }
}
