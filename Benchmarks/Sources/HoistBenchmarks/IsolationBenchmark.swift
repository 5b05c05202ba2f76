import Foundation
import Hoist
import HoistRedis
import Logging
import Synchronization

/// The parts of the isolation benchmarks that run in processes of their own. Each program runs again as its own
/// children.
enum IsolationBenchmark {
    private static func backend(_ url: String) throws -> Backend {
        try WorkerChild.backend ?? RedisBackend(url: url).backend
    }

    /// Performs all waiting jobs in `children` child processes, prints the rate, and ends.
    static func work(_ url: String, children: Int) async throws {
        var configuration = Worker.Configuration(isBurst: true)
        configuration.burstLeavesDelayedJobs = true
        let began = DispatchTime.now().uptimeNanoseconds
        let worker = Worker(try backend(url), lanes: [.process(children)], configuration: configuration, logger: silent)
        {
            Handler(NoOp.self, in: .process) { job, _ in job.number }
        }
        try await worker.run()
        if !WorkerChild.isChild { print(Double(DispatchTime.now().uptimeNanoseconds - began) / 1e9) }
    }

    /// A worker with both lanes, which prints how long its children took to get ready.
    static func serve(_ url: String) async throws {
        var logger = Logger(label: "ready", factory: { _ in ReadyPrinter() })
        logger.logLevel = .debug
        let worker = Worker(try backend(url), lanes: [.async(4), .process(2)], logger: logger) {
            Handler(NoOp.self) { job, _ in job.number }
            Handler(Stamp.self, in: .process) { job, _ in Int(DispatchTime.now().uptimeNanoseconds) - job.sentAt }
        }
        try await worker.run()
    }

    /// One job at a time on an idle worker, in turn in either lane: milliseconds to the result.
    static func overhead(_ url: String, jobs: Int) async throws {
        let client = JobClient(try RedisBackend(url: url), logger: silent)
        var (async, process, difference): ([Double], [Double], [Double]) = ([], [], [])
        func milliseconds(since begin: UInt64) -> Double { Double(DispatchTime.now().uptimeNanoseconds - begin) / 1e6 }
        for index in 0..<jobs {
            let first = DispatchTime.now().uptimeNanoseconds
            try await client.enqueue(NoOp(text: String(repeating: "x", count: 32), number: index)).output(
                timeout: .seconds(10))
            async.append(milliseconds(since: first))
            let second = DispatchTime.now().uptimeNanoseconds
            try await client.enqueue(Stamp(sentAt: Int(second))).output(timeout: .seconds(10))
            process.append(milliseconds(since: second))
            difference.append(process[index] - async[index])
            try await Task.sleep(for: .milliseconds(5))
        }
        func at(_ values: [Double], _ share: Double) -> Double {
            values.sorted()[Int(Double(values.count - 1) * share)]
        }
        print(at(async, 0.5), at(async, 0.99), at(process, 0.5), at(process, 0.99), at(difference, 0.5))
    }
}

/// Prints how long each child took to get ready.
private struct ReadyPrinter: LogHandler {
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.debug

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        guard let milliseconds = event.metadata?["milliseconds"] else { return }
        FileHandle.standardOutput.write(Data("\(milliseconds)\n".utf8))
    }
}
