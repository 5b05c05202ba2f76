import Foundation
import Hoist
import HoistRedis
import HoistTesting
import Logging
import RESP
import TestServers
import Testing

/// What it costs to watch a fleet, as it grows.
@Suite("Growth of a fleet", .serialized, .timeLimit(.minutes(5)))
struct FleetGrowthTests {
    private let silent = Logger(label: "fleet", factory: { _ in SwiftLogNoOpLogHandler() })

    /// Messages and bytes for each node and second.
    private struct Cost {
        var messages: Double
        var bytes: Double
    }

    /// What one node has sent since it was listened to.
    private struct Heard {
        var frames = 0
        var bytes = 0
        var first: ContinuousClock.Instant?
        var last = ContinuousClock.now
        /// Between the last two.
        var interval: Duration?
    }

    private func cost(ofNodes count: Int) async throws -> Cost {
        let server = try RedisServer()
        defer { server.stop() }
        let backend = try RedisBackend(url: server.url)
        // A monitor is another program, with connections of its own.
        let monitor = try RedisBackend(url: server.url)
        let frames = try await monitor.frames(exchange: "celeryev", pattern: "#")
        let heard = Shared<[String: Heard]>([:])
        let hearing = Task {
            for await frame in frames {
                let now = ContinuousClock.now
                guard let json = try? JSONText.parse(frame.bytes), let node = json["headers"]?["hostname"]?.stringValue
                else { continue }
                heard.change { heard in
                    var known = heard[node] ?? Heard()
                    known.interval = known.first.map { _ in now - known.last }
                    known.last = now
                    // Those after the first, whose time begins with it.
                    if known.first == nil {
                        known.first = now
                    } else {
                        known.frames += 1
                        known.bytes += frame.bytes.count
                    }
                    heard[node] = known
                }
            }
        }
        defer { hearing.cancel() }
        let workers = (0..<count).map { number in
            Worker(
                backend, queues: ["idle"], lanes: [.async(1)], configuration: .init(name: "n\(number)@h"),
                logger: silent
            ) { Handler(named: "idle") { _, _ in .null } }
        }
        return try await withThrowingTaskGroup(of: Void.self) { group in
            for worker in workers { group.addTask { try await worker.run() } }
            // The time in which each says hello to all others is not that of an idle fleet.
            let areUp = await heard.wait(.seconds(180)) { heard in
                heard.count == count && heard.values.allSatisfy { $0.interval.map { $0 < .seconds(2.5) } ?? false }
            }
            #expect(areUp, "\(heard.value.count) of \(count) nodes are heard")
            heard.change { $0 = [:] }
            let isDone = await heard.wait(.seconds(60)) { heard in
                heard.count == count && heard.values.allSatisfy { $0.frames >= 3 }
            }
            #expect(isDone)
            let result = heard.value
            for worker in workers { worker.stop() }
            try await group.waitForAll()
            var cost = Cost(messages: 0, bytes: 0)
            for node in result.values {
                let seconds = (node.last - (node.first ?? node.last)) / .seconds(1)
                cost.messages += Double(node.frames) / seconds / Double(count)
                cost.bytes += Double(node.bytes) / seconds / Double(count)
            }
            return cost
        }
    }

    /// 1,000 where there is time.
    private static let sizes =
        [1, 10, 100] + (ProcessInfo.processInfo.environment["HOIST_FLEET_NODES"].flatMap(Int.init).map { [$0] } ?? [])

    @Test("an idle node costs the same however many there are")
    func idle() async throws {
        var costs: [(nodes: Int, cost: Cost)] = []
        for size in Self.sizes { costs.append((size, try await cost(ofNodes: size))) }
        for (nodes, cost) in costs {
            let messages = String(format: "%.3f", cost.messages)
            print("\(nodes) idle nodes: \(messages) messages and \(Int(cost.bytes)) bytes a node and second")
            #expect(cost.messages <= 0.6 && cost.bytes <= 1024)
        }
        // Each heartbeat is as large as any other, but for the digits of the names. How many there are in a second hangs
        // on the machine as well, on which all these nodes live.
        let sizes = costs.map { $0.cost.bytes / $0.cost.messages }
        #expect((sizes.max() ?? 0) <= (sizes.min() ?? 0) * 1.1, "\(sizes)")
        let rates = costs.map(\.cost.messages)
        #expect((rates.max() ?? 0) <= (rates.min() ?? 0) * 1.3, "\(rates)")
    }
}
