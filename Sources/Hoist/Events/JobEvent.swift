#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// Something that happened to a job, as it is told to every ``EventSink``.
public struct JobEvent: Sendable {
    public enum Kind: Sendable {
        /// The broker has the job. Told by the client that enqueued it, with the message as it was sent.
        case sent(Message)
        /// A worker has claimed the job.
        case received(Delivery)
        /// The handler is about to begin, here or in a child of the process lane.
        case started
        /// The handler has reported progress.
        case progressed(JobProgress)
        /// The attempt failed, and there will be another.
        case retried(End)
        /// The job went back with no attempt spent: it was snoozed, handed back, or given back before it began.
        case putBack(End)
        /// The job has ended: it succeeded, failed for good, was cancelled, or expired.
        case ended(End)
        /// The handler has written lines: those that are new since the last event of this kind, at most 50.
        case wrote([JobLog.Line])
        /// The job became a dead letter because the worker that had it died. Told by another worker.
        case givenUp(JobFailure, lostWorker: String)
        /// The job waits for another worker because the one that had it died. Told by another worker.
        case takenOver(lostWorker: String)
        /// Somebody wants the job cancelled, and this became of that. Told by the client.
        case cancelAsked(CancelResult)
    }

    /// How a delivery of a job ended.
    public struct End: Sendable {
        public var outcome: Outcome
        public var startedAt: Date
        public var runTime: Duration
        /// How long the job has waited since it was enqueued or due; nil where that is not known.
        public var waitTime: Duration?
        /// What the attempt used, where that can be told.
        public var usage: ResourceUsage?
        /// What the worker knew of the job; nil when its message could not be read.
        public var facts: SettlementFacts?
        /// The signal that somebody has sent the job; nil for none.
        package var signal: Int32?
    }

    public var kind: Kind
    public var jobID: JobID
    /// The wire name.
    public var jobName: String
    public var queue: String
    /// The number of the attempt, 1 for the first; 0 before the first.
    public var attempt: Int
    /// The name of the worker; nil for what a client tells.
    public var worker: String?
    /// The lane that the job runs in; nil where it has not begun.
    package var lane: String?
    public var at: Date

    package init(
        _ kind: Kind, jobID: JobID, jobName: String, queue: String, attempt: Int, worker: String?, at: Date
    ) {
        self.kind = kind
        self.jobID = jobID
        self.jobName = jobName
        self.queue = queue
        self.attempt = attempt
        self.worker = worker
        self.at = at
    }

    package init(_ kind: Kind, _ delivery: Delivery, worker: String, at: Date) {
        self.init(
            kind, jobID: delivery.jobID, jobName: delivery.jobName, queue: delivery.queue, attempt: delivery.attempt,
            worker: worker, at: at)
    }

    package init(sent message: Message, at: Date) {
        self.init(
            .sent(message), jobID: message.id, jobName: message.jobName, queue: message.queue,
            attempt: message.headers.retries, worker: nil, at: at)
    }
}

extension JobEvent {
    /// How the delivery ended; nil for other events.
    package var end: End? {
        switch kind {
        case .ended(let end), .retried(let end), .putBack(let end): end
        case .sent, .received, .started, .progressed, .wrote, .givenUp, .takenOver, .cancelAsked: nil
        }
    }
}

extension JobEvent.Kind {
    /// The kind of the end of a delivery.
    package init(_ end: JobEvent.End) {
        switch end.outcome {
        case .succeeded, .failed, .cancelled, .expired: self = .ended(end)
        case .retry: self = .retried(end)
        case .snoozed, .refused, .handedBack, .notStarted: self = .putBack(end)
        }
    }
}

extension Outcome {
    /// Whether monitors are told of a job that ends so, however many jobs there are.
    var isAlwaysTold: Bool {
        switch self {
        case .failed, .retry, .cancelled, .expired: true
        case .succeeded, .snoozed, .refused, .handedBack, .notStarted: false
        }
    }

    /// Whether a job that ends so has run, also where its message could not be read.
    var hasRun: Bool {
        switch self {
        case .refused, .cancelled, .expired, .notStarted: false
        case .succeeded, .failed, .retry, .snoozed, .handedBack: true
        }
    }

    /// Whether the attempt failed, for good or not, or the worker refused the job.
    var isTrouble: Bool {
        switch self {
        case .failed, .retry, .refused: true
        case .succeeded, .snoozed, .cancelled, .expired, .handedBack, .notStarted: false
        }
    }
}

/// Something that happened to a worker, as it is told to every ``EventSink``.
public struct WorkerEvent: Sendable {
    public enum Kind: Sendable, Hashable {
        /// The worker has announced itself.
        case online
        /// The worker has renewed its lease. Five times in the length of the lease.
        case heartbeat
        /// The worker was away for longer than its lease: what it ran belongs to others.
        case leaseLost
        /// The worker has left in order.
        case offline
    }

    public var kind: Kind
    public var worker: WorkerPresence
    public var at: Date

    package init(_ kind: Kind, _ worker: WorkerPresence, at: Date) {
        self.kind = kind
        self.worker = worker
        self.at = at
    }
}
