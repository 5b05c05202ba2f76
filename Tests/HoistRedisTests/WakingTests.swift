import Foundation
import Hoist
@testable import HoistRedis
import HoistTesting
import Logging
import RESP
import TestServers
import Testing

/// A job wakes one worker of those that wait, and is not lost with the connection or the worker that it woke.
@Suite("Waking of idle workers on Redis", .serialized, .timeLimit(.minutes(2)))
struct WakingTests {
    private let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
    private let server: RedisServer
    private let probe: RESPClient

    init() throws {
        server = try RedisServer()
        probe = try RESPClient(RESPConfiguration(url: server.url))
    }

    private func message(_ id: String, lang: String = "swift") -> Message {
        var headers = MessageHeaders(task: "job", id: id)
        headers.language = lang
        headers.hoist.enqueuedAt = Date()
        return Message(
            headers: headers, properties: MessageProperties(routingKey: "default", deliveryTag: id),
            body: MessageBody(arguments: Arguments()).encoded())
    }

    /// Blocking commands that wait on the server.
    private func blocked() async throws -> Int {
        let text = try await probe.send(RESPCommand("INFO", ["clients"])).text ?? ""
        return text.firstMatch(of: /blocked_clients:(\d+)/).flatMap { Int($0.1) } ?? 0
    }

    private func calls(_ command: String) async throws -> Int {
        let text = try await probe.send(RESPCommand("INFO", ["commandstats"])).text ?? ""
        guard let found = text.firstRange(of: "cmdstat_\(command):calls=") else { return 0 }
        return Int(text[found.upperBound...].prefix { $0.isNumber }) ?? 0
    }

    @Test(
        "a job wakes one of twenty idle workers, also one that a Python producer has put there",
        arguments: [
            "swift", "py",
        ])
    func oneIsWoken(_ lang: String) async throws {
        let url = server.url
        let done = Shared<[String: Int]>([:])
        let backends = try (0..<20).map { _ in try RedisBackend(url: url) }
        let workers = backends.map { backend in
            Worker(backend, lanes: [.async(1)], logger: silent) {
                Handler(named: "job") { _, context in
                    done.change { $0[context.id, default: 0] += 1 }
                    return .null
                }
            }
        }
        try await withThrowingTaskGroup { group in
            for worker in workers { group.addTask { try await worker.run() } }
            // Each of them waits at each of the four lists of its queue.
            #expect(try await eventually(.seconds(30)) { try await self.blocked() == 80 })
            let (blocking, turns) = (try await calls("blmove"), try await calls("evalsha"))
            let start = ContinuousClock.now
            for number in 0..<50 {
                let message = message("\(number)", lang: lang)
                if lang == "py" {
                    try await probe.send(RESPCommand("LPUSH", ["default", .bytes(message.encodedEnvelope())]))
                } else {
                    _ = try await backends[0].publish([message])
                }
                #expect(await done.wait(.seconds(10)) { $0["\(number)"] != nil })
            }
            // Idle workers renew leases, and begin to wait again, all the time.
            let seconds = Double((ContinuousClock.now - start).components.seconds + 1)
            let woken = Double(try await calls("blmove") - blocking) - seconds * 20
            let asked = Double(try await calls("evalsha") - turns) - seconds * 60
            #expect(woken < 50 * 2.5, "\(woken) blocking commands for 50 jobs")
            #expect(asked < 50 * 6, "\(asked) scripts for 50 jobs")
            for worker in workers { worker.stop(.drain) }
            try await group.waitForAll()
        }
        #expect(done.value.count == 50 && done.value.values.allSatisfy { $0 == 1 }, "\(done.value)")
        let left = try await probe.send(RESPCommand("KEYS", ["hoist:handing:*:*"])).elements ?? []
        #expect(left.isEmpty, "\(left)")
        for backend in backends { backend.close() }
    }

    @Test("what the blocking command of a dead worker has taken goes back, also what it takes after its death")
    func deadWorker() async throws {
        let backend = try RedisBackend(url: server.url)
        let presence = WorkerPresence(
            id: "dead", name: "dead", queues: ["default"], jobNames: ["job"], startedAt: Date())
        #expect(try await backend.join(presence, lease: .seconds(1)))
        let arguments: [RESPArgument] = ["dead", "default"]
        #expect(try await backend.run(RedisScripts.watchList, arguments, doing: "watch")[0].integer == 1)
        var urgent = message("a")
        urgent.properties.priority = 9
        _ = try await backend.publish([urgent])
        // As Redis does for a command that waits.
        func serve() async throws -> Bool {
            try await !probe.send(
                RESPCommand("LMOVE", ["default", "hoist:handing:dead:default", "RIGHT", "RIGHT"])
            ).isNull
        }
        func waits() async throws -> Bool {
            try await backend.tick(every: .milliseconds(100))
            return try await probe.send(RESPCommand("LLEN", ["default"])).integer == 1
        }
        #expect(try await serve())
        #expect(try await eventually(.seconds(20)) { try await waits() })
        // A connection that nobody hears any more is served all the same, as long as its command waits.
        #expect(try await serve())
        #expect(try await eventually(.seconds(20)) { try await waits() })
        #expect(try await backend.run(RedisScripts.watchList, arguments, doing: "watch")[0].integer == 0)
        backend.close()
    }

    @Test("what a lost connection has taken is put back, and performed")
    func lostConnection() async throws {
        let backend = try RedisBackend(url: server.url)
        let done = Shared<[JobID]>([])
        let worker = Worker(backend, lanes: [.async(1)], logger: silent) {
            Handler(named: "job") { _, context in
                done.change { $0.append(context.id) }
                return .null
            }
        }
        let running = Task { try await worker.run() }
        #expect(try await eventually(.seconds(30)) { try await self.blocked() == 4 })
        _ = try await backend.publish([message("first")])
        #expect(await done.wait { $0 == ["first"] })
        #expect(try await eventually(.seconds(30)) { try await self.blocked() == 4 })
        let watching = try await probe.send(RESPCommand("KEYS", ["hoist:handing:*"])).elements ?? []
        let handing = try #require(watching.first?.text)
        let element = message("second").encodedEnvelope()
        _ = try await probe.send(RESPCommand("RPUSH", [.text(handing + ":default"), .bytes(element)]))
        let clients = try await probe.send(RESPCommand("CLIENT", ["LIST"])).text ?? ""
        for line in clients.split(separator: "\n") where line.contains("cmd=blmove") {
            let id = try #require(line.firstMatch(of: /id=(\d+)/).map { String($0.1) })
            _ = try await probe.send(RESPCommand("CLIENT", ["KILL", "ID", .text(id)]))
        }
        #expect(await done.wait(.seconds(20)) { $0 == ["first", "second"] })
        worker.stop(.drain)
        try await running.value
        backend.close()
    }
}
