/// How long and with how much memory one attempt at a job may run. nil stands for no limit, or for what the next in
/// line says: the worker as it was told while it lived, then the call, then the job, then the worker's configuration.
public struct RunLimits: Sendable, Hashable {
    /// The job is cancelled when it ran this long; it may tidy up, and counts as timed out unless it returns all the
    /// same.
    public var time: Duration?
    /// The job is stopped by force when it ran this long, with everything that it started. Process lane only.
    public var hardTime: Duration?
    /// The job is cancelled when it gave no sign of progress for this long; in the process lane it is stopped when it
    /// goes on all the same.
    public var heartbeat: Duration?
    /// The most memory that the job's process and those it started may hold, in bytes; it is stopped when they hold
    /// more. Process lane only.
    public var memory: Int?

    public init(time: Duration? = nil, hardTime: Duration? = nil, heartbeat: Duration? = nil, memory: Int? = nil) {
        self.time = time
        self.hardTime = hardTime
        self.heartbeat = heartbeat
        self.memory = memory
    }

    /// What is not said here is taken from `other`.
    func filled(from other: RunLimits) -> RunLimits {
        RunLimits(
            time: time ?? other.time, hardTime: hardTime ?? other.hardTime, heartbeat: heartbeat ?? other.heartbeat,
            memory: memory ?? other.memory)
    }

    /// What can only be kept where a job has a process of its own.
    var needsProcess: Bool { hardTime != nil || memory != nil }
}
