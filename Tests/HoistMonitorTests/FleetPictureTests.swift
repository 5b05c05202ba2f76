import Foundation
import Hoist
import HoistMonitor
import HoistTesting
import Testing

/// What a monitor makes of events.
@Suite("The picture of a fleet")
struct FleetPictureTests {
    private static let start = Date(timeIntervalSince1970: 1_800_000_000)
    private func at(_ seconds: Double) -> Date { Self.start.addingTimeInterval(seconds) }

    private func event(_ fields: WireValue.Object) -> FleetEvent? { FleetEvent(fields) }

    private func task(
        _ subject: String, _ id: String = "1", clock: Int64? = nil, at seconds: Double = 0, node: String = "a@h",
        _ more: WireValue.Object = [:]
    ) -> FleetEvent {
        var fields: WireValue.Object = [
            "type": .string("task-" + subject), "uuid": .string(id), "hostname": .string(node),
            "timestamp": .double(at(seconds).timeIntervalSince1970),
        ]
        if let clock { fields["clock"] = .integer(clock) }
        return FleetEvent(fields.merging(more))!
    }

    private func worker(
        _ subject: String, at seconds: Double = 0, node: String = "a@h", _ more: WireValue.Object = [:]
    ) -> FleetEvent {
        FleetEvent(
            ([
                "type": .string("worker-" + subject), "hostname": .string(node), "freq": 2.0, "pid": 7, "active": 1,
                "processed": 9, "loadavg": [0.1, 0.2, 0.3], "sw_ident": "hoist",
                "timestamp": .double(at(seconds).timeIntervalSince1970),
            ] as WireValue.Object).merging(more))!
    }

    // MARK: - Jobs

    private static let orders: [(events: [String], state: MonitoredState)] = [
        (["sent"], .sent), (["sent", "received"], .received), (["received", "sent"], .received),
        (["sent", "received", "started"], .started), (["started", "received"], .started),
        (["received", "started", "succeeded"], .succeeded), (["succeeded", "started", "received"], .succeeded),
        (["succeeded", "received", "started"], .succeeded), (["failed", "started", "received"], .failed),
        (["received", "started", "retried"], .retrying), (["received", "revoked"], .revoked),
        (["revoked", "received"], .revoked), (["received", "rejected"], .rejected),
        (["received", "started", "failed", "succeeded"], .succeeded), (["succeeded", "failed"], .succeeded),
    ]

    @Test(
        "events without a clock give the state that they give in order, in whichever order they come", arguments: orders
    )
    func precedence(_ order: (events: [String], state: MonitoredState)) {
        var picture = FleetPicture()
        for subject in order.events { picture.hear(task(subject), at: at(0)) }
        #expect(picture[job: "1"]?.state == order.state)
    }

    private func hoist(
        _ subject: String, clock: Int64, node: String, _ more: WireValue.Object = [:]
    ) -> FleetEvent {
        task("", clock: clock, node: node, more.merging(["type": .string("hoist-" + subject)]))
    }

    @Test("a job that went back to its queue waits, and has the worker that claims it next")
    func returned() {
        var picture = FleetPicture()
        for returning in [
            hoist("returned", clock: 3, node: "a@h"), hoist("snoozed", clock: 3, node: "a@h"),
            hoist("taken-over", clock: 900, node: "c@h", ["lost_worker": "a@h"]),
        ] {
            picture.hear(task("received", clock: 1, node: "a@h"), at: at(0))
            picture.hear(task("started", clock: 2, node: "a@h"), at: at(0))
            #expect(picture[job: "1"]?.state == .started)
            picture.hear(returning, at: at(1))
            #expect(picture[job: "1"]?.state == .waiting && picture[job: "1"]?.worker == nil)
            picture.hear(task("received", clock: 4, node: "b@h"), at: at(2))
            picture.hear(task("started", clock: 5, node: "b@h"), at: at(2))
            #expect(picture[job: "1"]?.state == .started && picture[job: "1"]?.worker == "b@h")
            // What the one before tells late, or tells twice, changes nothing.
            picture.hear(returning, at: at(3))
            #expect(picture[job: "1"]?.state == .started && picture[job: "1"]?.worker == "b@h")
            picture.hear(task("succeeded", clock: 6, node: "b@h"), at: at(4))
            picture.hear(returning, at: at(5))
            #expect(picture[job: "1"]?.state == .succeeded)
            picture = FleetPicture()
        }
        picture.hear(hoist("returned", clock: 3, node: "a@h"), at: at(0))
        #expect(picture[job: "1"] == nil, "nothing is known of it but that")
    }

    @Test("the last line that a job wrote is shown, and a job that a client has cancelled is revoked")
    func linesAndWishes() {
        var picture = FleetPicture()
        picture.hear(task("sent", node: "client@h"), at: at(0))
        let lines: WireValue = [["at": 1.0, "source": "output", "text": "one"], ["text": "two"], 7, ["text": 8]]
        picture.hear(hoist("log", clock: 3, node: "a@h", ["lines": lines]), at: at(0))
        #expect(picture[job: "1"]?.lastLine == "two" && picture[job: "1"]?.state == .sent)
        picture.hear(hoist("log", clock: 3, node: "a@h", ["lines": "x"]), at: at(0))
        #expect(picture[job: "1"]?.lastLine == "two")
        for result in ["requested", "unknown", "already-ended"] {
            picture.hear(hoist("cancel", clock: 4, node: "client@h", ["result": .string(result)]), at: at(1))
            #expect(picture[job: "1"]?.state == .sent)
        }
        picture.hear(hoist("cancel", clock: 5, node: "client@h", ["result": "cancelled"]), at: at(1))
        #expect(picture[job: "1"]?.state == .revoked)
        picture.hear(task("succeeded", "2", clock: 1), at: at(1))
        picture.hear(
            task("", "2", clock: 5, node: "client@h", ["type": "hoist-cancel", "result": "cancelled"]), at: at(1))
        #expect(picture[job: "2"]?.state == .succeeded)
    }

    @Test("of what one worker tells, its clock says what is later")
    func clocks() {
        let life: [(String, WireValue.Object)] = [
            ("received", ["name": "job", "retries": 0]), ("started", [:]), ("retried", ["exception": "E()"]),
            ("received", ["name": "job", "retries": 1]), ("started", [:]),
            ("succeeded", ["result": "1", "runtime": 0.5]),
        ]
        let events = life.enumerated().map { task($1.0, clock: Int64($0 + 1), at: Double($0), $1.1) }
        for _ in 0..<50 {
            var picture = FleetPicture()
            for event in events.shuffled() { picture.hear(event, at: at(10)) }
            let job = picture[job: "1"]
            #expect(job?.state == .succeeded && job?.name == "job" && job?.retries == 1 && job?.result == "1")
            #expect(picture.counts.values.reduce(0) { $0 + $1.succeeded } == 1)
        }
        // It is given another life: what the same worker tells later counts.
        var picture = FleetPicture()
        for event in events { picture.hear(event, at: at(10)) }
        picture.hear(task("received", clock: 7, ["name": "job", "retries": 0]), at: at(11))
        #expect(picture[job: "1"]?.state == .received)
        picture.hear(task("succeeded", clock: 8, ["runtime": 0.5]), at: at(12))
        #expect(picture.counts["job"]?.succeeded == 2 && picture.counts["job"]?.runTime == 1)
    }

    @Test("an event that comes twice is counted once")
    func duplicates() {
        var picture = FleetPicture()
        for event in [task("received", clock: 1, ["name": "job"]), task("succeeded", clock: 2, ["runtime": 1.0])] {
            for _ in 0..<3 { picture.hear(event, at: at(0)) }
        }
        #expect(
            picture.counts.count == 1 && picture.counts["job"]?.succeeded == 1 && picture.counts["job"]?.runTime == 1)
    }

    @Test("jobs and names are bounded, the latest are kept, and what is forgotten is counted")
    func bounds() {
        var picture = FleetPicture(limits: .init(jobs: 100, names: 10))
        for number in 0..<5000 {
            let id = "\(number)"
            picture.hear(task("received", id, clock: Int64(number), ["name": .string("job-\(number)")]), at: at(0))
            picture.hear(task("succeeded", id, clock: Int64(number + 1)), at: at(0))
        }
        #expect(picture.jobCount == 100 && picture.gaps.jobsForgotten == 4900)
        #expect(picture[job: "4999"] != nil && picture[job: "4899"] == nil)
        #expect(Array(picture.latestJobs.prefix(3)).map(\.id) == ["4999", "4998", "4997"])
        #expect(picture.counts.count == 11 && picture.counts[FleetPicture.other]?.succeeded == 4990)
        let long = WireValue.string(String(repeating: "ä", count: 100_000))
        var narrow = FleetPicture(limits: .init(jobs: 100_000, bytes: 1 << 20))
        for number in 0..<2000 {
            narrow.hear(task("received", "\(number)", ["name": long, "args": long, "kwargs": long]), at: at(0))
        }
        #expect(narrow.jobBytes <= 1 << 20 && narrow.jobCount > 10)
        // One job with very many attempts.
        for number in 0..<10_000 {
            narrow.hear(task("retried", "x", clock: Int64(number), ["retries": .integer(Int64(number))]), at: at(0))
        }
        #expect(narrow.jobBytes <= 1 << 20)
    }

    // MARK: - Workers

    @Test("a worker is alive for twice the time that it promises, and dead at once when it says that it leaves")
    func liveness() {
        var picture = FleetPicture()
        picture.hear(worker("online"), at: at(0))
        #expect(picture.liveWorkers(at: at(4)).map(\.name) == ["a@h"])
        #expect(picture.liveWorkers(at: at(4.1)).isEmpty)
        picture.hear(worker("heartbeat", ["freq": 10.0]), at: at(5))
        #expect(picture.liveWorkers(at: at(24)).count == 1)
        picture.hear(worker("offline"), at: at(6))
        #expect(picture.liveWorkers(at: at(6)).isEmpty)
        picture.hear(worker("online", ["pid": 8]), at: at(7))
        #expect(picture.workers["a@h"]?.restarts == 1 && picture.liveWorkers(at: at(7)).count == 1)
        picture.hear(worker("heartbeat", ["freq": 1e300]), at: at(8))
        #expect(picture.liveWorkers(at: at(8 + 7201)).isEmpty, "nobody lives for ever")
        picture.tidy(at: at(200_000))
        #expect(picture.workers.isEmpty)
    }

    @Test("the jobs of a dead worker are not shown as running")
    func deadWorker() {
        var picture = FleetPicture()
        picture.hear(worker("online"), at: at(0))
        picture.hear(task("received", clock: 1), at: at(0))
        picture.hear(task("started", clock: 2), at: at(0))
        #expect(picture.runningJobs(at: at(1)).map(\.id) == ["1"])
        #expect(picture.runningJobs(at: at(5)).isEmpty)
    }

    @Test("what a killed worker ran is not shown as running when another process goes on under its name")
    func restartedWithJobs() {
        var picture = FleetPicture()
        picture.hear(worker("online"), at: at(0))
        picture.hear(task("started", clock: 2, at: 1), at: at(1))
        picture.hear(worker("online", at: 10, ["pid": 8]), at: at(10))
        picture.hear(task("started", "2", clock: 3, at: 11), at: at(11))
        #expect(picture.runningJobs(at: at(11)).map(\.id) == ["2"])
        // The same process, whose connection was away for a moment.
        picture.hear(worker("online", at: 12, ["pid": 8]), at: at(12))
        #expect(picture.runningJobs(at: at(12)).map(\.id) == ["2"])
    }

    @Test("one letter with a million marks is cut as well")
    func marks() {
        var picture = FleetPicture()
        let name = "a" + String(repeating: "\u{301}", count: 1_000_000)
        picture.hear(worker("heartbeat", node: name + "@h"), at: at(0))
        picture.hear(ControlReply(node: name, value: [.string(name)]), to: "registered", at: at(0))
        picture.hear(task("received", "1", ["name": .string(name)]), at: at(0))
        let kept = picture.workers.values.flatMap { [$0.name] + ($0.jobNames ?? []) } + [picture[job: "1"]?.name ?? ""]
        #expect(kept.allSatisfy { $0.utf8.count <= 600 })
    }

    @Test("a worker that goes on under its name with another process begins anew")
    func restart() {
        var picture = FleetPicture()
        let totals: WireValue = ["totals": ["job": ["succeeded": 5]], "lanes": ["async": ["slots": 4, "used": 1]]]
        picture.hear(worker("online", ["hoist": totals]), at: at(0))
        picture.hear(ControlReply(node: "a@h", value: ["pid": 7]), to: "stats", at: at(1))
        #expect(picture.workers["a@h"]?.totals == ["job": ["succeeded": 5]] && picture.workers["a@h"]?.slots == 4)
        picture.hear(worker("heartbeat", ["pid": 8]), at: at(2))
        #expect(picture.workers["a@h"]?.totals == [:] && picture.workers["a@h"]?.statistics == nil)
    }

    @Test("a clock that is off is noted, and changes nothing else")
    func skew() {
        var picture = FleetPicture()
        picture.hear(worker("online", at: 3600), at: at(0))
        picture.hear(worker("heartbeat", at: 3602), at: at(2))
        #expect(picture.workers["a@h"].map { Int($0.clockSkew) } == 3600)
        #expect(picture.liveWorkers(at: at(3)).count == 1)
    }

    @Test("workers are bounded: dead ones make room, and those for whom there is none are counted")
    func workerBounds() {
        var picture = FleetPicture(limits: .init(workers: 10))
        for number in 0..<20 { picture.hear(worker("heartbeat", node: "\(number)@h"), at: at(0)) }
        #expect(picture.workers.count == 10 && picture.gaps.workersLeftOut == 10)
        picture.hear(worker("heartbeat", node: "late@h"), at: at(100))
        #expect(picture.workers["late@h"] != nil && picture.workers.count == 10)
    }

    @Test("gaps are remembered")
    func gaps() {
        var picture = FleetPicture()
        for number in 0..<200 { picture.noteGap(from: at(Double(number)), to: at(Double(number) - 1)) }
        #expect(picture.gaps.count == 200 && picture.gaps.times.count == 100)
    }

    // MARK: - From outside

    @Test("mutated events and replies do not trap, and do not grow without limit")
    func mutated() throws {
        let seeds: [WireValue] = [
            [
                "type": "worker-heartbeat", "hostname": "a@h", "freq": 2.0, "timestamp": 1.8e9,
                "hoist": ["totals": ["j": ["succeeded": 3]], "lanes": ["async": ["slots": 3]], "memory": 7],
            ],
            [
                "type": "task-received", "hostname": "a@h", "uuid": "1", "retries": 3, "clock": 7,
                "eta": "2026-01-01T00:00:00", "name": "n",
            ],
            ["type": "task-succeeded", "hostname": "a@h", "uuid": "1", "runtime": 0.5, "clock": 8, "result": "1"],
            ["type": "hoist-progress", "hostname": "a@h", "uuid": "1", "fraction": 0.5],
        ]
        let odd: [WireValue] = [
            nil, true, .integer(.min), .integer(.max), .double(.nan), .double(.infinity), .double(-1e308), "", "\u{0}",
            .string(String(repeating: "x", count: 5000)), [], [:], .bigInteger("9999999999999999999999"),
            [1, [2, [3]]],
            ["a": ["b": ["c": nil]]],
        ]
        var picture = FleetPicture(limits: .init(jobs: 50, bytes: 1 << 17, workers: 5, names: 5))
        var random = Fuzzing.Generator(seed: 7)
        for round in 0..<20_000 {
            var fields = seeds.randomElement(using: &random)?.objectValue ?? [:]
            for key in fields.keys where Int.random(in: 0..<3, using: &random) == 0 {
                fields[key] = odd.randomElement(using: &random)
            }
            if let event = FleetEvent(fields) { picture.hear(event, at: at(Double(round % 100))) }
            let value = odd.randomElement(using: &random) ?? .null
            for query in ["stats", "active", "active_queues", "registered", "conf", "other"] {
                picture.hear(ControlReply(node: "a@h", value: value), to: query, at: at(0))
                picture.hear(
                    ControlReply(node: "b@h", value: [value, ["id": value, "name": value]]), to: query, at: at(0))
            }
        }
        #expect(picture.jobCount <= 50 && picture.jobBytes <= 1 << 17 && picture.workers.count <= 5)
        _ = picture.runningJobs(at: at(0))
    }
}
