import Foundation
#if canImport(FoundationNetworking)
import FoundationNetworking
#endif
import Hoist
import HoistRedis
import HoistTesting
import Logging
import RESP
import TestServers
import Testing

/// Celery's tools and a Swift worker, Hoist's tools and a Python worker.
@Suite(
    "Remote control with real Celery", .serialized, .timeLimit(.minutes(5)),
    .enabled(if: PythonPeer.interpreter != nil, Comment(rawValue: PythonPeer.isMissing)))
struct CeleryControlTests {
    private let silent = Logger(label: "mixed", factory: { _ in SwiftLogNoOpLogHandler() })

    /// A Python worker and a Swift worker with the same kinds of tasks.
    private func withBoth(_ body: (MixedBench, Fleet, _ swift: String, _ python: String) async throws -> Void)
        async throws
    {
        let bench = try MixedBench()
        let python = try bench.startPythonWorker(["-P", "prefork", "-c", "1", "-Q", "mixed,py", "-n", "py1@hostA"])
        defer { PythonPeer.stop(python) }
        let worker = Worker(
            bench.backend, queues: ["mixed", "sw"], lanes: [.async(2)],
            configuration: .init(name: "swift1@hostB", events: .whenAsked), logger: silent
        ) {
            Handler(Add.self) { job, _ in job.x + job.y }
            Handler(Fail.self) { job, _ in throw NoLuck(description: job.message) }
            Handler(named: "mixed.steps") { arguments, context in
                try await Task.sleep(for: .seconds(arguments.positional.first?.doubleValue ?? 60))
                return .null
            }
        }
        let running = Task { try await worker.run() }
        let fleet = try Fleet(bench.backend)
        let nodes: Set = ["py1@hostA", "swift1@hostB"]
        let areUp = try await eventually(.seconds(60)) {
            Set(try await fleet.replies(to: .ping, timeout: .milliseconds(500)).keys) == nodes
        }
        #expect(areUp, "\(bench.pythonLog)")
        do { try await body(bench, fleet, "swift1@hostB", "py1@hostA") } catch {
            worker.stop(.immediately)
            try await running.value
            throw error
        }
        worker.stop(.immediately)
        try await running.value
    }

    /// What a value is made of, as lines: the members of objects, and the first element of arrays.
    private func shape(_ value: WireValue, _ path: String = "") -> Set<String> {
        switch value {
        case .null: ["\(path): null"]
        case .bool: ["\(path): boolean"]
        case .integer, .bigInteger, .double: ["\(path): number"]
        case .string: ["\(path): text"]
        case .array(let elements): Set(["\(path): array"]).union(elements.first.map { shape($0, path + "[]") } ?? [])
        case .object(let members):
            // Ids of jobs are as good as any other.
            members.reduce(into: ["\(path): object"]) {
                $0.formUnion(shape($1.value, path + "." + ($1.key.count == 36 ? "JOB" : $1.key)))
            }
        }
    }

    @Test("a Swift worker replies to each of Celery's commands as a Python worker does, member by member")
    func replies() async throws {
        try await withBoth { bench, fleet, swift, python in
            let runs = try await [("sw", swift), ("py", python)].asyncMap { queue, node in
                try await bench.client.enqueue(
                    named: "mixed.steps", arguments: Arguments(positional: [60]), options: [.queue(queue)]
                ).id
            }
            let areRunning = try await eventually(.seconds(30)) {
                let active = try await fleet.replies(to: .active)
                return [swift, python].allSatisfy { active[$0]?.arrayValue?.count == 1 }
            }
            #expect(areRunning)
            let answers = try await bench.python("\(swift),\(python)", runs.joined(separator: ","), in: "control.py")
            let text = try String(
                contentsOfFile: MixedBench.folder + "/control-differences.txt", encoding: .utf8)
            let allowed = text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map { line in
                String(line.split(separator: " — ", maxSplits: 1)[0])
            }
            func matches(_ line: String, _ rule: String) -> Bool {
                rule.hasSuffix("*") ? line.hasPrefix(rule.dropLast()) : line == rule
            }
            var seen: Set<String> = []
            for answer in answers.arrayValue ?? [] {
                let parts = answer.arrayValue ?? []
                let (name, replies) = (parts[0].stringValue ?? "", parts[2])
                let mine = try #require(replies[swift], "\(name) of Swift")
                let theirs = try #require(replies[python], "\(name) of Python")
                let (mineShape, theirShape) = (shape(mine, name), shape(theirs, name))
                for line in mineShape.subtracting(theirShape) { seen.insert("+ " + line) }
                for line in theirShape.subtracting(mineShape) { seen.insert("- " + line) }
            }
            for line in seen where !allowed.contains(where: { matches(line, $0) }) {
                Issue.record("a difference that is not listed: \(line)")
            }
            for rule in allowed where !seen.contains(where: { matches($0, rule) }) {
                Issue.record("a listed difference is gone: \(rule)")
            }
            _ = try await fleet.revoke(runs, terminate: .kill)
        }
    }

    @Test("Celery's command line does with a Swift worker what it does with a Python worker")
    func commandLine() async throws {
        try await withBoth { bench, _, swift, python in
            // Status and lines of output, but for what the replies hold.
            @Sendable func run(_ node: String, _ words: [String]) async throws -> (status: Int32, text: String) {
                let log = FileManager.default.temporaryDirectory.appendingPathComponent("cli-\(UUID().uuidString)")
                defer { try? FileManager.default.removeItem(at: log) }
                let process = try PythonPeer.start(
                    ["-m", "celery", "-A", "peer_tasks"] + words + ["-d", node, "-t", "10"], in: MixedBench.folder,
                    environment: bench.environment, log: log)
                let hasEnded = try await eventually(.seconds(30)) { !process.isRunning }
                #expect(hasEnded, "\(words)")
                let text = (try? String(contentsOf: log, encoding: .utf8)) ?? ""
                return (process.terminationStatus, text.replacing(node, with: "NODE"))
            }
            for words in [
                ["status"], ["inspect", "ping"], ["inspect", "active"], ["inspect", "reserved"],
                ["inspect", "revoked"],
                ["control", "enable_events"], ["control", "rate_limit", "mixed.add", "10/m"],
                ["control", "time_limit", "mixed.add", "10"], ["control", "add_consumer", "extra"],
                ["control", "cancel_consumer", "extra"], ["control", "pool_grow", "1"],
                ["control", "rate_limit", "no.such", "10/m"],
            ] {
                async let first = run(swift, words)
                async let second = run(python, words)
                let (mine, theirs) = try await (first, second)
                #expect(mine.status == theirs.status && mine.text == theirs.text, "\(words): \(mine) and \(theirs)")
                #expect(mine.status == 0 || words.contains("no.such"), "\(words): \(mine)")
            }
            for words in [
                ["inspect", "stats"], ["inspect", "registered"], ["inspect", "active_queues"], ["inspect", "conf"],
                ["inspect", "report"], ["inspect", "clock"], ["inspect", "scheduled"], ["inspect", "memsample"],
            ] {
                async let first = run(swift, words)
                async let second = run(python, words)
                let (mine, theirs) = try await (first, second)
                #expect(mine.status == 0 && theirs.status == 0, "\(words): \(mine) and \(theirs)")
                #expect(mine.text.contains("NODE: OK"), "\(words): \(mine)")
            }
            let gone = try await run(swift, ["control", "shutdown"])
            #expect(gone.status == 69, "shutdown is never answered: \(gone)")
        }
    }

    @Test("Hoist asks, revokes and terminates in a Python worker, and hears what it tells")
    func pythonWorker() async throws {
        try await withBoth { bench, fleet, _, python in
            let events = Shared<[FleetEvent]>([])
            let stream = try await fleet.heardEvents()
            let hearing = Task { for await event in stream { events.change { $0.append(event) } } }
            defer { hearing.cancel() }
            func told(_ id: JobID) -> [String] { events.value.filter { $0.job?.id == id }.map(\.facts.type) }
            func send(_ name: String, _ arguments: [WireValue]) async throws -> JobID {
                try await bench.client.enqueue(
                    named: name, arguments: Arguments(positional: arguments), options: [.queue("py")]
                ).id
            }
            let isTold = try await eventually(.seconds(30)) {
                let id = try await send("mixed.add", [1, 2])
                return await events.wait(.seconds(1)) { _ in told(id).last == "task-succeeded" }
            }
            #expect(isTold, "\(events.value.map(\.facts.type))")
            let failed = try await send("mixed.fail", ["no"])
            #expect(await events.wait { _ in told(failed).last == "task-failed" })
            #expect(events.value.last { $0.job?.id == failed }?.job?.exception == "ValueError('no')")
            let running = try await send("mixed.steps", [100])
            #expect(await events.wait { _ in told(running).contains("task-started") })
            let waiting = try await send("mixed.add", [3, 4])
            let active = try await fleet.replies(to: .active, of: .node(python), timeout: .seconds(20))[python]?
                .arrayValue
            #expect(active?.map { $0["id"] } == [.string(running)], "\(active ?? [])")
            try await fleet.revoke([waiting])
            let said = try await fleet.revoke([running], terminate: .kill, on: .node(python), timeout: .seconds(20))[
                python]
            #expect(said == ["ok": .string("terminate: \(running)")], "\(said ?? .null)")
            #expect(await events.wait { _ in told(running).last == "task-revoked" })
            let areCancelled = try await eventually {
                for id in [running, waiting] where try await bench.backend.record(of: id)?.state != .cancelled {
                    return false
                }
                return true
            }
            #expect(areCancelled)
            let beats = try await eventually { events.value.contains { $0.facts.fields["sw_ident"] == "py-celery" } }
            #expect(beats, "a Python worker's heartbeats are heard")
        }
    }

    /// Runs Hoist's command line on the queues of the bench.
    private func hoist(_ arguments: [String], _ bench: MixedBench) async throws -> (status: Int32, text: String) {
        let backend = bench.url + "?prefix=\(bench.prefix)&result_prefix=\(bench.prefix)"
        return try await BuiltProgram.run("hoist", arguments + ["--backend", backend])
    }

    @Test("hoist lists, asks, explains and stops on a fleet of Python's workers alone")
    func commandLineOnPython() async throws {
        let bench = try MixedBench()
        let python = try bench.startPythonWorker(["-P", "prefork", "-c", "1", "-Q", "mixed", "-n", "py1@hostA", "-E"])
        defer { PythonPeer.stop(python) }
        let fleet = try Fleet(bench.backend)
        let isUp = try await eventually(.seconds(60)) {
            try await fleet.replies(to: .ping, timeout: .milliseconds(500)).count == 1
        }
        #expect(isUp, "\(bench.pythonLog)")
        let running = try await bench.client.enqueue(
            named: "mixed.steps", arguments: Arguments(positional: [100]))
        let waiting = try await bench.client.enqueue(
            named: "mixed.add", arguments: Arguments(positional: [1, 2]))
        let isActive = try await eventually {
            try await fleet.replies(to: .active)["py1@hostA"]?.arrayValue?.isEmpty == false
        }
        #expect(isActive)

        let workers = try await hoist(["workers", "--json"], bench)
        let row = try JSONText.parse(Array(workers.text.utf8)).arrayValue?.first
        #expect(workers.status == 0 && row?["name"] == "py1@hostA" && row?["language"] == "python", "\(workers)")
        #expect(row?["queues"] == ["mixed"] && row?["running"] == 1 && row?["concurrency"] == 1)
        let jobNames = row?["job_names"]?.arrayValue ?? []
        #expect(jobNames.contains("mixed.add"))
        let table = try await hoist(["workers"], bench).text
        #expect(table.contains("py1@hostA") && table.contains("Python"))

        let pong = try await hoist(["inspect", "ping", "--on", "py1@hostA", "--timeout", "20"], bench)
        #expect(pong.status == 0 && pong.text.contains("py1@hostA"), "\(pong)")
        #expect(try await hoist(["inspect", "ping", "--on", "nobody@h", "--timeout", "0.3"], bench).status == 69)
        let active = try await hoist(["inspect", "active", "--json", "--on", "py1@hostA", "--timeout", "20"], bench)
        #expect(active.text.contains(running.id), "\(active)")
        let grown = try await hoist(["control", "pool_grow", "--json", "--on", "py1@hostA", "--timeout", "20"], bench)
        #expect(grown.status == 0 && grown.text.contains("pool will grow"), "\(grown)")
        let beats = try await hoist(["events", "--type", "worker-heartbeat", "--count", "1", "--json"], bench)
        #expect(beats.status == 0 && beats.text.contains("py-celery"), "\(beats)")

        func why(_ id: JobID) async throws -> WireValue {
            try JSONText.parse(Array(try await hoist(["why", id, "--json"], bench).text.utf8))
        }
        #expect(try await why("nobody")["code"] == "unknown")
        let reason = try await why(running.id)
        #expect(reason["code"] == "running" || reason["code"] == "with_python_worker", "\(reason)")
        #expect(try await hoist(["cancel", waiting.id], bench).status == 0)
        let isStopped = try await hoist(
            ["control", "terminate", "KILL", running.id, "--json", "--on", "py1@hostA", "--timeout", "20"], bench)
        #expect(isStopped.status == 0 && isStopped.text.contains(running.id), "\(isStopped)")
        let isCancelled = try await eventually(.seconds(20)) {
            try await bench.backend.record(of: running.id)?.state == .cancelled
        }
        #expect(isCancelled)
    }

    @Test("an election among two Python workers, with a Swift worker present, runs its action exactly once")
    func elections() async throws {
        let bench = try MixedBench()
        let pythons = try (1...2).map { number in
            try PythonPeer.start(
                [
                    "-m", "celery", "-A", "peer_tasks", "worker", "-P", "solo", "-l", "info", "-Q", "mixed", "-n",
                    "py\(number)@h",
                ], in: MixedBench.folder, environment: bench.environment, log: bench.log)
        }
        defer { for python in pythons { PythonPeer.stop(python) } }
        let worker = bench.worker(.init(name: "swift@h"))
        let running = Task { try await worker.run() }
        let fleet = try Fleet(bench.backend)
        let acks = Shared<[JobID: Set<String>]>([:])
        let beats = Shared<Set<String>>([])
        let stream = try await fleet.heardEvents()
        let hearing = Task {
            for await event in stream {
                let facts = event.facts
                if facts.type == "worker-heartbeat" { beats.change { $0.insert(facts.node) } }
                guard facts.type == "worker-elect-ack", let id = facts.fields["id"]?.stringValue else { continue }
                acks.change { $0[id, default: []].insert(facts.node) }
            }
        }
        defer { hearing.cancel() }
        let nodes: Set = ["py1@h", "py2@h", "swift@h"]
        #expect(await beats.wait(.seconds(60)) { $0 == nodes }, "\(bench.pythonLog)")
        let probe = try RESPClient(RESPConfiguration(url: bench.url))
        defer { probe.close() }
        for number in 1...4 {
            // A second run of the one before would be here by now.
            let before = try await probe.send(RESPCommand("LLEN", [.text(bench.prefix + "elected")])).integer
            #expect(before == Int64(number - 1))
            _ = try await bench.python("election-\(number)", in: "election.py")
            #expect(await acks.wait(.seconds(20)) { $0["election-\(number)"] == nodes }, "\(acks.value)")
            let isRun = try await eventually(.seconds(20)) {
                try await probe.send(RESPCommand("LLEN", [.text(bench.prefix + "elected")])).integer ?? 0 >= number
            }
            #expect(isRun, "\(bench.pythonLog)")
        }
        worker.stop(.immediately)
        try await running.value
    }

    @Test("a Python program revokes and terminates in a Swift worker, in the process lane as well")
    func swiftWorker() async throws {
        try await withBoth { bench, fleet, swift, _ in
            let id = try await bench.client.enqueue(
                named: "mixed.steps", arguments: Arguments(positional: [100]), options: [.queue("sw")]
            ).id
            let isRunning = try await eventually {
                try await fleet.replies(to: .active, of: .node(swift), timeout: .seconds(20))[swift]?.arrayValue?.count
                    == 1
            }
            #expect(isRunning)
            let reply = try await bench.python(swift, id, in: "revoke.py")
            #expect(reply[swift]?["ok"]?.stringValue?.hasPrefix("terminate: \(id) (asked to stop") == true, "\(reply)")
            let isOver = try await eventually { try await bench.backend.record(of: id)?.state == .cancelled }
            #expect(isOver)
        }
    }

    /// A running Flower.
    private struct Flower {
        let port: Int

        func call(_ method: String, _ path: String, _ body: WireValue? = nil) async throws -> (
            status: Int, value: WireValue
        ) {
            var request = URLRequest(url: try #require(URL(string: "http://127.0.0.1:\(port)\(path)")))
            request.httpMethod = method
            if let body {
                request.httpBody = Data(JSONText.shown(body).utf8)
                request.setValue("application/json", forHTTPHeaderField: "Content-Type")
            }
            let (data, response) = try await URLSession.shared.data(for: request)
            let value = (try? JSONText.parse(Array(data))) ?? .string(String(decoding: data, as: UTF8.self))
            return ((response as? HTTPURLResponse)?.statusCode ?? 0, value)
        }
    }

    private func withFlower(_ bench: MixedBench, _ body: (Flower) async throws -> Void) async throws {
        let flower = Flower(port: try RedisServer.freePort())
        let process = try PythonPeer.start(
            ["-m", "celery", "-A", "peer_tasks", "flower", "--address=127.0.0.1", "--port=\(flower.port)"],
            in: MixedBench.folder,
            environment: bench.environment.merging(["FLOWER_UNAUTHENTICATED_API": "true"]) { $1 }, log: bench.log)
        defer { PythonPeer.stop(process) }
        let isUp = try await eventually(.seconds(60)) { (try? await flower.call("GET", "/api/workers"))?.status == 200 }
        #expect(isUp, "\(bench.pythonLog)")
        try await body(flower)
    }

    /// The first cells of the rows of tables, and the headings, in a page: what it tells of.
    private func labels(of page: WireValue) -> Set<String> {
        let text = page.stringValue ?? ""
        let cells = text.matches(of: /<tr[^>]*>\s*<td[^>]*>([^<]*)<\/td>/).map { String($0.output.1) }
        let headings = text.matches(of: /<(?:th|h[1-4]|dt)[^>]*>([^<]*)</).map { String($0.output.1) }
        return Set((cells + headings).map { $0.trimmingCharacters(in: .whitespacesAndNewlines) }.filter { !$0.isEmpty })
    }

    /// The members of an object with the kinds of their values.
    private func members(_ value: WireValue?) -> Set<String> {
        Set((value?.objectValue ?? [:]).map { "\($0.key): \(shape($0.value).sorted().first ?? "")" })
    }

    @Test("on a mixed fleet Flower shows Swift's workers and tasks as it shows Python's, on every route that reads")
    func flowerOnMixedFleet() async throws {
        try await withBoth { bench, fleet, swift, python in
            // Two and two.
            let secondPython = try bench.startPythonWorker(
                ["-P", "prefork", "-c", "1", "-Q", "py2", "-n", "py2@hostA"])
            defer { PythonPeer.stop(secondPython) }
            let second = Worker(
                bench.backend, queues: ["sw2"], lanes: [.async(2)], configuration: .init(name: "swift2@hostB"),
                logger: silent
            ) {
                Handler(Add.self) { job, _ in job.x + job.y }
                Handler(Fail.self) { job, _ in throw NoLuck(description: job.message) }
            }
            let queues = [("sw", swift), ("py", python), ("sw2", "swift2@hostB"), ("py2", "py2@hostA")]
            try await withWorker(second) {
                let areUp = try await eventually(.seconds(60)) {
                    try await fleet.replies(to: .ping, timeout: .milliseconds(500)).count == 4
                }
                #expect(areUp)
                try await withFlower(bench) { flower in
                    // Each runs a task that succeeds and one that fails.
                    var ids: [String: JobID] = [:]
                    let areTold = try await eventually(.seconds(60)) {
                        for (queue, node) in queues {
                            for (name, arguments) in [("mixed.add", [1, 2]), ("mixed.fail", ["no"])]
                                as [(String, [WireValue])]
                            {
                                ids["\(node) \(name)"] = try await bench.client.enqueue(
                                    named: name, arguments: Arguments(positional: arguments), options: [.queue(queue)]
                                ).id
                            }
                        }
                        for (key, id) in ids {
                            let isTold = try await eventually(.seconds(3)) {
                                let task = try await flower.call("GET", "/api/task/info/\(id)")
                                return task.status == 200
                                    && task.value["state"]?.stringValue
                                        == (key.hasSuffix("add") ? "SUCCESS" : "FAILURE")
                            }
                            guard isTold else { return false }
                        }
                        return true
                    }
                    #expect(areTold, "\(bench.pythonLog.suffix(2000))")
                    var workers: WireValue = .null
                    let areShown = try await eventually(.seconds(20)) {
                        workers = try await flower.call("GET", "/api/workers?refresh=1").value
                        return queues.allSatisfy { workers[$0.1]?["stats"] != nil && workers[$0.1]?["conf"] != nil }
                    }
                    #expect(areShown, "\(workers)")
                    #expect(
                        Set((workers[swift]?.objectValue ?? [:]).keys)
                            == Set((workers[python]?.objectValue ?? [:]).keys))
                    let alive = try await flower.call("GET", "/api/workers?status=1").value
                    #expect(queues.allSatisfy { alive[$0.1] == true } && alive.objectValue?.count == 4, "\(alive)")
                    for name in ["mixed.add", "mixed.fail"] {
                        func info(_ node: String) async throws -> WireValue {
                            try await flower.call("GET", "/api/task/info/\(ids["\(node) \(name)"] ?? "")").value
                        }
                        let (ours, theirs) = (try await info(swift), try await info(python))
                        #expect(members(ours) == members(theirs), "\(ours)\n\(theirs)")
                        func result(_ node: String) async throws -> (status: Int, value: WireValue) {
                            try await flower.call("GET", "/api/task/result/\(ids["\(node) \(name)"] ?? "")?timeout=5")
                        }
                        let (our, their) = (try await result(swift), try await result(python))
                        // An error of Swift has no traceback, unless its process crashed.
                        let names = [our, their].map { Set(($0.value.objectValue ?? [:]).keys) }
                        #expect(our.status == their.status && names[0] == names[1], "\(our)\n\(their)")
                        #expect(our.value["result"] == their.value["result"], "\(our)\n\(their)")
                    }
                    for (path, expected) in [
                        ("/api/tasks?workername=\(swift)&limit=5", 200), ("/api/tasks?state=FAILURE", 200),
                        ("/api/task/types", 200), ("/api/queues/length", 200), ("/api/task/info/nobody", 404),
                        ("/api/workers?workername=\(swift)&refresh=1", 200), ("/metrics", 200), ("/", 200),
                        ("/workers", 200),
                        ("/tasks", 200), ("/broker", 200), ("/worker/nobody@h", 404),
                    ] {
                        #expect(try await flower.call("GET", path).status == expected, "\(path)")
                    }
                    let types = try await flower.call("GET", "/api/task/types").value["task-types"]?.arrayValue ?? []
                    #expect(types.contains("mixed.add") && types.contains("mixed.fail"), "\(types)")
                    let metrics = try await flower.call("GET", "/metrics").value.stringValue ?? ""
                    for (_, node) in queues {
                        #expect(metrics.contains(#"flower_worker_online{worker="\#(node)"} 1.0"#), "\(metrics)")
                        #expect(
                            metrics.contains(
                                #"flower_events_total{task="mixed.add",type="task-succeeded",worker="\#(node)"}"#))
                    }
                    // What the page of a Python worker tells of, that of a Swift worker tells of too.
                    let pages = try await [swift, python].asyncMap {
                        labels(of: try await flower.call("GET", "/worker/\($0)").value)
                    }
                    let missing = pages[1].subtracting(pages[0]).filter { label in
                        // Its name, its queue, and tasks that this Swift worker does not have.
                        label != python && label != "py" && !label.hasPrefix("mixed.")
                    }
                    #expect(missing.isEmpty, "\(missing.sorted())")
                    #expect(pages[1].count > 20, "\(pages[1])")
                    let tasks = try await [swift, python].asyncMap {
                        labels(of: try await flower.call("GET", "/task/\(ids["\($0) mixed.add"] ?? "")").value)
                    }
                    #expect(tasks[1].subtracting(tasks[0]).isEmpty, "\(tasks[1].subtracting(tasks[0]))")
                }
            }
        }
    }

    @Test("Flower shows a Swift worker and its tasks, and steers it")
    func flower() async throws {
        let bench = try MixedBench()
        let worker = Worker(
            bench.backend, queues: ["mixed"], lanes: [.async(2)],
            configuration: .init(name: "swift1@hostB", heartbeatInterval: .milliseconds(500)), logger: silent
        ) {
            Handler(Add.self) { job, _ in job.x + job.y }
            Handler(Fail.self) { job, _ in throw NoLuck(description: job.message) }
            Handler(named: "mixed.steps") { _, _ in
                try await Task.sleep(for: .seconds(60))
                return .null
            }
        }
        let running = Task { try await worker.run() }
        try await withFlower(bench) { try await steer(worker, with: $0, bench) }
        // It drains and ends by itself.
        try await running.value
    }

    /// Does in Flower what its buttons do, and looks in the worker for the effect.
    private func steer(_ worker: Worker, with flower: Flower, _ bench: MixedBench) async throws {
        func call(_ method: String, _ path: String) async throws -> (status: Int, value: WireValue) {
            try await flower.call(method, path)
        }
        // It has asked for events by now; it takes five seconds at most until it has.
        let node = "swift1@hostB"
        var seen: WireValue = .null
        let isShown = try await eventually(.seconds(30)) {
            seen = try await call("GET", "/api/workers?refresh=1").value
            return seen[node]?["stats"]?["pool"]?["max-concurrency"] == 2
        }
        #expect(isShown, "\(seen)")
        #expect(seen[node]?["registered"] == ["mixed.add", "mixed.fail", "mixed.steps"])
        #expect(seen[node]?["active_queues"]?.arrayValue?.first?["name"] == "mixed")
        var tasks: WireValue = .null
        let areShown = try await eventually(.seconds(30)) {
            try await bench.client.enqueue(Add(x: 1, y: 2))
            try await bench.client.enqueue(named: "mixed.fail", arguments: Arguments(positional: ["no luck"]))
            tasks = try await call("GET", "/api/tasks").value
            let states = Set((tasks.objectValue ?? [:]).compactMap { $0.value["state"]?.stringValue })
            return states.isSuperset(of: ["SUCCESS", "FAILURE"])
        }
        #expect(areShown, "\(tasks)")
        let done = (tasks.objectValue ?? [:]).map(\.value).first { $0["state"] == "SUCCESS" }
        #expect(
            done?["name"] == "mixed.add" && done?["result"] == "3" && done?["worker"] == .string(node),
            "\(done ?? .null)")
        #expect(done?["runtime"]?.doubleValue ?? -1 >= 0)
        let lost = (tasks.objectValue ?? [:]).map(\.value).first { $0["state"] == "FAILURE" }
        #expect(lost?["exception"] == "ValueError('no luck')", "\(lost ?? .null)")
        func slots() async throws -> Int {
            guard case .status(let status) = await worker.perform(.status) else { return 0 }
            return status.lanes.first?.slots ?? 0
        }
        #expect(try await call("POST", "/api/worker/pool/grow/\(node)?n=3").status == 200)
        #expect(try await slots() == 5)
        #expect(try await call("POST", "/api/worker/pool/shrink/\(node)?n=1").status == 200)
        #expect(try await slots() == 4)
        #expect(try await call("POST", "/api/worker/queue/add-consumer/\(node)?queue=extra").status == 200)
        let extra = try await bench.client.enqueue(
            named: "mixed.add", arguments: Arguments(positional: [2, 3]), options: [.queue("extra")])
        #expect(try await extra.output(timeout: .seconds(20)) == 5)
        #expect(try await call("POST", "/api/worker/queue/cancel-consumer/\(node)?queue=extra").status == 200)
        #expect(
            try await call("POST", "/api/task/rate-limit/mixed.add?workername=\(node)&ratelimit=100/s").status == 200)
        #expect(try await call("POST", "/api/task/timeout/mixed.add?workername=\(node)&soft=30").status == 200)
        // What Flower sends, the worker performs.
        let work: WireValue = ["args": [20, 3]]
        let applied = try await flower.call("POST", "/api/task/apply/mixed.add", work)
        #expect(
            applied.status == 200 && applied.value["result"] == 23 && applied.value["state"] == "SUCCESS", "\(applied)")
        for route in ["async-apply", "send-task"] {
            let sent = try await flower.call("POST", "/api/task/\(route)/mixed.add", work)
            let id = sent.value["task-id"]?.stringValue ?? ""
            #expect(sent.status == 200 && !id.isEmpty, "\(sent)")
            let isDone = try await eventually(.seconds(20)) {
                let result = try await flower.call("GET", "/api/task/result/\(id)?timeout=5")
                return result.status == 200 && result.value["result"] == 23
            }
            #expect(isDone, "\(route)")
        }
        let long = try await bench.client.enqueue(named: "mixed.steps")
        let isRunning = try await eventually { try await long.state() == .running }
        #expect(isRunning)
        #expect(try await call("POST", "/api/task/revoke/\(long.id)?terminate=true").status == 200)
        let isRevoked = try await eventually { try await long.state() == .cancelled }
        #expect(isRevoked)
        #expect(try await call("GET", "/").status == 200)
        #expect(try await call("GET", "/worker/\(node)").status == 200)
        #expect(try await call("POST", "/api/worker/shutdown/\(node)").status == 200)
    }
}

extension Array {
    fileprivate func asyncMap<T>(_ body: (Element) async throws -> T) async throws -> [T] {
        var result: [T] = []
        for element in self { result.append(try await body(element)) }
        return result
    }
}
