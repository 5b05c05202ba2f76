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
        let refusals = history.filter { $0.outcome == Outcome.refusedLabel }
        let refusing = Set(refusals.compactMap(\.worker) + [worker])
        let mayKnow = workers.contains { other in
            !refusing.contains(other.name) && !other.isDraining && other.queues.contains(queue)
                && other.jobNames.contains(jobName)
        }
        guard mayKnow else { return .failed(failure) }
        let seconds = min(30, 1 << min(refusals.count, 5))
        return .refused(until: now.addingTimeInterval(Double(seconds)), failure)
    }
}

extension Execution {
    /// What becomes of the job, which this worker refuses for an argument that it does not know.
    func refused(_ failure: JobFailure) async -> Outcome {
        let backend = environment.jobs.backend
        // Without a history it cannot be told who has refused the job before: it would go round for ever.
        guard backend.broker.abilities.contains(.history), let workers = try? await backend.workers(),
            let record = try? await backend.record(of: jobID)
        else { return .failed(failure) }
        return RefusedArguments.outcome(
            failure, of: jobName, in: queue, history: record.history, workers: workers, worker: environment.worker,
            now: backend.clock.now)
    }
}
