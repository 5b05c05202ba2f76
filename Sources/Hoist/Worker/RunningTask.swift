import Synchronization

/// What performs a run, and its context once the message was read. A cancellation may come before either, and from any
/// thread.
final class RunningTask: Sendable {
    private struct State {
        var stop: (@Sendable (JobContext.CancellationReason) -> Void)?
        var context: JobContext?
        /// The message, where it is small, to show the arguments.
        var message: Message?
        var startedAt: JobDate?
        var reason: JobContext.CancellationReason?
        /// The signal that somebody has sent the job.
        var signal: Int32?
    }

    /// Larger bodies are not kept while the job runs.
    private static let mostBytesKept = 16 << 10

    private let state = Mutex(State())

    func set(_ task: Task<Void, Never>) { set { _ in task.cancel() } }

    /// - Parameter stop: called at every cancellation from now on, and at once for one that came before.
    func set(_ stop: @escaping @Sendable (JobContext.CancellationReason) -> Void) {
        let reason = state.withLock { state in
            state.stop = stop
            return state.reason
        }
        if let reason { Self.call(stop, reason) }
    }

    func set(_ context: JobContext, _ message: Message) {
        let reason = state.withLock { state in
            state.context = context
            if message.body.count <= Self.mostBytesKept { state.message = message }
            return state.reason
        }
        if let reason { context.noteCancellation(reason) }
    }

    /// What is known of the job; nil before its message was read.
    var facts: SettlementFacts? { state.withLock { $0.context }?.facts }

    func noteStart(_ date: JobDate) { state.withLock { $0.startedAt = date } }

    func note(signal: Int32) { state.withLock { $0.signal = signal } }

    /// The signal that somebody has sent the job.
    var signal: Int32? { state.withLock { $0.signal } }

    /// What others may see of the job.
    var shown: (context: JobContext?, message: Message?, startedAt: JobDate?) {
        state.withLock { ($0.context, $0.message, $0.startedAt) }
    }

    /// The run is over: there is nothing left to stop, or to keep.
    func finish() { state.withLock { ($0.stop, $0.context, $0.message) = (nil, nil, nil) } }

    func cancel(_ reason: JobContext.CancellationReason) {
        let (stop, context) = state.withLock { state in
            state.reason = state.reason ?? reason
            return (state.stop, state.context)
        }
        context?.noteCancellation(reason)
        if let stop { Self.call(stop, reason) }
    }

    /// On a thread of its own: `onCancel` closures of the job run inside, and must hold up neither leases nor timers.
    private static func call(
        _ stop: @escaping @Sendable (JobContext.CancellationReason) -> Void, _ reason: JobContext.CancellationReason
    ) {
        runBeside(on: threads) { stop(reason) }
    }

    /// Some, so that a closure which never returns does not keep other jobs from being stopped.
    private static let threads = ThreadExecutor(name: "hoist-cancel", threadCount: 64)
}
