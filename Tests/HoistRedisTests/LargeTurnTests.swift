import Foundation
import Hoist
@testable import HoistRedis
import HoistTesting
import Logging
import RESP
import Synchronization
import TestServers
import Testing

/// Turns that settle so much that they go to the server in parts.
@Suite("Large turns on Redis", .timeLimit(.minutes(2)))
struct LargeTurnTests {
    private struct Note: Job {
        static let name = "note"
        var number: Int
        typealias Output = Int
    }

    private let arrivals = Arrivals()
    private let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
    private let worker = "w-\(UUID().uuidString.prefix(8))"
    private let prefix = "large\(UUID().uuidString.prefix(8)):"

    private func backend() async throws -> (RedisBackend, RESPClient) {
        let (backend, probe) = try RedisBackend.onTestServer(prefix: prefix)
        let presence = WorkerPresence(
            id: worker, name: worker, queues: ["default", "small"], jobNames: ["note"], startedAt: Date(),
            concurrency: 1)
        #expect(try await backend.join(presence, lease: .seconds(60), sink: arrivals))
        return (backend, probe)
    }

    private func claim(_ queue: String) -> Claim { Claim(queue: queue, kind: "async", jobNames: ["note"]) }

    /// Settles a job as a worker does when its output is not kept.
    private func done(_ delivery: Delivery) -> Settlement {
        var settlement = Settlement(
            jobID: delivery.jobID, token: delivery.token, outcome: .succeeded(output: [], retention: 0),
            startedAt: Date(),
            finishedAt: Date())
        settlement.encoded = SettlingStep(
            id: delivery.jobID, token: delivery.token, operation: .done, result: nil, queue: "")
        return settlement
    }

    private func held(_ probe: RESPClient) async throws -> Int64? {
        try await probe.send(RESPCommand("HLEN", [.text(prefix + "hoist:held:" + worker)])).integer
    }

    @Test(
        "what is claimed takes no more than there is room for, in the order of the queues, and what is settled is settled once"
    )
    func budget() async throws {
        let (backend, probe) = try await backend()
        defer { probe.close() }
        let client = JobClient(backend, logger: silent)
        let ids = try await client.enqueue(contentsOf: (0..<400).map(Note.init), [.queue("default")]).map(\.id)
        let smallIDs = try await client.enqueue(contentsOf: (0..<400).map(Note.init), [.queue("small")]).map(\.id)
        var request = WorkerTurn(
            claims: [claim("small"), claim("default")],
            budget: ClaimBudget(kinds: ["async": 130], queues: ["small": 50]))
        let first = try await backend.turn(worker, request).deliveries
        request.settlements = first.map(done)
        #expect(backend.parts(of: request, besideStandingClaims: false).count == 4)
        let result = try await backend.turn(worker, request)
        #expect(result.lost.isEmpty)
        #expect(result.hasMore)
        #expect(result.deliveries.count == 130)
        #expect(try await held(probe) == 130)
        let all = first + result.deliveries
        #expect(all.filter { $0.queue == "small" }.map(\.jobID) == Array(smallIDs[..<100]))
        #expect(all.filter { $0.queue == "default" }.map(\.jobID) == Array(ids[..<160]))
        for delivery in first { #expect(try await backend.record(of: delivery.jobID) == nil) }

        request.claims = []
        #expect(Set(try await backend.turn(worker, request).lost) == Set(first.map(\.jobID)))
        #expect(try await held(probe) == 130)
    }

    @Test("only what stores outputs and claims goes in parts")
    func splitting() async throws {
        let (backend, probe) = try await backend()
        defer { probe.close() }
        let delivery = Delivery(
            jobID: "a", jobName: "note", queue: "default", payload: .envelope([]), attempt: 1, lostWorkers: 0, token: 1)
        let plain = WorkerTurn(
            settlements: (0..<130).map { _ in done(delivery) }, claims: [claim("default")])
        #expect(backend.parts(of: plain, besideStandingClaims: false).count == 4)
        func count(_ change: (inout WorkerTurn) -> Void) -> Int {
            var request = plain
            change(&request)
            return backend.parts(of: request, besideStandingClaims: false).count
        }
        #expect(count { $0.settlements.removeLast(67) } == 1)
        #expect(count { $0.settlements.removeLast(66) } == 2)
        // This one closes its queue, and no other job of it may start after that.
        #expect(
            count {
                $0.settlements[100] = Settlement(
                    jobID: "b", token: 2, outcome: .snoozed(until: Date(), closesQueue: true), startedAt: Date(),
                    finishedAt: Date())
            } == 1)
        #expect(count { $0.holding = [] } == 1)
        #expect(count { $0.withdrawsCredit = true } == 1)
        #expect(count { $0.logs = [LogReport(jobID: "a", token: 1, log: JobLog(attempt: 1, lines: []))] } == 1)
        #expect(
            count { $0.progress = [ProgressReport(jobID: "a", token: 1, progress: JobProgress(fraction: 0.5))] } == 1)
    }

    @Test("an ordered queue keeps its order when what another producer left out must be found out")
    func order() async throws {
        let (backend, probe) = try await backend()
        defer { probe.close() }
        let client = JobClient(backend, logger: silent)
        try await client.enqueue(contentsOf: (0..<130).map(Note.init))
        var request = WorkerTurn(claims: [claim("default")], budget: ClaimBudget(kinds: ["async": 130]))
        request.settlements = try await backend.turn(worker, request).deliveries.map(done)
        try await backend.setLimits([.ordered], for: .queue("small"))
        for number in 0..<12 {
            var message = Message(
                headers: MessageHeaders(task: "note", id: "\(number)"),
                properties: MessageProperties(routingKey: "small", deliveryTag: "\(number)"),
                body: Array("[[],{},{}]".utf8))
            message.headers.language = "py"
            #expect(try await backend.publish([message]) == [.enqueued])
        }
        request.claims = [Claim(queue: "small", kind: "async", jobNames: ["note"], partition: { _ in "same" })]
        request.budget = ClaimBudget(kinds: ["async": 8])
        #expect(backend.parts(of: request, besideStandingClaims: false).count == 4)
        var seen: [JobID] = []
        for _ in 1...60 where seen.count < 12 {
            let deliveries = try await backend.turn(worker, request).deliveries
            seen += deliveries.map(\.jobID)
            request.settlements = deliveries.map(done)
        }
        #expect(seen == (0..<12).map { "\($0)" })
    }

    @Test(
        "claims that wait are not carried out beside it: there is never more than there is room for, and every job comes once"
    )
    func claimsThatWait() async throws {
        let (backend, probe) = try await backend()
        defer { probe.close() }
        let client = JobClient(backend, logger: silent)
        var expected = Set(try await client.enqueue(contentsOf: (0..<130).map(Note.init)).map(\.id))
        var (mine, seen): ([Delivery], [JobID]) = ([], [])
        var settlements: [Settlement] = []
        for round in 1...60 {
            let (arrived, count) = arrivals.state.withLock { late in
                defer { late.deliveries = [] }
                return late
            }
            mine += arrived
            seen += arrived.map(\.jobID)
            var request = WorkerTurn(
                settlements: settlements, claims: [claim("default")],
                budget: ClaimBudget(kinds: ["async": 200 - mine.count]))
            request.arrivalsSeen = count
            request.creditLasts = true
            // Some come while claims wait, and some while the turn is under way.
            async let more = round.isMultiple(of: 2) ? client.enqueue(contentsOf: (0..<150).map(Note.init)) : []
            let result = try await backend.turn(worker, request)
            expected.formUnion(try await more.map(\.id))
            #expect(result.lost.isEmpty)
            mine += result.deliveries
            seen += result.deliveries.map(\.jobID)
            #expect(try await held(probe) ?? 201 <= 200)
            settlements = mine.map(done)
            mine = []
        }
        for _ in 1...100 where seen.count < expected.count || !settlements.isEmpty {
            let arrived = arrivals.state.withLock { late in
                defer { late.deliveries = [] }
                return late.deliveries
            }
            seen += arrived.map(\.jobID)
            var request = WorkerTurn(
                settlements: settlements + arrived.map(done), claims: [claim("default")],
                budget: ClaimBudget(kinds: ["async": 200]))
            request.arrivalsSeen = arrivals.state.withLock { $0.count }
            let deliveries = try await backend.turn(worker, request).deliveries
            seen += deliveries.map(\.jobID)
            settlements = deliveries.map(done)
        }
        #expect(seen.count == expected.count)
        #expect(Set(seen) == expected)
    }
}
