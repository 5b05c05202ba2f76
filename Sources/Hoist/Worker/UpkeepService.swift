public import Logging
public import ServiceLifecycle

/// Keeps a backend in order also while no worker is running, and keeps time for the schedules that were put at run time: see
/// ``Upkeep``. Any number may run at once.
public struct UpkeepService: Service {
    private let backend: Backend
    private let interval: Duration
    private let logger: Logger

    /// - Parameters:
    ///   - backend: the backend.
    ///   - interval: how often it is put in order. 2 seconds by default.
    ///   - logger: for errors; the work is tried again after the next interval.
    public init(_ backend: some BackendConvertible, interval: Duration = .seconds(2), logger: Logger) {
        self.backend = backend.backend
        self.interval = interval
        self.logger = logger
    }

    /// Works until it is shut down or its task is cancelled.
    /// - Throws: ``BackendError`` `.misuse` when the backend needs no upkeep from outside. What fails later is logged
    ///   and tried again.
    public func run() async throws {
        guard let upkeep = backend.upkeep else {
            throw BackendError(.misuse, "this backend keeps itself in order")
        }
        let stop = Doorbell()
        let mark = stop.mark
        let ticker = Timekeeper(backend, [], app: "", revision: 0, client: JobClient.Configuration(), logger: logger)
            .ticker(named: ProcessIdentity.name)
        let thread = ScheduleTicker.makeThread()
        defer { thread.close() }
        await withGracefulShutdownHandler {
            await withDiscardingTaskGroup { group in
                if let ticker { group.addTask(executorPreference: thread) { await ticker.run() } }
                while stop.mark == mark, !Task.isCancelled {
                    do {
                        try await upkeep.tick(every: interval)
                    } catch {
                        logger.warning(
                            "the backend could not be put in order; it is tried again", metadata: ["error": "\(error)"]
                        )
                    }
                    await stop.wait(after: mark, for: interval, clock: backend.clock)
                }
                group.cancelAll()
            }
        } onGracefulShutdown: {
            stop.ring()
        }
    }
}
