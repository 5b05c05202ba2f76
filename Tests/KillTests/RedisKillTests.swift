import Foundation
import Hoist
import HoistRedis
import HoistTesting
import Logging
import RESP
import TestServers
import Testing

/// The guarantees on Redis: workers, the server and the network in between are killed, stopped and cut.
@Suite("Killing workers, Redis and the network", .serialized, .timeLimit(.minutes(4)))
struct RedisKillTests {
    @Test("workers killed at random during 2,000 jobs lose none; only jobs in flight run twice")
    func storm() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        try await killStorm(on: try KillBench(url: server.url))
    }

    @Test("a worker stopped for longer than its lease is fenced when it goes on")
    func stopAndContinue() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        try await stopPastTheLease(on: try KillBench(lease: 1, url: server.url))
    }

    @Test(
        "Redis killed and restarted again and again, with its append-only file, loses no job that was acknowledged to a producer"
    )
    func serverKilled() async throws {
        let server = try RedisServer(["--appendonly", "yes", "--appendfsync", "always"])
        defer { server.stop() }
        let bench = try KillBench(url: server.url)
        for _ in 0..<2 { try bench.startWorker() }
        let client = bench.client
        let producer = Task { () -> [JobID] in
            var acknowledged: [JobID] = []
            for number in 0..<600 {
                let id = "job-\(number)"
                // An enqueue whose answer got lost is made again with the same id: it is stored once.
                while true {
                    do {
                        try await client.enqueue(Step(milliseconds: Int.random(in: 5...40)), .id(id))
                        break
                    } catch is BackendError {
                        try await Task.sleep(for: .milliseconds(50))
                    }
                }
                acknowledged.append(id)
                try await Task.sleep(for: .milliseconds(10))
            }
            return acknowledged
        }
        var resumed: [Double] = []
        for _ in 0..<3 {
            try await Task.sleep(for: .milliseconds(1500))
            server.stop()
            try await Task.sleep(for: .milliseconds(500))
            try server.start()
            let back = SystemJobClock().uptime
            #expect(
                try await eventually { bench.journal().contains { $0.event == "end" && $0.time > back } })
            let next = bench.journal().filter { $0.event == "begin" && $0.time > back }.map(\.time).min() ?? .max
            resumed.append(Double(next - back) / 1_000_000)
        }
        let acknowledged = try await producer.value
        #expect(try await eventually(.seconds(60)) { try await bench.unfinished() == 0 })
        let journal = bench.journal()
        let ended = Set(journal.filter { $0.event == "end" }.map(\.job))
        let lost = acknowledged.filter { !ended.contains($0) }
        let begun = Dictionary(grouping: journal.filter { $0.event == "begin" }, by: \.job)
        print(
            "3 restarts, \(lost.count) lost, \(begun.filter { $0.value.count > 1 }.count) begun twice, consumption resumed after \(resumed) s"
        )
        #expect(lost.isEmpty)
        // The machine may have paused in one of them.
        #expect(resumed.min() ?? .infinity < 5 && resumed.allSatisfy { $0 < 20 }, "\(resumed)")
    }

    @Test("connections that are killed, cut, half-closed and slow lose nothing and run nothing twice")
    func network() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let proxy = try TroubleProxy(to: server.port)
        let bench = try KillBench(url: "redis://127.0.0.1:\(proxy.port)/0")
        for _ in 0..<2 { try bench.startWorker() }
        let admin = try RESPClient(RESPConfiguration(url: server.url))
        defer { admin.close() }
        let ids = (0..<600).map { "job-\($0)" }
        let client = bench.client
        let producer = Task {
            for id in ids {
                while (try? await client.enqueue(Step(milliseconds: 20), .id(id))) == nil {
                    try await Task.sleep(for: .milliseconds(20))
                }
                try await Task.sleep(for: .milliseconds(8))
            }
        }
        for round in 0..<9 {
            try await Task.sleep(for: .milliseconds(500))
            switch round % 3 {
            case 0: proxy.cut()
            case 1: try await admin.send(RESPCommand("CLIENT KILL", ["TYPE", "normal", "SKIPME", "yes"]))
            default: proxy.halfClose()
            }
            proxy.delay(by: round % 2 == 0 ? 30 : 0)
        }
        proxy.delay(by: 0)
        try await producer.value
        #expect(try await eventually(.seconds(60)) { try await bench.unfinished() == 0 })
        let journal = bench.journal()
        let ended = Set(journal.filter { $0.event == "end" }.map(\.job))
        let begun = Dictionary(grouping: journal.filter { $0.event == "begin" }, by: \.job)
        let twice = begun.filter { $0.value.count > 1 }
        print("9 disturbances, \(ids.filter { !ended.contains($0) }.count) lost, \(twice.count) begun twice")
        #expect(ids.allSatisfy(ended.contains), "none lost")
        #expect(twice.isEmpty, "no worker died, so nothing ran again")
    }

    @Test("an idle worker whose server is away ends within two seconds", arguments: [false, true])
    func stopWithoutServer(isSilent: Bool) async throws {
        // The machine may pause in one of them.
        var seconds = Double.infinity
        for _ in 0..<3 where seconds >= 2.5 { seconds = min(seconds, try await secondsToStop(isSilent)) }
        #expect(seconds < 2.5, "\(seconds) s")
    }

    /// Stops an idle worker whose server is away.
    private func secondsToStop(_ isSilent: Bool) async throws -> Double {
        let server = try RedisServer()
        let proxy = try TroubleProxy(to: server.port)
        let bench = try KillBench(url: "redis://127.0.0.1:\(proxy.port)/0")
        let worker = try bench.startWorker()
        _ = try await bench.client.enqueue(Step(milliseconds: 1)).output(timeout: .seconds(30))
        if isSilent { proxy.isSwallowing = true } else { server.stop() }
        #expect(try await eventually(.seconds(20)) { bench.log(of: 0).contains("it tries until the backend answers") })
        let stopped = SystemJobClock().uptime
        kill(worker.processIdentifier, SIGTERM)
        #expect(try await eventually(.seconds(30)) { !worker.isRunning })
        let seconds = Double(SystemJobClock().uptime - stopped) / 1_000_000
        #expect(worker.terminationStatus == 0)
        server.stop()
        return seconds
    }

    @Test("connections that go silent while new ones work cost no live worker its jobs")
    func silentConnections() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        // One worker's line goes silent; the other one would take its jobs over.
        let proxy = try TroubleProxy(to: server.port)
        let bench = try KillBench(url: "redis://127.0.0.1:\(proxy.port)/0")
        let other = try KillBench(url: server.url)
        try bench.startWorker()
        let jobs = try await bench.client.enqueue(contentsOf: (0..<4).map { _ in Step(milliseconds: 9000) })
        #expect(try await eventually(.seconds(30)) { bench.journal().filter { $0.event == "begin" }.count == 4 })
        try other.startWorker()
        proxy.silence()
        #expect(try await eventually(.seconds(60)) { try await other.unfinished() == 0 })
        #expect(other.journal().isEmpty && !bench.log(of: 0).contains("the lease was lost"), "\(bench.log(of: 0))")
        for job in jobs {
            let record = try #require(try await other.backend.record(of: job.id))
            #expect(record.state == .succeeded && record.lostWorkers == 0)
        }
    }

    @Test("an outage in which nothing arrives late costs no live worker its jobs, however long the lease")
    func silentServer() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let proxy = try TroubleProxy(to: server.port)
        let bench = try KillBench(lease: 2, url: "redis://127.0.0.1:\(proxy.port)/0")
        for _ in 0..<3 { try bench.startWorker() }
        let jobs = (0..<6).map { _ in Step(milliseconds: 14_000) }
        _ = try await bench.client.enqueue(contentsOf: jobs)
        #expect(try await eventually(.seconds(30)) { bench.journal().filter { $0.event == "begin" }.count == 6 })
        proxy.isSwallowing = true
        // The outage itself: four leases long.
        try await Task.sleep(for: .seconds(8))
        proxy.isSwallowing = false
        let direct = try RedisBackend(url: server.url)
        #expect(
            try await eventually(.seconds(60)) {
                try await direct.queues().allSatisfy { $0.waiting + $0.scheduled + $0.running == 0 }
            })
        let begun = Dictionary(grouping: bench.journal().filter { $0.event == "begin" }, by: \.job)
        #expect(begun.count == 6 && begun.values.allSatisfy { $0.count == 1 })
    }

    @Test("on a slow line large jobs are taken, done and given back, and the lease is kept")
    func slowLine() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let proxy = try TroubleProxy(to: server.port)
        let bench = try KillBench(url: "redis://127.0.0.1:\(proxy.port)/0")
        let direct = JobClient(try RedisBackend(url: server.url), logger: Logger(label: "test"))
        let padding = WireValue.string(String(repeating: "x", count: 6_000_000))
        for _ in 0..<12 {
            try await direct.enqueue(
                named: Step.name,
                arguments: Arguments(keyword: ["milliseconds": 1000, "blocks": false, "padding": padding]))
        }
        proxy.limit(toBytesPerSecond: 10_000_000)
        try bench.startWorker()
        let queues = try RedisBackend(url: server.url)
        #expect(
            try await eventually(.seconds(90)) {
                try await queues.queues().allSatisfy { $0.waiting + $0.scheduled + $0.running == 0 }
            })
        let begun = Dictionary(grouping: bench.journal().filter { $0.event == "begin" }, by: \.job)
        #expect(begun.count == 12 && begun.values.allSatisfy { $0.count == 1 })
        #expect(!bench.log(of: 0).contains("the lease was lost"))
    }

    @Test(
        "Redis stopped for 30 seconds: no job is taken from its worker, and work goes on within 5 seconds of its return"
    )
    func serverStopped() async throws {
        let server = try RedisServer()
        defer {
            kill(server.pid, SIGCONT)
            server.stop()
        }
        let bench = try KillBench(url: server.url)
        for _ in 0..<2 { try bench.startWorker() }
        // Some outlast the stop, some end in the middle of it, some wait.
        let long = try await bench.client.enqueue(contentsOf: (0..<4).map { _ in Step(milliseconds: 40_000) })
        let middle = try await bench.client.enqueue(contentsOf: (0..<4).map { _ in Step(milliseconds: 8_000) })
        let waiting = try await bench.client.enqueue(contentsOf: (0..<200).map { _ in Step(milliseconds: 20) })
        #expect(try await eventually(.seconds(30)) { bench.journal().filter { $0.event == "begin" }.count >= 10 })
        kill(server.pid, SIGSTOP)
        try await Task.sleep(for: .seconds(30))
        let back = SystemJobClock().uptime
        kill(server.pid, SIGCONT)
        #expect(try await eventually(.seconds(60)) { try await bench.unfinished() == 0 })
        let journal = bench.journal()
        let begun = Dictionary(grouping: journal.filter { $0.event == "begin" }, by: \.job)
        let ended = Set(journal.filter { $0.event == "end" }.map(\.job))
        let all = (long + middle + waiting).map(\.id)
        let resumed =
            Double((journal.filter { $0.event == "begin" && $0.time > back }.map(\.time).min() ?? .max) - back)
            / 1_000_000
        print(
            "30 s stop: \(all.filter { !ended.contains($0) }.count) lost, \(begun.filter { $0.value.count > 1 }.count) begun twice, resumed after \(resumed) s"
        )
        #expect(all.allSatisfy(ended.contains))
        #expect(begun.allSatisfy { $0.value.count == 1 }, "the workers lived: nothing was taken from them")
        #expect(resumed < 15)
    }

    @Test(
        "1,000 bad messages among 500 good ones: each becomes a dead letter with its bytes, the good ones all run, no worker ends"
    )
    func badInput() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let bench = try KillBench(url: server.url)
        let client = try RESPClient(RESPConfiguration(url: server.url))
        defer { client.close() }
        let sample = try await self.sample(server)
        let id = try Message(envelope: sample).id
        var generator = SystemRandomNumberGenerator()
        var bad: [[UInt8]] = []
        while bad.count < 1000 {
            // Each with an id of its own.
            var bytes = Array(String(decoding: sample, as: UTF8.self).replacing(id, with: "bad-\(bad.count)").utf8)
            switch bad.count % 4 {
            case 0: bytes = (0..<Int.random(in: 1...200)).map { _ in UInt8.random(in: 0...255, using: &generator) }
            case 1: bytes = Array(bytes.prefix(Int.random(in: 1..<bytes.count)))
            case 2:
                for _ in 0..<Int.random(in: 1...20) {
                    bytes[Int.random(in: 0..<bytes.count)] = UInt8.random(in: 0...255, using: &generator)
                }
            default:
                bytes = Array(
                    Self.malformed.randomElement(using: &generator)!.replacing("NUMBER", with: "\(bad.count)").utf8)
            }
            // A mutation may leave a good message, or one of another name, which waits for a worker that knows the
            // name.
            let headers =
                ((try? JSONSerialization.jsonObject(with: Data(bytes))) as? [String: Any])?["headers"] as? [String: Any]
            if let name = headers?["task"] as? String, name != Step.name { continue }
            // So may one that is damaged elsewhere, whose name can be made out.
            let text = String(decoding: bytes, as: UTF8.self)
            if let name = text.firstMatch(of: /"headers":{[^{}]*?"task": ?"([^"\\]+)"/)?.1, name != Step.name {
                continue
            }
            if let message = try? Message(envelope: bytes),
                message.jobName != Step.name || (try? message.decodedBody()) != nil
            {
                continue
            }
            bad.append(bytes)
        }
        let worker = try bench.startWorker()
        let good = try await bench.client.enqueue(contentsOf: (0..<250).map { _ in Step(milliseconds: 1) })
        for start in stride(from: 0, to: bad.count, by: 100) {
            try await client.send(RESPCommand("LPUSH", ["default"] + bad[start..<start + 100].map { .bytes($0) }))
        }
        let more = try await bench.client.enqueue(contentsOf: (0..<250).map { _ in Step(milliseconds: 1) })
        #expect(try await eventually(.seconds(60)) { try await bench.unfinished() == 0 })
        #expect(worker.isRunning)
        for handle in good + more { #expect(try await handle.state() == .succeeded) }
        let dead = try await bench.backend.jobs(JobFilter(states: [.failed], limit: .max))
        #expect(dead.count == 1000)
        #expect(dead.allSatisfy { $0.failure?.message.isEmpty == false })
        let kept =
            try await client.send(RESPCommand("HVALS", ["hoist:dead:default:jobs"])).elements?.compactMap(\.bytes) ?? []
        // Compared with the original bytes; the messages that differ are enough to see why.
        let different = Set(bad).symmetricDifference(kept).map { Data($0).base64EncodedString() }
        #expect(different.isEmpty, "lost, or not what was sent, in base64: \(different)")
    }

    /// A message as it lies in the queue.
    private func sample(_ server: RedisServer) async throws -> [UInt8] {
        let backend = try RedisBackend(url: server.url)
        defer { backend.close() }
        let logger = Logger(label: "sample", factory: { _ in SwiftLogNoOpLogHandler() })
        try await JobClient(backend, logger: logger).enqueue(Step(milliseconds: 1), .queue("sample"), .priority(9))
        let client = try RESPClient(RESPConfiguration(url: server.url))
        defer { client.close() }
        return try await client.send(RESPCommand("RPOP", ["sample"])).bytes ?? []
    }

    private static let malformed = [
        "{}", "[]", "null", "{\"headers\":{}}", "{\"headers\":{\"task\":1,\"id\":2}}",
        "{\"headers\":{\"task\":\"kill.step\"}}",
        "{\"headers\":{\"lang\":\"swift\",\"task\":\"kill.step\",\"id\":\"", String(repeating: "[", count: 5000),
        "{\"headers\":[1,2,3]}",
        "{\"headers\":{\"lang\":\"swift\",\"task\":\"kill.step\",\"id\":\"x\nNUMBER\",\"retries\":99999999999999999999,\"eta\":\"never\",\"expires\":5}}",
    ]
}
