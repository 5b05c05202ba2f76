import Synchronization

/// Tells the workers of this process of jobs that were given up, each job to one worker: one that knows its name, where
/// there is one.
package final class GivenUpJobs: Sendable {
    private struct Listener {
        var jobNames: Set<String>
        var sink: any SessionSink
    }

    private let listeners = Mutex<[WorkerID: Listener]>([:])

    package init() {}

    package func add(_ worker: WorkerPresence, _ sink: any SessionSink) {
        listeners.withLock { $0[worker.id] = Listener(jobNames: Set(worker.jobNames), sink: sink) }
    }

    package func remove(_ worker: WorkerID) { listeners.withLock { $0[worker] = nil } }

    package func tell(_ jobs: [GivenUpJob]) {
        guard !jobs.isEmpty else { return }
        let listeners = listeners.withLock { $0 }
        for job in jobs {
            // The lost worker may be one of this process, and not know of its loss yet.
            let others = listeners.filter { $0.key != job.lostWorker }.values
            let listener = others.first { $0.jobNames.contains(job.delivery.jobName) } ?? others.first
            listener?.sink.gaveUp([job])
        }
    }
}
