public import Hoist
public import Logging
public import ServiceLifecycle
import Synchronization

/// Light work inside the web process, after the response: a mail, a log line, a cache to warm.
///
/// What must survive a crash, takes long, or should be retried belongs in a queue; ``perform(_:on:_:)`` makes the same call durable by
/// one word. Add it to the server's services: at shutdown it takes no more and finishes what it has.
public final class BackgroundTasks: Service {
    /// Where work runs.
    public struct Kind: Sendable, Hashable {
        let isBlocking: Bool
        /// On Swift's cooperative threads.
        public static let async = Kind(isBlocking: false)
        /// On threads of its own, for code that blocks.
        public static let blocking = Kind(isBlocking: true)
    }

    /// How sure a job must be to run.
    public struct Place: Sendable, Hashable {
        let isDurable: Bool
        /// In this process; lost with it.
        public static let here = Place(isDurable: false)
        /// In the queue, by a worker; survives this process.
        public static let durable = Place(isDurable: true)
    }

    private struct State {
        var isClosed = false
        var pending = 0
    }

    private let work: MemoryBackend
    private let local: JobClient
    private let jobs: JobClient
    private let limit: Int
    private let drainTimeout: Duration
    private let logger: Logger
    private let handles: [Handle]
    private let lanes: [Lane]
    private let state = Mutex(State())

    /// - Parameters:
    ///   - jobs: the client that durable jobs go through.
    ///   - limit: how much may wait or run at once. 1,000 by default; more is refused with ``BackgroundTasksError``.
    ///   - drainTimeout: how long a shutdown waits for what is left. 10 seconds by default.
    ///   - handlers: for jobs that ``perform(_:on:_:)`` runs in this process.
    public init(
        jobs: JobClient, limit: Int = 1000, concurrency: Int = 32, threads: Int = 4, drainTimeout: Duration = .seconds(10),
        logger: Logger, @HandlerBuilder handlers: () -> [Handle] = { [] }
    ) {
        self.jobs = jobs
        self.limit = limit
        self.drainTimeout = drainTimeout
        self.logger = logger
        work = MemoryBackend()
        local = JobClient(work, logger: logger)
        lanes = [.async(concurrency), .blocking(threads)]
        handles = handlers()
    }

    /// Runs `body` soon. An error it throws is logged.
    /// - Parameter name: for the log.
    /// - Throws: ``BackgroundTasksError`` when too much waits already, or the server shuts down.
    public func run(_ name: String, _ kind: Kind = .async, _ body: @escaping @Sendable () async throws -> Void) async throws {
        try reserve()
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

    /// Performs a job whose handler was given to this object; or, with `.durable`, hands it to the workers.
    public func perform<J: Job>(_ job: J, _ place: Place = .here) async throws {
        if place.isDurable {
            try await jobs.enqueue(job)
        } else {
            try reserve()
            try await local.enqueue(job, .result(.ignore), .queue(Self.queue))
        }
    }

    private static let queue = "default"

    private func reserve() throws(BackgroundTasksError) {
        let isAccepted: Bool? = state.withLock { state in
            if state.isClosed { return nil }
            guard state.pending < limit else { return false }
            state.pending += 1
            return true
        }
        switch isAccepted {
        case true?: return
        case false?: throw BackgroundTasksError(description: "\(limit) background tasks wait or run already")
        case nil: throw BackgroundTasksError(description: "the server is shutting down and takes no more background tasks")
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

    /// How much waits or runs.
    public var pending: Int { state.withLock { $0.pending } }

    public func run() async throws {
        let release: @Sendable (JobContext) async -> Void = { [weak self] _ in self?.state.withLock { $0.pending -= 1 } }
        let worker = Worker(
            work, queues: [QueueSubscription(Self.queue)], lanes: lanes,
            configuration: .init(
                drainTimeout: drainTimeout,
                onDeadLetter: { [logger] id, failure in
                    logger.error("a background task failed", metadata: ["job.id": "\(id)", "error": "\(failure)"])
                }), logger: logger
        ) {
            Handle(AsyncClosure.self) { [weak self] job, _ in await self?.runClosure(job.key) }.onFinish(release)
            Handle(BlockingClosure.self, in: .blocking) { [weak self] job, _ in await self?.runClosure(job.key) }.onFinish(release)
            handles.map { $0.onFinish(release) }
        }
        // The worker itself must not hear of the shutdown: what was accepted is finished first, up to the drain timeout.
        let running = Task { try await worker.run() }
        await cancelWhenGracefulShutdown { [clock = work.clock] in
            let bell = Doorbell()
            await bell.wait(after: bell.mark, for: nil, clock: clock)
        }
        state.withLock { $0.isClosed = true }
        let deadline = work.clock.uptime + drainTimeout.components.seconds * 1_000_000
        while pending > 0, work.clock.uptime < deadline { try? await Task.sleep(for: .milliseconds(10)) }
        if pending > 0 { logger.warning("background tasks were given up at shutdown", metadata: ["tasks": "\(pending)"]) }
        worker.stop(.immediately)
        try await running.value
    }
}

/// A background task was not accepted. Trying again later, or durably, is safe.
public struct BackgroundTasksError: Error, Sendable, CustomStringConvertible {
    public let description: String
}
