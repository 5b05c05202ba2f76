public import Foundation
import Synchronization

/// A rabbitmq-server of a test's own, with its management, on free ports of the loopback interface. Its files are in a
/// temporary folder. Ends with the object.
public final class RabbitServer: Sendable {
    public let port: Int
    public let managementPort: Int
    public let folder: URL
    private let namesPort: Int
    private let names: Process
    private let process: Mutex<Process?>

    /// One server for all tests that need none of their own; each test takes a virtual host of its own.
    public static var shared: RabbitServer {
        get async throws { try await onThread { try sharedResult.get() } }
    }
    private static let sharedResult = Result { try RabbitServer() }

    /// Starts a server, which takes seconds, on a thread of its own: other tests need those of the pool.
    /// - Throws: as ``init(_:plugins:)``.
    public static func started(_ settings: String = "", plugins: [String] = []) async throws -> RabbitServer {
        try await onThread { try RabbitServer(settings, plugins: plugins) }
    }

    /// Does something that blocks its thread.
    /// - Throws: what `body` throws.
    public static func onThread<T: Sendable>(_ body: @escaping @Sendable () throws -> T) async throws -> T {
        try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread { continuation.resume(with: Result { try body() }) }
        }
    }

    /// - Parameters:
    ///   - settings: lines of `rabbitmq.conf` beside the defaults.
    ///   - plugins: beside the management.
    /// - Throws: `TestServerError` when the server does not listen within a minute; Foundation's error when its folder or
    ///   its process cannot be made. A retry is safe: it starts another server.
    public init(_ settings: String = "", plugins: [String] = []) throws {
        port = try RedisServer.freePort()
        managementPort = try RedisServer.freePort()
        namesPort = try RedisServer.freePort()
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-rabbit-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let configuration = """
            listeners.tcp.1 = 127.0.0.1:\(port)
            management.tcp.ip = 127.0.0.1
            management.tcp.port = \(managementPort)
            \(settings)
            """
        try configuration.write(
            to: folder.appendingPathComponent("rabbit.conf"), atomically: true, encoding: .utf8)
        try "[\((["rabbitmq_management"] + plugins).joined(separator: ","))].".write(
            to: folder.appendingPathComponent("plugins"), atomically: true, encoding: .utf8)
        // Erlang's register of names would else be a process of the machine that outlives the test.
        names = Process()
        names.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        names.arguments = ["epmd", "-port", "\(namesPort)", "-address", "127.0.0.1"]
        names.standardOutput = FileHandle.nullDevice
        names.standardError = FileHandle.nullDevice
        try names.run()
        process = Mutex(nil)
        TestProcesses.register(names.processIdentifier, folder.path)
        try start()
    }

    deinit {
        stop()
        kill(names.processIdentifier, SIGKILL)
        names.waitUntilExit()
        TestProcesses.forget(names.processIdentifier)
        try? FileManager.default.removeItem(at: folder)
    }

    /// - Parameter virtualHost: as ``makeVirtualHost()`` gives it.
    public func url(_ virtualHost: String = "/") -> String { Self.url(port, virtualHost) }

    public static func url(_ port: Int, _ virtualHost: String) -> String {
        "amqp://guest:guest@127.0.0.1:\(port)/\(virtualHost == "/" ? "" : virtualHost)"
    }

    private var environment: [String: String] {
        var environment = ProcessInfo.processInfo.environment
        environment.merge([
            "RABBITMQ_NODENAME": "hoist\(port)@localhost", "RABBITMQ_DIST_PORT": "\(distributionPort)",
            "RABBITMQ_MNESIA_BASE": folder.path + "/data", "RABBITMQ_LOG_BASE": folder.path + "/log",
            "RABBITMQ_CONFIG_FILE": folder.path + "/rabbit.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": folder.path + "/plugins", "RABBITMQ_PID_FILE": pidFile,
            "ERL_CRASH_DUMP": folder.path + "/crash", "ERL_EPMD_PORT": "\(namesPort)", "ERL_EPMD_ADDRESS": "127.0.0.1",
            "HOME": folder.path,
            // It leaves the processors to others when it has nothing to do. What a delay queue cannot hand on is tried again after two seconds, and not after three minutes.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                "+sbwt none -rabbit dead_letter_worker_publisher_confirm_timeout 2000",
        ]) { $1 }
        return environment
    }

    private var pidFile: String { folder.path + "/pid" }
    private var distributionPort: Int { port > 40_000 ? port - 20_000 : port + 20_000 }

    /// The process of the server itself; 0 when it does not run.
    public var pid: pid_t {
        let text = try? String(contentsOfFile: pidFile, encoding: .utf8)
        return text.flatMap { pid_t($0.trimmingCharacters(in: .whitespacesAndNewlines)) } ?? 0
    }

    /// Debian's packages let nobody but root and the user `rabbitmq` use the programs on the path.
    private static func program(_ name: String) -> String {
        let own = "/usr/lib/rabbitmq/bin/" + name
        return FileManager.default.isExecutableFile(atPath: own) ? own : name
    }

    /// Starts the server, again after a ``stop(_:)``, and waits until it takes connections.
    /// - Throws: Foundation's error when the process cannot start; `TestServerError` when the server does not listen
    ///   within a minute.
    public func start() throws {
        let server = Process()
        server.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        server.arguments = [Self.program("rabbitmq-server")]
        server.environment = environment
        server.standardOutput = FileHandle.nullDevice
        server.standardError = FileHandle.nullDevice
        try server.run()
        TestProcesses.register(server.processIdentifier, folder.path)
        process.withLock { $0 = server }
        for _ in 0..<6000 {
            if RedisServer.canConnect(port), RedisServer.canConnect(managementPort), pid != 0 {
                TestProcesses.register(pid, folder.path)
                return
            }
            usleep(10_000)
        }
        throw TestServerError(description: "rabbitmq-server did not come up")
    }

    /// Kills the server and waits until it is gone. What it has confirmed is still there at the next start.
    public func stop(_ signal: Int32 = SIGKILL) {
        process.withLock { process in
            guard let shell = process else { return }
            let server = pid
            if server != 0 { kill(server, signal) }
            while server != 0, RedisServer.canConnect(port) { usleep(10_000) }
            // The script around the server does not notice that it was killed.
            kill(shell.processIdentifier, SIGKILL)
            shell.waitUntilExit()
            TestProcesses.forget(shell.processIdentifier)
            TestProcesses.forget(server)
            try? FileManager.default.removeItem(atPath: pidFile)
            process = nil
        }
    }

    /// Runs `rabbitmqctl`.
    /// - Throws: `TestServerError` with its output when it fails.
    @discardableResult
    public func control(_ arguments: String...) throws -> String {
        try run(Self.program("rabbitmqctl"), arguments)
    }

    /// Asks the management API.
    /// - Parameter path: such as `/api/queues`.
    /// - Throws: `TestServerError` when it refuses.
    @discardableResult
    public func manage(_ path: String, _ method: String = "GET", body: String? = nil) throws -> String {
        try run(
            "curl",
            ["--silent", "--show-error", "--fail", "-u", "guest:guest", "-X", method]
                + (body.map { ["-H", "content-type: application/json", "-d", $0] } ?? [])
                + ["http://127.0.0.1:\(managementPort)\(path)"])
    }

    /// A virtual host that nobody else uses.
    /// - Throws: as ``manage(_:_:body:)``.
    public func makeVirtualHost() async throws -> String {
        let name = "test-\(UUID().uuidString.lowercased())"
        _ = try await Self.onThread { try self.manage("/api/vhosts/\(name)", "PUT") }
        return name
    }

    private func run(_ program: String, _ arguments: [String]) throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [program] + arguments
        process.environment = environment
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        let text = String(decoding: data, as: UTF8.self)
        guard process.terminationStatus == 0 else {
            throw TestServerError(description: "\(program) \(arguments.joined(separator: " ")): \(text)")
        }
        return text
    }
}
