import Metrics
import Synchronization

/// The metrics of a worker. Labels are queues and registered job names, which are few; never ids.
///
/// | metric | kind | labels |
/// |---|---|---|
/// | `hoist_jobs_total` | counter | `queue`, `job`, `outcome` |
/// | `hoist_job_run_seconds` | timer | `queue`, `job` |
/// | `hoist_job_wait_seconds` | timer | `queue`, `job` |
/// | `hoist_job_cpu_seconds` | timer | `queue`, `job` |
/// | `hoist_job_peak_memory_bytes` | recorder | `queue`, `job` |
/// | `hoist_leases_lost_total` | counter | |
/// | `hoist_copies_dropped_total` | counter | |
/// | `hoist_queue_length` | gauge | `queue` |
/// | `hoist_queue_oldest_age_seconds` | gauge | `queue` |
final class WorkerMetrics: EventSink {
    private struct Key: Hashable {
        var queue: String
        var job: String
        var outcome: String
    }

    private struct Instruments: Sendable {
        var count: Counter
        var run: Metrics.Timer
        var wait: Metrics.Timer
        var cpu: Metrics.Timer
        var peakMemory: Recorder
    }

    private let factory: any MetricsFactory
    /// False when the program has no metrics system.
    let isListening: Bool
    private let instruments = Mutex<[Key: Instruments]>([:])
    private let leasesLost: Counter
    private let copies: Counter

    init(factory: any MetricsFactory) {
        self.factory = factory
        isListening = !(factory is NOOPMetricsHandler)
        leasesLost = Counter(label: "hoist_leases_lost_total", factory: factory)
        copies = Counter(label: "hoist_copies_dropped_total", factory: factory)
    }

    var interests: EventInterests { isListening ? [.ends, .workers] : [] }

    func record(_ event: JobEvent) {
        switch event.kind {
        case .ended(let end), .retried(let end), .putBack(let end): record(end, of: event)
        case .sent, .received, .started, .progressed, .wrote, .givenUp, .takenOver, .cancelAsked: break
        }
    }

    func record(_ event: WorkerEvent) { if event.kind == .leaseLost { leasesLost.increment() } }

    /// A message was dropped because its job had succeeded already.
    func noteCopy() { copies.increment() }

    private func record(_ end: JobEvent.End, of event: JobEvent) {
        let instruments = instruments(Key(queue: event.queue, job: event.jobName, outcome: end.outcome.metricLabel))
        instruments.count.increment()
        // One that expired or was cancelled while it waited has not run.
        if end.facts != nil || end.outcome.hasRun { instruments.run.recordMicroseconds(end.runTime.inMicroseconds) }
        if let usage = end.usage {
            instruments.cpu.recordMicroseconds(Int64(usage.cpuSeconds * 1_000_000))
            if let peak = usage.peakMemory { instruments.peakMemory.record(peak) }
        }
        if let wait = end.waitTime { instruments.wait.recordMicroseconds(wait.inMicroseconds) }
    }

    private func instruments(_ key: Key) -> Instruments {
        instruments.withLock { known in
            if let found = known[key] { return found }
            let labels = [("queue", key.queue), ("job", key.job)]
            let made = Instruments(
                count: Counter(
                    label: "hoist_jobs_total", dimensions: labels + [("outcome", key.outcome)], factory: factory),
                run: Metrics.Timer(label: "hoist_job_run_seconds", dimensions: labels, factory: factory),
                wait: Metrics.Timer(label: "hoist_job_wait_seconds", dimensions: labels, factory: factory),
                cpu: Metrics.Timer(label: "hoist_job_cpu_seconds", dimensions: labels, factory: factory),
                peakMemory: Recorder(label: "hoist_job_peak_memory_bytes", dimensions: labels, factory: factory))
            known[key] = made
            return made
        }
    }

    func queueLengths(_ queues: [QueueStatistics], now: Int64) {
        for queue in queues {
            let labels = [("queue", queue.name)]
            Gauge(label: "hoist_queue_length", dimensions: labels, factory: factory).record(queue.waiting)
            let age = queue.oldestWaiting.map { Double(now - $0.microsecondsSinceEpoch) / 1e6 } ?? 0
            Gauge(label: "hoist_queue_oldest_age_seconds", dimensions: labels, factory: factory).record(max(0, age))
        }
    }
}
