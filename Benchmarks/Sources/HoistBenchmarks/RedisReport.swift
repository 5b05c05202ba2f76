import Foundation
import Hoist
import HoistRedis
import RESP

/// The benchmarks on Redis, with a server of their own and peers on the same one.
struct RedisReport {
    let python: String?

    func run() async throws {
        let server = try Server()
        defer { server.stop() }
        print(
            "\nRedis, two cores shared by producer, worker and server; no-op jobs with a 32-byte string and an integer")
        let bare = try number("redis-bare", server.url)
        let limits = try ["fewest", "ours"].map { try number("redis-limit", "\(server.port)", $0) }
        server.flush()
        let (single, concurrent, bulk) = (
            try number("redis-enqueue", server.url, "single", "20000", "32", "off"),
            try number("redis-enqueue", server.url, "concurrent", "100000", "32", "off"),
            try fill(server, jobs: 200_000, results: "off")
        )
        let off = try number("redis-work", server.url, "256")
        let bulkOfTwo = try fillByTwo(server, jobs: 200_000)
        let offByTwo = try atOnce(2, "redis-work", server.url, "256").reduce(0, +)
        _ = try fill(server, jobs: 100_000, results: "on")
        let on = try number("redis-work", server.url, "256")
        server.flush()
        _ = try number("redis-enqueue", server.url, "bulk", "5000", "100000", "off")
        let large = try number("redis-work", server.url, "64")
        server.flush()

        let celery = try python.map { python in
            try [("0", "prefork"), ("1", "prefork"), ("0", "solo"), ("1", "solo")].map { results, pool in
                Self.numbers(
                    try Self.output(
                        python, [peer("celery_redis.py"), server.url, "10000"],
                        ["BENCH_RESULTS": results, "BENCH_POOL": pool]))
            }
        }
        // Whichever of its settings is the faster one.
        let (celeryOff, celeryOn) = (
            celery.map { max($0[0].last ?? 0, $0[2].last ?? 0) }, celery.map { max($0[1].last ?? 0, $0[3].last ?? 0) }
        )
        let huey = try python.map {
            Self.numbers(try Self.output($0, [peer("huey_redis.py"), server.url, "10000", "5000"], [:]))
        }
        let sidekiq = try runSidekiq("rates", 60_000, server)
        server.flush()
        func row(_ what: String, _ ours: Double, celery: Double?, sidekiq: Double?, huey: Double? = nil) {
            var line = "\(what): \(Int(ours))"
            if let celery {
                line += "; Celery \(Int(celery)), we are \(String(format: "%.1f", ours / celery)) times as fast"
            }
            if let sidekiq {
                line += "; Sidekiq \(Int(sidekiq)), we are \(String(format: "%.2f", ours / sidekiq)) times as fast"
            }
            if let huey { line += "; huey \(Int(huey)), we are \(String(format: "%.2f", ours / huey)) times as fast" }
            print(line)
        }
        row(
            "enqueue one at a time, awaited, jobs/s", single, celery: celery?[0].first, sidekiq: sidekiq?[0],
            huey: huey?.first)
        print(
            "    of \(Int(bare)) empty round trips a second that machine and client allow: \(percent(single, of: bare))"
        )
        row("enqueue from 64 tasks at once, jobs/s", concurrent, celery: celery?[0].first, sidekiq: nil)
        row("enqueue in bulk of 1,000, jobs/s", bulk, celery: celery?[0].first, sidekiq: sidekiq?[1])
        row(
            "enqueue in bulk of 1,000, two producers, jobs/s", bulkOfTwo, celery: celery?[0].first, sidekiq: sidekiq?[1]
        )
        row("process, results off, one worker process, jobs/s", off, celery: celeryOff, sidekiq: sidekiq?[2])
        row(
            "process, results off, two worker processes, jobs/s", offByTwo, celery: celeryOff,
            sidekiq: sidekiq?[2])
        row("process, results stored and published, jobs/s", on, celery: celeryOn, sidekiq: nil)
        row("process, 100 KB arguments, jobs/s", large, celery: nil, sidekiq: nil, huey: huey?.last)
        let cycle = 1 / (1 / bulkOfTwo + 1 / offByTwo)
        print("whole jobs, enqueued and processed: \(Int(cycle)) a second")
        for (limit, steps) in zip(limits, ["a push, a claim and a removal", "the same commands as ours"]) {
            print(
                "    Redis alone, driven with bare sockets, \(steps): \(Int(limit)), of which whole jobs are \(percent(cycle, of: limit)), and what is processed \(percent(max(off, offByTwo), of: limit))"
            )
        }
        if let celery {
            let rates = celery.map { Int($0.last ?? 0) }
            print(
                "Celery, jobs/s: prefork with 2 children \(rates[0]), with results \(rates[1]); two solo workers \(rates[2]), with results \(rates[3])"
            )
        }
        if let waits = celery?[1], waits.count == 4 {
            print(
                "Celery, enqueue to result: median \(milliseconds(waits[1])), 99th percentile \(milliseconds(waits[2]))"
            )
        }
        try await measureBacklog(server)
        try await measureLatency(server)
        try await measureIsolation(server, celery: celery?[1].last)
    }

    /// The process lane: two children beside Celery's two, and what a process of its own costs a job.
    private func measureIsolation(_ server: Server, celery: Double?) async throws {
        let jobs = 40_000
        _ = try fill(server, jobs: jobs, results: "on")
        let rate = Double(jobs) / (try number("isolation-work", server.url, "2"))
        let ratio =
            celery.map {
                "; Celery prefork, 2 children \(Int($0)), we are \(String(format: "%.1f", rate / $0)) times as fast"
            } ?? ""
        print("process lane, 2 children, results on: \(Int(rate)) jobs/s from the worker's start on\(ratio)")
        server.flush()
        let (worker, pipe) = (Process(), Pipe())
        worker.executableURL = URL(fileURLWithPath: CommandLine.arguments[0])
        worker.arguments = ["isolation-serve", server.url]
        worker.standardOutput = pipe
        try worker.run()
        try await Task.sleep(for: .seconds(1))
        let waits = Self.numbers(
            try Self.output(CommandLine.arguments[0], ["isolation-overhead", server.url, "500"], [:]))
        if waits.count == 5 {
            print(
                "enqueue to result, async lane: median \(milliseconds(waits[0])), 99th percentile \(milliseconds(waits[1])); process lane: median \(milliseconds(waits[2])), 99th percentile \(milliseconds(waits[3])); median of the differences \(milliseconds(waits[4]))"
            )
        }
        let children = try Self.output("/usr/bin/pgrep", ["-P", "\(worker.processIdentifier)"], [:]).split(
            whereSeparator: \.isWhitespace
        ).compactMap { pid_t($0) }
        let own = children.map { privateMegabytes(of: $0) }.max() ?? 0
        kill(worker.processIdentifier, SIGKILL)
        worker.waitUntilExit()
        let ready = Self.numbers(String(decoding: pipe.fileHandleForReading.availableData, as: UTF8.self))
        print(
            "child ready after \(ready.map(milliseconds).joined(separator: " and ")); an idle child holds \(String(format: "%.1f", own)) MB of its own"
        )
        server.flush()
    }

    private func privateMegabytes(of process: pid_t) -> Double {
        let text = (try? String(contentsOfFile: "/proc/\(process)/smaps_rollup", encoding: .utf8)) ?? ""
        return text.split(separator: "\n").filter { $0.hasPrefix("Private_") }.reduce(0) { sum, line in
            sum + (line.split(separator: " ").dropFirst().first.flatMap { Double($0) } ?? 0) / 1024
        }
    }

    private func percent(_ part: Double, of whole: Double) -> String { "\(Int((part / whole * 100).rounded())) %" }
    private func milliseconds(_ value: Double) -> String { String(format: "%.2f ms", value) }

    private func fillByTwo(_ server: Server, jobs: Int) throws -> Double {
        server.flush()
        return try atOnce(2, "redis-enqueue", server.url, "bulk", "\(jobs / 2)", "32", "off").reduce(0, +)
    }

    /// Runs the same program several times at once.
    /// - Returns: the figure that each of them prints.
    private func atOnce(_ count: Int, _ arguments: String...) throws -> [Double] {
        let runs = try (0..<count).map { _ in
            let (process, pipe) = (Process(), Pipe())
            process.executableURL = URL(fileURLWithPath: CommandLine.arguments[0])
            process.arguments = arguments
            process.standardOutput = pipe
            try process.run()
            return (process, pipe)
        }
        return runs.map { process, pipe in
            let bytes = pipe.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            return Self.numbers(String(decoding: bytes, as: UTF8.self)).first ?? 0
        }
    }

    private func fill(_ server: Server, jobs: Int, results: String) throws -> Double {
        server.flush()
        return try number("redis-enqueue", server.url, "bulk", "\(jobs)", "32", results)
    }

    /// Whether a long queue, or many delayed jobs, cost anything.
    private func measureBacklog(_ server: Server) async throws {
        // Long enough to measure: ten thousand are done in a fifth of a second.
        _ = try fill(server, jobs: 50_000, results: "off")
        let short = try number("redis-work", server.url, "256")
        server.flush()
        let before = server.memory
        _ = try number("redis-enqueue", server.url, "bulk", "1000000", "32", "off")
        let long = try number("redis-work", server.url, "256")
        let after = server.memory
        print(
            "process with 1,000,000 waiting: \(Int(long)) jobs/s, with 50,000: \(Int(short)); server's memory \(before) MB before, \(after) MB after"
        )
        _ = try number("redis-enqueue", server.url, "delayed", "100000", "32", "off")
        let worker = try start("redis-serve", server.url, "64")
        try await Task.sleep(for: .seconds(1))
        let latency = Self.numbers(
            try Self.output(CommandLine.arguments[0], ["redis-latency", server.url, "200"], [:]))
        print(
            "with 100,000 delayed jobs: enqueue to start median \(String(format: "%.2f", latency[0])) ms, worker \(Int(residentMegabytes(of: worker.processIdentifier))) MB"
        )
        kill(worker.processIdentifier, SIGKILL)
        worker.waitUntilExit()
        server.flush()
    }

    private func measureLatency(_ server: Server) async throws {
        let began = DispatchTime.now().uptimeNanoseconds
        let worker = try start("redis-serve", server.url, "64")
        let backend = try RedisBackend(url: server.url)
        while try await backend.workers().isEmpty { try await Task.sleep(for: .milliseconds(1)) }
        print("worker ready after \(milliseconds(Double(DispatchTime.now().uptimeNanoseconds - began) / 1e6))")
        try await Task.sleep(for: .milliseconds(500))
        // In turn, because the other load of the machine changes from minute to minute.
        var (ours, sidekiq): ([[Double]], [[Double]]) = ([], [])
        for _ in 0..<5 {
            ours.append(
                Self.numbers(try Self.output(CommandLine.arguments[0], ["redis-latency", server.url, "400"], [:])))
            if let waits = try runSidekiq("waits", 400, server) { sidekiq.append(waits) }
        }
        func typical(_ rounds: [[Double]], _ column: Int) -> String {
            milliseconds(rounds.map { $0[column] }.sorted()[rounds.count / 2])
        }
        print(
            "enqueue to start, idle worker of another process, typical of 5 rounds: median \(typical(ours, 0)), 99th percentile \(typical(ours, 1))"
        )
        if !sidekiq.isEmpty {
            print("    Sidekiq, in turn with it: median \(typical(sidekiq, 0)), 99th percentile \(typical(sidekiq, 1))")
        }
        print("enqueue to result: median \(typical(ours, 2)), 99th percentile \(typical(ours, 3))")
        print("idle worker: \(Int(Self.proportionalMegabytes(of: worker.processIdentifier))) MB (PSS)")
        kill(worker.processIdentifier, SIGKILL)
        worker.waitUntilExit()
    }

    // MARK: - Processes

    /// - Returns: nil where Sidekiq is not installed, or fails.
    private func runSidekiq(_ what: String, _ jobs: Int, _ server: Server) throws -> [Double]? {
        guard FileManager.default.isExecutableFile(atPath: "/usr/bin/sidekiq") else { return nil }
        let figures = Self.numbers(
            try Self.output("/usr/bin/ruby", [peer("sidekiq_redis.rb"), what, "\(jobs)"], ["BENCH_URL": server.url]))
        return figures.count < 2 ? nil : figures
    }

    private func number(_ arguments: String...) throws -> Double {
        Self.numbers(try Self.output(CommandLine.arguments[0], arguments, [:])).first ?? 0
    }
    static func numbers(_ text: String) -> [Double] {
        text.split(whereSeparator: \.isWhitespace).compactMap { Double($0) }
    }

    private func peer(_ name: String) -> String {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("../../peers/\(name)").path
    }

    private func start(_ arguments: String...) throws -> Process {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: CommandLine.arguments[0])
        process.arguments = arguments
        try process.run()
        return process
    }

    static func output(_ program: String, _ arguments: [String], _ environment: [String: String]) throws -> String {
        let process = Process()
        let pipe = Pipe()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        process.standardOutput = pipe
        process.standardError = FileHandle.nullDevice
        try process.run()
        let bytes = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return String(decoding: bytes, as: UTF8.self)
    }

    static func proportionalMegabytes(of process: pid_t) -> Double {
        let text = (try? String(contentsOfFile: "/proc/\(process)/smaps_rollup", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("Pss:") }
        return (line?.split(separator: " ").dropFirst().first).flatMap { Double($0) }.map { $0 / 1024 } ?? 0
    }

    /// A redis-server on a free port, in a folder of its own.
    final class Server {
        let url: String
        let port = Int.random(in: 20_000..<30_000)
        private let process = Process()
        private let folder: TemporaryFolder

        init() throws {
            folder = try TemporaryFolder()
            url = "redis://127.0.0.1:\(port)/0"
            process.executableURL = URL(fileURLWithPath: "/usr/bin/redis-server")
            process.arguments = ["--port", "\(port)", "--bind", "127.0.0.1", "--save", "", "--dir", folder.url.path]
            process.standardOutput = FileHandle.nullDevice
            try process.run()
            for _ in 0..<200 where cli("PING") != "PONG" { usleep(20_000) }
        }

        private func cli(_ arguments: String...) -> String {
            let client = Process()
            let pipe = Pipe()
            client.executableURL = URL(fileURLWithPath: "/usr/bin/redis-cli")
            client.arguments = ["-p", "\(port)"] + arguments
            client.standardOutput = pipe
            client.standardError = FileHandle.nullDevice
            guard (try? client.run()) != nil else { return "" }
            let bytes = pipe.fileHandleForReading.readDataToEndOfFile()
            client.waitUntilExit()
            return String(decoding: bytes, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        }

        func flush() { _ = cli("FLUSHALL") }

        var memory: Int {
            let line = cli("INFO", "memory").split(whereSeparator: \.isNewline).first { $0.hasPrefix("used_memory:") }
            return (line?.split(separator: ":").last.flatMap { Int($0.trimmingCharacters(in: .whitespaces)) } ?? 0)
                >> 20
        }

        func stop() {
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
        }
    }
}
