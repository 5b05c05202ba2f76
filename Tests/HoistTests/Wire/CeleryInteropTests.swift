import Foundation
import Hoist
import HoistTesting
import Logging
import Testing

private let python = ProcessInfo.processInfo.environment["HOIST_TEST_PYTHON"]

/// A real Celery reads our messages, and we read its. `scripts/test` installs it and names the interpreter in
/// HOIST_TEST_PYTHON.
@Suite("With a real Celery", .enabled(if: python != nil, "HOIST_TEST_PYTHON names no Python with celery"))
struct CeleryInteropTests {
    private func run(_ mode: String, input: String) async throws -> WireValue {
        let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent(
            "celery_peer.py")
        let process = Process()
        process.executableURL = URL(fileURLWithPath: try #require(python))
        process.arguments = [script.path, mode]
        let (toChild, fromChild) = (Pipe(), Pipe())
        process.standardInput = toChild
        process.standardOutput = fromChild
        try process.run()
        toChild.fileHandleForWriting.write(Data(input.utf8))
        try toChild.fileHandleForWriting.close()
        let output = fromChild.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        try #require(process.terminationStatus == 0, "the Python peer failed")
        return try JSONParser.parse(Array(output))
    }

    struct Add: Job, Equatable {
        static let name = "peer.add"
        static let secretArguments: Set<String> = ["token"]
        static let options = JobOptions(timeLimit: .seconds(30))
        var x: Int
        var yValue: Double
        var when: Date
        var token: String
        typealias Output = Double
    }

    @Test("Celery reads and runs what we enqueue")
    func ours() async throws {
        let backend = MemoryBackend()
        let client = JobClient(backend, logger: Logger(label: "test"))
        let when = Date(timeIntervalSince1970: 1_700_000_000)
        let eta = Date(timeIntervalSince1970: 4_000_000_000)
        let handle = try await client.enqueue(
            Add(x: 2, yValue: 0.5, when: when, token: "hush"), .queue("celery"), .priority(3), .at(eta),
            .expires(at: eta + 60),
            .header("tenant", "acme é"))
        let messages = try await backend.messages()
        let read = try await run(
            "read", input: String(decoding: try #require(messages.first).encodedEnvelope(), as: UTF8.self))
        #expect(read["task"] == "peer.add" && read["id"] == .string(handle.id))
        #expect(read["result"] == 2.5, "the task ran on our arguments: \(read)")
        #expect(read["when"] == "2023-11-14T22:13:20+00:00", "dates are datetimes there")
        #expect(read["eta"] == "2096-10-02T07:06:40+00:00")
        #expect(read["expires"] == "2096-10-02T07:07:40+00:00")
        #expect(read["timelimit"] == [nil, 30])
        #expect(read["tenant"] == "acme é")
        #expect(read["kwargsrepr"]?.stringValue?.contains("hush") == false, "secrets are hidden")
    }

    @Test("we read what Celery sends")
    func theirs() async throws {
        let sent = try await run("write", input: "").arrayValue ?? []
        #expect(sent.count == 3)
        let messages = try sent.map { try Message(envelope: Array($0.description.utf8)) }
        let call = try messages[0].decodedBody().arguments.bind(to: Add.self)
        #expect(call == Add(x: 1, yValue: 2.5, when: Date(timeIntervalSince1970: 1_700_000_000), token: "t"))
        #expect(
            messages[1].headers.eta == Date(timeIntervalSince1970: 4_000_000_000)
                && messages[1].properties.priority == 7)
        #expect(messages[1].headers.softTimeLimit == 5 && messages[1].headers.hardTimeLimit == 9)
        #expect(messages[2].headers.custom["tenant"] == "acme" && messages[2].headers.ignoresResult == true)
    }
}

extension MemoryBackend {
    /// The messages that wait, as a worker would be handed them.
    fileprivate func messages() async throws -> [Message] {
        var messages: [Message] = []
        for record in try await jobs(JobFilter(states: [.waiting, .scheduled])) {
            _ = try await edit(record.id, .reschedule(.distantPast))
            let worker = WorkerPresence(
                id: "peek", name: "peek", queues: [record.queue], jobNames: [record.name], startedAt: clock.now)
            _ = try await join(worker, lease: .seconds(10))
            let claim = Claim(queue: record.queue, kind: "async", jobNames: [record.name])
            let result = try await turn(
                "peek", WorkerTurn(claims: [claim], budget: ClaimBudget(kinds: ["async": 1])))
            for case .message(var message) in result.deliveries.map(\.payload) {
                message.headers.eta = record.dueAt
                messages.append(message)
            }
        }
        return messages
    }
}
