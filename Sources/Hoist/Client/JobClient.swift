public import Logging
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Puts jobs into queues and finds out what became of them.
///
/// A client needs no connection of its own and may be copied freely. Called from a handler, it makes the new job a
/// child of the running one: parent and root ids, headers and trace go along by themselves.
public struct JobClient: Sendable {
    public struct Configuration: Sendable {
        /// Where jobs go that neither name a queue nor match a rule. `default` by default.
        public var defaultQueue: String
        /// Rules that stand above the queue in a job's options and below the one of a call.
        public var routes: [RoutingRule]
        /// Run around every enqueue, the first one outermost.
        public var middleware: [any EnqueueMiddleware]
        /// How long an enqueue may take before it throws. 10 seconds by default.
        public var enqueueTimeout: Duration
        /// Arguments of more bytes than this travel compressed, as Celery's `compression="zlib"` has it; nil for never,
        /// the default.
        public var compressesAbove: Int?
        /// How long an enqueue waits for room in a queue that has reached its limit before it throws; nil for not at
        /// all, the default.
        public var waitsWhenFull: Duration?
        /// Signs or encrypts arguments and outputs; nil for not at all, the default. Workers take theirs from
        /// ``Worker/Configuration/client``.
        public var sealing: (any Sealing)?

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

    public let backend: any Backend
    public let configuration: Configuration
    private let logger: Logger
    private let origin: String

    public init(_ backend: any Backend, configuration: Configuration = Configuration(), logger: Logger) {
        self.backend = backend
        self.configuration = configuration
        self.logger = logger
        self.origin = ProcessIdentity.name
    }

    /// Enqueues one job.
    /// - Returns: its handle, once the backend has the job. Where the id or unique key is held already, the handle of
    ///   the job that holds it, with ``JobHandle/isNew`` false.
    /// - Throws: ``EnqueueError`` when the unique key is held and the policy is to refuse; ``BackendError``, whose
    ///   ``BackendError/isRetrySafe`` says whether the job may be there all the same (try again with the same
    ///   ``EnqueueOption/id(_:)``); `EncodingError` when the job does not encode, ``WireError`` when it is larger or
    ///   deeper than ``WireLimits/default``; nothing was enqueued then.
    @discardableResult
    public func enqueue<J: Job>(_ job: J, _ options: EnqueueOption...) async throws -> JobHandle<J.Output> {
        try await enqueue(contentsOf: [job], options)[0]
    }

    /// Enqueues many jobs of a kind in few round trips, in order, 5,000 in one step of the backend: all of these, or
    /// none. Many are encoded on several processors at once.
    /// - Parameters:
    ///   - jobs: any number. Messages of all of them are made before the first is enqueued.
    ///   - options: for each of them alike.
    /// - Throws: as ``enqueue(_:_:)``; the jobs of earlier steps are enqueued then, and with ``EnqueueError`` all but
    ///   those it names.
    @discardableResult
    public func enqueue<J: Job>(
        contentsOf jobs: some Collection<J>, _ options: [EnqueueOption] = []
    ) async throws -> [JobHandle<J.Output>] {
        let defaults = J.options
        let request = request(J.name, J.secretArguments, defaults: defaults, options)
        let defaultPartition: String? = defaults.hasPartitions ? "" : nil
        return try await publish(Array(jobs), as: request, queue: defaults.queue) { job in
            (
                Arguments(keyword: try WireEncoder.encodeArguments(job)),
                request.partition ?? job.partitionKey ?? defaultPartition
            )
        }.map { JobHandle($0, backend: backend, sealing: configuration.sealing) }
    }

    /// Enqueues a job that this program has no type for.
    /// - Parameters:
    ///   - name: the wire name.
    ///   - arguments: by place and by name.
    ///   - defaults: what the job's own options would say.
    ///   - options: over the defaults.
    @discardableResult
    public func enqueue(
        named name: String, arguments: Arguments = Arguments(), defaults: JobOptions = JobOptions(),
        options: [EnqueueOption] = []
    ) async throws -> JobHandle<WireValue> {
        let request = request(name, [], defaults: defaults, options)
        let published = try await publish([arguments], as: request, queue: defaults.queue) { ($0, request.partition) }
        return JobHandle(published[0], backend: backend, sealing: configuration.sealing)
    }

    /// Enqueues a copy of the job, with an id of its own, in every queue that is bound to its topic: see
    /// ``QueueSubscription/topics``.
    /// - Parameters:
    ///   - job: the job.
    ///   - topic: words with dots between.
    ///   - exchange: the name that topics belong to.
    ///   - options: for each copy alike. An id gets the queue's name behind it; queues, workers and unique keys do not
    ///     count.
    /// - Returns: a handle for each copy. None when no queue wants it: nothing is enqueued then.
    /// - Throws: as ``enqueue(_:_:)``, and ``BackendError`` `.misuse` where the backend knows no topics. Some copies
    ///   may be enqueued then.
    @discardableResult
    public func publish<J: Job>(
        _ job: J, topic: String, exchange: String, _ options: EnqueueOption...
    ) async throws -> [JobHandle<J.Output>] {
        var handles: [JobHandle<J.Output>] = []
        for queue in try await backend.routing().queues(of: exchange, topic: topic) {
            let direct = EnqueueOption { request in
                (request.queue, request.worker, request.isForSameWorker, request.unique) = (queue, nil, false, nil)
                request.id = request.id.map { $0 + "." + queue }
            }
            handles += try await enqueue(contentsOf: [job], options + [direct])
        }
        return handles
    }

    /// Has every worker perform the job that listens to the channel at this moment: see
    /// ``Worker/Configuration/broadcastChannels``. Celery's workers with a `Broadcast` queue of this name are among
    /// them.
    /// - Parameters:
    ///   - job: the job. Each worker gives its copy an id of its own, this one's with the worker's behind.
    ///   - channel: the name that workers listen to.
    ///   - options: as for any job; queues, workers and unique keys do not count.
    /// - Returns: how many programs heard it, as far as the backend can tell. Whoever did not listen missed it.
    /// - Throws: as ``enqueue(_:_:)``, and ``BackendError`` `.misuse` where the backend cannot broadcast.
    @discardableResult
    public func broadcast<J: Job>(_ job: J, on channel: String, _ options: EnqueueOption...) async throws -> Int {
        let request = request(J.name, J.secretArguments, defaults: J.options, options)
        var message = try request.message(
            Arguments(keyword: try WireEncoder.encodeArguments(job)), partition: request.partition,
            id: request.id ?? JobIdentifier.make(),
            queue: "", origin: origin, parent: JobContext.current)
        message.headers.hoist.unique = nil
        message.properties.exchange = channel
        if let sealing = configuration.sealing { try message.seal(with: sealing) }
        return try await backend.routing().broadcast(message, on: channel)
    }

    /// The handle of a job enqueued earlier or elsewhere.
    public func handle<J: Job>(of id: JobID, _ type: J.Type) -> JobHandle<J.Output> {
        JobHandle((id, false), backend: backend, sealing: configuration.sealing)
    }

    /// The handle of any job, its output as it travels.
    public func handle(of id: JobID) -> JobHandle<WireValue> {
        JobHandle((id, false), backend: backend, sealing: configuration.sealing)
    }

    /// What a call asks for. At one time for all of its jobs: those that are delayed alike are due in the order of
    /// their ids.
    private func request(
        _ name: String, _ secret: Set<String>, defaults: JobOptions, _ options: [EnqueueOption]
    ) -> EnqueueRequest {
        var request = EnqueueRequest(name: name, secretArguments: secret, defaults: defaults, now: backend.clock.now)
        for option in options { option.apply(&request) }
        return request
    }

    /// Enqueues the jobs of a call, once a message could be made of each of them.
    /// - Parameter content: a job's arguments, and what it belongs to.
    private func publish<T: Sendable>(
        _ jobs: [T], as request: EnqueueRequest, queue: String?,
        content: @escaping @Sendable (T) throws -> (Arguments, partition: String?)
    ) async throws -> [(id: JobID, isNew: Bool)] {
        let parent = JobContext.current
        let routed = configuration.routes.lazy.compactMap { $0.queue(request.name) }.first
        let place = try request.place(usual: routed ?? queue ?? configuration.defaultQueue, parent: parent)
        let ids = request.id.map { [JobID](repeating: $0, count: jobs.count) } ?? JobIdentifier.make(count: jobs.count)
        @Sendable func message(_ index: Int) throws -> Message {
            let (arguments, partition) = try content(jobs[index])
            var message = try request.message(
                arguments, partition: partition, id: ids[index], queue: place, origin: origin, parent: parent)
            if let limit = configuration.compressesAbove, message.body.count > limit { message.compressBody() }
            return message
        }
        let messages =
            try jobs.isWorthSeveralProcessors
            ? await Array(0..<jobs.count).mapOnProcessors(message) : (0..<jobs.count).map(message)
        var published: [(id: JobID, isNew: Bool)] = []
        for start in stride(from: 0, to: messages.count, by: Self.step) {
            let step = messages.count <= Self.step ? messages : Array(messages[start...].prefix(Self.step))
            let enqueued = try await JobTracing.enqueueing(step) { try await publish($0) }
            parent?.noteChildren(enqueued.map(\.id))
            published += enqueued
        }
        return published
    }

    /// How many jobs the backend gets at once.
    private static let step = 5000

    /// Does it again whenever there may be room, where the queue is full and the configuration wants to wait.
    private func whenThereIsRoom(_ publish: () async throws -> [PublishResult]) async throws -> [PublishResult] {
        guard let patience = configuration.waitsWhenFull else { return try await publish() }
        let clock = backend.clock
        let end = clock.uptime + patience.inMicroseconds
        while true {
            let mark = backend.workDoorbell.mark
            do {
                return try await publish()
            } catch let error as BackendError where error.code == .full && error.isRetrySafe && clock.uptime < end {
                // The backend rings when room was made; a look now and then is for a ring that got lost.
                let limit = min(Duration.seconds(1), .microseconds(end - clock.uptime))
                await backend.workDoorbell.wait(after: mark, for: limit, clock: clock)
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
                try await backend.publish(messages, within: configuration.enqueueTimeout)
            }
        }.run(messages)
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

/// Jobs were not enqueued because others hold their unique keys and the policy is to refuse. The other jobs of the same
/// call were. Enqueueing the refused ones again later is safe.
public struct EnqueueError: Error, Sendable, CustomStringConvertible {
    public struct Refusal: Sendable, Hashable {
        public var jobName: String
        /// The id that the job would have had.
        public var jobID: JobID
        /// The job that holds the key.
        public var keyHolder: JobID
    }

    /// At least one.
    public var refused: [Refusal]

    public var description: String {
        refused.map { "\($0.jobName) was not enqueued: the job \($0.keyHolder) holds its unique key" }.joined(
            separator: "; ")
    }
}

/// Sees messages on their way to the backend, and may change, drop or add to them.
public protocol EnqueueMiddleware: Sendable {
    /// - Parameters:
    ///   - messages: what the caller, or the middleware before this one, wants to enqueue.
    ///   - next: hands messages on. It answers with one result for each, and so must this method for its own.
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

/// Runs `body` but waits no longer than `limit` for it; what it began may still happen.
func withDeadline<T: Sendable>(
    _ limit: Duration, clock: any JobClock, _ body: @escaping @Sendable () async throws -> T
) async throws -> T {
    let outcome = FirstOutcome<T>()
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

/// What came first of several things; the others are dropped.
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

/// Who this process is, for people.
package enum ProcessIdentity {
    package static let host: String = {
        var buffer = [CChar](repeating: 0, count: 256)
        guard gethostname(&buffer, buffer.count - 1) == 0 else { return "localhost" }
        return String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }()

    package static let name = "\(getpid())@\(host)"

    /// How many processors there are to run on.
    package static let processorCount = max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))
}
