import Foundation
import Hoist
import HoistRedis
import Logging
import Testing

@Suite("Listing many jobs", .timeLimit(.minutes(3)))
struct PageTests {
    @Test("thousands of jobs are listed page by page, and counted by a sample of each list")
    func many() async throws {
        let backend = try RedisBackend.onTestServer(prefix: "\(UUID().uuidString):").backend
        let client = JobClient(backend, logger: Logger(label: "pages", factory: { _ in SwiftLogNoOpLogHandler() }))
        for number in 0..<2500 {
            let name = number % 500 < 100 ? "one" : "two"
            try await client.enqueue(named: name, arguments: Arguments(positional: [.integer(Int64(number))]))
        }
        var ids: Set<JobID> = []
        var cursor: JobCursor?
        var pages = 0
        repeat {
            let page = try await backend.page(JobFilter(limit: 700), after: cursor)
            ids.formUnion(page.jobs.map(\.id))
            cursor = page.next
            pages += 1
        } while cursor != nil
        #expect(ids.count == 2500 && pages <= 5)
        let counts = try await backend.counts()
        #expect(counts.reduce(0) { $0 + $1.count } == 2500 && counts.allSatisfy(\.isEstimate))
        let ones = counts.first { $0.name == "one" }?.count ?? 0
        #expect(abs(ones - 500) <= 100, "a fifth of them, by the sample: \(ones)")
    }
}
