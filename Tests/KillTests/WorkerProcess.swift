import Foundation
import Hoist
import HoistRabbitMQ
import HoistRedis
import HoistSQLite
import Logging
import Testing

/// The job of KillTestWorker, seen from the producer.
struct Step: Job {
    static let name = "kill.step"
    var milliseconds: Int
    var blocks = false
    /// Makes the message large.
    var padding: String?
    typealias Output = Int
}

/// A backend, and worker processes on it. Everything is stopped and removed at the end.
///
/// `@unchecked Sendable`: one task of a test starts workers, and tests use the rest only to read.
final class KillBench: @unchecked Sendable {
    private let folder: URL
    private(set) var workers: [Process] = []
    let backend: Backend
    private let url: String
    let client: JobClient
    let lease: Double

    /// - Parameter url: a backend, or RabbitMQ and its results with a bar between; nil for a database in the bench's
    ///   folder.
    init(lease: Double = 3.5, url: String? = nil) throws {
        self.lease = lease
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-kill-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        if let url, url.hasPrefix("amqp:") {
            self.url = url
            let parts = url.split(separator: "|").map(String.init)
            backend = Backend(try RabbitMQBackend(url: parts[0]), results: try RedisBackend(url: parts[1]))
        } else if let url {
            self.url = url
            backend = try RedisBackend(url: url).backend
        } else {
            self.url = "sqlite:" + folder.appendingPathComponent("jobs.db").path
            backend = try SQLiteBackend(url: self.url).backend
        }
        client = JobClient(backend, logger: Logger(label: "kill-test", factory: { _ in SwiftLogNoOpLogHandler() }))
    }

    deinit {
        for worker in workers where worker.isRunning {
            kill(worker.processIdentifier, SIGCONT)
            kill(worker.processIdentifier, SIGKILL)
            worker.waitUntilExit()
        }
        try? FileManager.default.removeItem(at: folder)
    }

    @discardableResult
    func startWorker(plain: Bool = false, standardError: Pipe? = nil) throws -> Process {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
            .deletingLastPathComponent()
            .appendingPathComponent("KillTestWorker")
        process.arguments = [
            url, folder.appendingPathComponent("journal").path, String(lease),
        ]
        let log = folder.appendingPathComponent("worker-\(workers.count).log")
        _ = FileManager.default.createFile(atPath: log.path, contents: nil)
        if let standardError {
            process.standardError = standardError
        } else {
            process.standardError = try FileHandle(forWritingTo: log)
        }
        if plain {
            process.environment = ProcessInfo.processInfo.environment.merging(["KILL_TEST_PLAIN": "1"]) { _, new in new
            }
        }
        try process.run()
        workers.append(process)
        return process
    }

    /// The file, where the backend is one.
    var databasePath: String? { url.hasPrefix("sqlite:") ? String(url.dropFirst("sqlite:".count)) : nil }

    func log(of index: Int) -> String {
        (try? String(contentsOf: folder.appendingPathComponent("worker-\(index).log"), encoding: .utf8)) ?? ""
    }

    struct Entry {
        var time: Int64
        var event: String
        var job: String
        var process: Int32
    }

    func journal() -> [Entry] {
        let text = (try? String(contentsOf: folder.appendingPathComponent("journal"), encoding: .utf8)) ?? ""
        return text.split(separator: "\n").compactMap { line in
            let parts = line.split(separator: " ")
            guard parts.count == 4, let time = Int64(parts[0]), let process = Int32(parts[3]) else { return nil }
            return Entry(time: time, event: String(parts[1]), job: String(parts[2]), process: process)
        }
    }

    /// How many jobs have not ended.
    func unfinished() async throws -> Int {
        try await backend.queues().reduce(0) { $0 + $1.waiting + $1.scheduled + $1.running }
    }
}
