import Foundation
import Hoist
import HoistSQLite
import HoistTesting
import IsolationTestJobs
import Logging
import Testing

extension OneAfterTheOther {
    @Suite("The process lane", .serialized, .timeLimit(.minutes(2)))
    struct ProcessLaneTests {
        @Test("a handler finds in a child what it would find anywhere")
        func context() async throws {
            let bench = IsolationBench()
            try await withWorker(bench.worker) {
                let handle = try await bench.client.enqueue(
                    Probe(.facts), .header("tenant", "acme"), .timeLimit(.seconds(60)))
                let facts = try await handle.output(timeout: .seconds(20))
                #expect(
                    facts["id"] == handle.id && facts["attempt"] == "1" && facts["worker"] == "bench@here"
                        && facts["queue"] == "default")
                #expect(facts["header"] == "acme" && facts["isChild"] == "true" && facts["deadline"] == "true")
                #expect(facts["parent"] == "\(getpid())" && facts["process"] != "\(getpid())")
                let usage = try #require(try await handle.record()?.usage)
                #expect(usage.wallSeconds > 0 && usage.peakMemory ?? 0 > 0)
            }
            #expect(Processes.children().isEmpty, "nothing is left over")
        }

        @Test("children of a job, following them, cancelling: all goes through the worker")
        func family() async throws {
            let bench = IsolationBench(lanes: [.process(1), .async(2)])
            try await withWorker(bench.worker) {
                let handle = try await bench.client.enqueue(Probe(.family))
                let found = try await handle.output(timeout: .seconds(20))
                #expect(found["output"] == "heard you" && found["isNew"] == "false" && found["last"] == "succeeded")
                #expect(found["misuse"] == "true" && found["cancelled"] == "cancelled" && found["unknown"] == "true")
                let child = try #require(try await bench.backend.record(of: found["child"] ?? ""))
                #expect(child.parentID == handle.id && child.rootID == handle.id)
            }
        }

        @Test("progress and what a job writes can be read while it runs, and afterwards")
        func chatter() async throws {
            let bench = IsolationBench()
            try await withWorker(bench.worker) {
                let handle = try await bench.client.enqueue(Probe(.chatter, 7))
                #expect(try await eventually(.seconds(20)) { try await handle.log()?.lines.count == 3 })
                let record = try #require(try await handle.record())
                #expect(
                    record.state == .running
                        && record.progress == JobProgress(fraction: 0.5, message: "half way", details: ["frames": "12"])
                )
                try await handle.cancel()
                #expect(try await bench.ended(handle).state == .cancelled)
                let log = try #require(try await handle.log())
                #expect(
                    Set(log.lines.map { $0.source + ": " + $0.text }) == [
                        "output: to standard output", "error: to standard error", "warning: to the logger step=7",
                    ])
                let line = try #require(bench.logs.all.first { $0.hasPrefix("warning to the logger") })
                #expect(
                    line.contains(handle.id) && line.contains("step"), "the worker's own logger has it, with the job")
            }
        }

        @Test("what a handler throws decides, as in the other lanes")
        func directives() async throws {
            let bench = IsolationBench()
            try await withWorker(bench.worker) {
                let other = try await bench.client.enqueue(Probe(.retryWithOthers)).output(timeout: .seconds(20))
                #expect(other["attempt"] == "2")
                let snoozed = try await bench.client.enqueue(Probe(.snooze))
                #expect(try await eventually(.seconds(10)) { try await snoozed.state() == .scheduled })
                let given = try await bench.ended(try await bench.client.enqueue(Probe(.giveUp)))
                #expect(given.failure?.kind == .deadLettered && given.failure?.message == "no use")
                let failed = try await bench.ended(
                    try await bench.client.enqueue(Probe(.undecided), .retry(.fixed(.zero, maxAttempts: 2))))
                #expect(failed.failure?.type == "Unfit" && failed.attempts == 2)
            }
        }

        private func expectChildren(_ count: Int) async throws {
            let isSo = try await eventually(.seconds(20)) { Processes.children().count == count }
            #expect(isSo, "there are \(Processes.children().count) children")
        }

        // MARK: - Crashes

        @Test(
            "a crash says which signal, what was written last, and where; the job is retried by its policy, and never for ever"
        )
        func crash() async throws {
            let bench = IsolationBench { options in options.environment = [:] }
            try await withWorker(bench.worker) {
                let once = try await bench.ended(try await bench.client.enqueue(Probe(.trap, 9), .retry(.none)))
                let failure = try #require(once.failure)
                #expect(failure.kind == .crashed && once.attempts == 1 && once.lostWorkers == 1)
                let crash = try #require(failure.crash)
                #expect([Int(SIGILL), Int(SIGTRAP)].contains(crash.signal) && crash.status == nil)
                #expect(
                    crash.lastLines.contains("about to fail")
                        && crash.lastLines.contains { $0.contains("Index out of range") })
                #expect(crash.backtrace?.contains("crashed") == true)
            }
            #expect(Processes.children().isEmpty)
        }

        @Test(
            "a job that has killed three children is a dead letter with that history, whatever its policy",
            arguments: ["memory", "sqlite"])
        func deaths(kind: String) async throws {
            let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
                "hoist-isolation-\(UUID().uuidString)")
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            defer { try? FileManager.default.removeItem(at: folder) }
            let backend: any BackendConvertible =
                kind == "memory"
                ? MemoryBackend() : try SQLiteBackend(url: "sqlite:" + folder.appendingPathComponent("jobs.db").path)
            let bench = IsolationBench(backend)
            try await withWorker(bench.worker) {
                let killed = try await bench.ended(try await bench.client.enqueue(Probe(.killSelf)))
                #expect(killed.state == .failed && killed.lostWorkers == 3 && killed.attempts == 3)
                #expect(killed.history.compactMap(\.failure?.kind) == [.crashed, .crashed, .crashed])
                #expect(
                    killed.failure?.message.contains("has cost 3") == true
                        && killed.failure?.crash?.signal == Int(SIGKILL))
                let left = try await bench.ended(try await bench.client.enqueue(Probe(.exit, 5), .retry(.none)))
                #expect(left.failure?.kind == .crashed && left.failure?.crash?.status == 5)
                // The worker still performs jobs as before.
                let facts = try await bench.client.enqueue(Probe(.facts)).output(timeout: .seconds(20))
                #expect(facts["deaths"] == "0")
            }
        }

        @Test("a job that runs at most once is not tried again after a crash, whatever its policy")
        func atMostOnce() async throws {
            let bench = IsolationBench()
            try await withWorker(bench.worker) {
                let record = try await bench.ended(try await bench.client.enqueue(Once()))
                #expect(record.state == .failed && record.attempts == 1 && record.failure?.kind == .crashed)
            }
        }

        @Test("what another program says of its own end, and a worker without a name, make no difference")
        func misunderstandings() async throws {
            let bench = IsolationBench(name: "")
            try await withWorker(bench.worker) {
                let record = try await bench.ended(try await bench.client.enqueue(Probe(.foreignCrash)))
                #expect(record.output == ["lives": "yes"] && record.attempts == 1)
                let before = try await bench.client.enqueue(Probe(.facts)).output(timeout: .seconds(20))
                #expect(before["isChild"] == "true")
                // While the child seemed to crash, its successor may have been started.
                try await expectChildren(1)
            }
        }

        @Test("a job may wait for thousands of others at once")
        func fanOut() async throws {
            let bench = IsolationBench(lanes: [.process(1), .async(8)])
            try await withWorker(bench.worker) {
                let output = try await bench.client.enqueue(Probe(.fanOut, 1200)).output(timeout: .seconds(60))
                #expect(output["outputs"] == "1200")
            }
        }

        // MARK: - Remote control

        @Test("a signal from outside ends that child and that job alone; children are replaced when asked")
        func terminated() async throws {
            let backend = MemoryBackend()
            let bench = IsolationBench(backend, lanes: [.process(2)], name: "bench@here")
            let fleet = try Fleet(backend)
            let node = "bench@here"
            func active() async throws -> [WireValue] {
                try await fleet.replies(to: .active, of: .node(node), timeout: .seconds(20))[node]?.arrayValue ?? []
            }
            try await withWorker(bench.worker) {
                let first = try await bench.client.enqueue(Probe(.silent, 60))
                let second = try await bench.client.enqueue(Probe(.silent, 60))
                let areShown = try await eventually(.seconds(20)) {
                    try await active().count { $0["worker_pid"]?.integerValue ?? 0 > 0 } == 2
                }
                #expect(areShown)
                let processes = try await active().compactMap { $0["worker_pid"]?.integerValue }
                #expect(Set(processes).count == 2 && !processes.contains(Int64(getpid())))
                let stats = try await fleet.replies(to: .stats, of: .node(node), timeout: .seconds(20))[node]
                let listed = Set((stats?["pool"]?["processes"]?.arrayValue ?? []).compactMap(\.integerValue))
                #expect(listed.isSuperset(of: processes))
                let said = try await fleet.revoke([first.id], terminate: .kill, on: .node(node), timeout: .seconds(20))[
                    node]
                #expect(said == ["ok": .string("terminate: \(first.id)")], "\(said ?? .null)")
                #expect(try await bench.ended(first).state == .cancelled)
                #expect(try await second.state() == .running)
                let unknown = try await fleet.replies(
                    to: .init("terminate", ["signal": "SIGNONSENSE", "task_id": .string(second.id)]), of: .node(node),
                    timeout: .seconds(20))[
                        node]
                #expect(unknown?["error"] != nil)
                #expect(try await second.state() == .running)
                let restart = try await fleet.replies(
                    to: .init("pool_restart"), of: .node(node), timeout: .seconds(20))[node]
                #expect(restart == ["ok": "reload started"])
                _ = try await fleet.revoke([second.id], terminate: .term, on: .node(node), timeout: .seconds(20))
                #expect(try await bench.ended(second).state == .cancelled)
                let areNew = try await eventually(.seconds(20)) {
                    let stats = try await fleet.replies(to: .stats, of: .node(node), timeout: .seconds(20))[node]
                    let now = Set((stats?["pool"]?["processes"]?.arrayValue ?? []).compactMap(\.integerValue))
                    return now.count == 2 && now.isDisjoint(with: listed)
                }
                #expect(areNew, "each child was replaced")
            }
        }

        // MARK: - Limits

        @Test("a soft time limit can be caught; a hard one cannot, and takes what the job has started along")
        func timeLimits() async throws {
            let bench = IsolationBench(lanes: [.process(2)])
            try await withWorker(bench.worker) {
                let tidy = try await bench.client.enqueue(Probe(.tidyUp), .timeLimit(.milliseconds(100)))
                #expect(try await tidy.output(timeout: .seconds(20)) == ["reason": "time limit"])
                let stubborn = try await bench.client.enqueue(
                    Probe(.stubborn), .hardTimeLimit(.milliseconds(200)), .retry(.none))
                #expect(try await bench.ended(stubborn).failure?.kind == .timedOut)
                let mother = try await bench.client.enqueue(
                    Probe(.startProcess, 98765), .hardTimeLimit(.milliseconds(700)), .retry(.none))
                #expect(
                    try await eventually(.seconds(20)) {
                        Processes.all().contains { $0.command.contains("sleep 98765") }
                    })
                let record = try await bench.ended(mother)
                #expect(record.failure?.kind == .timedOut && record.failure?.crash == nil && record.lostWorkers == 0)
                #expect(!Processes.all().contains { $0.command.contains("sleep 98765") })
                let runaway = try await bench.client.enqueue(
                    Probe(.leaveGroup), .hardTimeLimit(.milliseconds(300)), .retry(.none))
                #expect(try await bench.ended(runaway).failure?.kind == .timedOut)
            }
        }

        @Test("no sign of progress: asked to stop, then stopped; a lively job goes on")
        func heartbeat() async throws {
            let bench = IsolationBench(lanes: [.process(2)])
            try await withWorker(bench.worker) {
                let lively = try await bench.client.enqueue(Probe(.lively, 40), .heartbeatLimit(.milliseconds(300)))
                let silent = try await bench.client.enqueue(
                    Probe(.silent), .heartbeatLimit(.milliseconds(300)), .retry(.none))
                #expect(try await bench.ended(silent).failure?.kind == .stuck)
                #expect(try await bench.ended(lively).state == .succeeded)
            }
        }

        @Test("a job that holds too much memory is stopped, and its neighbour is not disturbed")
        func memory() async throws {
            let bench = IsolationBench(lanes: [.process(2)])
            try await withWorker(bench.worker) {
                let neighbour = try await bench.client.enqueue(Probe(.pace, 800))
                let greedy = try await bench.client.enqueue(
                    Probe(.hold, 400), .memoryLimit(.mebibytes(200)), .retry(.none))
                let record = try await bench.ended(greedy)
                #expect(record.failure?.kind == .memoryExceeded && record.usage?.peakMemory ?? 0 > 200 << 20)
                let shared = try await bench.client.enqueue(
                    Probe(.share, 400), .memoryLimit(.mebibytes(200)), .retry(.none))
                #expect(try await bench.ended(shared).failure?.kind == .memoryExceeded)
                let modest = try await bench.client.enqueue(Probe(.hold, 100), .memoryLimit(.mebibytes(200)))
                let usage = try #require(try await bench.ended(modest).usage)
                #expect(usage.peakMemory ?? 0 > 100 << 20 && usage.peakMemory ?? 0 < 200 << 20)
                #expect(try await bench.ended(neighbour).attempts == 1)
            }
        }

        @Test("limits are changed on the live worker, and refused where they cannot be kept")
        func liveLimits() async throws {
            let bench = IsolationBench()
            try await withWorker(bench.worker) {
                try bench.worker.setLimits(RunLimits(hardTime: .milliseconds(150)), forJob: Probe.name)
                let handle = try await bench.client.enqueue(
                    Probe(.stubborn), .hardTimeLimit(.seconds(600)), .retry(.none))
                #expect(try await bench.ended(handle).failure?.kind == .timedOut)
                #expect(throws: WorkerError.self) {
                    try bench.worker.setLimits(RunLimits(memory: 1), forJob: Echo.name)
                }
            }
            struct Strict: Job {
                static let name = "strict"
                static let options = JobOptions(hardTimeLimit: .seconds(1))
            }
            let refused = Worker(MemoryBackend(), logger: Logger(label: "x")) {
                Handler(Strict.self, in: .blocking) { _, _ in }
            }
            let error = await #expect(throws: WorkerError.self) { try await refused.run() }
            #expect(error?.message.contains("in: .process") == true)
        }

        @Test(
            "a running job is cancelled when it listens, and stopped when it does not, without hurting its neighbours")
        func cancelling() async throws {
            let bench = IsolationBench(lanes: [.process(3)])
            try await withWorker(bench.worker) {
                let neighbour = try await bench.client.enqueue(Probe(.pace, 1500))
                let polite = try await bench.client.enqueue(Probe(.tidyUp))
                let stubborn = try await bench.client.enqueue(Probe(.stubborn))
                for handle in [polite, stubborn] {
                    #expect(try await eventually(.seconds(20)) { try await handle.record()?.progress != nil })
                }
                try await stubborn.cancel()
                try await polite.cancel()
                #expect(try await bench.ended(stubborn).state == .cancelled)
                #expect(try await bench.ended(polite).output == ["reason": "requested"])
                let record = try await bench.ended(neighbour)
                #expect(record.state == .succeeded && record.attempts == 1)
            }
        }

        @Test("processor time is measured")
        func processorTime() async throws {
            let bench = IsolationBench()
            try await withWorker(bench.worker) {
                let usage = try #require(try await bench.ended(try await bench.client.enqueue(Probe(.burn, 300))).usage)
                #expect(usage.cpuSeconds > 0.1 && usage.cpuSeconds < 5 && usage.wallSeconds >= 0.3)
                let idle = try #require(try await bench.ended(try await bench.client.enqueue(Probe(.pace, 300))).usage)
                #expect(idle.cpuSeconds < 0.1 && idle.wallSeconds >= 0.3)
            }
        }

        // MARK: - Children

        @Test("a child is replaced after so many jobs, and when its job has left a process behind")
        func recycling() async throws {
            let bench = IsolationBench { $0.recycleAfterJobs = 2 }
            try await withWorker(bench.worker) {
                var processes: [String] = []
                for _ in 0..<6 {
                    processes.append(
                        try await bench.client.enqueue(Probe(.facts)).output(timeout: .seconds(20))["process"] ?? "")
                }
                #expect(Set(processes).count == 3 && processes[0] == processes[1] && processes[1] != processes[2])
            }
        }

        @Test("a child whose job has closed what the next one would write to is replaced")
        func closedOutput() async throws {
            let bench = IsolationBench()
            try await withWorker(bench.worker) {
                let first = try await bench.client.enqueue(Probe(.facts)).output(timeout: .seconds(20))
                #expect(try await bench.ended(try await bench.client.enqueue(Probe(.closeOutput))).state == .succeeded)
                let isReplaced = try await eventually(.seconds(20)) {
                    try await bench.client.enqueue(Probe(.facts)).output(timeout: .seconds(20))["process"]
                        != first["process"]
                }
                #expect(isReplaced)
            }
        }

        @Test("a lane is resized on the live worker, and grows and shrinks by itself within its range")
        func sizes() async throws {
            let scaling = Autoscaling(
                growsAfterWait: .milliseconds(50), shrinksAfter: .milliseconds(300), interval: .milliseconds(50))
            let bench = IsolationBench(lanes: [.process(1...3)], autoscaling: scaling)
            try await withWorker(bench.worker) {
                try await expectChildren(1)
                let handles = try await bench.client.enqueue(contentsOf: (0..<12).map { _ in Probe(.pace, 300) })
                try await expectChildren(3)
                for handle in handles { #expect(try await bench.ended(handle).state == .succeeded) }
                try await expectChildren(1)
            }
            let fixed = IsolationBench(lanes: [.process(1)])
            try await withWorker(fixed.worker) {
                fixed.worker.resize(.process(3))
                try await expectChildren(3)
                fixed.worker.resize(.process(1))
                try await expectChildren(1)
            }
        }

        @Test("jobs that take two slots run one at a time in a lane of three, and light ones beside them")
        func weights() async throws {
            let bench = IsolationBench(lanes: [.process(3)], hasHeavy: true)
            try await withWorker(bench.worker) {
                let heavy = try await bench.client.enqueue(contentsOf: (0..<3).map { _ in Heavy() })
                let light = try await bench.client.enqueue(contentsOf: (0..<3).map { _ in Probe(.pace, 200) })
                var spans: [(start: Date, end: Date)] = []
                for handle in heavy {
                    let record = try await bench.ended(handle)
                    spans.append((try #require(record.startedAt), try #require(record.endedAt)))
                }
                for handle in light { #expect(try await bench.ended(handle).state == .succeeded) }
                spans.sort { $0.end < $1.end }
                for (earlier, later) in zip(spans, spans.dropFirst()) {
                    #expect(later.end.timeIntervalSince(earlier.end) > 0.15, "one after the other")
                }
            }
        }

        @Test("when children cannot be started no job is lost, and the worker says so")
        func noChildren() async throws {
            let bench = IsolationBench(lanes: [.process(1), .async(1)]) { $0.executable = "/bin/false" }
            try await withWorker(bench.worker) {
                let stuck = try await bench.client.enqueue(Probe(.facts))
                #expect(try await eventually(.seconds(20)) { bench.logs.all.contains { $0.contains("takes no jobs") } })
                #expect(try await eventually(.seconds(20)) { try await stuck.state() == .waiting })
                #expect(
                    try await bench.client.enqueue(Echo(text: "a")).output(timeout: .seconds(20)) == "heard a",
                    "other lanes go on")
                let record = try #require(try await stuck.record())
                #expect(record.attempts == 0)
            }
        }
    }
}
