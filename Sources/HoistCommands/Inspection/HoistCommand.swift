public import ArgumentParser
import Hoist

/// The `hoist` tool: inspects any backend and changes its jobs and queues by hand.
public struct HoistCommand: AsyncParsableCommand {
    public static let configuration = CommandConfiguration(
        commandName: "hoist",
        abstract: "Look into a job queue and put things right.",
        discussion: """
            Every command takes --backend URL, or the environment's HOIST_BACKEND, and --json. `hoist schedule next` needs no backend. The \
            exit status is 0 when it is done, 1 when something is not there or refuses, 64 for wrong usage, 69 when nobody answers.
            """,
        version: HoistVersion.current,
        subcommands: [
            StatusCommand.self, QueuesCommand.self, WorkersCommand.self, JobsCommand.self, JobCommand.self,
            LogCommand.self,
            EnqueueCommand.self,
            CancelCommand.self, DeadCommand.self, PurgeCommand.self, PauseCommand.self, ResumeCommand.self,
            LimitsCommand.self, LimitCommand.self, InspectCommand.self, ControlCommand.self, EventsCommand.self,
            WhyCommand.self, TopCommand.self, DashboardCommand.self, ScheduleCommand.self,
            WorkflowCommand.self, UpkeepCommand.self,
        ])

    public init() {}
}

/// The options of every inspection command.
struct InspectionOptions: ParsableArguments {
    @OptionGroup var backend: BackendOptions
    @Flag(name: .long, help: "Print JSON.") var json = false

    /// - Throws: ``CommandFailure`` for a SQLite file that does not exist, else as ``Backends/open(_:results:)``.
    func open() throws -> Backend { try backend.openExisting() }
}

extension JobStateArgument: ExpressibleByArgument {}

/// The job states as arguments on the command line.
enum JobStateArgument: String, CaseIterable {
    case waiting, scheduled, retrying, running, succeeded, failed, cancelled, expired
}
