/// A backend that can hold a queue still and keep it from growing, for all workers and producers together and over their restarts.
public protocol QueueControl: Backend {
    /// No worker takes jobs of `queue` from now on. Those that run go on; producers may go on enqueueing.
    func pause(queue: String) async throws
    /// Undoes ``pause(queue:)``.
    func resume(queue: String) async throws
    func pausedQueues() async throws -> Set<String>
    /// Refuses jobs beyond so many that wait in `queue`, delayed ones included: an enqueue throws ``BackendError`` `.full` then, nothing of it is
    /// stored, and trying again later is safe.
    /// - Parameters:
    ///   - queue: which; its delayed jobs count as well.
    ///   - maximum: 0 or more; nil for no limit.
    func limit(queue: String, to maximum: Int?) async throws
}
