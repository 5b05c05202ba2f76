public import ArgumentParser
import Foundation
public import Hoist
import HoistRabbitMQ
import HoistRedis
import HoistSQLite
import Logging

/// Which backend a command works on: `--backend URL`, else the environment's `HOIST_BACKEND`, else `sqlite:hoist.db`.
/// Results may be kept elsewhere: `--results URL`, else `HOIST_RESULTS`.
public struct BackendOptions: ParsableArguments {
    @Option(
        name: .long,
        help: """
            The backend: sqlite:FILE, redis://HOST/DB, amqp://HOST/VHOST or memory: (default: $HOIST_BACKEND, else \
            sqlite:hoist.db).
            """)
    public var backend: String?

    @Option(
        name: .long,
        help: "Where results are kept, when that is another backend, as with RabbitMQ (default: $HOIST_RESULTS).")
    public var results: String?

    public init() {}

    /// What the environment says, for commands with options of their own: reading the options of a value that was not
    /// parsed ends the program.
    static var environmentURL: String { CommandEnvironment.text("backend") ?? "sqlite:hoist.db" }

    /// The URL that is used: the option, else the environment, else the default.
    public var url: String { backend ?? Self.environmentURL }

    /// The URL of another result store; nil for none.
    public var resultsURL: String? { results ?? CommandEnvironment.text("results") }

    /// - Throws: `BackendError` as ``Backends/open(_:results:)``.
    public func open() throws -> Backend { try Backends.open(url, results: resultsURL) }

    /// Opens a backend that is there already, for commands that look: a SQLite file that does not exist is an error,
    /// not a new file.
    func openExisting() throws -> Backend {
        try Backends.mustExist(url)
        if let resultsURL { try Backends.mustExist(resultsURL) }
        return try open()
    }

    /// Says that no other process reaches the jobs of a worker whose backend is memory.
    func warnIfAlone(_ backend: Backend, _ logger: Logger) {
        guard backend.broker.address.transport == "memory" else { return }
        logger.warning(
            "the backend is this process's memory: no other program can give this worker jobs; name one by --backend")
    }
}

/// Opens a backend by its URL. Every option and variable that names a backend takes these URLs.
public enum Backends {
    /// - Throws: `BackendError`: `.misuse` for a URL that names no backend or has wrong options; for `sqlite:` also
    ///   the error of opening the file. A Redis server is not connected to yet. Nothing has been stored, so a retry is
    ///   safe.
    public static func open(_ url: String) throws -> Backend {
        let scheme = url.prefix { $0 != ":" }.lowercased()
        switch scheme {
        case "sqlite": return try SQLiteBackend(url: url).backend
        case "redis", "rediss", "valkey", "valkeys", "unix", "redis+socket", "sentinel", "redis+cluster",
            "rediss+cluster":
            return try RedisBackend(url: url).backend
        case _ where !keepsResults(url): return try RabbitMQBackend(url: url).backend
        case "memory": return MemoryBackend().backend
        case _ where !url.contains(":"):
            throw BackendError(
                .misuse,
                "\(TerminalText.line(url)) has no scheme; for a SQLite file write sqlite:\(TerminalText.line(url))")
        // The rest of the URL may hold a password, so it is not repeated.
        default:
            throw BackendError(
                .misuse,
                "no backend for URLs that begin with \(scheme): ; write sqlite:FILE, redis://HOST, amqp://HOST or memory:"
            )
        }
    }

    /// Whether a backend keeps results itself; RabbitMQ does not.
    static func keepsResults(_ url: String) -> Bool {
        !["amqp", "amqps", "pyamqp", "pyamqps"].contains(url.prefix { $0 != ":" }.lowercased())
    }

    /// - Throws: ``CommandFailure`` when the URL names a SQLite file that does not exist; it names the databases that lie
    ///   beside it.
    static func mustExist(_ url: String) throws {
        guard url.lowercased().hasPrefix("sqlite:") else { return }
        let path = url.dropFirst("sqlite:".count)
        let file = URL(fileURLWithPath: String(path.hasPrefix("//") ? path.dropFirst(2) : path)).standardizedFileURL
        guard !FileManager.default.fileExists(atPath: file.path) else { return }
        let folder = file.deletingLastPathComponent()
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        let found = names.sorted().filter { isDatabase(folder.appendingPathComponent($0)) }.prefix(10)
        let hint =
            found.isEmpty
            ? "no database lies in \(folder.path); name one by --backend sqlite:FILE, or $HOIST_BACKEND"
            : "the folder has \(found.joined(separator: ", "))"
        throw CommandFailure(TerminalText.line("\(file.path) does not exist: \(hint)"))
    }

    private static func isDatabase(_ file: URL) -> Bool {
        guard let handle = try? FileHandle(forReadingFrom: file) else { return false }
        defer { try? handle.close() }
        return (try? handle.read(upToCount: 15)) == Data("SQLite format 3".utf8)
    }

    /// Opens a backend whose results may be kept in another one.
    /// - Parameters:
    ///   - url: of the backend.
    ///   - results: of the result store; nil for the backend's own.
    /// - Throws: `BackendError` as ``open(_:)``, for either; `.misuse` where results cannot be kept, as in RabbitMQ.
    public static func open(_ url: String, results: String?) throws -> Backend {
        let backend = try open(url)
        guard let results else { return backend }
        guard keepsResults(results) else {
            throw BackendError(.misuse, "RabbitMQ keeps no results; write --results redis://HOST or sqlite:FILE")
        }
        return Backend(backend, results: try open(results))
    }
}
