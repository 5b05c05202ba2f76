public import ArgumentParser

/// The `hoist` tool: looks into any backend and puts things right by hand.
public struct HoistCommand: AsyncParsableCommand {
    public static let configuration = CommandConfiguration(
        commandName: "hoist",
        abstract: "Look into a job queue and put things right.",
        discussion: "Every command takes --backend URL, or the environment's HOIST_BACKEND, and --json.",
        subcommands: [
            StatusCommand.self, QueuesCommand.self, WorkersCommand.self, JobsCommand.self, JobCommand.self,
            LogCommand.self,
            EnqueueCommand.self,
            CancelCommand.self, DeadCommand.self, PurgeCommand.self, PauseCommand.self, ResumeCommand.self,
            LimitsCommand.self, LimitCommand.self,
        ])

    public init() {}
}

/// What all inspecting commands take.
struct InspectionOptions: ParsableArguments {
    @OptionGroup var backend: BackendOptions
    @Flag(name: .long, help: "Print JSON.") var json = false
}

extension JobStateArgument: ExpressibleByArgument {}

/// The states as words on the command line.
enum JobStateArgument: String, CaseIterable {
    case waiting, scheduled, retrying, running, succeeded, failed, cancelled, expired
}
