import Logging

/// What a program does for schedules: stores those that it declares, and keeps time.
struct Timekeeper: Sendable {
    private let backend: Backend
    private let declared: [Schedule]
    private let origin: ScheduleState.Origin
    private let messages: ScheduleMessages
    private let logger: Logger

    init(
        _ backend: Backend, _ declared: [Schedule], app: String, revision: Int, client: JobClient.Configuration,
        logger: Logger
    ) {
        self.backend = backend
        self.declared = declared
        origin = .init(app: app, revision: revision)
        self.logger = logger
        var makers: [String: @Sendable (Tick) throws -> Schedule.Blueprint] = [:]
        for schedule in declared { if case .made(_, let make) = schedule.action { makers[schedule.id] = make } }
        messages = ScheduleMessages(client: JobClient(backend, configuration: client, logger: logger), makers: makers)
    }

    /// Stores the declared schedules. A backend that is away is waited for.
    /// - Returns: false when the worker is to stop meanwhile.
    /// - Throws: ``ScheduleError`` when a schedule makes no sense or is somebody else's, ``BackendError`` `.misuse` where the
    ///   backend keeps no schedules, `EncodingError` and ``WireError`` when a job does not encode.
    func declare(unless inbox: WorkerInbox) async throws -> Bool {
        guard !declared.isEmpty else { return true }
        guard !origin.app.isEmpty else {
            throw ScheduleError(schedule: declared[0].id, message: "Configuration.app, the name of its owner, is empty")
        }
        var failures = 0
        while true {
            let mark = inbox.stopBell.mark
            if inbox.isStopping { return false }
            do {
                try await messages.client.schedules.declare(declared, by: origin, messages: messages)
                return true
            } catch let error as BackendError where error.code != .misuse {
                failures += 1
                if failures == 1 {
                    logger.warning(
                        "the schedules cannot be stored yet; this is tried again", metadata: ["error": "\(error)"])
                }
                let pause = Duration.milliseconds(min(5000, 100 << min(failures, 6)))
                await inbox.stopBell.wait(after: mark, for: pause, clock: backend.clock)
            }
        }
    }

    /// - Parameter name: who ticks, for the history.
    /// - Returns: nil where the backend keeps no schedules.
    func ticker(named name: String) -> ScheduleTicker? {
        guard let keeping = backend.schedules else { return nil }
        return ScheduleTicker(
            backend: backend, keeping: keeping, messages: messages, app: declared.isEmpty ? nil : origin.app,
            declared: Set(declared.map(\.id)), name: name, logger: logger)
    }
}
