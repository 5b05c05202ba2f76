public import ArgumentParser
import Hoist
import Logging
import ServiceLifecycle

/// `up`: runs several workers and restarts each worker that ends.
public struct UpCommand<App: ServiceApp>: AsyncParsableCommand {
    public static var configuration: CommandConfiguration {
        CommandConfiguration(
            commandName: "up", abstract: "Run several workers, and start those again that end.",
            discussion: """
                Takes every option of the command worker and hands it on. A worker that ends is started again after half a second, and later each \
                time while it dies young. SIGTERM or SIGINT drains the workers; a second one has them hand unfinished jobs back at once.
                """)
    }

    @Option(name: .long, help: "How many worker processes.") public var workers = ProcessIdentity.processorCount
    @Option(
        name: .long,
        help:
            "A folder for worker-1.log, worker-2.log …; without, lines go to standard error with the worker's name in front."
    )
    public var logs: String?
    @OptionGroup public var worker: WorkerOptions<App>

    public init() {}

    public func validate() throws {
        guard workers >= 1 else { throw ValidationError("--workers takes a number from 1") }
    }

    public mutating func run() async throws {
        let logger = worker.logging.logger("up")
        let supervisor = Supervisor(
            Supervisor.Settings(
                program: SpawnedProcess.Program(
                    path: Executable.path, arguments: Self.workerArguments(Array(CommandLine.arguments.dropFirst())),
                    environment: Executable.environment + [ParentWatch.environment]), workers: workers,
                areWorkersDoneAtEnd: worker.burst,
                logFolder: logs),
            logger: logger)
        try await SignalledServices.run([supervisor], logger: logger) { supervisor.stop() }
    }

    /// Turns the arguments of `up` into arguments of `worker`: without the supervisor's own options.
    static func workerArguments(_ arguments: [String]) -> [String] {
        var result: [String] = []
        var isRenamed = false
        var skipsNext = false
        for argument in arguments {
            if skipsNext {
                skipsNext = false
            } else if argument == "up", !isRenamed {
                isRenamed = true
                result.append("worker")
            } else if argument == "--workers" || argument == "--logs" {
                skipsNext = true
            } else if !argument.hasPrefix("--workers="), !argument.hasPrefix("--logs=") {
                result.append(argument)
            }
        }
        // `up` is not named where it is the program's default command.
        if !isRenamed { result.insert("worker", at: 0) }
        return result
    }
}
