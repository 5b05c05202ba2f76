import GRDB
import Hoist

/// The statements of one connection, and the lines that it caches between transactions. Confined to the connection's
/// queue.
///
/// The transitions themselves are extensions, one file each.
final class JobStore {
    struct Rules: Sendable {
        var resultRetention: Int64
        var deadLetterRetention: Int64
        var deadLetterLimit: Int
        var maximumLostWorkers: Int
        /// False in tests that move their own clock.
        var keepsRealTime: Bool
    }

    /// A queue and a job name. Jobs wait in one line for each pair, so that a claim never passes over a job it may not
    /// take.
    struct Line: Sendable {
        var id: Int64
        var queue: String
        var name: String
    }

    let database: Database
    let rules: Rules
    private var statements: [StaticStringKey: PreparedStatement] = [:]
    private var lines: [Int64: Line] = [:]
    private var lineIDs: [String: [String: Int64]] = [:]
    /// Lines inserted or looked up in the current transaction, which may still be rolled back.
    private var freshLines: [String: [String: Int64]] = [:]

    private let beginTransaction: PreparedStatement
    let commitTransaction: PreparedStatement
    /// Whether jobs were taken in this transaction out of a queue that holds only so many: producers may wait for room.
    var madeRoom = false
    /// Whether a limit has room again, or a job is to be stopped for another one.
    var limitsHaveRoom = false
    /// What there is of rules and limits; nil until it was asked in this transaction.
    var flow: Flow?

    struct Flow {
        var hasRules: Bool
        var hasLimits: Bool
        /// Whether any limit counts a job.
        var hasPermits: Bool
    }
    /// What was done with jobs by itself in this transaction.
    var notices: [JobNotice] = []

    init(_ database: Database, rules: Rules) throws {
        self.database = database
        self.rules = rules
        beginTransaction = try PreparedStatement(database, "BEGIN IMMEDIATE")
        commitTransaction = try PreparedStatement(database, "COMMIT")
    }

    /// The statement of a literal, prepared at its first use and found again by the literal's address.
    func sql(_ literal: StaticString) throws -> PreparedStatement {
        let key = StaticStringKey(address: UInt(bitPattern: literal.utf8Start))
        if let statement = statements[key] { return statement.begin() }
        let statement = try PreparedStatement(database, "\(literal)")
        statements[key] = statement
        return statement
    }

    private struct StaticStringKey: Hashable {
        var address: UInt
    }

    // MARK: - Lines

    func line(queue: String, name: String) throws -> Int64 {
        if let id = lineIDs[queue]?[name] ?? freshLines[queue]?[name] { return id }
        let insert = try sql("INSERT INTO line (queue, name) VALUES (?, ?) ON CONFLICT DO NOTHING")
        try insert.bind(queue).bind(name).run()
        let select = try sql("SELECT id FROM line WHERE queue = ? AND name = ?").bind(queue).bind(name)
        guard try select.step() else { throw BackendError(.corrupt, "the line of queue \(queue) is missing") }
        defer { select.end() }
        freshLines[queue, default: [:]][name] = select.int(0)
        return select.int(0)
    }

    /// Begins a transaction.
    func begin() throws {
        try beginTransaction.begin().run()
        freshLines.removeAll(keepingCapacity: true)
        notices = []
        (madeRoom, limitsHaveRoom) = (false, false)
        flow = nil
    }

    func takeNotices() -> [JobNotice] {
        defer { notices = [] }
        return notices
    }

    /// Reads the lines that other connections have inserted.
    func refreshLines() throws {
        let newest = try sql("SELECT max(id) FROM line")
        let last = try newest.step() ? newest.int(0) : 0
        newest.end()
        guard last > Int64(lines.count) || lines[last] == nil && last > 0 else { return }
        let select = try sql("SELECT id, queue, name FROM line")
        while try select.step() {
            let line = Line(id: select.int(0), queue: select.text(1) ?? "", name: select.text(2) ?? "")
            lines[line.id] = line
            lineIDs[line.queue, default: [:]][line.name] = line.id
        }
    }

    func knownLine(_ id: Int64) throws -> Line {
        if let line = lines[id] { return line }
        try refreshLines()
        return lines[id] ?? Line(id: id, queue: "", name: "")
    }

    func knownLines(queue: String) -> [String: Int64] { lineIDs[queue] ?? [:] }

    // MARK: - Workers

    /// The number of a worker's current incarnation; nil when the worker has none, or has lost its lease.
    func workerNumber(_ session: WorkerID) throws -> Int64? {
        let select = try sql("SELECT id FROM worker WHERE session = ? AND lease_until > 0").bind(session)
        defer { select.end() }
        return try select.step() ? select.int(0) : nil
    }
}

/// The number that identifies a delivery: the sequence number of the job, and in the lower 16 bits the number of the
/// delivery.
enum DeliveryToken {
    static func make(sequence: Int64, delivery: Int64) -> Int64 { sequence << 16 | delivery & 0xFFFF }
    static func sequence(_ token: Int64) -> Int64 { token >> 16 }
    static func delivery(_ token: Int64) -> Int64 { token & 0xFFFF }
}
