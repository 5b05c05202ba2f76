public import Logging
public import ServiceLifecycle

/// Keeps a backend in order, also while no worker is running: ends jobs that were not started in time, gives the jobs
/// of dead workers back, removes records whose time has passed. Any worker does the same beside its work; any number
/// may run at once.
public struct UpkeepService: Service {
    private let backend: any Backend
    private let interval: Duration
    private let logger: Logger

    /// - Parameters:
    ///   - backend: what is kept in order.
    ///   - interval: how often it looks. 2 seconds by default.
    ///   - logger: for what fails; it is tried again at the next look.
    public init(_ backend: any Backend, interval: Duration = .seconds(2), logger: Logger) {
        self.backend = backend
        self.interval = interval
        self.logger = logger
    }

    /// Works until it is shut down or its task is cancelled.
    public func run() async throws {
        let stop = Doorbell()
        let mark = stop.mark
        var presence = WorkerPresence(
            id: JobIdentifier.make(), name: "housekeeper \(ProcessIdentity.name)", queues: [], jobNames: [],
            startedAt: backend.clock.now)
        await withGracefulShutdownHandler {
            while stop.mark == mark, !Task.isCancelled {
                do {
                    // Whoever renews a lease looks after those that have passed.
                    if try await !backend.renew(presence, lease: interval * 5) { presence.id = JobIdentifier.make() }
                } catch {
                    logger.warning(
                        "the backend could not be kept in order; it is tried again", metadata: ["error": "\(error)"])
                }
                await stop.wait(after: mark, for: interval, clock: backend.clock)
            }
        } onGracefulShutdown: {
            stop.ring()
        }
        try await backend.resign(presence.id)
    }
}
