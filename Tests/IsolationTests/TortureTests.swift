import Foundation
import Hoist
import HoistRedis
import HoistSQLite
import HoistTesting
import IsolationTestJobs
import Logging
import RESP
import TestServers
import Testing

/// A worker that is a process of its own, on a database in a folder of its own.
private final class TortureBench {
    private let folder: URL
    private let url: String
    let backend: SQLiteBackend
    let client: JobClient
    private(set) var workers: [Process] = []

    init() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-torture-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        url = "sqlite:" + folder.appendingPathComponent("jobs.db").path
        backend = try SQLiteBackend(url: url)
        client = JobClient(backend, logger: Logger(label: "torture", factory: { _ in SwiftLogNoOpLogHandler() }))
    }

    deinit {
        for worker in workers where worker.isRunning {
            kill(worker.processIdentifier, SIGKILL)
            worker.waitUntilExit()
        }
        try? FileManager.default.removeItem(at: folder)
    }

    @discardableResult
    func start(_ command: String = "worker", _ more: [String] = [], asFirstProcess: Bool = false) throws -> Process {
        let process = Process()
        // Beside the tests: `scripts/build-examples` builds into the same folder.
        let program = IsolationBench.binaries.appendingPathComponent("Torture")
        process.executableURL = asFirstProcess ? URL(fileURLWithPath: "/usr/bin/unshare") : program
        process.arguments =
            (asFirstProcess ? Processes.namespace + [program.path] : []) + [command, "--backend", url, "--drain", "1"]
            + more
        var environment = ProcessInfo.processInfo.environment
        // Backtraces of a program without optimizations take seconds each; another test has one.
        environment["SWIFT_BACKTRACE"] = "enable=no"
        process.environment = environment
        let log = folder.appendingPathComponent("worker-\(workers.count).log")
        _ = FileManager.default.createFile(atPath: log.path, contents: nil)
        process.standardError = try FileHandle(forWritingTo: log)
        try process.run()
        workers.append(process)
        return process
    }

    func log(of index: Int) -> String {
        (try? String(contentsOf: folder.appendingPathComponent("worker-\(index).log"), encoding: .utf8)) ?? ""
    }

    /// Waits until the worker performs good jobs, with all its children.
    func warmUp(_ worker: Process) async throws {
        let handles = try await client.enqueue(contentsOf: (0..<20).map { Ordeal(deed: .good, number: $0) })
        for handle in handles { #expect(try await handle.output(timeout: .seconds(30)) >= 0) }
        #expect(try await eventually(.seconds(20)) { Processes.children(of: worker.processIdentifier).count == 4 })
    }
}

extension OneAfterTheOther {
    @Suite("Torture", .serialized, .timeLimit(.minutes(6)))
    struct TortureTests {
        @Test(
            "3,000 jobs, of which 650 crash, hang, leak, lie or flood: each ends as it should, and nothing is left over"
        )
        func torture() async throws {
            let bench = try TortureBench()
            let worker = try bench.start()
            let id = worker.processIdentifier
            try await bench.warmUp(worker)
            let (files, memory) = (Processes.openFiles(of: id), Processes.memory(of: id))
            let jobs = Ordeal.mixture(of: 3000, bad: 50)
            let start = SystemJobClock().uptime
            var handles: [JobHandle<Int>] = []
            for job in jobs {
                // Only a job that hangs gets the short limit: on a machine that stalls for a moment, another job must
                // not reach it.
                let hangs = job.deed.fate.kind == .timedOut
                handles.append(try await bench.client.enqueue(job, .hardTimeLimit(.seconds(hangs ? 2 : 60))))
            }
            #expect(
                try await eventually(.seconds(300)) {
                    try await bench.backend.queues().allSatisfy { $0.waiting + $0.running + $0.scheduled == 0 }
                })
            let seconds = Double(SystemJobClock().uptime - start) / 1_000_000
            let records = Dictionary(
                uniqueKeysWithValues: try await bench.backend.jobs(JobFilter(limit: .max)).map { ($0.id, $0) })
            var wrong: [Ordeal.Deed: [String]] = [:]
            var bad = 0
            for (job, handle) in zip(jobs, handles) {
                if job.deed != .good { bad += 1 }
                let record = try #require(records[handle.id])
                let fate = Ordeal.Deed.Fate(state: record.state, kind: record.failure?.kind)
                let isRight =
                    fate == job.deed.fate && record.attempts == 1
                    && (record.state != .succeeded || record.output == .integer(Int64(job.number * 2)))
                if !isRight {
                    wrong[job.deed, default: []].append(
                        "\(record.state) \(record.failure.map { "\($0)" } ?? "") attempts \(record.attempts)")
                }
            }
            #expect(wrong.isEmpty, "\(wrong)")
            #expect(bad == 650)
            #expect(worker.isRunning && bench.workers.count == 1)

            // The last children may still be exiting.
            func remains() -> [String] {
                let (found, children) = (Processes.all(), Processes.children(of: id))
                let strays = found.filter { $0.parent == id && $0.state == "Z" || $0.command.contains("sleep 100") }
                return (children.count == 4 ? [] : ["children \(children)"])
                    + (Processes.openFiles(of: id) <= files
                        ? [] : ["\(Processes.openFiles(of: id)) files, \(files) before"])
                    + strays.map { "\($0)" }
            }
            let isClean = try await eventually(.seconds(10)) { remains().isEmpty }
            let left = remains()
            #expect(isClean, "left over: \(left)")
            let grown = Processes.memory(of: id) - memory
            #expect(grown < 48 << 20)
            print(
                "\(bad) bad jobs among 3,000 in \(Int(seconds)) s; \(files) open files before, \(Processes.openFiles(of: id)) after, memory grew by \(grown >> 20) MiB"
            )

            kill(id, SIGTERM)
            #expect(try await eventually(.seconds(10)) { !worker.isRunning })
            #expect(worker.terminationStatus == 0)
        }

        @Test("SIGTERM: what runs is handed back after the drain time, and children are gone with the worker")
        func terminate() async throws {
            let bench = try TortureBench()
            let worker = try bench.start()
            try await bench.warmUp(worker)
            let handle = try await bench.client.enqueue(Ordeal(deed: .spin, number: 0), .hardTimeLimit(.seconds(600)))
            #expect(try await eventually(.seconds(20)) { try await handle.state() == .running })
            let children = Processes.children(of: worker.processIdentifier)
            let start = SystemJobClock().uptime
            kill(worker.processIdentifier, SIGTERM)
            #expect(try await eventually(.seconds(10)) { !worker.isRunning })
            #expect(worker.terminationStatus == 0)
            #expect(Double(SystemJobClock().uptime - start) / 1_000_000 < 4)
            #expect(children.count == 4 && Processes.all().allSatisfy { !children.contains($0.id) })
            let record = try #require(try await handle.record())
            #expect(record.state == .waiting && record.attempts == 0 && record.lostWorkers == 0)
        }

        @Test(
            "SIGKILL of the worker: children end by themselves within a second, whatever they do, and the jobs come back"
        )
        func killed() async throws {
            let bench = try TortureBench()
            let worker = try bench.start()
            try await bench.warmUp(worker)
            let deeds: [Ordeal.Deed] = [.spin, .ignoreTermination, .spin]
            let handles = try await bench.client.enqueue(
                contentsOf: deeds.map { Ordeal(deed: $0, number: 0) }, [.hardTimeLimit(.seconds(600))])
            for handle in handles {
                #expect(try await eventually(.seconds(20)) { try await handle.state() == .running })
            }
            let children = Processes.children(of: worker.processIdentifier)
            let start = SystemJobClock().uptime
            kill(worker.processIdentifier, SIGKILL)
            #expect(
                try await eventually(.seconds(10)) {
                    Processes.all().allSatisfy { !children.contains($0.id) || $0.state == "Z" }
                })
            let seconds = Double(SystemJobClock().uptime - start) / 1_000_000
            print("children were gone \(Int(seconds * 1000)) ms after their worker was killed")
            #expect(children.count == 4 && seconds < 1)
            let next = try bench.start()
            #expect(try await eventually(.seconds(10)) { try await handles[0].record()?.lostWorkers == 1 })
            #expect(try await eventually(.seconds(10)) { try await handles[0].state() == .running })
            #expect(next.isRunning)
        }

        @Test(
            "as the first process of a container a supervisor leaves no zombies of workers that were killed",
            .enabled(if: Processes.canHaveNamespace))
        func firstProcess() async throws {
            let bench = try TortureBench()
            let outside = try bench.start("up", ["--workers", "1", "--children", "4"], asFirstProcess: true)
            func children(of id: Int32) -> [Processes.Entry] { Processes.all().filter { $0.parent == id } }
            #expect(try await eventually(.seconds(20)) { try await bench.backend.workers().count == 1 })
            let supervisor = try #require(children(of: outside.processIdentifier).first)
            let worker = try #require(children(of: supervisor.id).first)
            #expect(try await eventually(.seconds(20)) { children(of: worker.id).count == 4 })
            kill(worker.id, SIGKILL)
            #expect(
                try await eventually(.seconds(20)) {
                    let now = children(of: supervisor.id)
                    return now.count == 1 && now[0].id != worker.id && now[0].state != "Z"
                })
            kill(supervisor.id, SIGTERM)
            #expect(try await eventually(.seconds(20)) { !outside.isRunning })
        }

        @Test("a supervisor starts a worker again that was killed, keeps logs apart, and stops them in order")
        func supervisor() async throws {
            let bench = try TortureBench()
            let logs = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-logs-\(UUID().uuidString)")
            try FileManager.default.createDirectory(at: logs, withIntermediateDirectories: true)
            defer { try? FileManager.default.removeItem(at: logs) }
            let supervisor = try bench.start("up", ["--workers", "2", "--logs=" + logs.path, "--children", "1"])
            #expect(try await eventually(.seconds(20)) { try await bench.backend.workers().count == 2 })
            #expect(try await bench.client.enqueue(Ordeal(deed: .good, number: 4)).output(timeout: .seconds(20)) == 8)
            let workers = Processes.children(of: supervisor.processIdentifier)
            #expect(workers.count == 2)
            kill(workers[0], SIGKILL)
            #expect(
                try await eventually(.seconds(20)) {
                    Set(Processes.children(of: supervisor.processIdentifier)).subtracting(workers).count == 1
                }
            )
            #expect(try await eventually(.seconds(20)) { bench.log(of: 0).contains("was killed by signal 9") })
            for name in ["worker-1.log", "worker-2.log"] {
                let text = try String(contentsOf: logs.appendingPathComponent(name), encoding: .utf8)
                #expect(text.contains("worker started"))
            }
            kill(supervisor.processIdentifier, SIGTERM)
            #expect(try await eventually(.seconds(20)) { !supervisor.isRunning })
            #expect(supervisor.terminationStatus == 0)
            #expect(Processes.all().allSatisfy { !workers.contains($0.id) })

            // A supervisor that is killed takes its workers along; they drain first.
            let second = try bench.start("up", ["--workers=1", "--children", "1"])
            #expect(try await eventually(.seconds(20)) { Processes.children(of: second.processIdentifier).count == 1 })
            let worker = Processes.children(of: second.processIdentifier)
            #expect(try await eventually(.seconds(20)) { bench.log(of: 1).contains("worker-1 | ") })
            kill(second.processIdentifier, SIGKILL)
            #expect(
                try await eventually(.seconds(20)) {
                    Processes.all().allSatisfy { !worker.contains($0.id) || $0.state == "Z" }
                })
        }
    }
}

/// Jobs that kill the whole worker, on every backend that outlives it.
extension OneAfterTheOther {
    @Suite("Jobs that kill their worker", .serialized, .timeLimit(.minutes(2)))
    struct WorkerKillerTests {
        @Test("three dead workers make a dead letter", arguments: ["sqlite", "redis"])
        func killers(kind: String) async throws {
            let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
                "hoist-killer-\(UUID().uuidString)")
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            defer { try? FileManager.default.removeItem(at: folder) }
            let server = kind == "redis" ? try RedisServer() : nil
            let url = server?.url ?? "sqlite:" + folder.appendingPathComponent("jobs.db").path
            let backend: any BackendConvertible =
                kind == "redis" ? try RedisBackend(url: url) : try SQLiteBackend(url: url)
            let client = JobClient(backend, logger: Logger(label: "killer", factory: { _ in SwiftLogNoOpLogHandler() }))
            let handle = try await client.enqueue(Probe(.killWorker))
            var running: Process?
            for _ in 0..<4 {
                if try await handle.record()?.state == .failed { break }
                let process = Process()
                process.executableURL = IsolationBench.binaries.appendingPathComponent("IsolationTestChild")
                process.arguments = [url]
                process.environment = ProcessInfo.processInfo.environment.merging(["SWIFT_BACKTRACE": "enable=no"]) {
                    $1
                }
                try process.run()
                running = process
                #expect(
                    try await eventually(.seconds(30)) {
                        if !process.isRunning { return true }
                        return try await handle.record()?.state == .failed
                    })
            }
            let record = try #require(try await handle.record())
            #expect(record.state == .failed && record.failure?.kind == .workerLost && record.lostWorkers == 3)
            #expect(record.history.compactMap(\.failure?.kind) == [.workerLost, .workerLost, .workerLost])
            let good = try await client.enqueue(Probe(.facts))
            #expect(try await eventually(.seconds(20)) { try await good.state() == .succeeded })
            if let running, running.isRunning {
                kill(running.processIdentifier, SIGTERM)
                running.waitUntilExit()
            }
            withExtendedLifetime(server) {}
        }
    }
}
