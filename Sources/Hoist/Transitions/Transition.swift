#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// What becomes of a job when one of its deliveries is over. Decided here for every backend; a backend only stores it.
///
/// Pure: the same end of the same delivery gives the same transition, on every backend and at every time. The table of
/// all cases is in the article Lifecycle, and a test goes through it.
public struct Transition: Sendable {
    /// Where the job goes.
    public enum Move: Sendable, Hashable {
        /// The job has ended.
        case end(JobState, at: Date, kept: Retention)
        /// The job goes back to its queue.
        /// - `state` counts until `due`; a job that is due is `.waiting`, whatever it says.
        /// - `due`: nil for now.
        /// - `inFront`: the job comes before the jobs that wait already. A queue that orders by age does that by
        ///   itself.
        case back(JobState, due: Date?, inFront: Bool)
    }

    /// For how long the record of an ended job is kept.
    public enum Retention: Sendable, Hashable {
        /// Not at all: no record, no result.
        case nothing
        /// For this number of seconds.
        case seconds(Double)
        /// For as long as the job's message asks for, else for the backend's default.
        case standard
        /// As long as the backend keeps dead letters.
        case deadLetter
    }

    public var move: Move
    /// The attempt as the job's history keeps it; nil when the delivery left nothing to tell.
    public var attempt: AttemptRecord?
    /// Becomes the last failure of the job; nil leaves the one before.
    public var failure: JobFailure?
    /// The output of a job that succeeded, as JSON.
    public var output: [UInt8]?
    /// Whether the next delivery is another attempt.
    public var spendsAttempt = false
    /// Whether a worker or a process died with the job, which counts towards giving it up.
    public var countsDeath = false
    /// Whether the job has begun, as a limit on starts counts it.
    public var countsStart = true
    /// Whether the job is cancelled in place of this, should a cancellation come to light in the step that stores it.
    public var yieldsToCancellation = false
    /// What changes in the message before the next attempt.
    public var change: MessageChange?
    /// What follows from the end of the job; nil for nothing.
    public var followUps: FollowUps?

    init(_ move: Move) { self.move = move }

    /// The same transition with what follows from the end of a job that no worker can tell, because the job is given up
    /// or cancelled without one.
    public func continued(_ message: @autoclosure () throws -> Message?) rethrows -> Transition {
        guard followUps == nil, case .end(let state, let date, _) = move, state != .succeeded,
            let message = try message()
        else { return self }
        var transition = self
        transition.followUps = FollowUps(of: message, endedAs: state, failure, now: date)
        return transition
    }

    /// Why the job has become a dead letter; nil when it has not.
    public var deadLetter: JobFailure? {
        if case .end(.failed, _, _) = move { failure } else { nil }
    }

    /// The state of the job afterwards, as of `now`.
    public func state(at now: Date) -> JobState {
        switch move {
        case .end(let state, _, _): state
        case .back(let state, let due, _): due.map { $0 > now } == true ? state : .waiting
        }
    }
}

/// What is known of a delivery that is over.
public struct DeliveryFacts: Sendable, Hashable {
    /// The number of the attempt, 1 for the first.
    public var attempt: Int
    /// The name of the worker that had the job.
    public var worker: String?
    /// When the worker claimed the job.
    public var claimedAt: Date?
    /// How often a worker or a process has died with the job before.
    public var lostWorkers: Int
    /// Whether the job must not begin a second time.
    public var isAtMostOnce: Bool
    /// Whether a cancellation of the job has been asked for.
    public var isCancelRequested: Bool

    public init(
        attempt: Int, worker: String? = nil, claimedAt: Date? = nil, lostWorkers: Int = 0, isAtMostOnce: Bool = false,
        isCancelRequested: Bool = false
    ) {
        self.attempt = attempt
        self.worker = worker
        self.claimedAt = claimedAt
        self.lostWorkers = lostWorkers
        self.isAtMostOnce = isAtMostOnce
        self.isCancelRequested = isCancelRequested
    }
}

extension Transition {
    /// The worker has settled the delivery.
    public init(_ settlement: Settlement, of job: DeliveryFacts) {
        let end = settlement.finishedAt
        var attempt = AttemptRecord(
            number: job.attempt, worker: job.worker, startedAt: settlement.startedAt, endedAt: end,
            outcome: settlement.outcome.label, failure: nil, usage: settlement.usage)
        switch settlement.outcome {
        case .succeeded(let output, let retention):
            self.init(.end(.succeeded, at: end, kept: retention.map { $0 == 0 ? .nothing : .seconds($0) } ?? .standard))
            self.output = output
        case .failed(let failure):
            attempt.failure = failure
            self.init(.end(.failed, at: end, kept: .deadLetter))
            (self.attempt, self.failure, countsDeath) = (attempt, failure, failure.isDeath)
        case .retry(let date, let failure, let change):
            attempt.failure = failure
            self.init(back: .retrying, due: date, inFront: false, job, at: end)
            (self.attempt, self.failure, countsDeath) = (attempt, failure, failure.isDeath)
            if case .back = move { (spendsAttempt, self.change) = (true, change) }
        case .snoozed(let date, _):
            self.init(back: .scheduled, due: date, inFront: false, job, at: end)
            self.attempt = attempt
        case .refused(let date, let failure):
            self.init(back: .scheduled, due: date, inFront: false, job, at: end)
            attempt.failure = failure
            self.attempt = attempt
        case .handedBack:
            self.init(handedBack: job, at: end)
            self.attempt = attempt
        case .notStarted: self = .neverBegun(job, at: end)
        case .cancelled:
            self.init(.end(.cancelled, at: end, kept: .standard))
            self.attempt = attempt
        case .expired: self.init(.end(.expired, at: end, kept: .standard))
        }
        if case .end = move { followUps = settlement.followUps }
    }

    /// The worker died with the job, or was cut off for longer than its lease.
    /// - Parameters:
    ///   - job: the delivery.
    ///   - worker: the name of the worker.
    ///   - maximum: a job that this number of workers died with is given up.
    ///   - now: the time at which the death is noticed.
    public static func workerLost(_ job: DeliveryFacts, worker: String, maximum: Int, at now: Date) -> Transition {
        let failure = JobFailure.workerLost(worker)
        let isGivenUp = job.isAtMostOnce || job.lostWorkers + 1 >= maximum
        var transition =
            isGivenUp && !job.isCancelRequested
            ? Transition(.end(.failed, at: now, kept: .deadLetter))
            : Transition(back: .waiting, due: nil, inFront: true, job, at: now)
        if isGivenUp, !job.isCancelRequested {
            (transition.failure, transition.yieldsToCancellation) = (failure, true)
        }
        transition.attempt = AttemptRecord(
            number: job.attempt, worker: worker, startedAt: job.claimedAt, endedAt: now,
            outcome: Outcome.workerLostLabel,
            failure: failure)
        transition.countsDeath = true
        return transition
    }

    /// The worker never heard of the delivery, because the answer that carried it got lost; or it gave the job back
    /// before the handler began. The job is as it was, also one that may begin only once.
    public static func neverBegun(_ job: DeliveryFacts, at now: Date) -> Transition {
        var transition = Transition(back: .waiting, due: nil, inFront: true, job, at: now)
        transition.countsStart = false
        return transition
    }

    /// A job that waited has expired, or was cancelled.
    public static func waitedInVain(_ state: JobState, at now: Date) -> Transition {
        Transition(.end(state, at: now, kept: .standard))
    }

    /// The worker left in order, and the job was still with it.
    public static func resigned(_ job: DeliveryFacts, at now: Date) -> Transition {
        Transition(handedBack: job, at: now)
    }

    /// A job that may begin only once is not begun a second time, unless its cancellation was wanted anyway.
    private init(handedBack job: DeliveryFacts, at now: Date) {
        guard job.isAtMostOnce, !job.isCancelRequested else {
            self.init(back: .waiting, due: nil, inFront: true, job, at: now)
            return
        }
        self.init(.end(.failed, at: now, kept: .deadLetter))
        (failure, yieldsToCancellation) = (.stoppedAtMostOnce, true)
    }

    /// A job whose cancellation was asked for does not go back: it is cancelled.
    private init(back state: JobState, due: Date?, inFront: Bool, _ job: DeliveryFacts, at now: Date) {
        self.init(
            job.isCancelRequested
                ? .end(.cancelled, at: now, kept: .standard) : .back(state, due: due, inFront: inFront))
        yieldsToCancellation = !job.isCancelRequested
    }
}
