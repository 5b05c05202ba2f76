public import ArgumentParser
public import Hoist
public import Logging
import ServiceLifecycle

/// `serve`: runs the program's server.
public struct ServeCommand<App: ServiceApp>: AsyncParsableCommand {
    public static var configuration: CommandConfiguration {
        CommandConfiguration(commandName: "serve", abstract: "Run the web server.")
    }

    @OptionGroup public var backend: BackendOptions
    @OptionGroup public var listening: ListenOptions
    @OptionGroup public var logging: LogOptions
    @OptionGroup public var options: App.Options

    public init() {}

    public mutating func run() async throws {
        ParentWatch.begin()
        try await HopelessStart.mapped { [self] in try await serve() }
    }

    private func serve() async throws {
        try await App.prepare(options)
        let logger = logging.logger("server")
        let backend = try backend.open()
        let setup = ServerSetup(backend: backend, address: try listening.address, options: options, logger: logger)
        let services = try await App.makeServices(setup)
        try await SignalledServices.run([BackendGreeting(backend, logger)] + services, logger: logger) {}
    }
}

/// Where a server listens, on the command line.
public struct ListenOptions: ParsableArguments {
    @Option(name: .long, help: "The address to listen on (default: $HOIST_HOST, else 127.0.0.1).")
    public var host: String?
    @Option(name: .long, help: "The port to listen on (default: $HOIST_PORT, else 8080).")
    public var port: Int?

    public init() {}

    public func validate() throws { _ = try address }

    /// - Throws: `ValidationError` for what is no port.
    var address: ServeAddress {
        get throws {
            let port = try port ?? CommandEnvironment.number("port") ?? 8080
            guard (0...65_535).contains(port) else {
                throw ValidationError("\(self.port == nil ? "$HOIST_PORT" : "--port") takes 0 to 65535")
            }
            return ServeAddress(host: host ?? CommandEnvironment.text("host") ?? "127.0.0.1", port: port)
        }
    }
}

/// What a program makes its server of, see ``ServiceApp/makeServices(_:)``.
public struct ServerSetup<Options: ParsableArguments> {
    /// Where jobs are enqueued and looked up.
    public let backend: Backend
    public let address: ServeAddress
    /// The program's own options.
    public let options: Options
    public let logger: Logger
}

/// Where a server listens.
public struct ServeAddress: Sendable, Hashable {
    public var host: String
    public var port: Int
}

/// Says once, at the start of a server, which backend it uses and whether that answers. The server starts in any case.
private struct BackendGreeting: Service {
    let backend: Backend
    let logger: Logger

    init(_ backend: Backend, _ logger: Logger) { (self.backend, self.logger) = (backend, logger) }

    func run() async throws {
        await cancelWhenGracefulShutdown { await greet() }
        try? await gracefulShutdown()
    }

    private func greet() async {
        let place = backend.broker.address.url
        do {
            _ = try await backend.queues()
            logger.info("the backend answers", metadata: ["backend": "\(place)"])
        } catch {
            logger.warning(
                "the backend does not answer: requests that need it get an error until it does",
                metadata: ["backend": "\(place)", "error": "\(error)"])
        }
    }
}
