import Foundation
import Hoist
import HoistRedis
import HoistTesting
import Logging
import RESP
import Synchronization
import TestServers
import Testing

/// Claims that found too few jobs wait on the server, which hands out a job as soon as it comes.
@Suite("Claims that wait on Redis", .timeLimit(.minutes(2)))
struct LateClaimTests {
    private struct Note: Job {
        static let name = "note"
        var text: String
        typealias Output = String
    }

    private let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
    private let arrivals = Arrivals()
    private let workerID = "w-\(UUID().uuidString.prefix(8))"

    private func backend(
        prefix: String = "late\(UUID().uuidString.prefix(8)):", port: Int? = nil
    ) throws -> (RedisBackend, probe: RESPClient, own: String) {
        let url = try RedisServer.shared.get().url
        let server = try RESPConfiguration(url: port.map { "redis://127.0.0.1:\($0)/0" } ?? url)
        return (
            try RedisBackend(server, configuration: .init(keyPrefix: prefix, resultKeyPrefix: prefix)),
            try RESPClient(RESPConfiguration(url: url)), prefix + "hoist:"
        )
    }

    private func renew(_ backend: RedisBackend) async throws {
        let presence = WorkerPresence(
            id: workerID, name: workerID, queues: ["default"], jobNames: ["note"], startedAt: Date(), concurrency: 1)
        #expect(try await backend.join(presence, lease: .seconds(60), sink: arrivals))
    }

    /// - Parameter known: how many late results the budget takes into account; all by default.
    private func claims(slots: Int, settling settlements: [Settlement] = [], known: Int? = nil) -> WorkerTurn {
        var request = WorkerTurn(
            settlements: settlements,
            claims: [Claim(queue: "default", kind: "async", jobNames: ["note"])],
            budget: ClaimBudget(kinds: ["async": slots]))
        request.creditLasts = true
        request.arrivalsSeen = known ?? arrivals.count
        return request
    }

    private func done(_ delivery: Delivery) -> Settlement {
        Settlement(
            jobID: delivery.jobID, token: delivery.token,
            outcome: .succeeded(output: Array("\"done\"".utf8), retention: nil),
            startedAt: Date(), finishedAt: Date())
    }

    @Test("a job that comes to an idle worker is there without having been asked for, once, and the next one as well")
    func arrival() async throws {
        let (backend, probe, own) = try backend()
        defer { probe.close() }
        try await renew(backend)
        #expect(try await backend.turn(workerID, claims(slots: 2)).deliveries.isEmpty)
        let client = JobClient(backend, logger: silent)
        for count in 1...2 {
            let handle = try await client.enqueue(Note(text: "a"))
            #expect(try await eventually { arrivals.deliveries.count == count })
            #expect(arrivals.deliveries.last?.jobID == handle.id)
            #expect(
                try await probe.send(RESPCommand("HEXISTS", [.text(own + "held:" + workerID), .text(handle.id)]))
                    .integer == 1)
        }
        // Both slots are in use: a third job stays in its queue, where any worker finds it.
        try await client.enqueue(Note(text: "third"))
        #expect(
            try await backend.turn(workerID, WorkerTurn(settlements: arrivals.deliveries.map(done))).lost
                .isEmpty)
        #expect(arrivals.deliveries.count == 2)
        #expect(try await backend.queues().first?.waiting == 1)
        #expect(try await backend.turn(workerID, claims(slots: 1)).deliveries.count == 1)
    }

    @Test("jobs that come to several lists at once take no more than the slots that there are")
    func budget() async throws {
        let (backend, probe, own) = try backend()
        defer { probe.close() }
        try await renew(backend)
        let client = JobClient(backend, logger: silent)
        for round in 1...20 {
            #expect(try await backend.turn(workerID, claims(slots: 1)).deliveries.isEmpty)
            // One in each of kombu's four lists: all four connections wake.
            try await withThrowingTaskGroup(of: Void.self) { group in
                for priority in [0, 3, 6, 9] {
                    group.addTask { try await client.enqueue(Note(text: "\(priority)"), .priority(priority)) }
                }
                try await group.waitForAll()
            }
            #expect(try await eventually { arrivals.deliveries.count == round })
            #expect(try await probe.send(RESPCommand("HLEN", [.text(own + "held:" + workerID)])).integer == 1)
            // The other jobs still wait, and come when they are claimed.
            var held = try [#require(arrivals.deliveries.last)]
            for _ in 1...3 {
                held = try await backend.turn(workerID, claims(slots: 1, settling: held.map(done))).deliveries
                #expect(held.count == 1)
            }
            #expect(try await backend.turn(workerID, WorkerTurn(settlements: held.map(done))).lost.isEmpty)
        }
    }

    @Test("a turn and claims that wait do not both take a job for one slot")
    func race() async throws {
        let (backend, probe, own) = try backend()
        defer { probe.close() }
        try await renew(backend)
        let client = JobClient(backend, logger: silent)
        var seen = 0
        for _ in 1...200 {
            #expect(try await backend.turn(workerID, claims(slots: 1)).deliveries.isEmpty)
            let known = arrivals.count
            async let enqueued = client.enqueue(contentsOf: [Note(text: "a"), Note(text: "b")])
            var held = try await backend.turn(workerID, claims(slots: 1, known: known)).deliveries
            _ = try await enqueued
            var settled = 0
            while settled < 2 {
                let (deliveries, count) = arrivals.all
                let late = deliveries.dropFirst(seen)
                seen += late.count
                held += late
                #expect(try await probe.send(RESPCommand("HLEN", [.text(own + "held:" + workerID)])).integer ?? 2 <= 1)
                let next = try await backend.turn(workerID, claims(slots: 1, settling: held.map(done), known: count))
                    .deliveries
                settled += held.count
                held = next
            }
            #expect(held.isEmpty && settled == 2)
        }
        let waiting = try await backend.queues().first?.waiting ?? 0
        #expect(waiting == 0)
    }

    @Test(
        "what arrived late and was never taken in goes back, and counts no attempt: when its worker asks, and when it leaves"
    )
    func givenBack() async throws {
        let (backend, probe, _) = try backend()
        defer { probe.close() }
        try await renew(backend)
        let handle = try await {
            #expect(try await backend.turn(workerID, claims(slots: 1)).deliveries.isEmpty)
            return try await JobClient(backend, logger: silent).enqueue(Note(text: "a"))
        }()
        #expect(try await eventually { arrivals.deliveries.count == 1 })
        var request = claims(slots: 1)
        request.holding = []
        let again = try await backend.turn(workerID, request).deliveries
        #expect(again.map(\.jobID) == [handle.id] && again.first?.attempt == 1)
        #expect(again.first?.token != arrivals.deliveries.first?.token)
        try await backend.leave(workerID)
        #expect(try await handle.state() == .waiting)
        #expect(try await handle.record()?.attempts == 0)
    }

    @Test("a worker that is about to stop leaves to others what arrives late")
    func draining() async throws {
        let (first, probe, _) = try backend(prefix: "late-drain:")
        defer { probe.close() }
        let (second, other, _) = try backend(prefix: "late-drain:")
        defer { other.close() }
        let gate = Doorbell()
        let started = Mutex(0)
        @Sendable func worker(_ backend: RedisBackend) -> Worker {
            Worker(backend, lanes: [.async(4)], logger: silent) {
                Handler(Note.self) { job, _ in
                    if job.text == "long" {
                        started.withLock { $0 += 1 }
                        await gate.wait(after: 0, for: .seconds(30), clock: SystemJobClock())
                    }
                    return job.text
                }
            }
        }
        let client = JobClient(second, logger: silent)
        let long = try await client.enqueue(Note(text: "long"))
        let stopping = worker(first)
        let running = Task { try await stopping.run() }
        #expect(try await eventually { started.withLock { $0 } == 1 })
        stopping.stop()
        let staying = worker(second)
        let stays = Task { try await staying.run() }
        for text in ["a", "b", "c"] {
            #expect(try await client.enqueue(Note(text: text)).output(timeout: .seconds(30)) == text)
        }
        #expect(try await long.state() == .running)
        gate.ring()
        #expect(try await long.output(timeout: .seconds(30)) == "long")
        try await running.value
        staying.stop()
        try await stays.value
    }

    @Test("a job that is due later starts in time, whatever came in between")
    func due() async throws {
        let (backend, probe, _) = try backend()
        defer { probe.close() }
        let worker = Worker(backend, lanes: [.async(100)], logger: silent) { Handler(Note.self) { job, _ in job.text } }
        let running = Task { try await worker.run() }
        let (elsewhere, other, _) = try self.backend(prefix: backend.configuration.keyPrefix)
        defer { other.close() }
        let client = JobClient(elsewhere, logger: silent)
        let later = try await client.enqueue(Note(text: "later"), .after(.seconds(2)))
        #expect(try await client.enqueue(Note(text: "now")).output(timeout: .seconds(30)) == "now")
        let begin = ContinuousClock.now
        #expect(try await later.output(timeout: .seconds(30)) == "later")
        #expect(ContinuousClock.now - begin < .seconds(9))
        worker.stop()
        try await running.value
    }

    @Test("claims that were taken back bring nothing more, and what they had brought is there")
    func withdrawal() async throws {
        let (backend, probe, own) = try backend()
        defer { probe.close() }
        try await renew(backend)
        let client = JobClient(backend, logger: silent)
        for round in 0..<50 {
            #expect(try await backend.turn(workerID, claims(slots: 1)).deliveries.isEmpty)
            let before = arrivals.deliveries.count
            async let enqueued = client.enqueue(Note(text: "\(round)"))
            var request = WorkerTurn()
            request.withdrawsCredit = true
            _ = try await backend.turn(workerID, request)
            let brought = arrivals.deliveries.dropFirst(before)
            _ = try await enqueued
            let isHeld = try await probe.send(RESPCommand("HLEN", [.text(own + "held:" + workerID)])).integer == 1
            #expect(isHeld == !brought.isEmpty && arrivals.deliveries.count == before + brought.count)
            let next = try await backend.turn(workerID, claims(slots: 1, settling: brought.map(done))).deliveries
            #expect(next.count + brought.count == 1)
            #expect(try await backend.turn(workerID, WorkerTurn(settlements: next.map(done))).lost.isEmpty)
        }
    }

    @Test("connections that are cut in the moment a job arrives lose none")
    func cut() async throws {
        let proxy = try TroubleProxy(to: RedisServer.shared.get().port)
        let prefix = "late\(UUID().uuidString.prefix(8)):"
        let (backend, probe, _) = try backend(prefix: prefix, port: proxy.port)
        defer { probe.close() }
        let (direct, other, _) = try self.backend(prefix: prefix)
        defer { other.close() }
        let worker = Worker(backend, logger: silent) { Handler(Note.self) { job, _ in job.text } }
        let running = Task { try await worker.run() }
        #expect(try await eventually { worker.health.isConsuming })
        let client = JobClient(direct, logger: silent)
        for round in 0..<40 {
            // The cut comes before or after Redis has carried out the claims, varying by round.
            let handle = try await client.enqueue(Note(text: "\(round)"))
            if round % 3 == 0 { await Task.yield() }
            proxy.cut()
            #expect(try await handle.output(timeout: .seconds(20)) == "\(round)")
        }
        worker.stop()
        try await running.value
    }

    @Test("connections that only the client has lost take no job: each runs soon, though the server keeps them")
    func halfOpen() async throws {
        let proxy = try TroubleProxy(to: RedisServer.shared.get().port)
        let prefix = "late\(UUID().uuidString.prefix(8)):"
        let (backend, probe, _) = try backend(prefix: prefix, port: proxy.port)
        defer { probe.close() }
        let (direct, other, _) = try self.backend(prefix: prefix)
        defer { other.close() }
        let worker = Worker(backend, lanes: [.async(2)], logger: silent) { Handler(Note.self) { job, _ in job.text } }
        let running = Task { try await worker.run() }
        let client = JobClient(direct, logger: silent)
        for round in 0..<12 {
            // The worker's claims wait on the server when the connections go.
            #expect(try await eventually { worker.health.isConsuming })
            #expect(try await client.enqueue(Note(text: "before")).output(timeout: .seconds(20)) == "before")
            func standing() async throws -> [UInt8]? {
                let keys =
                    try await probe.send(RESPCommand("KEYS", [.text(prefix + "hoist:standing:*")])).elements ?? []
                guard let key = keys.first?.text else { return nil }
                return try await probe.send(RESPCommand("GET", [.text(key)])).bytes
            }
            let before = try await standing()
            proxy.cutClients()
            if round % 2 == 0 {
                // Other claims than those of before, so that the worker has noticed.
                let isBack = try await eventually {
                    let now = try await standing()
                    return now != nil && now != before
                }
                #expect(isBack)
            }
            let handles = try await client.enqueue(contentsOf: (0..<3).map { Note(text: "\(round).\($0)") })
            for handle in handles { _ = try await handle.output(timeout: .seconds(20)) }
        }
        worker.stop()
        try await running.value
    }

    @Test("an idle worker does not ask for the jobs that it gets")
    func asking() async throws {
        let prefix = "late\(UUID().uuidString.prefix(8)):"
        let (redis, probe, _) = try backend(prefix: prefix)
        defer { probe.close() }
        // A second backend, as in another process: an enqueue rings the workers on its own backend.
        let (elsewhere, other, _) = try self.backend(prefix: prefix)
        defer { other.close() }
        let backend = FaultyBackend(redis)
        let worker = Worker(backend, lanes: [.async(100)], logger: silent) { Handler(Note.self) { job, _ in job.text } }
        let running = Task { try await worker.run() }
        let client = JobClient(elsewhere, logger: silent)
        #expect(try await client.enqueue(Note(text: "warm")).output(timeout: .seconds(30)) == "warm")
        let before = backend.claimCount
        for text in 0..<20 {
            #expect(try await client.enqueue(Note(text: "\(text)")).output(timeout: .seconds(30)) == "\(text)")
        }
        // A connection that was lost meanwhile asks once more.
        #expect(backend.claimCount - before < 10)
        worker.stop()
        try await running.value
    }
}
