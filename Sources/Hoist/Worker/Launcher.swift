#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Starts jobs in their lanes, and puts what comes of them into the inbox of the worker.
struct Launcher: Sendable {
    let inbox: WorkerInbox
    let clock: any JobClock
    let events: EventStream
    /// The session of the present incarnation.
    let session: SessionBox
    let blockingThreads: ThreadExecutor
    /// Nil when no handler runs in the process lane.
    let children: ChildPool?
    let canCloseQueues: Bool

    /// A job that was taken in.
    struct Job: Sendable {
        var execution: Execution
        var run: WorkerInbox.RunID
        var task: RunningTask
    }

    /// Called from no actor, so that handlers inherit none.
    func launch(_ job: Job) {
        if job.execution.handler.lane == .process, let children { isolate(job, in: children) } else { run(job) }
    }

    private func run(_ job: Job) {
        let (execution, task) = (job.execution, job.task)
        let lane: any TaskExecutor = execution.handler.lane == .blocking ? blockingThreads : globalConcurrentExecutor
        // A task of its own, in no group: it can be cancelled alone, and a handler that does not stop holds up nobody.
        task.set(
            Task(executorPreference: lane) {
                let (startedAt, start) = (clock.now, clock.uptime)
                task.noteStart(startedAt)
                events.tell(.started, of: execution.jobID) { event(.started, of: execution) }
                let end = await execution.run(
                    onContext: { task.set($0, $1) }, onProgress: { report($0, of: job) }, cancel: { task.cancel($0) })
                task.finish()
                finish(job, end, nil, startedAt: startedAt, start: start)
            })
    }

    private func isolate(_ job: Job, in children: ChildPool) {
        let (startedAt, start) = (clock.now, clock.uptime)
        job.execution.isolate(
            in: children, run: job.run, job.task,
            onBegin: {
                job.task.noteStart(clock.now)
                events.tell(.started, of: job.execution.jobID) { event(.started, of: job.execution) }
            },
            onProgress: { report($0, of: job) },
            onEnd: { end, usage in
                // It may have waited for a child.
                let began = usage.map { clock.now.addingTimeInterval(-$0.wallSeconds) } ?? startedAt
                job.task.finish()
                finish(job, end, usage, startedAt: began, start: start)
            })
    }

    /// Tells of the lines in a log that are new.
    func tell(_ log: JobLog, of execution: Execution) {
        events.tell(.progress, of: execution.jobID) { event(.wrote(execution.log.untold(of: log)), of: execution) }
    }

    private func report(_ progress: JobProgress, of job: Job) {
        events.tell(.progress, of: job.execution.jobID) { event(.progressed(progress), of: job.execution) }
        inbox.report(progress, run: job.run)
    }

    private func finish(
        _ job: Job, _ end: Execution.End, _ usage: ResourceUsage?, startedAt: JobDate, start: Int64
    ) {
        let execution = job.execution
        var end = end
        if !canCloseQueues, case .snoozed(_, closesQueue: true) = end.outcome {
            // Not something else in its place, unseen.
            end.outcome = .failed(
                JobFailure(
                    kind: .unsupported, type: "BackendError",
                    message: "the job closes its queue, which this broker cannot do"))
        }
        let (outcome, waited, facts) = (end.outcome, end.waited, end.context?.facts)
        let log = execution.log.take()
        if let log { tell(log, of: execution) }
        events.tellEnd(outcome, of: execution.jobID, named: execution.jobName) {
            let runTime = usage.map { Duration.seconds($0.wallSeconds) } ?? .microseconds(clock.uptime - start)
            let told = JobEvent.End(
                outcome: outcome, startedAt: startedAt, runTime: runTime,
                waitTime: waited.map { .microseconds($0) }, usage: usage, facts: facts, signal: job.task.signal)
            return event(JobEvent.Kind(told), of: execution)
        }
        var settlement = Settlement(
            jobID: execution.jobID, token: execution.token, outcome: outcome, startedAt: startedAt,
            finishedAt: clock.now, facts: facts, usage: usage, log: log)
        settlement.followUps = end.followUps
        inbox.finish(.init(settlement: session.current?.encode(settlement) ?? settlement, run: job.run))
    }

    private func event(_ kind: JobEvent.Kind, of job: Execution) -> JobEvent {
        var event = JobEvent(
            kind, jobID: job.jobID, jobName: job.jobName, queue: job.queue, attempt: job.attempt,
            worker: job.environment.worker, at: clock.now)
        event.lane = job.handler.lane.name
        return event
    }
}
