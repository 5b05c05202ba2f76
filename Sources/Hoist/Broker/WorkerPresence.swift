#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// A running worker process, one incarnation of it.
public typealias WorkerID = String

/// What others may know of a worker.
public struct WorkerPresence: Sendable, Hashable, Codable {
    public var id: WorkerID
    /// A name for people: `host:pid` by default.
    public var name: String
    public var queues: [String]
    /// The wire names that the worker performs, aliases included.
    public var jobNames: [String]
    public var startedAt: Date
    public var running: Int
    public var concurrency: Int
    /// When the worker last asked for work or settled some; liveness alone does not move it.
    public var lastConsumedAt: Date?
    public var isDraining: Bool
    /// See ``Worker/Configuration/labels``; nil for none.
    public var labels: [String]?

    package init(
        id: WorkerID, name: String, queues: [String], jobNames: [String], startedAt: Date, running: Int = 0,
        concurrency: Int = 0,
        lastConsumedAt: Date? = nil, isDraining: Bool = false
    ) {
        self.id = id
        self.name = name
        self.queues = queues
        self.jobNames = jobNames
        self.startedAt = startedAt
        self.running = running
        self.concurrency = concurrency
        self.lastConsumedAt = lastConsumedAt
        self.isDraining = isDraining
    }
}
