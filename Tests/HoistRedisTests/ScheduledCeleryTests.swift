import Foundation
import Hoist
import HoistRedis
import HoistTesting
import Logging
import RESP
import TestServers
import Testing

/// What Hoist's schedules start is what Celery's beat would have sent.
@Suite("Scheduled tasks of Celery's", .timeLimit(.minutes(3)))
struct ScheduledCeleryTests {
    @Test("a Python worker performs scheduled tasks, ticked by a program without handlers")
    func performed() async throws {
        let bench = try MixedBench()
        let worker = try bench.startPythonWorker()
        defer { PythonPeer.stop(worker) }
        let schedules = bench.client.schedules
        try await schedules.put(
            Schedule(
                "sum", .every(.seconds(1)), named: "mixed.add", arguments: Arguments(positional: [20, 22]),
                queue: "mixed",
                options: [.priority(7), .expires(after: .seconds(30))], overlap: .queueOne))
        let upkeep = UpkeepService(
            bench.backend, logger: Logger(label: "schedules", factory: { _ in SwiftLogNoOpLogHandler() }))
        let running = Task { try await upkeep.run() }
        // The second one starts only once the record tells that Python has ended the first.
        var jobs: [JobID] = []
        let isDone = try await eventually(.seconds(60)) {
            jobs = try await schedules.history(of: "sum").compactMap(\.job)
            return jobs.count >= 3
        }
        #expect(isDone)
        try await schedules.pause("sum")
        for job in jobs.suffix(2) {
            #expect(try await bench.client.handle(of: job).output(timeout: .seconds(30)) == 42)
        }
        running.cancel()
        try await running.value
    }

    @Test("the message has beat's headers, its arguments, priority and expiry")
    func message() async throws {
        let bench = try MixedBench()
        try await bench.client.schedules.put(
            Schedule(
                "tick", .every(.seconds(3600)), named: "wire.add", arguments: Arguments(positional: [1, 2]),
                queue: "celery",
                options: [.expires(after: .seconds(30)), .header("tenant", "acme")]))
        let job = try #require(try await bench.client.schedules.runNow("tick"))
        let probe = try RESPClient(RESPConfiguration(url: bench.url))
        defer { probe.close() }
        let element = try await probe.send(RESPCommand("LINDEX", [.text(bench.prefix + "celery"), "0"]))
        let envelope = try JSONText.parse(try #require(element.bytes))
        let headers = try #require(envelope["headers"])
        #expect(headers["task"]?.stringValue == "wire.add" && headers["id"]?.stringValue == job)
        #expect(headers["root_id"]?.stringValue == job && headers["parent_id"]?.stringValue == nil)
        #expect(headers["tenant"]?.stringValue == "acme" && headers["celery_beat_task"]?.boolValue == true)
        #expect(headers["argsrepr"]?.stringValue == "(1, 2)" && headers["retries"]?.integerValue == 0)
        #expect(headers["expires"]?.stringValue != nil && headers["eta"]?.stringValue == nil)
        #expect(envelope["properties"]?["expiration"]?.stringValue == "30000")
        #expect(envelope["properties"]?["delivery_info"]?["routing_key"]?.stringValue == "celery")
        let body = try #require(envelope["body"]?.stringValue.flatMap { Data(base64Encoded: $0) })
        #expect(String(decoding: body, as: UTF8.self).hasPrefix("[[1,2],{}"))
    }
}
