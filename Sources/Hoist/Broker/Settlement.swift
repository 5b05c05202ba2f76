#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// What became of one delivery.
public struct Settlement: Sendable {
    public var jobID: JobID
    public var token: Int64
    public var outcome: Outcome
    public var startedAt: Date
    public var finishedAt: Date
    /// What the worker knew of the job; nil when its message could not be read, or when ``encoded`` says it.
    public var facts: SettlementFacts?
    /// What the attempt used, where that can be told.
    public var usage: ResourceUsage?
    /// What it wrote; nil for nothing.
    public var log: JobLog?
    /// What follows from the end of the job. Stored and published in the step that settles it, or before the delivery
    /// is acknowledged; nothing of it where the settlement is refused. Nil for nothing.
    public var followUps: FollowUps?
    /// Whether the broker stores what became of the job. False where another store has done so already.
    public var storesResult = true
    /// For the session alone, see ``WorkerSession/encode(_:)``.
    public var encoded: (any Sendable)?

    /// Whether the broker is to keep nothing of the job once it has ended, for another store has its end. A dead letter
    /// stays, for it may be requeued; so does a job that the broker cancels in place of what the worker said.
    package var leavesNoRecord: Bool {
        guard !storesResult else { return false }
        switch outcome {
        case .succeeded, .cancelled, .expired: return true
        case .failed, .retry, .snoozed, .refused, .handedBack, .notStarted: return false
        }
    }

    public init(
        jobID: JobID, token: Int64, outcome: Outcome, startedAt: Date, finishedAt: Date, facts: SettlementFacts? = nil,
        usage: ResourceUsage? = nil, log: JobLog? = nil
    ) {
        self.jobID = jobID
        self.token = token
        self.outcome = outcome
        self.startedAt = startedAt
        self.finishedAt = finishedAt
        self.facts = facts
        self.usage = usage
        self.log = log
    }
}

/// What a worker knew of a job that it has settled: all that a result says besides the outcome.
public struct SettlementFacts: Sendable {
    /// The wire name, as it came.
    public var name: String
    public var queue: String
    /// The number of the attempt, 1 for the first.
    public var attempt: Int
    /// How often a worker or a process died with the job before.
    public var lostWorkers: Int
    /// The name of the worker.
    public var worker: String
    /// The jobs that the handler has enqueued.
    public var children: [JobID]
    /// Whether nobody wants the result: none is kept.
    public var ignoresResult: Bool
    private let sharedHeaders: CopyOnWrite<MessageHeaders>
    private let sharedProperties: CopyOnWrite<MessageProperties>
    /// The headers of the message, as they came.
    public var headers: MessageHeaders { _read { yield sharedHeaders.value } }
    /// The properties of the message, as they came.
    public var properties: MessageProperties { _read { yield sharedProperties.value } }

    /// - Parameters:
    ///   - message: the message of the delivery.
    ///   - delivery: the delivery.
    ///   - worker: the name of the worker.
    ///   - children: the jobs that the handler has enqueued.
    ///   - ignoresResult: whether no result is kept; by default as the message says.
    public init(
        _ message: Message, of delivery: Delivery, worker: String, children: [JobID] = [], ignoresResult: Bool? = nil
    ) {
        name = delivery.jobName
        queue = delivery.queue
        attempt = delivery.attempt
        lostWorkers = delivery.lostWorkers
        self.worker = worker
        self.children = children
        self.ignoresResult = ignoresResult ?? message.headers.ignoresResult ?? false
        sharedHeaders = message.sharedHeaders
        sharedProperties = message.sharedProperties
    }

    init(_ context: JobContext, headers: CopyOnWrite<MessageHeaders>, properties: CopyOnWrite<MessageProperties>) {
        name = context.name
        queue = context.queue
        attempt = context.attempt
        lostWorkers = context.lostWorkers
        worker = context.worker
        children = context.children
        ignoresResult = context.ignoresResult
        (sharedHeaders, sharedProperties) = (headers, properties)
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
    /// The worker does not know an argument of the job: put off until `date`, for a worker that knows it; the attempt
    /// is not counted. The failure says what the worker does not know.
    case refused(until: Date, JobFailure)
    case cancelled
    case expired
    /// Not finished when the worker stopped: ready again at once, the attempt not counted.
    case handedBack
    /// Claimed and given back before it began: no attempt, no start under a rate, also for a job that may begin only
    /// once.
    case notStarted
}

extension Outcome {
    /// The outcome as the value of a metric's label.
    var metricLabel: String {
        switch self {
        case .handedBack: "handed_back"
        case .notStarted: "not_started"
        default: label
        }
    }

    package static let failedLabel = "failed"
    package static let retriedLabel = "retried"
    package static let cancelledLabel = "cancelled"
    package static let refusedLabel = "refused"
    /// Of an attempt that no worker has settled, because its own died.
    package static let workerLostLabel = "worker lost"

    /// The outcome in a word, for logs, metrics and histories.
    package var label: String {
        switch self {
        case .succeeded: "succeeded"
        case .failed: Self.failedLabel
        case .retry: Self.retriedLabel
        case .snoozed: "snoozed"
        case .refused: Self.refusedLabel
        case .cancelled: Self.cancelledLabel
        case .expired: "expired"
        case .handedBack: "handed back"
        case .notStarted: "not started"
        }
    }
}
