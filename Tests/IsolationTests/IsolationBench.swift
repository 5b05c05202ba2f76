import Foundation
import Hoist
import HoistTesting
import IsolationTestJobs
import Logging
import Synchronization
import Testing

/// These tests count processes and measure processor time, so no two run at once.
@Suite(.serialized) enum OneAfterTheOther {}

/// A worker in this process whose children are programs of their own.
struct IsolationBench: Sendable {
    let backend: Backend
    let client: JobClient
    let worker: Worker
    let logs = LogKeeper()

    static var binaries: URL {
        URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
    }

    static var options: ProcessOptions {
        // A backtrace of a large program without optimizations takes seconds; one test asks for one.
        ProcessOptions(
            executable: binaries.appendingPathComponent("IsolationTestChild").path, arguments: [],
            environment: ["SWIFT_BACKTRACE": "enable=no"], grace: .milliseconds(200))
    }

    init(
        _ backend: any BackendConvertible = MemoryBackend(), lanes: [Lane] = [.process(1)],
        resources: [String: Int] = [:],
        autoscaling: Autoscaling = Autoscaling(), hasHeavy: Bool = false, name: String = "bench@here",
        _ change: (inout ProcessOptions) -> Void = { _ in }
    ) {
        self.backend = backend.backend
        let logs = logs
        var logger = Logger(label: "isolation", factory: { _ in KeepingLogHandler(keeper: logs) })
        logger.logLevel = .info
        client = JobClient(backend, logger: logger)
        var options = Self.options
        if hasHeavy { options.arguments = ["heavy"] }
        change(&options)
        let configuration = Worker.Configuration(
            name: name, resources: resources, autoscaling: autoscaling, processes: options)
        worker = Worker(backend, lanes: lanes, configuration: configuration, logger: logger) {
            isolationHandlers(hasHeavy: hasHeavy)
        }
    }

    /// The ended job.
    func ended(_ handle: JobHandle<some Sendable>) async throws -> JobRecord {
        var last: JobRecord?
        for try await record in handle.updates { last = record }
        guard let last else { throw JobFailure(kind: .raised, type: "Bench", message: "\(handle.id) has no record") }
        return last
    }

    func isRunning(_ handle: JobHandle<some Sendable>) async throws -> Bool {
        try await eventually(.seconds(20)) { try await handle.state() == .running }
    }
}

/// What a worker logs.
final class LogKeeper: Sendable {
    private let lines = Mutex<[String]>([])
    func add(_ line: String) { lines.withLock { $0.append(line) } }
    var all: [String] { lines.withLock { $0 } }
}

struct KeepingLogHandler: LogHandler {
    let keeper: LogKeeper
    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level = .info

    init(keeper: LogKeeper) { self.keeper = keeper }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        keeper.add("\(event.level) \(event.message) \(metadata.merging(event.metadata ?? [:]) { $1 })")
    }
}

/// The system's view of this process and others.
enum Processes {
    static func children(of parent: Int32 = getpid()) -> [Int32] {
        all().filter {
            $0.parent == parent && ($0.command.contains("IsolationTestChild") || $0.command.contains("Torture"))
        }.map(\.id)
    }

    /// Arguments of unshare(1) for a program that is the first process of its own PID namespace.
    static let namespace = ["--pid", "--fork", "--mount-proc"]

    /// Whether this machine lets the tests make such a namespace.
    static let canHaveNamespace: Bool = {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/unshare")
        process.arguments = namespace + ["/bin/true"]
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }()

    struct Entry {
        var id: Int32
        var parent: Int32
        var state: String
        var command: String
    }

    static func all() -> [Entry] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return names.compactMap(Int32.init).compactMap { id in
            guard let stat = try? String(contentsOfFile: "/proc/\(id)/stat", encoding: .utf8),
                let end = stat.lastIndex(of: ")")
            else {
                return nil
            }
            let fields = stat[stat.index(end, offsetBy: 2)...].split(separator: " ")
            let command = (try? String(contentsOfFile: "/proc/\(id)/cmdline", encoding: .utf8)) ?? ""
            return Entry(
                id: id, parent: Int32(fields[1]) ?? 0, state: String(fields[0]),
                command: command.replacingOccurrences(of: "\0", with: " "))
        }
    }

    static func openFiles(of id: Int32) -> Int {
        ((try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(id)/fd")) ?? []).count
    }

    static func memory(of id: Int32) -> Int {
        let text = (try? String(contentsOfFile: "/proc/\(id)/status", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("RssAnon:") } ?? ""
        return (Int(line.filter(\.isNumber)) ?? 0) * 1024
    }
}
