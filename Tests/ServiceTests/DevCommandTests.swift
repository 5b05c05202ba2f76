import Foundation
import Hoist
import HoistSQLite
import HoistTesting
import TestServers
import Testing

/// The commands that keep a program running.
@Suite("dev and up", .serialized, .timeLimit(.minutes(3)))
struct DevCommandTests {
    @Test("dev serves and works in one process, starts it again when it is killed, and ends on SIGTERM")
    func dev() async throws {
        let bench = try ServiceBench("ImageService")
        let port = try RedisServer.freePort()
        let dev = try bench.start([
            "dev", "--backend", "memory:", "--data", bench.path("pictures"), "--port", String(port),
        ])
        bench.use(port: port)
        func inside() async -> Int32? {
            (try? await bench.http("GET", "/state").json["server"]?["pid"]?.integerValue).map { Int32($0) }
        }
        #expect(try await eventually(.seconds(30)) { await inside() != nil })
        let first = try #require(await inside())
        #expect(first != dev.processIdentifier)
        let body = Data(#"{"prompt": "a", "size": 64}"#.utf8)
        let order = try await bench.http(
            "POST", "/generate", headers: ["Content-Type": "application/json"], body: body)
        let id = try #require(order.json["id"]?.stringValue)
        #expect(try await eventually(.seconds(30)) { try await bench.job("picture-\(id)")["state"] == "succeeded" })
        kill(first, SIGKILL)
        #expect(
            try await eventually(.seconds(30)) {
                let now = await inside()
                return now != nil && now != first
            })
        dev.terminate()
        #expect(try await eventually(.seconds(30)) { !dev.isRunning })
        #expect(dev.terminationStatus == 0)
    }

    @Test(
        "a program that cannot start as it is configured is not started again and again",
        arguments: [
            ["up", "--backend", "nothing"], ["dev", "--backend", "nothing"], ["up", "--queue", "a:0"],
            ["worker", "--backend", "nothing"],
        ])
    func hopeless(_ arguments: [String]) async throws {
        let bench = try ServiceBench("ImageService")
        let program = try bench.start(arguments + ["--data", bench.path("pictures")])
        #expect(try await eventually(.seconds(30)) { !program.isRunning })
        let expected: [Int32] = arguments[0] == "worker" ? [78] : arguments.contains("a:0") ? [64] : [1]
        #expect(expected.contains(program.terminationStatus), "\(program.terminationStatus)")
    }

    private static let unshare = ["/usr/bin/unshare", "--pid", "--fork", "--kill-child"]

    /// Whether this machine lets the tests make a namespace of process ids.
    private static let canUnshare: Bool = {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: unshare[0])
        process.arguments = unshare.dropFirst() + ["/bin/true"]
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }()

    @Test(
        "a worker that is the first process of its container leaves in order on SIGTERM",
        .enabled(if: canUnshare, "namespaces cannot be made here"))
    func firstProcess() async throws {
        let bench = try ServiceBench("ImageService")
        let backend = try SQLiteBackend(url: bench.backendURL)
        let starter = try bench.start(
            by: Self.unshare, ["worker", "--backend", bench.backendURL, "--data", bench.path("pictures")])
        #expect(try await eventually(.seconds(30)) { try await backend.workers().count == 1 })
        let first = bench.processes(naming: bench.backendURL).filter { $0 != starter.processIdentifier }
            .filter { process in
                let status = try? String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
                // Its number in its own namespace is the last one.
                return status?.split(separator: "\n").contains { $0.hasPrefix("NSpid:") && $0.hasSuffix("\t1") } == true
            }
        kill(try #require(first.first), SIGTERM)
        #expect(try await eventually(.seconds(30)) { !starter.isRunning })
        #expect(starter.terminationStatus == 0)
        #expect(try await backend.workers().isEmpty, "it has left, and its lease is not waited for")
    }

    @Test("dev ends when its port is taken, for it would not start a second time either")
    func taken() async throws {
        let bench = try ServiceBench("ImageService")
        try await bench.startServer()
        let dev = try bench.start([
            "dev", "--backend", "memory:", "--data", bench.path("pictures"), "--port", String(bench.usedPort),
        ])
        #expect(try await eventually(.seconds(30)) { !dev.isRunning })
        #expect(dev.terminationStatus == 1)
    }
}
