import Foundation
import Hoist
import HoistRedis
import HoistTesting
import Logging
import RESP
import TestServers
import Testing

struct Add: Job {
    static let name = "mixed.add"
    var x: Int
    var y: Int
    typealias Output = Int
}

struct Fail: Job {
    static let name = "mixed.fail"
    var message: String
}

struct Work: Job {
    static let name = "mixed.work"
    static let options = JobOptions(retry: .fixed(.milliseconds(50), maxAttempts: 6))
    var number: Int
    var fails = 0

    struct Output: Codable, Sendable {
        var number: Int
        var by: String
        var retries: Int
    }

    init(number: Int, fails: Int = 0) {
        self.number = number
        self.fails = fails
    }

    init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        number = try container.decode(Int.self, forKey: .number)
        fails = try container.decodeIfPresent(Int.self, forKey: .fails) ?? 0
    }
}

struct Hear: Job {
    static let name = "mixed.hear"
    static let options = JobOptions(result: .ignore)
    var word: String
}

struct NotYet: Error {}
struct NoLuck: CrossLanguageError, CustomStringConvertible {
    var description: String
    var typeName: String { "ValueError" }
    var module: String? { "builtins" }
    var arguments: [WireValue] { [.string(description)] }
}

/// A key prefix of its own on the shared server, and Python programs that use it.
struct MixedBench {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Python")
        .path
    let prefix = "t\(UUID().uuidString.prefix(8)):"
    let url: String
    let backend: RedisBackend
    let client: JobClient
    let environment: [String: String]
    let log = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-peer-\(UUID().uuidString).log")

    init(resultDatabase: Int? = nil, peer: [String: String] = [:]) throws {
        url = try RedisServer.shared.get().url
        var configuration = RedisBackend.Configuration(keyPrefix: prefix, resultKeyPrefix: prefix, unlabelledUrgency: 9)
        var environment = ["PEER_BROKER": url, "PEER_PREFIX": prefix].merging(peer) { $1 }
        if let resultDatabase {
            let results = String(url.dropLast()) + String(resultDatabase)
            configuration.results = try RESPConfiguration(url: results)
            environment["PEER_RESULTS"] = results
        }
        self.environment = environment
        backend = try RedisBackend(RESPConfiguration(url: url), configuration: configuration)
        client = JobClient(
            backend, configuration: .init(defaultQueue: "mixed"),
            logger: Logger(label: "mixed", factory: { _ in SwiftLogNoOpLogHandler() })
        )
    }

    /// Runs a Python program to its end. On a thread of its own: the workers that it waits for need the cooperative
    /// threads.
    func python(_ arguments: String..., in program: String = "producer.py") async throws -> WireValue {
        let text = try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread {
                continuation.resume(
                    with: Result {
                        try PythonPeer.run([program] + arguments, in: Self.folder, environment: environment)
                    })
            }
        }
        return try JSONText.parse(Array(text.utf8))
    }

    var pythonLog: String { (try? String(contentsOf: log, encoding: .utf8)) ?? "" }

    /// Everything known about a job that did not end.
    func whereabouts(of id: JobID) async throws -> String {
        let probe = try RESPClient(RESPConfiguration(url: url))
        defer { probe.close() }
        var found = ["record: \(String(describing: try await backend.record(of: id)))"]
        found.append("queues: \(try await backend.queues())")
        found.append("workers: \(try await backend.workers())")
        for key in try await probe.send(RESPCommand("KEYS", [.text(prefix + "*")])).elements?.compactMap(\.text) ?? []
        where !key.contains("celery-task-meta") {
            let kind = try await probe.send(RESPCommand("TYPE", [.text(key)])).text ?? ""
            let command: RESPCommand? =
                switch kind {
                case "list": RESPCommand("LRANGE", [.text(key), 0, 20])
                case "hash": RESPCommand("HGETALL", [.text(key)])
                case "zset": RESPCommand("ZRANGE", [.text(key), 0, 20, .text("WITHSCORES")])
                default: nil
                }
            if let command {
                found.append("\(key) \(kind): " + String("\(try await probe.send(command))".prefix(1500)))
            }
        }
        found.append("log of the Python workers: " + String(pythonLog.suffix(3000)))
        return found.joined(separator: "\n")
    }

    func startPythonWorker(_ extra: [String] = []) throws -> Process {
        try PythonPeer.start(
            [
                "-m", "celery", "-A", "peer_tasks", "worker", "-P", "solo", "-l", "warning", "--without-gossip",
                "--without-mingle", "-Q",
                "mixed",
            ] + extra,
            in: Self.folder, environment: environment, log: log)
    }

    func worker(_ configuration: Worker.Configuration = .init()) -> Worker {
        var configuration = configuration
        configuration.celeryQueue = "mixed"
        return Worker(
            backend, queues: ["mixed"], lanes: [.async(8)], configuration: configuration,
            logger: Logger(label: "mixed", factory: { _ in SwiftLogNoOpLogHandler() })
        ) {
            Handler(Add.self) { job, _ in job.x + job.y }
            Handler(Fail.self) { job, _ in throw NoLuck(description: job.message) }
            Handler(Work.self) { job, context in
                if context.attempt <= job.fails { throw NotYet() }
                return Work.Output(number: job.number, by: "swift", retries: context.attempt - 1)
            }
            Handler(named: "mixed.total") { arguments, _ in
                .integer((arguments.positional.first?.arrayValue ?? []).compactMap(\.integerValue).reduce(0, +))
            }
            Handler(named: "mixed.rescue") { arguments, _ in
                .string("rescued " + (arguments.positional.first?.stringValue ?? ""))
            }
            Handler(named: "mixed.steps") { arguments, context in
                let total = Int(arguments.positional.first?.integerValue ?? 3)
                for step in 1...total {
                    try await context.report(progress: Double(step) / Double(total), "step \(step)")
                    try await Task.sleep(for: .milliseconds(300))
                }
                _ = try await context.jobs.enqueue(Add(x: 1, y: 1))
                return .integer(Int64(total))
            }
        }
    }

    func withWorker<T>(_ body: () async throws -> T) async throws -> T {
        let worker = worker()
        let running = Task { try await worker.run() }
        do {
            let result = try await body()
            worker.stop(.immediately)
            try await running.value
            return result
        } catch {
            worker.stop(.immediately)
            try? await running.value
            throw error
        }
    }
}

extension MixedBench {
    /// Sends one command to the server.
    func command(_ name: String, _ arguments: String...) async throws -> RESPValue {
        let probe = try RESPClient(RESPConfiguration(url: url))
        defer { probe.close() }
        return try await probe.send(RESPCommand(name, arguments.map { .text($0) }))
    }

    /// A message as a Python client would send it.
    func message(_ name: String, _ arguments: [WireValue]) throws -> Message {
        let id = UUID().uuidString.lowercased()
        let body = MessageBody(arguments: Arguments(positional: arguments)).encoded()
        return Message(
            headers: MessageHeaders(task: name, id: id),
            properties: MessageProperties(routingKey: "mixed", deliveryTag: id), body: body)
    }
}

extension JobHandle {
    /// The record at the end of the job; nil when it has not ended in time.
    func finalRecord(within limit: Duration) async throws -> JobRecord? {
        _ = try? await output(timeout: limit)
        return try await record()
    }
}
