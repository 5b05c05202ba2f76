#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
import Logging

/// One attempt at one job, from its bytes to its outcome. Runs in the lane of its handler.
struct Execution: Sendable {
    let delivery: Delivery
    let handle: Handle
    let environment: Environment

    /// What all executions of a worker share.
    struct Environment: Sendable {
        var worker: String
        var jobs: JobClient
        var logger: Logger
        var middleware: [any PerformMiddleware]
        var timeLimits: @Sendable (_ jobName: String) -> Duration?
        var onDeadLetter: (@Sendable (JobID, JobFailure) async -> Void)?
    }

    /// - Parameters:
    ///   - onContext: called once the message is read, before the handler runs.
    ///   - cancel: asks the task of this execution to stop.
    func run(
        onContext: @Sendable (JobContext) -> Void,
        onProgress: @escaping @Sendable (JobProgress) -> Void,
        cancel: @escaping @Sendable (JobContext.CancellationReason) -> Void
    ) async -> (outcome: Outcome, waitMicroseconds: Int64?) {
        let clock = environment.jobs.backend.clock
        let message: Message
        let body: MessageBody
        do throws(WireError) {
            switch delivery.payload {
            case .message(let decoded): message = decoded
            case .envelope(let bytes): message = try Message(envelope: bytes)
            }
            body = try message.decodedBody()
        } catch {
            let failure = JobFailure(kind: .undecodable, type: "WireError", message: error.message)
            await environment.onDeadLetter?(delivery.jobID, failure)
            return (.failed(failure), nil)
        }

        let started = clock.now
        let limits = limits(of: message)
        let context = JobContext(
            message: message, delivery: delivery, deadline: limits.time.map(started.advanced(by:)), worker: environment.worker,
            logger: logger(for: message), jobs: environment.jobs, onProgress: onProgress)
        onContext(context)
        let watch = Watch(context: context, limits: limits, clock: clock, cancel: cancel)
        watch.begin()
        let outcome = await JobContext.$current.withValue(context) {
            await attempt(message, body.arguments, context)
        }
        watch.end()
        let wait = message.headers.hoist.enqueuedAt.map {
            started.microsecondsSinceEpoch - max($0.microsecondsSinceEpoch, message.headers.eta?.microsecondsSinceEpoch ?? 0)
        }
        return (outcome, wait.map { max(0, $0) })
    }

    private func attempt(_ message: Message, _ arguments: Arguments, _ context: JobContext) async -> Outcome {
        for hook in handle.hooks.start { await hook(context) }
        let outcome: Outcome
        do {
            let output = try await JobTracing.performing(message) { try await perform(arguments, context) }
            let retention = message.headers.ignoresResult == true ? 0 : message.headers.hoist.resultRetention
            outcome = .succeeded(output: output, retention: retention)
        } catch {
            outcome = self.outcome(of: error, message, context)
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
        case .retry(_, let failure): for hook in handle.hooks.retry { await hook(context, failure) }
        case .failed(let failure):
            for hook in handle.hooks.failure { await hook(context, failure) }
            await environment.onDeadLetter?(context.id, failure)
        case .snoozed, .cancelled, .expired, .handedBack: break
        }
        for hook in handle.hooks.finish { await hook(context) }
    }

    /// What an error that the handler threw means for the job.
    private func outcome(of error: any Error, _ message: Message, _ context: JobContext) -> Outcome {
        if let directive = error as? JobDirective {
            switch directive.kind {
            case .snooze(let delay): return .snoozed(until: now.advanced(by: delay))
            case .deadLetter(let reason):
                return .failed(JobFailure(kind: .deadLettered, type: "JobDirective", message: reason))
            case .retry(let delay, let reason):
                let failure = JobFailure(kind: .raised, type: "JobDirective", message: reason)
                guard policyDelay(message) != nil else { return .failed(failure) }
                return .retry(at: now.advanced(by: delay), failure)
            }
        }
        switch context.cancellationReason {
        case .requested?: return .cancelled
        case .shutdown?, .leaseLost?: return .handedBack
        case .timeLimit?:
            let limit = limits(of: message).time.map { "\($0)" } ?? "its time limit"
            return retryOrFail(JobFailure(kind: .timedOut, type: "TimeLimitExceeded", message: "ran longer than \(limit)"), message)
        case .noProgress?:
            let limit = limits(of: message).heartbeat.map { "\($0)" } ?? "its heartbeat limit"
            return retryOrFail(JobFailure(kind: .stuck, type: "NoProgress", message: "no sign of progress for \(limit)"), message)
        default: break
        }
        if let error = error as? ArgumentError {
            return .failed(JobFailure(kind: .badArguments, type: "ArgumentError", message: error.description))
        }
        if let failure = error as? JobFailure { return .failed(failure) }
        let failure = JobFailure(kind: .raised, type: String(describing: type(of: error)), message: String(describing: error))
        return handle.options.mayRetry(error) ? retryOrFail(failure, message) : .failed(failure)
    }

    private func retryOrFail(_ failure: JobFailure, _ message: Message) -> Outcome {
        guard let delay = policyDelay(message) else { return .failed(failure) }
        return .retry(at: now.advanced(by: delay), failure)
    }

    private var now: Date { environment.jobs.backend.clock.now }

    private func policyDelay(_ message: Message) -> Duration? {
        let policy = message.headers.hoist.retry ?? handle.options.retry
        let age = message.headers.hoist.enqueuedAt.map { Duration.seconds(now.timeIntervalSince($0)) } ?? .zero
        return policy.nextDelay(afterAttempt: delivery.attempt, age: age, draw: Double.random(in: 0..<1))
    }

    struct Limits {
        var time: Duration?
        var heartbeat: Duration?
    }

    /// The worker's own word wins, then the call's, then the job's. A hard limit counts here as a soft one: code in this process
    /// cannot be stopped by force.
    private func limits(of message: Message) -> Limits {
        let called = [message.headers.softTimeLimit, message.headers.hardTimeLimit].compactMap { $0 }.min()
        let time = environment.timeLimits(message.jobName) ?? called.map { .seconds($0) } ?? handle.options.timeLimit
        let heartbeat = message.headers.hoist.heartbeatLimit.map { Duration.seconds($0) } ?? handle.options.heartbeatLimit
        return Limits(time: time, heartbeat: heartbeat)
    }

    private func logger(for message: Message) -> Logger {
        var logger = environment.logger
        logger[metadataKey: "job.id"] = "\(delivery.jobID)"
        logger[metadataKey: "job.name"] = "\(message.jobName)"
        logger[metadataKey: "job.queue"] = "\(delivery.queue)"
        logger[metadataKey: "job.attempt"] = "\(delivery.attempt)"
        return logger
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
