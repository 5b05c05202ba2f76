import Foundation
import Hoist
import HoistRabbitMQ
import HoistRedis
import HoistSQLite
import Logging
import ServiceLifecycle
import UnixSignals

/// A worker to be killed. Arguments: URL[|RESULTS-URL] JOURNAL [LEASE-SECONDS]. Each job writes a line to the journal
/// when it begins and when it ends.
@main
struct Main {
    static func main() async throws {
        let arguments = CommandLine.arguments
        let backend: any BackendConvertible =
            if arguments[1].hasPrefix("sqlite:") {
                try SQLiteBackend(url: arguments[1], configuration: .init(maximumLostWorkers: 1000))
            } else if arguments[1].hasPrefix("amqp:") {
                try joined(arguments[1])
            } else {
                try RedisBackend(url: arguments[1], configuration: .init(maximumLostWorkers: 1000))
            }
        let journal = Journal(path: arguments[2])
        var configuration = Worker.Configuration()
        if arguments.count > 3, let seconds = Double(arguments[3]) { configuration.lease = .seconds(seconds) }
        configuration.drainTimeout = .seconds(1)
        configuration.celeryQueue = "default"
        let logger = Logger(label: "kill-test", factory: { StreamLogHandler.standardError(label: $0) })
        let worker = Worker(backend, lanes: [.async(8)], configuration: configuration, logger: logger) {
            Handler(Step.self) { job, context in
                journal.write("begin \(context.id) \(getpid())")
                if job.blocks { usleep(UInt32(job.milliseconds) * 1000) }
                var left = job.blocks ? 0 : job.milliseconds
                while left > 0 {
                    try await Task.sleep(for: .milliseconds(min(left, 20)))
                    left -= 20
                }
                journal.write("end \(context.id) \(getpid())")
                return Int(getpid())
            }
            // What it does when it is stopped takes long, as with a child process that is waited for.
            Handler(named: "kill.stubborn", options: JobOptions(timeLimit: .milliseconds(200))) { _, context in
                journal.write("begin \(context.id) \(getpid())")
                await withTaskCancellationHandler {
                    try? await Task.sleep(for: .seconds(60))
                } onCancel: {
                    usleep(10_000_000)
                    journal.write("stopped \(context.id) \(getpid())")
                }
                journal.write("end \(context.id) \(getpid())")
                return .null
            }
            Handler(Work.self) { job, number, context in
                journal.write("begin \(context.id) \(getpid())")
                try await Task.sleep(for: .milliseconds(job.milliseconds))
                journal.write("end \(context.id) \(getpid())")
                return number + 1
            }
            Handler(Spread.self) { job, number, context in
                journal.write("begin \(context.id) \(getpid())")
                return (0..<job.count).map { number + $0 }
            }
            Handler(Total.self) { _, numbers, context in
                journal.write("begin \(context.id) \(getpid())")
                return numbers.reduce(0, +)
            }
            // A step of the chains that run through Swift and Python workers.
            Handler(named: "kill.add") { arguments, context in
                journal.write("begin \(context.id) \(getpid())")
                try await Task.sleep(for: .milliseconds(20))
                let sum = arguments.positional.compactMap(\.integerValue).reduce(0, +)
                journal.write("end \(context.id) \(getpid())")
                return .integer(sum)
            }
        }
        // As the README shows it.
        if ProcessInfo.processInfo.environment["KILL_TEST_PLAIN"] != nil { return try await worker.runUntilSignalled() }
        let group = ServiceGroup(
            configuration: .init(
                services: [.init(service: worker, successTerminationBehavior: .gracefullyShutdownGroup)],
                gracefulShutdownSignals: [.sigterm], logger: logger))
        try await group.run()
    }
}

/// RabbitMQ and the store of its results, with a bar between.
private func joined(_ urls: String) throws -> Backend {
    let parts = urls.split(separator: "|").map(String.init)
    return Backend(
        try RabbitMQBackend(url: parts[0]), results: try RedisBackend(url: parts[1]), maximumLostWorkers: 1000)
}

struct Step: Job {
    static let name = "kill.step"
    var milliseconds: Int
    /// Blocks its thread, as async code must not.
    var blocks = false
    /// Makes the message large.
    var padding: String?
    typealias Output = Int
}

/// Steps of workflows.
struct Work: Job {
    static let name = "kill.work"
    var milliseconds: Int
    typealias Input = Int
    typealias Output = Int
}
struct Spread: Job {
    static let name = "kill.spread"
    var count: Int
    typealias Input = Int
    typealias Output = [Int]
}
struct Total: Job {
    static let name = "kill.total"
    typealias Input = [Int]
    typealias Output = Int
}

/// Lines with the time in microseconds of uptime, appended whole by many processes.
struct Journal: Sendable {
    private let descriptor: Int32

    init(path: String) { descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644) }

    func write(_ line: String) {
        let bytes = Array("\(SystemJobClock().uptime) \(line)\n".utf8)
        _ = bytes.withUnsafeBytes { Foundation.write(descriptor, $0.baseAddress, $0.count) }
    }
}
