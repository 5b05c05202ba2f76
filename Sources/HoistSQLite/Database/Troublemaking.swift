import GRDB
import Hoist

/// For tests: disk failures, produced by SQLite itself on the writing connection.
extension SQLiteBackend {
    /// Makes every write fail as on a read-only file.
    /// - Throws: GRDB's `DatabaseError` when SQLite refuses the setting; `CancellationError` when the task is
    ///   cancelled. A retry is safe.
    package func setQueryOnly(_ isOn: Bool) async throws {
        try await writer.outsideTransaction { try $0.execute(sql: "PRAGMA query_only = \(isOn ? 1 : 0)") }
    }

    /// Limits the file to `pages` pages: writes that need more fail as on a full disk.
    /// - Throws: As `setQueryOnly(_:)`.
    package func setPageLimit(_ pages: Int) async throws {
        try await writer.outsideTransaction { try $0.execute(sql: "PRAGMA max_page_count = \(pages)") }
    }
}
