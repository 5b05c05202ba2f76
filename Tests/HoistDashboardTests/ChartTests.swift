import Foundation
import Hoist
@testable import HoistDashboard
import HoistMonitor
import HoistTesting
import Testing

/// Pictures that the server draws.
@Suite("Charts")
struct ChartTests {
    private let now = Date(timeIntervalSince1970: 1_800_000_000)

    private func chart(_ mark: Chart.Mark, places: Int = 4, hatched: Set<Int> = []) -> Chart {
        Chart(
            title: "Jobs <x>", unit: "jobs/s", starts: (0..<places).map { 1_800_000_000 + $0 * 10 }, step: 10,
            mark: mark,
            hatched: hatched, format: { Format.decimal($0, digits: 1) })
    }

    @Test(
        "axes end at a round number",
        arguments: [(0.0, 1.0), (0.3, 0.5), (1, 1), (3, 5), (7, 10), (120, 200), (846, 1000)])
    func nice(value: Double, highest: Double) {
        #expect(abs(Chart.nice(value) - highest) < 0.000_001)
    }

    @Test("whatever is drawn, the axis ends above it", arguments: [Double.nan, .infinity, -1, 1e300, 1e-300])
    func anyNumber(value: Double) {
        let highest = Chart.nice(value)
        #expect(highest > 0 && (highest >= value || !value.isFinite))
    }

    @Test("one failure among many is seen, and nothing is drawn for nothing")
    func bars() {
        let svg = chart(.bars(lower: [1_000_000, 0, nil, 5], upper: [1, 0, nil, 0])).svg
        #expect(svg.components(separatedBy: "class=\"bad\"").count == 2)
        #expect(svg.components(separatedBy: "class=\"ok\"").count == 3)
        #expect(svg.contains("height=\"2.0\"") && svg.contains("Jobs &lt;x&gt;") && !svg.contains("<x>"))
        #expect(svg.contains("role=\"img\"") && svg.contains("of these 1 failed"))
    }

    @Test("a line has a gap where nothing is known, and a place alone is seen")
    func lines() {
        let line = Chart.Line(style: "p95", label: "p95", values: [1, nil, 3, 4])
        let svg = chart(.lines([line])).svg
        #expect(svg.components(separatedBy: "<polyline").count == 3)
        #expect(svg.contains(">p95</text>"))
        #expect(chart(.lines([line]), hatched: [1, 99]).svg.components(separatedBy: "class=\"unseen\"").count == 2)
    }

    @Test("the table behind a chart has what the chart shows, the newest first")
    func table() {
        let rows = chart(.bars(lower: [1, 2, nil, 4], upper: [0, 1, nil, 2])).rows
        #expect(rows.count == 4 && rows[0].values == ["4", "2"] && rows[1].values == ["–", "–"])
        #expect(rows[0].time == "08:00:30")
        #expect(chart(.bars(lower: [], upper: []), places: 0).svg.contains("<svg"))
    }

    @Test("the life of a job is to scale, and ends with its last attempt")
    func lifeLine() {
        var picture = FleetPicture()
        picture.hear(
            FleetEvent([
                "type": "task-received", "uuid": "1", "hostname": "w@h", "name": "<b>", "timestamp": 1_800_000_000.0,
            ])!, at: now)
        var job = HistoryJob(picture[job: "1"]!, at: now)
        job.state = .succeeded
        var (first, second) = (HistoryAttempt(number: 1), HistoryAttempt(number: 2))
        (first.startedAt, first.endedAt, first.state) = (
            now.addingTimeInterval(10), now.addingTimeInterval(20), .retrying
        )
        (second.startedAt, second.endedAt, second.state) = (
            now.addingTimeInterval(60), now.addingTimeInterval(100), .succeeded
        )
        job.endedAt = now.addingTimeInterval(100)
        let svg = LifeLine(job: job, record: nil, attempts: [first, second], now: now.addingTimeInterval(900)).svg
        #expect(svg.components(separatedBy: "<rect").count == 5)
        #expect(
            svg.contains("class=\"s-retrying\" x=\"80\"")
                && svg.contains("class=\"s-succeeded\" x=\"480\" y=\"8\" width=\"320\""))
        #expect(LifeLine(job: nil, record: nil, attempts: [], now: now).svg.isEmpty)
        // Times that make no sense make no picture, and no crash.
        (first.startedAt, first.endedAt) = (.distantFuture, .distantPast)
        #expect(LifeLine(job: job, record: nil, attempts: [first], now: now).svg.contains("svg"))
    }

    @Test("bars of every range fit the tallies that are kept for it")
    func ranges() {
        for range in ChartRange.allCases {
            let starts = range.starts(at: now)
            #expect(starts.count == range.seconds / range.step && starts.count <= 120)
            #expect(starts.last.map { $0 <= 1_800_000_000 && $0 + range.step > 1_800_000_000 } == true)
            #expect(range.step % range.resolution.seconds == 0 && range.resolution.keptFor >= range.seconds)
        }
    }
}

/// What Prometheus is told of events.
@Suite("Counters of a fleet")
struct FleetCountersTests {
    private func feed(
        _ events: [(type: String, id: String, more: WireValue.Object)], into counters: inout FleetCounters
    ) {
        var picture = FleetPicture()
        for event in events {
            var fields: WireValue.Object = [
                "type": .string(event.type), "uuid": .string(event.id), "hostname": "w@h", "name": "mail",
                "timestamp": 10.0,
            ]
            for (key, value) in event.more { fields[key] = value }
            let heard = FleetEvent(fields)!
            picture.hear(heard, at: Date(timeIntervalSince1970: 10))
            counters.take(heard.job!, after: picture[job: event.id]!)
        }
    }

    private let key = FleetCounters.JobKey(worker: "w@h", name: "mail")

    @Test("the time between claim and start is that of the job that started last")
    func prefetchTimes() {
        var counters = FleetCounters()
        feed([("task-received", "3", [:]), ("task-started", "3", ["timestamp": 12.5])], into: &counters)
        #expect(counters.prefetchTimes[key] == 2.5)
        feed(
            [("task-received", "4", ["eta": "2030-01-01T00:00:00+00:00"]), ("task-started", "4", ["timestamp": 19.0])],
            into: &counters)
        #expect(counters.prefetchTimes[key] == 2.5, "it waited for its time")
        feed([("task-succeeded", "3", [:])], into: &counters)
        #expect(counters.prefetchTimes[key] == 0)
    }

    @Test("run times fall into their buckets")
    func runTimes() {
        var counters = FleetCounters()
        for (number, seconds) in [0.001, 0.005, 0.2, 11, 0].enumerated() {
            feed([("task-succeeded", "\(number)", ["runtime": .double(seconds)])], into: &counters)
        }
        let times = counters.runTimes[key]
        #expect(times?.counts.reduce(0, +) == 4 && times?.counts[0] == 2 && times?.counts.last == 1)
        #expect(abs((times?.sum ?? 0) - 11.206) < 0.000_001)
    }

    @Test("made-up names take no room without end, and what is gone is forgotten")
    func bounded() {
        var counters = FleetCounters()
        for number in 0..<(FleetCounters.mostSeries + 500) {
            feed(
                [("task-failed", "\(number)", ["hostname": .string("w\(number)@h"), "runtime": 1.0])], into: &counters)
        }
        #expect(counters.events.count <= FleetCounters.mostSeries + 1)
        #expect(counters.runTimes.count <= FleetCounters.mostSeries + 1)
        #expect(counters.prefetchTimes.count <= FleetCounters.mostSeries + 1)
        let other = FleetCounters.JobKey(worker: "other", name: "other")
        #expect(counters.runTimes[other]?.counts.reduce(0, +) == 500)
        counters.tidy { $0 == "w1@h" ? .alive : .gone }
        #expect(counters.runTimes.count == 2 && counters.events.count == 2)
        counters.tidy { _ in .dead }
        #expect(counters.prefetchTimes.count == 1 && counters.runTimes.count == 2)
    }

    @Test("what several backends have is added up")
    func merged() {
        var (one, two) = (FleetCounters(), FleetCounters())
        for number in 0..<3 { feed([("task-succeeded", "\(number)", ["runtime": 0.5])], into: &one) }
        feed([("task-succeeded", "9", ["runtime": 0.5])], into: &two)
        one.merge(two)
        #expect(one.runTimes[key]?.counts.reduce(0, +) == 4 && one.runTimes[key]?.sum == 2)
        #expect(one.events.values.reduce(0, +) == 4)
    }
}

/// What needs a person.
@Suite("Attention")
struct AttentionTests {
    private let now = Date(timeIntervalSince1970: 1_800_000_000)
    private let links = Links(base: "", backend: "prod", isNamed: false, range: .quarterHour)

    private func worker(
        _ name: String, queues: [String], active: Int = 0, at seconds: Double = 0, pid: Int64 = 1,
        _ live: inout LiveView
    ) {
        let hoist: WireValue = [
            "queues": .array(queues.map { .string($0) }),
            "lanes": ["async": ["slots": 2, "used": .integer(Int64(active))]],
        ]
        let time = now.addingTimeInterval(seconds)
        live.picture.hear(
            FleetEvent([
                "type": "worker-heartbeat", "hostname": .string(name), "freq": 2.0, "active": .integer(Int64(active)),
                "pid": .integer(pid), "sw_ident": "hoist", "timestamp": .double(time.timeIntervalSince1970),
                "hoist": hoist,
            ])!, at: time)
    }

    private func sentences(_ live: LiveView) -> [String] {
        Attention.items(live, links, now).map { $0.subject + " " + $0.sentence.replacing("\u{2009}", with: " ") }
    }

    @Test("a healthy fleet needs nobody")
    func calm() {
        var live = LiveView(picture: FleetPicture())
        worker("w@h", queues: ["mail"], &live)
        live.queues = [QueueStatistics(name: "mail", waiting: 3, oldestWaiting: now.addingTimeInterval(-2))]
        #expect(sentences(live).isEmpty)
    }

    @Test("queues that wait are told with their reason")
    func queues() {
        var live = LiveView(picture: FleetPicture())
        worker("w@h", queues: ["mail", "slow"], active: 2, &live)
        live.queues = [
            QueueStatistics(name: "lonely", waiting: 12, oldestWaiting: now.addingTimeInterval(-90)),
            QueueStatistics(name: "mail", waiting: 1, failed: 37, oldestWaiting: now.addingTimeInterval(-1)),
            QueueStatistics(name: "slow", waiting: 1312, oldestWaiting: now.addingTimeInterval(-840)),
            QueueStatistics(name: "still", waiting: 5, oldestWaiting: now.addingTimeInterval(-5)),
        ]
        live.pausedQueues = ["still"]
        #expect(
            sentences(live) == [
                "lonely has no worker. 12 jobs wait; the oldest has waited 2 min.", "mail has 37 dead letters.",
                "slow keeps jobs waiting: the oldest for 14 min, with 1 worker, which is full.",
                "still is paused, and 5 jobs wait.",
            ])
    }

    @Test("names that fail, workers that died and workers that crash again and again are told")
    func failures() {
        var live = LiveView(picture: FleetPicture())
        for number in 0..<100 {
            live.tallies.add(name: "mail.send", queue: nil, worker: nil, at: now.addingTimeInterval(-30)) {
                $0.add(number < 6 ? .failed : .succeeded, run: 0.1)
            }
            live.tallies.add(name: "fine", queue: nil, worker: nil, at: now.addingTimeInterval(-30)) {
                $0.add(number < 2 ? .failed : .succeeded, run: 0.1)
            }
        }
        worker("dead@h", queues: [], at: -240, &live)
        for pid in 1...4 { worker("loop@h", queues: [], at: Double(pid) - 5, pid: Int64(pid), &live) }
        #expect(
            sentences(live) == [
                "mail.send fails: 6 of 100 jobs in the last 15 min (6 %).",
                "dead@h stopped sending heartbeats 4 min ago.",
                "loop@h has started again 3 times, last 1 s ago.",
            ])
    }

    @Test("of very many things the first are told")
    func bounded() {
        var live = LiveView(picture: FleetPicture())
        for number in 0..<500 { worker("w\(number)@h", queues: [], at: -100, &live) }
        #expect(sentences(live).count == 20)
    }
}
