/// Notices when the worker takes nothing though it has room and jobs that it knows wait: it lives, and hears nothing. It
/// looks only as long as somebody asks for the worker's health.
struct DeafnessWatch: Sendable {
    let engine: WorkerEngine
    let backend: Backend

    /// What the worker says of what it takes.
    struct Intake: Sendable, Equatable {
        /// How many jobs it has taken since it started.
        var accepted: UInt64
        /// The names that it has room for, by queue.
        var takes: [String: Set<String>]
    }

    private static let interval = Duration.seconds(10)
    private static let patience: Int64 = 30_000_000
    /// So many jobs of a queue are looked at. Their messages may be large.
    private static let sample = 20

    func run() async {
        guard let directory = backend.directory else { return }
        let clock = backend.clock
        var (last, since) = (await engine.intake, clock.uptime)
        var hits = 0
        while !Task.isCancelled {
            await clock.sleep(for: Self.interval)
            let intake = await engine.intake
            let isAsked = SystemJobClock().uptime - engine.inbox.healthAskedAt < 60_000_000
            guard intake == last, isAsked else {
                (last, since, hits) = (intake, clock.uptime, 0)
                await engine.noteDeafness(false)
                continue
            }
            guard clock.uptime - since >= Self.patience else { continue }
            let waits = try? await withDeadline(.seconds(5), clock: SystemJobClock()) {
                try await isMissing(intake, directory)
            }
            guard let waits else { continue }
            // Twice, for what was seen once another worker may have taken a moment later.
            hits = waits ? hits + 1 : 0
            if hits != 1 { await engine.noteDeafness(hits > 1) }
        }
    }

    /// Whether a job waits that this worker has room for, and that nothing else holds up.
    private func isMissing(_ intake: Intake, _ directory: any JobDirectory) async throws -> Bool {
        for queue in try await directory.queues() {
            guard queue.waiting > 0, let names = intake.takes[queue.name], !names.isEmpty else { continue }
            let filter = JobFilter(states: [.waiting], queue: queue.name, limit: Self.sample)
            guard let job = try await directory.jobs(filter).first(where: { names.contains($0.name) }) else { continue }
            if try await backend.queueControl?.pausedQueues().contains(queue.name) ?? false { continue }
            // A limit, or a queue that is closed for a while, is a reason.
            guard let record = try await backend.record(of: job.id), record.state == .waiting else { continue }
            if record.waitingReason == nil || record.waitingReason == JobRecord.behindOthers { return true }
        }
        return false
    }
}
