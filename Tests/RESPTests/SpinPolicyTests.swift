import Dispatch
import Synchronization
import TestServers
import Testing

@testable import RESP

@Suite("Threads that are kept")
struct SpinPolicyTests {
    private let limit: Int64 = 250_000
    private let soon: Int64 = 20_000
    private let quick: Int64 = 50_000

    /// A sequence of commands, each awaited, of which the first has been answered.
    private struct Sequence: ~Copyable {
        var policy: SpinPolicy
        var now: Int64 = 1_000_000_000

        init(limit: Int64) {
            policy = SpinPolicy(limit: limit)
            _ = command(after: 0, taking: 50_000)
        }

        /// - Returns: whether the caller might keep its thread, and how long the event loop stays awake.
        mutating func command(after pause: Int64, taking duration: Int64, canSpin: Bool = true) -> (
            spin: Int64?, wakefulness: Int64?
        ) {
            now += pause
            let spin = policy.sent(canSpin: canSpin, now: now).map { $0 - now }
            now += duration
            let wakefulness = policy.answered(now: now).map { $0 - now }
            return (spin, wakefulness)
        }
    }

    @Test("the first command of a sequence gives its thread up, those that follow closely keep theirs")
    func sequence() {
        var first = SpinPolicy(limit: limit)
        let alone = first.sent(canSpin: true, now: 0)
        #expect(alone == nil)
        var sequence = Sequence(limit: limit)
        for _ in 0..<5 {
            let (spin, wakefulness) = sequence.command(after: soon, taking: quick)
            #expect(spin == limit && wakefulness == SpinPolicy.wakefulness)
        }
        let slowCaller = sequence.command(after: SpinPolicy.wakefulness + 1, taking: quick)
        #expect(slowCaller.spin == limit && slowCaller.wakefulness == nil, "the event loop would wait in vain")
        let (late, asleep) = sequence.command(after: SpinPolicy.longestPause + 1, taking: quick)
        #expect(late == nil && asleep == nil, "the caller does other things in between")
        let again = sequence.command(after: soon, taking: quick).spin
        #expect(again == limit)
    }

    @Test("neither do callers whose answers take long, nor the event loop's own, nor any where the limit is zero")
    func others() {
        var sequence = Sequence(limit: limit)
        let slow = sequence.command(after: soon, taking: limit + 1)
        #expect(slow.spin == limit && slow.wakefulness == nil, "that is not known before")
        let afterSlow = sequence.command(after: soon, taking: quick).spin
        #expect(afterSlow == nil)
        let afterQuick = sequence.command(after: soon, taking: quick).spin
        #expect(afterQuick == limit)
        let own = sequence.command(after: soon, taking: quick, canSpin: false)
        #expect(own.spin == nil && own.wakefulness == nil)
        var never = Sequence(limit: 0)
        let none = never.command(after: soon, taking: 0).spin
        #expect(none == nil)
        var patient = Sequence(limit: .max)
        let most = patient.command(after: soon, taking: quick).spin
        #expect(most == SpinPolicy.longestSpin)
    }

    @Test("commands at the same time sleep, and so does the event loop until all are answered")
    func together() {
        var sequence = Sequence(limit: limit)
        let first = sequence.policy.sent(canSpin: true, now: sequence.now + soon)
        #expect(first != nil)
        let second = sequence.policy.sent(canSpin: true, now: sequence.now + soon)
        #expect(second == nil)
        let awake = (
            sequence.policy.answered(now: sequence.now + quick), sequence.policy.answered(now: sequence.now + quick)
        )
        #expect(awake == (nil, nil))
    }

    @Test("now and then the thread is given up, for tasks that wait for it")
    func turns() {
        var sequence = Sequence(limit: limit)
        var longest = 0
        var (kept, givenUp) = (0, 0)
        for _ in 0..<1000 {
            if sequence.command(after: soon, taking: quick).spin == nil {
                (kept, givenUp) = (0, givenUp + 1)
            } else {
                kept += 1
            }
            longest = max(longest, kept)
        }
        #expect(Int64(longest) * (soon + quick) <= SpinPolicy.longestTurn + soon + quick)
        #expect(givenUp == 1000 / (longest + 1))
    }

    @Test("a spin in vain is followed by commands without, by more when it was not the only one for long")
    func losses() {
        var sequence = Sequence(limit: limit)
        /// The number of commands without a spin; they take so little time that no turn ends.
        func skipped(_ sequence: inout Sequence) -> Int {
            sequence.policy.spunInVain()
            for count in 0... where sequence.command(after: 0, taking: 1).spin != nil { return count }
            return 0
        }
        var counts: [Int] = []
        for _ in 0..<9 { counts.append(skipped(&sequence)) }
        #expect(counts == [8, 16, 32, 64, 128, 256, 512, 1024, 1024])
        for _ in 0..<SpinPolicy.goodRun { _ = sequence.command(after: 0, taking: 1) }
        let afterGoodRun = skipped(&sequence)
        #expect(afterGoodRun == 8)
    }
}

@Suite("Threads that are kept, with a real server", .timeLimit(.minutes(3)))
struct SpinTests {
    /// Counts how often a task was suspended: each time it is enqueued once more.
    private final class CountingExecutor: TaskExecutor {
        private let queue = DispatchQueue(label: "counting")
        let enqueued = Atomic(0)

        func enqueue(_ job: consuming ExecutorJob) {
            enqueued.add(1, ordering: .relaxed)
            let job = UnownedJob(job)
            queue.async { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
        }
    }

    /// - Returns: for how many of `commands`, each awaited, the caller was suspended.
    private func suspensions(of client: RESPClient, commands: Int) async throws -> Int {
        let executor = CountingExecutor()
        return try await withTaskExecutorPreference(executor) {
            let before = executor.enqueued.load(ordering: .relaxed)
            for number in 0..<commands {
                let echoed = try await client.send(RESPCommand("ECHO", [.integer(Int64(number))]))
                #expect(echoed.integer == Int64(number))
            }
            return executor.enqueued.load(ordering: .relaxed) - before
        }
    }

    private func client(spinLimit: Duration, server: RedisServer? = nil) throws -> RESPClient {
        var configuration = try RESPConfiguration(url: try server?.url ?? RedisServer.shared.get().url)
        configuration.spinLimit = spinLimit
        // So long that no lost answer is found by a time-out.
        (configuration.commandTimeout, configuration.keepAlive) = (.seconds(600), .seconds(600))
        return try RESPClient(configuration)
    }

    /// Repeats until a round is right: even a busy machine has a moment for an undisturbed round.
    private func eventually(spinLimit: Duration, _ isRight: (Int) -> Bool) async throws {
        while true {
            let client = try client(spinLimit: spinLimit)
            defer { client.close() }
            if isRight(try await suspensions(of: client, commands: 500)) { return }
        }
    }

    @Test("one command awaited after the other does without the sleep of its thread")
    func kept() async throws { try await eventually(spinLimit: .milliseconds(1)) { $0 < 250 } }

    @Test("with a limit of zero a wait gives the thread up")
    func givenUp() async throws { try await eventually(spinLimit: .zero) { $0 > 250 } }

    @Test("a command that blocks in the middle of a sequence gives the thread up, and can be cancelled")
    func blocking() async throws {
        let client = try client(spinLimit: .milliseconds(1))
        defer { client.close() }
        let executor = CountingExecutor()
        try await withTaskExecutorPreference(executor) {
            for _ in 0..<50 { try await client.send(RESPCommand("PING")) }
            let before = executor.enqueued.load(ordering: .relaxed)
            let missing = try await client.send(RESPCommand("BLPOP", ["no such list", .text("0.05")]))
            #expect(missing.isNull)
            #expect(executor.enqueued.load(ordering: .relaxed) > before)
        }
        let task = Task { try await client.send(RESPCommand("BLPOP", ["no such list", .integer(0)])) }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
    }

    @Test("a server that dies in the middle of a sequence is an error at once")
    func lost() async throws {
        let server = try RedisServer()
        let client = try client(spinLimit: .milliseconds(1), server: server)
        defer { client.close() }
        let answered = Mutex(0)
        let sequence = Task {
            while true {
                try await client.send(RESPCommand("PING"))
                answered.withLock { $0 += 1 }
            }
        }
        while answered.withLock({ $0 }) < 200 { try await Task.sleep(for: .milliseconds(1)) }
        server.stop()
        await #expect(throws: RESPError.self) { try await sequence.value }
    }
}
