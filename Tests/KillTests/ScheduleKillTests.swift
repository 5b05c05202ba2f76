import Foundation
import Hoist
import HoistTesting
import TestServers
import Testing

/// Programs that keep time are killed and stopped, and so is the server: each due tick is one job.
@Suite("Killing programs that keep time", .serialized, .timeLimit(.minutes(25)))
struct ScheduleKillTests {
    /// How long trouble goes on.
    private static let seconds =
        ProcessInfo.processInfo.environment["HOIST_SCHEDULE_SECONDS"].flatMap { Double($0) } ?? 20

    private static let tables: [Timetable] = [
        .every(.seconds(1)), .every(.seconds(2)), .every(.seconds(3), offset: .milliseconds(500)),
        .cron("*/2 * * * * *", in: "Europe/Berlin"), .cron("1-59/5 * * * * *", in: "America/New_York"),
        .cron("*/7 * * * * *", in: "Australia/Lord_Howe"),
    ]

    @Test("on SQLite")
    func onSQLite() async throws { try await keepTime(KillBench(), "SQLite", restartServer: nil) }

    @Test("on Redis, which is killed and restarted too")
    func onRedis() async throws {
        let server = try RedisServer(["--appendonly", "yes", "--appendfsync", "always"])
        defer { server.stop() }
        try await keepTime(KillBench(url: server.url), "Redis") {
            server.stop()
            try server.start()
        }
    }

    private func keepTime(
        _ bench: KillBench, _ title: String, restartServer: (() async throws -> Void)?
    ) async throws {
        for _ in 0..<4 { try bench.startWorker() }
        let schedules = bench.client.schedules
        var begins: [String: Date] = [:]
        for number in 0..<60 {
            let id = "s\(number)"
            // Whoever is down for longer than usual makes up for all of it.
            try await schedules.put(
                Schedule(
                    id, Self.tables[number % Self.tables.count], named: "kill.step",
                    arguments: Arguments(keyword: ["milliseconds": 1, "blocks": false]),
                    catchUp: .all(within: .seconds(600), atMost: 1000)))
            begins[id] = Date()
        }
        let end = ContinuousClock.now + .seconds(Self.seconds)
        var (kills, restarts) = (0, 0)
        let restartAt = ContinuousClock.now + .seconds(Self.seconds / 2)
        while .now < end {
            try await Task.sleep(for: .milliseconds(500))
            guard let worker = bench.workers.filter(\.isRunning).randomElement() else { continue }
            if kills % 8 == 3 {
                let pid = worker.processIdentifier
                kill(pid, SIGSTOP)
                DispatchQueue.global().asyncAfter(deadline: .now() + 5) { kill(pid, SIGCONT) }
            } else {
                kill(worker.processIdentifier, SIGCONT)
                kill(worker.processIdentifier, SIGKILL)
                worker.waitUntilExit()
                try bench.startWorker()
            }
            kills += 1
            if restarts == 0, let restartServer, .now > restartAt {
                try await restartServer()
                restarts += 1
            }
        }
        for worker in bench.workers where worker.isRunning { kill(worker.processIdentifier, SIGCONT) }
        // Everything that is due by now.
        let last = Date()
        var missing: Set<JobID> = []
        var expected: Set<JobID> = []
        for number in 0..<60 {
            let id = "s\(number)"
            let begin = try #require(begins[id])
            for run in try Self.tables[number % Self.tables.count].next(10_000, after: begin) where run <= last {
                expected.insert(jobID(id, run))
            }
        }
        missing = expected
        let isDone = try await eventually(.seconds(60)) {
            missing.subtract(bench.journal().filter { $0.event == "end" }.map(\.job))
            return missing.isEmpty
        }
        #expect(
            isDone, "\(title): \(missing.count) of \(expected.count) runs are missing: \(missing.sorted().prefix(5))")
        for number in 0..<60 { try await schedules.pause("s\(number)") }
        // No run that the timetable does not have, but for those between putting and reading the clock.
        let begun = Set(bench.journal().filter { $0.event == "begin" }.map(\.job))
        let extra = try begun.filter { job in
            let parts = job.split(separator: "@")
            let time = try Date(
                String(parts[1]), strategy: Date.ISO8601FormatStyle(includingFractionalSeconds: parts[1].contains(".")))
            guard let number = Int(parts[0].dropFirst()) else { return true }
            return try !Self.tables[number % Self.tables.count].matches(time)
        }
        #expect(extra.isEmpty, "\(title): \(extra.sorted().prefix(5))")
        var late: [Double] = []
        var entries: [String: Int] = [:]
        for number in 0..<60 {
            let history = try await schedules.history(of: "s\(number)")
            late += history.filter { $0.job != nil }.map { $0.tickedAt.timeIntervalSince($0.due) }
            for entry in history { if let job = entry.job { entries[job, default: 0] += 1 } }
        }
        // A tick that is closed is closed once.
        #expect(entries.values.allSatisfy { $0 == 1 })
        late.sort()
        func share(_ part: Double) -> String {
            String(format: "%.3f s", late[min(late.count - 1, Int(Double(late.count) * part))])
        }
        print(
            "schedules on \(title): \(expected.count) runs, \(missing.count) missing, \(kills) kills and stops, \(restarts) restarts; late: median \(share(0.5)), 99 % \(share(0.99)), most \(share(1))"
        )
        #expect(late[min(late.count - 1, late.count * 99 / 100)] < 8)
        #expect(late.last ?? 0 < 30)
    }

    private func jobID(_ schedule: String, _ due: Date) -> JobID {
        let seconds = due.timeIntervalSince1970
        let text = Date(timeIntervalSince1970: seconds.rounded(.down)).formatted(.iso8601)
        guard seconds != seconds.rounded(.down) else { return "\(schedule)@\(text)" }
        return "\(schedule)@\(text.dropLast()).500000Z"
    }
}
