import Hoist
import Synchronization

extension BackendContract {
    /// What programs share beside jobs.
    static let sharing: [Check] = [
        Check("a frame is heard by everyone who listens to its exchange and key, and by nobody else", parts: [.fanout])
        {
            bench in
            guard let fanout = bench.backend.fanout else { return }
            let exchange = "frames-\(JobIdentifier.make())"
            let all = Ear(try await fanout.frames(exchange: exchange, pattern: "#"))
            let some = Ear(try await fanout.frames(exchange: exchange, pattern: "task.*"))
            let other = Ear(try await fanout.frames(exchange: exchange + "x", pattern: "#"))
            let bytes: [UInt8] = [0, 255, 10, 13]
            for key in ["task.failed", "worker.online", "task.a.b", ""] {
                let heard = try await fanout.send(bytes, exchange: exchange, key: key)
                try bench.expect(heard ?? 1 >= 1, "\(key) was heard by \(heard ?? -1)")
            }
            let keys = try await all.first(4)
            try bench.expect(
                keys.map(\.key) == ["task.failed", "worker.online", "task.a.b", ""], "all of them: \(keys.map(\.key))")
            try bench.expect(keys.allSatisfy { $0.bytes == bytes }, "byte for byte")
            try bench.expect(try await some.first(1).map(\.key) == ["task.failed"], "one word behind task")
            try bench.expect(some.count == 1 && other.count == 0, "nothing of other keys or of another exchange")
            for ear in [all, some, other] { ear.close() }
        },
        Check("a frame that nobody listens for is gone", parts: [.fanout]) { bench in
            guard let fanout = bench.backend.fanout else { return }
            let exchange = "frames-\(JobIdentifier.make())"
            let heard = try await fanout.send([1], exchange: exchange, key: "a")
            try bench.expect(heard ?? 0 == 0, "nobody heard it: \(heard ?? -1)")
            let late = Ear(try await fanout.frames(exchange: exchange, pattern: "#"))
            _ = try await fanout.send([2], exchange: exchange, key: "a")
            try bench.expect(try await late.first(1).map(\.bytes) == [[2]], "only what came after")
            late.close()
        },
        Check("of many who change a value at once one succeeds", parts: [.coordination]) { bench in
            guard let values = bench.backend.coordination else { return }
            let key = "leader-\(JobIdentifier.make())"
            try bench.expect(try await values.value(of: key) == nil, "no value at first")
            let wins = try await withThrowingTaskGroup(of: Bool.self) { group in
                for number in 0..<20 as Range<UInt8> {
                    group.addTask {
                        try await values.compareAndSet(key, expected: nil, to: [number], expiresAfter: nil)
                    }
                }
                return try await group.reduce(0) { $0 + ($1 ? 1 : 0) }
            }
            try bench.expect(wins == 1, "one of twenty: \(wins)")
            let value = try await values.value(of: key)
            try bench.expect(value?.count == 1, "its value is there")
            try bench.expect(
                try await !values.compareAndSet(key, expected: [99], to: [1], expiresAfter: nil), "not the expected one"
            )
            try bench.expect(try await values.value(of: key) == value, "nothing has changed")
            try bench.expect(
                try await values.compareAndSet(key, expected: value, to: [0, 10, 255], expiresAfter: nil), "it has")
            try bench.expect(try await values.value(of: key) == [0, 10, 255], "byte for byte")
            try bench.expect(
                try await values.compareAndSet(key, expected: [0, 10, 255], to: nil, expiresAfter: nil), "removed")
            try bench.expect(try await values.value(of: key) == nil, "and gone")
        },
        Check("a value expires in its time, and counts as none then", parts: [.coordination]) { bench in
            guard let values = bench.backend.coordination else { return }
            let key = "lock-\(JobIdentifier.make())"
            let isSet = try await values.compareAndSet(key, expected: nil, to: [1], expiresAfter: .seconds(10))
            try bench.expect(isSet, "set")
            try bench.expect(
                try await !values.compareAndSet(key, expected: nil, to: [2], expiresAfter: nil), "it is held")
            try bench.advance(by: .seconds(11))
            try bench.expect(try await values.value(of: key) == nil, "it has passed")
            try bench.expect(
                try await values.compareAndSet(key, expected: nil, to: [2], expiresAfter: nil), "and may be taken")
        },
        Check("a key and a value of a length that is not allowed are refused", parts: [.coordination]) { bench in
            guard let values = bench.backend.coordination else { return }
            for (key, count) in [("", 1), (String(repeating: "k", count: 513), 1), ("key", 65_537)] {
                do {
                    let value = [UInt8](repeating: 0, count: count)
                    _ = try await values.compareAndSet(key, expected: nil, to: value, expiresAfter: nil)
                    try bench.expect(false, "\(key.count) and \(count) bytes are refused")
                } catch let error as BackendError {
                    try bench.expect(error.code == .misuse, "with misuse: \(error)")
                }
            }
        },
        Check(
            "upkeep gives the jobs of a dead worker to others, and is no worker", needs: [.leases],
            parts: [.upkeep, .directory]
        ) { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("dead")
            _ = try await bench.claim("dead")
            try bench.advance(by: .seconds(11))
            try await bench.backend.upkeep?.tick()
            try bench.expect(try await bench.state("a") == .waiting, "it waits again")
            try bench.expect(try await bench.backend.workers().isEmpty, "and nobody is listed")
        },
    ]

    /// What a lasting credit brings.
    static let credit: [Check] = [
        Check("a job that comes while credit lasts arrives by itself, once", needs: [.lastingCredit]) { bench in
            let ear = ArrivalEar()
            try await bench.join("w", sink: ear)
            _ = try await bench.sessions.turn("w", bench.lastingTurn(room: 2, seen: 0))
            try await bench.publish(bench.message("a"))
            try bench.expect(try await eventually { ear.deliveries.map(\.jobID) == ["a"] }, "it arrives")
            try await bench.publish(bench.message("b"), bench.message("c"))
            try bench.expect(try await eventually { ear.deliveries.count == 2 }, "one more, for there is room for two")
            let settlements = ear.deliveries.map {
                bench.settlement($0, .succeeded(output: Array("1".utf8), retention: nil))
            }
            var turn = bench.lastingTurn(room: 2, seen: ear.count)
            turn.settlements = settlements.map { bench.sessions.encode($0, of: "w") }
            let result = try await bench.sessions.turn("w", turn)
            try bench.expect(result.lost.isEmpty, "both are settled")
            try bench.expect(
                try await eventually { (result.deliveries + ear.deliveries.dropFirst(2)).count == 1 },
                "and the third comes")
        },
        Check("a turn with a budget that knows less than has arrived takes nothing", needs: [.lastingCredit]) { bench in
            let ear = ArrivalEar()
            try await bench.join("w", sink: ear)
            _ = try await bench.sessions.turn("w", bench.lastingTurn(room: 1, seen: 0))
            try await bench.publish(bench.message("a"))
            try bench.expect(try await eventually { ear.count == 1 }, "it arrives")
            try await bench.publish(bench.message("b"))
            let result = try await bench.sessions.turn("w", bench.lastingTurn(room: 1, seen: 0))
            try bench.expect(result.deliveries.isEmpty && result.hasMore, "nothing, and there is more")
        },
        Check("withdrawn credit brings nothing more, and what it had brought is settled", needs: [.lastingCredit]) {
            bench in
            let ear = ArrivalEar()
            try await bench.join("w", sink: ear)
            _ = try await bench.sessions.turn("w", bench.lastingTurn(room: 4, seen: 0))
            try await bench.publish(bench.message("first"))
            try bench.expect(try await eventually { ear.count == 1 }, "one arrives")
            var turn = WorkerTurn()
            turn.withdrawsCredit = true
            turn.arrivalsSeen = ear.count
            turn.settlements = ear.deliveries.map {
                let outcome = Outcome.succeeded(output: Array("1".utf8), retention: nil)
                return bench.sessions.encode(bench.settlement($0, outcome), of: "w")
            }
            let result = try await bench.sessions.turn("w", turn)
            try bench.expect(turn.settlements.count == 1 && result.lost.isEmpty, "it is settled")
            try await bench.publish(bench.message("a"))
            try await bench.join("v")
            let others = try await bench.claim("v")
            try bench.expect(others.map(\.jobID) == ["a"] && ear.count == 1, "another worker gets it")
        },
        Check("a large turn settles each job once, and takes no more than there is room for") { bench in
            try await bench.join("w")
            let ids = (0..<300).map { "job-\($0)" }
            _ = try await bench.backend.publish(ids.map { bench.message($0) })
            var deliveries = try await bench.claim("w", 150)
            try bench.expect(deliveries.count == 150, "as many as there is room for: \(deliveries.count)")
            var seen = deliveries.map(\.jobID)
            while !deliveries.isEmpty {
                let settlements = deliveries.map {
                    bench.sessions.encode(
                        bench.settlement($0, .succeeded(output: Array("1".utf8), retention: nil)), of: "w")
                }
                let result = try await bench.sessions.turn(
                    "w",
                    WorkerTurn(
                        settlements: settlements,
                        claims: [Claim(queue: "default", kind: "async", jobNames: ["job"])],
                        budget: ClaimBudget(kinds: ["async": 150])))
                try bench.expect(result.lost.isEmpty && result.deliveries.count <= 150, "none is lost")
                deliveries = result.deliveries
                seen += deliveries.map(\.jobID)
            }
            try bench.expect(seen.count == 300 && Set(seen) == Set(ids), "each once: \(seen.count)")
        },
    ]
}

extension ContractBench {
    fileprivate func lastingTurn(room: Int, seen: Int) -> WorkerTurn {
        var turn = WorkerTurn(
            claims: [Claim(queue: "default", kind: "async", jobNames: ["job"])],
            budget: ClaimBudget(kinds: ["async": room]))
        (turn.creditLasts, turn.arrivalsSeen) = (true, seen)
        return turn
    }
}

/// Collects what a session brings between turns.
final class ArrivalEar: SessionSink {
    private struct State {
        var deliveries: [Delivery] = []
        var count = 0
        var notices: [JobNotice] = []
    }

    private let state = Mutex(State())
    var deliveries: [Delivery] { state.withLock { $0.deliveries } }
    var count: Int { state.withLock { $0.count } }
    var notices: [JobNotice] { state.withLock { $0.notices } }

    func arrived(_ result: TurnResult) {
        state.withLock { state in
            state.deliveries += result.deliveries
            state.count += 1
        }
    }

    func arrivalWasLost(_ error: any Error) { state.withLock { $0.count += 1 } }
    func mayHaveWork() {}
    func noticed(_ notices: [JobNotice]) { state.withLock { $0.notices += notices } }
}

/// Collects frames.
private final class Ear: Sendable {
    private let frames = Mutex<[FanoutFrame]>([])
    private let task: Mutex<Task<Void, Never>?>

    init(_ stream: AsyncStream<FanoutFrame>) {
        task = Mutex(nil)
        let listening = Task { [weak self] in
            for await frame in stream { self?.frames.withLock { $0.append(frame) } }
        }
        task.withLock { $0 = listening }
    }

    var count: Int { frames.withLock { $0.count } }

    /// The first frames, once they have come; fewer when they do not come in time.
    func first(_ count: Int) async throws -> [FanoutFrame] {
        _ = try await eventually { self.count >= count }
        return frames.withLock { Array($0.prefix(count)) }
    }

    func close() { task.withLock { $0 }?.cancel() }
}
