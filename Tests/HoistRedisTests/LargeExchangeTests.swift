import Foundation
import Hoist
import HoistRedis
import HoistTesting
import Logging
import RESP
import Synchronization
import TestServers
import Testing

/// Exchanges that settle so much that they go to the server in parts.
@Suite("Large exchanges on Redis", .timeLimit(.minutes(2)))
struct LargeExchangeTests {
    private struct Note: Job {
        static let name = "note"
        var number: Int
        typealias Output = Int
    }

    private let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
    private let worker = "w-\(UUID().uuidString.prefix(8))"
    private let prefix = "large\(UUID().uuidString.prefix(8)):"

    private func backend() async throws -> (RedisBackend, RESPClient) {
        let server = try RESPConfiguration(url: try RedisServer.shared.get().url)
        let backend = try RedisBackend(server, configuration: .init(keyPrefix: prefix, resultKeyPrefix: prefix))
        let presence = WorkerPresence(
            id: worker, name: worker, queues: ["default", "small"], jobNames: ["note"], startedAt: Date(), concurrency: 1)
        #expect(try await backend.renew(presence, lease: .seconds(60)))
        return (backend, try RESPClient(server))
    }

    private func claim(_ queue: String) -> Claim { Claim(queue: queue, lane: "async", jobNames: ["note"]) }

    private func done(_ delivery: Delivery) -> Settlement {
        Settlement(
            jobID: delivery.jobID, token: delivery.token, outcome: .succeeded(output: Array("1".utf8), retention: nil),
            startedAt: Date(), finishedAt: Date())
    }

    private func held(_ probe: RESPClient) async throws -> Int64? {
        try await probe.send(RESPCommand("HLEN", [.text(prefix + "hoist:held:" + worker)])).integer
    }

    @Test("what is claimed takes no more than there is room for, in the order of the queues, and what is settled is settled once")
    func budget() async throws {
        let (backend, probe) = try await backend()
        defer { probe.close() }
        let client = JobClient(backend, logger: silent)
        let ids = try await client.enqueue(contentsOf: (0..<400).map(Note.init), [.queue("default")]).map(\.id)
        let smallIDs = try await client.enqueue(contentsOf: (0..<400).map(Note.init), [.queue("small")]).map(\.id)
        var request = Exchange(
            worker: worker, claims: [claim("small"), claim("default")],
            budget: ClaimBudget(lanes: ["async": 130], queues: ["small": 50]))
        let first = try await backend.exchange(request).deliveries
        request.settlements = first.map(done)
        let result = try await backend.exchange(request)
        #expect(result.lost.isEmpty)
        #expect(result.hasMore)
        #expect(result.deliveries.count == 130)
        #expect(try await held(probe) == 130)
        let all = first + result.deliveries
        #expect(all.filter { $0.queue == "small" }.map(\.jobID) == Array(smallIDs[..<100]))
        #expect(all.filter { $0.queue == "default" }.map(\.jobID) == Array(ids[..<160]))
        for delivery in first { #expect(try await backend.record(of: delivery.jobID)?.state == .succeeded) }

        request.claims = []
        #expect(Set(try await backend.exchange(request).lost) == Set(first.map(\.jobID)))
        #expect(try await held(probe) == 130)
    }

    @Test("claims that wait are not carried out beside it: there is never more than there is room for, and every job comes once")
    func claimsThatWait() async throws {
        let (backend, probe) = try await backend()
        defer { probe.close() }
        let client = JobClient(backend, logger: silent)
        let late = Mutex<(deliveries: [Delivery], count: Int)>(([], 0))
        var expected = Set(try await client.enqueue(contentsOf: (0..<130).map(Note.init)).map(\.id))
        var (mine, seen): ([Delivery], [JobID]) = ([], [])
        var settlements: [Settlement] = []
        for round in 1...60 {
            let (arrived, count) = late.withLock { late in
                defer { late.deliveries = [] }
                return late
            }
            mine += arrived
            seen += arrived.map(\.jobID)
            var request = Exchange(
                worker: worker, settlements: settlements, claims: [claim("default")],
                budget: ClaimBudget(lanes: ["async": 200 - mine.count]))
            request.lateResultCount = count
            request.onLateResult = { result in
                late.withLock { late in
                    late.count += 1
                    if case .success(let result) = result { late.deliveries += result.deliveries }
                }
            }
            // Some come while claims wait, and some while the exchange is under way.
            async let more = round.isMultiple(of: 2) ? client.enqueue(contentsOf: (0..<150).map(Note.init)) : []
            let result = try await backend.exchange(request)
            expected.formUnion(try await more.map(\.id))
            #expect(result.lost.isEmpty)
            mine += result.deliveries
            seen += result.deliveries.map(\.jobID)
            #expect(try await held(probe) ?? 201 <= 200)
            settlements = mine.map(done)
            mine = []
        }
        for _ in 1...100 where seen.count < expected.count || !settlements.isEmpty {
            let arrived = late.withLock { late in
                defer { late.deliveries = [] }
                return late.deliveries
            }
            seen += arrived.map(\.jobID)
            var request = Exchange(
                worker: worker, settlements: settlements + arrived.map(done), claims: [claim("default")],
                budget: ClaimBudget(lanes: ["async": 200]))
            request.lateResultCount = late.withLock { $0.count }
            let deliveries = try await backend.exchange(request).deliveries
            seen += deliveries.map(\.jobID)
            settlements = deliveries.map(done)
        }
        #expect(seen.count == expected.count)
        #expect(Set(seen) == expected)
    }
}
