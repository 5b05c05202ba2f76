import Foundation
import FoundationNetworking
import Hoist
import HoistSQLite
import HoistTesting
import Logging
import Synchronization
import TestServers
import Testing

/// Programs of this package as processes, in a folder of their own. All is stopped and removed at the end.
final class ServiceBench {
    static let hasFFmpeg = FileManager.default.isExecutableFile(atPath: "/usr/bin/ffmpeg")

    private let folder: URL
    private let name: String
    private var processes: [Process] = []
    private var port = 0
    private var keeper: Task<Void, Never>?

    /// - Parameter name: of the program.
    init(_ name: String = "VideoService") throws {
        self.name = name
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-service-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    deinit {
        keeper?.cancel()
        if let kept = kept.process.withLock({ $0 }), kept.isRunning { kill(kept.processIdentifier, SIGKILL) }
        for process in processes where process.isRunning {
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
        }
        try? FileManager.default.removeItem(at: folder)
    }

    /// The server that ``keepServing(_:)`` has started last.
    private final class Kept: Sendable {
        let process = Mutex<Process?>(nil)
    }

    private let kept = Kept()

    var url: String { "http://127.0.0.1:\(port)" }
    var usedPort: Int { port }

    /// Talks to a server that something else has started.
    func use(port: Int) { self.port = port }

    var backendURL: String { "sqlite:" + path("jobs.db") }
    func path(_ name: String) -> String { folder.appendingPathComponent(name).path }

    func start(_ arguments: [String]) throws -> Process {
        let process = Self.makeProcess(BuiltProgram.url(name), arguments)
        try process.run()
        processes.append(process)
        return process
    }

    /// Starts the program by another one, such as `unshare`.
    func start(by starter: [String], _ arguments: [String]) throws -> Process {
        let process = Self.makeProcess(
            URL(fileURLWithPath: starter[0]),
            Array(starter.dropFirst()) + [BuiltProgram.url(name).path] + arguments)
        try process.run()
        processes.append(process)
        return process
    }

    private static func makeProcess(_ program: URL, _ arguments: [String]) -> Process {
        let process = Process()
        process.executableURL = program
        process.arguments = arguments
        process.standardError = FileHandle.nullDevice
        // With backtraces on, a process survives a SIGSEGV that another process sends.
        process.environment = ProcessInfo.processInfo.environment.merging(["SWIFT_BACKTRACE": "enable=no"]) { $1 }
        return process
    }

    /// Starts a server, and starts it again on the same port whenever it ends.
    func keepServing(_ arguments: [String]) async throws {
        port = try RedisServer.freePort()
        let kept = kept
        let make = { [name, line = ["serve", "--port", String(port)] + arguments] in
            ServiceBench.makeProcess(BuiltProgram.url(name), line)
        }
        keeper = Task {
            while !Task.isCancelled {
                let (ends, continuation) = AsyncStream<Void>.makeStream()
                let process = make()
                process.terminationHandler = { _ in continuation.finish() }
                guard (try? process.run()) != nil else { return }
                kept.process.withLock { $0 = process }
                for await _ in ends {}
            }
        }
        #expect(try await eventually(.seconds(30)) { (try? await self.http("GET", "/").status) == 200 })
    }

    /// - Parameter places: the options that name the backend; nil for SQLite in the bench's folder.
    func startServer(backend: String? = nil, places: [String]? = nil) async throws {
        port = try RedisServer.freePort()
        let places = places ?? ["--backend", backend ?? backendURL]
        _ = try start(["serve", "--data", path("videos"), "--port", String(port)] + places)
        #expect(try await eventually(.seconds(30)) { (try? await self.http("GET", "/").status) == 200 })
    }

    struct Answer {
        var status: Int
        var headers: [String: String]
        var body: Data
        var json: WireValue { (try? JSONText.parse(Array(body))) ?? .null }
    }

    func http(_ method: String, _ path: String, headers: [String: String] = [:], file: String? = nil, body: Data? = nil)
        async throws -> Answer
    {
        var request = URLRequest(url: try #require(URL(string: "http://127.0.0.1:\(port)\(path)")))
        request.httpMethod = method
        for (name, value) in headers { request.setValue(value, forHTTPHeaderField: name) }
        request.httpBody = body
        if let file { request.httpBody = try Data(contentsOf: URL(fileURLWithPath: file)) }
        let (body, response) = try await URLSession.shared.data(for: request)
        let http = try #require(response as? HTTPURLResponse)
        var found: [String: String] = [:]
        for (name, value) in http.allHeaderFields { found["\(name)".lowercased()] = "\(value)" }
        return Answer(status: http.statusCode, headers: found, body: body)
    }

    func job(_ id: String) async throws -> WireValue { try await http("GET", "/jobs/\(id)").json }

    func makeVideo(seconds: Int) throws -> String {
        let file = path("input-\(seconds).mp4")
        _ = try run(
            URL(fileURLWithPath: "/usr/bin/ffmpeg"),
            [
                "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25", "-t", String(seconds), "-vf",
                "noise=alls=20:allf=t",
                "-c:v", "libx264", "-preset", "ultrafast", file,
            ], status: 0)
        return file
    }

    func run(_ name: String, _ arguments: [String], status: Int32) throws -> String {
        try run(BuiltProgram.url(name), arguments, status: status)
    }

    private func run(_ program: URL, _ arguments: [String], status: Int32) throws -> String {
        let process = Process()
        let output = Pipe()
        process.executableURL = program
        process.arguments = arguments
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        try process.run()
        let bytes = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        #expect(process.terminationStatus == status, "\(program.lastPathComponent) \(arguments)")
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The processes that name `text` in their command line.
    func processes(naming text: String) -> [Int32] {
        let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return all.compactMap(Int32.init).filter { process in
            let line = (try? Data(contentsOf: URL(fileURLWithPath: "/proc/\(process)/cmdline"))) ?? Data()
            return String(decoding: line, as: UTF8.self).contains(text)
        }
    }

    private struct Writing: Job {
        static let name = "mail.writing"
        static let options = JobOptions(queue: "writing")
    }

    func makeWritingJob(_ id: String, on backend: SQLiteBackend) async throws {
        // Log lines that the logger's level lets pass are kept with the job.
        let logger = Logger(label: "test", factory: { StreamLogHandler.standardError(label: $0) })
        try await JobClient(backend, logger: logger).enqueue(Writing(), .id(id))
        try await Worker(backend, queues: ["writing"], configuration: .init(isBurst: true), logger: logger) {
            Handler(Writing.self) { _, context in
                context.logger.info("first", metadata: ["step": "1"])
                context.logger.warning("second")
            }
        }.run()
    }

    private struct Doomed: Job {
        static let name = "mail.doomed"
        static let options = JobOptions(queue: "dead")
        var to: String
    }

    func makeDeadLetter(_ id: String, on backend: SQLiteBackend) async throws {
        let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        try await JobClient(backend, logger: logger).enqueue(Doomed(to: "ada"), .id(id))
        var configuration = Worker.Configuration()
        configuration.isBurst = true
        try await Worker(backend, queues: ["dead"], configuration: configuration, logger: logger) {
            Handler(Doomed.self) { job, context in
                if context.id == id { throw JobDirective.deadLetter("no such mailbox") }
            }
        }.run()
    }
}
