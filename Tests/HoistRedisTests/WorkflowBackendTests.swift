import Foundation
import Hoist
import HoistRedis
import HoistSQLite
import HoistTesting
import Logging
import Testing

/// The shapes of workflows on the backends that keep them on disk or on a server.
@Suite("Workflows on Redis and SQLite", .timeLimit(.minutes(2)))
struct WorkflowBackendTests {
    private struct Start: Job {
        static let name = "start"
        var x: Int
        typealias Output = Int
    }
    private struct Plus: Job {
        static let name = "plus"
        static let options = JobOptions(retry: .none)
        var y: Int
        typealias Input = Int
        typealias Output = Int
    }
    private struct Total: Job {
        static let name = "total"
        typealias Input = [Int]
        typealias Output = Int
    }
    private struct Describe: Job {
        static let name = "describe"
        typealias Input = Joined<Int, StepOutcome<Int>>
        typealias Output = String
    }
    private struct Instead: Job {
        static let name = "instead"
        typealias Input = StepFailure
        typealias Output = Int
    }
    private struct Replaced: Job {
        static let name = "replaced"
        typealias Input = Int
        typealias Output = Int
    }

    enum Place: CaseIterable { case redis, sqlite, redisWithResultsInSQLite }

    private let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

    private func running<T: Sendable>(
        on place: Place, _ body: @Sendable (JobClient) async throws -> T
    ) async throws -> T {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-flow-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        func redis() throws -> RedisBackend {
            try RedisBackend.onTestServer(prefix: "flow\(UUID().uuidString.prefix(8)):").backend
        }
        func sqlite() throws -> SQLiteBackend { try SQLiteBackend(path: folder.appendingPathComponent("jobs.db").path) }
        let backend: Backend =
            switch place {
            case .redis: try redis().backend
            case .sqlite: try sqlite().backend
            case .redisWithResultsInSQLite: Backend(try redis(), results: try sqlite())
            }
        let worker = Worker(backend, queues: ["default"], logger: silent) {
            Handler(Start.self) { job, _ in job.x }
            Handler(Plus.self) { job, x, _ in
                guard job.y >= 0 else { throw JobDirective.deadLetter("less than nothing") }
                return x + job.y
            }
            Handler(Total.self) { _, numbers, _ in numbers.reduce(0, +) }
            Handler(Describe.self) { _, input, _ in
                switch input.values.1 {
                case .succeeded(let number): "\(input.values.0) and \(number)"
                case .failed(let failure): "\(input.values.0), and \(failure.message)"
                }
            }
            Handler(Instead.self) { _, _, _ in 1000 }
            Handler(Replaced.self) { _, x, _ in
                throw JobDirective.replace(by: .task("plus", [.integer(Int64(x))], ["y": 5]).with("queue", "default"))
            }
        }
        let client = JobClient(backend, logger: silent)
        return try await withWorker(worker) { try await body(client) }
    }

    @Test("groups, joins, recovery and graphs", arguments: Place.allCases)
    func shapes(_ place: Place) async throws {
        try await running(on: place) { jobs in
            let group = Group((1...4).map { Start(x: $0).then(Plus(y: 10)) }).then(Total())
            let found1 = try await jobs.enqueue(group).output(timeout: .seconds(20))
            #expect(found1 == 50)
            let each = Group([Start(x: 1), Start(x: 2)]).then(forEach: Plus(y: 1).then(Plus(y: 1))).then(Total())
            let found2 = try await jobs.enqueue(each).output(timeout: .seconds(20))
            #expect(found2 == 7)
            let recovered = Start(x: 1).then(Plus(y: -1)).recover(with: Instead()).then(Plus(y: 1))
            let found3 = try await jobs.enqueue(recovered).output(timeout: .seconds(20))
            #expect(found3 == 1001)
            for (y, expected) in [(2, "3 and 3"), (-2, "3, and less than nothing")] {
                let graph = Graph { graph in
                    let start = graph.add(Start(x: 1))
                    let good = graph.add(Plus(y: 2), on: start)
                    let other = graph.add(Plus(y: y), on: start)
                    return graph.add(Describe(), on: good, other.outcome)
                }
                let found4 = try await jobs.enqueue(graph).output(timeout: .seconds(20))
                #expect(found4 == expected)
            }
        }
    }

    @Test("a step that is replaced by another job hands on what that returns", arguments: Place.allCases)
    func replacement(_ place: Place) async throws {
        try await running(on: place) { jobs in
            let flow = Start(x: 1).then(Replaced()).then(Plus(y: 1))
            let handle = try await jobs.enqueue(flow)
            let found5 = try await handle.output(timeout: .seconds(20))
            #expect(found5 == 7)
            let alone = try await jobs.enqueue(Replaced(), on: 2)
            let found6 = try await alone.output(timeout: .seconds(20))
            #expect(found6 == 7)
        }
    }

    @Test("a cancelled group of waiting jobs ends, also behind many others", arguments: Place.allCases)
    func cancellation(_ place: Place) async throws {
        try await running(on: place) { jobs in
            // Of a queue that no worker consumes.
            _ = try await jobs.enqueue(contentsOf: (0..<400).map { Start(x: $0) }, [.queue("idle")])
            let group = try await jobs.enqueue(each: Plus(y: 1), on: [1, 2, 3], .queue("idle"))
            let isCancelled = try await group.cancel()
            #expect(isCancelled)
            let state = try await jobs.workflow(group.id).status()?.state
            #expect(state == .cancelled)
        }
    }
}
