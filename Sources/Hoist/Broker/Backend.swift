/// A place for jobs, made of parts: a broker, a result store, and others that are there or not.
///
/// A part that is nil is one that this place does not have. Any broker can be joined with any result store:
/// ```swift
/// let backend = Backend(RedisBackend(url: "redis://localhost"), results: SQLiteBackend(path: "results.db"))
/// ```
/// A wrapper takes the parts of another backend and replaces some, so that it loses none.
public struct Backend: Sendable, BackendConvertible {
    private struct Parts: Sendable {
        var broker: any Broker
        var results: any ResultStore
        var queueControl: (any QueueControl)?
        var limits: (any LimitKeeping)?
        var topics: (any TopicRouting)?
        var broadcasts: (any JobBroadcasting)?
        var fanout: (any Fanout)?
        var directory: (any JobDirectory)?
        var editing: (any JobEditing)?
        var coordination: (any Coordination)?
        var upkeep: (any Upkeep)?
        var schedules: (any ScheduleKeeping)?
        var groups: (any GroupCounting)?
        var workflows: (any WorkflowKeeping)?
    }

    /// One reference: handles of jobs and copies of clients each hold a backend.
    private var parts: CopyOnWrite<Parts>

    /// A backend with the two parts that no backend is without.
    /// - Parameters:
    ///   - broker: holds the queues.
    ///   - results: keeps states and outputs. Without ``BrokerAbilities/storesResults`` the broker needs one of its
    ///     own: see ``init(_:results:maximumLostWorkers:)``.
    public init(broker: any Broker, results: any ResultStore) {
        parts = CopyOnWrite(Parts(broker: broker, results: results))
    }

    public var backend: Backend { self }

    /// Holds the queues.
    public var broker: any Broker {
        get { parts.value.broker }
        set { parts.value.broker = newValue }
    }

    /// Keeps state, progress and output of each job.
    public var results: any ResultStore {
        get { parts.value.results }
        set { parts.value.results = newValue }
    }

    /// Pauses, closes and caps queues.
    public var queueControl: (any QueueControl)? {
        get { parts.value.queueControl }
        set { parts.value.queueControl = newValue }
    }

    /// Keeps limits on how jobs start.
    public var limits: (any LimitKeeping)? {
        get { parts.value.limits }
        set { parts.value.limits = newValue }
    }

    /// Finds queues by topic.
    public var topics: (any TopicRouting)? {
        get { parts.value.topics }
        set { parts.value.topics = newValue }
    }

    /// Broadcasts jobs to workers.
    public var broadcasts: (any JobBroadcasting)? {
        get { parts.value.broadcasts }
        set { parts.value.broadcasts = newValue }
    }

    /// Sends frames to every program that listens.
    public var fanout: (any Fanout)? {
        get { parts.value.fanout }
        set { parts.value.fanout = newValue }
    }

    /// Lists jobs, queues and workers.
    public var directory: (any JobDirectory)? {
        get { parts.value.directory }
        set { parts.value.directory = newValue }
    }

    /// Changes jobs that wait, and gives ended ones another life.
    public var editing: (any JobEditing)? {
        get { parts.value.editing }
        set { parts.value.editing = newValue }
    }

    /// Keeps small values that programs agree on.
    public var coordination: (any Coordination)? {
        get { parts.value.coordination }
        set { parts.value.coordination = newValue }
    }

    /// Keeps the backend in order while no worker does.
    public var upkeep: (any Upkeep)? {
        get { parts.value.upkeep }
        set { parts.value.upkeep = newValue }
    }

    /// Keeps schedules.
    public var schedules: (any ScheduleKeeping)? {
        get { parts.value.schedules }
        set { parts.value.schedules = newValue }
    }

    /// Counts the members of groups that have ended.
    public var groups: (any GroupCounting)? {
        get { parts.value.groups }
        set { parts.value.groups = newValue }
    }

    /// Keeps workflows.
    public var workflows: (any WorkflowKeeping)? {
        get { parts.value.workflows }
        set { parts.value.workflows = newValue }
    }

    /// The clock that due times and leases are measured by.
    public var clock: any JobClock { broker.clock }
}

/// Something that a client or a worker can be made with: a backend, or a type that offers the parts of one.
public protocol BackendConvertible: Sendable {
    /// The parts.
    var backend: Backend { get }
}

// MARK: - The parts' methods

/// A call to a part that is missing throws ``BackendError`` `.misuse` with the name of the part.
extension Backend {
    private func part<T>(_ part: T?, _ what: String) throws(BackendError) -> T {
        guard let part else { throw BackendError(.misuse, "this backend cannot \(what)") }
        return part
    }

    /// See ``Broker/publish(_:)``.
    /// - Throws: as ``Broker/publish(_:)``.
    public func publish(_ messages: [Message]) async throws -> [PublishResult] { try await broker.publish(messages) }

    /// See ``Broker/cancel(_:)``.
    /// - Throws: as ``Broker/cancel(_:)``.
    public func cancel(_ id: JobID) async throws -> CancelResult { try await broker.cancel(id) }

    /// See ``ResultStore/record(of:)``.
    /// - Throws: as ``ResultStore/record(of:)``.
    public func record(of id: JobID) async throws -> JobRecord? { try await results.record(of: id) }

    /// See ``ResultStore/updates(of:)``.
    public func updates(of id: JobID) -> JobUpdates { results.updates(of: id) }

    /// See ``ResultStore/log(of:)``.
    /// - Throws: as ``ResultStore/log(of:)``.
    public func log(of id: JobID) async throws -> JobLog? { try await results.log(of: id) }

    /// See ``ResultStore/forget(_:)``.
    /// - Throws: as ``ResultStore/forget(_:)``.
    public func forget(_ id: JobID) async throws -> Bool { try await results.forget(id) }

    /// See ``JobDirectory/queues()``.
    /// - Throws: as ``JobDirectory/queues()``; ``BackendError`` `.misuse` without a directory.
    public func queues() async throws -> [QueueStatistics] { try await part(directory, "list queues").queues() }

    /// See ``JobDirectory/workers()``.
    /// - Throws: as ``JobDirectory/workers()``; ``BackendError`` `.misuse` without a directory.
    public func workers() async throws -> [WorkerPresence] { try await part(directory, "list workers").workers() }

    /// See ``JobDirectory/jobs(_:)``.
    /// - Throws: as ``JobDirectory/jobs(_:)``; ``BackendError`` `.misuse` without a directory.
    public func jobs(_ filter: JobFilter) async throws -> [JobRecord] {
        try await part(directory, "list jobs").jobs(filter)
    }

    /// See ``JobDirectory/page(_:after:)``.
    /// - Throws: as ``JobDirectory/page(_:after:)``; ``BackendError`` `.misuse` without a directory.
    public func page(_ filter: JobFilter, after cursor: JobCursor?) async throws -> JobPage {
        try await part(directory, "list jobs").page(filter, after: cursor)
    }

    /// See ``JobDirectory/counts()``.
    /// - Throws: as ``JobDirectory/counts()``; ``BackendError`` `.misuse` without a directory.
    public func counts() async throws -> [JobCount] { try await part(directory, "count jobs").counts() }

    /// See ``JobDirectory/arguments(of:)``.
    /// - Throws: as ``JobDirectory/arguments(of:)``; ``BackendError`` `.misuse` without a directory.
    public func arguments(of id: JobID) async throws -> Arguments? {
        try await part(directory, "show the arguments of a job").arguments(of: id)
    }

    /// See ``JobEditing/requeue(_:arguments:)``.
    /// - Throws: as ``JobEditing/requeue(_:arguments:)``; ``BackendError`` `.misuse` where jobs cannot be edited.
    public func requeue(_ filter: JobFilter, arguments: Arguments?) async throws -> Int {
        try await part(editing, "requeue jobs").requeue(filter, arguments: arguments)
    }

    /// See ``JobEditing/drop(_:)``.
    /// - Throws: as ``JobEditing/drop(_:)``; ``BackendError`` `.misuse` where jobs cannot be edited.
    public func drop(_ filter: JobFilter) async throws -> Int { try await part(editing, "drop jobs").drop(filter) }

    /// See ``JobEditing/purge(queue:)``.
    /// - Throws: as ``JobEditing/purge(queue:)``; ``BackendError`` `.misuse` where jobs cannot be edited.
    public func purge(queue: String) async throws -> Int {
        try await part(editing, "purge a queue").purge(queue: queue)
    }

    /// See ``JobEditing/edit(_:_:)``.
    /// - Throws: as ``JobEditing/edit(_:_:)``; ``BackendError`` `.misuse` where jobs cannot be edited.
    public func edit(_ id: JobID, _ edit: JobEdit) async throws -> Bool {
        try await part(editing, "edit a job").edit(id, edit)
    }
}
