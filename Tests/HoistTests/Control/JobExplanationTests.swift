import Foundation
@testable import Hoist
import HoistTesting
import Logging
import Testing

/// Why a job does not run: each reason, in order.
@Suite("Why a job does not run", .timeLimit(.minutes(3)))
struct JobExplanationTests {
    private static let now = Date(timeIntervalSince1970: 1_800_000_000)
    private let silent = Logger(label: "why") { _ in SwiftLogNoOpLogHandler() }

    private func circumstances(
        _ state: JobState = .waiting, queue: String = "media", _ change: (inout JobRecord) -> Void = { _ in }
    ) -> JobExplanation.Circumstances {
        var found = JobExplanation.Circumstances(id: "1", now: Self.now, place: "memory:")
        var record = JobRecord(id: "1", name: "encode", queue: queue, state: state)
        record.enqueuedAt = Self.now.addingTimeInterval(-300)
        change(&record)
        found.record = record
        return found
    }

    private func worker(_ queues: [String] = ["media"], _ names: [String] = ["encode"]) -> WorkerPresence {
        WorkerPresence(id: "w", name: "w@h", queues: queues, jobNames: names, startedAt: Self.now)
    }

    private func code(
        _ found: JobExplanation.Circumstances, _ change: (inout JobExplanation.Circumstances) -> Void = { _ in }
    ) -> JobExplanation.Code {
        var found = found
        change(&found)
        return JobExplanation(found).code
    }

    @Test("what has ended, runs, or is due later")
    func states() {
        #expect(code(circumstances()) { $0.record = nil } == .unknown)
        let failed = circumstances(.failed) {
            $0.endedAt = Self.now.addingTimeInterval(-60)
            $0.failure = JobFailure(kind: .raised, type: "KeyError", message: "a\u{1B}[31m")
        }
        #expect(JobExplanation(failed).sentence == "It failed for good 60 s ago: KeyError.")
        #expect(
            code(circumstances(.failed) { $0.failure = JobFailure(kind: .undecodable, type: "WireError", message: "") })
                == .undecodable)
        let running = circumstances(.running) {
            $0.startedAt = Self.now.addingTimeInterval(-90)
            $0.worker = "w@h"
            $0.progress = JobProgress(fraction: 0.4)
        }
        #expect(JobExplanation(running).sentence == "It has run for 90 s on w@h, and is 40 % done.")
        #expect(code(circumstances(.running) { $0.isCancelRequested = true }) == .cancelling)
        #expect(code(circumstances(.scheduled) { $0.dueAt = Self.now.addingTimeInterval(60) }) == .delayed)
        let retrying = circumstances(.retrying) {
            $0.dueAt = Self.now.addingTimeInterval(7300)
            $0.failure = JobFailure(kind: .raised, type: "IOError", message: "")
        }
        #expect(
            JobExplanation(retrying).sentence == "It is tried again in 2 h, for the last attempt ended with IOError.")
    }

    @Test("why a job that is ready waits: the first reason that holds")
    func reasons() {
        let ready = circumstances()
        #expect(code(ready) { $0.pausedQueues = ["media"] } == .queuePaused)
        #expect(code(circumstances { $0.waitingReason = "the queue is closed until 12:00" }) == .queueClosed)
        #expect(code(ready) == .noWorker)
        #expect(code(ready) { $0.workers = [worker(["other"])] } == .noConsumer)
        #expect(code(circumstances(queue: "media[eu,gpu]")) { $0.workers = [worker()] } == .labelsMissing)
        #expect(code(circumstances(queue: "w2.dq2")) { $0.workers = [worker()] } == .workerMissing)
        #expect(code(ready) { $0.workers = [worker(["media"], ["other"])] } == .noHandler)
        #expect(code(ready) { $0.others = [("py@h", ["media"], ["encode"])] } == .inLine)
        #expect(
            code(ready) {
                $0.others = [("py@h", ["media"], ["encode"])]
                $0.heldBy = "py@h"
            } == .withPythonWorker)
        #expect(
            code(ready) {
                $0.workers = [worker()]
                $0.limits = [.job("encode"): [.running(2)]]
                $0.runningBeside = ["2", "3"]
            } == .limited)
        var line = ready
        line.workers = [worker()]
        (line.before, line.rate) = (9, 2)
        let explanation = JobExplanation(line)
        #expect(explanation.sentence == "9 jobs are before it in the queue media, and it starts in about 5 s.")
        #expect(explanation.facts["expected_seconds"] == .double(5))
        line.workers[0].isDraining = true
        #expect(code(line) == .noWorker, "one that drains takes nothing")
    }

    @Test("asked of a backend")
    func asked() async throws {
        let backend = MemoryBackend()
        let jobs = JobClient(backend, logger: silent)
        let fleet = try Fleet(backend)
        func code(_ id: JobID) async throws -> JobExplanation.Code {
            try await fleet.explain(id, patience: .milliseconds(100)).code
        }
        #expect(try await code("nobody") == .unknown)
        let first = try await jobs.enqueue(named: "encode", options: [.queue("media")])
        #expect(try await code(first.id) == .noWorker)
        try await backend.pause(queue: "media")
        #expect(try await code(first.id) == .queuePaused)
        try await backend.resume(queue: "media")
        let later = try await jobs.enqueue(named: "encode", options: [.queue("media"), .after(.seconds(60))])
        #expect(try await code(later.id) == .delayed)
        let worker = Worker(backend, queues: ["media"], lanes: [.async(1)], logger: silent) {
            Handler(named: "encode") { _, _ in
                try await Task.sleep(for: .seconds(60))
                return .null
            }
        }
        let running = Task { try await worker.run() }
        #expect(try await eventually { try await code(first.id) == .running })
        let second = try await jobs.enqueue(named: "encode", options: [.queue("media")])
        let third = try await jobs.enqueue(named: "encode", options: [.queue("media")])
        let explanation = try await fleet.explain(third.id, patience: .milliseconds(100))
        #expect(explanation.code == .inLine && explanation.facts["before"] == 1, "\(explanation)")
        #expect(try await code(second.id) == .inLine)
        let strange = try await jobs.enqueue(named: "strange", options: [.queue("media")])
        #expect(try await code(strange.id) == .noHandler)
        worker.stop(.immediately)
        try await running.value
    }
}
