import Hoist
import HoistSQLite
import HoistTesting
import Testing

@Suite("SQLite backend", .timeLimit(.minutes(1)))
struct SQLiteContractTests {
    @Test(arguments: BackendContract.checks)
    func contract(_ check: BackendContract.Check) async throws {
        let folder = try TemporaryFolder()
        try await check.run { clock in
            try SQLiteBackend(path: folder.path("jobs.db"), configuration: .init(clock: clock))
        }
    }
}
