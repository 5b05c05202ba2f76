public import Logging
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Enqueues jobs, and gives access to their results.
///
/// A client needs no connection of its own and may be copied freely. Called from a handler, it makes the new job a
/// child of the running job, which passes on parent and root ids, headers and trace automatically.
public struct JobClient: Sendable {
    public struct Configuration: Sendable {
        /// The queue of jobs that neither name a queue nor match a rule. `default` by default.
        public var defaultQueue: String
        /// Routing rules. They override the queue in a job's options, and the queue of a call overrides them.
        public var routes: [RoutingRule]
        /// Run around every enqueue, the first one outermost.
        public var middleware: [any EnqueueMiddleware]
        /// How long an enqueue may take before it throws. 10 seconds by default.
        public var enqueueTimeout: Duration
        /// A message body of more bytes than this is compressed, as with Celery's `compression="zlib"`; nil for never,
        /// the default.
        public var compressesAbove: Int?
        /// How long an enqueue waits for room in a queue that has reached its limit before it throws; nil for not at
        /// all, the default.
        public var waitsWhenFull: Duration?
        /// Signs or encrypts arguments and outputs; nil for not at all, the default. Workers take theirs from
        /// ``Worker/Configuration/client``.
        public var sealing: (any Sealing)?
        /// How long ``JobHandle/output(timeout:)`` and ``JobHandle/updates`` wait for an id that nobody knows: it may
        /// be on its way, and a message of a Python producer that waits is known to nobody. 60 seconds by default.
        public var unknownPatience = Duration.seconds(60)
        /// Are told of each job once the broker has it: ``JobEvent/Kind/sent(_:)``. None by default.
        public var sinks: [any EventSink] = []

        public init(
            defaultQueue: String = "default", routes: [RoutingRule] = [], middleware: [any EnqueueMiddleware] = [],
            enqueueTimeout: Duration = .seconds(10), compressesAbove: Int? = nil, waitsWhenFull: Duration? = nil,
            sealing: (any Sealing)? = nil
        ) {
            self.defaultQueue = defaultQueue
            self.routes = routes
            self.middleware = middleware
            self.enqueueTimeout = enqueueTimeout
            self.compressesAbove = compressesAbove
            self.waitsWhenFull = waitsWhenFull
            self.sealing = sealing
        }
    }

    public let backend: Backend
    public let configuration: Configuration
    private let logger: Logger
    let origin: String
    private let events: EventStream

    public init(_ backend: some BackendConvertible, configuration: Configuration = Configuration(), logger: Logger) {
        self.backend = backend.backend
        self.configuration = configuration
        self.logger = logger
        self.origin = ProcessIdentity.name
        events = EventStream(configuration.sinks)
    }

    /// Enqueues one job.
    /// - Returns: the handle of the job, once the backend has the job. Where the id or unique key is already held, the
    ///   handle of the job that holds it, with ``JobHandle/isNew`` false.
    /// - Throws: ``EnqueueError`` when another job holds the unique key and the policy is to refuse. ``BackendError``;
    ///   where ``BackendError/isRetrySafe`` is false the job may be enqueued, and a retry with the same
    ///   ``EnqueueOption/id(_:)`` is safe. `EncodingError` when the job does not encode, and ``WireError`` when it is
    ///   larger or deeper than ``WireLimits/default`` or has a name or id that is empty or longer than 1,024 bytes:
    ///   nothing is enqueued then. `CancellationError` when the task is cancelled; the job may be enqueued then. Errors
    ///   of ``Configuration/sealing`` and of ``Configuration/middleware`` pass through.
    @discardableResult
    public func enqueue<J: Job>(
        _ job: J, _ options: EnqueueOption...
    ) async throws -> JobHandle<J.Output> where J.Input == NoInput {
        try await enqueue(contentsOf: [job], options)[0]
    }

    /// Enqueues one job, with options that the program has put together.
    /// - Throws: as ``enqueue(_:_:)->JobHandle<J.Output>``.
    @discardableResult
    public func enqueue<J: Job>(
        _ job: J, options: [EnqueueOption]
    ) async throws -> JobHandle<J.Output> where J.Input == NoInput {
        try await enqueue(contentsOf: [job], options)[0]
    }

    /// Enqueues one job with arguments that are more than its properties.
    func enqueue<J: Job>(
        _ job: J, _ arguments: Arguments, _ options: [EnqueueOption]
    ) async throws -> JobHandle<J.Output> {
        let defaults = J.options
        let request = request(J.name, J.secretArguments, defaults: defaults, options)
        let partition = request.partition ?? job.partitionKey ?? (defaults.hasPartitions ? "" : nil)
        let content = Content(arguments: arguments, partition: partition, unique: job.uniqueKey)
        let published = try await publish([content], as: request, queue: defaults.queue) { $0 }
        return JobHandle(published[0], backend: backend, configuration)
    }

    /// Publishes messages that are made already: the first steps of a workflow.
    func publish(steps messages: [Message]) async throws {
        let parent = JobContext.current
        for step in Self.steps(of: messages) {
            let enqueued = try await JobTracing.enqueueing(step) { try await publish($0) }
            parent?.noteChildren(enqueued.map(\.id))
        }
    }

    /// Enqueues many jobs of a kind in few round trips, in order, in steps of 5,000 jobs. The backend stores a step as
    /// a whole or not at all. Many jobs are encoded on several processors at once.
    /// - Parameters:
    ///   - jobs: any number. The messages of all jobs are made before the first job is enqueued.
    ///   - options: the options of every job.
    /// - Throws: as ``enqueue(_:_:)->JobHandle<J.Output>``. The jobs of earlier steps are enqueued then, and the jobs of later steps are
    ///   not. With ``EnqueueError`` the jobs of the failed step are enqueued too, except for the jobs that the error
    ///   names.
    @discardableResult
    public func enqueue<J: Job>(
        contentsOf jobs: some Collection<J>, _ options: [EnqueueOption] = []
    ) async throws -> [JobHandle<J.Output>] {
        let defaults = J.options
        let request = request(J.name, J.secretArguments, defaults: defaults, options)
        let defaultPartition: String? = defaults.hasPartitions ? "" : nil
        return try await publish(Array(jobs), as: request, queue: defaults.queue) { job in
            Content(
                arguments: Arguments(keyword: try WireEncoder.encodeArguments(job)),
                partition: request.partition ?? job.partitionKey ?? defaultPartition, unique: job.uniqueKey)
        }.map { JobHandle($0, backend: backend, configuration) }
    }

    /// Enqueues a job that this program has no type for.
    /// - Parameters:
    ///   - name: the wire name.
    ///   - arguments: by place and by name.
    ///   - defaults: the options that stand in for the job's own options.
    ///   - options: override the defaults.
    /// - Throws: as ``enqueue(_:_:)->JobHandle<J.Output>``, without `EncodingError`.
    @discardableResult
    public func enqueue(
        named name: String, arguments: Arguments = Arguments(), defaults: JobOptions = JobOptions(),
        options: [EnqueueOption] = []
    ) async throws -> JobHandle<WireValue> {
        let request = request(name, [], defaults: defaults, options)
        let content = Content(arguments: arguments, partition: request.partition, unique: nil)
        let published = try await publish([content], as: request, queue: defaults.queue) { $0 }
        return JobHandle(published[0], backend: backend, configuration)
    }

    /// Enqueues a copy of the job, with an id of its own, in every queue that is bound to its topic: see
    /// ``QueueSubscription/topics``.
    /// - Parameters:
    ///   - job: the job.
    ///   - topic: words separated by dots.
    ///   - exchange: the exchange that the topic belongs to.
    ///   - options: the options of every copy. The name of the queue is appended to an id; queues, workers and unique
    ///     keys are ignored.
    /// - Returns: a handle for each copy. Without a bound queue there is no handle, and nothing is enqueued.
    /// - Throws: as ``enqueue(_:_:)->JobHandle<J.Output>``; some copies may be enqueued then, and a retry with the same
    ///   ``EnqueueOption/id(_:)`` is safe. ``BackendError`` `.misuse` where the backend knows no topics; nothing is
    ///   enqueued then.
    @discardableResult
    public func publish<J: Job>(
        _ job: J, topic: String, exchange: String, _ options: EnqueueOption...
    ) async throws -> [JobHandle<J.Output>] {
        var handles: [JobHandle<J.Output>] = []
        for queue in try await backend.topicRouting().queues(of: exchange, topic: topic) {
            let direct = EnqueueOption { request in
                (request.queue, request.worker, request.isForSameWorker, request.unique) = (queue, nil, false, nil)
                request.isNeverUnique = true
                request.id = request.id.map { $0 + "." + queue }
            }
            handles += try await enqueue(contentsOf: [job], options + [direct])
        }
        return handles
    }

    /// Broadcasts the job to every worker that listens to the channel at this moment: see
    /// ``Worker/Configuration/broadcastChannels``. Celery's workers with a `Broadcast` queue of this name are included.
    /// - Parameters:
    ///   - job: the job. Each worker gives its copy an id of its own: the id of the job with the name of the worker
    ///     appended.
    ///   - channel: the name of the channel.
    ///   - options: as for any job; queues, workers and unique keys are ignored.
    /// - Returns: the number of programs that received the job, as far as the backend can tell. Workers that did not
    ///   listen at this moment have missed it.
    /// - Throws: ``BackendError``, with `.misuse` where the backend cannot broadcast; where
    ///   ``BackendError/isRetrySafe`` is false the job may have been sent, and a retry needs the same
    ///   ``EnqueueOption/id(_:)``: a Hoist worker stores no second copy while the backend knows the id.
    ///   `EncodingError`, ``WireError``, `CancellationError` and errors of ``Configuration/sealing`` as
    ///   ``enqueue(_:_:)->JobHandle<J.Output>``.
    @discardableResult
    public func broadcast<J: Job>(_ job: J, on channel: String, _ options: EnqueueOption...) async throws -> Int {
        let request = request(J.name, J.secretArguments, defaults: J.options, options)
        var message = try request.message(
            Arguments(keyword: try WireEncoder.encodeArguments(job)), partition: request.partition,
            id: request.id ?? JobIdentifier.make(),
            queue: "", origin: origin, parent: JobContext.current)
        message.headers.hoist.unique = nil
        message.properties.exchange = channel
        if let sealing = configuration.sealing { try message.seal(with: sealing, onChannel: channel) }
        let listeners = try await backend.broadcasting().broadcast(message, on: channel)
        events.tell(.sent, of: message.id) { JobEvent(sent: message, at: backend.clock.now) }
        return listeners
    }

    /// The handle of a job enqueued earlier or elsewhere.
    public func handle<J: Job>(of id: JobID, _ type: J.Type) -> JobHandle<J.Output> {
        JobHandle((id, false), backend: backend, configuration)
    }

    /// The handle of any job, with its output as a wire value.
    public func handle(of id: JobID) -> JobHandle<WireValue> {
        JobHandle((id, false), backend: backend, configuration)
    }

    /// The request of a call, with one time for all of its jobs: jobs with the same delay are due in the order of their
    /// ids.
    func request(
        _ name: String, _ secret: Set<String>, defaults: JobOptions, _ options: [EnqueueOption], at now: JobDate? = nil
    ) -> EnqueueRequest {
        SecretNames.note(secret, of: name)
        let secret = secret.isEmpty ? SecretNames.known(of: name) : secret
        var request = EnqueueRequest(
            name: name, secretArguments: secret, defaults: defaults, now: now ?? backend.clock.now)
        for option in options { option.apply(&request) }
        return request
    }

    /// The queue of a job whose call names none: that of the rules, of the job's options, or the default.
    func usualQueue(of request: EnqueueRequest, _ queue: String?) -> String {
        configuration.routes.lazy.compactMap { $0.queue(request.name) }.first ?? queue ?? configuration.defaultQueue
    }

    /// The message of a scheduled run, which has no parent. Unsealed.
    /// - Throws: ``BackendError`` `.misuse` for options that the broker cannot keep, ``WireError`` for arguments, names and
    ///   ids of a size that is not allowed.
    func message(for blueprint: Schedule.Blueprint, id: JobID, at now: JobDate) throws -> Message {
        let request = request(
            blueprint.name, blueprint.secretArguments, defaults: blueprint.defaults, blueprint.options, at: now)
        try request.check(backend.broker.abilities)
        let queue = try request.place(usual: usualQueue(of: request, blueprint.defaults.queue), parent: nil)
        return try request.message(
            blueprint.arguments, partition: request.partition ?? blueprint.partition, id: id, queue: queue,
            origin: origin, parent: nil)
    }

    /// What differs between the jobs of a call.
    private struct Content: Sendable {
        var arguments: Arguments
        var partition: String?
        /// The key that the type of the job declares.
        var unique: UniqueKey?
    }

    /// Enqueues the jobs of a call, after the message of each job could be made.
    private func publish<T: Sendable>(
        _ jobs: [T], as request: EnqueueRequest, queue: String?,
        content: @escaping @Sendable (T) throws -> Content
    ) async throws -> [(id: JobID, isNew: Bool)] {
        try request.check(backend.broker.abilities)
        let parent = JobContext.current
        let place = try request.place(usual: usualQueue(of: request, queue), parent: parent)
        let ids = request.id.map { [JobID](repeating: $0, count: jobs.count) } ?? JobIdentifier.make(count: jobs.count)
        @Sendable func message(_ index: Int) throws -> Message {
            let content = try content(jobs[index])
            var message = try request.message(
                content.arguments, partition: content.partition, id: ids[index], queue: place, origin: origin,
                parent: parent)
            if let key = content.unique, request.unique == nil, !request.isNeverUnique {
                try request.need(.uniqueKeys, for: "the option unique", of: backend.broker.abilities)
                message.headers.hoist.unique = key
            }
            if let limit = configuration.compressesAbove, message.body.count > limit { message.compressBody() }
            return message
        }
        let messages =
            try jobs.isWorthSeveralProcessors
            ? await Array(0..<jobs.count).mapOnProcessors(message) : (0..<jobs.count).map(message)
        var published: [(id: JobID, isNew: Bool)] = []
        for step in Self.steps(of: messages) {
            let enqueued = try await JobTracing.enqueueing(step) { try await publish($0) }
            parent?.noteChildren(enqueued.map(\.id))
            published += enqueued
        }
        return published
    }

    /// The most jobs, and but for the last of them the most bytes, in one step of the backend: others wait while it is
    /// carried out, and it must arrive within the time-out.
    private static let (stepCount, stepBytes) = (5000, 8 << 20)

    static func steps(of messages: [Message]) -> [[Message]] {
        let total = messages.reduce(0) { $0 + $1.body.count }
        if messages.count <= stepCount, total <= stepBytes { return messages.isEmpty ? [] : [messages] }
        var steps: [[Message]] = []
        var (start, bytes) = (0, 0)
        for (index, message) in messages.enumerated() {
            if index > start, index - start == stepCount || bytes + message.body.count > stepBytes {
                steps.append(Array(messages[start..<index]))
                (start, bytes) = (index, 0)
            }
            bytes += message.body.count
        }
        steps.append(Array(messages[start...]))
        return steps
    }

    /// Repeats `publish` while the queue is full, as long as ``Configuration/waitsWhenFull`` allows.
    private func whenThereIsRoom(_ publish: () async throws -> [PublishResult]) async throws -> [PublishResult] {
        guard let patience = configuration.waitsWhenFull else { return try await publish() }
        let clock = backend.clock
        let end = clock.uptime + patience.inMicroseconds
        while true {
            let mark = backend.broker.workDoorbell.mark
            do {
                return try await publish()
            } catch let error as BackendError where error.code == .full && error.isRetrySafe && clock.uptime < end {
                // The backend rings when there is room; the time limit covers a lost ring.
                let limit = min(Duration.seconds(1), .microseconds(end - clock.uptime))
                await backend.broker.workDoorbell.wait(after: mark, for: limit, clock: clock)
                try Task.checkCancellation()
            }
        }
    }

    private func publish(_ messages: [Message]) async throws -> [(id: JobID, isNew: Bool)] {
        let results = try await EnqueueChain(middleware: configuration.middleware[...]) {
            [backend, configuration] messages in
            var messages = messages
            if let sealing = configuration.sealing {
                for index in messages.indices { try messages[index].seal(with: sealing) }
            }
            return try await whenThereIsRoom { [messages] in
                try await backend.broker.publish(messages, within: configuration.enqueueTimeout)
            }
        }.run(messages)
        if events.wants(.sent) {
            for (message, result) in zip(messages, results) where result == .enqueued {
                events.tell(.sent, of: message.id) { JobEvent(sent: message, at: backend.clock.now) }
            }
        }
        let refused = zip(messages, results).compactMap { message, result -> EnqueueError.Refusal? in
            guard case .keyHeld(let holder) = result, message.headers.hoist.unique?.onClash == .refuse else {
                return nil
            }
            return EnqueueError.Refusal(jobName: message.jobName, jobID: message.id, keyHolder: holder)
        }
        guard refused.isEmpty else { throw EnqueueError(refused: refused) }
        return zip(messages, results).map { message, result in
            switch result {
            case .enqueued: (message.id, true)
            case .alreadyEnqueued: (message.id, false)
            case .replaced(let id), .keyHeld(let id): (id, false)
            }
        }
    }
}

/// Jobs were not enqueued because other jobs hold their unique keys and the policy is to refuse. The other jobs of the
/// same step of 5,000 were enqueued, and the jobs of later steps of the call were not. Enqueueing the refused jobs
/// again later is safe.
public struct EnqueueError: Error, Sendable, CustomStringConvertible {
    public struct Refusal: Sendable, Hashable {
        public var jobName: String
        /// The id that the job would have had.
        public var jobID: JobID
        /// The job that holds the key.
        public var keyHolder: JobID
    }

    /// The refused jobs, at least one.
    public var refused: [Refusal]

    public var description: String {
        refused.map { "\($0.jobName) was not enqueued: the job \($0.keyHolder) holds its unique key" }.joined(
            separator: "; ")
    }
}

/// Intercepts messages on their way to the backend, and may change, drop or add messages.
public protocol EnqueueMiddleware: Sendable {
    /// - Parameters:
    ///   - messages: the messages of the caller, or of the middleware before this one.
    ///   - next: passes messages on and returns one result for each.
    /// - Returns: one result for each of `messages`.
    /// - Throws: an error of the middleware that refuses the messages, or what `next` throws: ``BackendError``, whose
    ///   ``BackendError/isRetrySafe`` says whether a retry is safe, `CancellationError`, or an error of the sealing.
    ///   The enqueue throws the error unchanged.
    func enqueue(
        _ messages: [Message], next: @Sendable ([Message]) async throws -> [PublishResult]
    ) async throws -> [PublishResult]
}

private struct EnqueueChain: Sendable {
    var middleware: ArraySlice<any EnqueueMiddleware>
    let publish: @Sendable ([Message]) async throws -> [PublishResult]

    func run(_ messages: [Message]) async throws -> [PublishResult] {
        guard let first = middleware.first else { return try await publish(messages) }
        let rest = EnqueueChain(middleware: middleware.dropFirst(), publish: publish)
        return try await first.enqueue(messages) { try await rest.run($0) }
    }
}

/// Runs `body` and waits at most `limit` for it. Work that `body` began may still complete.
/// - Throws: what `body` throws; ``BackendError`` `.timedOut` with ``BackendError/isRetrySafe`` false when `limit` has
///   passed; `CancellationError` when the task is cancelled.
func withDeadline<T: Sendable>(
    _ limit: Duration, clock: any JobClock, _ body: @escaping @Sendable () async throws -> T
) async throws -> T {
    let outcome = FirstOutcome<T>()
    // In no group, for a group would wait for it.
    let task = Task { outcome.set(await Result { try await body() }) }
    let timer = clock.schedule(after: limit) {
        outcome.set(.failure(BackendError(.timedOut, "the backend did not answer within \(limit)", isRetrySafe: false)))
        task.cancel()
    }
    defer { timer.cancel() }
    return try await withTaskCancellationHandler {
        try await outcome.value()
    } onCancel: {
        outcome.set(.failure(CancellationError()))
        task.cancel()
    }
}

/// Keeps the first of several results and drops the others.
private final class FirstOutcome<T: Sendable>: Sendable {
    private let state = Mutex<(result: Result<T, any Error>?, waiter: CheckedContinuation<T, any Error>?)>((nil, nil))

    func set(_ result: Result<T, any Error>) {
        let waiter = state.withLock { state -> CheckedContinuation<T, any Error>? in
            guard state.result == nil else { return nil }
            state.result = result
            return state.waiter.take()
        }
        waiter?.resume(with: result)
    }

    func value() async throws -> T {
        try await withCheckedThrowingContinuation { continuation in
            let result = state.withLock { state in
                if state.result == nil { state.waiter = continuation }
                return state.result
            }
            if let result { continuation.resume(with: result) }
        }
    }
}

extension Result where Failure == any Error {
    fileprivate init(_ body: () async throws -> Success) async {
        do { self = .success(try await body()) } catch { self = .failure(error) }
    }
}

/// The identity of this process, as readable text.
package enum ProcessIdentity {
    package static let host: String = {
        var buffer = [CChar](repeating: 0, count: 256)
        guard gethostname(&buffer, buffer.count - 1) == 0 else { return "localhost" }
        return String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }()

    package static let id = Int(getpid())
    package static let name = "\(id)@\(host)"

    /// The number of processors that are online.
    package static let processorCount = max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))
}
