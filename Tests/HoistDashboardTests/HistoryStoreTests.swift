import Foundation
import GRDB
import Hoist
@testable import HoistDashboard
import HoistMonitor
import HoistTesting
import Logging
import Testing

private let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// The history of jobs, in memory and in a file.
@Suite("The history", .timeLimit(.minutes(3)))
struct HistoryStoreTests {
    private let now = Date(timeIntervalSince1970: 1_800_000_000)
    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    private func job(_ id: String, _ change: (inout HistoryJob) -> Void = { _ in }) -> HistoryJob {
        var picture = FleetPicture()
        let event = FleetEvent([
            "type": "task-received", "uuid": .string(id), "hostname": "w@h", "name": "mail.send", "queue": "mail",
            "args": "()", "kwargs": "{'to': 'c-4711', 'password': 'hush'}",
            "timestamp": .double(now.timeIntervalSince1970),
        ])!
        picture.hear(event, at: now)
        var job = SecretMask().hide(HistoryJob(picture[job: id]!, at: now))
        change(&job)
        return job
    }

    private func open(_ name: String? = nil) throws -> HistoryStore {
        try HistoryStore.open(name.map { .file(folder.path($0)) } ?? .memory, logger: silent)
    }

    private func page(_ store: HistoryStore, _ text: String, backend: Int64 = 1, before: Int64? = nil, limit: Int = 50)
        async throws -> JobPageQuery.Result
    {
        try await store.page(
            JobPageQuery(backend: backend, search: try JobSearch(text), before: before, limit: limit), at: now)
    }

    @Test("a job is kept as it is, once, and changes in place")
    func upsert() async throws {
        for store in [try open(), try open("a.db")] {
            let backend = try store.number(ofBackend: "prod")
            try await store.write(HistoryBatch(jobs: [job("1"), job("2")]), backend: backend)
            let ended = job("1") {
                $0.state = .failed
                $0.error = "Broken('connection refused')"
                $0.retries = 2
            }
            var attempt = HistoryAttempt(ended)
            attempt.startedAt = now
            try await store.write(HistoryBatch(jobs: [ended], attempts: ["1": [3: attempt]]), backend: backend)
            let all = try await page(store, "", backend: backend).jobs
            #expect(all.map(\.id) == ["2", "1"])
            let found = try #require(try await store.job("1", backend: backend))
            #expect(found.job.state == .failed && found.job.queue == "mail" && found.job.worker == "w@h")
            #expect(
                found.job.keywordText?.contains("hush") == false && found.job.keywordText?.contains("c-4711") == true)
            #expect(found.attempts.count == 1 && found.attempts[0].number == 3 && found.attempts[0].startedAt == now)
            #expect(try await store.job("1", backend: backend + 1) == nil)
        }
    }

    @Test(
        "a search finds what it says",
        arguments: [
            ("", 9), ("state:failed", 3), ("-state:failed", 6), ("name:mail.*", 9), ("name:mail", 0), ("queue:mail", 9),
            ("worker:w@*", 9), ("-worker:w@h", 0), ("refused", 3), ("refus", 3), ("\"connection refused\"", 3),
            ("state:failed attempt:>1", 3), ("attempt:1", 6), ("id:j-1", 1), ("id:j-*", 9), ("c-4711 -refused", 6),
            ("since:1h", 9), ("before:1h", 0), ("ran:>1s", 3), ("-ran:>1s", 6), ("hush", 0), ("parent:j-0", 1),
            ("nobody", 0), ("\"' OR 1=1 --\"", 0),
        ])
    func searches(text: String, count: Int) async throws {
        let store = try open()
        let backend = try store.number(ofBackend: "prod")
        let jobs = (0..<9).map { number in
            job("j-\(number)") {
                if number.isMultiple(of: 3) {
                    ($0.state, $0.error, $0.retries, $0.runTime) = (.failed, "Broken('connection refused')", 1, 2.5)
                }
                if number == 5 { $0.parentID = "j-0" }
            }
        }
        try await store.write(HistoryBatch(jobs: jobs), backend: backend)
        #expect(try await page(store, text).jobs.count == count)
        let query = JobPageQuery(backend: backend, search: try JobSearch(text))
        #expect(try await store.count(query, at: now) == count)
    }

    @Test("pages follow each other, and miss and repeat nothing while jobs come")
    func paging() async throws {
        let store = try open()
        let backend = try store.number(ofBackend: "prod")
        try await store.write(HistoryBatch(jobs: (0..<95).map { job("\($0)") }), backend: backend)
        var seen: [String] = []
        var before: Int64?
        repeat {
            let result = try await page(store, "", before: before, limit: 10)
            seen += result.jobs.map(\.id)
            before = result.next
            try await store.write(HistoryBatch(jobs: [job("new-\(seen.count)")]), backend: backend)
        } while before != nil
        #expect(seen == (0..<95).reversed().map(String.init))
    }

    @Test("counts stop at ten thousand")
    func bounded() async throws {
        let store = try open()
        let backend = try store.number(ofBackend: "prod")
        try await store.write(HistoryBatch(jobs: (0..<10_050).map { job("\($0)") }), backend: backend)
        let count = try await store.count(JobPageQuery(backend: backend), at: now)
        #expect(count == 10_001 && Format.bounded(count) == "10,000+")
    }

    @Test("what is older than it is to be kept goes in small steps, with its attempts and its words")
    func retention() async throws {
        let store = try open()
        let backend = try store.number(ofBackend: "prod")
        let old = now.addingTimeInterval(-8 * 86_400)
        let jobs = (0..<1200).map { number in
            job("\(number)") {
                $0.state = number < 1000 ? .succeeded : .failed
                $0.touchedAt = old
            }
        }
        let attempts = Dictionary(uniqueKeysWithValues: jobs.map { ($0.id, [1: HistoryAttempt($0)]) })
        try await store.write(HistoryBatch(jobs: jobs, attempts: attempts), backend: backend)
        var steps = 1
        while try await store.tidy(DashboardRetention(), at: now) { steps += 1 }
        #expect(steps == 3)
        #expect(try await store.count(JobPageQuery(backend: backend), at: now) == 200)
        #expect(try await store.read { try Int.fetchOne($0, sql: "SELECT count(*) FROM attempt") } == 200)
        #expect(try await page(store, "4711").jobs.count == 50)
        #expect(
            try await store.read {
                try Int.fetchOne($0, sql: "SELECT count(*) FROM job_text WHERE job_text MATCH 'mail'")
            } == 200)
    }

    @Test("tallies add up in every resolution, and charts find them")
    func tallies() async throws {
        let store = try open()
        let backend = try store.number(ofBackend: "prod")
        var tally = Tally()
        tally.add(.succeeded, run: 0.5)
        tally.add(.failed, run: 1)
        let minute = Int(now.timeIntervalSince1970) / 60 * 60
        for series in [Series.all, Series(kind: .name, label: "mail.send")] {
            for _ in 0..<2 {
                try await store.write(
                    HistoryBatch(tallies: [.init(series: series, minute: minute): tally]), backend: backend)
            }
            for range in ChartRange.allCases {
                let bars = try await store.tallies(series, backend: backend, range: range, at: now)
                #expect(bars.values.reduce(0) { $0 + $1.succeeded } == 2, "\(range)")
                #expect(bars.values.reduce(0) { $0 + $1.runs.count } == 4)
                #expect(bars.keys.allSatisfy { range.starts(at: now).contains($0) })
            }
        }
        let other = Series(kind: .name, label: "other")
        #expect(try await store.tallies(other, backend: backend, range: .day, at: now).isEmpty)
    }

    @Test("depths keep the highest of each step, and gaps are found")
    func depths() async throws {
        let store = try open()
        let backend = try store.number(ofBackend: "prod")
        let samples = [(3, 1.0), (9, 4.0), (2, nil)].map {
            DepthSample(queue: "mail", at: now, waiting: $0.0, oldest: $0.1)
        }
        let other = DepthSample(queue: "media", at: now, waiting: 5, oldest: nil)
        let gap = now.addingTimeInterval(-60)...now
        try await store.write(HistoryBatch(depths: samples + [other], gaps: [gap]), backend: backend)
        for range in ChartRange.allCases {
            let all = try await store.depths(queue: nil, backend: backend, range: range, at: now)
            #expect(all.values.map(\.waiting) == [14])
            let mail = try await store.depths(queue: "mail", backend: backend, range: range, at: now)
            #expect(mail.values.first == DepthPoint(waiting: 9, oldest: 4))
        }
        #expect(try await store.gaps(backend: backend, since: now.addingTimeInterval(-3600)).count == 1)
        #expect(try await store.gaps(backend: backend, since: now.addingTimeInterval(10)).isEmpty)
    }

    @Test("a history survives, and another dashboard that wants the same file keeps its own in memory and says so")
    func reopened() async throws {
        do {
            let store = try open("history.db")
            try await store.write(HistoryBatch(jobs: [job("1")]), backend: try store.number(ofBackend: "prod"))
            #expect(store.trouble == nil)
            let second = try open("history.db")
            #expect(second.trouble?.contains("another dashboard") == true)
            #expect(try await page(second, "").jobs.isEmpty)
        }
        let again = try open("history.db")
        #expect(again.trouble == nil)
        #expect(try await page(again, "").jobs.map(\.id) == ["1"])
    }

    @Test("a corrupt history is moved aside, and a folder that is missing is made")
    func corrupt() async throws {
        let path = folder.path("deep/down/history.db")
        do { _ = try HistoryStore.open(.file(path), logger: silent) }
        try Data(repeating: 0x5A, count: 50_000).write(to: URL(fileURLWithPath: path))
        for suffix in ["-wal", "-shm"] { try? FileManager.default.removeItem(atPath: path + suffix) }
        let store = try HistoryStore.open(.file(path), logger: silent)
        #expect(store.trouble == nil)
        try await store.write(HistoryBatch(jobs: [job("1")]), backend: try store.number(ofBackend: "prod"))
        let files = try FileManager.default.contentsOfDirectory(atPath: folder.path("deep/down"))
        #expect(files.contains { $0.contains(".corrupt-") })
    }

    @Test("a place where nothing can be written leaves a live view that says so")
    func unwritable() throws {
        let store = try HistoryStore.open(.file("/proc/hoist/history.db"), logger: silent)
        #expect(store.trouble?.contains("/proc/hoist") == true)
    }

    @Test("a search that takes too long is given up, and the next one is answered")
    func interrupted() async throws {
        let store = try open()
        let error = await #expect(throws: BackendError.self) {
            try await store.read { database in
                try Int.fetchOne(
                    database,
                    sql: "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n")
            }
        }
        #expect(error?.code == .busy)
        #expect(try await store.read { try Int.fetchOne($0, sql: "SELECT 7") } == 7)
    }
}
