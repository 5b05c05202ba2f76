import Logging
import ServiceLifecycle
import UnixSignals

/// Runs services until they end or a signal comes: the first shuts down gracefully, the second is harder, a third ends
/// the process.
enum SignalledServices {
    static func run(_ services: [any Service], logger: Logger, onSecondSignal: @escaping @Sendable () -> Void)
        async throws
    {
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
                    // systemd signals all processes of a service, and `up` hands on the signal that it got: that is
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
