import Foundation
import Hoist
import HoistRedis
import HoistTesting
import Synchronization
import TestServers
import Testing

/// Chains of Celery's through Swift workers that are killed, and Python workers that are stopped and continued.
@Suite(
    "Chains under fire", .serialized, .timeLimit(.minutes(4)),
    .enabled(if: PythonPeer.interpreter != nil, "\(PythonPeer.isMissing)"))
struct ChainKillTests {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Python")
        .path

    @Test("three chains of 200 steps each end once with the right result, read from both sides")
    func chains() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let bench = try KillBench(lease: 1, url: server.url)
        let environment = ["PEER_BROKER": server.url]
        let logs = FileManager.default.temporaryDirectory
        var python: [Process] = []
        defer {
            for worker in python {
                kill(worker.processIdentifier, SIGCONT)
                PythonPeer.stop(worker)
            }
        }
        for number in 0..<2 {
            python.append(
                try PythonPeer.start(
                    [
                        "-m", "celery", "-A", "chains", "worker", "-P", "solo", "-l", "warning", "--without-gossip",
                        "--without-mingle", "--without-heartbeat", "-Q", "default", "-n", "python-\(number)@%h",
                    ], in: Self.folder, environment: environment,
                    log: logs.appendingPathComponent("hoist-chain-\(UUID().uuidString).log")))
        }
        var swift = [try bench.startWorker(), try bench.startWorker()]
        let (chainCount, stepCount) = (3, 200)
        let client = Task {
            // On a thread of its own, for it waits long.
            try await withCheckedThrowingContinuation { continuation in
                Thread.detachNewThread {
                    continuation.resume(
                        with: Result {
                            try PythonPeer.run(
                                ["chains.py", "\(chainCount)", "\(stepCount)", "150"], in: Self.folder,
                                environment: environment)
                        })
                }
            }
        }
        let isOver = Atomic(false)
        let text = Task {
            defer { isOver.store(true, ordering: .relaxed) }
            return try await client.value
        }
        var kills = 0
        while !isOver.load(ordering: .relaxed) {
            // After some more steps a Python worker stands still, and a Swift worker dies while it does.
            try await waitForSteps(15, bench, isOver)
            kill(python[kills % 2].processIdentifier, SIGSTOP)
            try await waitForSteps(5, bench, isOver)
            kill(swift[kills % 2].processIdentifier, SIGKILL)
            swift[kills % 2] = try bench.startWorker()
            kill(python[kills % 2].processIdentifier, SIGCONT)
            kills += 1
        }
        #expect(kills >= 3, "\(kills) kills")
        let families = try JSONText.parse(Array(try await text.value.utf8)).arrayValue ?? []
        #expect(families.count == chainCount)
        for family in families {
            let steps = family.arrayValue ?? []
            #expect(steps.count == stepCount)
            for (index, step) in steps.enumerated() {
                let sum = Int64((index + 1) * (index + 2) / 2)
                let parts = step.arrayValue ?? []
                #expect(
                    parts.count == 3 && parts[1] == "SUCCESS" && parts[2] == .integer(sum), "step \(index): \(step)")
                // From the Swift side as well.
                let record = try await bench.backend.record(of: parts.first?.stringValue ?? "")
                #expect(record?.state == .succeeded && record?.output == .integer(sum))
            }
        }
        let begun = bench.journal().filter { $0.event == "begin" }.map(\.job)
        let doubled = begun.count - Set(begun).count
        // Nothing is left over that would run a chain's end a second time.
        #expect(try await eventually { try await bench.unfinished() == 0 })
        #expect(!begun.isEmpty, "the Swift workers took part")
        print(
            "\(chainCount) chains of \(stepCount) steps: \(kills) kills, \(doubled) steps begun twice by Swift workers")
    }

    /// Waits until Swift workers have begun this many more steps, or for three seconds: they may all be dead.
    private func waitForSteps(_ count: Int, _ bench: KillBench, _ isOver: borrowing Atomic<Bool>) async throws {
        let before = bench.journal().count
        _ = try await eventually(.seconds(3)) {
            bench.journal().count >= before + 2 * count || isOver.load(ordering: .relaxed)
        }
    }
}
