#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
import Logging
import Synchronization

/// The heart of a worker: keeps its slots, turns finished jobs for new ones, renews its lease.
///
/// It runs on a thread of its own. Whatever handlers do to Swift's cooperative threads, leases are renewed and jobs
/// settled.
actor WorkerEngine {
    /// A job under way.
    private struct Running {
        var jobID: JobID
        var token: Int64
        var queue: String
        var needs: SlotNeeds
        var task: RunningTask
        var log: JobLogRecorder
    }

    /// The backend's own thread where it has one, so that nothing on the way to it changes threads.
    private let executor: any TaskExecutor
    private let serialExecutor: any SerialExecutor
    nonisolated var unownedExecutor: UnownedSerialExecutor { serialExecutor.asUnownedSerialExecutor() }
    /// Where the backend has none.
    private let ownThread: ThreadExecutor?

    private let backend: Backend
    /// The session of the present incarnation, also for the threads of jobs.
    private let session = SessionBox()
    private let queues: [QueueSubscription]
    private let handlers: [String: RegisteredHandler]
    /// The names of jobs by what they take of the worker.
    private let kinds: [(needs: SlotNeeds, names: [String])]
    private let limits: [LimitTarget: [JobLimit]]
    /// The name that a kind of job has limits under, by alias.
    private let aliases: [String: String]
    private let findsPartition: Claim.PartitionFinder?
    private let configuration: Worker.Configuration
    private let logger: Logger
    private let inbox: WorkerInbox
    private let metrics: WorkerMetrics
    private let blockingThreads: ThreadExecutor
    /// Nil when no handler runs in the process lane.
    private let children: ChildPool?
    private let environment: Execution.Environment

    private var presence: WorkerPresence
    private var running: [WorkerInbox.RunID: Running] = [:]
    private var slots: SlotLedger
    /// Jobs that were claimed and wait for slots.
    private var notStarted: [WorkerInbox.RunID: Admitted] = [:]
    private var scalers: [LaneKind: LaneScaler] = [:]
    private var ahead = ClaimAhead()
    private var nextRun: WorkerInbox.RunID = 0
    private var unsettled: [Settlement] = []
    private var mayHaveWork = true
    private var mustLook = false
    /// Set when an answer got lost: the backend may think that we hold jobs which we never heard of.
    private var mustReconcile = false
    private var nextDue: Date?
    /// Of this incarnation.
    private var arrivalsSeen = 0
    /// Whether claims may be left with the backend. Not of kinds that take slots or resources from one another, for
    /// only a turn knows what each has left; and not for children, whose number of jobs at hand changes with how long
    /// they take.
    private let creditMayLast: Bool
    /// Set when claims that wait are for more than there is room for now.
    private var mustWithdraw = false
    private var stop: Worker.StopMode?
    private var drainDeadline: Int64?
    private var isAlive = false
    private var isConsuming = false
    private var failures = 0

    init(
        backend: Backend, queues: [QueueSubscription], lanes: [Lane], handlers: [Handler],
        configuration: Worker.Configuration,
        logger: Logger, inbox: WorkerInbox, liveLimits: @escaping @Sendable (String) -> RunLimits
    ) throws(WorkerError) {
        var byName: [String: RegisteredHandler] = [:]
        for handler in handlers {
            try handler.check(handler.options.runLimits)
            let registered = RegisteredHandler(handler)
            for name in handler.names {
                guard byName.updateValue(registered, forKey: name) == nil else {
                    throw WorkerError(message: "two handlers are registered for the job name \(name)")
                }
            }
        }
        guard !queues.isEmpty else { throw WorkerError(message: "the worker has no queue to consume") }
        guard Set(queues.map(\.name)).count == queues.count else {
            throw WorkerError(message: "a queue is named twice")
        }
        limits = Self.limits(of: queues, handlers)
        aliases = Dictionary(handlers.flatMap { handler in handler.names.dropFirst().map { ($0, handler.names[0]) } }) {
            first, _ in first
        }
        if backend.limits == nil, let target = limits.first(where: { !$0.value.isEmpty })?.key {
            throw WorkerError(message: "the \(target) has limits, and this backend cannot keep any; Redis can")
        }
        try Self.checkRouting(configuration, queues, backend)
        let name = configuration.name ?? ProcessIdentity.name
        let queues = Self.consumed(queues, by: name, configuration)
        guard Set(queues.map(\.name)).count == queues.count else {
            throw WorkerError(
                message: "a queue is named that is the part of another for the worker's labels, or the worker's own")
        }
        let used = Set(handlers.map(\.lane))
        var slots: [LaneKind: Int] = [:]
        for lane in used {
            let asked = lanes.last { $0.kind == lane }
            slots[lane] = asked?.slots ?? lane.defaultSlots
            if let range = asked?.range, range.count > 1 {
                scalers[lane] = LaneScaler(range, configuration.autoscaling)
            }
        }
        try Self.checkNeeds(handlers, slots: slots, lanes: lanes, resources: configuration.resources)
        self.backend = backend
        if let threads = backend.broker.threads {
            (executor, serialExecutor, ownThread) = (threads.tasks, threads.actors, nil)
        } else {
            let thread = ThreadExecutor(name: "hoist-worker")
            (executor, serialExecutor, ownThread) = (thread, thread, thread)
        }
        self.queues = queues
        self.handlers = byName
        kinds = Dictionary(grouping: byName.keys.sorted()) { byName[$0]!.needs }.map { ($0.key, $0.value) }
            .sorted { $0.needs.budgetName < $1.needs.budgetName }
        // A worker that ends when its queues are empty waits for nothing.
        creditMayLast =
            !configuration.isBurst && !used.contains(.process) && Self.areIndependent(Set(byName.values.map(\.needs)))
        // A person may set limits for any job, so that it must be known for all of them what they belong to.
        findsPartition = backend.limits != nil ? Self.partitionFinder(byName, configuration.client.sealing) : nil
        self.configuration = configuration
        self.logger = logger
        self.inbox = inbox
        self.slots = SlotLedger(
            lanes: slots, resources: configuration.resources,
            queues: Dictionary(
                uniqueKeysWithValues: queues.compactMap { queue in queue.concurrency.map { (queue.name, $0) } }))
        metrics = WorkerMetrics(factory: configuration.metrics)
        blockingThreads = ThreadExecutor(name: "hoist-blocking", threadCount: slots[.blocking] ?? 1)
        environment = Execution.Environment(
            worker: name, jobs: JobClient(backend, configuration: configuration.client, logger: logger), logger: logger,
            configuration: configuration, handlerQueue: { [byName] name in byName[name]?.options.queue },
            liveLimits: liveLimits)
        children =
            used.contains(.process)
            ? ChildPool(
                program: configuration.processes.program(
                    key: Worker.childKey(handlers), shape: BackendShape(backend), worker: name),
                settings: configuration.processes.settings, logger: logger, metrics: metrics,
                onUsable: { inbox.noteProcessLane(isUsable: $0) }) : nil
        presence = WorkerPresence(
            id: JobIdentifier.make(), name: name, queues: queues.map(\.name), jobNames: byName.keys.sorted(),
            startedAt: backend.clock.now, concurrency: slots.values.reduce(0, +))
        presence.labels = configuration.labels.isEmpty ? nil : configuration.labels.sorted()
    }

    private static func areIndependent(_ needs: Set<SlotNeeds>) -> Bool {
        let resources = needs.flatMap(\.resources.keys)
        return Set(needs.map(\.lane)).count == needs.count && Set(resources).count == resources.count
    }

    private static func checkNeeds(
        _ handlers: [Handler], slots: [LaneKind: Int], lanes: [Lane], resources: [String: Int]
    ) throws(WorkerError) {
        for handler in handlers {
            let most = lanes.last { $0.kind == handler.lane }?.range.upperBound ?? slots[handler.lane] ?? 1
            guard handler.slots <= most else {
                throw WorkerError(
                    message:
                        "\(handler.names[0]) takes \(handler.slots) slots, and the \(handler.lane) lane has \(most)")
            }
            for (name, amount) in handler.resources where amount > resources[name] ?? 0 {
                throw WorkerError(
                    message:
                        "\(handler.names[0]) needs \(amount) of \(name), and the worker has \(resources[name] ?? 0): see Worker.Configuration.resources"
                )
            }
        }
    }

    private static func checkRouting(
        _ configuration: Worker.Configuration, _ queues: [QueueSubscription], _ backend: Backend
    ) throws(WorkerError) {
        guard SpecialQueue.areLabels(configuration.labels) else {
            throw WorkerError(
                message:
                    "a worker has at most 4 labels, which must not be empty or hold commas, brackets or line breaks")
        }
        guard backend.topics != nil || queues.allSatisfy(\.topics.isEmpty) else {
            throw WorkerError(message: "the worker asks for topics, and this backend has none; Redis has")
        }
        guard backend.broadcasts != nil || configuration.broadcastChannels.isEmpty else {
            throw WorkerError(message: "the worker asks for broadcasts, and this backend has none; Redis has")
        }
    }

    /// The queues as they are asked: what is for this worker alone first, then those for workers with its labels.
    private static func consumed(
        _ queues: [QueueSubscription], by name: String, _ configuration: Worker.Configuration
    ) -> [QueueSubscription] {
        let isAddressed = configuration.isAddressable || !configuration.broadcastChannels.isEmpty
        let direct = isAddressed ? [QueueSubscription(SpecialQueue.direct(to: name))] : []
        return direct
            + queues.flatMap { queue in
                SpecialQueue.parts(of: queue.name, labels: configuration.labels).map { part in
                    var copy = queue
                    copy.name = part
                    if part != queue.name { (copy.limits, copy.topics) = (nil, []) }
                    return copy
                }
            }
    }

    /// Runs with the engine's thread as the preferred executor, so that nothing on the way hops to a cooperative
    /// thread.
    nonisolated func run() async {
        await withTaskExecutorPreference(executor) { await self.start() }
        ownThread?.close()
    }

    private func start() async {
        // They get ready while the backend is asked for work.
        children?.resize(to: slots.capacity[.process] ?? 0)
        await renewUntilAlive()
        logger.info(
            "worker started",
            metadata: ["worker": "\(presence.name)", "queues": "\(presence.queues.joined(separator: ", "))"])
        let listeners = configuration.broadcastChannels.map { channel in
            Task(executorPreference: executor) { await self.hearBroadcasts(on: channel) }
        }
        let scaler = Task(executorPreference: executor) { await self.scaleLanes() }
        let keeper = Task(executorPreference: executor) { await self.keepLease() }
        await work()
        keeper.cancel()
        scaler.cancel()
        for listener in listeners { listener.cancel() }
        await keeper.value
        await attempt("leave") { try await self.session.current?.close() }
        isAlive = false
        isConsuming = false
        publishHealth()
        await children?.close()
        blockingThreads.close()
        logger.info("worker stopped", metadata: ["worker": "\(presence.name)"])
    }

    // MARK: - The loop

    private func work() async {
        while true {
            let mark = inbox.bell.mark
            takeInbox()
            if await drain() { return }
            let request = makeTurn()
            if request.settlements.isEmpty, request.progress.isEmpty, request.logs.isEmpty, request.claims.isEmpty,
                !mustLook, !mustWithdraw
            {
                if isBurstOver { return }
                await inbox.bell.wait(after: mark, for: idleLimit, clock: backend.clock)
                noteDueJobs()
                continue
            }
            await turn(request)
        }
    }

    private func takeInbox() {
        let contents = inbox.take()
        // First: a ring may be for what came late.
        for late in contents.late where late.worker == presence.id { accept(late: late.result) }
        if contents.mayHaveWork {
            mayHaveWork = true
            // The ring may also mean that a running job is to stop, which even a worker with no free slot must hear.
            mustLook = !running.isEmpty
        }
        if let stop = contents.stop, stop != self.stop { begin(stop) }
        for lane in contents.resizes { resize(lane.kind, to: lane.slots) }
        for finished in contents.finished {
            guard let job = running[finished.run] else { continue }
            if job.needs.lane == .process { learn(from: finished.settlement) }
            _ = forget(finished.run)
            unsettled.append(finished.settlement)
        }
        for (run, progress) in contents.progress { pendingProgress[run] = progress }
        writtenRuns.formUnion(contents.written)
        for job in contents.givenUp { tell(of: job) }
        if let isUsable = contents.isProcessLaneUsable { noteProcessLane(isUsable: isUsable) }
    }

    /// Runs the hooks of a job that was given up because its worker died. Beside the loop, for they are the user's code.
    private nonisolated func tell(of job: GivenUpJob) {
        let handler = handlers[job.delivery.jobName]
        Task(executorPreference: globalConcurrentExecutor) { [environment] in
            guard let handler else { return await environment.onDeadLetter?(job.delivery.jobID, job.failure) ?? () }
            await Execution(job.delivery, handler, environment).runHooks(afterGivingUp: job.failure)
        }
    }

    /// Jobs whose children cannot be started wait where another worker can take them.
    private func noteProcessLane(isUsable: Bool) {
        guard isUsable == isProcessLaneClosed else { return }
        isProcessLaneClosed = !isUsable
        if isUsable {
            mayHaveWork = true
        } else {
            logger.error("the process lane takes no jobs: its children end before they are ready")
        }
    }

    private var isProcessLaneClosed = false
    private var writtenRuns: Set<WorkerInbox.RunID> = []
    private var nextLogsAt: Int64 = 0

    private var pendingProgress: [WorkerInbox.RunID: JobProgress] = [:]
    private var nextProgressAt: Int64 = 0

    /// Finds out how long jobs of the process lane take.
    private func learn(from settlement: Settlement) {
        if let usage = settlement.usage {
            ahead.note(run: Int64(usage.wallSeconds * 1_000_000))
        } else {
            ahead.noteDelay()
        }
        // Light jobs ahead of their slots would take every one that a heavy job waits for.
        let hasHeavyJobs = kinds.contains { $0.needs.lane == .process && !$0.needs.isLight }
        slots.ahead[.process] = hasHeavyJobs ? 0 : ahead.count(children: slots.capacity[.process] ?? 0)
    }

    /// Takes a job off the list and frees its slots.
    /// - Returns: false when it was not on the list, because it was given up.
    private func forget(_ run: WorkerInbox.RunID) -> Bool {
        guard let job = running.removeValue(forKey: run) else { return false }
        notStarted[run] = nil
        // Only where there was no room can there be work that was not asked for.
        if !mayHaveWork, hasNoRoom(besides: job) { mayHaveWork = true }
        startWaiting(slots.release(run))
        return true
    }

    /// Whether there is a kind of job that could not be claimed, and may be once `job` is gone.
    private func hasNoRoom(besides job: Running) -> Bool {
        kinds.contains { kind in
            let isRelated =
                kind.needs.lane == job.needs.lane
                || kind.needs.resources.keys.contains { job.needs.resources[$0] != nil }
            return (isRelated || slots.isLimited(job.queue)) && slots.available(kind.needs, queue: job.queue) == 0
        }
    }

    private func startWaiting(_ runs: [WorkerInbox.RunID]) {
        guard !runs.isEmpty else { return }
        launch(runs.compactMap { notStarted.removeValue(forKey: $0) })
    }

    private func resize(_ lane: LaneKind, to size: Int) {
        // Smaller than the heaviest job, and it would wait for ever.
        let size = max(size, kinds.filter { $0.needs.lane == lane }.map(\.needs.slots).max() ?? 1)
        guard let old = slots.capacity[lane], old != size else { return }
        logger.info("the \(lane) lane has another size", metadata: ["slots": "\(size)", "before": "\(old)"])
        startWaiting(slots.resize(lane, to: size))
        if lane == .process { children?.resize(to: size) }
        if lane == .blocking { blockingThreads.resize(to: size) }
        presence.concurrency = slots.capacity.values.reduce(0, +)
        mayHaveWork = true
        if size < old { mustWithdraw = creditMayLast }
    }

    /// Looks at the lanes that have a range of slots, as long as the worker runs.
    private func scaleLanes() async {
        guard !scalers.isEmpty else { return }
        while !Task.isCancelled {
            await backend.clock.sleep(for: configuration.autoscaling.interval)
            if Task.isCancelled || stop != nil { return }
            let isAnyFull = scalers.keys.contains { slots.used($0) >= slots.capacity[$0] ?? 0 }
            let backlog = isAnyFull ? await self.backlog() : LaneScaler.Backlog(waiting: 0, oldestWait: 0)
            for lane in scalers.keys {
                guard let size = slots.capacity[lane] else { continue }
                let wanted = scalers[lane]?.slots(
                    used: slots.used(lane), of: size, backlog: backlog, now: backend.clock.uptime)
                if let wanted, wanted != size {
                    resize(lane, to: wanted)
                    inbox.bell.ring()
                }
            }
        }
    }

    /// What waits in the queues of this worker. Where the backend cannot tell, a lane that is full has enough to do.
    private func backlog() async -> LaneScaler.Backlog {
        let consumed = Set(presence.queues)
        guard let directory = backend.directory, let queues = try? await directory.queues()
        else {
            return LaneScaler.Backlog(waiting: .max, oldestWait: 0)
        }
        let now = backend.clock.now
        return queues.filter { consumed.contains($0.name) }.reduce(into: LaneScaler.Backlog(waiting: 0, oldestWait: 0))
        { sum, queue in
            sum.waiting += queue.waiting
            let wait = queue.oldestWaiting.map { Duration.seconds(now.timeIntervalSince($0)).inMicroseconds } ?? 0
            sum.oldestWait = max(sum.oldestWait, wait)
        }
    }

    private func makeTurn() -> WorkerTurn {
        var request = WorkerTurn(settlements: unsettled)
        if mustReconcile { request.holding = Set(running.values.map(\.token)) }
        request.arrivalsSeen = arrivalsSeen
        request.withdrawsCredit = mustWithdraw
        takeProgress(into: &request)
        takeLogs(into: &request)
        guard mayHaveWork, stop == nil else { return request }
        request.budget = slots.budget(for: kinds.map(\.needs))
        for queue in configuration.order.arrange(queues) {
            for (needs, names) in kinds where !(isProcessLaneClosed && needs.lane == .process) {
                let claim = Claim(queue: queue.name, kind: needs.budgetName, jobNames: names, partition: findsPartition)
                if request.budget.available(to: claim) > 0 { request.claims.append(claim) }
            }
        }
        request.creditLasts = creditMayLast
        return request
    }

    /// Progress goes out at most twenty times a second, the last of each job, however often handlers report.
    private func takeProgress(into request: inout WorkerTurn) {
        let uptime = backend.clock.uptime
        guard !pendingProgress.isEmpty, uptime >= nextProgressAt else { return }
        for (run, progress) in pendingProgress {
            guard let job = running[run] else { continue }
            request.progress.append(
                ProgressReport(
                    jobID: job.jobID, token: job.token, progress: progress, facts: job.task.facts))
        }
        pendingProgress.removeAll()
        nextProgressAt = uptime + 50_000
    }

    /// Logs go out once a second. That of a job which has ended goes with its settlement.
    private func takeLogs(into request: inout WorkerTurn) {
        let uptime = backend.clock.uptime
        guard !writtenRuns.isEmpty, uptime >= nextLogsAt else { return }
        for run in writtenRuns {
            guard let job = running[run], let log = job.log.take() else { continue }
            request.logs.append(LogReport(jobID: job.jobID, token: job.token, log: log, facts: job.task.facts))
        }
        writtenRuns.removeAll()
        nextLogsAt = uptime + 1_000_000
    }

    private func turn(_ request: WorkerTurn) async {
        let settling = unsettled
        let incarnation = presence.id
        unsettled = []
        if !request.claims.isEmpty { mayHaveWork = false }
        mustLook = false
        do {
            let result = try await turnOfSession(request)
            // The lease was lost meanwhile: what was claimed under it belongs to others, or will.
            guard incarnation == presence.id else {
                mayHaveWork = true
                return
            }
            if request.holding != nil { mustReconcile = false }
            if request.withdrawsCredit { mustWithdraw = false }
            failures = 0
            isConsuming = stop == nil
            presence.lastConsumedAt = backend.clock.now
            for id in result.lost {
                logger.info(
                    "a finish was refused: another worker has the job, or it was settled and the answer got lost",
                    metadata: ["job.id": "\(id)"])
            }
            let lost = Set(result.lost)
            let lostTokens = Set(request.progress.filter { lost.contains($0.jobID) }.map(\.token))
            if !lostTokens.isEmpty { abandon { lostTokens.contains($0.token) } }
            accept(result, hasClaimed: !request.claims.isEmpty)
        } catch {
            // Nobody knows what was settled: the settlements are kept and tried again, for as long as it takes.
            if incarnation == presence.id { unsettled = settling + unsettled }
            // A worker that has nothing left to settle leaves, and its claims with it.
            if stop != nil, running.isEmpty, unsettled.isEmpty { mustWithdraw = false }
            mayHaveWork = true
            mustLook = true
            mustReconcile = true
            isConsuming = false
            publishHealth()
            await backOff(after: error, from: "turn finished jobs for new ones")
        }
    }

    private func accept(_ result: TurnResult, hasClaimed: Bool) {
        if result.hasMore { mayHaveWork = true }
        if hasClaimed { nextDue = result.nextDue }
        for id in result.cancellations { cancel(id, .requested) }
        start(result.deliveries)
        publishHealth()
    }

    /// Takes in what an earlier turn has brought after its end.
    private func accept(late result: Result<TurnResult, any Error>) {
        arrivalsSeen += 1
        switch result {
        case .success(let result):
            presence.lastConsumedAt = backend.clock.now
            // When the next delayed job is due, only a turn tells.
            accept(result, hasClaimed: false)
        case .failure:
            mayHaveWork = true
            mustLook = true
            mustReconcile = true
        }
    }

    /// How long the worker may sleep when nothing rings.
    private var idleLimit: Duration? {
        var limit: Duration?
        if let nextDue, stop == nil {
            limit = .seconds(max(0, nextDue.timeIntervalSince(backend.clock.now)))
        }
        if !pendingProgress.isEmpty {
            let left = Duration.microseconds(max(0, nextProgressAt - backend.clock.uptime))
            limit = min(limit ?? left, left)
        }
        if writtenRuns.contains(where: { running[$0] != nil }) {
            let left = Duration.microseconds(max(0, nextLogsAt - backend.clock.uptime))
            limit = min(limit ?? left, left)
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

    /// A job that has its slots and waits to be started.
    private struct Admitted: Sendable {
        var execution: Execution
        var run: WorkerInbox.RunID
        var box: RunningTask
    }

    private func start(_ deliveries: [Delivery]) {
        guard stop == nil else { return handBack(deliveries) }
        let admitted = deliveries.compactMap(admit)
        guard admitted.count >= 8 else { return launch(admitted) }
        // Many are started while the backend is busy with the next turn, which goes out first.
        Task(executorPreference: executor) { await self.launch(admitted) }
    }

    private func admit(_ delivery: Delivery) -> Admitted? {
        guard let handler = handlers[delivery.jobName] else {
            refuse(delivery)
            return nil
        }
        nextRun += 1
        let box = RunningTask()
        let execution = Execution(
            delivery, handler, environment, onLog: { [inbox, nextRun] in inbox.noteLog(run: nextRun) })
        running[nextRun] = Running(
            jobID: delivery.jobID, token: delivery.token, queue: delivery.queue, needs: handler.needs, task: box,
            log: execution.log)
        let admitted = Admitted(execution: execution, run: nextRun, box: box)
        switch slots.admit(nextRun, handler.needs, queue: delivery.queue) {
        case .start: return admitted
        case .wait: notStarted[nextRun] = admitted
        case .refuse:
            notStarted[nextRun] = admitted
            handBack(nextRun)
        }
        return nil
    }

    /// A broker that cannot choose by name has delivered a job that has no handler here.
    private func refuse(_ delivery: Delivery) {
        logger.error(
            "a job has no handler in this worker",
            metadata: ["job.id": "\(delivery.jobID)", "job.name": "\(delivery.jobName)"])
        let failure = JobFailure(
            kind: .unsupported, type: "NotRegistered", message: "no handler is registered for \(delivery.jobName)")
        let now = backend.clock.now
        var settlement = Settlement(
            jobID: delivery.jobID, token: delivery.token, outcome: .failed(failure), startedAt: now, finishedAt: now)
        settlement.facts = delivery.message.map { SettlementFacts($0, of: delivery, worker: presence.name) }
        settlement.followUps = delivery.message.flatMap { FollowUps(of: $0, endedAs: .failed, failure, now: now) }
        unsettled.append(settlement)
    }

    private func launch(_ admitted: [Admitted]) {
        // Those that were given up meanwhile, because the worker stops or has lost its lease, are somebody else's.
        for job in admitted where running[job.run] != nil { launch(job.execution, run: job.run, job.box) }
    }

    /// Starts a job in its lane. Nonisolated, so that handlers do not inherit the engine's thread.
    private nonisolated func launch(_ execution: Execution, run: WorkerInbox.RunID, _ box: RunningTask) {
        let (inbox, clock) = (inbox, backend.clock)
        let (startedAt, start) = (clock.now, clock.uptime)
        if execution.handler.lane == .process, let children {
            return execution.isolate(in: children, run: run, box, onProgress: { inbox.report($0, run: run) }) {
                end, usage in
                // It may have waited for a child.
                let began = usage.map { clock.now.addingTimeInterval(-$0.wallSeconds) } ?? startedAt
                box.finish()
                self.finish(execution, run, end, usage, startedAt: began, start: start)
            }
        }
        let lane: any TaskExecutor = execution.handler.lane == .blocking ? blockingThreads : globalConcurrentExecutor
        box.set(
            Task(executorPreference: lane) {
                let (startedAt, start) = (clock.now, clock.uptime)
                let end = await execution.run(
                    onContext: { box.set($0) }, onProgress: { inbox.report($0, run: run) }, cancel: { box.cancel($0) })
                box.finish()
                self.finish(execution, run, end, nil, startedAt: startedAt, start: start)
            })
    }

    private nonisolated func finish(
        _ execution: Execution, _ run: WorkerInbox.RunID, _ end: Execution.End, _ usage: ResourceUsage?,
        startedAt: JobDate, start: Int64
    ) {
        let clock = backend.clock
        metrics.finished(
            queue: execution.queue, job: execution.jobName, outcome: end.outcome.label,
            runMicroseconds: usage.map { Int64($0.wallSeconds * 1_000_000) } ?? (clock.uptime - start),
            waitMicroseconds: end.waited, usage: usage)
        execution.log(end.outcome)
        var settlement = Settlement(
            jobID: execution.jobID, token: execution.token, outcome: end.outcome, startedAt: startedAt,
            finishedAt: clock.now, facts: end.context?.facts, usage: usage, log: execution.log.take())
        settlement.followUps = end.followUps
        inbox.finish(.init(settlement: session.current?.encode(settlement) ?? settlement, run: run))
    }

    private func cancel(_ id: JobID, _ reason: JobContext.CancellationReason) {
        for (run, job) in running where job.jobID == id {
            job.task.cancel(reason)
            // One that has not begun would not hear of it before it has slots.
            if notStarted[run] != nil, reason == .requested { handBack(run) }
        }
    }

    /// Stops jobs that are no longer ours, and forgets what they return.
    private func abandon(_ isMeant: (Running) -> Bool) {
        slots.freeze()
        for (run, job) in running where isMeant(job) {
            job.task.cancel(.leaseLost)
            _ = forget(run)
        }
        if stop == nil { startWaiting(slots.thaw()) }
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
        mustWithdraw = creditMayLast
        // What waits for slots goes to others: it has not begun.
        slots.freeze()
        for run in slots.notStarted { handBack(run) }
    }

    /// Gives back what arrived when the worker was about to stop.
    private func handBack(_ deliveries: [Delivery]) {
        let now = backend.clock.now
        unsettled += deliveries.map { delivery in
            Settlement(
                jobID: delivery.jobID, token: delivery.token, outcome: .notStarted, startedAt: now, finishedAt: now)
        }
    }

    private func handBack(_ run: WorkerInbox.RunID) {
        guard let job = running[run] else { return }
        let now = backend.clock.now
        let outcome: Outcome = notStarted[run] == nil ? .handedBack : .notStarted
        let settlement = Settlement(
            jobID: job.jobID, token: job.token, outcome: outcome, startedAt: now, finishedAt: now)
        _ = forget(run)
        unsettled.append(settlement)
    }

    /// - Returns: true when the worker is done: everything settled, or handed back.
    private func drain() async -> Bool {
        guard stop != nil else { return false }
        if running.isEmpty, unsettled.isEmpty, !mustWithdraw { return true }
        guard let drainDeadline, backend.clock.uptime >= drainDeadline else { return false }
        logger.info("handing unfinished jobs back", metadata: ["jobs": "\(running.count)"])
        for job in running.values { job.task.cancel(.shutdown) }
        // Most handlers end at once when they are cancelled; nobody waits for those that do not.
        let graceEnd = backend.clock.uptime + 500_000
        while !running.isEmpty, backend.clock.uptime < graceEnd {
            let mark = inbox.bell.mark
            takeInbox()
            if running.isEmpty { break }
            await inbox.bell.wait(
                after: mark, for: .microseconds(graceEnd - backend.clock.uptime), clock: backend.clock)
        }
        // Children are gone before anybody else can begin their jobs; what they finished until then counts.
        await children?.close()
        takeInbox()
        for run in running.keys { handBack(run) }
        var request = WorkerTurn(settlements: unsettled)
        request.withdrawsCredit = mustWithdraw
        await attempt("hand unfinished jobs back") { [request] in _ = try await self.turnOfSession(request) }
        unsettled = []
        // What had arrived before claims were withdrawn.
        takeInbox()
        if !unsettled.isEmpty {
            let request = WorkerTurn(settlements: unsettled)
            await attempt("hand late jobs back") { _ = try await self.turnOfSession(request) }
            unsettled = []
        }
        return true
    }

    // MARK: - Limits

    /// What the code says of every job and queue of this worker; an empty list where it says nothing of a job.
    private static func limits(of queues: [QueueSubscription], _ handlers: [Handler]) -> [LimitTarget: [JobLimit]] {
        var limits: [LimitTarget: [JobLimit]] = [:]
        for handler in handlers { if let name = handler.names.first { limits[.job(name)] = handler.options.limits } }
        for queue in queues { if let mine = queue.limits { limits[.queue(queue.name)] = mine } }
        return limits
    }

    private static func partitionFinder(
        _ handlers: [String: RegisteredHandler], _ sealing: (any Sealing)?
    ) -> Claim.PartitionFinder {
        return { message in
            guard let handler = handlers[message.jobName], let body = try? message.opened(with: sealing).decodedBody()
            else { return nil }
            return handler.partition(body.arguments)
        }
    }

    // MARK: - Routing

    private func bindTopics() async throws {
        guard let routing = backend.topics else { return }
        for queue in queues { for topics in queue.topics { try await routing.bind(queue: queue.name, to: topics) } }
    }

    /// Puts what is broadcast into the queue that is this worker's alone, where it is kept like any other job.
    private func hearBroadcasts(on channel: String) async {
        guard let routing = backend.broadcasts else { return }
        while !Task.isCancelled {
            do {
                for await message in try await routing.broadcasts(on: channel) {
                    guard handlers[message.jobName] != nil, let copy = ownCopy(of: message) else { continue }
                    // The sender of a broadcast does not wait, so this may take as long as the backend needs.
                    await attempt("keep a broadcast") { _ = try await self.backend.publish([copy]) }
                }
            } catch {
                await backOff(after: error, from: "listen to broadcasts")
            }
        }
    }

    private func ownCopy(of message: Message) -> Message? {
        let sealing = configuration.client.sealing
        // A seal holds a message to its id, and the copy has another.
        guard var copy = message.isSealed ? try? message.opened(with: sealing) : message else {
            logger.warning(
                "a broadcast cannot be opened", metadata: ["job.id": "\(message.id)", "job.name": "\(message.jobName)"])
            return nil
        }
        copy.headers.parentID = copy.headers.parentID ?? message.id
        copy.headers.id = message.id + "." + presence.name
        copy.properties.correlationID = copy.headers.id
        copy.properties.deliveryTag = JobIdentifier.make()
        copy.properties.exchange = ""
        copy.queue = SpecialQueue.direct(to: presence.name)
        if message.isSealed, let sealing { guard (try? copy.seal(with: sealing)) != nil else { return nil } }
        return copy
    }

    // MARK: - The lease

    private func renewUntilAlive() async {
        while stop == nil {
            var opened: (any WorkerSession)?
            do {
                let sink = InboxSink(inbox: inbox, worker: presence.id)
                opened = try await backend.broker.open(presence, lease: configuration.lease, sink: sink)
                try await backend.limits?.declareLimits(limits, aliases: aliases)
                try await bindTopics()
                // Last, for the worker claims as soon as there is a session.
                session.current = opened
                isAlive = true
                return publishHealth()
            } catch {
                // Perhaps it is announced. What cannot be closed either has a lease that passes.
                try? await opened?.close()
                newIncarnation()
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
                if try await session.current?.renew(presence) ?? false {
                    isAlive = true
                } else {
                    loseLease()
                    await renewUntilAlive()
                    mayHaveWork = true
                    inbox.bell.ring()
                }
            } catch {
                isAlive = false
                logger.warning("the lease could not be renewed", metadata: ["error": "\(error)"])
            }
            publishHealth()
            countQueues()
        }
    }

    private var queuesCountedAt: Int64?

    /// Measures the queues now and then, where there is a metrics system to tell.
    private func countQueues() {
        guard metrics.isListening, let directory = backend.directory else { return }
        let uptime = backend.clock.uptime
        if let queuesCountedAt, uptime - queuesCountedAt < 15_000_000 { return }
        queuesCountedAt = uptime
        let consumed = Set(presence.queues)
        // Not awaited: counting may take longer than a lease may wait.
        let (metrics, clock) = (metrics, backend.clock)
        Task {
            guard let queues = try? await directory.queues() else { return }
            metrics.queueLengths(queues.filter { consumed.contains($0.name) }, now: clock.now.microsecondsSinceEpoch)
        }
    }

    /// The worker was away for longer than its lease: what it runs belongs to others now.
    private func loseLease() {
        logger.warning(
            "the lease was lost: running jobs are stopped, their results refused",
            metadata: ["jobs": "\(running.count)"])
        metrics.leaseLost()
        abandon { _ in true }
        unsettled = []
        newIncarnation()
    }

    private func turnOfSession(_ turn: WorkerTurn) async throws -> TurnResult {
        guard let session = session.current else { throw BackendError(.unavailable, "the worker is not announced") }
        return try await session.turn(turn)
    }

    private func newIncarnation() {
        session.current = nil
        presence.id = JobIdentifier.make()
        arrivalsSeen = 0
        mustWithdraw = false
    }

    // MARK: - Small things

    private func backOff(after error: any Error, from what: String) async {
        failures += 1
        logger.warning(
            "the worker could not \(what); it tries again", metadata: ["error": "\(error)", "failures": "\(failures)"])
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
