import Foundation
import Hoist
import HoistRedis
import RESP
import Synchronization

/// The parts of the Redis benchmarks that run in processes of their own.
enum RedisBenchmark {
    static func backend(_ url: String) throws -> RedisBackend { try RedisBackend(url: url) }

    static func noOps(_ range: Range<Int>, bytes: Int = 32) -> [NoOp] {
        let text = String(repeating: "x", count: bytes)
        return range.map { NoOp(text: text, number: $0) }
    }

    /// Empty round trips, each awaited before the next: the limit of the machine and the client.
    static func bare(_ url: String, roundTrips: Int) async throws {
        let client = try RESPClient(RESPConfiguration(url: url))
        try await client.send(RESPCommand("PING"))
        let begin = DispatchTime.now().uptimeNanoseconds
        for _ in 0..<roundTrips { try await client.send(RESPCommand("PING")) }
        print(Double(roundTrips) / (Double(DispatchTime.now().uptimeNanoseconds - begin) / 1e9))
    }

    /// Hears every event, and drops it.
    static func listen(_ url: String) async throws {
        for await _ in try await backend(url).frames(exchange: "celeryev", pattern: "#") {}
    }

    /// A worker that has nothing to do.
    static func idle(_ url: String, events: String) async throws {
        let worker = Worker(
            try backend(url), lanes: [.async(64)], configuration: configured(events: events), logger: silent
        ) { Handler(NoOp.self) { job, _ in job.number } }
        try await worker.run()
    }

    /// - Parameter events: `never` without remote control as well, `when-asked`, `always`, or `unlimited`.
    private static func configured(events: String) -> Worker.Configuration {
        var configuration = Worker.Configuration()
        switch events {
        case "never": (configuration.events, configuration.control) = (.never, .none)
        case "always": configuration.events = .always
        case "unlimited": (configuration.events, configuration.eventsPerSecond) = (.always, .max)
        default: configuration.events = .whenAsked
        }
        return configuration
    }

    /// Performs all waiting jobs, prints the rate and the processor seconds that it took, and ends.
    static func work(_ url: String, slots: Int, events: String) async throws {
        var configuration = configured(events: events)
        configuration.isBurst = true
        configuration.burstLeavesDelayedJobs = true
        let tally = Tally()
        let worker = Worker(try backend(url), lanes: [.async(slots)], configuration: configuration, logger: silent) {
            Handler(NoOp.self) { job, _ in
                tally.count()
                return job.number
            }
        }
        try await worker.run()
        var usage = rusage()
        // RUSAGE_SELF, whose type differs from one system to another.
        getrusage(0, &usage)
        let seconds = [usage.ru_utime, usage.ru_stime].reduce(0) { $0 + Double($1.tv_sec) + Double($1.tv_usec) / 1e6 }
        print(tally.rate, seconds)
    }

    /// A worker that stays; each job returns the nanoseconds from its sending to its start.
    static func serve(_ url: String, slots: Int) async throws {
        let worker = Worker(try backend(url), lanes: [.async(slots)], logger: silent) {
            Handler(NoOp.self) { job, _ in job.number }
            Handler(Stamp.self) { job, _ in Int(DispatchTime.now().uptimeNanoseconds) - job.sentAt }
        }
        try await worker.run()
    }

    /// Enqueues, and prints the rate.
    static func enqueue(_ url: String, mode: String, jobs: Int, bytes: Int, keepsResults: Bool) async throws {
        let backend = try backend(url)
        let client = JobClient(backend, logger: silent)
        let all = noOps(0..<jobs, bytes: bytes)
        let options: [EnqueueOption] = keepsResults ? [] : [.result(.ignore)]
        try await client.enqueue(contentsOf: noOps(0..<1, bytes: 8), options + [.queue("warm")])
        let begin = DispatchTime.now().uptimeNanoseconds
        switch mode {
        case "bulk":
            for start in stride(from: 0, to: jobs, by: 1000) {
                try await client.enqueue(contentsOf: all[start..<min(start + 1000, jobs)], options)
            }
        case "concurrent":
            try await withThrowingTaskGroup(of: Void.self) { group in
                for lane in 0..<64 {
                    group.addTask {
                        for index in stride(from: lane, to: jobs, by: 64) {
                            if keepsResults {
                                try await client.enqueue(all[index])
                            } else {
                                try await client.enqueue(all[index], .result(.ignore))
                            }
                        }
                    }
                }
                try await group.waitForAll()
            }
        case "delayed":
            for start in stride(from: 0, to: jobs, by: 1000) {
                try await client.enqueue(
                    contentsOf: all[start..<min(start + 1000, jobs)], options + [.after(.seconds(86_400))])
            }
        default:
            for job in all {
                if keepsResults {
                    try await client.enqueue(job)
                } else {
                    try await client.enqueue(job, .result(.ignore))
                }
            }
        }
        print(Double(jobs) / (Double(DispatchTime.now().uptimeNanoseconds - begin) / 1e9))
    }

    /// One job at a time on an idle worker: until it begins, and until its result is here, in milliseconds.
    static func latency(_ url: String, jobs: Int) async throws {
        let client = JobClient(try backend(url), logger: silent)
        var (starts, results): ([Double], [Double]) = ([], [])
        for _ in 0..<jobs {
            let begin = DispatchTime.now().uptimeNanoseconds
            let wait = try await client.enqueue(Stamp(sentAt: Int(begin))).output(timeout: .seconds(10))
            results.append(Double(DispatchTime.now().uptimeNanoseconds - begin) / 1e6)
            starts.append(Double(wait) / 1e6)
            try await Task.sleep(for: .milliseconds(5))
        }
        func at(_ values: [Double], _ share: Double) -> Double {
            values.sorted()[Int(Double(values.count - 1) * share)]
        }
        print(at(starts, 0.5), at(starts, 0.99), at(results, 0.5), at(results, 0.99))
    }
}

/// Jobs performed since the first one.
final class Tally: Sendable {
    private let began = Atomic<UInt64>(0)
    private let jobs = Atomic(0)

    func count() {
        if jobs.add(1, ordering: .relaxed).newValue == 1 {
            began.store(DispatchTime.now().uptimeNanoseconds, ordering: .relaxed)
        }
    }

    var rate: Double {
        let seconds = Double(DispatchTime.now().uptimeNanoseconds - began.load(ordering: .relaxed)) / 1e9
        return Double(jobs.load(ordering: .relaxed)) / seconds
    }
}

/// A job whose output is the time from its sending to its start, in nanoseconds.
struct Stamp: Job {
    static let name = "bench.stamp"
    var sentAt: Int
    typealias Output = Int
}
