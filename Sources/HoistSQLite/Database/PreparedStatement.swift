import GRDB
import GRDBSQLite

/// A statement that is prepared once and bound through SQLite's own functions: it runs for every job, and boxing each
/// value would cost more than the statement itself. Confined to the queue of its connection.
final class PreparedStatement {
    private let statement: Statement
    private let handle: OpaquePointer
    private let database: OpaquePointer?
    private var next: Int32 = 1

    // SQLITE_TRANSIENT: SQLite copies the bytes before the call returns.
    private static let transient = unsafeBitCast(OpaquePointer(bitPattern: -1), to: sqlite3_destructor_type.self)

    init(_ database: Database, _ sql: String) throws {
        statement = try database.makeStatement(sql: sql)
        handle = statement.sqliteStatement
        self.database = database.sqliteConnection
    }

    /// Begins a new execution; parameters follow in order.
    @discardableResult
    func begin() -> Self {
        sqlite3_reset(handle)
        next = 1
        return self
    }

    @discardableResult
    func bind(_ value: Int64?) -> Self {
        if let value { sqlite3_bind_int64(handle, next, value) } else { sqlite3_bind_null(handle, next) }
        next += 1
        return self
    }

    @discardableResult
    func bind(_ text: String?) -> Self {
        if var text {
            text.withUTF8 { buffer in
                let pointer = UnsafeRawPointer(buffer.baseAddress)?.assumingMemoryBound(to: CChar.self)
                _ = sqlite3_bind_text(handle, next, pointer, Int32(clamping: buffer.count), Self.transient)
            }
        } else {
            sqlite3_bind_null(handle, next)
        }
        next += 1
        return self
    }

    @discardableResult
    func bind(_ bytes: [UInt8]?) -> Self {
        if let bytes, !bytes.isEmpty {
            _ = bytes.withUnsafeBytes {
                sqlite3_bind_blob64(handle, next, $0.baseAddress, UInt64($0.count), Self.transient)
            }
        } else if bytes != nil {
            sqlite3_bind_zeroblob(handle, next, 0)
        } else {
            sqlite3_bind_null(handle, next)
        }
        next += 1
        return self
    }

    @discardableResult
    func bind(_ value: Double) -> Self {
        sqlite3_bind_double(handle, next, value)
        next += 1
        return self
    }

    /// Moves to the next row.
    func step() throws -> Bool {
        let code = sqlite3_step(handle)
        if code == SQLITE_ROW { return true }
        if code == SQLITE_DONE {
            sqlite3_reset(handle)
            return false
        }
        let message = sqlite3_errmsg(database).map { String(cString: $0) }
        sqlite3_reset(handle)
        throw DatabaseError(resultCode: ResultCode(rawValue: code), message: message)
    }

    /// Runs a statement that returns no rows.
    /// - Returns: how many rows it changed.
    @discardableResult
    func run() throws -> Int {
        while try step() {}
        return Int(sqlite3_changes(database))
    }

    /// Ends a query before its last row.
    func end() { sqlite3_reset(handle) }

    func int(_ column: Int32) -> Int64 { sqlite3_column_int64(handle, column) }

    func optionalInt(_ column: Int32) -> Int64? {
        sqlite3_column_type(handle, column) == SQLITE_NULL ? nil : sqlite3_column_int64(handle, column)
    }

    func text(_ column: Int32) -> String? {
        guard let start = sqlite3_column_text(handle, column) else { return nil }
        return String(
            decoding: UnsafeBufferPointer(start: start, count: Int(sqlite3_column_bytes(handle, column))), as: UTF8.self
        )
    }

    func bytes(_ column: Int32) -> [UInt8] {
        guard let start = sqlite3_column_blob(handle, column) else { return [] }
        return [UInt8](UnsafeRawBufferPointer(start: start, count: Int(sqlite3_column_bytes(handle, column))))
    }

    func double(_ column: Int32) -> Double { sqlite3_column_double(handle, column) }
}
