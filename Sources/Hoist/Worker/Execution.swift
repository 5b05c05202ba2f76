#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
import Logging
import Synchronization

/// One attempt at one job, from its bytes to its outcome. Runs in the lane of its handler.
final class Execution: Sendable {
    let jobID: JobID
    let jobName: String
    let queue: String
    let attempt: Int
    let lostWorkers: Int
    let token: Int64
    let handler: RegisteredHandler
    let environment: Environment
    /// What the handler writes.
    let log: JobLogRecorder
    private let handlerLogger: Logger?
    private var isInChild: Bool { handlerLogger != nil }
    private let knownLimits: RunLimits?
    /// Given up once it is read: ten thousand jobs may be under way, and wait for something else.
    private let payload: Mutex<Delivery.Payload?>

    /// What all executions of a worker share.
    final class Environment: Sendable {
        let worker: String
        let isAddressable: Bool
        let jobs: JobClient
        let logger: Logger
        let middleware: [any PerformMiddleware]
        /// What holds above the call's own limits, and below those of the job.
        let liveLimits: @Sendable (_ jobName: String) -> RunLimits
        let defaultLimits: RunLimits
        let onDeadLetter: (@Sendable (JobID, JobFailure) async -> Void)?
        /// How many lines of each job are kept.
        let logLines: Int
        /// How messages are addressed that follow a task of Celery's.
        let continuationRules: ContinuationRules
        /// A job that killed so many processes or workers is not tried again.
        let maximumDeaths: Int

        /// - Parameter handlerQueue: the queue that a job known here has by its own options.
        init(
            worker: String, jobs: JobClient, logger: Logger, configuration: Worker.Configuration,
            handlerQueue: @escaping @Sendable (_ jobName: String) -> String? = { _ in nil },
            liveLimits: @escaping @Sendable (_ jobName: String) -> RunLimits
        ) {
            self.worker = worker
            self.jobs = jobs
            self.logger = logger
            self.liveLimits = liveLimits
            isAddressable = configuration.isAddressable
            middleware = configuration.middleware
            defaultLimits = configuration.limits
            onDeadLetter = configuration.onDeadLetter
            logLines = configuration.logLines
            maximumDeaths = configuration.processes.maximumDeaths
            let (routes, usual) = (jobs.configuration.routes, configuration.celeryQueue)
            continuationRules = ContinuationRules(origin: ProcessIdentity.name) { name in
                routes.lazy.compactMap { $0.queue(name) }.first ?? handlerQueue(name) ?? usual
            }
        }
    }

    /// - Parameters:
    ///   - limits: those that hold; nil to find out. A child is told.
    ///   - handlerLogger: what the handler logs with, in place of the worker's logger.
    ///   - onLog: called when the job has written something.
    init(
        _ delivery: Delivery, _ handler: RegisteredHandler, _ environment: Environment, limits: RunLimits? = nil,
        handlerLogger: Logger? = nil,
        onLog: @escaping @Sendable () -> Void = {}
    ) {
        jobID = delivery.jobID
        jobName = delivery.jobName
        queue = delivery.queue
        attempt = delivery.attempt
        lostWorkers = delivery.lostWorkers
        token = delivery.token
        payload = Mutex(delivery.payload)
        self.handler = handler
        self.environment = environment
        self.handlerLogger = handlerLogger
        knownLimits = limits
        log = JobLogRecorder(
            attempt: delivery.attempt, limit: handlerLogger == nil ? environment.logLines : 0,
            remembersLastWords: handler.lane == .process && handlerLogger == nil, onChange: onLog)
    }

    /// What of a message outlives its reading.
    struct Call: Sendable {
        var retry: RetryPolicy?
        var enqueuedAt: Date?
        var retention: Double?
        var limits: RunLimits
        var waited: Int64?
        var isAtMostOnce = false
    }

    /// What came of an attempt.
    struct End: Sendable {
        var outcome: Outcome
        /// Microseconds that the job has waited; nil where that is not known.
        var waited: Int64?
        /// Nil when the message could not be read.
        var context: JobContext?
        var followUps: FollowUps?
    }

    /// - Parameters:
    ///   - onContext: called once the message is read, before the handler runs.
    ///   - onSign: called at every sign of progress.
    ///   - cancel: asks the task of this execution to stop.
    func run(
        onContext: @Sendable (JobContext, Message) -> Void,
        onProgress: @escaping @Sendable (JobProgress) -> Void,
        onSign: (@Sendable () -> Void)? = nil,
        cancel: @escaping @Sendable (JobContext.CancellationReason) -> Void
    ) async -> End {
        do throws(WireError) {
            var message = try takeMessage()
            message.hideForeignSecrets()
            try checkIdentity(of: message)
            let limits = WireLimits.default
            let opened = try message.opened(with: environment.jobs.configuration.sealing)
            let (gate, cost) = (DecodingGate.shared, opened.decodingCost(limits))
            guard await gate.enter(cost, of: limits.maximumMemory) else {
                // Stopped before it began: it goes back, or is cancelled where that was asked for.
                return End(outcome: .notStarted)
            }
            let decoded = Result { () throws(WireError) in try opened.decodedBodyAndSize(limits: limits) }
            // What is large stays counted as long as the job runs.
            let kept = (try? decoded.get()).map { min(cost, $0.size * 4) } ?? 0
            gate.decoded(cost, keeping: kept, of: limits.maximumMemory)
            defer { gate.ended(cost, keeping: kept, of: limits.maximumMemory) }
            let body = try decoded.get().body
            // The worker continues what its child has done.
            let continuation = isInChild ? nil : try Continuation(body.embed, message.headers)
            let (call, context) = begin(message, onProgress: onProgress, onSign: onSign)
            context.continue(with: continuation, environment.continuationRules)
            onContext(context, message)
            if let continuation, let refusal = refusal(continuation, message.headers) {
                let end = await refuse(refusal, continuation, message, context)
                return End(outcome: end.outcome, waited: call.waited, context: context, followUps: end.followUps)
            }
            let watch = Watch(context: context, limits: call.limits, clock: clock, cancel: cancel)
            watch.begin()
            let (outcome, followUps) = await JobContext.$current.withValue(context) {
                await attempt(call, body.arguments, context, continuation)
            }
            watch.end()
            return End(outcome: outcome, waited: call.waited, context: context, followUps: followUps)
        } catch {
            return End(outcome: await undecodable(error))
        }
    }

    func refusal(_ continuation: Continuation, _ headers: MessageHeaders) -> JobFailure? {
        continuation.refusal(
            FinishedJob(headers), environment.continuationRules, countsGroups: environment.jobs.backend.groups != nil)
    }

    /// Ends a job before it runs, and with it every job that would have followed.
    func refuse(
        _ failure: JobFailure, _ continuation: Continuation, _ message: Message, _ context: JobContext
    ) async -> (outcome: Outcome, followUps: FollowUps?) {
        let followUps = followUps(continuation, after: .failed(failure), message.headers)
        await hooks.ended(.failed(failure), context)
        return (.failed(failure), followUps)
    }

    /// What follows from an end other than success.
    func followUps(_ continuation: Continuation?, after outcome: Outcome, _ headers: MessageHeaders) -> FollowUps? {
        guard let continuation else { return nil }
        let finished = FinishedJob(headers)
        let followUps: FollowUps
        switch outcome {
        case .failed(let failure):
            followUps = continuation.afterFailure(failure, of: finished, environment.continuationRules, now: now)
        case .cancelled, .expired:
            let state: JobState = if case .expired = outcome { .expired } else { .cancelled }
            followUps = continuation.afterCancellation(state, of: finished, environment.continuationRules, now: now)
        case .succeeded, .retry, .snoozed, .refused, .handedBack, .notStarted: return nil
        }
        return followUps.isEmpty ? nil : followUps
    }

    /// What follows from a success.
    /// - Parameter output: JSON, not sealed.
    func followUps(
        _ continuation: Continuation?, output: [UInt8], _ context: JobContext
    ) throws(JobFailure) -> FollowUps? {
        guard let continuation else { return nil }
        guard !context.isSealed || !continuation.isCounted else {
            throw JobFailure(
                kind: .unsupported, type: "SealedOutput",
                message: "the output is sealed, and the chord or workflow that the job belongs to keeps outputs open")
        }
        let value: WireValue
        do throws(WireError) { value = try JSONParser.parse(output) } catch {
            throw JobFailure(kind: .notEncodable, type: "WireError", message: error.message)
        }
        var followUps = try continuation.afterSuccess(
            value, of: FinishedJob(context.messageHeaders), environment.continuationRules, now: now)
        if context.isSealed, let sealing = environment.jobs.configuration.sealing {
            do { for index in followUps.messages.indices { try followUps.messages[index].seal(with: sealing) } } catch {
                throw JobFailure(kind: .notEncodable, type: "Sealing", message: "\(error)")
            }
        }
        return followUps
    }

    func undecodable(_ error: WireError) async -> Outcome {
        let failure = JobFailure(kind: .undecodable, type: "WireError", message: error.message)
        await hooks.ended(failure, unreadable: jobID)
        return .failed(failure)
    }

    private var clock: any JobClock { environment.jobs.backend.clock }
    private var now: Date { clock.now }

    /// The payload as it came, for somebody else to read.
    func takeEnvelope() -> [UInt8] {
        switch payload.withLock({ $0.take() }) {
        case .message(let message)?: message.encodedEnvelope()
        case .envelope(let bytes)?: bytes
        case nil: []
        }
    }

    private func takeMessage() throws(WireError) -> Message {
        switch payload.withLock({ $0.take() }) {
        case .message(let decoded)?: decoded
        case .envelope(let bytes)?: try Message(envelope: bytes)
        case nil: throw WireError("the message was read already")
        }
    }

    /// The broker chose the handler by the name that it read, and a seal is checked against the name in the message:
    /// both must be the same, or a sealed body could be run by another handler than the one it was made for.
    private func checkIdentity(of message: Message) throws(WireError) {
        guard message.jobName.utf8.elementsEqual(jobName.utf8), message.id.utf8.elementsEqual(jobID.utf8) else {
            throw WireError("the message names another job than its delivery")
        }
    }

    /// What is known of an attempt that begins now.
    func begin(
        _ message: Message, onProgress: @escaping @Sendable (JobProgress) -> Void, onSign: (@Sendable () -> Void)? = nil
    ) -> (Call, JobContext) {
        let started = now
        let limits = knownLimits ?? limits(of: message)
        let readyAt = max(
            message.headers.hoist.enqueuedAt?.microsecondsSinceEpoch ?? .max,
            message.headers.eta?.microsecondsSinceEpoch ?? .min)
        let ignoresResult = ignoresResult(message.headers)
        let call = Call(
            retry: message.headers.hoist.retry, enqueuedAt: message.headers.hoist.enqueuedAt,
            retention: ignoresResult ? 0 : message.headers.hoist.resultRetention, limits: limits,
            waited: readyAt == .max ? nil : max(0, started.microsecondsSinceEpoch - readyAt),
            isAtMostOnce: message.headers.hoist.isAtMostOnce)
        let context = JobContext(
            message: message, execution: self, deadline: limits.time.map(started.advanced(by:)),
            ignoresResult: ignoresResult,
            onProgress: onProgress, onSign: onSign)
        return (call, context)
    }

    /// The call's word wins; a producer that has none leaves it to the job.
    private func ignoresResult(_ headers: MessageHeaders) -> Bool {
        headers.ignoresResult ?? (handler.options.result.kind == .ignored)
    }

    private func attempt(
        _ call: Call, _ arguments: Arguments, _ context: JobContext, _ continuation: Continuation?
    ) async -> (Outcome, FollowUps?) {
        await hooks.started(context)
        var outcome: Outcome
        var followUps: FollowUps?
        do {
            var output = try await JobTracing.performing(context) { try await perform(arguments, context) }
            followUps = try self.followUps(continuation, output: output, context)
            if let sealing = environment.jobs.configuration.sealing, context.isSealed {
                output = try SealedOutput.seal(output, of: jobID, with: sealing)
            }
            outcome = .succeeded(output: output, retention: call.retention)
        } catch let directive as JobDirective where directive.replacement != nil {
            do throws(JobFailure) {
                followUps = try replaced(continuation, by: directive.replacement, context)
                // The job goes on under its id: nothing has ended.
                return (.succeeded(output: Array("null".utf8), retention: 0), followUps)
            } catch {
                outcome = .failed(error)
                followUps = self.followUps(continuation, after: outcome, context.messageHeaders)
            }
        } catch {
            outcome = self.outcome(of: error, call, context)
            if let error = error as? ArgumentError, error.isUnknown, case .failed(let failure) = outcome {
                // Whether another worker may know it is asked where the backend is.
                // Whose hooks are run then, too.
                if isInChild { return (.refused(until: now, failure), nil) }
                outcome = await refused(failure, context)
            }
            followUps = self.followUps(continuation, after: outcome, context.messageHeaders)
        }
        await hooks.ended(outcome, context)
        return (outcome, followUps)
    }

    private func replaced(
        _ continuation: Continuation?, by canvas: Signature?, _ context: JobContext
    ) throws(JobFailure) -> FollowUps {
        guard let canvas, !isInChild else {
            throw JobFailure(
                kind: .unsupported, type: "JobDirective", message: "a job of the process lane cannot be replaced")
        }
        guard !context.isSealed else { throw JobFailure.sealedCanvas }
        return try Continuation.replacement(
            continuation, by: canvas, context.messageHeaders, queue: queue, environment.continuationRules, now: now)
    }

    private func perform(_ arguments: Arguments, _ context: JobContext) async throws -> [UInt8] {
        guard !environment.middleware.isEmpty else { return try await handler.perform(arguments, context) }
        let output = OutputBox()
        try await PerformChain(middleware: environment.middleware[...]) { [handler] in
            await output.set(try await handler.perform(arguments, context))
        }.run(context)
        guard let bytes = await output.bytes else {
            throw JobFailure(kind: .raised, type: "PerformMiddleware", message: "a middleware did not perform the job")
        }
        return bytes
    }

    /// Runs the hooks of a job that failed without having ended here.
    func runHooks(afterGivingUp failure: JobFailure) async {
        guard let message = try? takeMessage() else { return await hooks.ended(failure, unreadable: jobID) }
        let (_, context) = begin(message, onProgress: { _ in })
        await hooks.ended(.failed(failure), context)
    }

    /// Runs the user's hooks of a job that has not ended in its handler, on the threads of handlers: no
    /// thread of the worker may wait for the user's code.
    static func afterwards(_ body: @escaping @Sendable () async -> Void) {
        runBeside(on: globalConcurrentExecutor, body)
    }

    var hooks: JobHooks { JobHooks(hooks: handler.hooks, onDeadLetter: environment.onDeadLetter) }

    /// What an error that the handler threw means for the job.
    private func outcome(of error: any Error, _ call: Call, _ context: JobContext) -> Outcome {
        if let directive = error as? JobDirective { return outcome(of: directive, call) }
        switch context.cancellationReason {
        case .requested?: return .cancelled
        case .shutdown?, .leaseLost?: return .handedBack
        case .timeLimit?:
            let limit = call.limits.time.map { "\($0)" } ?? "its time limit"
            return retryOrFail(
                JobFailure(kind: .timedOut, type: "TimeLimitExceeded", message: "ran longer than \(limit)"), call)
        case .noProgress?:
            let limit = call.limits.heartbeat.map { "\($0)" } ?? "its heartbeat limit"
            return retryOrFail(
                JobFailure(kind: .stuck, type: "NoProgress", message: "no sign of progress for \(limit)"), call)
        default: break
        }
        if let error = error as? ArgumentError {
            return .failed(JobFailure(kind: .badArguments, type: "ArgumentError", message: error.description))
        }
        if let failure = error as? JobFailure { return .failed(failure) }
        let failure = JobFailure(raised: error)
        return handler.options.mayRetry(error) ? retryOrFail(failure, call) : .failed(failure)
    }

    private func outcome(of directive: JobDirective, _ call: Call) -> Outcome {
        switch directive.kind {
        case .snooze(let delay, let closesQueue):
            return .snoozed(until: now.advanced(by: delay), closesQueue: closesQueue)
        case .deadLetter(let reason):
            return .failed(JobFailure(kind: .deadLettered, type: "JobDirective", message: reason))
        case .replace:
            // Seen to where what follows the job is known.
            return .failed(
                JobFailure(kind: .unsupported, type: "JobDirective", message: "the job cannot be replaced here"))
        case .retry(let delay, let failure, let arguments, let maxAttempts):
            let isAllowed = maxAttempts.map { attempt < $0 } ?? (policyDelay(call) != nil)
            let change = arguments.map { MessageChange.arguments($0, sealing: environment.jobs.configuration.sealing) }
            return isAllowed ? .retry(at: now.advanced(by: delay), failure, change: change) : .failed(failure)
        }
    }

    func retryOrFail(_ failure: JobFailure, _ call: Call) -> Outcome {
        guard !handler.options.neverRetryAfter.contains(failure.kind), let delay = policyDelay(call) else {
            return .failed(failure)
        }
        return .retry(at: now.advanced(by: delay), failure)
    }

    private func policyDelay(_ call: Call) -> Duration? {
        let age = call.enqueuedAt.map { Duration(boundedSeconds: now.timeIntervalSince($0)) } ?? .zero
        return (call.retry ?? handler.options.retry).nextDelay(
            afterAttempt: attempt, age: age, draw: Double.random(in: 0..<1))
    }

    /// See ``RunLimits`` for who wins. Where code cannot be stopped by force, a hard limit that came with a call counts
    /// as a soft one.
    private func limits(of message: Message) -> RunLimits {
        let headers = message.headers
        let called = RunLimits(
            time: headers.softTimeLimit.flatMap(Duration.init(wireSeconds:)),
            hardTime: headers.hardTimeLimit.flatMap(Duration.init(wireSeconds:)),
            heartbeat: headers.hoist.heartbeatLimit.flatMap(Duration.init(wireSeconds:)),
            memory: headers.hoist.memoryLimit.map(ByteCount.init(bytes:)))
        var limits = environment.liveLimits(jobName).filled(from: called).filled(from: handler.options.runLimits)
            .filled(from: environment.defaultLimits)
        if handler.lane != .process {
            limits.time = [limits.time, limits.hardTime].compactMap { $0 }.min()
            (limits.hardTime, limits.memory) = (nil, nil)
        }
        return limits
    }

    /// What handlers log with: it is kept with the job.
    var recordingLogger: Logger {
        let base = environment.logger
        return marked(
            handlerLogger ?? Logger(label: base.label, factory: { _ in RecordingLogHandler(base.handler, log) }))
    }

    /// A logger that carries the job.
    var logger: Logger { marked(environment.logger) }

    private func marked(_ logger: Logger) -> Logger {
        var logger = logger
        logger[metadataKey: "job.id"] = "\(jobID)"
        logger[metadataKey: "job.name"] = "\(jobName)"
        logger[metadataKey: "job.queue"] = "\(queue)"
        logger[metadataKey: "job.attempt"] = "\(attempt)"
        return logger
    }
}

extension Duration {
    /// A limit that came over the wire: nil when it is no sensible number of seconds.
    fileprivate init?(wireSeconds seconds: Double) {
        guard seconds.isFinite, seconds >= 0 else { return nil }
        self.init(boundedSeconds: seconds)
    }
}

private actor OutputBox {
    private(set) var bytes: [UInt8]?
    func set(_ bytes: [UInt8]) { self.bytes = bytes }
}

private struct PerformChain: Sendable {
    var middleware: ArraySlice<any PerformMiddleware>
    let perform: @Sendable () async throws -> Void

    func run(_ context: JobContext) async throws {
        guard let first = middleware.first else { return try await perform() }
        let rest = PerformChain(middleware: middleware.dropFirst(), perform: perform)
        try await first.perform(context) { try await rest.run(context) }
    }
}
