public import Logging
public import Metrics
public import ServiceLifecycle
import Synchronization

/// Takes jobs from queues and performs them.
///
/// ```swift
/// let worker = Worker(backend, queues: ["media", .queue("mail", concurrency: 4)], lanes: [.async(64), .blocking(4)], logger: logger) {
///     Handler(ProcessVideo.self, in: .blocking) { job, context in … }
/// }
/// try await worker.runUntilSignalled()
/// ```
/// A `Service`: a graceful shutdown drains it. It takes a slot before it takes a job, so it never hoards jobs it cannot
/// start.
public final class Worker: Service {
    public struct Configuration: Sendable {
        /// What the worker is called everywhere: `name@host`. Without an `@` the host is added; nil, the default, is
        /// `hoist-<process id>`. Give each live worker a name of its own: two that answer alike confuse every tool.
        /// Jobs for this worker alone, see ``isAddressable``, name it with the host, or as it is written here.
        public var name: String?
        public var order: QueueOrder
        /// What this worker has that others may not: `gpu`, `eu`. Jobs that require labels go to workers that have all
        /// of them, from a part of their queue, `media[gpu]`, which such a worker consumes before the rest. At most 4,
        /// for every set of them is a part. A part is a queue of its own: limits, pauses and the concurrency of a
        /// subscription are for each part apart.
        public var labels: Set<String>
        /// Whether jobs may be sent to this worker alone, by its name: ``EnqueueOption/worker(_:)``. Give it a name
        /// that it keeps then.
        public var isAddressable: Bool
        /// The channels whose broadcasts this worker performs, from the queue that is its own. Give it a name that it
        /// keeps: what a worker with another name left there when it was killed is performed by nobody. See
        /// ``JobClient/broadcast(_:on:_:)``.
        public var broadcastChannels: [String]
        /// How long a worker that does not renew its lease counts as alive. 3.5 seconds by default, at least 1; it is
        /// renewed five times as often.
        public var lease: Duration
        /// How long a graceful shutdown waits for running jobs before it hands them back. 25 seconds by default.
        public var drainTimeout: Duration
        /// Ends the worker once its queues hold nothing that is due or will be.
        public var isBurst: Bool
        /// In burst mode: does not wait for jobs that are due later.
        public var burstLeavesDelayedJobs = false
        /// How much the worker has of what its handlers need, see ``Handler/needs(_:_:)``: `["gpu": 1]`. None by
        /// default.
        public var resources: [String: Int]
        /// How lanes with a range of slots grow and shrink.
        public var autoscaling: Autoscaling
        /// Limits of jobs that have none of their own. What only a process can keep holds for the process lane.
        public var limits: RunLimits
        /// How the process lane keeps its children.
        public var processes: ProcessOptions
        /// How many of the last lines that a job wrote are kept with it. 200 by default, 0 for none.
        public var logLines: Int
        /// Runs around every job, the first one outermost.
        public var middleware: [any PerformMiddleware]
        /// The queue of the tasks that follow a task of Celery's and name no queue of their own, such as the next step
        /// of a chain: Celery's `task_default_queue`. Routing rules of ``client``, and the queue of a job that has a
        /// handler here, come first. `celery` by default.
        public var celeryQueue = "celery"
        /// The client that handlers enqueue through; its logger is the worker's.
        public var client: JobClient.Configuration
        /// Where the worker's metrics go; nil, the default, for the factory that `MetricsSystem` has when the worker runs.
        public var metrics: (any MetricsFactory)?
        /// The limits of what this process reads, see ``WireLimits/setDefault(_:)``; nil, the default, leaves them as
        /// they are.
        public var messageLimits: WireLimits?
        /// Are told what happens to this worker and its jobs. None by default.
        public var sinks: [any EventSink] = []
        /// When events of jobs are sent to monitors. Of no effect where the backend has no ``Fanout``.
        public var events: EventMode
        /// How many events of jobs are sent in a second. Above that whole jobs are left out, but none that fails, and
        /// the totals in heartbeats stay exact. 10,000 by default.
        public var eventsPerSecond = 10_000
        /// How often the worker says that it is alive, to monitors and to Celery's tools. 2 seconds by default, at
        /// least 0.1. It counts as dead when it was silent for twice as long.
        public var heartbeatInterval: Duration
        /// Which requests from outside the worker obeys.
        public var control: ControlMode
        /// What the worker can be asked for besides the commands that every worker has.
        public var commands: [ControlCommand]
        /// The name of the program, as the owner of the schedules that it declares. Workers of one program share it. The
        /// name of the executable by default.
        public var app = Executable.name
        /// The revision of the program. Where workers of several revisions run at once, as during a deploy, the schedules
        /// that the highest declares hold. 0 by default.
        public var appRevision = 0
        /// What log lines call the worker: a program with workers inside other parts gives them another name.
        package var noun = "worker"
        /// Whether each job that has succeeded is worth a line.
        package var logsEveryJob = true
        /// Called once before the first job, for clients that handlers share. What it throws ends the worker.
        public var onStart: (@Sendable () async throws -> Void)?
        public var onStop: (@Sendable () async -> Void)?
        /// Called for every job that becomes a dead letter here: its last attempt failed in this worker, or this worker
        /// found that the worker which ran it has died once too often.
        public var onDeadLetter: (@Sendable (JobID, JobFailure) async -> Void)?

        public init(
            name: String? = nil, order: QueueOrder = .strict, labels: Set<String> = [], isAddressable: Bool = false,
            broadcastChannels: [String] = [], lease: Duration = .milliseconds(3500),
            drainTimeout: Duration = .seconds(25),
            isBurst: Bool = false, resources: [String: Int] = [:], autoscaling: Autoscaling = Autoscaling(),
            limits: RunLimits = RunLimits(), processes: ProcessOptions = ProcessOptions(), logLines: Int = 200,
            middleware: [any PerformMiddleware] = [], client: JobClient.Configuration = .init(),
            metrics: (any MetricsFactory)? = nil, events: EventMode = .whenAsked,
            heartbeatInterval: Duration = .seconds(2), control: ControlMode = .all, commands: [ControlCommand] = [],
            onStart: (@Sendable () async throws -> Void)? = nil,
            onStop: (@Sendable () async -> Void)? = nil,
            onDeadLetter: (@Sendable (JobID, JobFailure) async -> Void)? = nil
        ) {
            self.name = name
            self.order = order
            self.labels = labels
            self.isAddressable = isAddressable
            self.broadcastChannels = broadcastChannels
            self.lease = max(lease, .seconds(1))
            self.drainTimeout = drainTimeout
            self.isBurst = isBurst
            self.resources = resources
            self.autoscaling = autoscaling
            self.limits = limits
            self.processes = processes
            self.logLines = max(0, logLines)
            self.middleware = middleware
            self.client = client
            self.metrics = metrics
            self.events = events
            self.heartbeatInterval = max(heartbeatInterval, .milliseconds(100))
            self.control = control
            self.commands = commands
            self.onStart = onStart
            self.onStop = onStop
            self.onDeadLetter = onDeadLetter
        }
    }

    private let backend: Backend
    package let queues: [QueueSubscription]
    package let lanes: [Lane]
    package let configuration: Configuration
    private let logger: Logger
    private let handlers: [Handler]
    private let schedules: [Schedule]
    let inbox = WorkerInbox()
    /// Set while the worker runs.
    private let engine = Mutex<WorkerEngine?>(nil)
    private let liveLimits = Mutex<[String: RunLimits]>([:])

    /// - Parameters:
    ///   - backend: where the jobs wait.
    ///   - queues: consumed in this order, see ``Configuration/order``.
    ///   - lanes: the slots of each lane; a lane that is not named has 64 (`async`), 4 (`blocking`), or one for each
    ///     processor, two at least (`process`).
    ///   - configuration: everything that has a default.
    ///   - logger: for the worker's own lines, and for handlers with the job added.
    ///   - handlers: the code of each kind of job.
    ///   - schedules: jobs that repeat. They are stored when the worker starts, and every worker keeps time for them:
    ///     see <doc:Schedules>.
    public init(
        _ backend: some BackendConvertible, queues: [QueueSubscription] = ["default"], lanes: [Lane] = [],
        configuration: Configuration = Configuration(), logger: Logger, @HandlerBuilder handlers: () -> [Handler],
        @ScheduleBuilder schedules: () -> [Schedule] = { [] }
    ) {
        self.backend = backend.backend
        self.queues = queues
        self.lanes = lanes
        self.configuration = configuration
        self.logger = logger
        self.handlers = handlers()
        self.schedules = schedules()
    }

    /// Works until a graceful shutdown has drained it, ``stop(_:)`` was called, or the queues are empty in burst mode.
    /// It also returns when its task is cancelled; running jobs are handed back then, as they are by a drain that runs
    /// out of time. A backend that is away is waited for.
    ///
    /// In a child of the process lane, see ``WorkerChild``, it performs what the worker hands it, until that is done
    /// with it.
    /// - Throws: ``WorkerError`` when handlers or queues make no sense, ``ScheduleError`` when a schedule makes no sense or is
    ///   somebody else's, what `onStart` throws, and in a child that another worker has started `CancellationError` when its
    ///   task is cancelled. A retry is safe: no job was taken.
    public func run() async throws {
        if let limits = configuration.messageLimits { WireLimits.setDefault(limits) }
        if let channel = ChildChannel.inherited, let parent = ParentBackend.shared {
            return try await runAsChild(channel, parent)
        }
        ignoreBrokenPipes()
        let engine = try WorkerEngine(
            backend: backend, queues: queues, lanes: lanes, handlers: handlers, configuration: configuration,
            logger: logger,
            inbox: inbox, liveLimits: { [weak self] name in self?.liveLimits.withLock { $0[name] } ?? RunLimits() },
            setLimits: { [weak self] limits, name in try self?.setLimits(limits, forJob: name) })
        try await configuration.onStart?()
        let timekeeper = Timekeeper(
            backend, schedules, app: configuration.app, revision: configuration.appRevision,
            client: configuration.client, logger: logger)
        self.engine.withLock { $0 = engine }
        defer { self.engine.withLock { $0 = nil } }
        let refusal = await withTaskCancellationHandler {
            await withGracefulShutdownHandler { [inbox, configuration] () -> (any Error)? in
                do {
                    guard try await timekeeper.declare(unless: inbox) else { return nil }
                } catch {
                    return error
                }
                await engine.run(besides: configuration.isBurst ? nil : timekeeper.ticker(named: engine.name))
                return nil
            } onGracefulShutdown: { [inbox] in
                inbox.stop(.drain)
            }
        } onCancel: { [inbox] in
            inbox.stop(.immediately)
        }
        await configuration.onStop?()
        if let refusal { throw refusal }
    }

    /// Works as the main task of a program: as ``run()``, and SIGTERM or SIGINT drains the worker. A second signal
    /// hands unfinished jobs back at once, a third one gives up waiting for them.
    ///
    /// For a program that has other services, or a `ServiceGroup` of its own that takes the signals, ``run()`` is the
    /// one to call: without either, SIGTERM would end the process at once, and each of its jobs would count a lost
    /// worker.
    /// - Parameter services: run beside the worker, and stopped with it.
    /// - Throws: as ``run()``, and what the services throw.
    public func runUntilSignalled(besides services: [any Service] = []) async throws {
        try await SignalledServices.run(services + [self], logger: logger) { [self] in stop(.immediately) }
    }

    /// Stops the worker from inside the program. A second, harder call shortens the first.
    public func stop(_ mode: StopMode = .drain) { inbox.stop(mode) }

    /// Asks the live worker something, or tells it something. It answers also while its backend is away, and while jobs
    /// occupy all of its lanes.
    /// - Returns: the answer; a refusal where the worker does not run in this process now.
    public func perform(_ command: WorkerCommand) async -> WorkerReply {
        guard let engine = engine.withLock({ $0 }) else { return .refused("the worker does not run") }
        return await engine.perform(command)
    }

    /// Performs the jobs of one process, with no backend of its own.
    private func runAsChild(_ channel: ChildChannel, _ parent: ParentBackend) async throws {
        // Another worker of the program has started this child.
        guard channel.key == Self.childKey(handlers) else { return try await Task.sleep(for: .seconds(86_400 * 365)) }
        try await configuration.onStart?()
        var byName: [String: RegisteredHandler] = [:]
        for handler in handlers { for name in handler.names { byName[name] = RegisteredHandler(handler) } }
        await ChildWorker(channel, parent, handlers: byName, configuration: configuration, logger: logger).run()
        await configuration.onStop?()
    }

    /// Tells the workers of a program apart: the same in a worker and in its children.
    static func childKey(_ handlers: [Handler]) -> String {
        let names = handlers.filter { $0.lane == .process }.flatMap(\.names).sorted().joined(separator: "\n")
        return String(names.utf8.stableHash, radix: 16)
    }

    /// Changes the limits of a job on the live worker, for attempts that begin from now on.
    /// - Parameters:
    ///   - limits: what is nil goes back to what call and job say.
    ///   - name: the wire name.
    /// - Throws: ``WorkerError`` when a limit needs a process and the job does not run in the process lane: nothing is
    ///   changed then.
    public func setLimits(_ limits: RunLimits, forJob name: String) throws {
        let handler = handlers.first { $0.names.contains(name) }
        try handler?.check(limits)
        liveLimits.withLock { live in for name in handler?.names ?? [name] { live[name] = limits } }
    }

    /// Gives a lane more slots or fewer on the live worker. Jobs that run are not disturbed: a lane that shrinks does
    /// so as they end. Lanes with a range go on from there, and within the range.
    public func resize(_ lane: Lane) { inbox.resize(lane) }

    /// Whether the worker lives and works, for a probe. It is answered at once, whatever jobs do.
    public var health: WorkerHealth {
        inbox.noteHealthAsked()
        return inbox.health
    }

    public struct StopMode: Sendable, Hashable {
        let rank: Int

        /// Take no more; jobs that run may go on as long as they like.
        public static let quiet = StopMode(rank: 1)
        /// Take no more, give running jobs until the drain timeout, hand the rest back.
        public static let drain = StopMode(rank: 2)
        /// Hand everything back now.
        public static let immediately = StopMode(rank: 3)
    }
}

/// What a probe wants to know of a worker.
public struct WorkerHealth: Sendable, Hashable, Codable {
    /// The worker has a lease and renewed it in time.
    public var isAlive: Bool
    /// The backend answered the last request for work, and the worker still takes jobs. This, and not mere life, is
    /// readiness.
    public var isConsuming: Bool
    public var running: Int
    public var concurrency: Int
    /// The worker took nothing for 30 seconds though it had room and jobs that it knows waited, which no pause and no
    /// limit held up. Looked at as long as somebody asks for the health at least once a minute.
    public var isDeaf = false

    /// Whether the worker is ready to work: it consumes, and is not deaf.
    public var isReady: Bool { isConsuming && !isDeaf }
}

/// A worker that cannot be set up as it was asked to. Trying again without a change cannot help.
public struct WorkerError: Error, Sendable, CustomStringConvertible {
    public var message: String
    public var description: String { message }
}
