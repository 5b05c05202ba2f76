import Foundation
import Hoist
@testable import HoistRedis
import HoistTesting
import Logging
import RESP
import TestServers
import Testing

/// What others wrote into Redis, read by every reader: nothing ends a process, and nothing is lost.
@Suite("Values of others on Redis", .timeLimit(.minutes(2)))
struct HostileValuesTests {
    private static let numbers = [
        "1e300", "-1e300", "NaN", "Infinity", "-Infinity", "9223372036854775807", "-9223372036854775808",
        "9223372036854775808", "-1", "0", "\"text\"", "null", "[]", "{}",
    ]
    private static let members = [
        #""retries":N"#, #""date_done":N"#, #""children":N"#, #""result":N"#, #""result":{"current":N,"total":N}"#,
        #""result":{"fraction":N}"#,
        #""hoist":{"t":N,"p":N,"attempts":N,"at":N,"began":N,"ended":N,"lost":N}"#,
        #""hoist":{"usage":{"cpuSeconds":N,"wallSeconds":N,"peakMemory":N}}"#, #""hoist":{"until":N,"history":N}"#,
        #""hoist":{"headers":N,"failure":N}"#,
    ]
    private let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

    @Test("no number in a result ends a reader", arguments: members)
    func results(member: String) async throws {
        let (backend, probe) = try RedisBackend.onTestServer(prefix: "hostile\(UUID().uuidString.prefix(8)):")
        defer { probe.close() }
        var configuration = JobClient.Configuration()
        configuration.unknownPatience = .zero
        let client = JobClient(backend, configuration: configuration, logger: silent)
        for (index, number) in Self.numbers.enumerated() {
            for status in ["SUCCESS", "FAILURE", "RETRY", "PROGRESS", "STARTED", "REVOKED", "ODD"] {
                let id = "\(status)-\(index)"
                let text = "{\"status\":\"\(status)\",\"task_id\":\"\(id)\",\(member.replacing("N", with: number))}"
                try await probe.send(RESPCommand("SET", [.text(backend.keys.result(id)), .text(text)]))
                let record = try await backend.record(of: id)
                #expect(record.map { !JSONText.shown($0.wireValue).isEmpty } ?? true)
                if record != nil { for try await _ in backend.updates(of: id) { break } }
                if record?.state.hasEnded == true { _ = try? await client.handle(of: id).output(timeout: .seconds(30)) }
            }
        }
        #expect(try await backend.jobs(JobFilter(limit: .max)).allSatisfy { !JSONText.shown($0.wireValue).isEmpty })
    }

    @Test(
        "no number in the record of a job, or in what is known of a delivery, ends a reader or the worker that takes it"
    )
    func records() async throws {
        let (backend, probe) = try RedisBackend.onTestServer(prefix: "hostile\(UUID().uuidString.prefix(8)):")
        defer { probe.close() }
        let client = JobClient(backend, logger: silent)
        for (index, number) in Self.numbers.enumerated() {
            for member in ["at", "x", "b", "e", "t", "p", "lost", "h", "f"] {
                let id = "\(member)-\(index)"
                try await client.enqueue(named: "job", options: [.id(id)])
                let record = "p{\"q\":\"default\",\"n\":\"job\",\"s\":\"waiting\",\"\(member)\":\(number)}"
                try await probe.send(RESPCommand("SET", [.text(backend.keys.job(id)), .text(record)]))
                if let read = try await backend.record(of: id) { #expect(!JSONText.shown(read.wireValue).isEmpty) }
            }
        }
        _ = try await backend.jobs(JobFilter(limit: .max))
        _ = try await backend.queues()
        _ = try await backend.counts()
        let worker = Worker(backend, configuration: .init(isBurst: true), logger: silent) {
            Handler(named: "job") { _, _ in .null }
        }
        try await worker.run()
        #expect(try await backend.queues().allSatisfy { $0.waiting + $0.running == 0 })
    }

    @Test("no date in a waiting message ends who measures queues, nor the worker that scales by their age")
    func dates() async throws {
        let (backend, probe) = try RedisBackend.onTestServer(prefix: "hostile\(UUID().uuidString.prefix(8)):")
        defer { probe.close() }
        for (index, number) in Self.numbers.enumerated() {
            let message =
                #"{"headers":{"lang":"py","task":"stranger","id":"s\#(index)","hoist":{"enqueued_at":\#(number)}},"content-type":"application/json","properties":{},"body":""}"#
            try await probe.send(
                RESPCommand("LPUSH", [.text(backend.keys.list("default", wirePriority: 0)), .text(message)]))
            _ = try await backend.queues()
            _ = try await backend.page(JobFilter(), after: nil)
            _ = try await backend.counts()
        }
        let started = Shared(0)
        let worker = Worker(
            backend, lanes: [.blocking(1...3)], configuration: .init(autoscaling: .init(interval: .milliseconds(20))),
            logger: silent
        ) {
            Handler(named: "busy", in: .blocking) { _, _ in
                started.change { $0 += 1 }
                return .null
            }
        }
        try await withWorker(worker) {
            for _ in 0..<4 { try await JobClient(backend, logger: silent).enqueue(named: "busy") }
            let all = await started.wait { $0 == 4 }
            #expect(all)
        }
    }

    @Test("a message that cannot be read is a failure under its caller's id as well, so that nobody waits for ever")
    func unreadable() async throws {
        let (backend, probe) = try RedisBackend.onTestServer(prefix: "hostile\(UUID().uuidString.prefix(8)):")
        defer { probe.close() }
        let message = #"{"headers":{"task":"job","id":"mine","eta":"no time"},"properties":{},"body":"x"}"#
        try await probe.send(
            RESPCommand("LPUSH", [.text(backend.keys.list("default", wirePriority: 0)), .text(message)]))
        let worker = Worker(backend, configuration: .init(isBurst: true), logger: silent) {
            Handler(named: "job") { _, _ in .null }
        }
        try await worker.run()
        #expect(try await backend.record(of: "mine")?.state == .failed)
        let dead = try await backend.jobs(JobFilter(states: [.failed], limit: .max))
        #expect(dead.contains { $0.name == "(unreadable)" && $0.failure?.kind == .undecodable })
        let kept = try await probe.send(
            RESPCommand("HVALS", [.text(backend.keys.own + "dead:default:jobs")])
        ).elements?.first?.text
        #expect(kept == message)
    }
}
