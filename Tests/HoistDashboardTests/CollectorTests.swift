import Foundation
import Hoist
@testable import HoistDashboard
import HoistMonitor
import HoistTesting
import Logging
import Testing

private let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// What a dashboard makes of what it hears.
@Suite("Collecting", .timeLimit(.minutes(3)))
struct CollectorTests {
    private struct Echo: Job {
        static let name = "echo"
        var number: Int
    }

    private struct Broken: Error {}

    private func dashboard(_ backend: some BackendConvertible) throws -> Dashboard {
        try Dashboard([DashboardBackend("prod", backend)], logger: silent)
    }

    private func running(_ dashboard: Dashboard, _ body: () async throws -> Void) async throws {
        let running = Task { try await dashboard.run() }
        let result: Result<Void, any Error>
        do { result = .success(try await body()) } catch { result = .failure(error) }
        running.cancel()
        _ = await running.result
        try result.get()
    }

    private func found(_ dashboard: Dashboard, _ text: String) async throws -> Int {
        let query = JobPageQuery(backend: dashboard.collectors[0].number, search: try JobSearch(text))
        return try await dashboard.store.count(query, at: Date())
    }

    @Test("the jobs of a real worker are in the history, each with its end, and are counted once")
    func realWorker() async throws {
        let backend = MemoryBackend()
        let dashboard = try dashboard(backend)
        let worker = Worker(
            backend, configuration: .init(name: "w@h", heartbeatInterval: .milliseconds(200)), logger: silent
        ) {
            Handler(Echo.self) { job, _ in
                if job.number % 10 == 3 { throw Broken() }
            }
        }
        try await running(dashboard) {
            try await withWorker(worker) {
                let isHeard = try await eventually {
                    dashboard.collectors[0].view { $0.picture.workers["w@h"]?.statistics != nil }
                }
                #expect(isHeard, "the worker was asked about itself")
                try await JobClient(backend, logger: silent).enqueue(contentsOf: (0..<200).map(Echo.init))
                let areKept = try await eventually { try await found(dashboard, "state:succeeded") == 180 }
                let told = dashboard.collectors[0].view {
                    "\($0.picture.counts) \($0.picture.gaps) \($0.picture.jobCount)"
                }
                let all = try await found(dashboard, "")
                #expect(areKept, "\(told) \(all)")
                #expect(try await found(dashboard, "state:failed worker:w@h queue:default") == 20)
                // Heartbeats with totals come meanwhile: they add nothing to what events told.
                let first = dashboard.collectors[0].view { $0.picture.workers["w@h"]?.heardAt }
                let hasBeaten = try await eventually {
                    let last = dashboard.collectors[0].view { $0.picture.workers["w@h"]?.heardAt }
                    return last?.timeIntervalSince(first ?? Date()) ?? 0 > 0.7
                }
                #expect(hasBeaten)
                let sum = dashboard.collectors[0].view { $0.tallies.sum(.all, seconds: 3600, at: Date()) }
                #expect(sum.succeeded == 180 && sum.failed == 20 && sum.runs.count >= 180)
            }
        }
    }

    @Test("what events left out is counted from the totals of heartbeats, and nothing twice")
    func totals() throws {
        var reckoning = Reckoning()
        func worker(_ totals: WireValue, pid: Int64 = 7) -> MonitoredWorker {
            var picture = FleetPicture()
            picture.hear(
                FleetEvent([
                    "type": "worker-heartbeat", "hostname": "w@h", "sw_ident": "hoist", "pid": .integer(pid),
                    "timestamp": 1.0, "hoist": ["totals": ["mail": totals]],
                ])!, at: Date(timeIntervalSince1970: 1))
            return picture.workers["w@h"]!
        }
        let ok = Reckoning.Kind(name: "mail", state: .succeeded)
        #expect(reckoning.take(worker(["succeeded": 100])).isEmpty, "before it was heard of")
        for _ in 0..<30 { reckoning.count(ok) }
        #expect(reckoning.take(worker(["succeeded": 150])).isEmpty, "their events may still come")
        for _ in 0..<5 { reckoning.count(ok) }
        let missing = reckoning.take(worker(["succeeded": 160]))
        #expect(missing.count == 1 && missing[0].kind == ok && missing[0].missing == 15)
        #expect(reckoning.take(worker(["succeeded": 160])).map(\.missing) == [10])
        #expect(reckoning.take(worker(["succeeded": 160])).isEmpty)
        #expect(reckoning.take(worker(["succeeded": 3], pid: 8)).isEmpty, "another process")
        #expect(reckoning.take(worker(["succeeded": 3], pid: 8)).isEmpty)
    }

    @Test("of a dead worker's jobs the backend is asked: they have ended, or are lost")
    func orphans() async throws {
        let backend = MemoryBackend()
        let dashboard = try dashboard(backend)
        let collector = dashboard.collectors[0]
        let jobs = JobClient(backend, logger: silent)
        let ended = try await jobs.enqueue(named: "mail", options: [.id("ended")])
        _ = try await ended.cancel()
        try await jobs.enqueue(named: "mail", options: [.id("back")])
        // The worker beat long ago, and was never heard of again.
        let past = Date().addingTimeInterval(-100)
        func tell(_ type: String, _ id: String) {
            let fields: WireValue.Object = [
                "type": .string(type), "uuid": .string(id), "hostname": "dead@h", "name": "mail", "queue": "default",
                "freq": 2.0, "timestamp": .double(past.timeIntervalSince1970),
            ]
            collector.take(FleetEvent(fields)!, at: past)
        }
        tell("worker-heartbeat", "")
        for id in ["ended", "back", "gone"] {
            tell("task-received", id)
            tell("task-started", id)
        }
        try await running(dashboard) {
            let areSettled = try await eventually { try await found(dashboard, "state:lost id:gone") == 1 }
            #expect(areSettled)
            #expect(try await found(dashboard, "state:cancelled id:ended") == 1)
            #expect(try await found(dashboard, "state:waiting id:back") == 1)
            #expect(try await found(dashboard, "state:running") == 0)
            // It is heard of again after all.
            let fields: WireValue.Object = [
                "type": "task-succeeded", "uuid": "gone", "hostname": "dead@h",
                "timestamp": .double(Date().timeIntervalSince1970),
            ]
            collector.take(FleetEvent(fields)!)
            let isBack = try await eventually { try await found(dashboard, "state:succeeded id:gone") == 1 }
            #expect(isBack)
        }
    }

    @Test("secrets are hidden before anything is stored")
    func secrets() async throws {
        let dashboard = try dashboard(MemoryBackend())
        let fields: WireValue.Object = [
            "type": "task-received", "uuid": "1", "hostname": "py@h", "name": "login", "timestamp": 1.0,
            "kwargs": "{'user': 'ada', 'password': 'hush', 'nested': {'api_key': 'hush'}}",
        ]
        dashboard.collectors[0].take(FleetEvent(fields)!)
        try await running(dashboard) {
            let isKept = try await eventually { try await found(dashboard, "id:1") == 1 }
            #expect(isKept)
            let job = try await dashboard.store.job("1", backend: dashboard.collectors[0].number)?.job
            #expect(job?.keywordText?.contains("ada") == true && job?.keywordText?.contains("hush") == false)
        }
    }

    @Test("more kinds of jobs than there is room for are counted together")
    func manyNames() {
        var tallies = RecentTallies()
        for number in 0..<2000 {
            tallies.add(name: "n\(number)", queue: nil, worker: nil, at: Date()) { $0.add(.succeeded, run: nil) }
        }
        #expect(tallies.series(.name).count <= RecentTallies.mostSeries + 1)
        let other = tallies.sum(Series(kind: .name, label: Series.other), seconds: 3600, at: Date())
        #expect(other.succeeded == 2000 - (RecentTallies.mostSeries - 1))
        #expect(tallies.sum(.all, seconds: 3600, at: Date()).succeeded == 2000)
    }

    @Test("what a worker did before the dashboard began is not counted as done now, whenever it tells of it")
    func oldTotals() {
        var reckoning = Reckoning()
        func worker(_ totals: WireValue) -> MonitoredWorker {
            var picture = FleetPicture()
            picture.hear(
                FleetEvent([
                    "type": "worker-heartbeat", "hostname": "w@h", "sw_ident": "hoist", "pid": 7, "timestamp": 1.0,
                    "hoist": ["totals": totals],
                ])!, at: Date(timeIntervalSince1970: 1))
            return picture.workers["w@h"]!
        }
        #expect(reckoning.take(worker(["mail": ["succeeded": 10]])).isEmpty)
        // A full heartbeat, half a minute later.
        let all: WireValue = ["mail": ["succeeded": 10, "failed": 5000], "old": ["failed": 7000]]
        for _ in 0..<3 { #expect(reckoning.take(worker(all)).isEmpty) }
        // From its start on everything counts.
        var other = Reckoning()
        #expect(other.take(worker([:]), hasStarted: true).isEmpty)
        #expect(other.take(worker(["mail": ["failed": 3]])).isEmpty)
        #expect(other.take(worker(["mail": ["failed": 3]])).map(\.missing) == [3])
    }

    @Test("a worker that was killed and started again under its name has lost what it had")
    func restarted() async throws {
        let dashboard = try dashboard(MemoryBackend())
        let collector = dashboard.collectors[0]
        let past = Date().addingTimeInterval(-30)
        func tell(_ type: String, _ id: String, pid: Int64, at time: Date) {
            collector.take(
                FleetEvent([
                    "type": .string(type), "uuid": .string(id), "hostname": "w@h", "name": "mail", "pid": .integer(pid),
                    "freq": 3600.0, "timestamp": .double(time.timeIntervalSince1970),
                ])!, at: time)
        }
        tell("worker-online", "", pid: 1, at: past)
        tell("task-received", "gone", pid: 1, at: past.addingTimeInterval(1))
        tell("task-started", "gone", pid: 1, at: past.addingTimeInterval(1))
        tell("worker-online", "", pid: 2, at: past.addingTimeInterval(5))
        try await running(dashboard) {
            let isLost = try await eventually { try await found(dashboard, "state:lost id:gone") == 1 }
            #expect(isLost)
        }
    }

    @Test("what was heard in the last moment is written when the dashboard stops")
    func lastMoment() async throws {
        for _ in 0..<5 {
            let dashboard = try dashboard(MemoryBackend())
            try await running(dashboard) {
                for number in 0..<20 {
                    dashboard.collectors[0].take(
                        FleetEvent([
                            "type": "task-received", "uuid": .string("\(number)"), "hostname": "w@h", "name": "mail",
                            "timestamp": 1.0,
                        ])!)
                }
            }
            #expect(try await found(dashboard, "") == 20)
        }
    }

    @Test("a job that runs is not forgotten for those that have ended since")
    func longJob() {
        var picture = FleetPicture(limits: .init(jobs: 100))
        func tell(_ type: String, _ id: String) {
            picture.hear(
                FleetEvent([
                    "type": .string(type), "uuid": .string(id), "hostname": "w@h", "name": "mail", "timestamp": 1.0,
                ])!, at: Date(timeIntervalSince1970: 1))
        }
        for id in ["long", "longer"] { for type in ["task-received", "task-started"] { tell(type, id) } }
        for number in 0..<1000 { for type in ["task-received", "task-succeeded"] { tell(type, "\(number)") } }
        #expect(picture[job: "long"]?.state == .started && picture[job: "longer"]?.state == .started)
        #expect(picture.jobCount == 100)
        // Also of those that run there are no more than fit.
        for number in 0..<500 { tell("task-started", "r\(number)") }
        #expect(picture.jobCount <= 100)
    }
}
