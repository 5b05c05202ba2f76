import Hoist
import HoistMonitor

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

extension PageComposer {
    private static let sparkPlaces = 30

    /// Ends of the last 15 minutes, 30 seconds each.
    private static func spark(_ series: Series, _ live: LiveView, _ now: Date) -> String {
        var values = Array(repeating: 0.0, count: sparkPlaces)
        let begin = Int(now.timeIntervalSince1970) - sparkPlaces * 30
        for (at, tally) in live.tallies[series] {
            let place = (at - begin) / 30
            if at >= begin, values.indices.contains(place) { values[place] += Double(tally.ended) }
        }
        return SparkLine.svg(values)
    }

    /// The workers of each queue.
    static func consumers(_ workers: [MonitoredWorker]) -> [String: [MonitoredWorker]] {
        var consumers: [String: [MonitoredWorker]] = [:]
        for worker in workers { for queue in worker.queues ?? [] { consumers[queue, default: []].append(worker) } }
        return consumers
    }

    /// - Parameter limit: how many are shown; nil for all, 1,000 at most.
    func queues(limit: Int?) -> Fragment {
        struct View {
            var rows: [QueueRowView]
            var hasRows: Bool
            var summary: String
            var allLink: String?
            var empty: String
        }
        let now = now
        let (rows, total, trouble) = collector.view { live -> ([QueueRowView], Int, String?) in
            // Those with jobs first.
            let shown = live.queues.sorted { one, other in
                (other.waiting + other.running, one.name) < (one.waiting + one.running, other.name)
            }.prefix(limit ?? 1000)
            let consumers = Self.consumers(live.picture.liveWorkers(at: now))
            return (
                shown.map { row($0, live, consumers[$0.name] ?? [], now) }, live.queues.count, live.trouble
            )
        }
        return renderer.fragment(
            "queues", "queues",
            View(
                rows: rows, hasRows: !rows.isEmpty,
                summary: trouble.map { "not read: " + $0.cut(to: 200) } ?? Format.count(total),
                allLink: limit == nil ? nil : links.path("/queues"),
                empty: trouble == nil ? "No queue holds a job." : "The backend's queues cannot be read."))
    }

    private func row(
        _ queue: QueueStatistics, _ live: LiveView, _ consumers: [MonitoredWorker], _ now: Date
    ) -> QueueRowView {
        let slots = consumers.reduce(0) { $0 + ($1.slots ?? 0) }
        let busy = min(slots, consumers.reduce(0) { $0 + $1.active })
        let isPaused = live.pausedQueues.contains(queue.name)
        let series = Series(kind: .queue, label: queue.name)
        let ended = live.tallies.sum(series, seconds: 60, at: now).ended
        return QueueRowView(
            name: queue.name, link: links.queue(queue.name),
            note: isPaused ? "paused" : consumers.isEmpty ? "no worker" : nil,
            waiting: Format.count(queue.waiting), scheduled: Format.count(queue.scheduled),
            running: Format.count(queue.running), failed: Format.count(queue.failed),
            oldest: queue.waiting > 0
                ? Format.span(queue.oldestAge(at: now)) : .none,
            out: Format.rate(Double(ended) / 60), workers: Format.count(consumers.count),
            busyWidth: slots > 0 ? busy * 64 / slots : 0, busy: Format.share(busy, of: slots),
            spark: Self.spark(series, live, now), isPaused: isPaused)
    }

    /// - Parameter limit: how many are shown; nil for all.
    func names(limit: Int?) -> Fragment {
        struct View {
            var rows: [NameRowView]
            var hasRows: Bool
            var summary: String
            var allLink: String?
        }
        let now = now
        let (rows, total) = collector.view { live -> ([NameRowView], Int) in
            let sums = live.tallies.series(.name).map { ($0, live.tallies.sum($0, seconds: 3600, at: now)) }
                .filter { !$0.1.isEmpty }
                .sorted { ($1.1.failed, $1.1.ended, $0.0.label) < ($0.1.failed, $0.1.ended, $1.0.label) }
            var workers: [String: Int] = [:]
            for worker in live.picture.liveWorkers(at: now) {
                for name in worker.jobNames ?? [] { workers[name, default: 0] += 1 }
            }
            let rows = sums.prefix(limit ?? 500).map { series, sum in
                let times = sum.runs.seconds(at: [50, 95])
                return NameRowView(
                    name: series.label, link: links.jobs(Links.term("name", series.label)),
                    rate: Format.rate(Double(live.tallies.sum(series, seconds: 60, at: now).ended) / 60),
                    failed: Format.share(sum.failed, of: sum.ended), hasFailures: sum.failed > 0,
                    median: Format.span(times?[0]), high: Format.span(times?[1]),
                    workers: Format.count(workers[series.label] ?? 0),
                    spark: Self.spark(series, live, now))
            }
            return (rows, sums.count)
        }
        return renderer.fragment(
            "names", "names",
            View(
                rows: rows, hasRows: !rows.isEmpty, summary: "\(Format.count(total)) in the last hour, by failures",
                allLink: limit == nil ? nil : links.path("/names")))
    }

    func workers() -> Fragment {
        struct View {
            var rows: [WorkerRowView]
            var hasRows: Bool
            var summary: String
            let command = PageComposer.workerCommand
        }
        let now = now
        let workers = collector.view { $0.picture.workers.values.sorted { $0.name < $1.name } }
        let alive = workers.count { $0.isAlive(at: now) }
        let sorted = workers.filter { $0.isAlive(at: now) } + workers.filter { !$0.isAlive(at: now) }
        return renderer.fragment(
            "workers", "workers",
            View(
                rows: sorted.prefix(1000).map { WorkerRowView($0, links, now) }, hasRows: !workers.isEmpty,
                summary: "\(Format.count(alive)) alive, \(Format.count(workers.count - alive)) gone"))
    }

    // MARK: - Charts

    /// What is known by the minute, over the bars of that minute.
    private static func spread(_ minutes: [Int: Tally], over step: Int) -> [Int: Tally] {
        let parts = 60 / step
        var bars: [Int: Tally] = [:]
        for (at, tally) in minutes {
            for part in 0..<parts {
                var share = Tally()
                for (state, count) in [
                    (HistoryState.succeeded, tally.succeeded), (.failed, tally.failed), (.retrying, tally.retried),
                    (.cancelled, tally.cancelled),
                ] {
                    share.add(state, count * (part + 1) / parts - count * part / parts)
                }
                (share.runs, share.waits) = (tally.runs, tally.waits)
                bars[at + part * step] = share
            }
        }
        return bars
    }

    /// The four charts of a series.
    /// - Parameter queue: whose depth is shown; nil for the sum of all.
    func charts(_ series: Series, queue: String?) async throws -> Fragment {
        struct View {
            var charts: [ChartView]
        }
        let (now, range) = (now, links.range)
        let starts = range.starts(at: now)
        var tallies = try await store.tallies(series, backend: collector.number, range: range, at: now)
        if range.resolution == .tenSeconds {
            // Ten seconds are only in memory. What was before this program's start is told by the minute.
            let recent = collector.view { $0.tallies[series] }
            let first = recent.keys.min() ?? Int(now.timeIntervalSince1970)
            tallies = Self.spread(tallies.filter { $0.key < first / 60 * 60 }, over: range.step)
            for (at, tally) in recent { tallies[at / range.step * range.step, default: Tally()].merge(tally) }
        }
        let depths = try await store.depths(queue: queue, backend: collector.number, range: range, at: now)
        let gaps = try await store.gaps(
            backend: collector.number, since: Date(timeIntervalSince1970: Double(starts[0])))
        let hatched = Set(
            starts.indices.filter { index in
                let (begin, end) = (Double(starts[index]), Double(starts[index] + range.step))
                return gaps.contains { $0.lowerBound < end && $0.upperBound > begin }
            })
        let step = Double(range.step)
        let list = starts.map { tallies[$0] }
        let runs = list.map { $0?.runs.seconds(at: [50, 95, 99]) }
        let waits = list.map { $0?.waits.seconds(at: [50, 95]) }
        let span: @Sendable (Double) -> String = { Format.span($0).text }
        let rate: @Sendable (Double) -> String = { Format.decimal($0, digits: $0 < 10 ? 2 : 0) }
        let last = collector.view { $0.tallies.sum(series, seconds: 60, at: now) }
        func chart(
            _ title: String, _ unit: String, _ mark: Chart.Mark, _ format: @escaping @Sendable (Double) -> String
        )
            -> Chart
        {
            Chart(
                title: title, unit: unit, starts: starts, step: range.step, mark: mark, hatched: hatched, format: format
            )
        }
        let throughput = chart(
            "Throughput", "jobs/s",
            .bars(
                lower: list.map { $0.map { Double($0.succeeded + $0.cancelled) / step } },
                upper: list.map { $0.map { Double($0.failed) / step } }), rate)
        let runTime = chart(
            "Run time", "",
            .lines([
                Chart.Line(style: "p50", label: "p50", values: runs.map { $0?[0] }),
                Chart.Line(style: "p95", label: "p95", values: runs.map { $0?[1] }),
                Chart.Line(style: "p99", label: "p99", values: runs.map { $0?[2] }),
            ]), span)
        let waitTime = chart(
            "Wait time", "",
            .lines([
                Chart.Line(style: "p50", label: "p50", values: waits.map { $0?[0] }),
                Chart.Line(style: "p95", label: "p95", values: waits.map { $0?[1] }),
            ]), span)
        var depth = chart(
            "Waiting", "jobs",
            .lines([
                Chart.Line(style: "p95", label: "waiting", values: starts.map { depths[$0].map { Double($0.waiting) } })
            ]), { Format.decimal($0, digits: 0) })
        depth.isWhole = true
        let current = collector.view { live in
            live.queuesReadAt == nil
                ? nil : live.queues.filter { queue == nil || $0.name == queue }.reduce(0) { $0 + $1.waiting }
        }
        let view = View(charts: [
            ChartView(id: "throughput", throughput, key: Format.rate(Double(last.ended) / 60)),
            ChartView(id: "run", runTime, key: Format.span(last.runs.seconds(at: [95])?[0])),
            ChartView(id: "wait", waitTime, key: Format.span(last.waits.seconds(at: [95])?[0])),
            ChartView(
                id: "depth", depth, key: current.map { Quantity(number: Format.count($0)) } ?? .none),
        ])
        return renderer.fragment("charts", "charts", view)
    }
}
