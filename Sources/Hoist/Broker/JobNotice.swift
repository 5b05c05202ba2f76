import Synchronization

/// What a broker has done with a job by itself, and not because a worker settled it.
public struct JobNotice: Sendable {
    public enum Kind: Sendable {
        /// The job became a dead letter, because the worker died that had the delivery.
        case gaveUp(Delivery, JobFailure)
        /// The job waits for another worker, because the one that had it died.
        case tookOver
        /// The job was cancelled and the worker that had it died.
        case cancelled
        /// The job was not started in time.
        case expired
    }

    public var kind: Kind
    public var jobID: JobID
    /// The wire name.
    public var jobName: String
    public var queue: String
    /// The number of the attempt, 1 for the first.
    public var attempt: Int
    /// The incarnation that died with the job; nil where none did.
    public var lostWorker: WorkerID?
    /// The name of that worker; nil where it is not known.
    public var lostWorkerName: String?

    public init(_ kind: Kind, jobID: JobID, jobName: String, queue: String, attempt: Int) {
        self.kind = kind
        self.jobID = jobID
        self.jobName = jobName
        self.queue = queue
        self.attempt = attempt
    }

    /// What became of a job whose worker died.
    /// - Parameters:
    ///   - delivery: the last delivery of the job.
    ///   - transition: what became of the job.
    ///   - worker: the incarnation that died.
    ///   - name: the name of the worker that died.
    package init?(_ delivery: Delivery, _ transition: Transition, lost worker: WorkerID, named name: String?) {
        let kind: Kind
        switch transition.move {
        case .back: kind = .tookOver
        case .end(.cancelled, _, _): kind = .cancelled
        case .end:
            guard let failure = transition.deadLetter else { return nil }
            kind = .gaveUp(delivery, failure)
        }
        self.init(
            kind, jobID: delivery.jobID, jobName: delivery.jobName, queue: delivery.queue, attempt: delivery.attempt)
        lostWorker = worker
        lostWorkerName = name
    }
}

/// Passes notices to the workers of this process, each to one worker: one that knows the name of the job, where there
/// is one.
package final class JobNotices: Sendable {
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

    package func tell(_ notices: [JobNotice]) {
        guard !notices.isEmpty else { return }
        let listeners = listeners.withLock { $0 }
        for notice in notices {
            // The lost worker may be one of this process, and not know of its loss yet.
            let others = listeners.filter { $0.key != notice.lostWorker }.values
            let listener = others.first { $0.jobNames.contains(notice.jobName) } ?? others.first
            listener?.sink.noticed([notice])
        }
    }
}
