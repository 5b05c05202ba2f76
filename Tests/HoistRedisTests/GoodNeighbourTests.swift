import Foundation
import Hoist
import HoistRedis
import HoistTesting
import Logging
import Synchronization
import TestServers
import Testing

/// What a Python worker notices of Swift workers when it starts: it asks all others what they have heard, and waits.
///
/// Apart from other tests: it occupies the threads that all tests of a process share.
@Suite(
    "A good neighbour", .serialized, .timeLimit(.minutes(5)),
    .enabled(if: PythonPeer.interpreter != nil, Comment(rawValue: PythonPeer.isMissing)))
struct GoodNeighbourTests {
    private struct InVain: Error, CustomStringConvertible {
        var description: String
    }

    private final class Spinning: Sendable {
        let count = Atomic(0)
        let isOver = Atomic(false)
    }

    /// Seconds from the question of a Python worker to the end of its wait, of five starts, beside ten Swift workers
    /// whose threads all spin.
    private func waits(_ control: ControlMode) async throws -> [Double] {
        let bench = try MixedBench()
        let spinning = Spinning()
        let silent = Logger(label: "neighbour", factory: { _ in SwiftLogNoOpLogHandler() })
        for _ in 0..<40 { try await bench.client.enqueue(named: "spin", options: [.queue("spin")]) }
        let workers = (0..<10).map { number in
            var configuration = Worker.Configuration(name: "swift\(number)@h", control: control)
            configuration.celeryQueue = "spin"
            return Worker(
                bench.backend, queues: ["spin"], lanes: [.async(4)], configuration: configuration, logger: silent
            ) {
                Handler(named: "spin") { _, _ in
                    spinning.count.add(1, ordering: .relaxed)
                    while !spinning.isOver.load(ordering: .relaxed) {}
                    return .null
                }
            }
        }
        let measured = Shared<Result<[Double], any Error>?>(nil)
        // No task goes on while the threads spin: who measures has a thread of its own.
        Thread.detachNewThread {
            let result = Result {
                let threads = ProcessInfo.processInfo.activeProcessorCount
                try Self.wait("all threads to spin") { spinning.count.load(ordering: .relaxed) >= threads }
                return try (0..<5).map { number in
                    let log = FileManager.default.temporaryDirectory.appendingPathComponent(
                        "hoist-mingle-\(UUID().uuidString).log")
                    defer { try? FileManager.default.removeItem(at: log) }
                    let python = try PythonPeer.start(
                        [
                            "-m", "celery", "-A", "peer_tasks", "worker", "-P", "solo", "-l", "info", "-Q", "mixed",
                            "-n", "py\(number)@h",
                        ], in: MixedBench.folder, environment: bench.environment, log: log)
                    defer { PythonPeer.stop(python) }
                    var times: [Date] = []
                    try Self.wait("the Python worker to have asked") {
                        times = Self.times(in: (try? String(contentsOf: log, encoding: .utf8)) ?? "")
                        return times.count == 2
                    }
                    return times[1].timeIntervalSince(times[0])
                }
            }
            spinning.isOver.store(true, ordering: .relaxed)
            measured.change { $0 = result }
        }
        return try await withThrowingTaskGroup(of: Void.self) { group in
            for worker in workers { group.addTask { try await worker.run() } }
            #expect(await measured.wait(.seconds(240)) { $0 != nil })
            for worker in workers { worker.stop(.immediately) }
            try await group.waitForAll()
            return try measured.value?.get() ?? []
        }
    }

    /// Polls a condition, on a thread that may block.
    private static func wait(_ what: String, _ condition: () -> Bool) throws {
        let end = ContinuousClock.now + .seconds(60)
        while !condition() {
            guard .now < end else { throw InVain(description: "waited in vain for \(what)") }
            usleep(10_000)
        }
    }

    /// When the log says that the worker asks, and that it has done so.
    private static func times(in log: String) -> [Date] {
        let format = DateFormatter()
        format.locale = Locale(identifier: "en_US_POSIX")
        format.dateFormat = "yyyy-MM-dd HH:mm:ss,SSS"
        return log.split(separator: "\n").filter { line in
            ["mingle: searching", "mingle: sync complete", "mingle: all alone"].contains { line.contains($0) }
        }.compactMap { line in format.date(from: String(line.dropFirst().prefix(23))) }
    }

    @Test("a Python worker starts as fast beside Swift workers that spin as beside those that do not listen")
    func mingle() async throws {
        let deaf = try await waits(.none).sorted()
        let listening = try await waits(.all).sorted()
        print("mingle beside ten spinning workers: \(listening) s, where they do not listen: \(deaf) s")
        #expect(deaf.count == 5 && listening.count == 5)
        #expect(listening[2] <= deaf[2] + 0.15, "\(listening) and \(deaf)")
    }
}
