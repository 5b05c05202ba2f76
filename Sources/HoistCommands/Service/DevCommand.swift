public import ArgumentParser
import Hoist
import Logging
import ServiceLifecycle

/// `dev`: server and worker in one process, for development. The process is started again when it crashes.
public struct DevCommand<App: ServiceApp>: AsyncParsableCommand {
    public static var configuration: CommandConfiguration {
        CommandConfiguration(
            commandName: "dev", abstract: "Run server and worker in one process, and start it again when it crashes.",
            discussion: """
                For development: with --backend memory: nothing is left behind, and jobs are gone after a crash. In production, serve and \
                worker are processes of their own.
                """)
    }

    @OptionGroup public var listening: ListenOptions
    @OptionGroup public var worker: WorkerOptions<App>

    public init() {}

    /// The variable of the process that does the work.
    private static var variable: String { "HOIST_DEV_INSIDE" }

    public mutating func run() async throws {
        if Executable.environment.contains(Self.variable + "=1") {
            return try await HopelessStart.mapped { [self] in try await runRoles() }
        }
        let logger = worker.logging.logger("dev")
        let supervisor = Supervisor(
            Supervisor.Settings(
                program: { _ in
                    SpawnedProcess.Program(
                        path: Executable.path, arguments: Array(CommandLine.arguments.dropFirst()),
                        environment: Executable.environment + [ParentWatch.environment, Self.variable + "=1"])
                },
                workers: 1, areWorkersDoneAtEnd: true, endsWithFailedStart: true, output: .inherited,
                longestDelay: .seconds(2)),
            name: { _ in "the program" }, logger: logger)
        try await SignalledServices.run([supervisor], logger: logger) { supervisor.stop() }
    }

    private func runRoles() async throws {
        ParentWatch.begin()
        try await App.prepare(worker.options)
        let logger = worker.logging.logger("dev")
        let backend = try WorkerChild.backend ?? worker.backend.open()
        var role = try await WorkerRole.make(worker, backend, logger)
        // A child of the process lane has no server.
        if !WorkerChild.isChild {
            role.services += try await App.makeServices(
                ServerSetup(
                    backend: backend, address: try listening.address, options: worker.options, logger: logger))
        }
        try await SignalledServices.run(role.services, logger: logger) { [worker = role.worker] in
            worker.stop(.immediately)
        }
    }
}
