public import ArgumentParser
import Configuration
import Hoist
import HoistDashboard
import Hummingbird
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
            It answers requests from this machine alone. To reach one elsewhere, forward its port by ssh:
              ssh -L 5580:127.0.0.1:5580 HOST
            """)

    @Option(
        name: .long,
        help: "A backend, URL or NAME=URL; may be repeated (default: $HOIST_BACKEND, else sqlite:hoist.db).")
    var backend: [String] = []
    @Option(name: .long, help: "The port.") var port = 5580
    @Option(name: .long, help: "Where to listen: an address of this machine's loopback.") var host = "127.0.0.1"
    @Option(name: .long, help: "A further name under which programs of this machine reach it; may be repeated.")
    var allowHost: [String] = []
    @Option(
        name: .long, help: "Where the history is kept: a file, or memory: (default: ~/.local/state/hoist/history.db).")
    var store: String?
    @Option(name: .long, help: "Serve below this path, such as /hoist.") var prefix = ""
    @Flag(name: .long, help: "Show everything, and let nothing be done.") var readOnly = false
    @Flag(name: .long, help: "Show a made-up fleet, with no backend.") var demo = false
    @OptionGroup var logging: LogOptions

    public init() {}

    public func validate() throws {
        guard ["127.0.0.1", "::1", "localhost"].contains(host) else {
            throw ValidationError(
                "--host \(TerminalText.line(host)): the dashboard has no logins yet, so it listens on this machine's "
                    + "loopback alone: 127.0.0.1 or ::1. Forward its port: ssh -L 5580:127.0.0.1:5580 HOST")
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
                try sources(), store: place, access: .loopbackOnly(hosts: Set(allowHost)), isReadOnly: readOnly,
                logger: logger)
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

    /// The backends by name.
    private func sources() throws -> [DashboardBackend] {
        let urls = backend.isEmpty ? [BackendOptions().url] : backend
        return try urls.map { text in
            let (name, url) = Self.split(text)
            return DashboardBackend(name, try Backends.open(url))
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

    private var place: DashboardStore {
        if let store { return store == "memory:" ? .memory : .file(store) }
        let environment = ConfigReader(provider: EnvironmentVariablesProvider())
        let home = environment.string(forKey: "home", default: ".")
        let state = environment.string(forKey: "xdg.state.home", default: home + "/.local/state")
        return .file(state + "/hoist/history.db")
    }
}
