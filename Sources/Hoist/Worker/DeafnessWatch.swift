#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Notices when the worker takes nothing though it has room and jobs that it knows wait: it lives, and hears nothing.
/// It looks only as long as somebody asks for the worker's health.
struct DeafnessWatch: Sendable {
    let engine: WorkerEngine
    let backend: Backend

    /// What the worker says of what it takes.
    struct Intake: Sendable {
        /// How many jobs it has taken since it started.
        var accepted: UInt64
        var hasRoom: Bool
        var queues: Set<String>
        var names: Set<String>
    }

    private static let interval = Duration.seconds(10)
    private static let patience: Int64 = 30_000_000

    func run() async {
        guard let directory = backend.directory else { return }
        let clock = backend.clock
        var (accepted, since) = (UInt64.max, clock.uptime)
        while !Task.isCancelled {
            await clock.sleep(for: Self.interval)
            let intake = await engine.intake
            let isAsked = SystemJobClock().uptime - engine.inbox.healthAskedAt < 60_000_000
            if intake.accepted != accepted || !intake.hasRoom || !isAsked {
                (accepted, since) = (intake.accepted, clock.uptime)
                await engine.noteDeafness(false)
            } else if clock.uptime - since >= Self.patience {
                let waits = try? await withDeadline(.seconds(5), clock: SystemJobClock()) {
                    try await isMissing(intake, directory)
                }
                if let waits { await engine.noteDeafness(waits) }
            }
        }
    }

    /// Whether a job waits that this worker knows, and that nothing else holds up.
    private func isMissing(_ intake: Intake, _ directory: any JobDirectory) async throws -> Bool {
        let waiting = try await directory.queues().filter { $0.waiting > 0 && intake.queues.contains($0.name) }
        guard !waiting.isEmpty else { return false }
        let paused = try await backend.queueControl?.pausedQueues() ?? []
        let limits = try await backend.limits?.limits() ?? [:]
        let free = Set(waiting.map(\.name)).subtracting(paused).filter { limits[.queue($0)] == nil }
        guard !free.isEmpty else { return false }
        return try await directory.counts().contains { count in
            count.state == .waiting && count.count > 0 && free.contains(count.queue)
                && intake.names.contains(count.name)
                && limits[.job(count.name)] == nil
        }
    }
}
