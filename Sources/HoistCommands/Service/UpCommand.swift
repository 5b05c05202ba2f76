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
        guard workers == 1 || worker.isSetByEnvironment.isEmpty else {
            throw ValidationError(
                "several workers cannot share $HOIST_\(worker.isSetByEnvironment[0].uppercased()): give the option to up, "
                    + "which gives each worker its own")
        }
    }

    public mutating func run() async throws {
        let logger = worker.logging.logger("up")
        let supervisor = Supervisor(
            Supervisor.Settings(
                program: { index in
                    SpawnedProcess.Program(
                        path: Executable.path,
                        arguments: Self.workerArguments(Array(CommandLine.arguments.dropFirst()), worker: index),
                        environment: Executable.environment + [ParentWatch.environment])
                }, workers: workers,
                areWorkersDoneAtEnd: worker.burst,
                output: logs.map { .folder($0) } ?? .labelled),
            logger: logger)
        try await SignalledServices.run([supervisor], logger: logger) { supervisor.stop() }
    }

    /// Turns the arguments of `up` into arguments of a `worker`: without the supervisor's own options, and with a name
    /// and an address for probes of its own.
    /// - Parameter worker: its number, from 1.
    static func workerArguments(_ arguments: [String], worker: Int) -> [String] {
        var result: [String] = []
        var isRenamed = false
        var skipsNext = false
        var pending: String?
        for argument in arguments {
            if skipsNext {
                skipsNext = false
            } else if let option = pending {
                pending = nil
                result.append(own(argument, of: option, worker))
            } else if ["--name", "--health"].contains(argument) {
                pending = argument
                result.append(argument)
            } else if let equals = argument.firstIndex(of: "="), ["--name", "--health"].contains(argument[..<equals]) {
                let value = String(argument[argument.index(after: equals)...])
                result.append(argument[...equals] + own(value, of: String(argument[..<equals]), worker))
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

    /// A name gets the number of the worker behind it, `media-2@host`; a port is counted up; a socket's path ends in the
    /// number.
    private static func own(_ value: String, of option: String, _ worker: Int) -> String {
        if option == "--name" {
            let parts = value.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
            return parts[0] + "-\(worker)" + (parts.count == 2 ? "@" + parts[1] : "")
        }
        if value.hasPrefix("/") { return value + "-\(worker)" }
        guard let colon = value.lastIndex(of: ":"), let port = Int(value[value.index(after: colon)...]), port > 0 else {
            return value
        }
        return value[...colon] + String(port + worker - 1)
    }
}
