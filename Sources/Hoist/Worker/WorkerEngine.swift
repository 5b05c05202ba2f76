#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
import Logging
import Synchronization

/// The heart of a worker: keeps its slots, exchanges finished jobs for new ones, renews its lease.
///
/// It runs on a thread of its own. Whatever handlers do to Swift's cooperative threads, leases are renewed and jobs settled.
actor WorkerEngine {
    private struct Running {
        var delivery: Delivery
        var handle: Handle
        var run: WorkerInbox.RunID
        var task: RunningTask
    }

    private let executor = ThreadExecutor(name: "hoist-worker")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let backend: any Backend
    private let queues: [QueueSubscription]
    private let slots: [LaneKind: Int]
    private let handles: [String: Handle]
    private let namesByLane: [(lane: LaneKind, names: [String])]
    private let configuration: Worker.Configuration
    private let logger: Logger
    private let inbox: WorkerInbox
    private let metrics: WorkerMetrics
    private let blockingThreads: ThreadExecutor
    private let environment: Execution.Environment

    private var presence: WorkerPresence
    private var running: [JobID: Running] = [:]
    private var nextRun: WorkerInbox.RunID = 0
    private var unsettled: [WorkerInbox.Finished] = []
    private var mayHaveWork = true
    private var nextDue: Date?
    private var stop: Worker.StopMode?
    private var drainDeadline: Int64?
    private var isAlive = false
    private var isConsuming = false
    private var failures = 0

    init(
        backend: any Backend, queues: [QueueSubscription], lanes: [Lane], handles: [Handle], configuration: Worker.Configuration,
        logger: Logger, inbox: WorkerInbox, timeLimits: @escaping @Sendable (String) -> Duration?
    ) throws(WorkerError) {
        var byName: [String: Handle] = [:]
        for handle in handles {
            for name in handle.names {
                guard byName.updateValue(handle, forKey: name) == nil else {
                    throw WorkerError(message: "two handlers are registered for the job name \(name)")
                }
            }
        }
        guard !queues.isEmpty else { throw WorkerError(message: "the worker has no queue to consume") }
        guard Set(queues.map(\.name)).count == queues.count else { throw WorkerError(message: "a queue is named twice") }
        let used = Set(handles.map(\.lane))
        var slots: [LaneKind: Int] = [:]
        for lane in used {
            slots[lane] = lanes.last { $0.kind == lane }?.slots ?? (lane == .blocking ? 4 : 64)
        }
        self.backend = backend
        self.queues = queues
        self.slots = slots
        self.handles = byName
        namesByLane = used.sorted { $0.name < $1.name }.map { lane in
            (lane, byName.filter { $0.value.lane == lane }.keys.sorted())
        }
        self.configuration = configuration
        self.logger = logger
        self.inbox = inbox
        metrics = WorkerMetrics(factory: configuration.metrics)
        blockingThreads = ThreadExecutor(name: "hoist-blocking", threadCount: slots[.blocking] ?? 1)
        let name = configuration.name ?? ProcessIdentity.name
        environment = Execution.Environment(
            worker: name, jobs: JobClient(backend, configuration: configuration.client, logger: logger), logger: logger,
            middleware: configuration.middleware, timeLimits: timeLimits, onDeadLetter: configuration.onDeadLetter)
        presence = WorkerPresence(
            id: JobIdentifier.make(), name: name, queues: queues.map(\.name), jobNames: byName.keys.sorted(),
            startedAt: backend.clock.now, concurrency: slots.values.reduce(0, +))
    }

    /// Runs with the engine's thread as the preferred executor, so that nothing on the way hops to a cooperative thread.
    nonisolated func run() async {
        await withTaskExecutorPreference(executor) { await self.start() }
        executor.close()
    }

    private func start() async {
        let listening = backend.workDoorbell.listen { [inbox] in inbox.noteWork() }
        await renewUntilAlive()
        logger.info("worker started", metadata: ["worker": "\(presence.name)", "queues": "\(presence.queues.joined(separator: ", "))"])
        let keeper = Task(executorPreference: executor) { await self.keepLease() }
        await work()
        keeper.cancel()
        await keeper.value
        listening.cancel()
        await attempt("leave") { try await self.backend.resign(self.presence.id) }
        isAlive = false
        isConsuming = false
        publishHealth()
        blockingThreads.close()
        logger.info("worker stopped", metadata: ["worker": "\(presence.name)"])
    }

    // MARK: - The loop

    private func work() async {
        while true {
            let mark = inbox.bell.mark
            takeInbox()
            if await drain() { return }
            let request = makeExchange()
            if request.settlements.isEmpty, request.progress.isEmpty, request.claims.isEmpty {
                if isBurstOver { return }
                await inbox.bell.wait(after: mark, for: idleLimit, clock: backend.clock)
                noteDueJobs()
                continue
            }
            await exchange(request)
        }
    }

    private func takeInbox() {
        let contents = inbox.take()
        if contents.mayHaveWork { mayHaveWork = true }
        if let stop = contents.stop, stop != self.stop { begin(stop) }
        for finished in contents.finished {
            guard let job = running[finished.settlement.jobID], job.run == finished.run else { continue }
            if isFull(job) { mayHaveWork = true }
            running[finished.settlement.jobID] = nil
            unsettled.append(finished)
        }
        for (run, progress) in contents.progress { pendingProgress[run] = progress }
    }

    private var pendingProgress: [WorkerInbox.RunID: JobProgress] = [:]

    /// Whether this job held the last slot of its lane or queue: only then can its end make room that there was not.
    private func isFull(_ job: Running) -> Bool {
        let budget = budget()
        return budget.available(to: Claim(queue: job.delivery.queue, lane: job.handle.lane.name, jobNames: [])) == 0
    }

    private func budget() -> ClaimBudget {
        var budget = ClaimBudget(
            lanes: Dictionary(uniqueKeysWithValues: slots.map { ($0.key.name, $0.value) }),
            queues: Dictionary(uniqueKeysWithValues: queues.compactMap { queue in queue.concurrency.map { (queue.name, $0) } }))
        for job in running.values {
            budget.spend(1, on: Claim(queue: job.delivery.queue, lane: job.handle.lane.name, jobNames: []))
        }
        return budget
    }

    private func makeExchange() -> Exchange {
        var request = Exchange(worker: presence.id, settlements: unsettled.map(\.settlement))
        for job in running.values {
            guard let progress = pendingProgress[job.run] else { continue }
            request.progress.append(ProgressReport(jobID: job.delivery.jobID, token: job.delivery.token, progress: progress))
        }
        pendingProgress.removeAll()
        guard mayHaveWork, stop == nil else { return request }
        request.budget = budget()
        for queue in configuration.order.arrange(queues) {
            for (lane, names) in namesByLane {
                let claim = Claim(queue: queue.name, lane: lane.name, jobNames: names)
                if request.budget.available(to: claim) > 0 { request.claims.append(claim) }
            }
        }
        return request
    }

    private func exchange(_ request: Exchange) async {
        let settling = unsettled
        unsettled = []
        if !request.claims.isEmpty { mayHaveWork = false }
        do {
            let result = try await backend.exchange(request)
            failures = 0
            isConsuming = stop == nil
            presence.lastConsumedAt = backend.clock.now
            if result.hasMore { mayHaveWork = true }
            if !request.claims.isEmpty { nextDue = result.nextDue }
            for id in result.lost {
                logger.info("a finish was refused: another worker has the job", metadata: ["job.id": "\(id)"])
                abandon(id)
            }
            for id in result.cancellations { cancel(id, .requested) }
            for delivery in result.deliveries { start(delivery) }
            publishHealth()
        } catch {
            // Nothing was settled: the settlements are kept and tried again, for as long as it takes.
            unsettled = settling + unsettled
            mayHaveWork = true
            isConsuming = false
            publishHealth()
            await backOff(after: error, from: "exchange finished jobs for new ones")
        }
    }

    /// How long the worker may sleep when nothing rings.
    private var idleLimit: Duration? {
        var limit: Duration?
        if let nextDue, stop == nil {
            limit = .seconds(max(0, nextDue.timeIntervalSince(backend.clock.now)))
        }
        if let drainDeadline {
            let left = Duration.microseconds(max(0, drainDeadline - backend.clock.uptime))
            limit = min(limit ?? left, left)
        }
        return limit
    }

    private func noteDueJobs() {
        guard let nextDue, nextDue <= backend.clock.now else { return }
        mayHaveWork = true
        self.nextDue = nil
    }

    private var isBurstOver: Bool {
        configuration.isBurst && running.isEmpty && unsettled.isEmpty && !mayHaveWork
            && (nextDue == nil || configuration.burstLeavesDelayedJobs)
    }

    // MARK: - Jobs

    private func start(_ delivery: Delivery) {
        guard let handle = handles[delivery.jobName] else {
            logger.error("the backend delivered a job that was not asked for", metadata: ["job.name": "\(delivery.jobName)"])
            return
        }
        nextRun += 1
        let run = nextRun
        let box = RunningTask()
        let task = launch(Execution(delivery: delivery, handle: handle, environment: environment), run: run, box)
        box.set(task)
        running[delivery.jobID] = Running(delivery: delivery, handle: handle, run: run, task: box)
    }

    /// Starts a job in its lane. Nonisolated, so that nothing of it runs on the engine's own thread.
    private nonisolated func launch(
        _ execution: Execution, run: WorkerInbox.RunID, _ box: RunningTask
    ) -> Task<Void, Never> {
        let lane: any TaskExecutor = execution.handle.lane == .blocking ? blockingThreads : globalConcurrentExecutor
        let (inbox, metrics, clock) = (inbox, metrics, backend.clock)
        return Task(executorPreference: lane) {
            let delivery = execution.delivery
            let (startedAt, start) = (clock.now, clock.uptime)
            let (outcome, wait) = await execution.run(
                onContext: { box.set($0) }, onProgress: { inbox.report($0, run: run) }, cancel: { box.cancel($0) })
            metrics.finished(
                queue: delivery.queue, job: delivery.jobName, outcome: outcome.label, runMicroseconds: clock.uptime - start,
                waitMicroseconds: wait)
            execution.log(outcome)
            let settlement = Settlement(
                jobID: delivery.jobID, token: delivery.token, outcome: outcome, startedAt: startedAt, finishedAt: clock.now)
            inbox.finish(.init(settlement: settlement, run: run))
        }
    }

    private func cancel(_ id: JobID, _ reason: JobContext.CancellationReason) {
        running[id]?.task.cancel(reason)
    }

    /// Stops a job that is no longer ours, and forgets what it returns.
    private func abandon(_ id: JobID) {
        cancel(id, .leaseLost)
        running[id] = nil
        mayHaveWork = true
    }

    // MARK: - Stopping

    private func begin(_ mode: Worker.StopMode) {
        stop = mode
        presence.isDraining = true
        isConsuming = false
        switch mode {
        case .drain: drainDeadline = backend.clock.uptime + configuration.drainTimeout.inMicroseconds
        case .immediately: drainDeadline = backend.clock.uptime
        default: break
        }
        logger.info("worker takes no more jobs", metadata: ["running": "\(running.count)"])
    }

    /// - Returns: true when the worker is done: everything settled, or handed back.
    private func drain() async -> Bool {
        guard stop != nil else { return false }
        if running.isEmpty, unsettled.isEmpty { return true }
        guard let drainDeadline, backend.clock.uptime >= drainDeadline else { return false }
        logger.info("handing unfinished jobs back", metadata: ["jobs": "\(running.count)"])
        for id in running.keys { cancel(id, .shutdown) }
        // Most handlers end at once when they are cancelled; nobody waits for those that do not.
        let graceEnd = backend.clock.uptime + 500_000
        while !running.isEmpty, backend.clock.uptime < graceEnd {
            let mark = inbox.bell.mark
            takeInbox()
            if running.isEmpty { break }
            await inbox.bell.wait(after: mark, for: .microseconds(graceEnd - backend.clock.uptime), clock: backend.clock)
        }
        let now = backend.clock.now
        for job in running.values {
            let settlement = Settlement(
                jobID: job.delivery.jobID, token: job.delivery.token, outcome: .handedBack, startedAt: now, finishedAt: now)
            unsettled.append(.init(settlement: settlement, run: job.run))
        }
        running.removeAll()
        let request = Exchange(worker: presence.id, settlements: unsettled.map(\.settlement))
        await attempt("hand unfinished jobs back") { _ = try await self.backend.exchange(request) }
        unsettled = []
        return true
    }

    // MARK: - The lease

    private func renewUntilAlive() async {
        while stop == nil {
            do {
                isAlive = try await backend.renew(presence, lease: configuration.lease)
                if isAlive { return publishHealth() }
                newIncarnation()
            } catch {
                await backOff(after: error, from: "announce itself")
                takeInbox()
            }
        }
    }

    private func keepLease() async {
        let interval = Duration.microseconds(configuration.lease.inMicroseconds / 5)
        while !Task.isCancelled {
            await backend.clock.sleep(for: interval)
            if Task.isCancelled { return }
            presence.running = running.count
            do {
                if try await backend.renew(presence, lease: configuration.lease) {
                    isAlive = true
                } else {
                    loseLease()
                }
            } catch {
                isAlive = false
                logger.warning("the lease could not be renewed", metadata: ["error": "\(error)"])
            }
            publishHealth()
        }
    }

    /// The worker was away for longer than its lease: what it runs belongs to others now.
    private func loseLease() {
        logger.warning("the lease was lost: running jobs are stopped, their results refused", metadata: ["jobs": "\(running.count)"])
        metrics.leaseLost()
        for id in Array(running.keys) { abandon(id) }
        unsettled = []
        newIncarnation()
        mayHaveWork = true
        inbox.bell.ring()
    }

    private func newIncarnation() { presence.id = JobIdentifier.make() }

    // MARK: - Small things

    private func backOff(after error: any Error, from what: String) async {
        failures += 1
        logger.warning("the worker could not \(what); it tries again", metadata: ["error": "\(error)", "failures": "\(failures)"])
        let delay = Duration.milliseconds(min(5000, 50 << min(failures, 7)))
        await backend.clock.sleep(for: delay)
    }

    private func attempt(_ what: String, _ body: () async throws -> Void) async {
        for _ in 0..<5 {
            do {
                return try await body()
            } catch {
                await backOff(after: error, from: what)
            }
        }
    }

    private func publishHealth() {
        inbox.health = WorkerHealth(
            isAlive: isAlive, isConsuming: isConsuming, running: running.count, concurrency: presence.concurrency)
    }
}

/// The task of a run, and its context once the message was read. A cancellation may come before either, and from any thread.
private final class RunningTask: Sendable {
    private struct State {
        var task: Task<Void, Never>?
        var context: JobContext?
        var reason: JobContext.CancellationReason?
    }

    private let state = Mutex(State())

    func set(_ task: Task<Void, Never>) {
        let isCancelled = state.withLock { state in
            state.task = task
            return state.reason != nil
        }
        if isCancelled { task.cancel() }
    }

    func set(_ context: JobContext) {
        let reason = state.withLock { state in
            state.context = context
            return state.reason
        }
        if let reason { context.noteCancellation(reason) }
    }

    func cancel(_ reason: JobContext.CancellationReason) {
        let (task, context) = state.withLock { state in
            state.reason = state.reason ?? reason
            return (state.task, state.context)
        }
        context?.noteCancellation(reason)
        task?.cancel()
    }
}

extension Execution {
    func log(_ outcome: Outcome) {
        let job: Logger.Metadata = [
            "job.id": "\(delivery.jobID)", "job.name": "\(delivery.jobName)", "job.queue": "\(delivery.queue)",
            "job.attempt": "\(delivery.attempt)",
        ]
        switch outcome {
        case .failed(let failure):
            environment.logger.warning("job failed for good", metadata: job.merging(["error": "\(failure)"]) { $1 })
        case .retry(let date, let failure):
            environment.logger.info(
                "job failed and will be retried", metadata: job.merging(["error": "\(failure)", "at": "\(date)"]) { $1 })
        default:
            environment.logger.debug("job \(outcome.label)", metadata: job)
        }
    }
}
