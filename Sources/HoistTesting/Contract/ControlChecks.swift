import Hoist
import Logging

extension BackendContract {
    /// Events of workers, and requests to them.
    static let control: [Check] = [
        Check("a worker tells what its jobs do, that it lives, and that it leaves", parts: [.fanout, .directory]) {
            bench in
            let one = ControlledBench(bench)
            let events = Shared<[FleetEvent]>([])
            try await one.run { fleet, jobs in
                let stream = try await fleet.heardEvents()
                let hearing = Task { for await event in stream { events.change { $0.append(event) } } }
                // The worker has been asked to tell by now, or is in a moment.
                let isTold = try await eventually {
                    try await jobs.enqueue(
                        named: "job", arguments: Arguments(positional: [7]), options: [.id("a-\(JobIdentifier.make())")]
                    )
                    return await events.wait(.milliseconds(500)) { $0.contains { $0.facts.type == "task-succeeded" } }
                }
                try bench.expect(isTold, "the end of a job is told: \(events.value.map(\.facts.type))")
                try await jobs.enqueue(named: "fails", options: [.id("b"), .retry(.none)])
                let isFailed = await events.wait { $0.contains { $0.job?.id == "b" && $0.facts.type == "task-failed" } }
                try bench.expect(isFailed, "the failure of a job is told")
                let types = events.value.filter { $0.job?.id == "b" }.map(\.facts.type)
                try bench.expect(types == ["task-received", "task-started", "task-failed"], "in order: \(types)")
                let received = events.value.first { $0.job?.id == "b" }?.job
                try bench.expect(received?.name == "fails" && received?.queue == "default", "with name and queue")
                try bench.expect(received?.node == one.node, "from the worker: \(received?.node ?? "-")")
                let beats = await events.wait { $0.count { $0.facts.type == "worker-heartbeat" } >= 2 }
                try bench.expect(beats, "heartbeats come by themselves")
                fleet.stop(one)
                let leaves = await events.wait { $0.contains { $0.facts.type == "worker-offline" } }
                try bench.expect(leaves, "the worker says that it leaves")
                hearing.cancel()
            }
        },
        Check("a worker answers those who ask it, and nobody who asks others", parts: [.fanout, .directory]) { bench in
            let one = ControlledBench(bench)
            try await one.run { fleet, jobs in
                let start = ContinuousClock.now
                let pong = try await fleet.replies(to: .ping, timeout: .seconds(60))
                try bench.expect(pong == [one.node: ["ok": "pong"]], "\(pong)")
                try bench.expect(ContinuousClock.now - start < .seconds(30), "without the whole time-out")
                let isFound = try await eventually {
                    try await fleet.replies(to: .ping, of: .pattern("on[d-f]@*")).count == 1
                }
                try bench.expect(isFound, "by a pattern")
                try bench.expect(
                    try await fleet.replies(to: .ping, of: .node("other@host"), timeout: .milliseconds(200)).isEmpty,
                    "not for another")
                let stats = try await one.ask(fleet, .stats)
                try bench.expect(stats?["pool"]?["max-concurrency"] == 2, "\(stats ?? .null)")
                let names = try await one.ask(fleet, .registered)
                try bench.expect(names == ["fails", "holds", "job"], "\(names ?? .null)")
                let unknown = try await one.ask(fleet, .init("no_such_command"))
                try bench.expect(unknown == ["error": "KeyError('no_such_command')"], "\(unknown ?? .null)")
                let mine = try await one.ask(fleet, .init("double", ["number": 21]))
                try bench.expect(mine == ["result": 42], "a command of the program's own: \(mine ?? .null)")
                let bad = try await one.ask(fleet, .init("double", ["number": "x"]))
                try bench.expect(bad?["error"] != nil, "its arguments are checked")
                try await jobs.enqueue(named: "holds", arguments: Arguments(positional: [1]), options: [.id("h")])
                let isActive = try await eventually {
                    // A job shows its arguments once its message is read.
                    let first = try await one.ask(fleet, .active)?.arrayValue?.first
                    return first?["id"] == "h" && first?["args"] == [1]
                }
                let shown = try await one.ask(fleet, .active)
                try bench.expect(isActive, "a running job is shown: \(shown ?? .null)")
                let active = shown?.arrayValue?.first
                try bench.expect(active?["args"] == [1] && active?["acknowledged"] == true, "\(active ?? .null)")
                let found = try await one.ask(fleet, .jobs(["h", "other"]))
                try bench.expect(
                    found?["h"]?.arrayValue?.first == "active" && found?["other"] == nil, "\(found ?? .null)")
            }
        },
        Check(
            "delayed jobs are listed, the nearest first, and found by their ids", needs: [.delays],
            parts: [.fanout, .directory]
        ) { bench in
            let one = ControlledBench(bench)
            try await one.run { fleet, jobs in
                for (id, seconds) in [("far", 5000), ("near", 100), ("mid", 2000)] {
                    try await jobs.enqueue(
                        named: "job", arguments: Arguments(positional: [.string(id)]),
                        options: [.id(id), .after(.seconds(seconds))])
                }
                try await jobs.enqueue(
                    named: "job", options: [.id("elsewhere"), .after(.seconds(50)), .queue("other")])
                for target in [ControlTarget.node(one.node), .all] {
                    let listed =
                        try await fleet.replies(to: .scheduled, of: target, timeout: .seconds(20))[one.node]?.arrayValue
                        ?? []
                    let ids = listed.map { $0["request"]?["id"] }
                    try bench.expect(ids == ["near", "mid", "far"], "\(listed)")
                    try bench.expect(listed.first?["request"]?["args"] == ["near"], "with arguments: \(listed)")
                    try bench.expect(
                        listed.first?["priority"] == 6 && listed.first?["eta"]?.stringValue != nil, "as Celery's")
                }
                let query = Fleet.Query.jobs(["mid", "elsewhere", "no"])
                let found = try await one.ask(fleet, query)
                try bench.expect(found?["mid"]?.arrayValue?.first == "scheduled", "\(found ?? .null)")
                try bench.expect(found?["elsewhere"] == nil && found?["no"] == nil, "\(found ?? .null)")
                _ = try await fleet.revoke(["near"], on: .node(one.node), timeout: .seconds(20))
                try bench.expect(try await bench.backend.record(of: "near")?.state == .cancelled, "revoked")
                let left = try await one.ask(fleet, .scheduled)?.arrayValue ?? []
                try bench.expect(left.map { $0["request"]?["id"] } == ["mid", "far"], "\(left)")
            }
        },
        Check(
            "an election of Python workers is acknowledged, so that it does not wait for this worker", parts: [.fanout]
        ) {
            bench in
            guard let fanout = bench.backend.fanout else { return }
            let one = ControlledBench(bench)
            try await one.run { _, _ in
                let frames = try await fanout.frames(exchange: "celeryev", pattern: "worker.elect.ack")
                let heard = Shared(0)
                let hearing = Task { for await _ in frames { heard.change { $0 += 1 } } }
                let isAcknowledged = try await eventually {
                    let event =
                        #"{"body":"{\"type\":\"worker-elect\",\"hostname\":\"py@h\",\"id\":\"1\",\"topic\":\"t\",\"cver\":1}"}"#
                    _ = try await fanout.send(Array(event.utf8), exchange: "celeryev", key: "worker.elect")
                    return await heard.wait(.milliseconds(300)) { $0 > 0 }
                }
                try bench.expect(isAcknowledged, "by an event of its own")
                hearing.cancel()
            }
        },
        Check(
            "a revoked job that waits is not started, and one that runs is stopped when asked",
            parts: [.fanout, .directory]
        ) {
            bench in
            let one = ControlledBench(bench)
            try await one.run { fleet, jobs in
                try await jobs.enqueue(named: "holds", options: [.id("r1")])
                try await jobs.enqueue(named: "holds", options: [.id("r2")])
                let isFull = try await eventually {
                    try await one.ask(fleet, .active)?.arrayValue?.count == 2
                }
                try bench.expect(isFull, "both slots are taken")
                try await jobs.enqueue(named: "job", options: [.id("w")])
                let said = try await fleet.revoke(["w"], on: .node(one.node), timeout: .seconds(20))[one.node]
                try bench.expect(said == ["ok": "tasks {'w'} flagged as revoked"], "\(said ?? .null)")
                try bench.expect(try await bench.backend.record(of: "w")?.state == .cancelled, "at once")
                let ids = try await one.ask(fleet, .revoked)
                try bench.expect(ids == ["w"], "\(ids ?? .null)")
                let nobody = try await fleet.revoke(
                    ["unknown"], terminate: .term, on: .node(one.node), timeout: .seconds(20))[one.node]
                try bench.expect(nobody == ["ok": "terminate: tasks unknown"], "\(nobody ?? .null)")
                try bench.expect(
                    try await bench.backend.record(of: "unknown")?.state == .cancelled, "an id nobody knows is stored")
                _ = try await fleet.revoke(["r1"], on: .node(one.node), timeout: .seconds(20))
                try bench.expect(
                    try await bench.backend.record(of: "r1")?.state == .running,
                    "one that runs goes on unless asked to stop")
                _ = try await fleet.revoke(["r1"], terminate: .term, on: .node(one.node), timeout: .seconds(20))
                let isStopped = try await eventually {
                    try await bench.backend.record(of: "r1")?.state == .cancelled
                }
                try bench.expect(isStopped, "it was stopped")
                // The id is revoked: a job that comes under it later is dropped.
                try await jobs.enqueue(named: "job", options: [.id("later-\(one.node)")])
                _ = try await fleet.revoke(["r2"], terminate: .kill, on: .node(one.node), timeout: .seconds(20))
                let isFree = try await eventually {
                    try await one.ask(fleet, .active)?.arrayValue?.isEmpty == true
                }
                try bench.expect(isFree, "both are gone")
            }
        },
        Check("slots, queues, rates and quiet are changed while the worker runs", parts: [.fanout, .directory]) {
            bench in
            let one = ControlledBench(bench)
            try await one.run { fleet, jobs in
                func ask(_ name: String, _ arguments: WireValue.Object = [:]) async throws -> WireValue? {
                    try await one.ask(fleet, .init(name, arguments))
                }
                func slots() async throws -> WireValue? { try await ask("stats")?["pool"]?["max-concurrency"] }
                try bench.expect(try await ask("pool_grow", ["n": 2]) == ["ok": "pool will grow"], "grow")
                try bench.expect(try await slots() == 4, "it has grown")
                try bench.expect(try await ask("pool_shrink", ["n": 1]) == ["ok": "pool will shrink"], "shrink")
                try bench.expect(try await ask("pool_shrink", ["n": 9])?["error"] != nil, "a lane keeps a slot")
                try bench.expect(try await slots() == 3, "it has shrunk once")
                try bench.expect(
                    try await ask("autoscale", ["max": 5, "min": 2]) == ["ok": "autoscale now max=5 min=2"], "autoscale"
                )
                try bench.expect(try await ask("pool_grow", ["n": 1])?["error"] != nil, "not beside a range")
                try bench.expect(try await ask("autoscale", ["max": 1, "min": 2])?["error"] != nil, "min above max")
                try bench.expect(
                    try await ask("add_consumer", ["queue": "extra"]) == ["ok": "add consumer extra"], "a queue more")
                let handle = try await jobs.enqueue(named: "job", options: [.queue("extra")])
                let isDone = try await eventually { try await handle.record()?.state == .succeeded }
                try bench.expect(isDone, "its jobs are performed")
                try bench.expect(
                    try await ask("cancel_consumer", ["queue": "extra"]) == ["ok": "no longer consuming from extra"],
                    "less")
                // A claim that is under way may still bring one.
                func waiting(_ queue: String) async throws -> JobHandle<WireValue> {
                    for _ in 0..<20 {
                        let handle = try await jobs.enqueue(named: "job", options: [.queue(queue)])
                        _ = try await ask("ping")
                        if try await handle.record()?.state == .waiting { return handle }
                    }
                    return try await jobs.enqueue(named: "job", options: [.queue(queue)])
                }
                let left = try await waiting("extra")
                try bench.expect(try await ask("quiet")?["ok"] != nil, "quiet")
                let waits = try await waiting("default")
                try await jobs.enqueue(named: "job", options: [.id("marker"), .queue("nobody")])
                try bench.expect(try await waits.record()?.state == .waiting, "a quiet worker takes nothing")
                try bench.expect(try await ask("resume")?["ok"] != nil, "resume")
                let isTaken = try await eventually { try await waits.record()?.state == .succeeded }
                try bench.expect(isTaken, "it takes jobs again")
                try bench.expect(try await left.record()?.state == .waiting, "of its queues alone")
                try bench.expect(
                    try await ask("rate_limit", ["task_name": "no", "rate_limit": "1/s"]) == ["error": "unknown task"],
                    "unknown")
                // The bucket fills from the command on.
                let start = ContinuousClock.now
                try bench.expect(
                    try await ask("rate_limit", ["task_name": "job", "rate_limit": "5/s"])
                        == ["ok": "new rate limit set successfully"], "a rate")
                let limited = try await jobs.enqueue(named: "job", options: [.id("rate-1")])
                var last = limited
                for number in 2...6 { last = try await jobs.enqueue(named: "job", options: [.id("rate-\(number)")]) }
                let isLimited = try await eventually { try await last.record()?.state == .succeeded }
                let took = ContinuousClock.now - start
                try bench.expect(isLimited && took > .milliseconds(800), "six at five a second took \(took)")
                try bench.expect(
                    try await ask("rate_limit", ["task_name": "job", "rate_limit": 0])
                        == ["ok": "rate limit disabled successfully"], "no rate")
                try bench.expect(
                    try await ask("time_limit", ["task_name": "job", "hard": 5])?["error"] != nil, "no process")
                try bench.expect(
                    try await ask("time_limit", ["task_name": "job", "soft": 5]) == [
                        "ok": "time limits set successfully"
                    ],
                    "a soft limit")
            }
        },
    ]
}

/// A worker that is asked from outside.
private final class ControlledBench: Sendable {
    private let bench: ContractBench
    let worker: Worker
    let node: String

    struct Number: Codable { var number: Int }
    struct Broken: Error {}

    init(_ bench: ContractBench) {
        self.bench = bench
        node = "one@\(JobIdentifier.make().suffix(8))"
        let silent = Logger(label: "contract") { _ in SwiftLogNoOpLogHandler() }
        let double = ControlCommand("double") { (request: Number, _) in ["result": request.number * 2] }
        worker = Worker(
            bench.backend, lanes: [.async(2)],
            configuration: .init(
                name: node, heartbeatInterval: .milliseconds(200), commands: [double], onStart: nil), logger: silent
        ) {
            Handler(named: "job") { _, _ in .null }
            Handler(named: "fails") { _, _ in throw Broken() }
            Handler(named: "holds") { _, _ in
                try await Task.sleep(for: .seconds(60))
                return .null
            }
        }
    }

    /// What the worker answers; nil where it does not within 20 seconds.
    func ask(_ fleet: Fleet, _ query: Fleet.Query) async throws -> WireValue? {
        try await fleet.replies(to: query, of: .node(node), timeout: .seconds(20))[node]
    }

    /// Calls the body once the worker answers, and stops the worker afterwards.
    func run(_ body: (Fleet, JobClient) async throws -> Void) async throws {
        let fleet = try Fleet(bench.backend)
        let silent = Logger(label: "contract") { _ in SwiftLogNoOpLogHandler() }
        let jobs = JobClient(bench.backend, configuration: bench.impatient, logger: silent)
        let running = Task { [worker] in try await worker.run() }
        let result: Result<Void, any Error>
        do {
            let answers = try await eventually {
                try await fleet.replies(to: .ping, of: .node(self.node), timeout: .milliseconds(200)).count == 1
            }
            try bench.expect(answers, "the worker answers")
            try await body(fleet, jobs)
            result = .success(())
        } catch {
            result = .failure(error)
        }
        worker.stop(.immediately)
        try await running.value
        try result.get()
    }
}

extension Fleet {
    fileprivate func stop(_ bench: ControlledBench) { bench.worker.stop(.immediately) }
}
