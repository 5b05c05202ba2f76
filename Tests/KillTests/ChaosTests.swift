import Foundation
import GRDB
import Hoist
import HoistRedis
import HoistTesting
import Logging
import RESP
import Synchronization
import TestServers
import Testing

/// Everything at once, at random: every accepted job is accounted for afterwards. `scripts/chaos` runs it for longer.
@Suite("Chaos", .timeLimit(.minutes(90)))
struct ChaosTests {
    /// How long trouble goes on.
    private static let seconds =
        ProcessInfo.processInfo.environment["HOIST_CHAOS_SECONDS"].flatMap { Double($0) } ?? 40

    @Test("jobs on Redis and on SQLite, while workers, the server, the network and the file are in trouble")
    func chaos() async throws {
        // Side by side: both mostly wait.
        async let redis: Void = onRedis()
        async let sqlite: Void = onSQLite()
        _ = try await (redis, sqlite)
    }

    /// What happened, as one table.
    private final class Report: Sendable {
        private let counts = Mutex<[String: Int]>([:])

        func note(_ what: String) { counts.withLock { $0[what, default: 0] += 1 } }

        func printed(_ title: String, _ figures: [(String, String)]) {
            let troubles = counts.withLock { $0 }.sorted { $0.key < $1.key }.map { ($0.key, String($0.value)) }
            let rows = (figures + troubles).map { "| \($0.0) | \($0.1) |" }
            print((["", "| chaos on \(title) | |", "|---|---|"] + rows).joined(separator: "\n"))
        }
    }

    private func enqueueAll(_ client: JobClient, until end: ContinuousClock.Instant) async -> Set<JobID> {
        await withTaskGroup(of: Set<JobID>.self) { group in
            for producer in 0..<2 {
                group.addTask {
                    var accepted: Set<JobID> = []
                    var number = 0
                    while .now < end {
                        number += 1
                        var job = Step(milliseconds: Int.random(in: 5...200))
                        if number.isMultiple(of: 40) {
                            job.padding = String(repeating: "x", count: Int.random(in: 100_000...5_000_000))
                        }
                        let id = "p\(producer)-\(number)"
                        // An enqueue whose answer is lost is made again under the same id.
                        while .now < end + .seconds(30) {
                            if (try? await client.enqueue(job, .id(id))) != nil {
                                accepted.insert(id)
                                break
                            }
                            try? await Task.sleep(for: .milliseconds(100))
                        }
                        try? await Task.sleep(for: .milliseconds(30))
                    }
                    return accepted
                }
            }
            return await group.reduce(into: []) { $0.formUnion($1) }
        }
    }

    /// Stops, continues, kills and replaces workers.
    private func troubleWorkers(_ bench: KillBench, _ report: Report) throws {
        guard let worker = bench.workers.filter(\.isRunning).randomElement() else { return }
        if Bool.random() {
            report.note("workers killed")
            kill(worker.processIdentifier, SIGCONT)
            kill(worker.processIdentifier, SIGKILL)
            worker.waitUntilExit()
            try bench.startWorker()
        } else {
            report.note("workers stopped and continued")
            let pid = worker.processIdentifier
            kill(pid, SIGSTOP)
            DispatchQueue.global().asyncAfter(deadline: .now() + Double.random(in: 0.5...6)) { kill(pid, SIGCONT) }
        }
    }

    private func account(
        _ accepted: Set<JobID>, _ bench: KillBench, _ title: String, _ report: Report, limit: Duration
    ) async throws {
        let begun = ContinuousClock.now
        let backend = bench.backend
        @Sendable func isSettled() async -> Bool {
            guard let queues = try? await backend.queues() else { return false }
            return queues.allSatisfy { $0.waiting + $0.scheduled + $0.running == 0 }
        }
        // Long enough for leases to end and workers to find back.
        if try await !eventually(.seconds(12), isSettled) { await printWhere(accepted, bench) }
        let isDone = try await eventually(limit, isSettled)
        let journal = bench.journal()
        let ended = Set(journal.filter { $0.event == "end" }.map(\.job))
        let begins = Dictionary(grouping: journal.filter { $0.event == "begin" }, by: \.job)
        let lost = accepted.subtracting(ended)
        let twice = begins.filter { $0.value.count > 1 }
        var unexplained: [JobID] = []
        for id in twice.keys where accepted.contains(id) {
            // A job runs again only where a worker died or was cut off for longer than its lease.
            let record = try await backend.record(of: id)
            let isTold =
                record?.history.contains { $0.outcome == "worker lost" || $0.outcome == "handed back" } ?? false
            if !isTold { unexplained.append(id) }
        }
        report.printed(
            title,
            [
                ("accepted", "\(accepted.count)"), ("lost", "\(lost.count)"), ("begun twice", "\(twice.count)"),
                ("begun twice without a worker lost", "\(unexplained.count)"),
                ("seconds of trouble", "\(Int(Self.seconds))"),
                ("seconds to settle", "\((ContinuousClock.now - begun).components.seconds)"),
            ])
        if !isDone || !lost.isEmpty { await printWhere(accepted, bench) }
        #expect(isDone)
        #expect(lost.isEmpty, "\(title): \(lost.sorted().prefix(5))")
        #expect(unexplained.isEmpty, "\(title): \(unexplained.sorted().prefix(5))")
    }

    /// Says where jobs are that have not ended, and what each worker wrote last.
    private func printWhere(_ accepted: Set<JobID>, _ bench: KillBench) async {
        print("not settled: \((try? await bench.backend.queues()).map { "\($0)" } ?? "the backend does not answer")")
        let journal = bench.journal()
        let open = accepted.subtracting(journal.filter { $0.event == "end" }.map(\.job))
        for id in open.sorted().prefix(30) {
            guard let record = try? await bench.backend.record(of: id) else {
                print("\(id): no record")
                continue
            }
            let history = record.history.map { "\($0.outcome) by \($0.worker ?? "nobody")" }.joined(separator: ", ")
            print(
                "\(id): \(record.state) with \(record.worker ?? "nobody"), began \(record.startedAt.map { "\($0)" } ?? "never"), \(history)"
            )
        }
        for (index, worker) in bench.workers.enumerated() where worker.isRunning {
            let last = journal.last { $0.process == worker.processIdentifier }
            print(
                "worker \(index), process \(worker.processIdentifier), last wrote \(last.map { "\($0)" } ?? "nothing"):"
            )
            print(bench.log(of: index).split(separator: "\n").suffix(15).joined(separator: "\n"))
        }
    }

    private func onSQLite() async throws {
        let bench = try KillBench()
        let report = Report()
        for _ in 0..<4 { try bench.startWorker() }
        let end = ContinuousClock.now + .seconds(Self.seconds)
        async let accepted = enqueueAll(bench.client, until: end)
        let path = try #require(bench.databasePath)
        while .now < end {
            try await Task.sleep(for: .milliseconds(Int.random(in: 700...2500)))
            if Int.random(in: 0..<4) > 0 {
                try troubleWorkers(bench, report)
            } else {
                report.note("files locked")
                let microseconds = UInt32.random(in: 500_000...4_000_000)
                try? await DatabaseQueue(path: path).writeWithoutTransaction { database in
                    try database.execute(sql: "BEGIN IMMEDIATE")
                    usleep(microseconds)
                    try database.execute(sql: "COMMIT")
                }
            }
        }
        for worker in bench.workers where worker.isRunning { kill(worker.processIdentifier, SIGCONT) }
        try await account(await accepted, bench, "SQLite", report, limit: .seconds(120))
    }

    private func onRedis() async throws {
        let server = try RedisServer(["--appendonly", "yes", "--appendfsync", "always"])
        defer { server.stop() }
        let proxy = try TroubleProxy(to: server.port)
        let bench = try KillBench(url: "redis://127.0.0.1:\(proxy.port)/0")
        let report = Report()
        for _ in 0..<4 { try bench.startWorker() }
        let end = ContinuousClock.now + .seconds(Self.seconds)
        let direct = JobClient(
            try RedisBackend(url: server.url), logger: Logger(label: "chaos") { _ in SwiftLogNoOpLogHandler() })
        async let accepted = enqueueAll(direct, until: end)
        while .now < end {
            try await Task.sleep(for: .milliseconds(Int.random(in: 700...2500)))
            switch Int.random(in: 0..<8) {
            case 0:
                report.note("connections cut")
                proxy.cut()
            case 1:
                report.note("connections silenced")
                proxy.silence()
            case 2:
                report.note("line slowed to 1 MB/s")
                proxy.limit(toBytesPerSecond: 1_000_000)
                try await Task.sleep(for: .seconds(2))
                proxy.limit(toBytesPerSecond: 0)
            case 3:
                report.note("everything swallowed")
                proxy.isSwallowing = true
                try await Task.sleep(for: .seconds(Double.random(in: 1...6)))
                proxy.isSwallowing = false
            case 4:
                report.note("server killed and restarted")
                server.stop()
                try server.start()
            default: try troubleWorkers(bench, report)
            }
        }
        proxy.limit(toBytesPerSecond: 0)
        for worker in bench.workers where worker.isRunning { kill(worker.processIdentifier, SIGCONT) }
        try await account(await accepted, bench, "Redis", report, limit: .seconds(120))
    }
}
