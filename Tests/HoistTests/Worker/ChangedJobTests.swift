import Foundation
@testable import Hoist
import HoistTesting
import Logging
import Testing

/// A job changes, and its producers and workers are replaced one after the other.
@Suite("A job that changes", .timeLimit(.minutes(3)))
struct ChangedJobTests {
    /// The versions of one job.
    private struct Old: Job {
        static let name = "images.paint"
        var prompt: String
        typealias Output = String
    }

    private struct New: Job {
        static let name = "images.paint"
        static let defaultArguments: WireObject = ["size": 800]
        var prompt: String
        var size: Int
        typealias Output = String
    }

    private struct Lenient: Job {
        static let name = "images.paint"
        static let ignoresUnknownArguments = true
        var prompt: String
        typealias Output = String
    }

    private struct Keyed: Job {
        static let name = "invoices.send"
        var number: Int
        var uniqueKey: UniqueKey? { UniqueKey("invoice:\(number)") }
    }

    private let backend = MemoryBackend()
    private var client: JobClient { JobClient(backend, logger: quiet) }

    private func oldWorker(_ name: String) -> Worker {
        Worker(backend, configuration: .init(name: name), logger: quiet) {
            Handler(Old.self) { job, _ in "old \(job.prompt)" }
        }
    }

    private func newWorker(_ name: String) -> Worker {
        Worker(backend, configuration: .init(name: name), logger: quiet) {
            Handler(New.self) { job, _ in "new \(job.prompt) \(job.size)" }
        }
    }

    @Test("workers first: messages of an old producer get the default")
    func workersFirst() async throws {
        try await withWorker(newWorker("new")) {
            let output = try await client.enqueue(Old(prompt: "a cat")).output(timeout: .seconds(20))
            #expect(output == "new a cat 800")
        }
    }

    @Test("both at once: what an old worker refuses reaches a new one, and no attempt is spent")
    func mixed() async throws {
        try await withWorker(oldWorker("old")) {
            try await withWorker(newWorker("new")) {
                let jobs = (0..<20).map { New(prompt: "\($0)", size: $0) }
                let handles = try await client.enqueue(contentsOf: jobs)
                for (index, handle) in handles.enumerated() {
                    #expect(try await handle.output(timeout: .seconds(60)) == "new \(index) \(index)")
                    let record = try #require(try await handle.record())
                    #expect(record.attempts == 1 && record.history.allSatisfy { $0.outcome == "refused" })
                }
            }
        }
    }

    @Test("producers first: a dead letter once every live worker has refused it, which a new worker then performs")
    func producersFirst() async throws {
        let handle = try await withWorker(oldWorker("old-1")) {
            try await withWorker(oldWorker("old-2")) {
                let handle = try await client.enqueue(
                    New(prompt: "a cat", size: 3), .retry(.fixed(.zero, maxAttempts: 9)))
                let error = await #expect(throws: JobError.self) { try await handle.output(timeout: .seconds(60)) }
                #expect(error?.failure?.kind == .badArguments)
                #expect(error?.failure?.message.contains("argument size: unexpected") == true)
                let workers = try await handle.record()?.history.compactMap(\.worker) ?? []
                #expect(Set(workers.map { $0.prefix { $0 != "@" } }) == ["old-1", "old-2"], "each has refused it")
                return handle
            }
        }
        try await withWorker(newWorker("new")) {
            let count = try await backend.backend.requeue(JobFilter(states: [.failed]), arguments: nil)
            let output = try await handle.output(timeout: .seconds(20))
            #expect(count == 1 && output == "new a cat 3")
        }
    }

    @Test("a job may ignore what it does not know")
    func lenient() async throws {
        let worker = Worker(backend, logger: quiet) { Handler(Lenient.self) { job, _ in job.prompt } }
        try await withWorker(worker) {
            let output = try await client.enqueue(New(prompt: "b", size: 1)).output(timeout: .seconds(20))
            #expect(output == "b")
        }
    }

    @Test("only workers that may know an argument are waited for")
    func decision() {
        func presence(_ name: String, queue: String = "q", job: String = "j", isDraining: Bool = false)
            -> WorkerPresence
        {
            WorkerPresence(
                id: name, name: name, queues: [queue], jobNames: [job], startedAt: Date(), isDraining: isDraining)
        }
        func isWaiting(for others: [WorkerPresence], refusedBefore: [String] = []) -> Bool {
            let history = refusedBefore.map {
                AttemptRecord(number: 1, worker: $0, startedAt: nil, endedAt: Date(), outcome: "refused", failure: nil)
            }
            let outcome = RefusedArguments.outcome(
                JobFailure(kind: .badArguments, type: "ArgumentError", message: "no"), of: "j", in: "q",
                history: history, workers: [presence("me")] + others, worker: "me", now: Date())
            if case .refused = outcome { return true }
            return false
        }
        #expect(!isWaiting(for: []))
        #expect(isWaiting(for: [presence("b")]))
        #expect(!isWaiting(for: [presence("b")], refusedBefore: ["b"]))
        #expect(isWaiting(for: [presence("b"), presence("c")], refusedBefore: ["b", "b"]))
        var restarted = presence("b")
        restarted.startedAt = Date(timeIntervalSinceNow: 60)
        #expect(isWaiting(for: [restarted], refusedBefore: ["b"]), "it may be of a newer version")
        #expect(!isWaiting(for: [presence("b")], refusedBefore: Array(repeating: "c", count: 30)), "not for ever")
        let unfit = [presence("b", queue: "other"), presence("c", job: "k"), presence("d", isDraining: true)]
        #expect(!isWaiting(for: unfit))
    }

    @Test("a type declares its unique key, and a call may name another")
    func uniqueKeys() async throws {
        let first = try await client.enqueue(Keyed(number: 1))
        let second = try await client.enqueue(Keyed(number: 1))
        let other = try await client.enqueue(Keyed(number: 1), options: [.unique(UniqueKey("mine"))])
        let third = try await client.enqueue(Keyed(number: 2))
        #expect(first.isNew && !second.isNew && second.id == first.id)
        #expect(other.isNew && third.isNew)
    }

    @Test("sizes have units")
    func sizes() {
        #expect(ByteCount.gibibytes(4).bytes == 4 << 30 && ByteCount.mebibytes(2) == 2_097_152)
        #expect(ByteCount.kibibytes(.max).bytes == .max && ByteCount(bytes: -1) == 0)
        #expect("\(ByteCount.mebibytes(512)) \(ByteCount.gibibytes(4)) \(ByteCount(bytes: 3))" == "512 MiB 4.0 GiB 3 B")
    }

    @Test("a record gives its output as a type, or why there is none")
    func outputs() throws {
        var record = JobRecord(id: "a", name: "n", queue: "q", state: .succeeded)
        record.output = ["x": 1]
        #expect(try record.output(as: [String: Int].self) == ["x": 1])
        #expect(throws: DecodingError.self) { try record.output(as: Int.self) }
        record.state = .running
        let error = #expect(throws: JobError.self) { try record.output(as: [String: Int].self) }
        #expect(error?.code == .notEnded)
    }
}
