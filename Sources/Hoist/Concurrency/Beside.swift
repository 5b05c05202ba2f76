/// Does something beside everything else: nobody waits for it, and cancelling the caller does not stop it. The reason
/// stands where this is called.
/// - Parameters:
///   - executor: where it runs; nil for where tasks run by default.
///   - body: the work. It must end by itself.
package func runBeside(on executor: (any TaskExecutor)? = nil, _ body: @escaping @Sendable () async -> Void) {
    Task(executorPreference: executor) { await body() }
}
