import Foundation
import GRDB
public import Hoist
import Synchronization

/// Keeps jobs in one SQLite file: nothing to install, and every process of the machine that opens the file shares its
/// queues.
///
/// Every transition is one transaction. The file is in WAL mode and must lie on a local disk. Beside it lie SQLite's
/// own `-wal` and `-shm`, and two files of at most one byte, `-ready` and `-changed`, through which processes wake each
/// other without polling.
public final class SQLiteBackend: Broker, ResultStore, BackendConvertible {
    /// When a committed transaction is certain to survive a power failure. A crash of one process, or of all, loses
    /// nothing in either mode.
    public struct Durability: Sendable, Hashable {
        let pragma: String

        /// Each commit waits for the disk. The last job survives a power failure; a commit costs a disk flush.
        public static let everyCommit = Durability(pragma: "FULL")
        /// Each checkpoint, about every four megabytes, waits for the disk. A power failure may undo the transactions
        /// since the last checkpoint; the file stays consistent. The default.
        public static let everyCheckpoint = Durability(pragma: "NORMAL")
    }

    public struct Configuration: Sendable {
        public var durability: Durability
        /// How long the record of an ended job is kept when the job does not say otherwise. One day by default.
        public var resultRetention: Duration
        /// How long dead letters are kept. 90 days by default.
        public var deadLetterRetention: Duration
        /// The maximum number of dead letters of one queue and job name; the newest are kept. 10,000 by default.
        public var deadLetterLimit: Int
        /// A job becomes a dead letter when this many workers have died with it. 3 by default.
        public var maximumLostWorkers: Int
        /// How long to wait for another process that holds the file. 5 seconds by default.
        public var busyTimeout: Duration
        /// The clock of tests; the machine's own by default.
        public var clock: (any JobClock)?

        public init(
            durability: Durability = .everyCheckpoint, resultRetention: Duration = .seconds(86_400),
            deadLetterRetention: Duration = .seconds(90 * 86_400), deadLetterLimit: Int = 10_000,
            maximumLostWorkers: Int = 3,
            busyTimeout: Duration = .seconds(5), clock: (any JobClock)? = nil
        ) {
            self.durability = durability
            self.resultRetention = resultRetention
            self.deadLetterRetention = deadLetterRetention
            self.deadLetterLimit = max(0, deadLetterLimit)
            self.maximumLostWorkers = max(1, maximumLostWorkers)
            self.busyTimeout = busyTimeout
            self.clock = clock
        }
    }

    public let path: String
    public let configuration: Configuration
    public let workDoorbell = Doorbell()
    let changes: Doorbell
    let follower: JobFollower
    let frameReader = FrameReader()
    let jobNotices = JobNotices()

    public let abilities: BrokerAbilities = [
        .uniqueKeys, .knownIDs, .delays, .fencing, .selectsByName, .storesResults, .tenPriorities, .leases,
        .cancellation, .expiry, .progress, .history, .waitingRecords,
    ]

    public var backend: Backend {
        var backend = Backend(broker: self, results: self)
        backend.directory = self
        backend.editing = self
        backend.queueControl = self
        backend.limits = self
        backend.topics = StoredTopics(self)
        backend.broadcasts = FrameBroadcasts(self)
        backend.fanout = self
        backend.coordination = self
        backend.upkeep = self
        backend.schedules = self
        backend.groups = self
        backend.workflows = self
        return backend
    }

    public let clock: any JobClock
    public var address: BrokerAddress {
        BrokerAddress(transport: "sqlite", url: "sqlite:" + absolutePath, virtualHost: absolutePath)
    }
    /// As it was when the file was opened: the current folder may change.
    private let absolutePath: String

    /// Transitions of workers and clients.
    let writer: JobDatabase
    /// Lease renewals have a connection of their own, so that they do not queue behind the writes of this process.
    let leases: JobDatabase
    let reader: DatabaseQueue
    private let files: FileDoorbells

    /// Opens the file, creates it if it does not exist, and migrates an older file to this version.
    /// - Parameters:
    ///   - path: the path of a file on a local disk, in a folder that may be written to.
    ///   - configuration: everything that has a default.
    /// - Throws: `BackendError` `.unavailable` (no such folder, not a file), `.readOnly`, `.corrupt` (not a database),
    ///   `.incompatible` (written by a newer version, or by another program), `.busy` (locked for longer than the
    ///   time-out). The file is left as it is.
    public init(path: String, configuration: Configuration = Configuration()) throws {
        self.path = path
        absolutePath = URL(fileURLWithPath: path).standardizedFileURL.path
        self.configuration = configuration
        clock = configuration.clock ?? SystemJobClock()
        changes = Doorbell()
        follower = JobFollower(changes: changes)
        let settings = ConnectionSettings(
            path: path, durability: configuration.durability, busySeconds: configuration.busyTimeout.inSeconds)
        do {
            let first = try settings.open()
            try Schema.prepare(first, path: path)
            let rules = JobStore.Rules(configuration)
            writer = try JobDatabase(first, path: path, rules: rules)
            leases = try JobDatabase(settings.open(), path: path, rules: rules)
            reader = try settings.open()
        } catch {
            throw BackendError(sqlite: error, path: path, doing: "open the database")
        }
        files = FileDoorbells(path: path, ready: workDoorbell, changed: changes)
    }

    /// Opens the file that a URL of the form `sqlite:jobs.db` or `sqlite:/var/lib/jobs.db` names.
    /// - Throws: `BackendError` `.misuse` for another URL, else as ``init(path:configuration:)``.
    public convenience init(url: String, configuration: Configuration = Configuration()) throws {
        guard url.hasPrefix("sqlite:") else {
            throw BackendError(.misuse, "the URL does not begin with sqlite:")
        }
        var path = url.dropFirst("sqlite:".count)
        if path.hasPrefix("//") { path = path.dropFirst(2) }
        guard !path.isEmpty else { throw BackendError(.misuse, "the URL sqlite: names no file; write sqlite:jobs.db") }
        try self.init(path: String(path), configuration: configuration)
    }

    private let sweptAt = Mutex<Int64?>(nil)

    /// Ends jobs that were not started in time and removes records whose retention has passed, at most every ten
    /// seconds. Nobody waits for it: a lease renewal must not. What fails now, or does not finish, goes on at the next
    /// call.
    func sweepBesideTheRest() async throws {
        let uptime = clock.uptime
        let isDue = sweptAt.withLock { sweptAt in
            if let last = sweptAt, uptime - last < 10_000_000 { return false }
            sweptAt = uptime
            return true
        }
        guard isDue else { return }
        guard configuration.clock != nil else { return sweep(until: uptime + 200_000) }
        // Who moves time wants to see at once what comes of it.
        let notices = try await writer.transaction("sweep") { [clock] store in
            _ = try store.sweep(now: clock.now.microsecondsSinceEpoch)
            return store.takeNotices()
        }
        jobNotices.tell(notices)
    }

    /// In small transactions, so that the file is free again and again.
    private func sweep(until end: Int64) {
        writer.transactionLater { [clock] store in
            (mayBeMore: try store.sweep(now: clock.now.microsecondsSinceEpoch), notices: store.takeNotices())
        } completion: { [weak self] swept in
            guard let self else { return }
            jobNotices.tell(swept?.notices ?? [])
            guard swept?.mayBeMore ?? true else { return }
            if swept != nil, clock.uptime < end { sweep(until: end) } else { sweptAt.withLock { $0 = nil } }
        }
    }

    func ringReady() {
        workDoorbell.ring()
        files.ringReady()
    }

    func ringChanged() {
        changes.ring()
        files.ringChanged()
    }
}

extension JobStore.Rules {
    init(_ configuration: SQLiteBackend.Configuration) {
        self.init(
            resultRetention: configuration.resultRetention.inMicroseconds,
            deadLetterRetention: configuration.deadLetterRetention.inMicroseconds,
            deadLetterLimit: configuration.deadLetterLimit,
            maximumLostWorkers: configuration.maximumLostWorkers, keepsRealTime: configuration.clock == nil)
    }
}
