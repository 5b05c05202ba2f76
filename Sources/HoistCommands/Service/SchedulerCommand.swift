public import ArgumentParser
import Hoist
import Logging
import ServiceLifecycle

/// `scheduler`: keeps time for a backend, also while no worker is running.
public struct SchedulerCommand: AsyncParsableCommand {
    public static let configuration = CommandConfiguration(
        commandName: "scheduler", abstract: "Keep time for the queues, also while no worker is running.",
        discussion: """
            Ends jobs that were not started in time, gives the jobs of dead workers back, and removes records whose time has passed. Workers do \
            the same beside their work, so this is for backends that are without workers for long. Any number may run at once.
            """)

    @OptionGroup public var backend: BackendOptions
    @OptionGroup public var logging: LogOptions

    public init() {}

    public mutating func run() async throws {
        let logger = logging.logger("scheduler")
        try await SignalledServices.run([Housekeeper(try backend.open(), logger: logger)], logger: logger) {}
    }
}
