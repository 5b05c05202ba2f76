#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// Holds the queues. What a worker and a producer need of a place that keeps jobs.
///
/// Every method is one atomic step where the backend can do that, and otherwise ordered so that a crash repeats and
/// never loses. A backend proves itself with the contract suite of HoistTesting.
public protocol Broker: Sendable {
    /// The clock that due times and leases are measured by.
    var clock: any JobClock { get }

    /// Rung when a job may have become ready, or a running one was asked to stop, in this process or another.
    var workDoorbell: Doorbell { get }

    /// The thread that speaks to the backend, where there is one that tasks may run on too; nil by default.
    ///
    /// A worker's own work runs there. Where it is the thread that stores jobs, as on SQLite, a program that enqueues
    /// one after another, each awaited, saves two changes of thread for each of them:
    /// ```swift
    /// try await withTaskExecutorPreference(backend.executor) { for video in videos { try await jobs.enqueue(Transcode(video)) } }
    /// ```
    /// What blocks there holds up the backend, and with it the leases of workers on it.
    var executor: (any TaskExecutor)? { get }

    /// The thread of ``executor`` for actors: a worker's own is one, and runs there when a backend has both. Nil by
    /// default.
    var serialExecutor: (any SerialExecutor)? { get }

    /// Stores jobs, all or none. When it returns, the backend has them.
    /// - Returns: what became of each, in order.
    /// - Throws: ``BackendError``. Its ``BackendError/isRetrySafe`` says whether the jobs may be there already; the
    ///   same messages may be published again all the same, for an id is stored once.
    func publish(_ messages: [Message]) async throws -> [PublishResult]

    /// The same, but waits no longer than `limit`. A backend whose calls end in time by themselves may do better than
    /// the default, which runs the call in a task of its own.
    func publish(_ messages: [Message], within limit: Duration) async throws -> [PublishResult]

    /// Settles what a worker has finished and hands it new work: each job in one step. When it throws, some of it may
    /// have happened; the same settlements may be sent again, and the next turn says what the worker is
    /// ``WorkerTurn/holding``.
    func turn(_ request: WorkerTurn) async throws -> TurnResult

    /// Does what can be done of settling a job without asking anybody: called on the thread of the job, of which a
    /// worker has many, and not on that of the backend, of which it has one. By default nothing.
    /// - Returns: the settlement, with what the backend made of it in ``Settlement/prepared``; what that says already
    ///   may be left out.
    func prepare(_ settlement: Settlement) -> Settlement

    /// Announces a worker, or says that it still lives.
    /// - Parameters:
    ///   - worker: what others may know of it.
    ///   - lease: how long the worker counts as alive from now. When it passes, its jobs go to others.
    /// - Returns: false when the lease has been lost: every delivery of this worker is somebody else's by now.
    func renew(_ worker: WorkerPresence, lease: Duration) async throws -> Bool

    /// Takes the worker off the list. Deliveries it still holds go back at once, without spending an attempt.
    func resign(_ worker: WorkerID) async throws

    /// Asks for a job to be stopped: a waiting one is cancelled at once, a running one is told.
    func cancel(_ id: JobID) async throws -> CancelResult
}

extension Broker {
    public var executor: (any TaskExecutor)? { nil }
    public var serialExecutor: (any SerialExecutor)? { nil }

    public func prepare(_ settlement: Settlement) -> Settlement { settlement }

    public func publish(_ messages: [Message], within limit: Duration) async throws -> [PublishResult] {
        try await withDeadline(limit, clock: clock) { try await publish(messages) }
    }
}

/// Keeps state, progress and result of each job.
public protocol ResultStore: Sendable {
    /// Everything known about a job; nil when the id is unknown, or its record has passed its time.
    func record(of id: JobID) async throws -> JobRecord?

    /// The record now, and again whenever it changes, until the job has ended. Changes close together may arrive as
    /// one.
    func updates(of id: JobID) -> JobUpdates

    /// Waits until the job has ended, one way or the other.
    /// - Parameters:
    ///   - id: of any job. One that nobody knows may be on its way: whether that is waited for is the backend's affair.
    ///   - isNew: whether a publish has answered ``PublishResult/enqueued`` for it. A backend may then look for the
    ///     result alone, and such a job is never on its way.
    /// - Returns: its record then, as far as its result tells; nil when the id is unknown, or nothing was kept of the
    ///   job.
    /// - Throws: ``BackendError``; `CancellationError` when the task is cancelled.
    func recordAtEnd(of id: JobID, isNew: Bool) async throws -> JobRecord?

    /// The last lines that the job wrote, of its last attempt: while it runs, a second or so old; kept as long as its
    /// record. nil when it wrote nothing, or is unknown.
    func log(of id: JobID) async throws -> JobLog?

    /// Removes the record of an ended job. A job that has not ended is left alone.
    /// - Returns: whether there was such a record.
    func forget(_ id: JobID) async throws -> Bool
}

extension ResultStore {
    public func recordAtEnd(of id: JobID, isNew: Bool) async throws -> JobRecord? {
        try await updates(of: id).lastIfEnded
    }
}

/// A place that is broker and result store at once, and stores an outcome in the step that acknowledges the job.
public protocol Backend: Broker, ResultStore {}

/// What the backend did with a published message.
public enum PublishResult: Sendable, Equatable {
    case enqueued
    /// A job with this id is there already; nothing was stored.
    case alreadyEnqueued
    /// Another job holds the unique key; nothing was stored.
    case keyHeld(by: JobID)
    /// The waiting job that holds the unique key has taken over the new arguments.
    case replaced(JobID)
}

public enum CancelResult: Sendable, Equatable {
    /// The job was waiting and is cancelled now.
    case cancelled
    /// The job is running; its worker has been told.
    case requested
    case alreadyEnded
    case unknown
}

/// A running worker process, one incarnation of it.
public typealias WorkerID = String

/// What others may know of a worker.
public struct WorkerPresence: Sendable, Hashable, Codable {
    public var id: WorkerID
    /// A name for people: `host:pid` by default.
    public var name: String
    public var queues: [String]
    /// The wire names that the worker performs, aliases included.
    public var jobNames: [String]
    public var startedAt: Date
    public var running: Int
    public var concurrency: Int
    /// When the worker last asked for work or settled some; liveness alone does not move it.
    public var lastConsumedAt: Date?
    public var isDraining: Bool
    /// See ``Worker/Configuration/labels``; nil for none.
    public var labels: [String]?

    package init(
        id: WorkerID, name: String, queues: [String], jobNames: [String], startedAt: Date, running: Int = 0,
        concurrency: Int = 0,
        lastConsumedAt: Date? = nil, isDraining: Bool = false
    ) {
        self.id = id
        self.name = name
        self.queues = queues
        self.jobNames = jobNames
        self.startedAt = startedAt
        self.running = running
        self.concurrency = concurrency
        self.lastConsumedAt = lastConsumedAt
        self.isDraining = isDraining
    }
}

/// One round trip of a worker.
public struct WorkerTurn: Sendable {
    public var worker: WorkerID
    public var settlements: [Settlement]
    public var progress: [ProgressReport]
    /// What running jobs have written so far.
    public var logs: [LogReport] = []
    /// What to take, in this order.
    public var claims: [Claim]
    /// How many jobs the claims may take together.
    public var budget: ClaimBudget
    /// Takes what the claims bring later: called, if there is one, when a job came after the turn that found too few,
    /// and the backend has handed it out by itself. A backend that cannot do that rings ``Broker/workDoorbell`` and
    /// waits for the next turn. A failure says that jobs may have been handed out and got lost on the way; the next
    /// turn must say what the worker is ``holding``.
    public var onLateResult: LateResultHandler?
    /// How often ``onLateResult`` has been called for this worker, as far as the budget takes it into account. Where a
    /// call has been made since, nothing is claimed, for there is less room than the budget says, and the result says
    /// that there may be more.
    public var lateResultCount = 0
    /// Takes back earlier claims that wait for jobs to come. What they have brought by then is delivered all the same.
    public var withdrawsClaims = false
    /// The tokens of all deliveries that the worker knows of, besides those it settles here; set after an answer got
    /// lost. Jobs that the backend believes with this worker and that are not among them go back, no attempt counted,
    /// before anything is claimed.
    public var holding: Set<Int64>?

    public typealias LateResultHandler = @Sendable (Result<TurnResult, any Error>) -> Void

    public init(
        worker: WorkerID, settlements: [Settlement] = [], progress: [ProgressReport] = [], claims: [Claim] = [],
        budget: ClaimBudget = ClaimBudget()
    ) {
        self.worker = worker
        self.settlements = settlements
        self.progress = progress
        self.claims = claims
        self.budget = budget
    }
}

/// Ready jobs of one queue with one of these names, the most urgent first and the oldest of those.
public struct Claim: Sendable {
    public var queue: String
    /// What the jobs take of the worker, as a name: jobs of one kind draw from the same free slots.
    public var kind: String
    public var jobNames: [String]
    /// Finds out what a job belongs to whose producer did not say; nil when no limit asks.
    public var partition: PartitionFinder?

    public typealias PartitionFinder = @Sendable (_ message: Message) -> String?

    public init(queue: String, kind: String, jobNames: [String], partition: PartitionFinder? = nil) {
        self.queue = queue
        self.kind = kind
        self.jobNames = jobNames
        self.partition = partition
    }
}

/// The free slots of a worker: each job that is claimed uses one of its kind and one of its queue.
public struct ClaimBudget: Sendable {
    /// Free slots of each kind. A kind that is missing has none.
    public var kinds: [String: Int]
    /// Free slots of each queue that has a limit of its own.
    public var queues: [String: Int]

    public init(kinds: [String: Int] = [:], queues: [String: Int] = [:]) {
        self.kinds = kinds
        self.queues = queues
    }

    public func available(to claim: Claim) -> Int {
        max(0, min(kinds[claim.kind] ?? 0, queues[claim.queue] ?? .max))
    }

    public mutating func spend(_ count: Int, on claim: Claim) {
        kinds[claim.kind, default: 0] -= count
        if let free = queues[claim.queue] { queues[claim.queue] = free - count }
    }
}

public struct TurnResult: Sendable {
    public var deliveries: [Delivery]
    /// Jobs whose settlement or progress was refused: the lease was lost and they are somebody else's by now.
    public var lost: [JobID]
    /// Running jobs of this worker that somebody wants stopped.
    public var cancellations: [JobID]
    /// When the next delayed job becomes ready.
    public var nextDue: Date?
    /// True when more may be ready than was claimed, so that it is worth asking again.
    public var hasMore: Bool

    public init(
        deliveries: [Delivery] = [], lost: [JobID] = [], cancellations: [JobID] = [], nextDue: Date? = nil,
        hasMore: Bool = false
    ) {
        self.deliveries = deliveries
        self.lost = lost
        self.cancellations = cancellations
        self.nextDue = nextDue
        self.hasMore = hasMore
    }
}

/// One handing-over of a job to one worker.
public struct Delivery: Sendable {
    public enum Payload: Sendable {
        case message(Message)
        /// The bytes of an envelope, decoded where the job runs.
        case envelope([UInt8])
    }

    public var jobID: JobID
    public var jobName: String
    public var queue: String
    public var payload: Payload
    /// The attempt that begins with this delivery, 1 for the first.
    public var attempt: Int
    /// How often a worker died with this job.
    public var lostWorkers: Int
    /// Tells this delivery from any other of the same job.
    public var token: Int64

    public init(
        jobID: JobID, jobName: String, queue: String, payload: Payload, attempt: Int, lostWorkers: Int, token: Int64
    ) {
        self.jobID = jobID
        self.jobName = jobName
        self.queue = queue
        self.payload = payload
        self.attempt = attempt
        self.lostWorkers = lostWorkers
        self.token = token
    }
}

/// What became of one delivery.
public struct Settlement: Sendable {
    public var jobID: JobID
    public var token: Int64
    public var outcome: Outcome
    public var startedAt: Date
    public var finishedAt: Date
    /// What the worker knew of the job; nil when its message could not be read, or when ``prepared`` says it.
    public var context: JobContext?
    /// What the attempt used, where that can be told.
    public var usage: ResourceUsage?
    /// What it wrote; nil for nothing.
    public var log: JobLog?
    /// What follows from the end of the job. Stored and published in the step that settles it, or before the delivery
    /// is acknowledged; nothing of it where the settlement is refused. Nil for nothing.
    public var followUps: FollowUps?
    /// For the backend alone, see ``Broker/prepare(_:)``.
    public var prepared: (any Sendable)?

    public init(
        jobID: JobID, token: Int64, outcome: Outcome, startedAt: Date, finishedAt: Date, context: JobContext? = nil,
        usage: ResourceUsage? = nil, log: JobLog? = nil
    ) {
        self.jobID = jobID
        self.token = token
        self.outcome = outcome
        self.startedAt = startedAt
        self.finishedAt = finishedAt
        self.context = context
        self.usage = usage
        self.log = log
    }
}

public enum Outcome: Sendable {
    /// The output as JSON, and seconds to keep it: nil for the default, 0 for not at all.
    case succeeded(output: [UInt8], retention: Double?)
    /// Given up: the job becomes a dead letter.
    case failed(JobFailure)
    /// Another attempt at `date`, with a changed message when there is a change.
    case retry(at: Date, JobFailure, change: MessageChange? = nil)
    /// Put off until `date`; the attempt is not counted. When it closes its queue no other job of it starts until then
    /// either.
    case snoozed(until: Date, closesQueue: Bool = false)
    case cancelled
    case expired
    /// Not finished when the worker stopped: ready again at once, the attempt not counted.
    case handedBack
    /// Claimed and given back before it began: no attempt, no start under a rate, also for a job that may begin only
    /// once.
    case notStarted
}

public struct ProgressReport: Sendable {
    public var jobID: JobID
    public var token: Int64
    public var progress: JobProgress

    public init(jobID: JobID, token: Int64, progress: JobProgress) {
        self.jobID = jobID
        self.token = token
        self.progress = progress
    }
}

/// What a running job has written so far.
public struct LogReport: Sendable {
    public var jobID: JobID
    public var token: Int64
    public var log: JobLog

    public init(jobID: JobID, token: Int64, log: JobLog) {
        self.jobID = jobID
        self.token = token
        self.log = log
    }
}

extension Outcome {
    /// The outcome in a word, for logs, metrics and histories.
    package var label: String {
        switch self {
        case .succeeded: "succeeded"
        case .failed: "failed"
        case .retry: "retried"
        case .snoozed: "snoozed"
        case .cancelled: "cancelled"
        case .expired: "expired"
        case .handedBack: "handed back"
        case .notStarted: "not started"
        }
    }
}
