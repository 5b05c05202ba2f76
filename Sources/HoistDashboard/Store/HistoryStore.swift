import GRDB
import GRDBSQLite
import Hoist
import Logging
import Synchronization

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// The history of jobs: an SQLite database of the dashboard's own.
final class HistoryStore: Sendable {
    let database: any DatabaseWriter
    /// Why nothing is kept on disk although that was wanted; nil where all is well.
    let trouble: String?
    private let lock: FileLock?
    private let labels = Mutex<[Label: Int64]>([:])

    struct Label: Hashable {
        var kind: LabelKind
        var value: String
    }

    enum LabelKind: Int, Sendable { case name = 0, queue = 1, worker = 2 }

    /// The longest that a query may take, before it is given up.
    static let queryLimit = Duration.seconds(2)
    /// So many labels are remembered; others are looked up each time.
    private static let mostLabels = 20_000

    private init(_ database: any DatabaseWriter, trouble: String?, lock: FileLock?) throws {
        self.database = database
        self.trouble = trouble
        self.lock = lock
        try HistorySchema.migrator.migrate(database)
    }

    /// Opens a history, or where that fails one in memory that says why: a live view is better than none.
    /// - Throws: ``BackendError`` only when not even memory can be had.
    static func open(_ place: DashboardStore, logger: Logger) throws -> HistoryStore {
        guard case .file(let path) = place.kind else { return try inMemory(trouble: nil) }
        func fallBack(_ reason: String) throws -> HistoryStore {
            logger.warning("the history is kept in memory alone", metadata: ["reason": "\(reason)"])
            return try inMemory(trouble: reason)
        }
        do {
            try PrivateFile.make(path)
        } catch {
            return try fallBack("\(path) cannot be made: nothing is kept on disk")
        }
        let lock: FileLock
        switch FileLock.take(path + ".lock") {
        case .taken(let taken): lock = taken
        case .busy:
            return try fallBack("another dashboard keeps its history in \(path): nothing of this one is kept on disk")
        case .impossible:
            return try fallBack("\(path).lock cannot be written: nothing is kept on disk")
        }
        do {
            return try onDisk(path, lock)
        } catch let error as DatabaseError
            where error.resultCode == .SQLITE_NOTADB || error.resultCode == .SQLITE_CORRUPT
        {
            let aside = "\(path).corrupt-\(Int(Date().timeIntervalSince1970))"
            for suffix in ["", "-wal", "-shm"] where access(path + suffix, F_OK) == 0 {
                rename(path + suffix, aside + suffix)
            }
            logger.error(
                "the history is corrupt, and was moved aside",
                metadata: ["path": "\(path)", "moved_to": "\(aside)", "error": "\(error)"])
            do { return try onDisk(path, lock) } catch { return try fallBack("\(path) cannot be opened: \(error)") }
        } catch {
            return try fallBack("\(path) cannot be opened: \(error)")
        }
    }

    private static func inMemory(trouble: String?) throws -> HistoryStore {
        try HistoryStore(DatabaseQueue(configuration: configuration()), trouble: trouble, lock: nil)
    }

    private static func onDisk(_ path: String, _ lock: FileLock) throws -> HistoryStore {
        var configuration = configuration()
        configuration.maximumReaderCount = 4
        return try HistoryStore(DatabasePool(path: path, configuration: configuration), trouble: nil, lock: lock)
    }

    private static func configuration() -> Configuration {
        var configuration = Configuration()
        configuration.label = "hoist-history"
        configuration.foreignKeysEnabled = false
        configuration.busyMode = .timeout(5)
        configuration.prepareDatabase { database in
            try database.execute(sql: "PRAGMA synchronous = NORMAL")
            try database.execute(sql: "PRAGMA temp_store = MEMORY")
            try database.execute(sql: "PRAGMA cache_size = -8000")
            try database.execute(sql: "PRAGMA journal_size_limit = 16777216")
        }
        return configuration
    }

    /// Reads with a limit on the time: a query that takes longer is interrupted, and nothing else.
    /// - Throws: ``BackendError`` `.busy` when the query took too long, `.unavailable` for what SQLite reports.
    func read<T: Sendable>(_ body: @escaping @Sendable (Database) throws -> T) async throws -> T {
        do {
            return try await database.read { database in
                let deadline = ContinuousClock.now + Self.queryLimit
                let guarding = QueryDeadline(deadline)
                return try withExtendedLifetime(guarding) {
                    guarding.watch(database.sqliteConnection)
                    defer { guarding.release(database.sqliteConnection) }
                    return try body(database)
                }
            }
        } catch let error as DatabaseError where error.resultCode == .SQLITE_INTERRUPT {
            throw BackendError(.busy, "the search took longer than 2 seconds; narrow it by a state, a name or a time")
        } catch let error as DatabaseError {
            throw BackendError(.unavailable, "the history cannot be read", cause: error)
        }
    }

    /// Bytes of the database; nil when they cannot be told.
    func size() async -> Int? {
        try? await read { database in
            guard let pages = try Int.fetchOne(database, sql: "PRAGMA page_count"),
                let bytes = try Int.fetchOne(database, sql: "PRAGMA page_size")
            else { return nil }
            return pages * bytes
        }
    }

    /// When this backend was looked at last, before now; nil where it never was.
    func lastLook(backend: Int64) async throws -> Date? {
        try await read { database in
            try Double.fetchOne(
                database, sql: "SELECT max(at) FROM depth WHERE backend = ? AND step = ?",
                arguments: [backend, Resolution.minute.rawValue]
            ).map { Date(timeIntervalSince1970: $0) }
        }
    }

    // MARK: - Labels

    fileprivate func known(_ label: Label) -> Int64? { labels.withLock { $0[label] } }

    /// Remembers labels whose transaction has been committed.
    func remember(_ made: [Label: Int64]) {
        labels.withLock { labels in
            if labels.count + made.count > Self.mostLabels { labels = [:] }
            labels.merge(made) { $1 }
        }
    }

    /// - Returns: the number of a backend, made where there is none.
    func number(ofBackend name: String) throws -> Int64 {
        try database.write { database in
            try database.execute(sql: "INSERT OR IGNORE INTO backend (name) VALUES (?)", arguments: [name])
            return try Int64.fetchOne(database, sql: "SELECT id FROM backend WHERE name = ?", arguments: [name]) ?? 0
        }
    }
}

/// The numbers of labels within one transaction, and those that it has found or made.
struct LabelBook {
    let store: HistoryStore
    let database: Database
    private(set) var made: [HistoryStore.Label: Int64] = [:]

    init(store: HistoryStore, database: Database) {
        self.store = store
        self.database = database
    }

    /// - Returns: the number of a label, made where there is none.
    mutating func number(of value: String?, _ kind: HistoryStore.LabelKind) throws -> Int64? {
        guard let value else { return nil }
        let label = HistoryStore.Label(kind: kind, value: value)
        if let known = made[label] ?? store.known(label) { return known }
        let found = try Int64.fetchOne(
            database.cachedStatement(sql: "SELECT id FROM label WHERE kind = ? AND value = ?"),
            arguments: [kind.rawValue, value])
        if found == nil {
            try database.cachedStatement(sql: "INSERT INTO label (kind, value) VALUES (?, ?)")
                .execute(arguments: [kind.rawValue, value])
        }
        let number = found ?? database.lastInsertedRowID
        made[label] = number
        return number
    }
}

/// Where a dashboard keeps what it has seen.
public struct DashboardStore: Sendable {
    enum Kind: Sendable {
        case memory
        case file(String)
    }

    let kind: Kind

    /// In memory alone: a restart forgets all.
    public static let memory = DashboardStore(kind: .memory)

    /// In an SQLite file, which is made where it is missing, and its folder too. Only one dashboard may use a file;
    /// another one keeps its history in memory and says so on its pages. A corrupt file is moved aside.
    public static func file(_ path: String) -> DashboardStore { DashboardStore(kind: .file(path)) }
}

/// Files that only their owner reads: arguments, errors and password hashes lie in them.
enum PrivateFile {
    /// Makes the file where it is missing, and its folder too. What others could read they can read no more.
    static func make(_ path: String) throws {
        if let slash = path.lastIndex(of: "/"), slash > path.startIndex {
            try FileManager.default.createDirectory(
                atPath: String(path[..<slash]), withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700])
        }
        let descriptor = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw POSIXError(POSIXErrorCode(rawValue: errno) ?? .EACCES) }
        _ = fchmod(descriptor, 0o600)
        close(descriptor)
        // SQLite gives these the mode of the file, unless they are there already.
        for suffix in ["-wal", "-shm"] { _ = chmod(path + suffix, 0o600) }
    }
}

/// An advisory lock, held until it is released.
private final class FileLock: Sendable {
    private let descriptor: Int32

    enum Attempt {
        case taken(FileLock)
        /// Another process, or another dashboard of this one, holds it.
        case busy
        case impossible
    }

    static func take(_ path: String) -> Attempt {
        let descriptor = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return .impossible }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            close(descriptor)
            return .busy
        }
        return .taken(FileLock(descriptor))
    }

    private init(_ descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(descriptor) }
}

/// Interrupts what one connection does when its time is over.
private final class QueryDeadline {
    private let deadline: ContinuousClock.Instant

    init(_ deadline: ContinuousClock.Instant) { self.deadline = deadline }

    func watch(_ connection: OpaquePointer?) {
        sqlite3_progress_handler(
            connection, 10_000,
            { context in
                let guarding = Unmanaged<QueryDeadline>.fromOpaque(context!).takeUnretainedValue()
                return ContinuousClock.now >= guarding.deadline ? 1 : 0
            }, Unmanaged.passUnretained(self).toOpaque())
    }

    func release(_ connection: OpaquePointer?) { sqlite3_progress_handler(connection, 0, nil, nil) }
}
