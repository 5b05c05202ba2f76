import Foundation
import Hoist
import HoistRedis

/// What events and remote control cost a worker on Redis: pairs of runs in turn, medians.
struct EventsReport {
    let python: String?

    private static let jobs = 150_000
    private static let pairs = 5

    func run() async throws {
        let server = try RedisReport.Server()
        defer { server.stop() }
        say("\nEvents on Redis: \(Self.jobs) no-op jobs without results, \(Self.pairs) pairs in turn, medians")
        let listener = try start("redis-listen", server.url)
        try compare("events at the default limit, one listener, to none sent", "always", "never", server)
        try compare("events without a limit, one listener, to none sent", "unlimited", "never", server)
        stop(listener)
        try compare("events allowed, nobody listens, to never", "when-asked", "never", server)
        try await measureIdle(server)
        try await measureReplies(server)
        try await measureFlood(server)
        try await measureMonitor(server)
        guard let python else { return }
        var rates: [[Double]] = [[], []]
        for _ in 0..<3 {
            for (index, flag) in ["", "-E"].enumerated() {
                let peer = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
                    .deletingLastPathComponent().appendingPathComponent("peers/celery_redis.py").path
                let text = try RedisReport.output(
                    python, [peer, server.url, "4000"], ["BENCH_RESULTS": "0", "BENCH_FLAG": flag])
                rates[index].append(RedisReport.numbers(text).last ?? 0)
            }
        }
        let (without, with) = (median(rates[0]), median(rates[1]))
        say("Celery, for comparison: \(Int(without)) jobs/s, with -E \(Int(with)): \(ratio(with, without))")
    }

    /// Rates and processor seconds of two modes.
    private func compare(_ what: String, _ mode: String, _ other: String, _ server: RedisReport.Server) throws {
        var rates: [String: [Double]] = [:]
        var seconds: [String: [Double]] = [:]
        for pair in 0..<Self.pairs {
            // The order changes, so that neither always has the warmer machine.
            for mode in pair.isMultiple(of: 2) ? [mode, other] : [other, mode] {
                server.flush()
                _ = try program(["redis-enqueue", server.url, "bulk", String(Self.jobs), "32", "off"])
                let numbers = try program(["redis-work", server.url, "256", mode])
                rates[mode, default: []].append(numbers.first ?? 0)
                seconds[mode, default: []].append(numbers.last ?? 0)
            }
        }
        let (one, two) = (median(rates[mode] ?? []), median(rates[other] ?? []))
        let (cost, otherCost) = (median(seconds[mode] ?? []), median(seconds[other] ?? []))
        say(
            "\(what): \(Int(one)) and \(Int(two)) jobs/s, \(ratio(one, two)); processor time of the worker "
                + "\(String(format: "%.2f", cost)) and \(String(format: "%.2f", otherCost)) s, "
                + "\(ratio(otherCost, cost)) the other way round")
    }

    /// The share of a core that a worker takes which has nothing to do.
    private func measureIdle(_ server: RedisReport.Server) async throws {
        server.flush()
        var shares: [String: Double] = [:]
        for mode in ["never", "always"] {
            let worker = try start("redis-idle", server.url, mode)
            try await Task.sleep(for: .seconds(3))
            let before = processorSeconds(of: worker.processIdentifier)
            try await Task.sleep(for: .seconds(20))
            shares[mode] = (processorSeconds(of: worker.processIdentifier) - before) / 20
            say(
                "idle worker, events and control \(mode): \(percent(shares[mode] ?? 0)) of a core, "
                    + "\(String(format: "%.1f", RedisReport.proportionalMegabytes(of: worker.processIdentifier))) MB (PSS)"
            )
            stop(worker)
        }
    }

    /// How long a worker takes to answer that performs jobs as fast as it can.
    private func measureReplies(_ server: RedisReport.Server) async throws {
        server.flush()
        _ = try program(["redis-enqueue", server.url, "bulk", "600000", "32", "off"])
        let worker = try start("redis-work", server.url, "256", "always")
        let fleet = try Fleet(RedisBackend(url: server.url))
        while try await fleet.replies(to: .ping, timeout: .milliseconds(500)).isEmpty {}
        var waits: [Double] = []
        while worker.isRunning, waits.count < 500 {
            let begin = DispatchTime.now().uptimeNanoseconds
            guard try await !fleet.replies(to: .ping, timeout: .seconds(2)).isEmpty else { break }
            waits.append(Double(DispatchTime.now().uptimeNanoseconds - begin) / 1e6)
        }
        stop(worker)
        waits.sort()
        guard !waits.isEmpty else { return say("no reply came while the worker was busy") }
        say(
            "\(waits.count) replies of a worker that is busy: median \(String(format: "%.1f", median(waits))) ms, "
                + "99th percentile \(String(format: "%.1f", waits[waits.count * 99 / 100])) ms")
    }

    /// Jobs of a worker that is flooded with requests, a third of them hostile, beside the same flood to nobody.
    private func measureFlood(_ server: RedisReport.Server) async throws {
        var rates: [String: [Double]] = [:]
        var growth = 0.0
        for _ in 0..<3 {
            for channel in ["/0.celery.pidbox", "/0.nobody"] {
                server.flush()
                _ = try program(["redis-enqueue", server.url, "bulk", "300000", "32", "off"])
                let flood = try start("redis-flood", server.url, channel)
                rates[channel, default: []].append(
                    try program(["redis-work", server.url, "256", "when-asked"]).first ?? 0)
                stop(flood)
            }
        }
        let (flooded, beside) = (median(rates["/0.celery.pidbox"] ?? []), median(rates["/0.nobody"] ?? []))
        say(
            "jobs under 5,000 requests a second, a third of them hostile: \(Int(flooded)) jobs/s, beside the same flood "
                + "to nobody \(Int(beside)): \(ratio(flooded, beside))")
        server.flush()
        let worker = try start("redis-idle", server.url, "when-asked")
        let flood = try start("redis-flood", server.url, "/0.celery.pidbox")
        try await Task.sleep(for: .seconds(5))
        let before = residentMegabytes(of: worker.processIdentifier)
        try await Task.sleep(for: .seconds(30))
        growth = residentMegabytes(of: worker.processIdentifier) - before
        say(
            "memory of a worker in 30 s of that flood: \(String(format: "%.1f", before)) MB, "
                + "\(String(format: "%+.1f", growth)) MB; it \(worker.isRunning ? "lives" : "has ended")")
        stop(flood)
        stop(worker)
    }

    /// What it takes to keep the picture of 1,000 workers.
    private func measureMonitor(_ server: RedisReport.Server) async throws {
        server.flush()
        let monitor = try start("redis-watch", server.url)
        let fleet = try start("redis-beat", server.url, "1000")
        try await Task.sleep(for: .seconds(5))
        let before = processorSeconds(of: monitor.processIdentifier)
        try await Task.sleep(for: .seconds(20))
        let share = (processorSeconds(of: monitor.processIdentifier) - before) / 20
        say(
            "a monitor of 1,000 workers: \(percent(share)) of a core, "
                + "\(String(format: "%.1f", residentMegabytes(of: monitor.processIdentifier))) MB resident")
        stop(monitor)
        stop(fleet)
    }

    private func program(_ arguments: [String]) throws -> [Double] {
        RedisReport.numbers(try RedisReport.output(CommandLine.arguments[0], arguments, [:]))
    }

    private func start(_ arguments: String...) throws -> Process {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: CommandLine.arguments[0])
        process.arguments = arguments
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        return process
    }

    private func stop(_ process: Process) {
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }

    /// User and system time of a process so far.
    private func processorSeconds(of process: pid_t) -> Double {
        let text = (try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)) ?? ""
        let fields = text.split(separator: ")").last?.split(separator: " ") ?? []
        guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else { return 0 }
        return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    /// A line that is seen at once.
    private func say(_ line: String) {
        print(line)
        fflush(nil)
    }

    private func median(_ values: [Double]) -> Double {
        values.isEmpty ? 0 : values.sorted()[values.count / 2]
    }

    private func ratio(_ one: Double, _ other: Double) -> String { String(format: "%.3f", other > 0 ? one / other : 0) }
    private func percent(_ share: Double) -> String { String(format: "%.2f %%", share * 100) }
}
