public import Hoist
public import Logging

extension JobDirectory {
    /// The jobs of one kind that wait in this backend, the oldest first: for assertions that something was enqueued.
    ///
    /// ```swift
    /// #expect(try await backend.enqueued(SendMail.self) == [SendMail(to: "ada@example.org")])
    /// ```
    /// - Throws: `ArgumentError` when the arguments of a waiting job do not fit its type; `BackendError` when the
    ///   backend cannot be read, after which a retry is safe.
    public func enqueued<J: Job>(_ type: J.Type) async throws -> [J] {
        let filter = JobFilter(states: [.waiting, .scheduled, .retrying], name: J.name, limit: .max)
        var jobs: [J] = []
        for record in try await self.jobs(filter).reversed() {
            guard let arguments = try await arguments(of: record.id) else { continue }
            jobs.append(try arguments.bind(job: type).job)
        }
        return jobs
    }
}

/// A client and its worker in one test: when `enqueue` returns, the job and every job that it enqueued have run.
///
/// ```swift
/// let inline = InlineJobs { Handler(SendMail.self) { mail, _ in … } }
/// try await inline.client.enqueue(SendMail(to: "ada@example.org"))
/// ```
/// Delayed jobs and retries wait until ``clock`` is advanced and ``runDueJobs()`` is called.
public struct InlineJobs: Sendable {
    public let backend: MemoryBackend
    public let clock: TestClock
    public let client: JobClient
    private let runner: InlineRunner

    public init(logger: Logger = InlineJobs.quietLogger, @HandlerBuilder handlers: () -> [Handler]) {
        clock = TestClock()
        backend = MemoryBackend(clock: clock)
        runner = InlineRunner(backend: backend, handlers: handlers(), logger: logger)
        client = JobClient(backend, configuration: .init(middleware: [runner]), logger: logger)
    }

    /// Warnings and worse, to where the program logs.
    public static var quietLogger: Logger {
        var logger = Logger(label: "hoist.inline")
        logger.logLevel = .warning
        return logger
    }

    /// Runs every job that is due.
    /// - Throws: `WorkerError` when the handlers cannot be registered, for instance when two have one name; no job has
    ///   run then. A job that fails does not throw; its record has the failure.
    public func runDueJobs() async throws { try await runner.run() }
}

private struct InlineRunner: EnqueueMiddleware {
    let backend: MemoryBackend
    let handlers: [Handler]
    let logger: Logger

    func enqueue(
        _ messages: [Message], next: @Sendable ([Message]) async throws -> [PublishResult]
    ) async throws -> [PublishResult] {
        let results = try await next(messages)
        // A job enqueued by a handler runs in the round that runs the handler.
        if JobContext.current == nil { try await run() }
        return results
    }

    func run() async throws {
        while true {
            let due = try await backend.jobs(JobFilter(states: [.waiting], limit: .max))
            let known = Set(handlers.flatMap(\.names))
            let queues = Set(due.filter { known.contains($0.name) }.map(\.queue))
            guard !queues.isEmpty else { return }
            var configuration = Worker.Configuration(isBurst: true)
            configuration.burstLeavesDelayedJobs = true
            let worker = Worker(
                backend, queues: queues.sorted().map { QueueSubscription($0) }, configuration: configuration,
                logger: logger
            ) { handlers.map { $0.inThisProcess() } }
            try await worker.run()
        }
    }
}

/// Runs `body` beside a real worker, which is stopped afterwards, also when `body` throws.
/// - Throws: What the worker's `run()` throws, for instance `WorkerError` when it cannot be set up; else what `body`
///   throws.
public func withWorker<T: Sendable>(_ worker: Worker, _ body: () async throws -> T) async throws -> T {
    try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await worker.run() }
        let result: Result<T, any Error>
        do { result = .success(try await body()) } catch { result = .failure(error) }
        worker.stop(.immediately)
        try await group.waitForAll()
        return try result.get()
    }
}
