import CSQLiteLimit
import Foundation
import Hoist
import HoistSQLite
import Logging

/// Benchmarks on SQLite and Redis. `HoistBenchmarks [PYTHON]` prints one table each; with an interpreter that has huey
/// and celery[redis] it runs those peers in the same run, and Sidekiq where it is installed. `HoistBenchmarks redis
/// [PYTHON]` prints the second alone, `HoistBenchmarks events [PYTHON]` what events and remote control cost, and `HoistBenchmarks rabbit URL` the
/// rates on a RabbitMQ that runs. `HoistBenchmarks workflows URL` measures steps and members of workflows.
@main
struct Main {
    static func main() async throws {
        let arguments = CommandLine.arguments
        switch arguments.dropFirst().first {
        case "worker": try await BenchmarkWorker.run(database: arguments[2], slots: Int(arguments[3]) ?? 64)
        case "prepare": try await BenchmarkWorker.prepare(database: arguments[2], jobs: Int(arguments[3]) ?? 100_000)
        case "waiting": try await BenchmarkWorker.runWaiting(jobs: Int(arguments[2]) ?? 10_000)
        case "redis-work":
            try await RedisBenchmark.work(
                arguments[2], slots: Int(arguments[3]) ?? 256, events: arguments.dropFirst(4).first ?? "when-asked")
        case "redis-idle": try await RedisBenchmark.idle(arguments[2], events: arguments[3])
        case "redis-listen": try await RedisBenchmark.listen(arguments[2])
        case "redis-flood": try await FleetBenchmark.flood(arguments[2], channel: arguments[3])
        case "redis-watch": try await FleetBenchmark.watch(arguments[2])
        case "redis-beat": try await FleetBenchmark.beat(arguments[2], nodes: Int(arguments[3]) ?? 1000)
        case "redis-serve": try await RedisBenchmark.serve(arguments[2], slots: Int(arguments[3]) ?? 64)
        case "redis-latency": try await RedisBenchmark.latency(arguments[2], jobs: Int(arguments[3]) ?? 1000)
        case "redis-limit":
            try RedisLimit.run(
                port: Int(arguments[2]) ?? 6379, seconds: 3, steps: arguments.last == "ours" ? .ours : .fewest)
        case "redis-bare": try await RedisBenchmark.bare(arguments[2], roundTrips: 20_000)
        case "redis-enqueue":
            try await RedisBenchmark.enqueue(
                arguments[2], mode: arguments[3], jobs: Int(arguments[4]) ?? 10_000, bytes: Int(arguments[5]) ?? 32,
                keepsResults: arguments[6] == "on")
        case "isolation-work": try await IsolationBenchmark.work(arguments[2], children: Int(arguments[3]) ?? 2)
        case "isolation-serve": try await IsolationBenchmark.serve(arguments[2])
        case "isolation-overhead": try await IsolationBenchmark.overhead(arguments[2], jobs: Int(arguments[3]) ?? 500)
        case "rabbit":
            try await RabbitBenchmark.run(arguments[2], jobs: Int(arguments.dropFirst(3).first ?? "") ?? 50_000)
        case "events": try await EventsReport(python: arguments.dropFirst(2).first).run()
        case "workflows": try await WorkflowBenchmark.run(arguments[2])
        case "redis": try await RedisReport(python: arguments.dropFirst(2).first).run()
        default:
            try await Report(python: arguments.dropFirst().first).run()
            try await RedisReport(python: arguments.dropFirst().first).run()
        }
    }
}

struct NoOp: Job {
    static let name = "bench.noop"
    var text: String
    var number: Int
    typealias Output = Int
}

let silent = Logger(label: "bench", factory: { _ in SwiftLogNoOpLogHandler() })

enum BenchmarkWorker {
    static func run(database: String, slots: Int) async throws {
        let backend = try SQLiteBackend(path: database)
        let worker = Worker(backend, lanes: [.async(slots)], logger: silent) {
            Handler(NoOp.self) { job, _ in job.number }
        }
        try await worker.run()
    }

    /// Fills a database on which a worker is profiled.
    static func prepare(database: String, jobs: Int) async throws {
        let client = JobClient(try SQLiteBackend(path: database), logger: silent)
        for begin in stride(from: 0, to: jobs, by: 1000) {
            try await client.enqueue(
                contentsOf: (begin..<begin + 1000).map { NoOp(text: String(repeating: "x", count: 32), number: $0) })
        }
    }

    /// Async jobs that wait for I/O, all at once; prints the resident memory in megabytes while they do.
    static func runWaiting(jobs: Int) async throws {
        let folder = try TemporaryFolder()
        // Another process enqueues, so that only the memory of the worker itself is measured.
        let producer = Process()
        producer.executableURL = URL(fileURLWithPath: CommandLine.arguments[0])
        producer.arguments = ["prepare", folder.path("jobs.db"), String(jobs)]
        try producer.run()
        producer.waitUntilExit()
        let backend = try SQLiteBackend(path: folder.path("jobs.db"))
        let worker = Worker(backend, lanes: [.async(jobs)], logger: silent) {
            Handler(NoOp.self) { job, _ in
                try await Task.sleep(for: .seconds(3600))
                return job.number
            }
        }
        let running = Task { try await worker.run() }
        while worker.health.running < jobs { try await Task.sleep(for: .milliseconds(20)) }
        print(residentMegabytes(of: getpid()))
        worker.stop(.immediately)
        try await running.value
    }
}

final class TemporaryFolder {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-bench-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    func path(_ name: String) -> String { url.appendingPathComponent(name).path }
}

func residentMegabytes(of process: pid_t) -> Double {
    let status = (try? String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)) ?? ""
    let line = status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") }
    return (line?.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first).flatMap { Double($0) }.map {
        $0 / 1024
    } ?? 0
}
