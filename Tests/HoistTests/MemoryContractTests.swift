import Hoist
import HoistTesting
import Testing

@Suite("Memory backend", .timeLimit(.minutes(3)))
struct MemoryContractTests {
    @Test(arguments: BackendContract.checks + BackendContract.realChecks)
    func contract(_ check: BackendContract.Check) async throws {
        try await check.run { clock in MemoryBackend(clock: clock) }
    }
}
