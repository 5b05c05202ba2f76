#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// Lists what a backend holds: what the command line tool and a dashboard stand on.
public protocol JobDirectory: Sendable {
    /// The queues that hold jobs, by name.
    /// - Throws: ``BackendError``; asking again is safe.
    func queues() async throws -> [QueueStatistics]

    /// The workers that are alive.
    /// - Throws: ``BackendError``; asking again is safe.
    func workers() async throws -> [WorkerPresence]

    /// The jobs that fit `filter`, the newest first.
    /// - Throws: ``BackendError``; asking again is safe.
    func jobs(_ filter: JobFilter) async throws -> [JobRecord]

    /// The jobs that fit `filter`, ``JobFilter/limit`` of them at a time, in an order of the backend's own. A page
    /// costs what it holds, however many jobs there are.
    ///
    /// A page is of its own moment. Jobs that change, come or go between two pages may come twice or not at all; on a
    /// backend that tells places by counting, as Redis does, others may then come twice or be missed as well.
    /// - Parameters:
    ///   - filter: which jobs; its limit is the size of a page, 1,000 at most.
    ///   - cursor: where the page begins; nil for the first one.
    /// - Throws: ``BackendError``; asking again is safe. `.misuse` for a cursor that is not of this backend.
    func page(_ filter: JobFilter, after cursor: JobCursor?) async throws -> JobPage

    /// How many jobs there are, by queue, name and state, without reading every job. Where a backend keeps succeeded
    /// jobs as results alone, as Redis does, those are not counted.
    /// - Throws: ``BackendError``; asking again is safe.
    func counts() async throws -> [JobCount]

    /// The jobs of a queue that are due later, the nearest first. By default they are picked from ``jobs(_:)``, which
    /// costs as much as all of them.
    /// - Parameters:
    ///   - queue: the name of the queue.
    ///   - limit: 1,000 at most.
    /// - Throws: ``BackendError``; asking again is safe.
    func delayedJobs(queue: String, limit: Int) async throws -> [DelayedJob]

    /// Queues with jobs that programs of another system have declared, and no program of Hoist has used: a queue of
    /// Celery's that nobody consumes. For people: it may look through much of the backend. None by default.
    /// - Throws: ``BackendError``; asking again is safe.
    func foreignQueues() async throws -> [QueueStatistics]

    /// The arguments of a job as they will be, or were, handed to its handler; nil when the id is unknown or they
    /// cannot be read.
    /// - Throws: ``BackendError``; asking again is safe.
    func arguments(of id: JobID) async throws -> Arguments?
}

extension JobDirectory {
    public func foreignQueues() async throws -> [QueueStatistics] { [] }

    public func delayedJobs(queue: String, limit: Int) async throws -> [DelayedJob] {
        let records = try await jobs(JobFilter(states: [.scheduled, .retrying], queue: queue, limit: .max))
        let nearest = records.sorted { ($0.dueAt ?? .distantFuture, $0.id) < ($1.dueAt ?? .distantFuture, $1.id) }
        var delayed: [DelayedJob] = []
        for record in nearest.prefix(limit.clamped(to: 0...1000)) {
            delayed.append(
                DelayedJob(
                    id: record.id, name: record.name, queue: queue, due: record.dueAt,
                    arguments: try await arguments(of: record.id)))
        }
        return delayed
    }
}

/// A job that is due later.
public struct DelayedJob: Sendable {
    public var id: JobID
    /// The wire name.
    public var name: String
    public var queue: String
    public var due: Date?
    /// Nil where they cannot be read.
    public var arguments: Arguments?

    public init(id: JobID, name: String, queue: String, due: Date?, arguments: Arguments?) {
        self.id = id
        self.name = name
        self.queue = queue
        self.due = due
        self.arguments = arguments
    }

    /// - Parameter message: of the job, which is shown only where it is not sealed.
    package init(_ message: Message, queue: String, due: Date?) {
        self.init(
            id: message.id, name: message.jobName, queue: queue, due: due,
            arguments: message.isSealed ? nil : try? message.decodedBody().arguments)
    }
}

/// Changes jobs by hand.
public protocol JobEditing: Sendable {
    /// Gives ended jobs another life: waiting again, attempts counted from zero.
    /// - Parameters:
    ///   - filter: which; those that have not ended are left alone.
    ///   - arguments: what replaces the arguments; nil leaves them.
    /// - Returns: how many there were.
    /// - Throws: ``BackendError``; some of the jobs may be requeued then, and a retry leaves them alone. `.misuse` when
    ///   the arguments of a sealed job are to be replaced.
    func requeue(_ filter: JobFilter, arguments: Arguments?) async throws -> Int

    /// Removes ended jobs for good.
    /// - Returns: how many there were.
    /// - Throws: ``BackendError``; some of the jobs may be gone then, and a retry is safe.
    func drop(_ filter: JobFilter) async throws -> Int

    /// Removes every job of `queue` that has not been started.
    /// - Returns: how many there were.
    /// - Throws: ``BackendError``; some of the jobs may be gone then, and a retry is safe.
    func purge(queue: String) async throws -> Int

    /// Changes a job that waits.
    /// - Returns: false when there is no such waiting job.
    /// - Throws: ``BackendError``; the job may be changed then, and a retry is safe. `.misuse` when the arguments of a
    ///   sealed job are to be replaced.
    func edit(_ id: JobID, _ edit: JobEdit) async throws -> Bool
}

public struct QueueStatistics: Sendable, Hashable, Codable {
    public var name: String
    public var waiting: Int
    /// Due later: delayed, put off, or waiting for another attempt.
    public var scheduled: Int
    public var running: Int
    public var failed: Int
    /// When the oldest waiting job was enqueued.
    public var oldestWaiting: Date?

    public init(
        name: String, waiting: Int = 0, scheduled: Int = 0, running: Int = 0, failed: Int = 0,
        oldestWaiting: Date? = nil
    ) {
        self.name = name
        self.waiting = waiting
        self.scheduled = scheduled
        self.running = running
        self.failed = failed
        self.oldestWaiting = oldestWaiting
    }
}

/// Which jobs are meant. Members that are nil let everything through.
public struct JobFilter: Sendable {
    public var ids: [JobID]?
    public var states: Set<JobState>?
    public var queue: String?
    public var name: String?
    /// Text that the arguments, as shown to people, must contain.
    public var argumentText: String?
    /// At most so many.
    public var limit: Int

    public init(
        ids: [JobID]? = nil, states: Set<JobState>? = nil, queue: String? = nil, name: String? = nil,
        argumentText: String? = nil,
        limit: Int = 100
    ) {
        self.ids = ids
        self.states = states
        self.queue = queue
        self.name = name
        self.argumentText = argumentText
        self.limit = limit
    }

    /// The size of a page of ``JobDirectory/page(_:after:)``.
    package var pageSize: Int { limit.clamped(to: 1...1000) }

    package func matches(_ record: JobRecord) -> Bool {
        if let ids, !ids.contains(record.id) { return false }
        if let states, !states.contains(record.state) { return false }
        if let queue, queue != record.queue { return false }
        if let name, name != record.name { return false }
        if let argumentText, !record.argumentsText.contains(argumentText) { return false }
        return true
    }
}

/// A change to a job that waits.
public enum JobEdit: Sendable {
    /// Due at this time; a time in the past makes it ready now.
    case reschedule(Date)
    case priority(Int)
    case arguments(Arguments)
}
