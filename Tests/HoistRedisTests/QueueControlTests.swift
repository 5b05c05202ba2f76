import Foundation
import Hoist
import HoistRedis
import HoistTesting
import Logging
import RESP
import TestServers
import Testing

@Suite("Queues on Redis, and where their messages lie", .timeLimit(.minutes(3)))
struct QueueControlTests {
    private struct Note: Job {
        static let name = "note"
        var text: String
        typealias Output = String
    }

    private let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

    private func backend(_ change: (inout RedisBackend.Configuration) -> Void = { _ in }) throws -> (
        RedisBackend, RESPClient, String
    ) {
        let prefix = "q\(UUID().uuidString.prefix(8)):"
        let (backend, probe) = try RedisBackend.onTestServer(prefix: prefix, change)
        return (backend, probe, prefix)
    }

    private func worker(_ backend: RedisBackend) -> Worker {
        Worker(backend, logger: silent) { Handler(Note.self) { job, _ in job.text } }
    }

    @Test("a paused queue is left alone by workers, also by those that start later, until it is resumed")
    func pause() async throws {
        let (backend, probe, _) = try backend()
        defer { probe.close() }
        let client = JobClient(backend, logger: silent)
        try await backend.pause(queue: "default")
        #expect(try await backend.pausedQueues() == ["default"])
        let handle = try await client.enqueue(Note(text: "a"))
        let worker = worker(backend)
        let running = Task { try await worker.run() }
        #expect(try await eventually { worker.health.isConsuming })
        let reason = try await handle.record()?.waitingReason
        #expect(reason == "the queue default is paused")
        #expect(try await handle.state() == .waiting)
        try await backend.resume(queue: "default")
        #expect(try await handle.output(timeout: .seconds(30)) == "a")
        worker.stop()
        try await running.value
    }

    @Test("a full queue refuses jobs, all of a call or none, and takes them again when there is room")
    func cap() async throws {
        let (backend, probe, _) = try backend()
        defer { probe.close() }
        let client = JobClient(backend, logger: silent)
        try await backend.limit(queue: "default", to: 3)
        try await client.enqueue(contentsOf: [Note(text: "a"), Note(text: "b")])
        try await client.enqueue(Note(text: "later"), .after(.seconds(1000)))
        let error = await #expect(throws: BackendError.self) { try await client.enqueue(contentsOf: [Note(text: "c")]) }
        #expect(error?.code == .full && error?.isRetrySafe == true)
        #expect(try await backend.queues().first.map { $0.waiting + $0.scheduled } == 3)
        try await backend.limit(queue: "default", to: nil)
        try await client.enqueue(Note(text: "c"))
    }

    @Test("messages lie in kombu's lists, by priority; unlabelled ones where the configuration says")
    func lists() async throws {
        for (unlabelled, step) in [(0, "\u{06}\u{16}9"), (9, "")] {
            let (backend, probe, prefix) = try backend { $0.unlabelledUrgency = unlabelled }
            defer { probe.close() }
            let client = JobClient(backend, logger: silent)
            try await client.enqueue(Note(text: "a"))
            #expect(try await probe.send(RESPCommand("LLEN", [.text(prefix + "default" + step)])).integer == 1)
            for (urgency, step) in [(9, ""), (7, ""), (6, "\u{06}\u{16}3"), (3, "\u{06}\u{16}6"), (0, "\u{06}\u{16}9")]
            {
                let queue = "u\(urgency)"
                try await client.enqueue(Note(text: "a"), .priority(urgency), .queue(queue))
                #expect(
                    try await probe.send(RESPCommand("LLEN", [.text(prefix + queue + step)])).integer == 1,
                    "urgency \(urgency)")
            }
        }
    }

    @Test("an ignored result leaves no key behind, and a million jobs no more than one")
    func nothingLeft() async throws {
        let (backend, probe, prefix) = try backend()
        defer { probe.close() }
        let client = JobClient(backend, logger: silent)
        let worker = worker(backend)
        let running = Task { try await worker.run() }
        try await client.enqueue(contentsOf: (0..<500).map { Note(text: "\($0)") }, [.result(.ignore)])
        #expect(try await eventually { try await backend.queues().allSatisfy { $0.waiting + $0.running == 0 } })
        worker.stop()
        try await running.value
        var keys: [String] = []
        var cursor = "0"
        repeat {
            let page =
                try await probe.send(RESPCommand("SCAN", [.text(cursor), "MATCH", .text(prefix + "*"), "COUNT", 1000]))
                .elements ?? []
            cursor = page.first?.text ?? "0"
            keys += page.last?.elements?.compactMap(\.text) ?? []
        } while cursor != "0"
        let left = Set(keys.map { String($0.dropFirst(prefix.count)) }).filter {
            !$0.hasPrefix("_kombu") && !$0.hasPrefix("hoist:worker:")
        }
        let few: Set = [
            "hoist:queues", "hoist:token", "hoist:pulse", "hoist:swept", "hoist:expired", "hoist:expired:until",
        ]
        #expect(left.isSubset(of: few), "\(left)")
    }

    @Test("an enqueue that waits for replicas says when there are too few")
    func replicas() async throws {
        let (backend, probe, _) = try backend { $0.replication = .replicas(1, timeout: .milliseconds(50)) }
        defer { probe.close() }
        let client = JobClient(backend, logger: silent)
        let error = await #expect(throws: BackendError.self) { try await client.enqueue(Note(text: "a"), .id("one")) }
        #expect(error?.isRetrySafe == false && error?.message.contains("0 of 1 replicas") == true)
        #expect(try await backend.record(of: "one")?.state == .waiting, "it is there all the same")
    }

    @Test("a large body is compressed where the client says so, and read by worker and caller alike")
    func compression() async throws {
        let (backend, probe, prefix) = try backend { $0.unlabelledUrgency = 9 }
        defer { probe.close() }
        let client = JobClient(backend, configuration: .init(compressesAbove: 1000), logger: silent)
        let text = String(repeating: "to and fro ", count: 10_000)
        let handle = try await client.enqueue(Note(text: text))
        let element = try await probe.send(RESPCommand("LINDEX", [.text(prefix + "default"), 0])).bytes ?? []
        #expect(element.count < 4000, "\(element.count) bytes")
        #expect(try Message(envelope: element).headers.compression == "application/x-gzip")
        let worker = worker(backend)
        let running = Task { try await worker.run() }
        #expect(try await handle.output(timeout: .seconds(30)) == text)
        worker.stop()
        try await running.value
    }
}
