import Logging

/// Writes the log lines of a worker: how jobs end, and how the worker comes and goes.
struct EventLog: EventSink {
    let logger: Logger

    var interests: EventInterests { logger.logLevel <= .debug ? [.ends, .workers] : [.failures, .workers] }

    func record(_ event: JobEvent) {
        switch event.kind {
        case .ended(let end), .retried(let end), .putBack(let end): record(end, of: event)
        case .givenUp(let failure, _):
            logger.warning(
                "a job was given up: it has cost too many workers",
                metadata: metadata(of: event).merging(["error": "\(failure)"]) { $1 })
        case .takenOver(let worker):
            guard logger.logLevel <= .debug else { return }
            logger.debug(
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
        case .succeeded, .snoozed, .cancelled, .expired, .handedBack, .notStarted:
            guard logger.logLevel <= .debug else { return }
            logger.debug("job \(end.outcome.label)", metadata: metadata(of: event))
        }
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
                "worker started",
                metadata: [
                    "worker": "\(event.worker.name)", "queues": "\(event.worker.queues.joined(separator: ", "))",
                ])
        case .heartbeat: break
        case .leaseLost:
            logger.warning(
                "the lease was lost: running jobs are stopped, their results refused",
                metadata: ["jobs": "\(event.worker.running)"])
        case .offline: logger.info("worker stopped", metadata: ["worker": "\(event.worker.name)"])
        }
    }
}
