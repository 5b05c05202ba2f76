public import ArgumentParser
public import Hoist
import HoistProbes

/// The command line options of a worker. Each that a deployment may want to set has an environment variable, which
/// counts where the option is not given.
public struct WorkerOptions<App: ServiceApp>: ParsableArguments {
    @OptionGroup public var backend: BackendOptions
    @Option(
        name: .long,
        help: """
            A queue to consume, NAME or NAME:CONCURRENCY; may be repeated (default: $HOIST_QUEUE, separated by commas, else the program's \
            own).
            """)
    public var queue: [String] = []
    @Option(
        name: .long,
        help: """
            How many jobs run at once: N in each lane, or LANE=N or LANE=MIN-MAX; may be repeated (default: $HOIST_CONCURRENCY, else the \
            program's own).
            """)
    public var concurrency: [String] = []
    @Option(
        name: .long,
        help: "The worker's name, NAME or NAME@HOST (default: $HOIST_NAME, else hoist-<process id>@<host>)."
    )
    public var name: String?
    @Option(
        name: .long,
        help: "What this worker has that others may not, separated by commas: gpu,eu (default: $HOIST_LABELS).")
    public var labels: String?
    @Option(
        name: .long, help: "Seconds to wait for running jobs at a stop (default: $HOIST_DRAIN, else the program's, 25)."
    )
    public var drain: Int?
    @Flag(name: .long, help: "End when the queues are empty.") public var burst = false
    @Option(name: .long, help: "When events of jobs are sent to monitors: when-asked, always or never.")
    public var events: Worker.EventMode?
    @Option(name: .long, help: "Which requests from outside are obeyed: all, inspect (those that look) or none.")
    public var control: ControlMode?
    @Option(
        name: .long,
        help: """
            Answer probes here: HOST:PORT, or the path of a Unix socket. /live, /ready, /metrics (default: $HOIST_HEALTH, else nowhere).
            """)
    public var health: String?
    @OptionGroup public var logging: LogOptions
    @OptionGroup public var options: App.Options

    public init() {}

    public func validate() throws {
        _ = try choices
        _ = try probeAddress
    }

    /// - Throws: `ValidationError` for an option, or a variable of the environment, that cannot be understood.
    var choices: WorkerChoices {
        get throws {
            var choices = WorkerChoices()
            let queues = queue.isEmpty ? ("$HOIST_QUEUE", CommandEnvironment.list("queue")) : ("--queue", queue)
            choices.queues = try queues.1.map { try WorkerChoices.subscription($0, of: queues.0) }
            let slots =
                concurrency.isEmpty
                ? ("$HOIST_CONCURRENCY", CommandEnvironment.list("concurrency")) : ("--concurrency", concurrency)
            choices.concurrency = try slots.1.map { try WorkerChoices.slots($0, of: slots.0) }
            choices.name = name ?? CommandEnvironment.text("name")
            choices.labels = (labels ?? CommandEnvironment.text("labels")).map { Set(CommandEnvironment.parts($0)) }
            choices.drain = try (drain ?? CommandEnvironment.number("drain")).map { seconds in
                guard seconds >= 0, seconds <= 1_000_000 else {
                    throw ValidationError("\(drain == nil ? "$HOIST_DRAIN" : "--drain") takes 0 to 1000000 seconds")
                }
                return .seconds(seconds)
            }
            choices.isBurst = burst
            choices.events = events
            choices.control = control
            return choices
        }
    }

    /// The options that only one worker can have, and that the environment sets for all.
    var isSetByEnvironment: [String] {
        [("name", name), ("health", health)].compactMap { option, value in
            value == nil && CommandEnvironment.text(option) != nil ? option : nil
        }
    }

    /// Where probes are answered; nil for nowhere.
    /// - Throws: `ValidationError` for what is no address.
    var probeAddress: WorkerProbes.Address? {
        get throws {
            guard let health = health ?? CommandEnvironment.text("health") else { return nil }
            guard let address = WorkerProbes.Address(health) else {
                throw ValidationError(
                    "\(self.health == nil ? "$HOIST_HEALTH" : "--health") takes HOST:PORT or the path of a socket, not "
                        + TerminalText.line(health))
            }
            return address
        }
    }
}

extension Worker.EventMode: ExpressibleByArgument {}
extension ControlMode: ExpressibleByArgument {}
