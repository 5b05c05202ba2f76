import Foundation
import Hoist
import HoistTesting
import TestServers
import Testing

private struct Work: Job {
    static let name = "kill.work"
    var milliseconds: Int
    typealias Input = Int
    typealias Output = Int
}
private struct Spread: Job {
    static let name = "kill.spread"
    var count: Int
    typealias Input = Int
    typealias Output = [Int]
}
private struct Total: Job {
    static let name = "kill.total"
    typealias Input = [Int]
    typealias Output = Int
}

/// Workflows and chords through workers that are killed and stopped, and a Redis that is killed.
@Suite("Workflows under fire", .serialized, .timeLimit(.minutes(6)))
struct WorkflowKillTests {
    /// How long workers are killed, as far as there is work.
    private static let counts: (flows: Int, chords: Int) = {
        let isLong = ProcessInfo.processInfo.environment["HOIST_WORKFLOW_KILLS"] == "long"
        return isLong ? (50, 200) : (12, 20)
    }()

    @Test("on SQLite every workflow ends with the right output, and every step starts once but for kills")
    func sqlite() async throws {
        try await run(try KillBench(lease: 1), server: nil)
    }

    @Test("on Redis too, which is killed and restarted meanwhile")
    func redis() async throws {
        let server = try RedisServer(["--appendonly", "yes", "--appendfsync", "always"])
        defer { server.stop() }
        try await run(try KillBench(lease: 1, url: server.url), server: server)
    }

    private func run(_ bench: KillBench, server: RedisServer?) async throws {
        let started = [try bench.startWorker(), try bench.startWorker(), try bench.startWorker()]
        // forEach within forEach, between chains.
        let flow = Work(milliseconds: 5).then(Spread(count: 6))
            .then(
                forEach: Work(milliseconds: 20).then(Spread(count: 4)).then(forEach: Work(milliseconds: 10)).then(
                    Total())
            )
            .then(Total()).then(Work(milliseconds: 5))
        func expected(_ start: Int) -> Int {
            let pieces = (0..<6).map { start + 1 + $0 }
            return pieces.map { piece in (0..<4).map { piece + 1 + $0 + 1 }.reduce(0, +) }.reduce(0, +) + 1
        }
        var flows: [(Int, WorkflowHandle<Int>)] = []
        for start in 0..<Self.counts.flows {
            flows.append((expected(start), try await bench.client.enqueue(flow, on: start, .id("flow-\(start)"))))
        }
        var chords: [(Int64, JobHandle<WireValue>)] = []
        for start in 0..<Self.counts.chords {
            let header = (0..<25).map { number in
                Signature.task("kill.add", [.integer(Int64(start)), .integer(Int64(number))]).with("queue", "default")
            }
            let canvas = Signature.chord(header, Signature.task("kill.total").with("queue", "default"))
            let handle = try await bench.client.enqueue(canvas: canvas)
            chords.append((Int64(25 * start + 300), handle.job))
        }
        let firing = Task {
            var (workers, kills) = (started, 0)
            while !Task.isCancelled {
                try? await Task.sleep(for: .milliseconds(500))
                let index = kills % workers.count
                if kills % 7 == 3 {
                    // Longer than its lease: what it says afterwards is refused.
                    kill(workers[index].processIdentifier, SIGSTOP)
                    try? await Task.sleep(for: .seconds(2))
                    kill(workers[index].processIdentifier, SIGCONT)
                } else if let server, kills % 10 == 5 {
                    server.stop()
                    try? server.start()
                } else {
                    kill(workers[index].processIdentifier, SIGKILL)
                    if let next = try? bench.startWorker() { workers[index] = next }
                }
                kills += 1
            }
            return kills
        }
        defer { firing.cancel() }
        for (expected, handle) in flows {
            #expect(try await patiently { try await handle.output(timeout: .seconds(150)) } == expected, "\(handle.id)")
        }
        for (expected, handle) in chords {
            #expect(try await patiently { try await handle.output(timeout: .seconds(150)) }.integerValue == expected)
        }
        firing.cancel()
        let kills = await firing.value
        let begun = bench.journal().filter { $0.event == "begin" }.map(\.job)
        let doubled = begun.count - Set(begun).count
        // A step runs again only when its own worker was killed or stopped: each of them held eight at most.
        #expect(doubled <= kills * 8, "\(doubled) steps begun again in \(kills) kills")
        let perFlow = 4 + 6 * (2 + 4 + 1) + 0
        #expect(Set(begun).count == Self.counts.flows * perFlow + Self.counts.chords * 26, "\(Set(begun).count) steps")
        #expect(try await eventually { try await bench.unfinished() == 0 })
        for (_, handle) in flows { #expect(try await handle.status()?.state == .succeeded) }
        print(
            "\(flows.count) workflows and \(chords.count) chords: \(kills) kills, \(doubled) of \(begun.count) steps begun again"
        )
    }

    /// Asks again while the server is away.
    private func patiently<T>(_ body: () async throws -> T) async throws -> T {
        let limit = ContinuousClock.now + .seconds(60)
        while true {
            do { return try await body() } catch let error as BackendError where error.isRetrySafe && .now < limit {
                try await Task.sleep(for: .milliseconds(50))
            }
        }
    }
}
