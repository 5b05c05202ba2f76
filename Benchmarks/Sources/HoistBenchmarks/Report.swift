import CSQLiteLimit
import Foundation
import Hoist
import HoistSQLite
import HoistTesting

struct Report {
    let python: String?
    let jobs = 200_000
    let batch = 64

    func run() async throws {
        let limit = try measureLimit()
        let huey = try python.map(measureHuey)
        let ours = try await measureHoist()
        row("enqueue in bulk, jobs/s", ours.enqueue, limit.enqueue, huey?.enqueue)
        row("enqueue one at a time, jobs/s", ours.single, nil, huey?.enqueue)
        row("process, results kept, jobs/s", ours.process, limit.process, huey?.process)
        try await measureClaims()
        try await measureLatency()
        try await measureMemory()
    }

    private func row(_ what: String, _ value: Double, _ limit: Double?, _ peer: Double?) {
        var line = "\(what): \(Int(value))"
        if let limit { line += "; bare statements from C \(Int(limit)), we reach \(percent(value / limit))" }
        if let peer { line += "; huey \(Int(peer)), we are \(String(format: "%.1f", value / peer)) times as fast" }
        print(line)
    }

    private func percent(_ ratio: Double) -> String { "\(Int(ratio * 100)) %" }

    private func measureLimit() throws -> (enqueue: Double, process: Double) {
        let folder = try TemporaryFolder()
        let enqueue = sqlite_limit_enqueue(folder.path("limit.db"), Int32(jobs), 1000)
        return (enqueue, sqlite_limit_process(folder.path("limit.db"), Int32(batch)))
    }

    private func measureHuey(_ python: String) throws -> (enqueue: Double, process: Double) {
        let folder = try TemporaryFolder()
        let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent(
            "../../peers/huey_sqlite.py")
        let text = try output(python, [script.path, folder.path("huey.db"), "10000"])
        let numbers = text.split(whereSeparator: \.isWhitespace).compactMap { Double($0) }
        return (numbers.first ?? 0, numbers.last ?? 0)
    }

    private func output(_ program: String, _ arguments: [String]) throws -> String {
        let process = Process()
        let pipe = Pipe()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.standardOutput = pipe
        try process.run()
        let bytes = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return String(decoding: bytes, as: UTF8.self)
    }

    private func startWorker(_ database: String) throws -> Process {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: CommandLine.arguments[0])
        process.arguments = ["worker", database, String(4 * batch)]
        try process.run()
        return process
    }

    private func job(_ number: Int) -> NoOp { NoOp(text: String(repeating: "x", count: 32), number: number) }

    private func measureHoist() async throws -> (enqueue: Double, single: Double, process: Double) {
        let folder = try TemporaryFolder()
        let path = folder.path("jobs.db")
        let backend = try SQLiteBackend(path: path)
        let client = JobClient(backend, logger: silent)
        let clock = SystemJobClock()

        var start = clock.uptime
        // Two callers at once, as the threads of a server would be: one encodes while the other's jobs are stored.
        try await withThrowingTaskGroup(of: Void.self) { group in
            for caller in 0..<2 {
                group.addTask {
                    for begin in stride(from: caller * 1000, to: jobs, by: 2000) {
                        try await client.enqueue(contentsOf: (begin..<begin + 1000).map(job))
                    }
                }
            }
            try await group.waitForAll()
        }
        let enqueue = Double(jobs) / Double(clock.uptime - start) * 1e6

        start = clock.uptime
        for number in 0..<5000 { try await client.enqueue(job(number), .queue("other")) }
        let single = 5000 / Double(clock.uptime - start) * 1e6

        let worker = try startWorker(path)
        defer {
            worker.terminate()
            worker.waitUntilExit()
        }
        // From the first claim to the last settlement, by the times in the jobs' own records. The test of the end is
        // rare and cheap, because it uses the same two cores.
        let last = try await backend.jobs(JobFilter(queue: "default", limit: 1))
        while try await backend.record(of: last[0].id)?.state.hasEnded == false {
            try await Task.sleep(for: .milliseconds(200))
        }
        try await Task.sleep(for: .milliseconds(500))
        let records = try await backend.jobs(JobFilter(queue: "default", limit: .max))
        let first = records.compactMap(\.startedAt).min() ?? Date()
        let end = records.compactMap(\.endedAt).max() ?? Date()
        return (enqueue, single, Double(jobs) / end.timeIntervalSince(first))
    }

    /// The cost of a claim, with few and with many jobs waiting and delayed.
    private func measureClaims() async throws {
        var costs: [Double] = []
        for count in [1000, 1_000_000] {
            let folder = try TemporaryFolder()
            let backend = try SQLiteBackend(path: folder.path("jobs.db"))
            let client = JobClient(backend, logger: silent)
            for begin in stride(from: 0, to: count, by: 1000) {
                try await client.enqueue(contentsOf: (begin..<begin + 500).map(job))
                try await client.enqueue(contentsOf: (begin..<begin + 500).map(job), [.after(.seconds(100_000))])
            }
            let presence = try JSONText.decode(
                WorkerPresence.self,
                from: Array(
                    #"{"id":"w","name":"w","queues":[],"job_names":[],"started_at":0,"running":0,"concurrency":1,"is_draining":false}"#
                        .utf8
                ))
            _ = try await backend.join(presence, lease: .seconds(1000))
            let clock = SystemJobClock()
            var times: [Int64] = []
            for _ in 0..<300 {
                let start = clock.uptime
                _ = try await backend.turn(
                    "w",
                    WorkerTurn(
                        claims: [Claim(queue: "default", kind: "async", jobNames: [NoOp.name])],
                        budget: ClaimBudget(kinds: ["async": 1])))
                times.append(clock.uptime - start)
            }
            costs.append(Double(times.sorted()[150]))
        }
        print(
            "a claim of one job, median: \(Int(costs[0])) µs with 1,000 jobs waiting or delayed, \(Int(costs[1])) µs with 1,000,000 "
                + "(\(String(format: "%.2f", costs[1] / costs[0])) times)")
    }

    private func measureLatency() async throws {
        let folder = try TemporaryFolder()
        let path = folder.path("jobs.db")
        let backend = try SQLiteBackend(path: path)
        let client = JobClient(backend, logger: silent)
        let worker = try startWorker(path)
        _ = try await client.enqueue(job(0)).output(timeout: .seconds(30))
        var starts: [Double] = []
        var results: [Double] = []
        let clock = SystemJobClock()
        for number in 0..<500 {
            try await Task.sleep(for: .milliseconds(5))
            let (begin, date) = (clock.uptime, Date())
            let handle = try await client.enqueue(job(number))
            _ = try await handle.output(timeout: .seconds(10))
            results.append(Double(clock.uptime - begin) / 1000)
            if let started = try await handle.record()?.startedAt {
                starts.append(started.timeIntervalSince(date) * 1000)
            }
        }
        func spread(_ values: [Double]) -> String {
            let sorted = values.sorted()
            return String(
                format: "median %.2f ms, 99th percentile %.2f ms", sorted[sorted.count / 2],
                sorted[sorted.count * 99 / 100])
        }
        print("enqueue to start, idle worker in another process: \(spread(starts))")
        print("enqueue to result: \(spread(results))")
        let before = cpuSeconds(of: worker.processIdentifier)
        try await Task.sleep(for: .seconds(5))
        let idle = (cpuSeconds(of: worker.processIdentifier) - before) / 5
        print(
            String(
                format: "idle worker: %.1f MB resident, %.2f %% of a core",
                residentMegabytes(of: worker.processIdentifier), idle * 100))
        worker.terminate()
        worker.waitUntilExit()
    }

    private func cpuSeconds(of process: pid_t) -> Double {
        let stat = (try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)) ?? ""
        let fields = stat.split(separator: " ")
        guard fields.count > 15 else { return 0 }
        return ((Double(fields[13]) ?? 0) + (Double(fields[14]) ?? 0)) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    private func measureMemory() async throws {
        let megabytes = try output(CommandLine.arguments[0], ["waiting", "10000"])
        print(
            "10,000 async jobs waiting at once: \(megabytes.trimmingCharacters(in: .whitespacesAndNewlines)) MB resident"
        )
    }
}
