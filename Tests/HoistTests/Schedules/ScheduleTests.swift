import Foundation
import Hoist
import HoistTesting
import Logging
import Testing

/// Schedules from end to end, in one process.
@Suite("Schedules", .timeLimit(.minutes(3)))
struct ScheduleTests {
    private struct Report: Job {
        static let name = "test.report"
        var day: String
    }

    /// What handlers saw.
    private final class Seen: Sendable {
        let ticks = Shared<[Tick]>([])
        let days = Shared<[String]>([])
    }

    private func worker(
        _ backend: MemoryBackend, _ seen: Seen, app: String = "app", revision: Int = 0,
        @ScheduleBuilder schedules: () -> [Schedule] = { [] }
    ) -> Worker {
        var configuration = Worker.Configuration()
        (configuration.app, configuration.appRevision) = (app, revision)
        // Time moves by more than a lease at once.
        configuration.lease = .seconds(1_000_000)
        return Worker(backend, configuration: configuration, logger: quiet) {
            Handler(Report.self) { job, context in
                seen.days.change { $0.append(job.day) }
                if let tick = context.schedule { seen.ticks.change { $0.append(tick) } }
                if job.day == "parent" { try await context.jobs.enqueue(Report(day: "child")) }
            }
        } schedules: {
            schedules()
        }
    }

    private func expectEventually(
        sourceLocation: SourceLocation = #_sourceLocation, _ condition: () async throws -> Bool
    ) async throws {
        let isSo = try await eventually(.seconds(30), condition)
        #expect(isSo, sourceLocation: sourceLocation)
    }

    /// Runs a worker while `body` does something.
    private func running(_ worker: Worker, _ body: () async throws -> Void) async throws {
        let task = Task { try await worker.run() }
        do {
            try await body()
        } catch {
            worker.stop(.immediately)
            _ = try? await task.value
            throw error
        }
        worker.stop(.immediately)
        try await task.value
    }

    @Test("declared schedules run; the handler sees the tick; children are no scheduled runs")
    func declared() async throws {
        let clock = TestClock()
        let (backend, seen) = (MemoryBackend(clock: clock), Seen())
        let client = JobClient(backend, logger: quiet)
        let worker = worker(backend, seen) {
            Schedule("fixed", .every(.seconds(60)), Report(day: "parent"), .header("tenant", "acme"))
            Schedule("made", .every(.seconds(60), offset: .seconds(30))) { tick in
                Report(day: "run \(tick.number)")
            }
        }
        try await running(worker) {
            try await expectEventually { try await client.schedules.list().count == 2 }
            try await expectEventually {
                // Never more than a second ahead of whoever keeps time.
                if try await backend.dueSchedules(in: ["", "app"], limit: 1).due.isEmpty {
                    clock.advance(by: .seconds(1))
                }
                let fixed = try await client.schedules.history(of: "fixed").count
                let made = try await client.schedules.history(of: "made").count
                return fixed >= 2 && made >= 2
            }
            try await client.schedules.pause("fixed")
            try await client.schedules.pause("made")
            try await expectEventually { try await backend.queues().allSatisfy { $0.waiting + $0.running == 0 } }
        }
        let history = try await client.schedules.history(of: "fixed")
        let made = try await client.schedules.history(of: "made")
        #expect(history.map(\.number) == (1...history.count).reversed())
        #expect(history.allSatisfy { $0.reason == "on time" })
        #expect(seen.days.value.filter { $0 == "parent" }.count == history.count)
        #expect(seen.days.value.filter { $0.hasPrefix("run") }.sorted() == (1...made.count).map { "run \($0)" })
        #expect(seen.days.value.filter { $0 == "child" }.count == history.count)
        #expect(Set(seen.ticks.value.map(\.schedule)) == ["fixed", "made"])
        #expect(seen.ticks.value.count == history.count + made.count, "children are no scheduled runs")
        let record = try #require(try await backend.record(of: history[0].job ?? ""))
        #expect(record.state == .succeeded)
        let shown = try #require(try await client.schedules.schedule("fixed"))
        #expect(
            shown.app == "app" && shown.runs == history.count && shown.state == .paused
                && shown.jobName == "test.report")
    }

    @Test("a year of 50 schedules in moved time: every due time once")
    func year() async throws {
        let clock = TestClock(start: Date(timeIntervalSince1970: 1_767_225_600))
        let backend = MemoryBackend(clock: clock, resultRetention: .seconds(400 * 86_400))
        let client = JobClient(backend, logger: quiet)
        let tables: [Timetable] = [
            .cron("30 2 * * *", in: "Europe/Berlin"), .cron("0 0 * * MON", in: "America/New_York"),
            .cron("0 12 L * *", in: "Asia/Tokyo"), .cron("0 9 15W * *", in: "Europe/London"), .every(.seconds(86_400)),
        ]
        let begin = clock.now
        for number in 0..<50 {
            // Time moves by a day at once.
            try await client.schedules.put(
                Schedule(
                    "s\(number)", tables[number % tables.count], named: "nobody's",
                    catchUp: .all(within: .seconds(3 * 86_400))))
        }
        let upkeep = UpkeepService(backend, logger: quiet)
        let task = Task { try await upkeep.run() }
        for _ in 0..<365 {
            clock.advance(by: .seconds(86_400))
            // The ticker is behind until it sleeps again.
            try await expectEventually {
                // Whoever was about to sleep while time moved has missed it.
                clock.advance(by: .seconds(1))
                return try await backend.dueSchedules(in: [""], limit: 100).due.isEmpty
            }
        }
        task.cancel()
        try await task.value
        let jobs = Set(try await backend.jobs(JobFilter(limit: 100_000)).map(\.id))
        var expected: Set<JobID> = []
        for number in 0..<50 {
            for run in try tables[number % tables.count].next(400, after: begin) where run <= clock.now {
                expected.insert("s\(number)@" + ISO8601DateFormatter().string(from: run))
            }
        }
        #expect(jobs == expected, "\(jobs.symmetricDifference(expected).sorted().prefix(5))")
    }

    @Test("put, pause, resume, skip, run by hand, backfill, remove")
    func changes() async throws {
        let clock = TestClock()
        let backend = MemoryBackend(clock: clock)
        let client = JobClient(backend, logger: quiet)
        let schedules = client.schedules
        let first = try await schedules.put(Schedule("s", .every(.seconds(60)), Report(day: "d"), .queue("reports")))
        #expect(first.queue == "reports" && first.app == nil)
        let again = try await schedules.put(
            Schedule("s", .every(.seconds(60)), Report(day: "e")), ifUnchangedSince: first.revision)
        #expect(again.next == first.next && again.queue == "default")
        await #expect(throws: ScheduleError.self) {
            try await schedules.put(
                Schedule("s", .every(.seconds(60)), Report(day: "f")), ifUnchangedSince: first.revision)
        }
        #expect(try await schedules.pause("s", note: "deploy").note == "deploy")
        #expect(try await schedules.schedule("s")?.state == .paused)
        #expect(try await schedules.resume("s").state == .active)
        try await schedules.skipNext("s")
        let job = try #require(try await schedules.runNow("s"))
        #expect(try await backend.record(of: job)?.state == .waiting)
        #expect(try await schedules.next("s", count: 3).count == 3)
        let begin = clock.now
        let filled = try await schedules.backfill("s", from: begin - 300, to: begin)
        #expect(filled.count == 5)
        #expect(try await schedules.history(of: "s").count == 6)
        #expect(try await backend.queues().first?.waiting == 6)
        await #expect(throws: ScheduleError.self) {
            try await schedules.backfill("s", from: begin - 100_000, to: begin)
        }
        #expect(try await schedules.remove("s"))
        #expect(try await !schedules.remove("s"))
        await #expect(throws: ScheduleError.self) { try await schedules.pause("s") }
        await #expect(throws: ScheduleError.self) { try await schedules.runNow("s") }
        let made = Schedule("made", .every(.seconds(1))) { _ in Report(day: "") }
        await #expect(throws: ScheduleError.self) { try await schedules.put(made) }
        let blind = Schedule("o", .every(.seconds(1)), Report(day: ""), .result(.ignore), overlap: .skip)
        await #expect(throws: ScheduleError.self) { try await schedules.put(blind) }
    }

    @Test("of two revisions the higher wins; another app and a program at run time are refused")
    func revisions() async throws {
        let clock = TestClock()
        let backend = MemoryBackend(clock: clock)
        let client = JobClient(backend, logger: quiet)
        func declare(_ app: String, _ revision: Int, _ interval: Int) async throws {
            let worker = worker(backend, Seen(), app: app, revision: revision) {
                Schedule("s", .every(.seconds(interval)), Report(day: "d"))
            }
            try await running(worker) {
                try await expectEventually { worker.health.isAlive }
            }
        }
        try await declare("one", 5, 60)
        try await declare("one", 4, 120)
        #expect(try await client.schedules.schedule("s")?.timetable == .every(.seconds(60)))
        try await declare("one", 5, 180)
        #expect(try await client.schedules.schedule("s")?.timetable == .every(.seconds(180)))
        let thief = worker(backend, Seen(), app: "two", revision: 9) {
            Schedule("s", .every(.seconds(60)), Report(day: "d"))
        }
        await #expect(throws: ScheduleError.self) { try await thief.run() }
        await #expect(throws: ScheduleError.self) {
            try await client.schedules.put(Schedule("s", .every(.seconds(1)), Report(day: "")))
        }
        // What nobody declares any more stays still, is told, and comes back with its code.
        let other = worker(backend, Seen(), app: "one", revision: 6) {
            Schedule("t", .every(.seconds(60)), Report(day: "d"))
        }
        try await running(other) {
            try await expectEventually {
                clock.advance(by: .seconds(70))
                return try await client.schedules.schedule("s")?.state == .orphaned
            }
        }
        try await declare("one", 7, 180)
        #expect(try await client.schedules.schedule("s")?.state == .active)
    }

    @Test("overlap is seen from the records of real runs")
    func overlap() async throws {
        let backend = MemoryBackend()
        let client = JobClient(backend, logger: quiet)
        let (gate, begun) = (Doorbell(), Shared<Int>(0))
        let worker = Worker(backend, logger: quiet) {
            Handler(Report.self) { _, _ in
                begun.change { $0 += 1 }
                await gate.wait(after: 0, for: .seconds(60), clock: SystemJobClock())
            }
        }
        try await running(worker) {
            try await client.schedules.put(
                Schedule("s", .every(.milliseconds(200), allowsSubsecond: true), Report(day: "d"), overlap: .skip))
            try await expectEventually {
                try await client.schedules.history(of: "s").contains { $0.reason.hasPrefix("skipped") }
            }
            try await expectEventually { begun.value == 1 }
            gate.ring()
            try await expectEventually { begun.value > 3 }
        }
    }

    @Test("a job that cannot be made is told, and others go on")
    func broken() async throws {
        struct Oops: Error {}
        let clock = TestClock()
        let (backend, seen) = (MemoryBackend(clock: clock), Seen())
        let worker = worker(backend, seen) {
            Schedule("bad", .every(.seconds(60))) { _ -> Report in throw Oops() }
            Schedule("good", .every(.seconds(60)), Report(day: "good"))
        }
        try await running(worker) {
            let client = JobClient(backend, logger: quiet)
            try await expectEventually { try await client.schedules.list().count == 2 }
            try await expectEventually {
                clock.advance(by: .seconds(1))
                return seen.days.value.first == "good"
            }
        }
    }

    /// Fails each call, or each call about one schedule.
    private struct Faulty: ScheduleKeeping {
        let base: MemoryBackend
        var isAway = false

        private func away() throws { if isAway { throw BackendError(.unavailable, "away on purpose") } }

        func write(_ writes: [ScheduleWrite]) async throws -> [ScheduleWriteResult] {
            try away()
            if writes.contains(where: { $0.id == "bad" && !$0.messages.isEmpty }) {
                throw BackendError(.corrupt, "refused on purpose")
            }
            return try await base.write(writes)
        }

        func schedules(_ ids: [String]) async throws -> [StoredSchedule] {
            try away()
            return try await base.schedules(ids)
        }

        func schedules(after id: String, limit: Int) async throws -> [StoredSchedule] {
            try await base.schedules(after: id, limit: limit)
        }

        func dueSchedules(in groups: [String], limit: Int) async throws -> DueSchedules {
            try away()
            return try await base.dueSchedules(in: groups, limit: limit)
        }

        func scheduleHistory(of id: String) async throws -> [[UInt8]] { try await base.scheduleHistory(of: id) }
    }

    @Test("a worker that cannot store its schedules, for the backend is away, can be stopped", .timeLimit(.minutes(1)))
    func stoppedWhileAway() async throws {
        let memory = MemoryBackend()
        var backend = memory.backend
        backend.schedules = Faulty(base: memory, isAway: true)
        let stopped = Shared(false)
        var configuration = Worker.Configuration()
        configuration.onStop = { stopped.change { $0 = true } }
        let worker = Worker(backend, configuration: configuration, logger: quiet) {
            Handler(Report.self) { _, _ in }
        } schedules: {
            Schedule("s", .every(.seconds(60)), Report(day: "d"))
        }
        let task = Task { try await worker.run() }
        worker.stop(.drain)
        try await task.value
        #expect(stopped.value)
    }

    @Test(
        "a schedule that the backend refuses holds up no other, and one that this program cannot tick is left to others"
    )
    func bystanders() async throws {
        let (memory, seen) = (MemoryBackend(), Seen())
        var backend = memory.backend
        backend.schedules = Faulty(base: memory)
        let client = JobClient(memory, logger: quiet)
        for id in ["bad", "good"] {
            try await client.schedules.put(
                Schedule(id, .every(.milliseconds(200), allowsSubsecond: true), Report(day: id)))
        }
        let upkeep = UpkeepService(backend, logger: quiet)
        let keeping = Task { try await upkeep.run() }
        let revision = try #require(try await memory.schedules(["bad"]).first?.revision)
        let others = worker(memory, seen)
        try await running(others) {
            try await expectEventually { seen.days.value.filter { $0 == "bad" }.count >= 2 }
            try await expectEventually { seen.days.value.filter { $0 == "good" }.count >= 2 }
        }
        #expect(try await memory.schedules(["bad"]).first?.revision ?? 0 > revision)
        keeping.cancel()
        try await keeping.value
    }
}
