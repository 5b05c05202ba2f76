import Foundation
import Hoist
import HoistMonitor
import HoistRedis
import HoistTesting
import Logging
import RESP
import TestServers
import Testing

/// Events and control while workers are killed, Redis restarts, and requests come in floods.
@Suite("Control under fire", .serialized, .timeLimit(.minutes(4)))
struct ControlKillTests {
    @Test("a killed worker is dead in the picture after twice its interval, and its jobs are not shown as running")
    func killed() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let bench = try KillBench(url: server.url)
        let fleet = try Fleet(bench.backend)
        let picture = Shared(FleetPicture())
        let events = try await fleet.heardEvents()
        let hearing = Task { for await event in events { picture.change { $0.hear(event, at: Date()) } } }
        defer { hearing.cancel() }
        let process = try bench.startWorker()
        #expect(await picture.wait(.seconds(20)) { $0.liveWorkers(at: Date()).count == 1 })
        // Asked for once more by then, now that the worker listens.
        let isShown = try await eventually(.seconds(30)) {
            try await fleet.tell("enable_events")
            try await bench.client.enqueue(Step(milliseconds: 60_000))
            return await picture.wait(.milliseconds(500)) { !$0.runningJobs(at: Date()).isEmpty }
        }
        #expect(isShown)
        let name = picture.value.liveWorkers(at: Date()).first?.name ?? ""
        let frequency = picture.value.workers[name]?.frequency ?? 0
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
        let isDead = try await eventually { picture.value.liveWorkers(at: Date()).isEmpty }
        #expect(isDead)
        // Two intervals after the last heartbeat, whenever that is looked at.
        let last = try #require(picture.value.workers[name]?.beatAt)
        #expect(picture.value.liveWorkers(at: last.addingTimeInterval(2 * frequency + 0.1)).isEmpty)
        #expect(picture.value.runningJobs(at: Date()).isEmpty)
        #expect(try await fleet.replies(to: .ping, of: .node(name), timeout: .milliseconds(300)).isEmpty)
    }

    @Test("after a restart of Redis events and control work again within five seconds, and no job is lost")
    func restarted() async throws {
        let server = try RedisServer(["--appendonly", "yes", "--appendfsync", "always"])
        defer { server.stop() }
        let bench = try KillBench(url: server.url)
        let fleet = try Fleet(bench.backend)
        let ended = Shared<Set<JobID>>([])
        let events = try await fleet.heardEvents()
        let hearing = Task {
            for await event in events { if case .succeeded(let job) = event { ended.change { $0.insert(job.id) } } }
        }
        defer { hearing.cancel() }
        try bench.startWorker()
        #expect(try await eventually(.seconds(20)) { try await fleet.replies(to: .ping).count == 1 })
        var returns: [Duration] = []
        for _ in 0..<3 {
            let jobs = try await bench.client.enqueue(contentsOf: (0..<50).map { _ in Step(milliseconds: 20) })
            server.stop()
            try await Task.sleep(for: .milliseconds(300))
            try server.start()
            let back = ContinuousClock.now
            let answers = try await eventually(.seconds(20)) {
                (try? await fleet.replies(to: .ping, timeout: .milliseconds(300)))?.count == 1
            }
            returns.append(ContinuousClock.now - back)
            #expect(answers)
            for job in jobs { _ = try await job.output(timeout: .seconds(30)) }
            try await fleet.tell("enable_events")
            let told = try await eventually {
                let id = try await bench.client.enqueue(Step(milliseconds: 1)).id
                return await ended.wait(.milliseconds(500)) { $0.contains(id) }
            }
            #expect(told, "events are heard again")
        }
        // The machine may have paused in one of them.
        #expect(returns.min() ?? .seconds(60) < .seconds(5), "\(returns)")
    }

    @Test("a monitor that is stopped is cut off by Redis; it comes back, and knows what it has missed")
    func stoppedMonitor() async throws {
        // Redis cuts off a listener at once that has this much waiting for it, in place of the 32 MB of its default.
        let server = try RedisServer(["--client-output-buffer-limit", "pubsub 256kb 0 0"])
        defer { server.stop() }
        let output = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-events-\(UUID().uuidString)")
        _ = FileManager.default.createFile(atPath: output.path, contents: nil)
        defer { try? FileManager.default.removeItem(at: output) }
        let monitor = Process()
        monitor.executableURL = BuiltProgram.url("hoist")
        monitor.arguments = ["events", "--json", "--backend", server.url]
        monitor.standardOutput = try FileHandle(forWritingTo: output)
        try monitor.run()
        defer {
            kill(monitor.processIdentifier, SIGCONT)
            kill(monitor.processIdentifier, SIGKILL)
            monitor.waitUntilExit()
        }
        func lines() throws -> [WireValue] {
            try String(contentsOf: output, encoding: .utf8).split(separator: "\n")
                .compactMap { try? JSONText.parse(Array($0.utf8)) }
        }
        let probe = try RESPClient(RESPConfiguration(url: server.url))
        defer { probe.close() }
        func publish(_ number: Int) async throws -> Int64 {
            let body =
                #"{\"type\":\"worker-heartbeat\",\"hostname\":\"w\#(number)@h\",\"timestamp\":1.0,\"pad\":\""#
                + String(repeating: "x", count: 50_000) + #"\"}"#
            let frame =
                #"{"body":"\#(body)","content-encoding":"utf-8","content-type":"application/json","#
                + #""headers":{"hostname":"w@h"},"properties":{"delivery_mode":1}}"#
            let command = RESPCommand("PUBLISH", ["/0.celeryev/worker.heartbeat", .text(frame)])
            return try await probe.send(command).integer ?? 0
        }
        #expect(try await eventually(.seconds(20)) { try await publish(1) > 0 })
        #expect(try await eventually(.seconds(20)) { try !lines().isEmpty })
        kill(monitor.processIdentifier, SIGSTOP)
        // Until Redis has no such listener any more.
        let isCutOff = try await eventually(.seconds(30)) { try await publish(2) == 0 }
        #expect(isCutOff)
        kill(monitor.processIdentifier, SIGCONT)
        let isBack = try await eventually(.seconds(30)) {
            _ = try await publish(3)
            let all = try lines()
            let gap = all.lastIndex { $0["type"] == "hoist-missed" }
            return gap.map { all[$0...].contains { $0["hostname"] == "w3@h" } } ?? false
        }
        let types = try lines().map { $0["type"]?.stringValue ?? "" }
        #expect(isBack, "\(types)")
        #expect(monitor.isRunning)
    }

    @Test("a flood of requests, a third of them hostile, stops no job, restarts nothing and fills no memory")
    func flood() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let bench = try KillBench(url: server.url)
        let process = try bench.startWorker()
        let fleet = try Fleet(bench.backend)
        #expect(try await eventually(.seconds(20)) { try await fleet.replies(to: .ping).count == 1 })
        func memory() -> Int {
            let text = (try? String(contentsOfFile: "/proc/\(process.processIdentifier)/statm", encoding: .utf8)) ?? ""
            return (text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * 4096
        }
        let hostile: [[UInt8]] = [
            Array("not json".utf8), [0xFF, 0xFE, 0x00],
            Array(#"{"body":"!!!","properties":{"body_encoding":"base64"}}"#.utf8),
            Array(("{\"body\":\"" + String(repeating: "[", count: 2000) + "\"}").utf8),
            Array("{\"body\":\"{\\\"method\\\":\\\"\(String(repeating: "x", count: 100_000))\\\"}\"}".utf8),
            Array(#"{"body":"{\"method\":\"rate_limit\",\"arguments\":{\"task_name\":7,\"rate_limit\":[]}}"}"#.utf8),
            Array(#"{"body":"{\"method\":\"pool_shrink\",\"arguments\":{\"n\":-9223372036854775808}}"}"#.utf8),
            Array(#"{"body":"{\"method\":\"ping\",\"pattern\":\"*a*a*a*a*a*b\",\"matcher\":\"glob\"}"}"#.utf8),
        ]
        let harmless = Array(
            #"{"body":"{\"method\":\"ping\",\"ticket\":\"t\",\"reply_to\":{\"exchange\":\"reply.celery.pidbox\",\"routing_key\":\"gone\"}}"}"#
                .utf8)
        let flooding = try RESPClient(RESPConfiguration(url: server.url))
        defer { flooding.close() }
        let before = memory()
        let stopped = Shared(false)
        let sent = Shared(0)
        let flood = Task {
            while !stopped.value {
                let commands = (0..<100).map { number in
                    let bytes = number % 3 == 0 ? hostile.randomElement() ?? harmless : harmless
                    return RESPCommand("PUBLISH", ["/0.celery.pidbox", .bytes(bytes)])
                }
                _ = try await flooding.send(pipeline: commands)
                sent.change { $0 += 100 }
            }
        }
        for _ in 0..<5 {
            let jobs = try await bench.client.enqueue(contentsOf: (0..<100).map { _ in Step(milliseconds: 1) })
            for job in jobs { _ = try await job.output(timeout: .seconds(60)) }
        }
        #expect(await sent.wait(.seconds(60)) { $0 >= 20_000 })
        stopped.change { $0 = true }
        try await flood.value
        #expect(process.isRunning, "the worker lives")
        let grown = (memory() - before) >> 20
        // A build without optimizations keeps more at a time than one with them.
        #expect(grown < 64, "\(grown) MiB more")
        let answers = try await eventually(.seconds(30)) { try await fleet.replies(to: .ping).count == 1 }
        #expect(answers, "it answers again")
        let left = try await flooding.send(RESPCommand("KEYS", ["*reply.celery.pidbox*"])).elements ?? []
        #expect(left.allSatisfy { $0.text?.contains("gone") != true }, "no reply is stored for who has not asked")
    }
}
