/// Pauses, closes and caps queues, for all workers and producers together and across their restarts.
public protocol QueueControl: Sendable {
    /// Pauses `queue`: no worker takes its jobs from now on. Running jobs continue, and producers may continue to
    /// enqueue.
    /// - Throws: ``BackendError``, with `.misuse` when the backend does not allow the name; `CancellationError` when
    ///   the task is cancelled. A retry is always safe: the second pause changes nothing.
    func pause(queue: String) async throws
    /// Undoes ``pause(queue:)`` and ``close(queue:for:)``.
    /// - Throws: ``BackendError``; `CancellationError` when the task is cancelled. Part of the change may have been
    ///   made then. A retry is always safe: the second resume changes nothing.
    func resume(queue: String) async throws
    /// The paused queues. Closed queues are not among them.
    /// - Throws: ``BackendError`` when the queues cannot be read; `CancellationError` when the task is cancelled. The
    ///   call only reads, so a retry is safe.
    func pausedQueues() async throws -> Set<String>
    /// Closes `queue`: no worker takes its jobs for `duration`. A longer closure in force stays. A handler asks for
    /// this with ``JobDirective/closeQueue(for:)``.
    /// - Throws: ``BackendError``, with `.misuse` when the backend does not allow the name; `CancellationError` when
    ///   the task is cancelled. A retry is safe, but its `duration` begins later.
    func close(queue: String, for duration: Duration) async throws
    /// Limits how many jobs may wait in `queue`, delayed jobs included. An enqueue beyond the limit throws
    /// ``BackendError`` `.full`: none of its jobs is stored, and a later retry is safe.
    /// ``JobClient/Configuration/waitsWhenFull`` retries automatically.
    /// - Parameters:
    ///   - queue: the name of the queue. Its delayed jobs count as well.
    ///   - maximum: 0 or more; nil for no limit.
    /// - Throws: ``BackendError``, with `.misuse` when the backend does not allow the name; `CancellationError` when
    ///   the task is cancelled. A retry is always safe: it sets the same limit.
    func limit(queue: String, to maximum: Int?) async throws
}

/// Keeps limits on how jobs start, for all workers together and across their restarts.
public protocol LimitKeeping: Sendable {
    /// Declares the limits that the code of a worker asks for. They replace earlier declarations for the same targets.
    /// Limits from ``setLimits(_:for:)`` take precedence.
    /// - Parameters:
    ///   - limits: an empty list removes the declaration for its target.
    ///   - aliases: for each alias of a kind of job, the name under which the limits of the kind are kept.
    /// - Throws: ``BackendError``; `CancellationError` when the task is cancelled. Part of the change may have been
    ///   made then. A retry is always safe: it declares the same limits.
    func declareLimits(_ limits: [LimitTarget: [JobLimit]], aliases: [String: String]) async throws
    /// Sets the limits that an operator wants, in place of the limits in the code. They apply to jobs that start from
    /// now on.
    /// - Parameters:
    ///   - limits: an empty list for no limit at all; nil to return to the limits in the code.
    ///   - target: the kind of job or the queue that the limits apply to.
    /// - Throws: ``BackendError``; `CancellationError` when the task is cancelled. A retry is always safe: it sets the
    ///   same limits.
    func setLimits(_ limits: [JobLimit]?, for target: LimitTarget) async throws
    /// The limits in force.
    /// - Throws: ``BackendError`` when the limits cannot be read; `CancellationError` when the task is cancelled. The
    ///   call only reads, so a retry is safe.
    func limits() async throws -> [LimitTarget: [JobLimit]]
}
