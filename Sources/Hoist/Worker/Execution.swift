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
    let handle: RegisteredHandle
    let environment: Environment
    /// Given up once it is read: ten thousand jobs may be under way, and wait for something else.
    private let payload: Mutex<Delivery.Payload?>

    /// What all executions of a worker share.
    final class Environment: Sendable {
        let worker: String
        let isAddressable: Bool
        let jobs: JobClient
        let logger: Logger
        let middleware: [any PerformMiddleware]
        let timeLimits: @Sendable (_ jobName: String) -> Duration?
        let onDeadLetter: (@Sendable (JobID, JobFailure) async -> Void)?

        init(
            worker: String, isAddressable: Bool, jobs: JobClient, logger: Logger, middleware: [any PerformMiddleware],
            timeLimits: @escaping @Sendable (_ jobName: String) -> Duration?,
            onDeadLetter: (@Sendable (JobID, JobFailure) async -> Void)?
        ) {
            self.worker = worker
            self.isAddressable = isAddressable
            self.jobs = jobs
            self.logger = logger
            self.middleware = middleware
            self.timeLimits = timeLimits
            self.onDeadLetter = onDeadLetter
        }
    }

    init(_ delivery: Delivery, _ handle: RegisteredHandle, _ environment: Environment) {
        jobID = delivery.jobID
        jobName = delivery.jobName
        queue = delivery.queue
        attempt = delivery.attempt
        lostWorkers = delivery.lostWorkers
        token = delivery.token
        payload = Mutex(delivery.payload)
        self.handle = handle
        self.environment = environment
    }

    /// What of a message outlives its reading.
    private struct Call: Sendable {
        var retry: RetryPolicy?
        var enqueuedAt: Date?
        var retention: Double?
        var limits: Limits
        var waited: Int64?
    }

    struct Limits {
        var time: Duration?
        var heartbeat: Duration?
    }

    /// - Parameters:
    ///   - onContext: called once the message is read, before the handler runs.
    ///   - cancel: asks the task of this execution to stop.
    func run(
        onContext: @Sendable (JobContext) -> Void,
        onProgress: @escaping @Sendable (JobProgress) -> Void,
        cancel: @escaping @Sendable (JobContext.CancellationReason) -> Void
    ) async -> (outcome: Outcome, waitMicroseconds: Int64?, context: JobContext?) {
        switch read(onProgress: onProgress) {
        case .failure(let error):
            let failure = JobFailure(kind: .undecodable, type: "WireError", message: error.message)
            await environment.onDeadLetter?(jobID, failure)
            return (.failed(failure), nil, nil)
        case .success(let (call, arguments, context)):
            onContext(context)
            let watch = Watch(context: context, limits: call.limits, clock: clock, cancel: cancel)
            watch.begin()
            let outcome = await JobContext.$current.withValue(context) { await attempt(call, arguments, context) }
            watch.end()
            return (outcome, call.waited, context)
        }
    }

    private var clock: any JobClock { environment.jobs.backend.clock }
    private var now: Date { clock.now }

    private func read(
        onProgress: @escaping @Sendable (JobProgress) -> Void
    ) -> Result<(Call, Arguments, JobContext), WireError> {
        do throws(WireError) {
            let message: Message
            switch payload.withLock({ $0.take() }) {
            case .message(let decoded)?: message = decoded
            case .envelope(let bytes)?: message = try Message(envelope: bytes)
            case nil: throw WireError("the message was read already")
            }
            let sealing = environment.jobs.configuration.sealing
            let arguments = try message.opened(with: sealing).decodedBody().arguments
            let started = now
            let limits = limits(of: message)
            let readyAt = max(
                message.headers.hoist.enqueuedAt?.microsecondsSinceEpoch ?? .max, message.headers.eta?.microsecondsSinceEpoch ?? .min)
            let call = Call(
                retry: message.headers.hoist.retry, enqueuedAt: message.headers.hoist.enqueuedAt,
                retention: ignoresResult(message.headers) ? 0 : message.headers.hoist.resultRetention, limits: limits,
                waited: readyAt == .max ? nil : max(0, started.microsecondsSinceEpoch - readyAt))
            let context = JobContext(
                message: message, execution: self, deadline: limits.time.map(started.advanced(by:)),
                ignoresResult: ignoresResult(message.headers), onProgress: onProgress)
            return .success((call, arguments, context))
        } catch {
            return .failure(error)
        }
    }

    /// The call's word wins; a producer that has none leaves it to the job.
    private func ignoresResult(_ headers: MessageHeaders) -> Bool {
        headers.ignoresResult ?? (handle.options.result.kind == .ignored)
    }

    private func attempt(_ call: Call, _ arguments: Arguments, _ context: JobContext) async -> Outcome {
        for hook in handle.hooks.start { await hook(context) }
        let outcome: Outcome
        do {
            var output = try await JobTracing.performing(context) { try await perform(arguments, context) }
            if let sealing = environment.jobs.configuration.sealing, context.isSealed {
                output = try SealedOutput.seal(output, of: jobID, with: sealing)
            }
            outcome = .succeeded(output: output, retention: call.retention)
        } catch {
            outcome = self.outcome(of: error, call, context)
        }
        await runHooks(after: outcome, context)
        return outcome
    }

    private func perform(_ arguments: Arguments, _ context: JobContext) async throws -> [UInt8] {
        guard !environment.middleware.isEmpty else { return try await handle.perform(arguments, context) }
        let output = OutputBox()
        try await PerformChain(middleware: environment.middleware[...]) { [handle] in
            await output.set(try await handle.perform(arguments, context))
        }.run(context)
        guard let bytes = await output.bytes else {
            throw JobFailure(kind: .raised, type: "PerformMiddleware", message: "a middleware did not perform the job")
        }
        return bytes
    }

    private func runHooks(after outcome: Outcome, _ context: JobContext) async {
        switch outcome {
        case .succeeded: for hook in handle.hooks.success { await hook(context) }
        case .retry(_, let failure, _): for hook in handle.hooks.retry { await hook(context, failure) }
        case .failed(let failure):
            for hook in handle.hooks.failure { await hook(context, failure) }
            await environment.onDeadLetter?(context.id, failure)
        case .snoozed, .cancelled, .expired, .handedBack: break
        }
        for hook in handle.hooks.finish { await hook(context) }
    }

    /// What an error that the handler threw means for the job.
    private func outcome(of error: any Error, _ call: Call, _ context: JobContext) -> Outcome {
        if let directive = error as? JobDirective { return outcome(of: directive, call) }
        switch context.cancellationReason {
        case .requested?: return .cancelled
        case .shutdown?, .leaseLost?: return .handedBack
        case .timeLimit?:
            let limit = call.limits.time.map { "\($0)" } ?? "its time limit"
            return retryOrFail(JobFailure(kind: .timedOut, type: "TimeLimitExceeded", message: "ran longer than \(limit)"), call)
        case .noProgress?:
            let limit = call.limits.heartbeat.map { "\($0)" } ?? "its heartbeat limit"
            return retryOrFail(JobFailure(kind: .stuck, type: "NoProgress", message: "no sign of progress for \(limit)"), call)
        default: break
        }
        if let error = error as? ArgumentError {
            return .failed(JobFailure(kind: .badArguments, type: "ArgumentError", message: error.description))
        }
        if let failure = error as? JobFailure { return .failed(failure) }
        let failure = JobFailure(raised: error)
        return handle.options.mayRetry(error) ? retryOrFail(failure, call) : .failed(failure)
    }

    private func outcome(of directive: JobDirective, _ call: Call) -> Outcome {
        switch directive.kind {
        case .snooze(let delay, let closesQueue): return .snoozed(until: now.advanced(by: delay), closesQueue: closesQueue)
        case .deadLetter(let reason):
            return .failed(JobFailure(kind: .deadLettered, type: "JobDirective", message: reason))
        case .retry(let delay, let failure, let arguments, let maxAttempts):
            let isAllowed = maxAttempts.map { attempt < $0 } ?? (policyDelay(call) != nil)
            let change = arguments.map { MessageChange.arguments($0, sealing: environment.jobs.configuration.sealing) }
            return isAllowed ? .retry(at: now.advanced(by: delay), failure, change: change) : .failed(failure)
        }
    }

    private func retryOrFail(_ failure: JobFailure, _ call: Call) -> Outcome {
        guard let delay = policyDelay(call) else { return .failed(failure) }
        return .retry(at: now.advanced(by: delay), failure)
    }

    private func policyDelay(_ call: Call) -> Duration? {
        let age = call.enqueuedAt.map { Duration(boundedSeconds: now.timeIntervalSince($0)) } ?? .zero
        return (call.retry ?? handle.options.retry).nextDelay(afterAttempt: attempt, age: age, draw: Double.random(in: 0..<1))
    }

    /// The worker's own word wins, then the call's, then the job's. A hard limit counts here as a soft one: code in this process
    /// cannot be stopped by force.
    private func limits(of message: Message) -> Limits {
        let called = [message.headers.softTimeLimit, message.headers.hardTimeLimit].compactMap { $0 }.min()
        let time = environment.timeLimits(message.jobName) ?? called.flatMap(Duration.init(wireSeconds:)) ?? handle.options.timeLimit
        let heartbeat = message.headers.hoist.heartbeatLimit.flatMap(Duration.init(wireSeconds:)) ?? handle.options.heartbeatLimit
        return Limits(time: time, heartbeat: heartbeat)
    }

    /// A logger that carries the job.
    var logger: Logger {
        var logger = environment.logger
        logger[metadataKey: "job.id"] = "\(jobID)"
        logger[metadataKey: "job.name"] = "\(jobName)"
        logger[metadataKey: "job.queue"] = "\(queue)"
        logger[metadataKey: "job.attempt"] = "\(attempt)"
        return logger
    }

    func log(_ outcome: Outcome) {
        switch outcome {
        case .failed(let failure): logger.warning("job failed for good", metadata: ["error": "\(failure)"])
        case .retry(let date, let failure, _):
            logger.info("job failed and will be retried", metadata: ["error": "\(failure)", "at": "\(date)"])
        default:
            if environment.logger.logLevel <= .debug { logger.debug("job \(outcome.label)") }
        }
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
