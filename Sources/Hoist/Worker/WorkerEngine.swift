#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
import Logging
import Metrics

/// The heart of a worker: does what its ``WorkerMachine`` decides. It turns finished jobs for new ones until the worker
/// is stopped, and keeps the parts beside it running: lease, lanes, broadcasts, gauges.
///
/// It runs on a thread of its own. Whatever handlers do to Swift's cooperative threads, leases are renewed and jobs
/// settled.
actor WorkerEngine {
    /// The backend's own thread where it has one, so that nothing on the way to it changes threads.
    private let executor: any TaskExecutor
    private let serialExecutor: any SerialExecutor
    nonisolated var unownedExecutor: UnownedSerialExecutor { serialExecutor.asUnownedSerialExecutor() }
    /// Where the backend has none.
    private let ownThread: ThreadExecutor?

    let backend: Backend
    let setup: WorkerSetup
    private let configuration: Worker.Configuration
    private let logger: Logger
    let inbox: WorkerInbox
    private let metrics: WorkerMetrics
    private let events: EventStream
    private let patience: Patience
    /// The session of the present incarnation, also for the threads of jobs.
    private let session: SessionBox
    private let blockingThreads: ThreadExecutor
    /// Nil when no handler runs in the process lane.
    let children: ChildPool?
    private let launcher: Launcher
    private let environment: Execution.Environment
    let remote: RemoteControl

    nonisolated var name: String { setup.name }
    var machine: WorkerMachine
    private(set) var presence: WorkerPresence { didSet { session.presence = presence } }
    /// Renews the lease.
    private let leaseThread = ThreadExecutor(name: "hoist-lease", threadCount: 1)
    private let scheduleThread = ScheduleTicker.makeThread()
    /// The jobs on the machine's list.
    private(set) var jobs: [WorkerInbox.RunID: Launcher.Job] = [:]
    /// Jobs that came together and start beside the next turn.
    private var startedTogether: [WorkerInbox.RunID] = []
    private let startingBell = Doorbell()
    private var isAlive = false
    private var isDeaf = false
    /// The lanes that grow and shrink.
    var ranges: [LaneKind: ClosedRange<Int>]
    nonisolated let rangesBell = Doorbell()
    /// The rates of kinds of jobs on this worker alone, as they were asked for.
    var rateTexts: [String: String] = [:]
    /// How many jobs of each kind were taken in.
    private(set) var acceptedByName: [String: UInt64] = [:]
    let startedUptime: Int64

    init(
        backend: Backend, queues: [QueueSubscription], lanes: [Lane], handlers: [Handler],
        configuration: Worker.Configuration, logger: Logger, inbox: WorkerInbox,
        liveLimits: @escaping @Sendable (String) -> RunLimits,
        setLimits: @escaping @Sendable (RunLimits, String) throws -> Void
    ) throws(WorkerError) {
        setup = try WorkerSetup(
            backend: backend, queues: queues, lanes: lanes, handlers: handlers, configuration: configuration)
        self.backend = backend
        self.configuration = configuration
        self.logger = logger
        self.inbox = inbox
        if let threads = backend.broker.threads {
            (executor, serialExecutor, ownThread) = (threads.tasks, threads.actors, nil)
        } else {
            let thread = ThreadExecutor(name: "hoist-worker")
            (executor, serialExecutor, ownThread) = (thread, thread, thread)
        }
        presence = WorkerPresence(
            id: JobIdentifier.make(), name: setup.name, queues: setup.queues.map(\.name),
            jobNames: setup.handlers.keys.sorted(), startedAt: backend.clock.now,
            concurrency: setup.lanes.values.reduce(0, +))
        presence.labels = configuration.labels.isEmpty ? nil : configuration.labels.sorted()
        session = SessionBox(presence)
        metrics = WorkerMetrics(factory: configuration.metrics ?? MetricsSystem.factory)
        patience = Patience(clock: backend.clock, logger: logger, inbox: inbox)
        ranges = setup.ranges
        startedUptime = backend.clock.uptime
        remote = RemoteControl(
            node: setup.name, backend: backend, configuration: configuration, patience: patience, setLimits: setLimits)
        let eventLog = EventLog(
            logger: logger, configuration.noun, logsEveryJob: configuration.logsEveryJob,
            backend: backend.broker.address.url)
        events = EventStream([metrics, eventLog] + remote.sinks + configuration.sinks)
        blockingThreads = ThreadExecutor(name: "hoist-blocking", threadCount: setup.lanes[.blocking] ?? 1)
        environment = Execution.Environment(
            worker: setup.name, jobs: JobClient(backend, configuration: configuration.client, logger: logger),
            logger: logger, configuration: configuration,
            handlerQueue: { [handlers = setup.handlers] name in handlers[name]?.options.queue }, liveLimits: liveLimits)
        children =
            setup.lanes[.process] == nil
            ? nil
            : ChildPool(
                program: configuration.processes.program(
                    key: Worker.childKey(handlers), shape: BackendShape(backend), worker: setup.name),
                settings: configuration.processes.settings, logger: logger, metrics: metrics,
                onUsable: { inbox.noteProcessLane(isUsable: $0) })
        launcher = Launcher(
            inbox: inbox, clock: backend.clock, events: events, session: session, blockingThreads: blockingThreads,
            children: children, canCloseQueues: backend.queueControl != nil)
        var rules = setup.rules
        rules.isRevoked = remote.isRevoked
        machine = WorkerMachine(
            rules, queues: setup.queues, lanes: setup.lanes, resources: configuration.resources)
    }

    var time: WorkerMachine.Moment {
        WorkerMachine.Moment(now: backend.clock.now, uptime: backend.clock.uptime)
    }

    /// Runs with the engine's thread as the preferred executor, so that nothing on the way hops to a cooperative
    /// thread. In a task of its own: when the caller's task is cancelled the lease is kept until everything is handed
    /// back.
    nonisolated func run(besides ticker: ScheduleTicker?) async {
        await Task(executorPreference: executor) { await self.start(ticker) }.value
        ownThread?.close()
    }

    private func start(_ ticker: ScheduleTicker?) async {
        // They get ready while the backend is asked for work.
        children?.resize(to: setup.lanes[.process] ?? 0)
        await openSession()
        // A worker that was stopped before its backend answered was never there.
        let isAnnounced = session.current != nil
        if isAnnounced { events.tell(.online, presence, at: backend.clock) }
        await withDiscardingTaskGroup(isolation: self) { parts in
            for channel in configuration.broadcastChannels {
                let listener = BroadcastListener(
                    channel: channel, backend: backend, worker: setup.name, jobNames: Set(setup.handlers.keys),
                    sealing: configuration.client.sealing, patience: patience)
                parts.addTask(executorPreference: executor) { await listener.run() }
            }
            let scaling = LaneScaling(engine: self, backend: backend, policy: configuration.autoscaling)
            parts.addTask(executorPreference: executor) { await scaling.run() }
            let watch = DeafnessWatch(engine: self, backend: backend)
            parts.addTask(executorPreference: executor) { await watch.run() }
            let strangers = StrangerWatch(engine: self, backend: backend)
            parts.addTask(executorPreference: executor) { await strangers.run() }
            let gauges = QueueGauges(engine: self, backend: backend, metrics: metrics)
            parts.addTask(executorPreference: executor) { await gauges.run() }
            let keeper = LeaseKeeper(
                session: session, inbox: inbox, lease: configuration.lease, clock: backend.clock,
                onLoss: { await self.leaseWasLost(by: $0) })
            parts.addTask(executorPreference: leaseThread) { await keeper.run() }
            parts.addTask(executorPreference: executor) { await self.launchBesideTurns() }
            if let ticker { parts.addTask(executorPreference: scheduleThread) { await ticker.run() } }
            remote.start(in: &parts, of: self, jobs: environment.jobs)
            await work()
            parts.cancelAll()
        }
        await leave()
        let (pulse, wasAlive) = (pulse(all: true), isAlive)
        if wasAlive { _ = await finishes(within: .milliseconds(500)) { [remote] in try await remote.leave(pulse) } }
        isAlive = false
        publishHealth()
        await children?.close()
        blockingThreads.close()
        leaseThread.close()
        scheduleThread.close()
        remote.close()
        if isAnnounced { events.tell(.offline, presence, at: backend.clock) }
    }

    /// Takes the worker off the list. Where the backend is away and holds nothing of this worker, the lease ends by
    /// itself.
    private func leave() async {
        guard let session = session.current else { return }
        // Jobs of which it never heard, because an answer was lost, have not begun.
        takeInbox()
        let reconciliation = machine.mustReconcile ? machine.makeReconciliation() : nil
        @Sendable func part() async throws {
            // The session ends also where this cannot be done: its jobs go back then as after a shutdown.
            if let reconciliation { _ = try? await session.turn(reconciliation) }
            try await session.close()
        }
        // An idle worker whose backend is away has nothing to wait for.
        if machine.hasHeldJobs || (isAlive && !patience.isTroubled) {
            await patience.attempt("leave") { try await part() }
        } else if await !finishes(within: .milliseconds(800), part) {
            logger.warning("the worker leaves while its backend is away; its lease passes by itself")
        }
    }

    /// Whether something that can be cancelled is done in time, and well.
    private func finishes(within limit: Duration, _ body: @escaping @Sendable () async throws -> Void) async -> Bool {
        await withTaskGroup(of: Bool.self) { group in
            group.addTask(executorPreference: executor) { (try? await body()) != nil }
            group.addTask(executorPreference: executor) { [clock = backend.clock] in
                await clock.sleep(for: limit)
                return false
            }
            defer { group.cancelAll() }
            return await group.next() ?? false
        }
    }

    // MARK: - The loop

    private func work() async {
        while true {
            let mark = inbox.bell.mark
            takeInbox()
            perform()
            let step = machine.next(time)
            switch step {
            // Nothing is with this worker, and nobody is there to hear that it takes nothing more.
            case .turn where machine.stop != nil && !isAlive && !machine.hasHeldJobs: return
            case .turn(let turn): await take(turn)
            case .sleep(let limit): await inbox.bell.wait(after: mark, for: limit, clock: backend.clock)
            case .handBack: return await handBack()
            case .end: return
            }
        }
    }

    private func takeInbox() {
        let contents = inbox.take()
        let time = time
        // First: a ring may be for what came late.
        for late in contents.late where late.worker == presence.id {
            switch late.result {
            case .success(let result):
                presence.lastConsumedAt = time.now
                machine.arrived(result, time)
            case .failure: machine.arrivalWasLost()
            }
        }
        if contents.mayHaveWork { machine.rang() }
        if let mode = contents.stop, mode != machine.stop { stop(mode, time) }
        for lane in contents.resizes { machine.resize(lane.kind, to: lane.slots) }
        for finished in contents.finished { machine.finished(finished.run, finished.settlement) }
        for (run, progress) in contents.progress { machine.reported(run, progress) }
        machine.wrote(contents.written)
        for notice in contents.notices { tell(of: notice) }
        for warning in contents.warnings { logger.warning("\(TerminalText.line(warning))") }
        if let renewal = contents.renewal, renewal.worker == presence.id { noteRenewal(renewal.error) }
        if let isUsable = contents.isProcessLaneUsable, machine.noteProcessLane(isUsable: isUsable), !isUsable {
            logger.error("the process lane takes no jobs: its children end before they are ready")
        }
        publishHealth()
    }

    private func stop(_ mode: Worker.StopMode, _ time: WorkerMachine.Moment) {
        logger.info(
            "\(configuration.noun) takes no more jobs", metadata: ["running": "\(machine.runs.count)"])
        presence.isDraining = true
        machine.stop(mode, time)
    }

    /// Does what the machine has decided.
    func perform() {
        for action in machine.takeActions() {
            switch action {
            case .admit(let run, let delivery): admit(run, delivery)
            case .start(let runs): launch(runs)
            case .cancel(let run, let reason): jobs[run]?.task.cancel(reason)
            case .drop(let run): jobs[run] = nil
            case .refuse(let delivery): refuse(delivery)
            case .revoke(let delivery): endRevoked(delivery)
            case .resize(let lane, let slots, let before): noteSize(of: lane, slots, before: before)
            }
        }
    }

    private static let turning = "turn finished jobs for new ones"

    private func take(_ turn: WorkerMachine.Turn) async {
        do {
            let isIdle = turn.request.settlements.isEmpty && machine.runs.isEmpty
            let result = try await isIdle ? sendUnlessStopped(turn) : send(turn)
            // What the broker did on the way comes before what it handed out: a job may be taken over and claimed at once.
            for notice in inbox.takeNotices() { tell(of: notice) }
            guard machine.ended(turn, result, time) else { return }
            perform()
            patience.succeeded(Self.turning)
            presence.lastConsumedAt = backend.clock.now
            for id in result.copies {
                logger.warning(
                    "a message was dropped: its job has succeeded, and this is a copy",
                    metadata: ["job.id": "\(TerminalText.line(id))"])
                metrics.noteCopy()
            }
            for id in result.lost {
                logger.info(
                    "a finish was refused: another worker has the job, or it was settled and the answer got lost",
                    metadata: ["job.id": "\(TerminalText.line(id))"])
            }
        } catch {
            machine.failed(turn)
            publishHealth()
            await patience.backOff(
                after: error, from: Self.turning, isBrief: !machine.hasHeldJobs)
        }
    }

    /// Sends a turn of a worker that has nothing. Where the worker is to stop and the backend does not answer, there is
    /// nothing to wait for: the turn is given up.
    private func sendUnlessStopped(_ turn: WorkerMachine.Turn) async throws -> TurnResult {
        try await withThrowingTaskGroup(of: TurnResult?.self) { group in
            group.addTask(executorPreference: executor) { try await self.send(turn) }
            group.addTask(executorPreference: executor) { [inbox, clock = backend.clock] in
                while !inbox.isStopping, !Task.isCancelled {
                    let mark = inbox.stopBell.mark
                    if inbox.isStopping { break }
                    await inbox.stopBell.wait(after: mark, for: nil, clock: clock)
                }
                if !Task.isCancelled { await clock.sleep(for: .milliseconds(300)) }
                return nil
            }
            if let result = try await group.next() ?? nil {
                group.cancelAll()
                return result
            }
            // The answer may come all the same.
            group.cancelAll()
            if let result = try await group.next() ?? nil { return result }
            throw BackendError(.unavailable, "the worker stops while its backend is away")
        }
    }

    /// Sends a turn with what only the jobs themselves know.
    private func send(_ turn: WorkerMachine.Turn) async throws -> TurnResult {
        guard let session = session.current else { throw BackendError(.unavailable, "the worker is not announced") }
        var request = turn.request
        for (run, progress) in turn.progress {
            guard let job = jobs[run] else { continue }
            request.progress.append(
                ProgressReport(
                    jobID: job.execution.jobID, token: job.execution.token, progress: progress, facts: job.task.facts))
        }
        for run in turn.written {
            guard let job = jobs[run], let log = job.execution.log.take() else { continue }
            request.logs.append(
                LogReport(jobID: job.execution.jobID, token: job.execution.token, log: log, facts: job.task.facts))
            launcher.tell(log, of: job.execution)
        }
        return try await session.turn(request)
    }

    /// Cancels what still runs, waits a little for it, and gives back the rest.
    private func handBack() async {
        logger.info("handing unfinished jobs back", metadata: ["jobs": "\(machine.runs.count)"])
        for job in jobs.values { job.task.cancel(.shutdown) }
        // Most handlers end at once when they are cancelled; nobody waits for those that do not.
        let graceEnd = backend.clock.uptime + 500_000
        while !machine.runs.isEmpty, backend.clock.uptime < graceEnd {
            let mark = inbox.bell.mark
            takeInbox()
            perform()
            if machine.runs.isEmpty { break }
            await inbox.bell.wait(
                after: mark, for: .microseconds(graceEnd - backend.clock.uptime), clock: backend.clock)
        }
        // Children are gone before anybody else can begin their jobs; what they finished until then counts.
        await children?.close()
        takeInbox()
        await settle(machine.handBackAll(time), "hand unfinished jobs back")
        // What had arrived before credit was withdrawn.
        takeInbox()
        perform()
        let late = machine.makeTurnThatSettles()
        if !late.request.settlements.isEmpty { await settle(late, "hand late jobs back") }
    }

    private func settle(_ turn: WorkerMachine.Turn, _ what: String) async {
        await patience.attempt(what) { [self] in
            _ = try await send(turn)
            machine.settled()
        }
    }

    // MARK: - Jobs

    private func admit(_ run: WorkerInbox.RunID, _ delivery: Delivery) {
        guard let handler = setup.handlers[delivery.jobName] else { return }
        acceptedByName[delivery.jobName, default: 0] += 1
        events.tell(.received, of: delivery.jobID) {
            JobEvent(.received(delivery), delivery, worker: setup.name, at: backend.clock.now)
        }
        let execution = Execution(delivery, handler, environment, onLog: { [inbox] in inbox.noteLog(run: run) })
        jobs[run] = Launcher.Job(execution: execution, run: run, task: RunningTask())
    }

    private func launch(_ runs: [WorkerInbox.RunID]) {
        guard runs.count >= 8 else {
            for run in runs { if let job = jobs[run] { launcher.launch(job) } }
            return
        }
        // Many are started while the backend is busy with the next turn, which goes out first.
        startedTogether += runs
        startingBell.ring()
    }

    /// Starts the jobs that came together, as long as the worker runs; but for those that were given up meanwhile,
    /// which are somebody else's.
    private func launchBesideTurns() async {
        while !Task.isCancelled {
            let mark = startingBell.mark
            for run in startedTogether { if let job = jobs[run] { launcher.launch(job) } }
            startedTogether = []
            await startingBell.wait(after: mark, for: nil, clock: backend.clock)
        }
    }

    /// A broker that cannot choose by name has delivered a job that has no handler here.
    private func refuse(_ delivery: Delivery) {
        logger.error(
            "a job has no handler in this worker",
            metadata: [
                "job.id": "\(TerminalText.line(delivery.jobID))", "job.name": "\(TerminalText.line(delivery.jobName))",
            ])
        let failure = JobFailure(
            kind: .unsupported, type: "NotRegistered", message: "no handler is registered for \(delivery.jobName)")
        settle(delivery, as: .failed(failure), .failed, failure)
        noteDeadLetter(delivery, failure)
    }

    /// Ends a job that has not begun.
    private func settle(_ delivery: Delivery, as outcome: Outcome, _ state: JobState, _ failure: JobFailure?) {
        let (now, message) = (backend.clock.now, delivery.message)
        var settlement = Settlement(
            jobID: delivery.jobID, token: delivery.token, outcome: outcome, startedAt: now, finishedAt: now)
        settlement.facts = message.map { SettlementFacts($0, of: delivery, worker: presence.name) }
        settlement.followUps = message.flatMap { FollowUps(of: $0, endedAs: state, failure, now: now) }
        machine.settle(settlement)
    }

    /// A job was delivered that somebody has revoked: it ends without having begun.
    private func endRevoked(_ delivery: Delivery) {
        settle(delivery, as: .cancelled, .cancelled, nil)
        tellRevoked(delivery.jobID, delivery.jobName, queue: delivery.queue, attempt: delivery.attempt)
    }

    /// This worker has ended a job that has not begun, for somebody has revoked it.
    func tellRevoked(_ id: JobID, _ name: String, queue: String, attempt: Int) {
        tell(JobNotice(.cancelled, jobID: id, jobName: name, queue: queue, attempt: attempt), endedAs: .cancelled)
    }

    private func tell(_ notice: JobNotice, endedAs outcome: Outcome) {
        let end = JobEvent.End(outcome: outcome, startedAt: backend.clock.now, runTime: .zero)
        tell(notice, .ended(end), [.ends])
    }

    private func tell(_ notice: JobNotice, _ kind: JobEvent.Kind, _ interests: EventInterests) {
        events.tell(interests, of: notice.jobID) {
            JobEvent(
                kind, jobID: notice.jobID, jobName: notice.jobName, queue: notice.queue, attempt: notice.attempt,
                worker: setup.name, at: backend.clock.now)
        }
    }

    func sendHeartbeat() async { await remote.beat(pulse(all: false)) }

    /// Tells of what the broker has done with a job by itself.
    private func tell(of notice: JobNotice) {
        let lost = notice.lostWorkerName ?? notice.lostWorker ?? ""
        switch notice.kind {
        case .gaveUp(let delivery, let failure):
            tell(notice, .givenUp(failure, lostWorker: lost), [.ends, .failures])
            noteDeadLetter(delivery, failure)
        case .tookOver: tell(notice, .takenOver(lostWorker: lost), [.ends, .failures])
        // The metrics have a label for the name of a job, which is to be one of few.
        case .cancelled, .expired:
            guard setup.handlers[notice.jobName] != nil else { return }
            let isExpired = if case .expired = notice.kind { true } else { false }
            tell(notice, endedAs: isExpired ? .expired : .cancelled)
        }
    }

    /// Runs the hooks of a dead letter that no handler of this worker has failed.
    private func noteDeadLetter(_ delivery: Delivery, _ failure: JobFailure) {
        guard let handler = setup.handlers[delivery.jobName] else {
            return Execution.afterwards { [environment] in
                await environment.onDeadLetter?(delivery.jobID, failure)
            }
        }
        let execution = Execution(delivery, handler, environment)
        Execution.afterwards { await execution.runHooks(afterGivingUp: failure) }
    }

    // MARK: - The lease

    private static let announcing = "announce itself"
    private static let renewing = "renew its lease"

    /// Announces the worker, for as long as it takes.
    private func openSession() async {
        while machine.stop == nil {
            var opened: (any WorkerSession)?
            do {
                let sink = InboxSink(inbox: inbox, worker: presence.id)
                opened = try await backend.broker.open(presence, lease: configuration.lease, sink: sink)
                // Those of queues that were added later as well.
                let added = machine.queues.compactMap { queue in
                    queue.limits.map { (LimitTarget.queue(queue.name), $0) }
                }
                let limits = setup.limits.merging(added) { _, later in later }
                try await backend.limits?.declareLimits(limits, aliases: setup.aliases)
                for queue in machine.queues { try await bindTopics(of: queue) }
                // Last, for the worker claims as soon as there is a session.
                session.current = opened
                isAlive = true
                patience.succeeded(Self.announcing)
                return publishHealth()
            } catch {
                // Perhaps it is announced. What cannot be closed either has a lease that passes.
                try? await opened?.close()
                beginAgain()
                await patience.backOff(after: error, from: Self.announcing)
                takeInbox()
            }
        }
    }

    private func bindTopics(of queue: QueueSubscription) async throws {
        for topics in queue.topics { try await backend.topics?.bind(queue: queue.name, to: topics) }
    }

    private func noteRenewal(_ error: (any Error)?) {
        isAlive = error == nil
        if let error {
            patience.failed(Self.renewing, error)
        } else {
            patience.succeeded(Self.renewing)
            events.tell(.heartbeat, presence, at: backend.clock)
        }
        presence.running = machine.runs.count
    }

    private func leaseWasLost(by worker: WorkerID) async {
        guard worker == presence.id else { return }
        events.tell(.leaseLost, presence, at: backend.clock)
        machine.loseLease()
        perform()
        beginAgain()
        await openSession()
        inbox.bell.ring()
        publishHealth()
    }

    /// Goes on as a new incarnation.
    private func beginAgain() {
        session.current = nil
        presence.id = JobIdentifier.make()
        machine.renewed()
    }

    // MARK: - Asked and told while it runs

    func perform(_ command: WorkerCommand) async -> WorkerReply {
        switch command {
        case .status: return .status(status)
        case .resize(let lane):
            guard setup.lanes[lane.kind] != nil else {
                return .refused("no handler of this worker runs in the \(lane.kind) lane")
            }
            resize(lane.kind, to: lane.slots)
        case .cancel(let id):
            guard machine.cancel(id, .requested, time) else { return .refused("this worker does not have \(id)") }
        case .addQueue(let queue): if let refusal = await add(queue) { return .refused(refusal) }
        case .removeQueue(let name):
            let parts = WorkerSetup.parts(of: QueueSubscription(name), configuration).map(\.name)
            guard parts.contains(where: { machine.remove(queue: $0) }) else {
                return .refused("this worker does not consume \(name)")
            }
            for part in parts { _ = machine.remove(queue: part) }
            await announceQueues()
        }
        perform()
        inbox.bell.ring()
        return .done
    }

    /// - Returns: why the queue is not consumed; nil when it is.
    private func add(_ queue: QueueSubscription) async -> String? {
        let parts = WorkerSetup.parts(of: queue, configuration)
        let consumed = consumedQueues
        guard parts.allSatisfy({ !consumed.contains($0.name) }) else {
            return "this worker consumes \(queue.name) already"
        }
        do {
            try WorkerSetup.check(queue, backend)
            if let limits = queue.limits {
                try await backend.limits?.declareLimits([.queue(queue.name): limits], aliases: [:])
            }
            try await bindTopics(of: queue)
        } catch {
            return "\(error)"
        }
        for part in parts { _ = machine.add(part) }
        await announceQueues()
        return nil
    }

    /// Tells the broker at once what is consumed. What fails is done by the next renewal of the lease.
    private func announceQueues() async {
        presence.queues = machine.queues.map(\.name)
        _ = try? await session.current?.renew(presence)
    }

    func resize(_ lane: LaneKind, to slots: Int) {
        machine.resize(lane, to: slots)
        perform()
        inbox.bell.ring()
    }

    private func noteSize(of lane: LaneKind, _ slots: Int, before: Int) {
        logger.info("the \(lane) lane has another size", metadata: ["slots": "\(slots)", "before": "\(before)"])
        if lane == .process { children?.resize(to: slots) }
        if lane == .blocking { blockingThreads.resize(to: slots) }
        presence.concurrency = machine.slots.capacity.values.reduce(0, +)
    }

    var consumedQueues: Set<String> { Set(machine.queues.map(\.name)) }

    /// The lanes as they are, and the queues; nil when the worker stops.
    func lanesToScale() -> (lanes: [LaneKind: LaneScaling.Lane], queues: Set<String>)? {
        guard machine.stop == nil else { return nil }
        let lanes = machine.slots.capacity.map { lane, slots in
            (lane, LaneScaling.Lane(slots: slots, used: machine.slots.used(lane)))
        }
        return (Dictionary(uniqueKeysWithValues: lanes), consumedQueues)
    }

    private var status: WorkerStatus {
        var worker = presence
        worker.running = machine.runs.count
        let jobs = machine.runs.values.map { run in
            WorkerStatus.JobStatus(
                jobID: run.jobID, jobName: run.jobName, queue: run.queue, attempt: run.attempt, lane: run.needs.lane,
                claimedAt: run.claimedAt, hasBegun: run.hasBegun)
        }
        return WorkerStatus(
            worker: worker, lanes: lanes,
            jobs: jobs.sorted { ($0.claimedAt, $0.jobID) < ($1.claimedAt, $1.jobID) }, health: health)
    }

    private var health: WorkerHealth {
        WorkerHealth(
            isAlive: isAlive, isConsuming: isAlive && machine.isConsuming, running: machine.runs.count,
            concurrency: presence.concurrency, isDeaf: isDeaf)
    }

    var intake: DeafnessWatch.Intake {
        var takes: [String: Set<String>] = [:]
        if machine.stop == nil, !machine.isQuiet {
            for queue in machine.queues {
                takes[queue.name] = Set(setup.handlers.keys.filter { machine.hasRoom(for: $0, of: queue.name) })
            }
        }
        return DeafnessWatch.Intake(accepted: machine.accepted, takes: takes)
    }

    func noteDeafness(_ isDeaf: Bool) {
        if isDeaf, !self.isDeaf {
            logger.error("the worker took nothing for 30 s, though it has room and jobs that it knows wait")
        }
        self.isDeaf = isDeaf
        publishHealth()
    }

    private func publishHealth() { inbox.health = health }
}
