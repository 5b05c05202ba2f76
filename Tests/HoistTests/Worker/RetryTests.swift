import Foundation
import Hoist
import HoistTesting
import Testing

@Suite("Retries", .timeLimit(.minutes(3)))
struct RetryTests {
    struct Flaky: Job {
        static let name = "test.flaky"
        static let options = JobOptions(
            retry: .exponential(initial: .seconds(10), factor: 2, cap: .seconds(30), jitter: 0, maxAttempts: 4),
            neverRetry: [Hopeless.self])
        var kind: String
    }

    @Test("waits grow to the cap, and then the job is given up with its history")
    func policy() async throws {
        let attempts = Shared<[Int]>([])
        let inline = InlineJobs {
            Handler(Flaky.self) { _, context in
                attempts.change { $0.append(context.attempt) }
                throw Broken()
            }
        }
        let handle = try await inline.client.enqueue(Flaky(kind: "broken"))
        for wait in [10, 20, 30] {
            #expect(try await handle.state() == .retrying)
            inline.clock.advance(by: .seconds(wait - 1))
            try await inline.runDueJobs()
            #expect(try await handle.state() == .retrying, "not before \(wait) s")
            inline.clock.advance(by: .seconds(1))
            try await inline.runDueJobs()
        }
        #expect(attempts.value == [1, 2, 3, 4])
        let record = try #require(try await handle.record())
        #expect(record.state == .failed && record.failure?.message == "it broke" && record.failure?.type == "Broken")
        #expect(record.history.map(\.outcome) == ["retried", "retried", "retried", "failed"])
    }

    @Test("errors of some types are never retried")
    func byType() async throws {
        let inline = InlineJobs { Handler(Flaky.self) { _, _ in throw Hopeless() } }
        #expect(try await inline.client.enqueue(Flaky(kind: "")).state() == .failed)
    }

    @Test("a call's own policy wins, and a time window ends it")
    func window() async throws {
        let inline = InlineJobs { Handler(Flaky.self) { _, _ in throw Broken() } }
        let handle = try await inline.client.enqueue(
            Flaky(kind: ""), .retry(.fixed(.seconds(60), maxAttempts: 100).within(.seconds(150))))
        inline.clock.advance(by: .seconds(60))
        try await inline.runDueJobs()
        #expect(try await handle.state() == .retrying)
        inline.clock.advance(by: .seconds(60))
        try await inline.runDueJobs()
        #expect(try await handle.state() == .failed, "a third retry would begin after 180 s")
    }

    @Test("a handler decides for itself: retry after, snooze, dead letter")
    func directives() async throws {
        let runs = Shared<[String: Int]>([:])
        let inline = InlineJobs {
            Handler(Flaky.self) { job, _ in
                runs.change { $0[job.kind, default: 0] += 1 }
                guard runs.value[job.kind] == 1 else { return }
                switch job.kind {
                case "retry": throw JobDirective.retry(after: .seconds(77))
                case "snooze": throw JobDirective.snooze(for: .seconds(77))
                default: throw JobDirective.deadLetter("not a video")
                }
            }
        }
        let retry = try await inline.client.enqueue(Flaky(kind: "retry"))
        let snooze = try await inline.client.enqueue(Flaky(kind: "snooze"))
        let dead = try await inline.client.enqueue(Flaky(kind: "dead"))
        #expect(try await [retry.state(), snooze.state(), dead.state()] == [.retrying, .scheduled, .failed])
        #expect(try await dead.record()?.failure?.kind == .deadLettered)
        inline.clock.advance(by: .seconds(77))
        try await inline.runDueJobs()
        #expect(try await retry.record()?.attempts == 2)
        #expect(try await snooze.record()?.attempts == 1, "a snooze spends no attempt")
        #expect(try await [retry.state(), snooze.state()] == [.succeeded, .succeeded])
    }

    @Test("jitter shortens a wait by at most its share")
    func jitter() {
        let policy = RetryPolicy.exponential(initial: .seconds(8), cap: .seconds(1000), jitter: 0.25, maxAttempts: 10)
        #expect(policy.delay(afterAttempt: 1, draw: 0) == .seconds(8))
        #expect(policy.delay(afterAttempt: 1, draw: 1) == .seconds(6))
        #expect(policy.delay(afterAttempt: 3, draw: 0) == .seconds(32))
        #expect(policy.delay(afterAttempt: 1_000_000, draw: 0) == .seconds(1000), "no overflow")
    }
}
