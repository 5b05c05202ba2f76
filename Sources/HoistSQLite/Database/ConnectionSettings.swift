import GRDB

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// How each connection of a backend is opened.
struct ConnectionSettings {
    let path: String
    let durability: SQLiteBackend.Durability
    let busySeconds: Double

    func open() throws -> DatabaseQueue {
        var configuration = Configuration()
        // Sleeps of 1 ms instead of SQLite's growing ones: a lease renewal must get its turn between the transactions
        // of a busy writer.
        configuration.busyMode = .callback { [busySeconds] tries in
            usleep(1000)
            return Double(tries) < busySeconds * 1000
        }
        configuration.foreignKeysEnabled = false
        configuration.allowsUnsafeTransactions = true
        configuration.label = "hoist-sqlite"
        configuration.prepareDatabase { [durability] database in
            let mode = try String.fetchOne(database, sql: "PRAGMA journal_mode = WAL")
            guard mode == "wal" else {
                throw DatabaseError(
                    resultCode: .SQLITE_CANTOPEN,
                    message: "the file cannot be put into WAL mode (it is in \(mode ?? "no") mode)")
            }
            try database.execute(sql: "PRAGMA synchronous = \(durability.pragma)")
            try database.execute(sql: "PRAGMA secure_delete = OFF")
            try database.execute(sql: "PRAGMA temp_store = MEMORY")
            try database.execute(sql: "PRAGMA cache_size = -16000")
            try database.execute(sql: "PRAGMA journal_size_limit = 67108864")
        }
        // Two processes that put a new file into WAL mode at the same time get SQLITE_BUSY, and SQLite does not wait in
        // that case. The open is tried again.
        var attempt = 0
        while true {
            do {
                return try DatabaseQueue(path: path, configuration: configuration)
            } catch let error as DatabaseError where error.resultCode == .SQLITE_BUSY && attempt < 20 {
                attempt += 1
                usleep(25_000)
            }
        }
    }
}
