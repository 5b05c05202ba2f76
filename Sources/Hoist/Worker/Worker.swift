public import Logging
public import Metrics
public import ServiceLifecycle
import Synchronization

/// Takes jobs from queues and performs them.
///
/// ```swift
/// let worker = Worker(backend, queues: ["media", .queue("mail", concurrency: 4)], lanes: [.async(64), .blocking(4)], logger: logger) {
///     Handle(ProcessVideo.self, in: .blocking) { job, context in … }
/// }
/// try await worker.run()
/// ```
/// A `Service`: a graceful shutdown drains it. It takes a slot before it takes a job, so it never hoards jobs it cannot start.
public final class Worker: Service {
    public struct Configuration: Sendable {
        /// A name for people; host and process id by default.
        public var name: String?
        public var order: QueueOrder
        /// What this worker has that others may not: `gpu`, `eu`. Jobs that require labels go to workers that have all of them, from
        /// a part of their queue, `media[gpu]`, which such a worker consumes before the rest. At most 4, for every set of them is a part.
        /// A part is a queue of its own: limits, pauses and the concurrency of a subscription are for each part apart.
        public var labels: Set<String>
        /// Whether jobs may be sent to this worker alone, by its name: ``EnqueueOption/worker(_:)``. Give it a name that it keeps then.
        public var isAddressable: Bool
        /// The channels whose broadcasts this worker performs, from the queue that is its own. Give it a name that it keeps: what a worker
        /// with another name left there when it was killed is performed by nobody. See ``JobClient/broadcast(_:on:_:)``.
        public var broadcastChannels: [String]
        /// How long a worker that does not renew its lease counts as alive. 3.5 seconds by default, at least 1; it is renewed five times as
        /// often.
        public var lease: Duration
        /// How long a graceful shutdown waits for running jobs before it hands them back. 25 seconds by default.
        public var drainTimeout: Duration
        /// Ends the worker once its queues hold nothing that is due or will be.
        public var isBurst: Bool
        /// In burst mode: does not wait for jobs that are due later.
        public var burstLeavesDelayedJobs = false
        /// Runs around every job, the first one outermost.
        public var middleware: [any PerformMiddleware]
        /// The client that handlers enqueue through; its logger is the worker's.
        public var client: JobClient.Configuration
        public var metrics: any MetricsFactory
        /// Called once before the first job, for clients that handlers share. What it throws ends the worker.
        public var onStart: (@Sendable () async throws -> Void)?
        public var onStop: (@Sendable () async -> Void)?
        /// Called for every job that becomes a dead letter here.
        public var onDeadLetter: (@Sendable (JobID, JobFailure) async -> Void)?

        public init(
            name: String? = nil, order: QueueOrder = .strict, labels: Set<String> = [], isAddressable: Bool = false,
            broadcastChannels: [String] = [], lease: Duration = .milliseconds(3500), drainTimeout: Duration = .seconds(25),
            isBurst: Bool = false, middleware: [any PerformMiddleware] = [], client: JobClient.Configuration = .init(),
            metrics: any MetricsFactory = MetricsSystem.factory, onStart: (@Sendable () async throws -> Void)? = nil,
            onStop: (@Sendable () async -> Void)? = nil, onDeadLetter: (@Sendable (JobID, JobFailure) async -> Void)? = nil
        ) {
            self.name = name
            self.order = order
            self.labels = labels
            self.isAddressable = isAddressable
            self.broadcastChannels = broadcastChannels
            self.lease = max(lease, .seconds(1))
            self.drainTimeout = drainTimeout
            self.isBurst = isBurst
            self.middleware = middleware
            self.client = client
            self.metrics = metrics
            self.onStart = onStart
            self.onStop = onStop
            self.onDeadLetter = onDeadLetter
        }
    }

    private let backend: any Backend
    private let queues: [QueueSubscription]
    private let lanes: [Lane]
    private let configuration: Configuration
    private let logger: Logger
    private let handles: [Handle]
    let inbox = WorkerInbox()
    private let timeLimits = Mutex<[String: Duration]>([:])

    /// - Parameters:
    ///   - backend: where the jobs wait.
    ///   - queues: consumed in this order, see ``Configuration/order``.
    ///   - lanes: the slots of each lane; a lane that is not named has 64 (`async`) or 4 (`blocking`).
    ///   - configuration: everything that has a default.
    ///   - logger: for the worker's own lines, and for handlers with the job added.
    ///   - handlers: the code of each kind of job.
    public init(
        _ backend: any Backend, queues: [QueueSubscription] = ["default"], lanes: [Lane] = [],
        configuration: Configuration = Configuration(), logger: Logger, @HandlerBuilder handlers: () -> [Handle]
    ) {
        self.backend = backend
        self.queues = queues
        self.lanes = lanes
        self.configuration = configuration
        self.logger = logger
        handles = handlers()
    }

    /// Works until a graceful shutdown has drained it, ``stop(_:)`` was called, or the queues are empty in burst mode.
    /// - Throws: ``WorkerError`` when handlers or queues make no sense, what `onStart` throws, and `CancellationError` when its task is
    ///   cancelled: running jobs are handed back then as well. A backend that is away is waited for.
    public func run() async throws {
        let engine = try WorkerEngine(
            backend: backend, queues: queues, lanes: lanes, handles: handles, configuration: configuration, logger: logger,
            inbox: inbox, timeLimits: { [weak self] name in self?.timeLimits.withLock { $0[name] } })
        try await configuration.onStart?()
        await withTaskCancellationHandler {
            await withGracefulShutdownHandler {
                await engine.run()
            } onGracefulShutdown: { [inbox] in
                inbox.stop(.drain)
            }
        } onCancel: { [inbox] in
            inbox.stop(.immediately)
        }
        await configuration.onStop?()
    }

    /// Stops the worker from inside the program. A second, harder call shortens the first.
    public func stop(_ mode: StopMode = .drain) { inbox.stop(mode) }

    /// Changes the time limit of a job on the live worker, for attempts that begin from now on.
    /// - Parameters:
    ///   - limit: nil to go back to what call and job say.
    ///   - name: the wire name.
    public func setTimeLimit(_ limit: Duration?, forJob name: String) {
        timeLimits.withLock { $0[name] = limit }
    }

    /// Whether the worker lives and works, for a probe.
    public var health: WorkerHealth { inbox.health }

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
    /// The backend answered the last request for work, and the worker still takes jobs. This, and not mere life, is readiness.
    public var isConsuming: Bool
    public var running: Int
    public var concurrency: Int
}

/// A worker that cannot be set up as it was asked to. Trying again without a change cannot help.
public struct WorkerError: Error, Sendable, CustomStringConvertible {
    public var message: String
    public var description: String { message }
}
