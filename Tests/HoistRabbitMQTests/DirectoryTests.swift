import AMQP
import Foundation
import Hoist
import HoistRabbitMQ
import HoistTesting
import TestServers
import Testing

@Suite("Looking into RabbitMQ", .timeLimit(.minutes(3)))
struct DirectoryTests {
    private struct Picky: Job {
        static let name = "picky"
        static let options = JobOptions(retry: .none)
        var word: String
        typealias Output = String
    }

    private struct Refused: Error {}

    private func worker(_ bench: RabbitBench) -> Worker {
        Worker(bench.backend, queues: ["default"], logger: RabbitBench.silent) {
            Handler(Picky.self) { job, _ in
                guard job.word == "please" else { throw Refused() }
                return "done"
            }
        }
    }

    @Test("waiting jobs are counted and purged, and queues of other programs are found through their workers")
    func counting() async throws {
        let bench = try await RabbitBench()
        _ = try await bench.client.enqueue(contentsOf: ["a", "b", "c"].map(Picky.init))
        #expect(try await bench.backend.queues() == [QueueStatistics(name: "default", waiting: 3)])
        #expect(try await bench.backend.purge(queue: "default") == 3)
        #expect(try await bench.backend.purge(queue: "no-such-queue") == 0)
        #expect(try await bench.backend.queues() == [])
        // Another program, which knows of no queue but asks the workers.
        let other = try RabbitMQBackend(url: bench.url)
        try await withWorker(worker(bench)) {
            let strange = try await bench.client.enqueue(named: "strange")
            let found = try await eventually {
                try await other.backend.queues().contains { $0.name == "default" && $0.scheduled == 1 }
            }
            #expect(found, "it is held for a worker that knows \(strange.id)")
        }
    }

    @Test("dead letters are listed with their reasons, requeued with other arguments, and dropped")
    func deadLetters() async throws {
        let bench = try await RabbitBench()
        let handles = try await bench.client.enqueue(contentsOf: ["one", "two", "three"].map(Picky.init))
        try await withWorker(worker(bench)) {
            for handle in handles {
                let error = await #expect(throws: JobError.self) { try await handle.output(timeout: .seconds(30)) }
                #expect(error?.code == .failed)
            }
            let listed = try await bench.backend.jobs(JobFilter(states: [.failed]))
            #expect(Set(listed.map(\.id)) == Set(handles.map(\.id)))
            #expect(listed.allSatisfy { $0.failure?.type == "Refused" && $0.name == "picky" })
            // Looking changes nothing.
            #expect(try await bench.backend.jobs(JobFilter(states: [.failed], limit: 2)).count == 2)
            let first = try await bench.backend.page(JobFilter(states: [.failed], limit: 2), after: nil)
            let second = try await bench.backend.page(JobFilter(states: [.failed], limit: 2), after: first.next)
            #expect(Set((first.jobs + second.jobs).map(\.id)).count == 3 && second.next == nil)
            #expect(try await bench.backend.arguments(of: handles[1].id)?.keyword["word"] == "two")
            let again = try await bench.backend.requeue(
                JobFilter(ids: [handles[0].id]), arguments: Arguments(keyword: ["word": "please"]))
            #expect(again == 1)
            let succeeded = try await eventually {
                try await bench.backend.record(of: handles[0].id)?.state == .succeeded
            }
            #expect(succeeded)
            #expect(try await bench.backend.drop(JobFilter(limit: .max)) == 2)
            #expect(try await bench.backend.jobs(JobFilter()) == [])
        }
    }

    @Test("what RabbitMQ cannot do is refused with a reason")
    func refusals() async throws {
        let bench = try await RabbitBench()
        let waiting = try await bench.client.enqueue(Picky(word: "please"))
        let edit = await #expect(throws: BackendError.self) { try await bench.backend.edit(waiting.id, .priority(3)) }
        #expect(edit?.code == .misuse)
        let unique = await #expect(throws: BackendError.self) {
            try await bench.client.enqueue(Picky(word: "x"), .unique(UniqueKey("k")))
        }
        #expect(unique?.code == .misuse && unique?.message.contains("unique") == true)
        #expect(bench.backend.queueControl == nil && bench.backend.limits == nil)
        let cursor = await #expect(throws: BackendError.self) {
            try await bench.backend.page(JobFilter(), after: JobCursor("x"))
        }
        #expect(cursor?.code == .misuse)
    }
}
