import Foundation
import Hoist
import HoistRedis
import HoistTesting
import Logging
import TestServers
import Testing

private let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// The dashboard beside a mixed fleet, looked at in a real browser.
@Suite(
    "The dashboard in Chromium", .enabled(if: PythonPeer.interpreter != nil, "\(PythonPeer.isMissing)"),
    .timeLimit(.minutes(8)))
struct BrowserTests {
    private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Browser").path

    private struct Broken: Error, CustomStringConvertible {
        var description: String { "it broke" }
    }

    @Test("pages, live changes, keys, actions, sizes and themes, beside Swift and Python workers")
    func browse() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let folder = try TemporaryFolder()
        let environment = ["FLEET_URL": server.url, "HOIST": BuiltProgram.url("hoist").path]
        let python = try PythonPeer.start(
            ["-m", "celery", "-A", "fleet", "worker", "-Q", "python", "-c", "2", "-n", "py1@shop", "-l", "warning"],
            in: Self.folder, environment: environment)
        defer { PythonPeer.stop(python) }
        let backend = try RedisBackend(url: server.url)
        let jobs = JobClient(backend, logger: silent)
        let worker = Worker(backend, queues: ["swift"], configuration: .init(name: "swift-1@shop"), logger: silent) {
            Handler(named: "swift.ok") { _, _ in .null }
            Handler(named: "swift.fail") { _, _ in throw Broken() }
        }
        let dashboard = try Program(
            "hoist", ["dashboard", "--backend", server.url, "--port", "0", "--store", folder.path("history.db")])
        defer { dashboard.stop() }
        let base = try await dashboard.line(after: "dashboard: ")
        try await withWorker(worker) {
            // The worker is told to send events once the dashboard has heard of it.
            let isHeard = try await eventually(.seconds(60)) {
                try await jobs.enqueue(named: "swift.fail", options: [.queue("swift")])
                try await jobs.enqueue(named: "swift.ok", options: [.queue("swift")])
                let (_, text) = try await Self.get(base + "api/v1/jobs?q=name:swift.fail%20state:failed")
                return text.contains("swift.fail")
            }
            #expect(isHeard)
            var arguments = ["browse.py", base]
            if let shots = ProcessInfo.processInfo.environment["HOIST_SCREENSHOTS"] { arguments.append(shots) }
            let log = URL(fileURLWithPath: folder.path("browse.log"))
            let browser = try PythonPeer.start(arguments, in: Self.folder, environment: environment, log: log)
            let hasEnded = try await eventually(.seconds(400)) { !browser.isRunning }
            let told = (try? String(contentsOf: log, encoding: .utf8)) ?? ""
            if !hasEnded { PythonPeer.stop(browser) }
            #expect(hasEnded && browser.terminationStatus == 0, "\(told.suffix(6000))")
        }
    }

    private static func get(_ url: String) async throws -> (status: Int32, text: String) {
        try await BuiltProgram.output(of: "/usr/bin/curl", ["-s", "-m", "5", url])
    }
}

/// A program of this package that runs until it is stopped.
private final class Program: Sendable {
    private let process = Process()
    private let lines = Shared("")

    init(_ name: String, _ arguments: [String]) throws {
        let pipe = Pipe()
        process.executableURL = BuiltProgram.url(name)
        process.arguments = arguments
        process.standardOutput = pipe
        process.standardError = FileHandle.nullDevice
        pipe.fileHandleForReading.readabilityHandler = { [lines] handle in
            let text = String(decoding: handle.availableData, as: UTF8.self)
            lines.change { $0 += text }
        }
        try process.run()
    }

    /// What follows some words in a line of the output.
    func line(after words: String) async throws -> String {
        let isThere = await lines.wait { $0.contains(words) && $0.hasSuffix("\n") }
        try #require(isThere, "\(lines.value)")
        let line = lines.value.split(separator: "\n").first { $0.contains(words) } ?? ""
        return String(line.components(separatedBy: words).last ?? "")
    }

    func stop() {
        process.terminate()
        process.waitUntilExit()
    }
}
