#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// One incarnation of a worker at a broker, from its announcement until it leaves or loses its lease.
///
/// Whatever a broker does only for speed lives behind its session. A worker calls `turn` and `renew` from two tasks;
/// each of them waits for its own last call, and not for the other's.
public protocol WorkerSession: Sendable {
    /// Does what can be done of settling a job without the broker: called on the thread of the job, of which a worker
    /// has many, and not on that of the broker, of which it has one. By default nothing.
    /// - Returns: the settlement, with what the session made of it in ``Settlement/encoded``.
    func encode(_ settlement: Settlement) -> Settlement

    /// Settles what the worker has finished, takes its reports, and gives it new work: each job in one step.
    /// - Throws: ``BackendError``; some of it may have happened then. The same settlements may be sent again, and the
    ///   next turn says what the worker is ``WorkerTurn/holding``.
    func turn(_ turn: WorkerTurn) async throws -> TurnResult

    /// Renews the lease of this worker.
    /// - Returns: false when the lease has been lost: every delivery of this session is another worker's by now, and
    ///   the session is over.
    /// - Throws: ``BackendError``; the lease may be renewed then, and renewing again is safe.
    func renew(_ worker: WorkerPresence) async throws -> Bool

    /// Takes the worker off the list and ends the session. Deliveries it still holds go back at once, without spending
    /// an attempt.
    /// - Throws: ``BackendError``; closing again is safe. A session that cannot be closed ends with its lease.
    func close() async throws
}

extension WorkerSession {
    public func encode(_ settlement: Settlement) -> Settlement { settlement }
}

/// Is told what a broker has for a worker between its turns. Every method may be called on any thread, must be quick
/// and must not block.
public protocol SessionSink: Sendable {
    /// The broker has handed out jobs by itself, under the credit of an earlier turn. Counts as one arrival, see
    /// ``WorkerTurn/arrivalsSeen``.
    func arrived(_ result: TurnResult)
    /// Jobs may have been handed out and got lost on the way. Counts as one arrival; the next turn must say what the
    /// worker is ``WorkerTurn/holding``.
    func arrivalWasLost(_ error: any Error)
    /// A job may have become ready, or a running one is to be stopped: worth a turn.
    func mayHaveWork()
    /// The broker has done something with jobs by itself. By default nothing.
    func noticed(_ notices: [JobNotice])
    /// The broker has found something that a person should know and change. By default nothing.
    func warned(_ text: String)
}

extension SessionSink {
    public func warned(_ text: String) {}
    public func noticed(_ notices: [JobNotice]) {}
}

/// One round trip of a worker.
public struct WorkerTurn: Sendable {
    public var settlements: [Settlement]
    public var progress: [ProgressReport]
    /// What running jobs have written so far.
    public var logs: [LogReport] = []
    /// What the worker has room for, in this order. Empty to take nothing in this turn.
    public var claims: [Claim]
    /// How many jobs the claims may take together.
    public var budget: ClaimBudget
    /// Whether the credit lasts: jobs that come after the turn may be handed to the sink, up to what is left of the
    /// budget, until the next turn with claims or until the credit is withdrawn.
    public var creditLasts = false
    /// Whether a job may be taken whose worker has died. Of such jobs a worker has one at a time, so that the one that
    /// kills its workers takes no other with it: a broker that can choose gives at most one in a turn, and none where
    /// this is false.
    public var takesSuspects = true
    /// How many arrivals the budget takes into account. Where there have been more, there is less room than it says:
    /// the broker gives nothing then, and the result says that there may be more.
    public var arrivalsSeen = 0
    /// Takes back the credit of earlier turns. What it has brought by then is delivered all the same.
    public var withdrawsCredit = false
    /// The tokens of all deliveries that the worker knows of, besides those it settles here; set after an answer got
    /// lost. Jobs that the broker believes with this worker and that are not among them go back, no attempt counted,
    /// before anything is claimed.
    public var holding: Set<Int64>?

    public init(
        settlements: [Settlement] = [], progress: [ProgressReport] = [], claims: [Claim] = [],
        budget: ClaimBudget = ClaimBudget()
    ) {
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
    /// Jobs whose settlement or progress was refused: the lease was lost and they are another worker's by now.
    public var lost: [JobID]
    /// Jobs that had succeeded, and whose message was in a queue once more: the broker has dropped that copy.
    public var copies: [JobID] = []
    /// Running jobs of this worker that are to be stopped.
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

    /// The decoded message; nil when it cannot be read.
    package var message: Message? {
        switch payload {
        case .message(let message): message
        case .envelope(let bytes): try? Message(envelope: bytes)
        }
    }
}

public struct ProgressReport: Sendable {
    public var jobID: JobID
    public var token: Int64
    public var progress: JobProgress
    /// What the worker knew of the job; nil when its message was not read yet.
    public var facts: SettlementFacts?

    public init(jobID: JobID, token: Int64, progress: JobProgress, facts: SettlementFacts? = nil) {
        self.jobID = jobID
        self.token = token
        self.progress = progress
        self.facts = facts
    }
}

/// What a running job has written so far.
public struct LogReport: Sendable {
    public var jobID: JobID
    public var token: Int64
    public var log: JobLog
    /// What the worker knew of the job; nil when its message was not read yet.
    public var facts: SettlementFacts?

    public init(jobID: JobID, token: Int64, log: JobLog, facts: SettlementFacts? = nil) {
        self.facts = facts
        self.jobID = jobID
        self.token = token
        self.log = log
    }
}
