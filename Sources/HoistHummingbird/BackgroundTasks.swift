public import Hoist
public import Logging
public import ServiceLifecycle
import Synchronization

/// Light work inside the web process, after the response: a mail, a log line, a cache to warm.
///
/// Work that must survive a crash, takes long, or should be retried belongs in a queue: ``perform(_:_:)`` with
/// `.durable` puts it there. Add this object to the server's services: at shutdown it refuses new work and finishes the
/// accepted work.
public final class BackgroundTasks: Service {
    /// Where work runs.
    public struct Kind: Sendable, Hashable {
        let isBlocking: Bool
        /// On Swift's cooperative threads.
        public static let async = Kind(isBlocking: false)
        /// On threads of its own, for code that blocks.
        public static let blocking = Kind(isBlocking: true)
    }

    /// Where a job is kept until it has run.
    public struct Place: Sendable, Hashable {
        let isDurable: Bool
        /// In this process; lost with it.
        public static let here = Place(isDurable: false)
        /// In the queue, by a worker; survives this process.
        public static let durable = Place(isDurable: true)
    }

    private let work: MemoryBackend
    private let local: JobClient
    private let jobs: JobClient
    private let limit: Int
    private let drainTimeout: Duration
    private let logger: Logger
    private let handles: [Handler]
    private let lanes: [Lane]
    private let isClosed = Mutex(false)

    /// - Parameters:
    ///   - jobs: the client that durable jobs go through.
    ///   - limit: how many tasks may wait or run at once. 1,000 by default; more are refused with
    ///     ``BackgroundTasksError``.
    ///   - concurrency: how many async tasks run at once.
    ///   - threads: how many blocking tasks run at once.
    ///   - drainTimeout: how long a shutdown waits for the accepted tasks. 10 seconds by default.
    ///   - logger: for tasks that fail.
    ///   - handlers: for jobs that ``perform(_:_:)`` runs in this process.
    public init(
        jobs: JobClient, limit: Int = 1000, concurrency: Int = 32, threads: Int = 4,
        drainTimeout: Duration = .seconds(10),
        logger: Logger, @HandlerBuilder handlers: () -> [Handler] = { [] }
    ) {
        self.jobs = jobs
        self.limit = limit
        self.drainTimeout = drainTimeout
        self.logger = logger
        work = MemoryBackend(resultRetention: .seconds(60))
        local = JobClient(work, logger: logger)
        lanes = [.async(concurrency), .blocking(threads)]
        handles = handlers()
    }

    /// Runs `body` soon. An error it throws is logged.
    /// - Parameters:
    ///   - name: for the log.
    ///   - kind: where it runs.
    ///   - body: the work.
    /// - Throws: ``BackgroundTasksError`` when too many tasks wait or run already, or the server shuts down; a retry is
    ///   safe then. `CancellationError` when the calling task is cancelled; the work may run nevertheless.
    public func run(_ name: String, _ kind: Kind = .async, _ body: @escaping @Sendable () async throws -> Void)
        async throws
    {
        try await admit()
        let key = closures.withLock { closures in
            closures.next += 1
            closures.bodies[closures.next] = (name, body)
            return closures.next
        }
        if kind.isBlocking {
            try await local.enqueue(BlockingClosure(key: key), .result(.ignore))
        } else {
            try await local.enqueue(AsyncClosure(key: key), .result(.ignore))
        }
    }

    /// Performs a job whose handler was given to this object, or enqueues it for the workers with `.durable`.
    /// - Throws: What `JobClient.enqueue(_:_:)` throws; for a durable job, `BackendError.isRetrySafe` says whether the
    ///   job may have been stored. For a job in this process also ``BackgroundTasksError`` as in ``run(_:_:_:)``, after
    ///   which a retry is safe.
    public func perform<J: Job>(_ job: J, _ place: Place = .here) async throws where J.Input == NoInput {
        if place.isDurable {
            try await jobs.enqueue(job)
        } else {
            try await admit()
            try await local.enqueue(job, .result(.ignore), .queue(Self.queue))
        }
    }

    private static let queue = "default"

    private func admit() async throws {
        if isClosed.withLock({ $0 }) {
            throw BackgroundTasksError(description: "the server is shutting down and takes no more background tasks")
        }
        guard try await pending() < limit else {
            throw BackgroundTasksError(description: "\(limit) background tasks wait or run already")
        }
    }

    private struct Closures {
        var next: Int64 = 0
        var bodies: [Int64: (name: String, body: @Sendable () async throws -> Void)] = [:]
    }

    private let closures = Mutex(Closures())

    private struct AsyncClosure: Job {
        static let name = "hoist.background.async"
        var key: Int64
    }

    private struct BlockingClosure: Job {
        static let name = "hoist.background.blocking"
        var key: Int64
    }

    private func runClosure(_ key: Int64) async {
        guard let (name, body) = closures.withLock({ $0.bodies.removeValue(forKey: key) }) else { return }
        do {
            try await body()
        } catch {
            logger.error("a background task failed", metadata: ["task": "\(name)", "error": "\(error)"])
        }
    }

    /// How many tasks wait or run.
    /// - Throws: Nothing at present: the tasks are counted in memory.
    public func pending() async throws -> Int {
        try await work.queues().reduce(0) { $0 + $1.waiting + $1.scheduled + $1.running }
    }

    /// Works until the server shuts down and the accepted work is done, or the drain timeout has passed.
    /// - Throws: `WorkerError` when the handlers cannot be registered: two handlers have one name, or a handler asks
    ///   for limits, slots or resources that this process does not have. A retry without a change cannot help.
    public func run() async throws {
        // The worker itself tells of tasks that fail.
        var configuration = Worker.Configuration()
        configuration.noun = "worker of background tasks"
        configuration.logsEveryJob = false
        let worker = Worker(
            work, queues: [QueueSubscription(Self.queue)], lanes: lanes, configuration: configuration, logger: logger
        ) {
            Handler(AsyncClosure.self) { [weak self] job, _ in await self?.runClosure(job.key) }
            Handler(BlockingClosure.self, in: .blocking) { [weak self] job, _ in await self?.runClosure(job.key) }
            handles
        }
        // A detached task does not see the graceful shutdown: the worker must finish the accepted work first, up to the
        // drain timeout.
        let running = Task.detached { try await worker.run() }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await running.value }
            group.addTask {
                await cancelWhenGracefulShutdown { [clock = self.work.clock] in
                    let bell = Doorbell()
                    await bell.wait(after: bell.mark, for: nil, clock: clock)
                }
                self.isClosed.withLock { $0 = true }
                try await self.drain()
                worker.stop(.immediately)
            }
            try await group.waitForAll()
        }
    }

    private func drain() async throws {
        let deadline = ContinuousClock.now + drainTimeout
        while true {
            let left = try await pending()
            if left == 0 { return }
            guard ContinuousClock.now < deadline, (try? await Task.sleep(for: .milliseconds(10))) != nil else {
                return logger.warning("background tasks were given up at shutdown", metadata: ["tasks": "\(left)"])
            }
        }
    }
}

/// A background task was not accepted. Trying again later, or durably, is safe.
public struct BackgroundTasksError: Error, Sendable, CustomStringConvertible {
    public let description: String
}
