import GRDB
import Hoist

/// For tests: the troubles of a disk, made by SQLite itself on the writing connection.
extension SQLiteBackend {
    /// Makes every write fail as on a read-only file.
    package func setQueryOnly(_ isOn: Bool) async throws {
        try await writer.outsideTransaction { try $0.execute(sql: "PRAGMA query_only = \(isOn ? 1 : 0)") }
    }

    /// Makes the file full at so many pages.
    package func setPageLimit(_ pages: Int) async throws {
        try await writer.outsideTransaction { try $0.execute(sql: "PRAGMA max_page_count = \(pages)") }
    }
}
