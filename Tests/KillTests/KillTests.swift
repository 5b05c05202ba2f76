import Foundation
import GRDB
import Hoist
import HoistSQLite
import HoistTesting
import Testing

/// The guarantees, tried on real processes that are killed at bad moments.
@Suite("Killing workers", .serialized, .timeLimit(.minutes(3)))
struct KillTests {
    @Test("workers killed at random during 2,000 jobs lose none; only jobs in flight run twice")
    func storm() async throws { try await killStorm(on: try KillBench()) }

    @Test("a worker stopped for longer than its lease is fenced when it goes on")
    func stopAndContinue() async throws {
        try await stopPastTheLease(on: try KillBench(lease: 1))
    }

    @Test("job code that blocks every cooperative thread for longer than the lease does not cost the lease")
    func starvation() async throws {
        let bench = try KillBench(lease: 3)
        try bench.startWorker()
        let jobs = (0..<ProcessInfo.processInfo.activeProcessorCount + 2).map { _ in
            Step(milliseconds: 6000, blocks: true)
        }
        let handles = try await bench.client.enqueue(contentsOf: jobs)
        #expect(try await eventually(.seconds(30)) { bench.journal().count >= 2 })
        // A worker that would take jobs over, if there were any to take.
        try bench.startWorker()
        #expect(try await eventually(.seconds(60)) { try await bench.unfinished() == 0 })
        for handle in handles {
            let record = try #require(try await handle.record())
            #expect(record.state == .succeeded && record.lostWorkers == 0)
        }
        #expect(!bench.log(of: 0).contains("the lease was lost"))
    }

    @Test("closures that run when jobs are stopped take as long as they like: no lease waits for them, and no timer")
    func stubbornCancellation() async throws {
        let bench = try KillBench(lease: 3)
        try bench.startWorker()
        let stubborn = try await bench.client.enqueue(named: "kill.stubborn")
        #expect(try await eventually(.seconds(30)) { bench.journal().contains { $0.event == "begin" } })
        // A worker that would take jobs over, if there were any to take.
        try bench.startWorker()
        // Stopped by its time limit, and by a person.
        let other = try await bench.client.enqueue(named: "kill.stubborn")
        #expect(try await eventually(.seconds(30)) { bench.journal().filter { $0.event == "begin" }.count == 2 })
        _ = try await other.cancel()
        let quick = try await bench.client.enqueue(Step(milliseconds: 1))
        _ = try await quick.output(timeout: .seconds(8))
        #expect(try await eventually(.seconds(60)) { try await bench.unfinished() == 0 })
        for job in [stubborn, other] { #expect(try await job.record()?.lostWorkers == 0) }
        for index in 0..<2 { #expect(!bench.log(of: index).contains("the lease was lost")) }
    }

    @Test("a file that is locked for longer than the lease costs no live worker a job")
    func lockedFile() async throws {
        let bench = try KillBench(lease: 3)
        for _ in 0..<2 { try bench.startWorker() }
        _ = try await bench.client.enqueue(contentsOf: (0..<6).map { _ in Step(milliseconds: 14_000) })
        #expect(try await eventually(.seconds(30)) { bench.journal().count >= 6 })
        let path = try #require(bench.databasePath)
        try await DatabaseQueue(path: path).writeWithoutTransaction { database in
            try database.execute(sql: "BEGIN IMMEDIATE")
            // The lock is what is tested: nothing can be waited for.
            usleep(8_000_000)
            try database.execute(sql: "COMMIT")
        }
        #expect(try await eventually(.seconds(60)) { try await bench.unfinished() == 0 })
        let begun = Dictionary(grouping: bench.journal().filter { $0.event == "begin" }, by: \.job)
        #expect(begun.count == 6 && begun.values.allSatisfy { $0.count == 1 })
        for index in 0..<2 { #expect(!bench.log(of: index).contains("the lease was lost")) }
    }

    @Test("SIGTERM hands back what is not finished in time, with no attempt spent, and ends the process")
    func terminate() async throws {
        let bench = try KillBench()
        let worker = try bench.startWorker()
        let long = try await bench.client.enqueue(Step(milliseconds: 60_000))
        let short = try await bench.client.enqueue(Step(milliseconds: 500))
        #expect(try await eventually(.seconds(30)) { bench.journal().count { $0.event == "begin" } == 2 })
        kill(worker.processIdentifier, SIGTERM)
        // Two signals within a moment count as one: systemd signals every process of a service, and a supervisor
        // forwards its own.
        try await Task.sleep(for: .milliseconds(50))
        kill(worker.processIdentifier, SIGTERM)
        #expect(try await eventually { !worker.isRunning })
        #expect(worker.terminationStatus == 0)
        #expect(try await short.state() == .succeeded)
        let record = try #require(try await long.record())
        #expect(record.state == .waiting && record.lostWorkers == 0 && record.attempts == 0)
    }

    @Test("a worker that is the program drains at SIGTERM, and is no lost worker, deploy after deploy")
    func plainProgram() async throws {
        let bench = try KillBench()
        let long = try await bench.client.enqueue(Step(milliseconds: 60_000))
        for round in 1...4 {
            let worker = try bench.startWorker(plain: true)
            #expect(
                try await eventually(.seconds(30)) { bench.journal().filter { $0.event == "begin" }.count == round })
            kill(worker.processIdentifier, SIGTERM)
            #expect(try await eventually { !worker.isRunning })
            #expect(worker.terminationStatus == 0 && worker.terminationReason == .exit)
        }
        let record = try #require(try await long.record())
        #expect(record.state == .waiting && record.lostWorkers == 0)
    }

    @Test("a worker goes on when whoever reads its log has ended")
    func brokenLog() async throws {
        let bench = try KillBench()
        let pipe = Pipe()
        let worker = try bench.startWorker(standardError: pipe)
        _ = try await bench.client.enqueue(Step(milliseconds: 1)).output(timeout: .seconds(30))
        try pipe.fileHandleForReading.close()
        try pipe.fileHandleForWriting.close()
        for _ in 0..<3 { _ = try await bench.client.enqueue(Step(milliseconds: 1)).output(timeout: .seconds(30)) }
        kill(worker.processIdentifier, SIGTERM)
        #expect(try await eventually { !worker.isRunning })
        #expect(worker.terminationStatus == 0 && worker.terminationReason == .exit)
    }

    @Test("an idle worker of another process starts a job within moments")
    func wakeUp() async throws {
        let bench = try KillBench()
        try bench.startWorker()
        _ = try await bench.client.enqueue(Step(milliseconds: 0)).output(timeout: .seconds(30))
        var waits: [Double] = []
        for _ in 0..<30 {
            // Idle again: nothing is running, and the worker sleeps.
            try await Task.sleep(for: .milliseconds(20))
            let start = SystemJobClock().uptime
            let handle = try await bench.client.enqueue(Step(milliseconds: 0))
            _ = try await handle.output(timeout: .seconds(30))
            let begun = bench.journal().last { $0.event == "begin" && $0.job == handle.id }?.time ?? .max
            waits.append(Double(begun - start) / 1000)
        }
        waits.sort()
        print("enqueue to start across processes: median \(waits[15]) ms, longest \(waits[29]) ms")
        #expect(waits[15] < 20)
    }
}

extension Array {
    fileprivate subscript(safe index: Int) -> Element? { indices.contains(index) ? self[index] : nil }
}

/// Stops a worker for longer than its lease, lets another take its job over, and checks what becomes of the first
/// worker's late settlement.
func stopPastTheLease(on bench: KillBench) async throws {
    let slow = try bench.startWorker()
    let handle = try await bench.client.enqueue(Step(milliseconds: 1500))
    #expect(try await eventually(.seconds(30)) { bench.journal().contains { $0.event == "begin" } })
    kill(slow.processIdentifier, SIGSTOP)
    let next = try bench.startWorker()
    let output = try await handle.output(timeout: .seconds(30))
    #expect(output == Int(next.processIdentifier), "the second worker did it")
    kill(slow.processIdentifier, SIGCONT)
    #expect(
        try await eventually(.seconds(10)) {
            bench.log(of: 0).contains("the lease was lost") || bench.log(of: 0).contains("refused")
        })
    let record = try #require(try await handle.record())
    #expect(record.state == .succeeded && record.output == .integer(Int64(next.processIdentifier)))
    #expect(record.history.map(\.outcome) == ["worker lost"])
    // The worker that was stopped performs jobs again.
    kill(next.processIdentifier, SIGKILL)
    let again = try await bench.client.enqueue(Step(milliseconds: 1))
    #expect(try await again.output(timeout: .seconds(30)) == Int(slow.processIdentifier))
}

/// Kills workers at random while they work through 2,000 jobs, or as many more as it takes to kill some, and counts
/// what was lost and what ran twice.
func killStorm(on bench: KillBench) async throws {
    let clock = SystemJobClock()
    var total = 0
    func enqueue(_ count: Int) async throws {
        total += count
        _ = try await bench.client.enqueue(
            contentsOf: (0..<count).map { _ in Step(milliseconds: Int.random(in: 20...80)) })
    }
    try await enqueue(2000)
    for _ in 0..<3 { try bench.startWorker() }
    #expect(try await eventually(.seconds(30)) { !bench.journal().isEmpty })

    var kills: [(time: Int64, process: Int32)] = []
    while kills.count < 30 {
        let unfinished = try await bench.unfinished()
        if kills.count < 6, unfinished < 700 { try await enqueue(500) } else if unfinished <= 200 { break }
        try await Task.sleep(for: .milliseconds(Int.random(in: 200...400)))
        guard let victim = bench.workers.filter(\.isRunning).randomElement() else { continue }
        kill(victim.processIdentifier, SIGKILL)
        victim.waitUntilExit()
        // Noted only now: until the worker is gone it may begin one more job.
        kills.append((clock.uptime, victim.processIdentifier))
        try bench.startWorker()
    }
    // The counts of a queue are not of one moment: a job on its way to a worker may be in none of them.
    let filter = JobFilter(states: [.succeeded], limit: .max)
    _ = try await eventually(.seconds(60)) { [total] in
        guard try await bench.unfinished() == 0 else { return false }
        return try await bench.backend.jobs(filter).count == total
    }
    let succeeded = try await bench.backend.jobs(filter)
    let journal = bench.journal()
    let others = Set(journal.map(\.job)).subtracting(succeeded.map(\.id))
    var found: [String] = []
    for id in others.prefix(5) {
        let record = try await bench.backend.record(of: id)
        let story = record?.history.map { "\($0.number) \($0.outcome)" } ?? []
        found.append("\(id) \(record.map { "\($0.state)" } ?? "has no record") \(story)")
    }
    #expect(succeeded.count == total, "not succeeded: \(found.joined(separator: "; "))")

    let ends = Dictionary(grouping: journal.filter { $0.event == "end" }, by: \.job)
    let begins = Dictionary(grouping: journal.filter { $0.event == "begin" }, by: \.job)
    var inFlight: Set<String> = []
    var deaths: [String: Int] = [:]
    var takeovers: [(job: String, seconds: Double)] = []
    for (time, process) in kills {
        for (job, starts) in begins where starts.contains(where: { $0.process == process && $0.time <= time }) {
            let finished = ends[job]?.contains { $0.process == process && $0.time <= time - 1_000_000 } ?? false
            guard !finished else { continue }
            inFlight.insert(job)
            deaths[job, default: 0] += 1
            let hadEnded = ends[job]?.contains { $0.process == process } ?? false
            if !hadEnded, let next = starts.map(\.time).filter({ $0 > time }).min() {
                takeovers.append((job, Double(next - time) / 1_000_000))
            }
        }
    }
    let duplicates = begins.filter { $0.value.count > 1 }
    let waits = takeovers.map(\.seconds).sorted()
    print(
        "\(kills.count) kills, \(total - ends.count) lost, \(duplicates.count) begun twice, "
            + "\(ends.filter { $0.value.count > 1 }.count) finished twice, takeover "
            + "median \(waits[safe: waits.count / 2] ?? 0) s, longest \(waits.last ?? 0) s")
    #expect(kills.count > 3)
    #expect(ends.count == total, "none lost")
    #expect(duplicates.keys.allSatisfy(inFlight.contains), "only jobs in flight at a kill run again")
    // A worker that takes a job over may be killed itself before it begins the job, which only the job's record tells:
    // then the job is taken over again.
    let lostWorkers = Dictionary(uniqueKeysWithValues: succeeded.map { ($0.id, $0.lostWorkers) })
    // Half of them show how soon a job is with another worker; the machine may have paused in any single one.
    #expect(waits[safe: waits.count / 2] ?? 0 < 5, "\(waits)")
    for (job, seconds) in takeovers {
        let unseen = max(0, (lostWorkers[job] ?? 0) - (deaths[job] ?? 0))
        #expect(seconds < 20 * Double(1 + unseen), "job \(job), \(unseen) deaths before it began")
    }
}
