#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// What becomes of a job whose message has an argument that the worker's version of the job does not know, as in a
/// deploy where producers come before workers: it waits for a worker that knows the argument, and is a dead letter once
/// every live worker of its queue has refused it.
///
/// Which workers have refused it is told by the job's history, so that no worker has to remember.
enum RefusedArguments {
    /// - Parameters:
    ///   - failure: what a dead letter would say.
    ///   - history: of the job.
    ///   - workers: those that live.
    ///   - worker: the name of the worker that refuses the job now.
    static func outcome(
        _ failure: JobFailure, of jobName: String, in queue: String, history: [AttemptRecord],
        workers: [WorkerPresence], worker: String, now: Date
    ) -> Outcome {
        // A dead letter that was given another life begins anew.
        let life = history.lastIndex { $0.outcome == Outcome.failedLabel }.map { history[($0 + 1)...] } ?? history[...]
        let refusals = life.filter { $0.outcome == Outcome.refusedLabel }
        // A worker that was started since, perhaps under the same name, may be of another version.
        func hasRefused(_ other: WorkerPresence) -> Bool {
            refusals.contains { $0.worker == other.name && $0.endedAt >= other.startedAt }
        }
        let mayKnow = workers.contains { other in
            other.name != worker && !hasRefused(other) && !other.isDraining && other.queues.contains(queue)
                && other.jobNames.contains(jobName)
        }
        guard mayKnow, refusals.count < most else { return .failed(failure) }
        // The worker leaves such jobs to others for a while, so that mostly one refusal of each worker is enough.
        let seconds = refusals.count < 8 ? 1 : 5
        return .refused(until: now.addingTimeInterval(Double(seconds)), failure)
    }

    /// How often a job is refused before it is a dead letter in any case.
    private static let most = 30
    /// How long a job waits when it cannot be found out now which workers there are.
    static let pause = 5.0
}

extension Execution {
    /// What becomes of the job, which this worker refuses for an argument that it does not know.
    func refused(_ failure: JobFailure, _ context: JobContext) async -> Outcome {
        let backend = environment.jobs.backend
        // Without a history it cannot be told who has refused the job before: it would go round for ever.
        guard backend.broker.abilities.contains(.history) else { return .failed(failure) }
        do {
            let workers = try await backend.workers()
            guard let record = try await backend.record(of: jobID) else { return .failed(failure) }
            return RefusedArguments.outcome(
                failure, of: jobName, in: queue, history: record.history, workers: workers,
                worker: environment.worker, now: backend.clock.now)
        } catch {
            switch context.cancellationReason {
            case .requested?: return .cancelled
            case .shutdown?, .leaseLost?: return .handedBack
            default:
                return .refused(until: backend.clock.now.addingTimeInterval(RefusedArguments.pause), failure)
            }
        }
    }
}
