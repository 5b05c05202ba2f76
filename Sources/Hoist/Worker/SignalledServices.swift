package import Logging
package import ServiceLifecycle
import UnixSignals

/// Runs services until they end or SIGTERM or SIGINT arrives. The first signal shuts down gracefully, the second calls
/// `onSecondSignal`, and a third cancels the services.
package enum SignalledServices {
    package static func run(
        _ services: [any Service], logger: Logger, onSecondSignal: @escaping @Sendable () -> Void
    ) async throws {
        let configuration = ServiceGroupConfiguration(
            services: services.map {
                .init(service: $0, successTerminationBehavior: .gracefullyShutdownGroup)
            }, logger: logger)
        let group = ServiceGroup(configuration: configuration)
        let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
        try await withThrowingTaskGroup(of: Bool.self) { tasks in
            tasks.addTask {
                try await group.run()
                return true
            }
            tasks.addTask {
                var count = 0
                var first = ContinuousClock.now
                for await _ in signals {
                    // A worker of `up` gets the same signal twice: from systemd, which signals every process of a
                    // service, and from `up`, which forwards it. Signals within half a second of the first count as
                    // one.
                    if count == 1, .now - first < .milliseconds(500) { continue }
                    if count == 0 { first = .now }
                    count += 1
                    switch count {
                    case 1: await group.triggerGracefulShutdown()
                    case 2: onSecondSignal()
                    default: return true
                    }
                }
                return false
            }
            while let isOver = try await tasks.next(), !isOver {}
            tasks.cancelAll()
        }
    }
}
