public import ArgumentParser
import Hoist
import Logging
import ServiceLifecycle

/// `upkeep`: keeps a backend in order, also while no worker is running.
public struct UpkeepCommand: AsyncParsableCommand {
    public static let configuration = CommandConfiguration(
        commandName: "upkeep", abstract: "Keep the queues in order, also while no worker is running.",
        discussion: """
            Ends jobs that were not started in time, gives the jobs of dead workers back, and removes records whose time has passed. Workers do \
            the same beside their work, so this is for backends that are without workers for long. Any number may run at once.
            """)

    @OptionGroup public var backend: BackendOptions
    @OptionGroup public var logging: LogOptions

    public init() {}

    public mutating func run() async throws {
        let logger = logging.logger("upkeep")
        let backend = try backend.openExisting()
        logger.info("upkeep started", metadata: ["backend": "\(backend.broker.address.url)"])
        try await SignalledServices.run([UpkeepService(backend, logger: logger)], logger: logger) {}
    }
}
