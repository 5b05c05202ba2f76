public import ArgumentParser
import Configuration
public import Hoist
import HoistRedis
import HoistSQLite

/// Which backend a command works on: `--backend URL`, else the environment's `HOIST_BACKEND`, else `sqlite:hoist.db`.
public struct BackendOptions: ParsableArguments {
    @Option(
        name: .long,
        help: "The backend: sqlite:FILE, redis://HOST/DB or memory: (default: $HOIST_BACKEND, else sqlite:hoist.db).")
    public var backend: String?

    public init() {}

    /// The URL that is used: the option, else the environment, else the default.
    public var url: String {
        backend
            ?? ConfigReader(provider: EnvironmentVariablesProvider()).string(
                forKey: "hoist.backend", default: "sqlite:hoist.db")
    }

    /// - Throws: ``BackendError`` as ``Backends/open(_:)``.
    public func open() throws -> Backend { try Backends.open(url) }
}

/// Opens a backend by its URL. Every option and variable that names a backend takes these URLs.
public enum Backends {
    /// - Throws: ``BackendError``: `.misuse` for a URL that names no backend or has wrong options; for `sqlite:` also
    ///   the error of opening the file. A Redis server is not connected to yet. Nothing has been stored, so a retry is
    ///   safe.
    public static func open(_ url: String) throws -> Backend {
        let scheme = url.prefix { $0 != ":" }.lowercased()
        switch scheme {
        case "sqlite": return try SQLiteBackend(url: url).backend
        case "redis", "rediss", "valkey", "valkeys", "unix", "redis+socket", "sentinel", "redis+cluster",
            "rediss+cluster":
            return try RedisBackend(url: url).backend
        case "memory": return MemoryBackend().backend
        // The rest of the URL may hold a password, so it is not repeated.
        default:
            throw BackendError(
                .misuse, "no backend for URLs that begin with \(scheme): ; write sqlite:FILE, redis://HOST or memory:")
        }
    }
}
