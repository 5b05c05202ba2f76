import Foundation
import GRDB
import Hoist
import HoistSQLite
import HoistTesting
import Logging
import Testing

/// Trouble with files, and the errors that report it. No trouble loses a job.
@Suite("SQLite in trouble", .timeLimit(.minutes(3)))
struct SQLiteTroubleTests {
    struct Note: Job, Equatable {
        static let name = "note"
        var text: String
    }

    let folder: TemporaryFolder
    var path: String { folder.path("jobs.db") }
    let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

    init() throws { folder = try TemporaryFolder() }

    private func client(_ backend: SQLiteBackend) -> JobClient { JobClient(backend, logger: logger) }

    private func expectError(_ code: BackendError.Code, _ words: String, _ body: () async throws -> Void) async {
        do {
            try await body()
            Issue.record("nothing was thrown")
        } catch let error as BackendError {
            #expect(error.code == code, "\(error)")
            #expect(error.message.contains(words), "\(error)")
        } catch {
            Issue.record("\(error)")
        }
    }

    @Test("a folder that is not there, a file that is no database, a database of another program, a newer version")
    func opening() async throws {
        await expectError(.unavailable, "does its folder exist") {
            _ = try SQLiteBackend(path: folder.path("no/such/jobs.db"))
        }
        let text = folder.path("text")
        try String(repeating: "not a database ", count: 100).write(toFile: text, atomically: true, encoding: .utf8)
        await expectError(.corrupt, "not a SQLite database") { _ = try SQLiteBackend(path: text) }
        let other = folder.path("other.db")
        try await DatabaseQueue(path: other).write { try $0.execute(sql: "CREATE TABLE theirs (x)") }
        await expectError(.incompatible, "another program") { _ = try SQLiteBackend(path: other) }
        _ = try SQLiteBackend(path: path)
        try await DatabaseQueue(path: path).write { try $0.execute(sql: "PRAGMA user_version = 99") }
        await expectError(.incompatible, "schema version 99") { _ = try SQLiteBackend(path: path) }
        await expectError(.misuse, "sqlite:") { _ = try SQLiteBackend(url: "redis://localhost") }
        await expectError(.misuse, "names no file") { _ = try SQLiteBackend(url: "sqlite:") }
    }

    @Test("where no worker lives, upkeep alone gives the jobs of a dead one back")
    func upkeepAlone() async throws {
        let backend = try SQLiteBackend(path: path)
        let handle = try await client(backend).enqueue(Note(text: "left"))
        let presence = WorkerPresence(
            id: "dead", name: "dead", queues: ["default"], jobNames: [Note.name], startedAt: Date())
        _ = try await backend.join(presence, lease: .seconds(1))
        let claim = Claim(queue: "default", kind: "async", jobNames: [Note.name])
        let turn = WorkerTurn(claims: [claim], budget: ClaimBudget(kinds: ["async": 1]))
        #expect(try await backend.turn("dead", turn).deliveries.count == 1)
        #expect(
            try await eventually(.seconds(15)) {
                try await backend.tick(every: .milliseconds(100))
                return try await handle.state() == .waiting
            })
    }

    @Test("jobs are there after the backend was closed and opened")
    func reopening() async throws {
        do { try await client(try SQLiteBackend(path: path)).enqueue(Note(text: "kept")) }
        let again = try SQLiteBackend(url: "sqlite:" + path)
        #expect(try await again.enqueued(Note.self) == [Note(text: "kept")])
    }

    @Test("a file that another process holds: the call fails in time, says so, and may be repeated")
    func locked() async throws {
        let backend = try SQLiteBackend(path: path, configuration: .init(busyTimeout: .milliseconds(100)))
        var configuration = Configuration()
        configuration.allowsUnsafeTransactions = true
        let other = try DatabaseQueue(path: path, configuration: configuration)
        try await other.writeWithoutTransaction { try $0.execute(sql: "BEGIN IMMEDIATE") }
        await expectError(.busy, "held") { try await client(backend).enqueue(Note(text: "a"), .id("a")) }
        try await other.writeWithoutTransaction { try $0.execute(sql: "COMMIT") }
        #expect(try await client(backend).enqueue(Note(text: "a"), .id("a")).isNew, "nothing of the first try is left")
    }

    @Test("a read-only file: enqueue fails and says so")
    func readOnly() async throws {
        let backend = try SQLiteBackend(path: path)
        try await backend.setQueryOnly(true)
        await expectError(.readOnly, "may not be written") { try await client(backend).enqueue(Note(text: "a")) }
        try await backend.setQueryOnly(false)
        #expect(try await client(backend).enqueue(Note(text: "a")).isNew)
    }

    @Test("a full disk: enqueue fails, what was there stays, and once there is room work goes on")
    func full() async throws {
        let backend = try SQLiteBackend(path: path)
        let kept = try await client(backend).enqueue(Note(text: "kept"))
        try await backend.setPageLimit(60)
        var stored = 1
        await expectError(.full, "full") {
            for _ in 0..<1000 {
                try await client(backend).enqueue(Note(text: String(repeating: "x", count: 10_000)))
                stored += 1
            }
        }
        #expect(try await kept.state() == .waiting)
        #expect(try await backend.enqueued(Note.self).count == stored, "all that was acknowledged, and nothing else")
        try await backend.setPageLimit(1_000_000)
        #expect(try await client(backend).enqueue(Note(text: "more")).isNew)
    }

    @Test("a damaged row becomes a dead letter with its reason; the jobs around it run")
    func corruptRow() async throws {
        let backend = try SQLiteBackend(path: path)
        let handles = try await client(backend).enqueue(contentsOf: ["a", "b", "c"].map(Note.init))
        try await DatabaseQueue(path: path).write { database in
            try database.execute(
                sql: "UPDATE payload SET message = x'DEADBEEF' WHERE seq = (SELECT seq FROM job WHERE id = ?)",
                arguments: [handles[1].id])
        }
        var configuration = Worker.Configuration()
        configuration.isBurst = true
        try await Worker(backend, configuration: configuration, logger: logger) { Handler(Note.self) { _, _ in } }.run()
        let states = try await [handles[0].state(), handles[1].state(), handles[2].state()]
        #expect(states == [.succeeded, .failed, .succeeded])
        #expect(try await handles[1].record()?.failure?.kind == .undecodable)
        let bytes = try await DatabaseQueue(path: path).read {
            try Data.fetchAll($0, sql: "SELECT message FROM payload")
        }
        #expect(bytes.contains(Data([0xDE, 0xAD, 0xBE, 0xEF])), "the bytes are kept")
    }

    @Test("two backends on one file see each other's jobs and results without polling")
    func twoBackends() async throws {
        let (first, second) = (try SQLiteBackend(path: path), try SQLiteBackend(path: path))
        var waits: [Int64] = []
        for index in 0..<20 {
            let mark = second.workDoorbell.mark
            let start = SystemJobClock().uptime
            try await client(first).enqueue(Note(text: "\(index)"))
            await second.workDoorbell.wait(after: mark, for: .seconds(5), clock: SystemJobClock())
            waits.append(SystemJobClock().uptime - start)
        }
        #expect(waits.sorted()[5] < 20_000, "microseconds until the other is woken: \(waits.sorted())")
        #expect(try await second.enqueued(Note.self).count == 20)
    }

    @Test("dead letters are kept up to the limit, the newest")
    func deadLetterLimit() async throws {
        let backend = try SQLiteBackend(path: path, configuration: .init(deadLetterLimit: 3))
        var configuration = Worker.Configuration()
        configuration.isBurst = true
        let handles = try await client(backend).enqueue(contentsOf: (0..<6).map { Note(text: "\($0)") })
        let worker = Worker(backend, lanes: [.async(1)], configuration: configuration, logger: logger) {
            Handler(Note.self) { _, _ in throw JobDirective.deadLetter("no") }
        }
        try await worker.run()
        // A backend sweeps once in ten seconds, and nobody waits for it; a second backend sweeps now.
        let second = try SQLiteBackend(path: path, configuration: .init(deadLetterLimit: 3))
        try await second.tick()
        let newest: [JobID] = handles.suffix(3).map(\.id).reversed()
        #expect(try await eventually { try await backend.jobs(JobFilter(states: [.failed])).map(\.id) == newest })
    }
}
