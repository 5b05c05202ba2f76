public import ArgumentParser
import Configuration
import Hoist
import HoistDashboard
import Hummingbird
import Logging
import ServiceLifecycle

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// `dashboard`: serves the web dashboard of one or several backends.
public struct DashboardCommand: AsyncParsableCommand {
    public static let configuration = CommandConfiguration(
        commandName: "dashboard", abstract: "Serve the web dashboard: every job, why it waits, and what can be done.",
        discussion: """
            Shows Hoist's workers, Celery's, and both together:
              hoist dashboard --backend redis://localhost/0
              hoist dashboard --backend prod=redis://db-1/0 --backend staging=redis://db-2/0
              hoist dashboard --demo
            Without users it answers requests from this machine alone. With users everybody logs in, from anywhere:
              hoist dashboard user add ada --role admin
              hoist dashboard --host 0.0.0.0 --backend redis://localhost/0
            """, subcommands: [DashboardUserCommand.self, DashboardTokenCommand.self])

    @Option(
        name: .long,
        help: "A backend, URL or NAME=URL; may be repeated (default: $HOIST_BACKEND, else sqlite:hoist.db).")
    var backend: [String] = []
    @Option(
        name: .long,
        help: "Where the results of backends on RabbitMQ are kept: redis://HOST/DB (default: $HOIST_RESULTS).")
    var results: String?
    @Option(name: .long, help: "The port.") var port = 5580
    @Option(name: .long, help: "Where to listen. Another address than this machine's loopback needs users.")
    var host = "127.0.0.1"
    @Option(name: .long, help: "A further name under which programs of this machine reach it; may be repeated.")
    var allowHost: [String] = []
    @OptionGroup var history: HistoryOptions
    @Flag(name: .long, help: "A proxy before it sets X-Forwarded-Proto: cookies are marked as secure over TLS.")
    var trustProxy = false
    @Option(name: .long, help: "Serve below this path, such as /hoist.") var prefix = ""
    @Flag(name: .long, help: "Show everything, and let nothing be done.") var readOnly = false
    @Flag(name: .long, help: "Show a made-up fleet, with no backend.") var demo = false
    @OptionGroup var logging: LogOptions

    public init() {}

    public func validate() throws {
        guard !demo || isLoopback else {
            throw ValidationError("--demo has no users, so it listens on this machine's loopback alone")
        }
        guard !demo || backend.isEmpty else { throw ValidationError("--demo shows no backend: leave out --backend") }
        guard (0...65_535).contains(port) else { throw ValidationError("--port takes 0 to 65535") }
    }

    public func run() async throws {
        let logger = logging.logger("dashboard")
        let dashboard: Dashboard
        var services: [any Service] = []
        if demo {
            let fleet = DemoFleet(logger: logger)
            dashboard = try fleet.dashboard()
            services.append(fleet)
        } else {
            dashboard = try Dashboard(
                try sources(), store: history.place, access: try access(logger), isReadOnly: readOnly, logger: logger)
        }
        let router = Router(context: DashboardRequestContext.self)
        let path = prefix.split(separator: "/").joined(separator: "/")
        if path.isEmpty { dashboard.add(to: router) } else { dashboard.add(to: router.group(RouterPath(path))) }
        let server = Application(
            router: router,
            configuration: ApplicationConfiguration(address: .hostname(host, port: port), serverName: "hoist"),
            onServerRunning: { [host = host.contains(":") ? "[\(host)]" : host] channel in
                // A person looks for this line, whatever the level of the log.
                print("dashboard: http://\(host):\(channel.localAddress?.port ?? 0)/\(path)")
                FleetPrinting.flush()
            }, logger: logger)
        try await SignalledServices.run(services + [dashboard, server], logger: logger) {}
    }

    private var isLoopback: Bool { ["127.0.0.1", "::1", "localhost"].contains(host) }

    /// Who has users has everybody log in.
    private func access(_ logger: Logger) throws -> DashboardAccess {
        let users: DashboardUsers?
        do {
            users = try history.users
        } catch {
            // Alone on this machine a view without history is better than none.
            guard isLoopback, !trustProxy else { throw error }
            return .loopbackOnly(hosts: Set(allowHost))
        }
        guard let users, try !users.all().isEmpty else {
            guard isLoopback, !trustProxy else {
                throw ValidationError(
                    "\(trustProxy ? "--trust-proxy" : "--host " + TerminalText.line(host)): others could see and do "
                        + "everything. Add a user first: hoist dashboard user add NAME --role admin"
                        + (history.path.map { " --store \(TerminalText.line($0))" } ?? " (in a --store that is a file)")
                        + ". Or forward the port: ssh -L 5580:127.0.0.1:5580 HOST")
            }
            return .loopbackOnly(hosts: Set(allowHost))
        }
        if !isLoopback, !trustProxy {
            logger.warning("passwords travel as they are: put a proxy with TLS before the dashboard")
        }
        return .users(trustsProxy: trustProxy)
    }

    /// The backends by name.
    private func sources() throws -> [DashboardBackend] {
        let urls = backend.isEmpty ? [BackendOptions.environmentURL] : backend
        let results = results ?? CommandEnvironment.text("results")
        return try urls.map { text in
            let (name, url) = Self.split(text)
            try Backends.mustExist(url)
            if let results { try Backends.mustExist(results) }
            return DashboardBackend(name, try Backends.open(url, results: Backends.keepsResults(url) ? nil : results))
        }
    }

    /// - Parameter text: `URL` or `NAME=URL`.
    static func split(_ text: String) -> (name: String, url: String) {
        // A URL may hold = itself, behind its scheme.
        if let equals = text.firstIndex(of: "="), equals > text.startIndex,
            text[..<equals].allSatisfy({ $0.isLetter || $0.isNumber || $0 == "-" || $0 == "_" || $0 == "." })
        {
            return (String(text[..<equals]), String(text[text.index(after: equals)...]))
        }
        return (name(of: text), text)
    }

    /// What a URL leads to, without its scheme, credentials and options: `db-1:6379/0`, `jobs.db`.
    private static func name(of url: String) -> String {
        let scheme = url.prefix { $0 != ":" }
        var rest = url.dropFirst(scheme.count + 1).prefix { $0 != "?" }
        while rest.hasPrefix("/") { rest = rest.dropFirst() }
        if let at = rest.lastIndex(of: "@") { rest = rest[rest.index(after: at)...] }
        return rest.isEmpty ? String(scheme) : String(rest)
    }
}

/// Where the history, the users and the tokens of a dashboard lie.
struct HistoryOptions: ParsableArguments {
    @Option(
        name: .long, help: "Where the history is kept: a file, or memory: (default: ~/.local/state/hoist/history.db).")
    var store: String?

    /// Nil for memory.
    var path: String? {
        if let store { return store == "memory:" ? nil : store }
        let environment = ConfigReader(provider: EnvironmentVariablesProvider())
        let home = environment.string(forKey: "home", default: ".")
        return environment.string(forKey: "xdg.state.home", default: home + "/.local/state") + "/hoist/history.db"
    }

    var place: DashboardStore { path.map { .file($0) } ?? .memory }

    /// Nil for memory, which has none.
    var users: DashboardUsers? {
        get throws { try path.map { try DashboardUsers(path: $0) } }
    }

    /// - Throws: `ValidationError` for memory, which keeps no users.
    var keptUsers: DashboardUsers {
        get throws {
            guard let users = try users else { throw ValidationError("--store memory: keeps no users; name a file") }
            return users
        }
    }
}
