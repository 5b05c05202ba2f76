#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif
public import Logging
import Synchronization

/// The handler's view of its job, with the means to report progress, to log and to enqueue while the job runs.
public final class JobContext: Sendable {
    /// Why a running job was asked to stop.
    public struct CancellationReason: Sendable, Hashable {
        enum Kind: Sendable, Hashable { case requested, timeLimit, noProgress, shutdown, leaseLost }
        let kind: Kind

        /// The job was cancelled on request.
        public static let requested = CancellationReason(kind: .requested)
        public static let timeLimit = CancellationReason(kind: .timeLimit)
        /// No sign of progress for longer than the heartbeat limit.
        public static let noProgress = CancellationReason(kind: .noProgress)
        /// The worker stops. The job runs again elsewhere, unless it runs at most once.
        public static let shutdown = CancellationReason(kind: .shutdown)
        /// The lease was lost: another worker has the job by now, and the outcome of this attempt is refused.
        public static let leaseLost = CancellationReason(kind: .leaseLost)
    }

    /// The context of the job that the current task performs; nil outside of handlers.
    @TaskLocal public static var current: JobContext?

    private let execution: Execution
    public var id: JobID { execution.jobID }
    /// The wire name, as received.
    public var name: String { execution.jobName }
    public var queue: String { execution.queue }
    /// The number of this attempt, 1 for the first.
    public var attempt: Int { execution.attempt }
    /// The number of workers that died while they held this job.
    public var lostWorkers: Int { execution.lostWorkers }
    public var enqueuedAt: Date? { messageHeaders.hoist.enqueuedAt }
    /// When the time limit passes; nil without one.
    public let deadline: Date?
    public var parentID: JobID? { messageHeaders.parentID }
    public var rootID: JobID { messageHeaders.rootID ?? execution.jobID }
    /// The run of a schedule that this job is; nil for other jobs.
    public var schedule: Tick? { messageHeaders.hoist.tick }
    /// The step of a workflow that this job is; nil for other jobs.
    public var workflow: WorkflowStep? { messageHeaders.hoist.step }
    /// The user's own headers, as received with the job.
    public var headers: WireValue.Object { messageHeaders.custom }
    /// All headers of the message, as received.
    public var messageHeaders: MessageHeaders { _read { yield sharedHeaders.value } }
    /// The properties of the message, as received.
    public var messageProperties: MessageProperties { _read { yield sharedProperties.value } }
    private let sharedHeaders: CopyOnWrite<MessageHeaders>
    private let sharedProperties: CopyOnWrite<MessageProperties>
    /// The name of the worker.
    public var worker: String { execution.environment.worker }
    var isWorkerAddressable: Bool { execution.environment.isAddressable }
    /// Logs with the job's id, name, queue and attempt. The last lines are kept with the job, see ``JobHandle/log()``.
    public var logger: Logger { execution.recordingLogger }
    /// A client for further jobs, which become children of this job.
    public var jobs: JobClient { execution.environment.jobs }

    private struct State {
        var reason: CancellationReason?
        var lastSign: Int64
        var children: [JobID] = []
        /// What follows the job, where this process continues it.
        var following: (continuation: Continuation?, rules: ContinuationRules)?
    }

    private let state: Mutex<State>
    private let onProgress: @Sendable (JobProgress) -> Void
    private let onSign: (@Sendable () -> Void)?

    /// Whether no result is to be kept.
    package let ignoresResult: Bool
    /// Whether the arguments arrived sealed. The output is then sealed too.
    let isSealed: Bool

    init(
        message: Message, execution: Execution, deadline: Date?, ignoresResult: Bool,
        onProgress: @escaping @Sendable (JobProgress) -> Void, onSign: (@Sendable () -> Void)? = nil
    ) {
        self.ignoresResult = ignoresResult
        self.execution = execution
        self.deadline = deadline
        isSealed = message.isSealed
        sharedHeaders = message.sharedHeaders
        sharedProperties = message.sharedProperties
        state = Mutex(State(lastSign: execution.environment.jobs.backend.clock.uptime))
        self.onProgress = onProgress
        self.onSign = onSign
    }

    private var clock: any JobClock { execution.environment.jobs.backend.clock }

    /// Reports the progress of the job, which counts as a sign of progress. Of several reports close together, only the
    /// last is sent.
    /// - Parameters:
    ///   - progress: 0...1; nil when the job cannot tell.
    ///   - message: what the job is doing.
    ///   - details: further details to show.
    /// - Throws: `CancellationError` when the job was asked to stop: this is a good place to notice.
    public func report(progress: Double?, _ message: String? = nil, details: [String: String]? = nil) async throws {
        heartbeat()
        onProgress(JobProgress(fraction: progress?.clamped(to: 0...1), message: message, details: details))
        try Task.checkCancellation()
    }

    /// Gives a sign of progress without a report.
    public func heartbeat() {
        let now = clock.uptime
        state.withLock { $0.lastSign = now }
        onSign?()
    }

    func `continue`(with continuation: Continuation?, _ rules: ContinuationRules) {
        state.withLock { $0.following = (continuation, rules) }
    }

    /// How what the job starts is addressed; nil in a process that does not continue it.
    var continuationRules: ContinuationRules? { state.withLock { $0.following?.rules } }

    /// Adds a canvas to the chord that the job is a member of: the chord's body waits for its end too. Not in the process
    /// lane.
    /// - Throws: ``JobFailure`` when the job is no member of a chord. ``BackendError``; the canvas may run then, and the
    ///   chord may wait for one that does not.
    public func addToChord(_ canvas: Signature) async throws {
        guard let (continuation, rules) = state.withLock({ $0.following }), let groups = jobs.backend.groups else {
            throw JobFailure.chord
        }
        guard !isSealed else { throw JobFailure.sealedCanvas }
        let (group, count, followUps) = try Continuation.member(
            continuation, canvas, messageHeaders, rules, now: jobs.backend.clock.now)
        // A chord that waits for too many is found; one that is over too soon is not.
        guard count > 0 else { return }
        try await groups.grow(group, by: count)
        try await jobs.publish(canvas: followUps)
    }

    /// Why the job was asked to stop; nil when it was not.
    public var cancellationReason: CancellationReason? { state.withLock { $0.reason } }

    /// The jobs that the handler has enqueued so far.
    package var children: [JobID] { state.withLock { $0.children } }

    func noteChildren(_ ids: [JobID]) { state.withLock { $0.children += ids } }

    /// All that a result says of the job besides its outcome.
    var facts: SettlementFacts { SettlementFacts(self, headers: sharedHeaders, properties: sharedProperties) }

    /// Microseconds since the last sign of progress.
    var silence: Int64 {
        let now = clock.uptime
        return state.withLock { now - $0.lastSign }
    }

    /// Keeps the first reason, except that a lost lease replaces an earlier reason.
    func noteCancellation(_ reason: CancellationReason) {
        state.withLock { state in
            if state.reason == nil || reason == .leaseLost { state.reason = reason }
        }
    }
}
