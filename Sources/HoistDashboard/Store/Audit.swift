import GRDB
import Hoist

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
    var count = 0
    /// `asked` until it is known what came of it.
    var result = "asked"
}

extension HistoryStore {
    /// Does something that stands in the audit log. The entry is made first: nothing is done that does not stand there.
    /// - Parameters:
    ///   - entry: without a count and a result, which `body` returns.
    ///   - body: what it throws is noted as the reason of a refusal.
    func audited(
        _ entry: AuditEntry, _ body: () async throws -> (count: Int, result: String)
    ) async throws -> String {
        let number = try await note(entry)
        do {
            let done = try await body()
            try? await amend(number, count: done.count, result: done.result.cut(to: 200))
            return done.result
        } catch {
            try? await amend(number, count: 0, result: "refused: " + "\(error)".cut(to: 200))
            throw error
        }
    }

    /// - Returns: the number of the entry.
    private func note(_ entry: AuditEntry) async throws -> Int64 {
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
    private func amend(_ entry: Int64, count: Int, result: String) async throws {
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
