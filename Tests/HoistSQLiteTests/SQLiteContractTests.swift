import Hoist
import HoistSQLite
import HoistTesting
import Testing

// One after the other: each backend takes an inotify instance, of which a user has 128.
@Suite("SQLite backend", .serialized, .timeLimit(.minutes(2)))
struct SQLiteContractTests {
    @Test(arguments: BackendContract.checks + BackendContract.realChecks)
    func contract(_ check: BackendContract.Check) async throws {
        let folder = try TemporaryFolder()
        try await check.run { clock in
            try SQLiteBackend(path: folder.path("jobs.db"), configuration: .init(clock: clock))
        }
    }
}
