public import ArgumentParser
public import Hoist
import HoistProbes
public import Logging
import PrometheusText
public import ServiceLifecycle

/// What a program provides to get ready-made commands.
///
/// ```swift
/// enum App: ServiceApp { … }
///
/// @main struct Main: AsyncParsableCommand {
///     static let configuration = CommandConfiguration(subcommands: [WorkerCommand<App>.self, ServeCommand<App>.self])
/// }
/// ```
public protocol ServiceApp: SendableMetatype {
    /// Options of the program's own, for both commands.
    associatedtype Options: ParsableArguments = NoOptions

    /// The worker that `worker` runs.
    /// - Throws: Any error of the program's own, for instance for wrong options. It ends the command before a job is
    ///   taken, so a retry is safe.
    static func makeWorker(
        _ backend: Backend, queues: [QueueSubscription]?, configuration: Worker.Configuration, options: Options,
        logger: Logger
    ) throws -> Worker

    /// The services that `serve` runs, the web server last.
    /// - Throws: Any error of the program's own, for instance for wrong options. It ends the command before a service
    ///   runs, so a retry is safe.
    static func makeServices(
        _ backend: Backend, address: ServeAddress, options: Options, logger: Logger
    ) async throws -> [any Service]
}

public struct NoOptions: ParsableArguments {
    public init() {}
}

/// Where a server listens.
public struct ServeAddress: Sendable, Hashable {
    public var host: String
    public var port: Int
}

/// `worker`: takes jobs until it is told to stop.
public struct WorkerCommand<App: ServiceApp>: AsyncParsableCommand {
    public static var configuration: CommandConfiguration {
        CommandConfiguration(
            commandName: "worker", abstract: "Take jobs from queues and perform them.",
            discussion: "SIGTERM or SIGINT drains the worker; a second one hands unfinished jobs back at once.")
    }

    @OptionGroup public var worker: WorkerOptions<App>

    public init() {}

    public mutating func run() async throws {
        ParentWatch.begin()
        let logger = worker.logging.logger("worker")
        let subscriptions = try worker.queue.map(Self.subscription)
        var configuration = Worker.Configuration(
            drainTimeout: .seconds(self.worker.drain), isBurst: self.worker.burst, events: self.worker.events,
            control: self.worker.control)
        let metrics = PrometheusFactory()
        // A child of the process lane answers nobody.
        let address = WorkerChild.backend == nil ? try self.worker.probeAddress : nil
        if address != nil { configuration.metrics = metrics }
        // A child of the process lane uses the backend of its worker and opens none.
        let worker = try App.makeWorker(
            try WorkerChild.backend ?? self.worker.backend.open(), queues: subscriptions.isEmpty ? nil : subscriptions,
            configuration: configuration, options: self.worker.options, logger: logger)
        // First, for what begins first ends last: probes are answered while the worker drains.
        let probes = address.map { WorkerProbes(worker, at: $0, metrics: metrics, logger: logger) }
        try await SignalledServices.run((probes.map { [$0] } ?? []) + [worker], logger: logger) {
            worker.stop(.immediately)
        }
    }

    static func subscription(_ text: String) throws -> QueueSubscription {
        // A name may hold colons itself: only a number behind the last one is a limit.
        var (name, limit): (Substring, Int?) = (text[...], nil)
        if let colon = text.lastIndex(of: ":"), let number = Int(text[text.index(after: colon)...]) {
            (name, limit) = (text[..<colon], number)
        }
        guard !name.isEmpty, limit ?? 1 >= 1 else {
            throw ValidationError("--queue takes NAME or NAME:CONCURRENCY, not \(TerminalText.line(text))")
        }
        return QueueSubscription(String(name), concurrency: limit)
    }
}

/// The command line options of a worker.
public struct WorkerOptions<App: ServiceApp>: ParsableArguments {
    @OptionGroup public var backend: BackendOptions
    @Option(
        name: .long, help: "A queue to consume, NAME or NAME:CONCURRENCY; may be repeated (default: the program's own)."
    )
    public var queue: [String] = []
    @Option(name: .long, help: "Seconds to wait for running jobs at a stop.") public var drain: Int = 25
    @Flag(name: .long, help: "End when the queues are empty.") public var burst = false
    @Option(name: .long, help: "When events of jobs are sent to monitors: when-asked, always or never.")
    public var events: Worker.EventMode = .whenAsked
    @Option(name: .long, help: "Which requests from outside are obeyed: all, inspect (those that look) or none.")
    public var control: ControlMode = .all
    @Option(
        name: .long,
        help: "Answer probes here: HOST:PORT, or the path of a Unix socket. /live, /ready, /metrics (default: nowhere)."
    )
    public var health: String?
    @OptionGroup public var logging: LogOptions
    @OptionGroup public var options: App.Options

    public init() {}

    /// Where probes are answered; nil for nowhere.
    /// - Throws: `ValidationError` for what is no address.
    var probeAddress: WorkerProbes.Address? {
        get throws {
            guard let health else { return nil }
            guard let address = WorkerProbes.Address(health) else {
                throw ValidationError(
                    "--health takes HOST:PORT or the path of a socket, not \(TerminalText.line(health))")
            }
            return address
        }
    }
}

extension Worker.EventMode: ExpressibleByArgument {}
extension ControlMode: ExpressibleByArgument {}

/// `serve`: runs the program's server.
public struct ServeCommand<App: ServiceApp>: AsyncParsableCommand {
    public static var configuration: CommandConfiguration {
        CommandConfiguration(commandName: "serve", abstract: "Run the web server.")
    }

    @OptionGroup public var backend: BackendOptions
    @Option(name: .long, help: "The address to listen on.") public var host = "127.0.0.1"
    @Option(name: .long, help: "The port to listen on.") public var port = 8080
    @OptionGroup public var logging: LogOptions
    @OptionGroup public var options: App.Options

    public init() {}

    public mutating func run() async throws {
        let logger = logging.logger("server")
        let services = try await App.makeServices(
            try backend.open(), address: ServeAddress(host: host, port: port), options: options, logger: logger)
        try await SignalledServices.run(services, logger: logger) {}
    }
}

public struct LogOptions: ParsableArguments {
    @Option(name: .long, help: "trace, debug, info, notice, warning, error or critical.") public var logLevel = "info"

    public init() {}

    public func logger(_ label: String) -> Logger {
        var logger = Logger(label: label, factory: { StreamLogHandler.standardError(label: $0) })
        logger.logLevel = Logger.Level(rawValue: logLevel) ?? .info
        return logger
    }
}
