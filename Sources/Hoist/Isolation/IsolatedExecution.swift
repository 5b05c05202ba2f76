import Logging

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

extension Execution {
    /// Has a child perform the job. Hooks and middleware run there; here it is decided what becomes of a job whose
    /// child did not live to say so.
    /// - Parameter onEnd: called once, with what came of it.
    func isolate(
        in pool: ChildPool, run: WorkerInbox.RunID, _ box: RunningTask,
        onProgress: @escaping @Sendable (JobProgress) -> Void,
        onEnd:
            @escaping @Sendable (_ outcome: Outcome, _ wait: Int64?, _ context: JobContext?, _ usage: ResourceUsage?) ->
            Void
    ) {
        let envelope = takeEnvelope()
        let message: Message
        do throws(WireError) {
            message = try Message(envelope: envelope)
        } catch {
            Task { onEnd(await undecodable(error), nil, nil, nil) }
            return
        }
        let (call, context) = begin(message, onProgress: onProgress)
        box.set(context)
        let backend = environment.jobs.backend
        pool.start(
            ChildPool.Job(
                call: IsolatedCall(
                    run: run, jobID: jobID, jobName: jobName, queue: queue, attempt: attempt, lostWorkers: lostWorkers,
                    limits: call.limits, envelope: envelope),
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
                        onEnd(self.restored(result.outcome), call.waited, context, usage)
                    case .notStarted:
                        onEnd(
                            context.cancellationReason == .requested ? .cancelled : .notStarted, call.waited, context,
                            nil)
                    case .died(let verdict, let exit, let memory, let cpu, let wall):
                        let usage = ResourceUsage(
                            cpuSeconds: Double(cpu) / 1_000_000, wallSeconds: Double(wall) / 1_000_000,
                            peakMemory: memory == 0 ? nil : memory)
                        let outcome = self.outcome(ofDeath: exit, verdict, call, context)
                        self.afterHooks(outcome, context) { onEnd(outcome, call.waited, context, usage) }
                    }
                }))
        box.set { reason in pool.cancel(run, reason) }
    }

    /// Runs the hooks that follow a death here, and goes on when they are done, or after 10 seconds: a hook that hangs
    /// must not keep the slot.
    private func afterHooks(_ outcome: Outcome, _ context: JobContext, _ next: @escaping @Sendable () -> Void) {
        Task {
            try? await withDeadline(.seconds(10), clock: SystemJobClock()) {
                await self.runHooks(after: outcome, context)
            }
            next()
        }
    }

    /// Other arguments are sealed again by whoever has the keys at hand.
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
                    message: "held \(bytes >> 20) MiB and may hold \((call.limits.memory ?? 0) >> 20)",
                    crash: crash(exit)), call)
        case .mute: return afterDeath(crashed("its process was ended: it closed its channel", exit), call)
        case .broken(let what): return afterDeath(crashed("its process was ended: \(what)", exit), call)
        case .crashed, nil: break
        }
        var exit = exit
        if case .crashed(let signal)? = verdict { exit.signal = signal }
        let crash = crash(exit)
        // Far above its limit a job gets no more memory, which is the end of most programs.
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
        return afterDeath(crashed("its process \(how)\(perhaps)", exit), call)
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

    /// The job's own policy decides, unless it has killed too many.
    private func afterDeath(_ failure: JobFailure, _ call: Call) -> Outcome {
        // Nobody knows how far it came.
        if call.isAtMostOnce { return .failed(failure) }
        let deaths = lostWorkers + 1
        guard deaths >= environment.maximumDeaths else { return retryOrFail(failure, call) }
        var failure = failure
        if deaths > 1 { failure.message += "; the job has cost \(deaths) processes or workers, and is not tried again" }
        return .failed(failure)
    }
}

/// What people call a signal.
enum SignalName {
    private static let names: [Int32: String] = [
        SIGILL: "SIGILL", SIGTRAP: "SIGTRAP", SIGABRT: "SIGABRT", SIGBUS: "SIGBUS", SIGFPE: "SIGFPE",
        SIGKILL: "SIGKILL",
        SIGSEGV: "SIGSEGV", SIGTERM: "SIGTERM", SIGINT: "SIGINT", SIGPIPE: "SIGPIPE", SIGSYS: "SIGSYS",
        SIGXCPU: "SIGXCPU",
    ]

    static func name(of signal: Int32) -> String { names[signal] ?? "signal \(signal)" }
}
