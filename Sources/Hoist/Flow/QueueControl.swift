/// A backend that can hold queues still and keep limits, for all workers and producers together and over their
/// restarts.
public protocol QueueControl: Backend {
    /// No worker takes jobs of `queue` from now on. Those that run go on; producers may go on enqueueing.
    func pause(queue: String) async throws
    /// Undoes ``pause(queue:)`` and ``close(queue:for:)``.
    func resume(queue: String) async throws
    func pausedQueues() async throws -> Set<String>
    /// No worker takes jobs of `queue` for so long; a longer closure that is already there stays. What a handler asks
    /// for with ``JobDirective/closeQueue(for:)``.
    func close(queue: String, for duration: Duration) async throws
    /// Refuses jobs beyond so many that wait in `queue`, delayed ones included: an enqueue throws ``BackendError``
    /// `.full` then, nothing of it is stored, and trying again later is safe. ``JobClient/Configuration/waitsWhenFull``
    /// does that by itself.
    /// - Parameters:
    ///   - queue: which; its delayed jobs count as well.
    ///   - maximum: 0 or more; nil for no limit.
    func limit(queue: String, to maximum: Int?) async throws

    /// Limits as the code of a worker asks for them. They replace what was declared for the same targets before, and
    /// stand back behind ``setLimits(_:for:)``.
    /// - Parameters:
    ///   - limits: an empty list takes back what was declared.
    ///   - aliases: the name that a kind of job has limits under, by alias.
    func declareLimits(_ limits: [LimitTarget: [JobLimit]], aliases: [String: String]) async throws
    /// Limits as a person wants them now, over those of the code, from the next start on.
    /// - Parameters:
    ///   - limits: an empty list for no limit at all; nil to go back to what the code says.
    ///   - target: what they are for.
    func setLimits(_ limits: [JobLimit]?, for target: LimitTarget) async throws
    /// The limits that count at present.
    func limits() async throws -> [LimitTarget: [JobLimit]]
}
