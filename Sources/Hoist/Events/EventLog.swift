import Logging

/// Writes the log lines of a worker: how jobs end, and how the worker comes and goes.
struct EventLog: EventSink {
    private let logger: Logger
    private let noun: String
    private let backend: String
    private let logsEveryJob: Bool

    /// - Parameters:
    ///   - noun: what the worker is called.
    ///   - logsEveryJob: whether each job that has succeeded is worth a line at `info`.
    ///   - backend: its URL without a password.
    init(logger: Logger, _ noun: String, logsEveryJob: Bool, backend: String) {
        self.logsEveryJob = logsEveryJob
        self.logger = logger
        self.noun = noun
        self.backend = backend
    }

    var interests: EventInterests { logger.logLevel <= usualLevel ? [.ends, .workers] : [.failures, .workers] }

    func record(_ event: JobEvent) {
        switch event.kind {
        case .ended(let end), .retried(let end), .putBack(let end): record(end, of: event)
        case .givenUp(let failure, _):
            logger.warning(
                "a job was given up: it has cost too many workers",
                metadata: metadata(of: event).merging(["error": "\(failure)"]) { $1 })
        case .takenOver(let worker):
            logger.warning(
                "a job was taken over from a dead worker",
                metadata: metadata(of: event).merging(["worker": "\(TerminalText.line(worker))"]) { $1 })
        case .sent, .received, .started, .progressed, .wrote, .cancelAsked: break
        }
    }

    private func record(_ end: JobEvent.End, of event: JobEvent) {
        switch end.outcome {
        case .failed(let failure):
            logger.warning(
                "job failed for good", metadata: metadata(of: event).merging(["error": "\(failure)"]) { $1 })
        case .retry(let date, let failure, _):
            guard logger.logLevel <= .info else { return }
            logger.info(
                "job failed and will be retried",
                metadata: metadata(of: event).merging([
                    "error": "\(failure)", "at": "\(WireTimestamp.string(from: date))",
                ]) { $1 })
        case .refused(_, let failure):
            logger.warning(
                "the job waits for a worker that knows its arguments",
                metadata: metadata(of: event).merging(["error": "\(failure)"]) { $1 })
        case .succeeded, .snoozed, .cancelled, .expired, .handedBack, .notStarted:
            // A job that has not begun is with another worker soon.
            let level: Logger.Level = if case .notStarted = end.outcome { .debug } else { usualLevel }
            guard logger.logLevel <= level else { return }
            var metadata = metadata(of: event)
            if end.outcome.hasRun { metadata["time"] = "\(Self.seconds(end.runTime))" }
            logger.log(level: level, "job \(end.outcome.label)", metadata: metadata)
        }
    }

    /// The level of what happens to most jobs.
    private var usualLevel: Logger.Level { logsEveryJob ? .info : .debug }

    /// Milliseconds below ten seconds, tenths above.
    private static func seconds(_ duration: Duration) -> String {
        let places = duration < .seconds(10) ? 1000.0 : 10
        return "\((duration.inSeconds * places).rounded() / places) s"
    }

    private func metadata(of event: JobEvent) -> Logger.Metadata {
        [
            "job.id": "\(TerminalText.line(event.jobID))", "job.name": "\(TerminalText.line(event.jobName))",
            "job.queue": "\(TerminalText.line(event.queue))",
            "job.attempt": "\(event.attempt)",
        ]
    }

    func record(_ event: WorkerEvent) {
        switch event.kind {
        case .online:
            logger.info(
                "\(noun) started",
                metadata: [
                    "backend": "\(TerminalText.line(backend))",
                    "worker": "\(event.worker.name)", "queues": "\(event.worker.queues.joined(separator: ", "))",
                ])
        case .heartbeat: break
        case .leaseLost:
            logger.warning(
                "the lease was lost: running jobs are stopped, their results refused",
                metadata: ["jobs": "\(event.worker.running)"])
        case .offline: logger.info("\(noun) stopped", metadata: ["worker": "\(event.worker.name)"])
        }
    }
}
