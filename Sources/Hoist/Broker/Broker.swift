/// Holds the queues. What a worker and a producer need of a place that keeps jobs.
///
/// Every method is one atomic step where the broker can do that, and otherwise ordered so that a crash repeats and
/// never loses. A broker proves itself with the contract suite of HoistTesting. The article <doc:WritingABackend> tells
/// how to write one.
public protocol Broker: Sendable {
    /// The clock that due times and leases are measured by.
    var clock: any JobClock { get }

    /// What this broker can do beyond the minimum. The client refuses what it cannot, and the contract skips it.
    var abilities: BrokerAbilities { get }

    /// Where the broker is, for people; by default nothing is known.
    var address: BrokerAddress { get }

    /// Rung when a job may have become ready, or when there may be room in a full queue, in this process or another.
    var workDoorbell: Doorbell { get }

    /// The threads that speak to the broker, where there are any that tasks may run on too; nil by default.
    var threads: WorkerThreads? { get }

    /// Stores jobs, all or none. When it returns, the broker has them.
    /// - Returns: what became of each, in order.
    /// - Throws: ``BackendError``. Its ``BackendError/isRetrySafe`` says whether the jobs may be there already; the
    ///   same messages may be published again all the same where the broker knows ids. `CancellationError` before
    ///   anything is stored.
    func publish(_ messages: [Message]) async throws -> [PublishResult]

    /// Stores jobs, and waits no longer than `limit`. A broker whose calls end in time by themselves may do better than
    /// the default, which runs the call in a task of its own.
    /// - Throws: as ``publish(_:)``, and ``BackendError`` `.timedOut`; the jobs may be stored then.
    func publish(_ messages: [Message], within limit: Duration) async throws -> [PublishResult]

    /// Stores messages that follow from the end of a job, where that is not one step with the end: see ``FollowUps``.
    /// Their priority is the number on this broker's wire. By default as ``publish(_:)``.
    /// - Throws: as ``publish(_:)``.
    func publish(followUps messages: [Message]) async throws

    /// Asks for a job to be stopped: a waiting one is cancelled at once, a running one is told.
    /// - Throws: ``BackendError``; the cancellation may have been asked for then, and asking again is safe.
    func cancel(_ id: JobID) async throws -> CancelResult

    /// Announces a worker and opens its session.
    /// - Parameters:
    ///   - worker: what other programs may know of it. Each incarnation has an id of its own.
    ///   - lease: how long the worker counts as alive after each renewal. When it passes, its jobs go to others.
    ///   - sink: is told what the broker has for the worker between its turns.
    /// - Throws: ``BackendError``; the worker may be announced then, and opening again with the same id is safe.
    func open(_ worker: WorkerPresence, lease: Duration, sink: any SessionSink) async throws -> any WorkerSession
}

extension Broker {
    public var threads: WorkerThreads? { nil }

    public var address: BrokerAddress { BrokerAddress(transport: "unknown", url: "") }

    public func publish(followUps messages: [Message]) async throws { _ = try await publish(messages) }

    public func publish(_ messages: [Message], within limit: Duration) async throws -> [PublishResult] {
        try await withDeadline(limit, clock: clock) { try await publish(messages) }
    }
}

/// What a broker can do beyond publishing, delivering and acknowledging.
public struct BrokerAbilities: OptionSet, Sendable, Hashable {
    public let rawValue: UInt32

    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Keeps unique keys. Without it ``EnqueueOption/unique(_:)`` is refused.
    public static let uniqueKeys = BrokerAbilities(rawValue: 1 << 0)
    /// Stores an id once, and tells that it is known.
    public static let knownIDs = BrokerAbilities(rawValue: 1 << 1)
    /// Holds a job back until its time. Without it ``EnqueueOption/after(_:)`` and ``EnqueueOption/at(_:)`` are
    /// refused.
    public static let delays = BrokerAbilities(rawValue: 1 << 2)
    /// Refuses the settlement of a delivery that is another worker's by now.
    public static let fencing = BrokerAbilities(rawValue: 1 << 3)
    /// Delivers only jobs whose names the worker asks for; others wait and hold nothing up.
    public static let selectsByName = BrokerAbilities(rawValue: 1 << 4)
    /// Stores what became of a job in the step that acknowledges it, and is the result store at once.
    public static let storesResults = BrokerAbilities(rawValue: 1 << 5)
    /// Keeps all ten priorities apart, in exact order.
    public static let tenPriorities = BrokerAbilities(rawValue: 1 << 6)
    /// Gives the jobs of a dead worker to others when its lease has passed, and counts the death.
    public static let leases = BrokerAbilities(rawValue: 1 << 7)
    /// Cancels jobs that wait, and tells the worker of a job that runs.
    public static let cancellation = BrokerAbilities(rawValue: 1 << 8)
    /// Ends a job that was not started in time, before it is delivered.
    public static let expiry = BrokerAbilities(rawValue: 1 << 9)
    /// Takes progress and logs of running jobs.
    public static let progress = BrokerAbilities(rawValue: 1 << 10)
    /// Counts attempts and keeps their history with the job.
    public static let history = BrokerAbilities(rawValue: 1 << 11)
    /// Hands jobs to the sink that come after a turn, as far as its credit lasts. Others ring, and wait for a turn.
    public static let lastingCredit = BrokerAbilities(rawValue: 1 << 12)
    /// Keeps a record of each job that waits or runs, which can be listed and changed.
    public static let waitingRecords = BrokerAbilities(rawValue: 1 << 13)
}

/// Threads of a broker that a worker's own tasks run on, so that nothing on the way to the broker changes threads.
///
/// A program that enqueues one job after another, each awaited, may run there too:
/// ```swift
/// try await withTaskExecutorPreference(backend.broker.threads?.tasks) {
///     for video in videos { try await jobs.enqueue(Transcode(video)) }
/// }
/// ```
/// A task that blocks there holds up the broker, and with it the leases of workers.
public struct WorkerThreads: Sendable {
    /// For tasks.
    public var tasks: any TaskExecutor
    /// For actors, on the same thread.
    public var actors: any SerialExecutor

    public init(tasks: any TaskExecutor, actors: any SerialExecutor) {
        self.tasks = tasks
        self.actors = actors
    }
}

/// What the broker did with a published message.
public enum PublishResult: Sendable, Equatable {
    case enqueued
    /// A job with this id is there already; nothing was stored.
    case alreadyEnqueued
    /// Another job holds the unique key; nothing was stored.
    case keyHeld(by: JobID)
    /// The waiting job that holds the unique key has taken over the new arguments.
    case replaced(JobID)
}

public enum CancelResult: Sendable, Equatable {
    /// The job was waiting and is cancelled now.
    case cancelled
    /// The job is running; its worker has been told.
    case requested
    case alreadyEnded
    case unknown

    /// The result in a word, as events and commands tell it.
    package var label: String {
        switch self {
        case .cancelled: "cancelled"
        case .requested: "requested"
        case .alreadyEnded: "already-ended"
        case .unknown: "unknown"
        }
    }
}
