import ArgumentParser
import Foundation
import Hoist
@testable import HoistCommands
import HoistSQLite
import Logging
import Testing

/// `hoist cancel`, on a database of its own.
@Suite("hoist cancel", .serialized, .timeLimit(.minutes(3)))
struct CancelCommandTests {
    private let url: String
    private let folder: URL
    private let client: JobClient

    init() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-cancel-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        url = "sqlite:" + folder.appendingPathComponent("jobs.db").path
        client = JobClient(
            try SQLiteBackend(url: url), logger: Logger(label: "cancel", factory: { _ in SwiftLogNoOpLogHandler() }))
    }

    private func cancel(_ arguments: String...) async throws {
        var command = try CancelCommand.parse(arguments + ["--backend", url])
        try await command.run()
    }

    private func enqueue(_ name: String, queue: String, tenant: String? = nil) async throws -> JobID {
        var options: [EnqueueOption] = [.queue(queue)]
        if let tenant { options.append(.header("tenant", .string(tenant))) }
        return try await client.enqueue(named: name, options: options).id
    }

    private func states(_ ids: [JobID]) async throws -> [JobState?] {
        var states: [JobState?] = []
        for id in ids { states.append(try await client.handle(of: id).state()) }
        return states
    }

    @Test("jobs are cancelled by id, by name and queue together, and by header; others are left alone")
    func filters() async throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        let one = try await enqueue("mail", queue: "a")
        let two = try await enqueue("mail", queue: "b")
        let three = try await enqueue("video", queue: "a")
        let four = try await enqueue("video", queue: "b", tenant: "acme")
        let five = try await enqueue("video", queue: "b", tenant: "other")
        try await cancel("--name", "mail", "--queue", "b")
        #expect(
            try await states([one, two, three, four, five]) == [.waiting, .cancelled, .waiting, .waiting, .waiting])
        try await cancel("--header", "tenant=acme", "--json")
        #expect(try await states([four, five]) == [.cancelled, .waiting])
        try await cancel(one, three)
        #expect(try await states([one, three, five]) == [.cancelled, .cancelled, .waiting])
        try await cancel(five)
        #expect(try await states([five]) == [.cancelled])
        await #expect(throws: (any Error).self) { try await cancel("nobody") }
    }

    @Test(
        "what says too little or too much is refused, and cancels nothing",
        arguments: [[], ["a", "--queue", "q"], ["--header", "x"], ["--header", "=x"], ["--stamp", "x"]])
    func refusals(_ arguments: [String]) throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        #expect(throws: (any Error).self) { try CancelCommand.parse(arguments + ["--backend", url]) }
    }
}
