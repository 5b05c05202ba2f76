#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// What a live worker can be asked and told: ``Worker/perform(_:)``.
public enum WorkerCommand: Sendable {
    /// Asks what the worker is and does.
    case status
    /// Consumes a queue more, until the worker ends. With labels, also the parts of the queue that are for them.
    case addQueue(QueueSubscription)
    /// Consumes a queue no more. Jobs of it that run go on. The last queue may be taken away too.
    case removeQueue(String)
    /// Gives a lane another number of slots, as ``Worker/resize(_:)``.
    case resize(Lane)
    /// Asks a job that this worker runs to stop. It ends as cancelled once its handler stops. A job that has not begun
    /// goes back to its queue.
    case cancel(JobID)
}

/// What a worker answers.
public enum WorkerReply: Sendable {
    case done
    case status(WorkerStatus)
    /// Nothing has changed, for this reason.
    case refused(String)
}

/// What a worker is and does at one moment.
public struct WorkerStatus: Sendable {
    public struct LaneStatus: Sendable, Hashable {
        public var kind: LaneKind
        public var slots: Int
        public var used: Int
    }

    /// A job that the worker has.
    public struct JobStatus: Sendable, Hashable {
        public var jobID: JobID
        public var jobName: String
        public var queue: String
        /// The number of the attempt, 1 for the first.
        public var attempt: Int
        public var lane: LaneKind
        public var claimedAt: Date
        /// False for a job that was claimed and waits for slots.
        public var hasBegun: Bool
    }

    public var worker: WorkerPresence
    public var lanes: [LaneStatus]
    /// The oldest claim first.
    public var jobs: [JobStatus]
    public var health: WorkerHealth
}
