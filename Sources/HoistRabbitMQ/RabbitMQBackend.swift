public import AMQP
import Endpoints
public import Hoist
import HoistYAML
import Synchronization

/// Keeps jobs in RabbitMQ, in the same queues as Celery's workers and producers.
///
/// RabbitMQ keeps no records of jobs. Join the backend with a result store for outputs, states and progress:
/// ```swift
/// let backend = Backend(try RabbitMQBackend(url: "amqp://mq"), results: try RedisBackend(url: "redis://cache"))
/// ```
/// What needs a store of waiting jobs (unique keys, a job's place in its queue) is no ability of RabbitMQ and is
/// refused.
public final class RabbitMQBackend: Broker, BackendConvertible {
    public let configuration: Configuration
    public let clock: any JobClock
    public let workDoorbell = Doorbell()
    let server: AMQPConfiguration
    let publisher: Publisher
    let fanout: RabbitMQFanout
    let directory: RabbitMQDirectory
    let thread = EventLoopExecutor()
    private let actorThread: EventLoopSerialExecutor
    let warnings = Warnings()

    /// - Parameters:
    ///   - server: where the broker is.
    ///   - configuration: everything that has a default.
    ///   - clock: for due times; the machine's own by default.
    /// - Throws: `BackendError` `.misuse` when certificates cannot be read. No connection is made yet.
    public init(
        _ server: AMQPConfiguration, configuration: Configuration = Configuration(),
        clock: any JobClock = SystemJobClock()
    ) throws {
        YAMLText.register()
        self.configuration = configuration
        self.clock = clock
        self.server = server
        actorThread = EventLoopSerialExecutor(thread)
        do throws(AMQPError) {
            let warnings = warnings
            publisher = Publisher(
                try AMQPClient(server.named("producer"), group: thread.group), configuration, thread: thread,
                warn: { warnings.tell($0) })
            let fanout = RabbitMQFanout(
                try AMQPClient(server.named("events and control"), group: thread.group), on: thread)
            self.fanout = fanout
            directory = RabbitMQDirectory(
                try AMQPClient(server.named("inspection"), group: thread.group), publisher, configuration, clock: clock
            ) { (try? await fanout.consumedQueues(within: .milliseconds(500), clock: clock)) ?? [] }
        } catch {
            throw BackendError(error, doing: "be reached")
        }
    }

    /// - Parameters:
    ///   - url: see `AMQPConfiguration.init(url:)`.
    ///   - configuration: everything that has a default.
    /// - Throws: `BackendError` `.misuse` for a URL that makes no sense.
    public convenience init(url: String, configuration: Configuration = Configuration()) throws {
        let server: AMQPConfiguration
        do throws(AMQPError) {
            server = try AMQPConfiguration(url: url)
        } catch {
            throw BackendError(.misuse, error.message)
        }
        try self.init(server, configuration: configuration)
    }

    public var abilities: BrokerAbilities {
        let keepsPriorities =
            (configuration.defaultQueue.priorities ?? 0) >= 9 && configuration.defaultQueue.kind == .classic
        return keepsPriorities ? [.delays, .lastingCredit, .tenPriorities] : [.delays, .lastingCredit]
    }

    public var threads: WorkerThreads? { WorkerThreads(tasks: thread, actors: actorThread) }

    public var address: BrokerAddress {
        let kind = server.tls == nil ? "amqp" : "amqps"
        let user = server.authentication().user
        let host = server.virtualHost == "/" ? "" : server.virtualHost
        var address = BrokerAddress(
            transport: "amqp",
            url: "\(kind)://\(user.map { $0 + "@" } ?? "")\(server.serverDescription)/\(host)",
            virtualHost: server.virtualHost, user: user, isEncrypted: server.tls != nil)
        if case .host(let host, let port)? = server.servers.first { (address.host, address.port) = (host, port) }
        return address
    }

    public var backend: Backend {
        var backend = Backend(broker: self, results: NoResults())
        backend.fanout = fanout
        backend.directory = directory
        backend.editing = directory
        backend.broadcasts = fanout
        return backend
    }

    public func publish(_ messages: [Message]) async throws -> [PublishResult] {
        try await publish(messages, within: server.publishTimeout)
    }

    public func publish(_ messages: [Message], within limit: Duration) async throws -> [PublishResult] {
        let now = clock.now
        directory.note(messages.map(\.queue))
        try await publisher.publish(messages.map { Publisher.Item($0, now: now) }, within: limit)
        workDoorbell.ring()
        return messages.map { _ in .enqueued }
    }

    /// Caps of queues do not hold for what follows from a job: it waits in the ladder until there is room.
    public func publish(followUps messages: [Message]) async throws {
        let now = clock.now
        var items = messages.map { Publisher.Item($0, now: now) }
        for _ in 0..<4 where !items.isEmpty {
            let outcomes = try await publisher.publish(each: items, within: server.publishTimeout)
            items = zip(items, outcomes).compactMap { item, outcome in
                switch outcome {
                case .stored: nil
                case .refused: item.later(configuration) ?? item
                case .impossible: item.inPlace
                }
            }
        }
        guard items.isEmpty else {
            throw BackendError(
                .full, "RabbitMQ did not take what follows from a job: a queue is full", isRetrySafe: false)
        }
    }

    /// As Celery cancels: workers are told to forget the job, and to stop it where it runs. A job that is delayed ends
    /// when it comes to a worker that was told.
    public func cancel(_ id: JobID) async throws -> CancelResult {
        try await fanout.revoke(id) == 0 ? .unknown : .requested
    }

    public func open(
        _ worker: WorkerPresence, lease: Duration, sink: any SessionSink
    ) async throws -> any WorkerSession {
        directory.note(worker.queues)
        let session: RabbitMQSession
        do throws(AMQPError) {
            session = try RabbitMQSession(self, worker, sink: sink)
        } catch {
            throw BackendError(error, doing: "be reached")
        }
        try await session.start()
        return session
    }
}

extension AMQPConfiguration {
    /// The same with a name for the management's list of connections.
    func named(_ purpose: String) -> AMQPConfiguration {
        var configuration = self
        configuration.connectionName = [connectionName ?? "hoist", purpose].joined(separator: ": ")
        return configuration
    }
}

extension Publisher.Item {
    /// A job on its way into its queue, at once or when it is due.
    init(_ message: Message, now: JobDate) {
        let delay =
            message.headers.eta.map {
                Int64(clamping: ($0.microsecondsSinceEpoch - now.microsecondsSinceEpoch) / 1_000_000)
            } ?? 0
        self.init(
            message: AMQPMessage(message), queue: message.queue, place: delay >= 1 ? .delayed(seconds: delay) : .ready)
    }
}

/// What a person should know, told once by each worker of this process.
final class Warnings: Sendable {
    private let state = Mutex<(told: [String], listeners: [WorkerID: any SessionSink])>(([], [:]))

    func tell(_ text: String) {
        let listeners = state.withLock { state in
            guard !state.told.contains(text) else { return [any SessionSink]() }
            // Not without end, should a server make up differences.
            state.told = Array((state.told + [text]).suffix(100))
            return Array(state.listeners.values)
        }
        for listener in listeners { listener.warned(text) }
    }

    func add(_ worker: WorkerID, _ sink: any SessionSink) {
        let told = state.withLock { state in
            state.listeners[worker] = sink
            return state.told
        }
        for text in told { sink.warned(text) }
    }

    func remove(_ worker: WorkerID) { state.withLock { $0.listeners[worker] = nil } }
}

/// The results of a broker that was not joined with a store.
struct NoResults: ResultStore {
    func store(_ results: [ResultWrite]) async throws {}
    func record(of id: JobID) async throws -> JobRecord? { nil }
    func updates(of id: JobID) -> JobUpdates {
        JobUpdates(changes: Doorbell(), clock: SystemJobClock()) { nil }
    }
    func log(of id: JobID) async throws -> JobLog? { nil }
    func forget(_ id: JobID) async throws -> Bool { false }
}
