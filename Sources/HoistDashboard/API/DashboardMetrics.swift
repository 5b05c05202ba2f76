import Hoist
import HoistMonitor
import PrometheusText

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// `/metrics`: the fleets in Hoist's families and in Flower's.
struct DashboardMetrics {
    let collectors: [Collector]
    let store: HistoryStore

    /// A dead worker is told as 0 for so long, and then no more.
    private static let deadWorkerShown = 600.0
    private typealias Sample = PrometheusDocument.Sample

    /// What is read of one backend.
    private struct View {
        var counts: [String: MonitoredCount]
        var queues: [QueueStatistics]
        var workers: [MonitoredWorker]
        var counters: FleetCounters
        var prefetched: [FleetCounters.JobKey: Int]
        var isConnected: Bool
        var isAnswering: Bool
    }

    func text() async -> String {
        var document = PrometheusDocument()
        let views = collectors.map { collector in
            let now = collector.clock.now
            let view = collector.view { live in
                View(
                    counts: live.picture.counts, queues: live.queues, workers: Self.shown(live, now),
                    counters: live.counters, prefetched: Self.prefetched(live, now),
                    isConnected: live.connectedSince != nil, isAnswering: live.trouble == nil)
            }
            return (collector.name, view, now)
        }
        let size = await store.size()
        jobs(views, &document)
        queues(views, &document)
        workers(views, &document)
        collecting(views, size, &document)
        flower(views, &document)
        return document.text
    }

    private typealias Views = [(name: String, live: View, now: Date)]

    private func jobs(_ views: Views, _ document: inout PrometheusDocument) {
        var samples: [Sample] = []
        for (backend, live, _) in views {
            for (name, count) in live.counts.sorted(by: { $0.key < $1.key }) {
                for (outcome, number) in [
                    ("succeeded", count.succeeded), ("failed", count.failed), ("retried", count.retried),
                    ("cancelled", count.revoked), ("rejected", count.rejected),
                ] where number > 0 {
                    samples.append(
                        Sample([("backend", backend), ("name", name), ("outcome", outcome)], Double(number)))
                }
            }
        }
        document.add(
            "hoist_jobs_total", .counter, "Attempts that ended, as events told, since the dashboard began.", samples)
    }

    private func queues(_ views: Views, _ document: inout PrometheusDocument) {
        func family(_ name: String, _ help: String, _ value: (QueueStatistics, Date) -> Double?) {
            let samples = views.flatMap { backend, live, now in
                live.queues.prefix(RecentTallies.mostSeries).compactMap { queue in
                    value(queue, now).map { Sample([("backend", backend), ("queue", queue.name)], $0) }
                }
            }
            document.add(name, .gauge, help, samples)
        }
        family("hoist_queue_waiting_jobs", "Jobs that are ready for a worker.") { queue, _ in Double(queue.waiting) }
        family("hoist_queue_scheduled_jobs", "Jobs that are due later.") { queue, _ in Double(queue.scheduled) }
        family("hoist_queue_running_jobs", "Jobs that run.") { queue, _ in Double(queue.running) }
        family("hoist_queue_dead_letters", "Jobs that failed for good.") { queue, _ in Double(queue.failed) }
        family("hoist_queue_oldest_seconds", "How long the oldest waiting job has waited.") { queue, now in
            queue.oldestAge(at: now) ?? 0
        }
        family("hoist_queue_wanted_slots", "Slots that would leave no job waiting, to scale workers by.") { queue, _ in
            Double(queue.waiting + queue.running)
        }
    }

    private func workers(_ views: Views, _ document: inout PrometheusDocument) {
        func family(_ name: String, _ help: String, _ value: (MonitoredWorker, Date) -> Double?) {
            let samples = views.flatMap { backend, live, now in
                live.workers.compactMap { worker in
                    value(worker, now).map { Sample([("backend", backend), ("worker", worker.name)], $0) }
                }
            }
            document.add(name, .gauge, help, samples)
        }
        family("hoist_worker_up", "1 while the worker beats, 0 for ten minutes afterwards.") { worker, now in
            worker.isAlive(at: now) ? 1 : 0
        }
        family("hoist_worker_slots", "Jobs that the worker can run at once.") { worker, now in
            worker.isAlive(at: now) ? worker.slots.map(Double.init) : nil
        }
        family("hoist_worker_busy_slots", "Jobs that the worker runs.") { worker, now in
            worker.isAlive(at: now) ? Double(worker.active) : 0
        }
        family("hoist_worker_memory_bytes", "Memory of a Hoist worker.") { worker, now in
            worker.isAlive(at: now) ? worker.memory.map(Double.init) : nil
        }
        family("hoist_worker_events_left_out", "Events that a Hoist worker has not told since it started.") {
            worker, now in
            worker.isAlive(at: now) && worker.isPython == false ? Double(worker.eventsLeftOut) : nil
        }
    }

    private func collecting(_ views: Views, _ size: Int?, _ document: inout PrometheusDocument) {
        func family(_ name: String, _ kind: PrometheusDocument.Kind, _ help: String, _ value: (View) -> Double) {
            document.add(name, kind, help, views.map { Sample([("backend", $0.name)], value($0.live)) })
        }
        family("hoist_dashboard_connected", .gauge, "1 while events are heard.") { $0.isConnected ? 1 : 0 }
        family("hoist_dashboard_event_gaps_total", .counter, "Times that events were missed.") {
            Double($0.counters.gaps)
        }
        family("hoist_dashboard_backend_up", .gauge, "1 while the queues can be read.") { $0.isAnswering ? 1 : 0 }
        document.add(
            "hoist_dashboard_history_bytes", .gauge, "Size of the history.",
            size.map { [Sample([], Double($0))] } ?? [])
    }

    // MARK: - Flower's families

    private func flower(_ views: Views, _ document: inout PrometheusDocument) {
        var (events, runs, prefetchTimes, prefetched): ([Sample], [Sample], [Sample], [Sample]) = ([], [], [], [])
        // Flower knows one broker: what several have is added up.
        var counters = FleetCounters()
        var claimed: [FleetCounters.JobKey: Int] = [:]
        var workers: [String: Int?] = [:]
        for (_, live, now) in views {
            counters.merge(live.counters)
            claimed.merge(live.prefetched, uniquingKeysWith: +)
            for worker in live.workers {
                let active = worker.isAlive(at: now) ? worker.active : nil
                workers[worker.name] = (workers[worker.name] ?? nil) ?? active
            }
        }
        for (key, count) in counters.events.sorted(by: {
            ($0.key.worker, $0.key.name, $0.key.type) < ($1.key.worker, $1.key.name, $1.key.type)
        }) {
            events.append(Sample([("task", key.name), ("type", key.type), ("worker", key.worker)], Double(count)))
        }
        for (key, times) in counters.runTimes.sorted(by: {
            ($0.key.worker, $0.key.name) < ($1.key.worker, $1.key.name)
        }) {
            runs += Self.histogram([("task", key.name), ("worker", key.worker)], times)
        }
        for (key, seconds) in counters.prefetchTimes {
            prefetchTimes.append(Sample([("task", key.name), ("worker", key.worker)], seconds))
        }
        for (key, count) in claimed {
            prefetched.append(Sample([("task", key.name), ("worker", key.worker)], Double(count)))
        }
        let sorted = workers.sorted { $0.key < $1.key }
        let online = sorted.map { Sample([("worker", $0.key)], $0.value == nil ? 0 : 1) }
        let executing = sorted.map { Sample([("worker", $0.key)], Double($0.value ?? 0)) }
        document.add("flower_events_total", .counter, "Number of events", events)
        document.add("flower_task_runtime_seconds", .histogram, "Task runtime", runs)
        document.add(
            "flower_task_prefetch_time_seconds", .gauge, "Time that a task waited in its worker", prefetchTimes)
        document.add("flower_worker_prefetched_tasks", .gauge, "Tasks that a worker has and has not begun", prefetched)
        document.add("flower_worker_online", .gauge, "Worker online status", online)
        document.add(
            "flower_worker_number_of_currently_executing_tasks", .gauge, "Tasks that a worker executes", executing)
    }

    private static func histogram(
        _ labels: [(name: String, value: String)], _ times: FleetCounters.RunTimes
    ) -> [Sample] {
        var samples: [Sample] = []
        var below = 0
        for (bucket, count) in zip(FleetCounters.buckets, times.counts) {
            below += count
            samples.append(Sample(labels + [("le", "\(bucket)")], Double(below), suffix: "_bucket"))
        }
        let all = Double(times.counts.reduce(0, +))
        return samples + [
            Sample(labels + [("le", "+Inf")], all, suffix: "_bucket"), Sample(labels, all, suffix: "_count"),
            Sample(labels, times.sum, suffix: "_sum"),
        ]
    }

    /// Jobs that live workers have claimed and have not begun. Those that wait for their time are not among them.
    private static func prefetched(_ live: LiveView, _ now: Date) -> [FleetCounters.JobKey: Int] {
        var counts: [FleetCounters.JobKey: Int] = [:]
        let alive = Set(live.picture.liveWorkers(at: now).map(\.name))
        for job in live.picture.latestJobs where job.state == .received && job.due == nil {
            guard let worker = job.worker, alive.contains(worker) else { continue }
            let key = FleetCounters.JobKey(worker: worker, name: job.name ?? "")
            if counts.count < FleetCounters.mostSeries || counts[key] != nil { counts[key, default: 0] += 1 }
        }
        return counts
    }

    private static func shown(_ live: LiveView, _ now: Date) -> [MonitoredWorker] {
        live.picture.workers.values
            .filter { $0.isAlive(at: now) || now.timeIntervalSince($0.heardAt) < deadWorkerShown }
            .sorted { $0.name < $1.name }
    }
}
