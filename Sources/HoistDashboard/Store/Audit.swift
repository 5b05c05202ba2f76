import GRDB

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Something that a person did through the dashboard.
struct AuditEntry: Sendable, Hashable {
    var at: Date
    var backend: String
    var author: String
    var action: String
    /// The job, the queue, the filter.
    var target: String
    /// How many jobs were hit.
    var count: Int
    var result: String
}

extension HistoryStore {
    /// - Returns: the number of the entry.
    func note(_ entry: AuditEntry) async throws -> Int64 {
        try await database.write { database in
            try database.execute(
                sql: """
                    INSERT INTO audit (at, backend, author, action, target, count, result) VALUES (?, ?, ?, ?, ?, ?, ?)
                    """,
                arguments: [
                    entry.at.timeIntervalSince1970, entry.backend, entry.author, entry.action, entry.target,
                    entry.count,
                    entry.result,
                ])
            return database.lastInsertedRowID
        }
    }

    /// Says what came of an act.
    func amend(_ entry: Int64, count: Int, result: String) async throws {
        try await database.write { database in
            try database.execute(
                sql: "UPDATE audit SET count = ?, result = ? WHERE id = ?", arguments: [count, result, entry])
        }
    }

    /// The newest first.
    func audit(limit: Int) async throws -> [AuditEntry] {
        try await read { database in
            try Row.fetchAll(
                database,
                sql: """
                    SELECT at, backend, author, action, target, count, result FROM audit ORDER BY id DESC LIMIT ?
                    """, arguments: [limit]
            ).map { row in
                AuditEntry(
                    at: Date(timeIntervalSince1970: row[0]), backend: row[1], author: row[2], action: row[3],
                    target: row[4], count: row[5], result: row[6])
            }
        }
    }
}
