import Foundation
import Hoist
import HoistRedis
import HoistTesting
import Logging
import RESP
import TestServers
import Testing

@Suite(
    "With real Celery", .serialized, .timeLimit(.minutes(4)),
    .enabled(if: PythonPeer.interpreter != nil, "\(PythonPeer.isMissing)"))
struct CeleryTests {
    @Test(
        "Python enqueues, Swift works, Python reads: values, errors, serializers, compression; also with results in another database",
        arguments: [nil, 5])
    func pythonToSwift(_ resultDatabase: Int?) async throws {
        let bench = try MixedBench(resultDatabase: resultDatabase)
        let found = try await bench.withWorker { try await bench.python("results") }
        #expect(found["good"] == 5 && found["state"] == "SUCCESS" && found["children"] == [] && found["done"] == true)
        #expect(found["packed"] == 9 && found["written"] == 13 && found["squeezed"] == 17)
        #expect(found["error"] == ["ValueError", "no luck"] && found["bad_state"] == "FAILURE")
        #expect(found["ignored"] == "PENDING", "an ignored result writes nothing")
    }

    @Test("Swift enqueues, Python works, Swift reads: output, errors, progress, by push")
    func swiftToPython() async throws {
        let bench = try MixedBench()
        let worker = try bench.startPythonWorker()
        defer { PythonPeer.stop(worker) }
        #expect(try await bench.client.enqueue(Add(x: 20, y: 22)).output(timeout: .seconds(30)) == 42)
        // A large text goes without base64.
        let text = String(repeating: "\"ähm\",\\\n\u{1}\u{1F40C} ", count: 2000)
        let long = try await bench.client.enqueue(
            named: "mixed.add", arguments: Arguments(positional: [.string(text), "!"])
        ).output(timeout: .seconds(30))
        #expect(long.stringValue == text + "!")
        let failure = await #expect(throws: JobError.self) {
            try await bench.client.enqueue(Fail(message: "no luck")).output(timeout: .seconds(30))
        }
        #expect(
            failure?.code == .failed && failure?.failure?.type == "ValueError" && failure?.failure?.message == "no luck"
        )
        let retried = try await bench.client.enqueue(Work(number: 7, fails: 2)).output(timeout: .seconds(30))
        #expect(retried.by == "python" && retried.retries == 2)
        let probe = try RESPClient(RESPConfiguration(url: bench.url))
        defer { probe.close() }
        let steps = try await bench.client.enqueue(
            named: "mixed.steps", arguments: Arguments(positional: [5, "seen"]))
        var fractions: [Double] = []
        for try await record in steps.updates {
            guard let fraction = record.progress?.fraction, fraction != fractions.last else { continue }
            fractions.append(fraction)
            try await probe.send(RESPCommand("RPUSH", [.text(bench.prefix + "seen"), "1"]))
        }
        #expect(fractions == [0.2, 0.4, 0.6, 0.8, 1])
        #expect(try await steps.output(timeout: .seconds(30)) == 5)
        // What became of a job that Python published: the same, from the id alone.
        let one = try await bench.python("one", "mixed.add", "[1, 2]")
        #expect(try await bench.client.handle(of: one["id"]?.stringValue ?? "").output(timeout: .seconds(30)) == 3)
    }

    @Test("Celery reads progress, children, cancellation and expiry of Swift jobs")
    func states() async throws {
        let bench = try MixedBench()
        try await bench.withWorker {
            let handle = try await bench.client.enqueue(named: "mixed.steps", arguments: Arguments(positional: [12]))
            var isProgressSeen = false
            for try await record in handle.updates where record.progress != nil && !isProgressSeen {
                let seen = try await bench.python("peek", handle.id)
                isProgressSeen = seen["state"] == "PROGRESS" && seen["info"]?["fraction"] != nil
                if seen["state"] == "SUCCESS" { break }
            }
            #expect(isProgressSeen)
            let read = try await bench.python("read", handle.id)
            #expect(read["state"] == "SUCCESS" && read["value"] == 12 && read["children"]?.arrayValue?.count == 1)
        }
        let cancelled = try await bench.client.enqueue(Add(x: 1, y: 1), .after(.seconds(100)))
        #expect(try await cancelled.cancel() == .cancelled)
        #expect(try await bench.python("read", cancelled.id)["error"]?.arrayValue?.first == "TaskRevokedError")
        let expired = try await bench.client.enqueue(Add(x: 1, y: 1), .expires(after: .milliseconds(1)))
        let read = try await bench.withWorker { try await bench.python("read", expired.id) }
        #expect(read["error"] == ["TaskRevokedError", "expired"])
        #expect(try await expired.state() == .expired)
    }

    @Test("a task that Python sends for later waits in Redis, in no worker, and runs once at its time")
    func later() async throws {
        let bench = try MixedBench()
        try await bench.withWorker {
            let id = try await bench.python("later", "8")["id"]?.stringValue ?? ""
            let handle = bench.client.handle(of: id)
            #expect(try await eventually(.seconds(5)) { try await handle.state() == .scheduled })
            #expect(try await bench.backend.workers().allSatisfy { $0.running == 0 })
            let begin = ContinuousClock.now
            #expect(try await handle.output(timeout: .seconds(30)) == 42)
            #expect(ContinuousClock.now - begin > .milliseconds(300))
        }
    }

    @Test("what a Python worker left unacknowledged when it died comes back as kombu would restore it")
    func restored() async throws {
        let bench = try MixedBench()
        let worker = try bench.startPythonWorker()
        defer { PythonPeer.stop(worker) }
        let warm = try await bench.client.enqueue(Add(x: 1, y: 1))
        _ = try await warm.output(timeout: .seconds(30))
        let handle = try await bench.client.enqueue(named: "mixed.nap", arguments: Arguments(positional: [60]))
        let probe = try RESPClient(RESPConfiguration(url: bench.url))
        defer { probe.close() }
        #expect(
            try await eventually(.seconds(20)) {
                try await probe.send(RESPCommand("HLEN", [.text(bench.prefix + "unacked")])).integer == 1
            }
        )
        PythonPeer.stop(worker)
        // Waiting for kombu's hour would take too long: this backend has a shorter visibility time-out.
        var configuration = RedisBackend.Configuration(keyPrefix: bench.prefix, resultKeyPrefix: bench.prefix)
        configuration.visibilityTimeout = .seconds(1)
        let backend = try RedisBackend(RESPConfiguration(url: bench.url), configuration: configuration)
        let logger = Logger(label: "mixed", factory: { _ in SwiftLogNoOpLogHandler() })
        let swift = Worker(backend, queues: ["mixed"], logger: logger) {
            Handler(named: "mixed.nap") { _, context in .bool(context.messageProperties.isRedelivered) }
        }
        let running = Task { try await swift.run() }
        #expect(try await handle.output(timeout: .seconds(30)) == true, "marked as redelivered")
        swift.stop()
        try await running.value
        #expect(try await probe.send(RESPCommand("HLEN", [.text(bench.prefix + "unacked")])).integer == 0)
    }

    @Test(
        "a worker of Celery's that is late to say that it retries does not hide what came of the retry",
        arguments: [nil, 5])
    func lateRetry(resultDatabase: Int?) async throws {
        let bench = try MixedBench(resultDatabase: resultDatabase, peer: ["PEER_SLOW_RETRY": "2"])
        let python = try bench.startPythonWorker()
        defer { PythonPeer.stop(python) }
        _ = try await bench.client.enqueue(Add(x: 1, y: 1)).output(timeout: .seconds(30))
        let handle = try await bench.client.enqueue(Work(number: 7, fails: 1))
        // Python is busy with the first attempt; any worker may take the second one.
        let isTaken = try await eventually(.seconds(20)) {
            try await bench.backend.queues().contains { $0.waiting > 0 } == false
        }
        #expect(isTaken)
        try await bench.withWorker {
            let isCovered = try await eventually(.seconds(20)) { bench.pythonLog.contains("stored RETRY") }
            let place = isCovered ? "" : try await bench.whereabouts(of: handle.id)
            #expect(isCovered, "\(place)")
            let output = try await handle.output(timeout: .seconds(20))
            #expect(output.by == "swift" && output.retries == 1)
            #expect(try await bench.python("read", handle.id)["state"] == "SUCCESS")
        }
    }

    @Test(
        "two Swift and two Python workers share a queue of 10,000 jobs: none is lost, every result is read from both sides"
    )
    func mixedFleet() async throws {
        let bench = try MixedBench()
        let pythonWorkers = try (0..<2).map { try bench.startPythonWorker(["-n", "py\($0)@test"]) }
        defer { for worker in pythonWorkers { PythonPeer.stop(worker) } }
        let ids = Task.detached {
            try PythonPeer.run(["producer.py", "many", "5000"], in: MixedBench.folder, environment: bench.environment)
                .split(separator: "\n").map(String.init)
        }
        var handles: [JobHandle<Work.Output>] = []
        for start in stride(from: 5000, to: 10_000, by: 500) {
            let jobs = (start..<start + 500).map { Work(number: $0, fails: $0 % 20 == 0 ? 2 : 0) }
            handles += try await bench.client.enqueue(contentsOf: jobs, [.priority(start / 500 % 10)])
        }
        handles += try await bench.client.enqueue(contentsOf: [Work(number: -1)], [.after(.seconds(1))])
        // Python begins first, so that it gets its share of the jobs.
        #expect(try await eventually(.seconds(60)) { try await !self.isUntouched(bench) })
        let swiftWorkers = (0..<2).map { bench.worker(.init(name: "swift\($0)")) }
        let running = swiftWorkers.map { worker in Task { try await worker.run() } }
        let all = try await ids.value + handles.map(\.id)
        #expect(all.count == 10_001 && Set(all).count == 10_001)
        var by: [String: Int] = [:]
        for id in all {
            guard let output = try? await bench.client.handle(of: id).output(timeout: .seconds(120)) else {
                Issue.record("\(id) has no output; \(try await bench.whereabouts(of: id))")
                return
            }
            by[output["by"]?.stringValue ?? "?", default: 0] += 1
        }
        for worker in swiftWorkers { worker.stop() }
        for task in running { try await task.value }
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-ids-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: file) }
        try all.joined(separator: "\n").write(to: file, atomically: true, encoding: .utf8)
        let text = try PythonPeer.run(
            [
                "-c",
                "import sys; sys.stdin = open('\(file.path)'); sys.argv = ['producer.py', 'collect']; exec(open('producer.py').read())",
            ],
            in: MixedBench.folder, environment: bench.environment)
        print("10,001 jobs by \(by.sorted { $0.key < $1.key }), read in Python as \(text)")
        #expect((by["swift"] ?? 0) > 0 && (by["python"] ?? 0) > 0 && by.values.reduce(0, +) == 10_001)
        let queues = try await bench.backend.queues()
        #expect(
            queues.allSatisfy { $0.waiting == 0 && $0.scheduled == 0 && $0.running == 0 && $0.failed == 0 }, "\(queues)"
        )
    }

    @Test("topics and broadcasts reach Swift and Python workers alike, whoever sends them")
    func routing() async throws {
        let bench = try MixedBench()
        let python = try bench.startPythonWorker(["-Q", "mixed,py-audit,news"])
        defer { PythonPeer.stop(python) }
        let probe = try RESPClient(RESPConfiguration(url: bench.url))
        defer { probe.close() }
        let silent = Logger(label: "mixed", factory: { _ in SwiftLogNoOpLogHandler() })
        func worker(_ name: String) -> Worker {
            let configuration = Worker.Configuration(name: name, broadcastChannels: ["news"])
            let topics: [TopicBinding] = [.topic("video.#", exchange: "events")]
            return Worker(
                bench.backend, queues: [.queue("audit", topics: topics)], configuration: configuration, logger: silent
            ) {
                Handler(named: "mixed.hear") { arguments, context in
                    let word = arguments.positional.first?.stringValue ?? arguments.keyword["word"]?.stringValue ?? ""
                    _ = try await probe.send(
                        RESPCommand("RPUSH", [.text(bench.prefix + "heard"), .text(word + " by " + context.worker)]))
                    return .null
                }
            }
        }
        let workers = [worker("one@a"), worker("two@a")]
        let running = workers.map { worker in Task { try await worker.run() } }
        func heard() async throws -> [String] {
            try await probe.send(RESPCommand("LRANGE", [.text(bench.prefix + "heard"), 0, -1])).elements?.compactMap(
                \.text
            ).sorted() ?? []
        }
        // Two programs listen: this one for both of its workers, and Celery's worker.
        let limit = ContinuousClock.now + .seconds(30)
        var listening = 0
        while listening < 2, .now < limit {
            listening = try await bench.client.broadcast(Hear(word: "anybody?"), on: "news")
            try await Task.sleep(for: .milliseconds(100))
        }
        #expect(listening >= 2)
        let queues = try await bench.backend.queues(of: "events", topic: "video.7.done")
        #expect(Set(queues) == ["audit", "py-audit"])
        #expect(try await bench.backend.queues(of: "events", topic: "video.7.failed") == ["audit"])

        try await bench.client.publish(Hear(word: "topic from swift"), topic: "video.7.done", exchange: "events")
        try await bench.client.broadcast(Hear(word: "news from swift"), on: "news")
        _ = try await bench.python("topic")
        let wanted = ["one@a", "two@a", "python"].flatMap { ["news from swift by \($0)", "news from python by \($0)"] }
        let topics = ["topic from swift by python", "topic from python by python"]
        #expect(
            try await eventually {
                let all = try await heard()
                return wanted.allSatisfy { word in all.count(where: { $0 == word }) == 1 }
                    && topics.allSatisfy { word in all.count(where: { $0 == word }) == 1 }
                    && ["topic from swift by ", "topic from python by "].allSatisfy { word in
                        all.count(where: { $0 == word + "one@a" || $0 == word + "two@a" }) == 1
                    }
            })
        let all = try await heard()
        #expect(all.count >= 12, "\(all) \((try? String(contentsOf: bench.log, encoding: .utf8)) ?? "")")
        for worker in workers { worker.stop() }
        for task in running { try await task.value }
    }

    private func isUntouched(_ bench: MixedBench) async throws -> Bool {
        let client = try RESPClient(RESPConfiguration(url: bench.url))
        defer { client.close() }
        return try await client.send(RESPCommand("EXISTS", [.text(bench.prefix + "unacked")])).integer == 0
    }
}
