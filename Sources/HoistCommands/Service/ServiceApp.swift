public import ArgumentParser
public import Hoist
public import ServiceLifecycle

/// What a program provides to get ready-made commands.
///
/// ```swift
/// enum App: ServiceApp {
///     static func makeWorker(_ setup: inout WorkerSetup<NoOptions>) async throws -> Worker {
///         setup.worker(queues: ["media"], lanes: [.process(2)]) { Handler(ProcessVideo.self, in: .process) { … } }
///     }
///     static func makeServices(_ setup: ServerSetup<NoOptions>) async throws -> [any Service] { … }
/// }
///
/// @main struct Main: AsyncParsableCommand {
///     static let configuration = CommandConfiguration(subcommands: [WorkerCommand<App>.self, ServeCommand<App>.self])
/// }
/// ```
/// A program that only serves, or only works, leaves the other function out: its command says so and ends.
public protocol ServiceApp: SendableMetatype {
    /// Options of the program's own, for every command.
    associatedtype Options: ParsableArguments = NoOptions

    /// Runs first in each process that serves or works, before a logger, a backend or a worker is made: the place to bootstrap logging,
    /// metrics and tracing. Also runs in the children of the process lane. Does nothing by default.
    /// - Throws: Any error of the program's own. It ends the command before a job is taken, so a retry is safe.
    static func prepare(_ options: Options) async throws

    /// The worker that `worker`, `up` and `dev` run. Make it by
    /// ``WorkerSetup/worker(queues:lanes:handlers:schedules:)``, which obeys the command line.
    /// - Throws: Any error of the program's own, for instance for wrong options. It ends the command before a job is
    ///   taken, so a retry is safe.
    static func makeWorker(_ setup: inout WorkerSetup<Options>) async throws -> Worker

    /// The services that `serve` and `dev` run, the web server last: they start in this order and stop in the reverse.
    /// - Throws: Any error of the program's own, for instance for wrong options. It ends the command before a service
    ///   runs, so a retry is safe.
    static func makeServices(_ setup: ServerSetup<Options>) async throws -> [any Service]
}

extension ServiceApp {
    public static func prepare(_ options: Options) async throws {}

    public static func makeWorker(_ setup: inout WorkerSetup<Options>) async throws -> Worker {
        throw CommandFailure("this program has no worker")
    }

    public static func makeServices(_ setup: ServerSetup<Options>) async throws -> [any Service] {
        throw CommandFailure("this program has no server")
    }
}

public struct NoOptions: ParsableArguments {
    public init() {}
}
