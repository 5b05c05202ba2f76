public import Foundation
import Synchronization

/// A redis-server of a test's own, on a free port of the loopback interface, with its files in a temporary folder. Ends
/// with the object.
public final class RedisServer: Sendable {
    public let port: Int
    public let folder: URL
    private let arguments: [String]
    private let process: Mutex<Process?>

    /// One server for all tests that need none of their own; each test takes a key prefix of its own.
    public static let shared = Result { try RedisServer() }

    /// - Parameter options: override the defaults, as on the command line.
    /// - Throws: `TestServerError` when no port is free or the server does not listen within 5 seconds; Foundation's
    ///   error when its folder or its process cannot be made. A retry is safe: it starts another server.
    public convenience init(_ options: [String] = []) throws {
        try self.init(isSentinel: false, configuration: "", options: options)
    }

    /// A sentinel that watches the server on `port`, under the name `main`, and fails over within seconds.
    /// - Throws: `TestServerError` when no port is free or the sentinel does not listen within 5 seconds; Foundation's
    ///   error when its files or its process cannot be made. A retry is safe: it starts another sentinel.
    public convenience init(sentinelOf port: Int) throws {
        let configuration = """
            sentinel monitor main 127.0.0.1 \(port) 1
            sentinel down-after-milliseconds main 1000
            sentinel failover-timeout main 3000
            """
        try self.init(isSentinel: true, configuration: configuration, options: [])
    }

    private init(isSentinel: Bool, configuration: String, options: [String]) throws {
        port = try Self.freePort()
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-redis-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        socketPath = "/tmp/hoist-\(port).sock"
        if isSentinel {
            let file = folder.appendingPathComponent("sentinel.conf")
            try configuration.write(to: file, atomically: true, encoding: .utf8)
            arguments = [file.path, "--sentinel", "--port", "\(port)", "--bind", "127.0.0.1", "--dir", folder.path]
        } else {
            arguments =
                [
                    "--port", "\(port)", "--bind", "127.0.0.1", "--dir", folder.path, "--save", "", "--unixsocket",
                    socketPath,
                ] + options
        }
        process = Mutex(nil)
        try start()
    }

    deinit {
        stop()
        try? FileManager.default.removeItem(at: folder)
    }

    public var url: String { "redis://127.0.0.1:\(port)/0" }
    /// In /tmp, because the path of a socket must be short, however long that of the system's temporary folder is.
    public let socketPath: String
    public var pid: pid_t { process.withLock { $0?.processIdentifier ?? 0 } }

    /// `HOIST_TEST_REDIS_SERVER` names another server with the same protocol, such as valkey-server.
    private static let program = ProcessInfo.processInfo.environment["HOIST_TEST_REDIS_SERVER"] ?? "redis-server"

    /// Starts the server, again after a ``stop(_:)``, and waits until it listens.
    /// - Throws: Foundation's error when the process cannot start; then a retry is safe. `TestServerError` when the
    ///   server does not listen within 5 seconds: call ``stop(_:)`` before a retry.
    public func start() throws {
        let server = Process()
        server.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        server.arguments = [Self.program] + arguments
        server.standardOutput = FileHandle.nullDevice
        server.standardError = FileHandle.nullDevice
        // The socket of a server that was killed.
        try? FileManager.default.removeItem(atPath: socketPath)
        try server.run()
        process.withLock { $0 = server }
        TestProcesses.register(server.processIdentifier, folder.path)
        try waitUntilListening()
    }

    /// Kills the server and waits until it is gone.
    public func stop(_ signal: Int32 = SIGKILL) {
        process.withLock { process in
            guard let server = process else { return }
            kill(server.processIdentifier, signal)
            server.waitUntilExit()
            TestProcesses.forget(server.processIdentifier)
            process = nil
        }
    }

    private func waitUntilListening() throws {
        for _ in 0..<3000 {
            // It listens on its port before it makes the socket, and makes the socket before it listens there.
            let hasSocket = !arguments.contains("--unixsocket") || Self.canConnect(toSocket: socketPath)
            if hasSocket, Self.canConnect(port) { return }
            usleep(10_000)
        }
        throw TestServerError(description: "\(Self.program) did not come up")
    }

    public static func canConnect(_ port: Int) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
    }

    private static func canConnect(toSocket path: String) -> Bool {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8.prefix($0.count - 1)) }
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0
            }
        }
    }

    /// A free port of the loopback interface; another program may take it before it is used.
    /// - Throws: `TestServerError` when no port can be bound. A retry is safe.
    public static func freePort() throws -> Int {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
            }
        }
        guard isBound else { throw TestServerError(description: "no free port") }
        return Int(in_port_t(bigEndian: address.sin_port))
    }
}

public struct TestServerError: Error, CustomStringConvertible {
    public var description: String
}
