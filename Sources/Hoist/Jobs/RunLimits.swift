/// The limits of time and memory for one attempt. A limit that is nil is taken from the next source, in this order: the
/// limits set on the live worker, the call, the job's options, the worker's configuration. A limit that no source sets
/// does not apply.
public struct RunLimits: Sendable, Hashable {
    /// The job is cancelled after this time. It may clean up, and counts as timed out unless it still returns normally.
    public var time: Duration?
    /// The job is stopped by force after this time, with everything that it started. Process lane only.
    public var hardTime: Duration?
    /// The job is cancelled after this time without a sign of progress. In the process lane it is stopped by force when
    /// it continues.
    public var heartbeat: Duration?
    /// The most memory that the job's process and the processes that it started may hold together, in bytes. The job is
    /// stopped when they hold more. Process lane only.
    public var memory: ByteCount?

    public init(
        time: Duration? = nil, hardTime: Duration? = nil, heartbeat: Duration? = nil, memory: ByteCount? = nil
    ) {
        self.time = time
        self.hardTime = hardTime
        self.heartbeat = heartbeat
        self.memory = memory
    }

    /// Takes each limit that is nil here from `other`.
    func filled(from other: RunLimits) -> RunLimits {
        RunLimits(
            time: time ?? other.time, hardTime: hardTime ?? other.hardTime, heartbeat: heartbeat ?? other.heartbeat,
            memory: memory ?? other.memory)
    }

    /// Whether a limit can be kept only in a process of the job's own.
    var needsProcess: Bool { hardTime != nil || memory != nil }
}
