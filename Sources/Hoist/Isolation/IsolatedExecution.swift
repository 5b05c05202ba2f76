import Logging

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

extension Execution {
    /// Has a child perform the job. Hooks and middleware run in the child; the worker decides here the outcome of a job
    /// whose child died without a result.
    /// - Parameters:
    ///   - onBegin: called when a child begins.
    ///   - onProgress: called with what the handler reports.
    ///   - onEnd: called once, with the outcome.
    func isolate(
        in pool: ChildPool, run: WorkerInbox.RunID, _ box: RunningTask,
        onBegin: @escaping @Sendable () -> Void,
        onProgress: @escaping @Sendable (JobProgress) -> Void,
        onEnd: @escaping @Sendable (_ end: End, _ usage: ResourceUsage?) -> Void
    ) {
        let envelope = takeEnvelope()
        let message: Message
        let continuation: Continuation?
        do throws(WireError) {
            message = try Message(envelope: envelope)
            continuation = try self.continuation(of: message)
        } catch {
            Self.afterwards { onEnd(End(outcome: await self.undecodable(error)), nil) }
            return
        }
        let (call, context) = begin(message, onProgress: onProgress)
        if let continuation, let refusal = refusal(continuation, message.headers) {
            Self.afterwards {
                let end = await self.refuse(refusal, continuation, message, context)
                onEnd(
                    End(outcome: end.outcome, waited: call.waited, context: context, followUps: end.followUps), nil)
            }
            return
        }
        @Sendable func finish(_ outcome: Outcome, _ followUps: FollowUps?, _ usage: ResourceUsage?) {
            onEnd(End(outcome: outcome, waited: call.waited, context: context, followUps: followUps), usage)
        }
        box.set(context, message)
        let backend = environment.jobs.backend
        pool.start(
            ChildPool.Job(
                call: IsolatedCall(
                    run: run, jobID: jobID, jobName: jobName, queue: queue, attempt: attempt, lostWorkers: lostWorkers,
                    limits: call.limits, envelope: envelope),
                onBegin: onBegin,
                onProgress: { progress in
                    context.heartbeat()
                    if let progress { onProgress(progress) }
                }, log: log, onLog: { line in self.take(line) },
                onRequest: { request in await request.answer(from: backend) },
                follow: { id in backend.updates(of: id) },
                onEnd: { end in
                    switch end {
                    case .finished(let result):
                        context.noteChildren(result.children)
                        let usage = ResourceUsage(
                            cpuSeconds: Double(result.cpu) / 1_000_000, wallSeconds: Double(result.wall) / 1_000_000,
                            peakMemory: result.peakMemory)
                        if case .refused(_, let failure) = result.outcome {
                            return self.finishRefused(failure, continuation, context) { finish($0, $1, usage) }
                        }
                        let (outcome, followUps) = self.continued(
                            self.restored(result.outcome), continuation, context)
                        finish(outcome, followUps, usage)
                    case .notStarted:
                        let outcome: Outcome = context.cancellationReason == .requested ? .cancelled : .notStarted
                        finish(
                            outcome, self.followUps(continuation, after: outcome, context.messageHeaders), nil)
                    case .died(let verdict, let exit, let memory, let cpu, let wall):
                        let usage = ResourceUsage(
                            cpuSeconds: Double(cpu) / 1_000_000, wallSeconds: Double(wall) / 1_000_000,
                            peakMemory: memory == 0 ? nil : memory)
                        let outcome = self.outcome(ofDeath: exit, verdict, call, context)
                        let followUps = self.followUps(continuation, after: outcome, context.messageHeaders)
                        self.afterHooks(outcome, context) { finish(outcome, followUps, usage) }
                    }
                }))
        box.set { reason in pool.cancel(run, reason) }
    }

    /// Finishes a job whose arguments the child does not know: when no other worker may know them, it has failed.
    private func finishRefused(
        _ failure: JobFailure, _ continuation: Continuation?, _ context: JobContext,
        _ finish: @escaping @Sendable (Outcome, FollowUps?) -> Void
    ) {
        Self.afterwards {
            let outcome = await self.refused(failure, context)
            let followUps = self.followUps(continuation, after: outcome, context.messageHeaders)
            self.afterHooks(outcome, context) { finish(outcome, followUps) }
        }
    }

    /// What Celery asks for behind the task; nil for nothing.
    private func continuation(of message: Message) throws(WireError) -> Continuation? {
        guard message.mayContinue else { return nil }
        return try Continuation(
            message.opened(with: environment.jobs.configuration.sealing).decodedBody().embed, message.headers)
    }

    /// The outcome of a job that ended in a child, with what follows from it. A success whose next step cannot be
    /// published is none.
    private func continued(
        _ outcome: Outcome, _ continuation: Continuation?, _ context: JobContext
    ) -> (Outcome, FollowUps?) {
        guard case .succeeded(let output, _) = outcome, continuation != nil else {
            return (outcome, followUps(continuation, after: outcome, context.messageHeaders))
        }
        do throws(JobFailure) {
            var plain = output
            if context.isSealed, let sealed = try? JSONParser.parse(output),
                let opened = try? SealedOutput.open(
                    sealed, of: jobID, with: environment.jobs.configuration.sealing)
            {
                plain = JSONWriter.bytes(of: opened)
            }
            return (outcome, try followUps(continuation, output: plain, context))
        } catch {
            let failed = Outcome.failed(error)
            return (failed, followUps(continuation, after: failed, context.messageHeaders))
        }
    }

    /// Runs the hooks after the death of a child, in the worker. Goes on when they are done, or after 10 seconds: a
    /// hook that hangs must not keep the slot.
    private func afterHooks(_ outcome: Outcome, _ context: JobContext, _ next: @escaping @Sendable () -> Void) {
        Self.afterwards {
            try? await withDeadline(.seconds(10), clock: SystemJobClock()) {
                await self.hooks.ended(outcome, context)
            }
            next()
        }
    }

    /// A child sends changed arguments unsealed; the worker, which has the keys, seals them again.
    private func restored(_ outcome: Outcome) -> Outcome {
        guard case .retry(let date, let failure, let change?) = outcome else { return outcome }
        return .retry(
            at: date, failure, change: .arguments(change.arguments, sealing: environment.jobs.configuration.sealing))
    }

    private func take(_ line: LogLine) {
        let isTaken = log.add([LogLine.text(line.message, line.metadata)], source: line.level)
        guard isTaken, let level = Logger.Level(rawValue: line.level) else { return }
        logger.log(
            level: level, "\(line.message.cut(to: 1 << 16))", metadata: line.metadata.mapValues { .string($0) },
            source: line.source)
    }

    /// What the death of its child means for a job.
    private func outcome(
        ofDeath exit: SpawnedProcess.Exit, _ verdict: ChildPoolMachine.Verdict?, _ call: Call, _ context: JobContext
    ) -> Outcome {
        switch context.cancellationReason {
        case .requested?: return .cancelled
        case .shutdown?, .leaseLost?: return .handedBack
        default: break
        }
        switch verdict {
        case .ignoredCancellation: return .cancelled
        case .timedOut:
            let limit = call.limits.hardTime.map { "\($0)" } ?? "its hard time limit"
            return retryOrFail(
                JobFailure(kind: .timedOut, type: "TimeLimitExceeded", message: "was stopped after \(limit)"), call)
        case .stuck:
            let limit = call.limits.heartbeat.map { "\($0)" } ?? "its heartbeat limit"
            return retryOrFail(
                JobFailure(
                    kind: .stuck, type: "NoProgress", message: "no sign of progress for \(limit), and it was stopped"),
                call)
        case .memoryExceeded(let bytes):
            return afterDeath(
                JobFailure(
                    kind: .memoryExceeded, type: "MemoryExceeded",
                    message: "held \(bytes >> 20) MiB and may hold \((call.limits.memory?.bytes ?? 0) >> 20)",
                    crash: crash(exit)), call)
        case .mute: return afterDeath(crashed("its process was ended: it closed its channel", exit), call)
        case .broken(let what): return afterDeath(crashed("its process was ended: \(what)", exit), call)
        case .crashed, nil: break
        }
        var exit = exit
        if case .crashed(let signal)? = verdict { exit.signal = signal }
        let crash = crash(exit)
        // Far above its limit a job gets no more memory, and most programs end then.
        if call.limits.memory != nil,
            crash.lastLines.contains(where: {
                $0.contains("failed to allocate") || $0.contains("ould not allocate memory")
            })
        {
            return afterDeath(
                JobFailure(
                    kind: .memoryExceeded, type: "MemoryExceeded", message: "asked for more memory than it may hold",
                    crash: crash), call)
        }
        let how = exit.signal.map { "was killed by \(SignalName.name(of: $0))" } ?? "ended with status \(exit.status)"
        let perhaps =
            exit.signal == SIGKILL && verdict == nil ? "; when nobody did that, the machine ran out of memory" : ""
        return afterDeath(crashed("\(Self.lastWords(crash.lastLines))its process \(how)\(perhaps)", exit), call)
    }

    /// What Swift's runtime said before it ended the process, as the beginning of a sentence; empty for nothing.
    static func lastWords(_ lines: [String]) -> String {
        let marks = ["Fatal error: ", "Precondition failed: ", "Assertion failed: "]
        for line in lines.reversed() {
            for mark in marks {
                guard let start = line.ranges(of: mark).first?.lowerBound else { continue }
                return String(line[start...]).cut(to: 500) + "; "
            }
        }
        return ""
    }

    private func crashed(_ message: String, _ exit: SpawnedProcess.Exit) -> JobFailure {
        JobFailure(kind: .crashed, type: "Crashed", message: message, crash: crash(exit))
    }

    private func crash(_ exit: SpawnedProcess.Exit) -> JobFailure.Crash {
        let (lines, backtrace) = log.lastWords()
        return JobFailure.Crash(
            signal: exit.signal.map { Int($0) }, status: exit.signal == nil ? Int(exit.status) : nil,
            lastLines: lines.map { $0.cut(to: 500) }, backtrace: backtrace)
    }

    /// The job's retry policy decides, unless the job has cost too many processes or workers.
    private func afterDeath(_ failure: JobFailure, _ call: Call) -> Outcome {
        // It is unknown how far the job came.
        if call.isAtMostOnce { return .failed(failure) }
        let deaths = lostWorkers + 1
        guard deaths >= environment.maximumDeaths else { return retryOrFail(failure, call) }
        var failure = failure
        if deaths > 1 { failure.message += "; the job has cost \(deaths) processes or workers, and is not tried again" }
        return .failed(failure)
    }
}

/// The usual names of signals.
enum SignalName {
    private static let names: [Int32: String] = [
        SIGILL: "SIGILL", SIGTRAP: "SIGTRAP", SIGABRT: "SIGABRT", SIGBUS: "SIGBUS", SIGFPE: "SIGFPE",
        SIGKILL: "SIGKILL",
        SIGSEGV: "SIGSEGV", SIGTERM: "SIGTERM", SIGINT: "SIGINT", SIGPIPE: "SIGPIPE", SIGSYS: "SIGSYS",
        SIGXCPU: "SIGXCPU",
    ]

    static func name(of signal: Int32) -> String { names[signal] ?? "signal \(signal)" }
}
