import Foundation
import HTTPTypes
import Hoist
@testable import HoistDashboard
import HoistTesting
import Hummingbird
import HummingbirdTesting
import Logging
import NIOCore
import Testing

private let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// What a real Flower 2.2 answered, asked of the dashboard beside a Swift worker.
@Suite("Flower's API", .timeLimit(.minutes(3)))
struct FlowerTests {
    private struct Sample {
        var name: String
        var request: WireValue
        var status: Int64
        var body: WireValue
    }

    private static func samples() throws -> [Sample] {
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Flower")
        return try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted().map { file in
            let value = try JSONText.parse(Array(try Data(contentsOf: folder.appendingPathComponent(file))))
            return Sample(
                name: String(file.dropLast(5)), request: value["request"] ?? .null,
                status: value["status"]?.integerValue ?? 0, body: value["body"] ?? .null)
        }
    }

    /// What changes what others see comes last.
    private static func ordered() throws -> [Sample] {
        let (last, first) = try samples().reduce(into: ([Sample](), [Sample]())) { parts, sample in
            if sample.name == "pool_autoscale_off" || sample.name.hasPrefix("revoke") {
                parts.0.append(sample)
            } else {
                parts.1.append(sample)
            }
        }
        return first + last
    }

    /// What is not asked here, and why.
    private static let elsewhere: [String: String] = [
        "basic_": "the table of routes and roles", "noauth_": "a dashboard without users answers its own machine",
        "read_only": "the tests of access", "prefix": "the tests of pages", "datatable": "a page of Flower's",
        "workers_page": "a page of Flower's", "options": "no other site may ask, so there is no CORS",
        "not_found": "pages of other paths", "task_info_custom": "an event that Hoist does not know",
        "task_info_progress": "a state of the task's own", "task_info_chain_last": "a chain",
        "task_info_long": "cut texts",
        "task_info_reject": "Celery's Reject", "task_result_reject": "Celery's Reject", "shutdown": "asked at the end",
        "workers_status_after_shutdown": "asked at the end", "workers_refresh_none": "asked at the end",
        "revoke_terminate": "asked at the end", "task_info_terminated": "asked at the end",
    ]

    /// What is answered otherwise, and why.
    private static let otherwise: [String: (status: Int64, why: String)] = [
        "abort": (404, "the state ABORTED of AbortableTask is Celery's own"),
        "api_not_found": (404, "a text in place of a page"),
        "pool_autoscale_off": (200, "a Hoist worker makes a range of any lane"),
        "pool_shrink": (200, "a Hoist worker shrinks also while it is busy"),
        "send_task_badjson": (400, "the mistake in other words"),
        "send_task_bad_option": (400, "the request is at fault, not the server"),
        "tasks_search_paren": (400, "no parentheses"), "tasks_sort_bad": (400, "the same"),
        "method_not_allowed": (404, "Hummingbird knows no other methods of a path"),
        "rate_limit_bad": (403, "the mistake in other words"), "pool_restart_off": (403, "the reason is another one"),
        "timeout": (403, "a hard limit needs the process lane"),
        "send_task_nobody": (200, "a job that nobody knows waits for a worker that does"),
        "task_info_revoked": (200, "revoked at once: Flower shows RECEIVED until its time comes"),
    ]

    /// Members of a task that are not kept.
    private static let unkept: Set<String> = ["exchange", "clock", "client"]

    @Test("every recorded request is answered with the same status and the same shape, but for what is listed")
    func replay() async throws {
        let bench = try Bench()
        let release = Shared(false)
        let worker = Worker(
            bench.backend, queues: ["celery"], lanes: [.async(4)],
            configuration: .init(name: "py1@hostA", events: .always, heartbeatInterval: .milliseconds(300)),
            logger: silent
        ) {
            Handler(named: "tasks.add") { arguments, _ in
                let numbers = arguments.positional.compactMap(\.integerValue)
                return .integer(numbers.reduce(0, +))
            }
            Handler(named: "tasks.fail") { _, _ in throw NoLuck() }
            Handler(named: "tasks.slow") { _, _ in
                _ = await release.wait(.seconds(60)) { $0 }
                return .null
            }
            Handler(named: "tasks.again", options: JobOptions(retry: .fixed(.milliseconds(20), maxAttempts: 2))) {
                arguments, context in
                if context.attempt == 1 || arguments.positional.first == 9 { throw NoLuck() }
                return .string("ok")
            }
            for name in ["tasks.custom_event", "tasks.progress", "tasks.reject"] {
                Handler(named: name) { _, _ in .null }
            }
        }
        let running = Task { try await bench.dashboard.run() }
        let jobs = bench.jobs
        func send(_ name: String, _ id: JobID, _ arguments: [WireValue], _ options: EnqueueOption...) async throws {
            _ = try await jobs.enqueue(
                named: name, arguments: Arguments(positional: arguments),
                options: [.id(id), .queue("celery")] + options)
        }
        try await withWorker(worker) {
            let isHeard = try await eventually {
                bench.collector.view { $0.replies["py1@hostA"]?.values["conf"] != nil }
            }
            #expect(isHeard)
            try await send("tasks.add", "ff0920b0-66a9-4ae2-af4a-a07a6ab5a483", [1, 3])
            try await send("tasks.fail", "72d6b337-56ba-4574-80a3-70990ce0a2d1", ["it <b>broke</b>"])
            try await send("tasks.slow", "676d6a11-dac8-41e7-8019-9e49dfb0eb33", [25])
            try await send("tasks.again", "ed458625-441a-4268-9129-a7b238e6efa0", [1])
            try await send("tasks.again", "a4d40203-25b4-471e-84aa-18ad2086f9af", [9])
            try await send("tasks.add", "171f7aa6-7062-4d6b-b260-9c958a25335b", [1, 2], .after(.seconds(900)))
            try await send(
                "tasks.add", "0736eec1-5b2e-435d-8ffb-d8b33e5bb7fb", [1, 2], .after(.seconds(1)),
                .expires(after: .milliseconds(1)))
            try await send("tasks.add", "4a62ed4f-7acd-4162-9c19-02331f004bc4", [1, 2], .after(.seconds(900)))
            _ = try await bench.backend.cancel("4a62ed4f-7acd-4162-9c19-02331f004bc4")
            // What is delayed is not told by a worker: as Celery's workers do, which hold it.
            for id in ["171f7aa6-7062-4d6b-b260-9c958a25335b", "4a62ed4f-7acd-4162-9c19-02331f004bc4"] {
                bench.tell(
                    "task-received", id,
                    [
                        "hostname": "py1@hostA", "name": "tasks.add", "args": "(1, 2)", "kwargs": "{}",
                        "queue": "celery",
                        "eta": "2030-01-01T00:00:00+00:00",
                    ])
            }
            bench.tell(
                "task-sent", "0736eec1-5b2e-435d-8ffb-d8b33e5bb7fb",
                ["hostname": "gen1@clienthost", "name": "tasks.add", "args": "(1, 2)", "kwargs": "{}"])
            for name in ["tasks.custom_event", "tasks.progress", "tasks.reject"] { try await send(name, name, []) }
            let areKept = try await eventually {
                let query = JobPageQuery(backend: bench.collector.number, search: try JobSearch("state:succeeded"))
                let expired = try await bench.dashboard.store.job(
                    "0736eec1-5b2e-435d-8ffb-d8b33e5bb7fb", backend: bench.collector.number)
                return try await bench.dashboard.store.count(query, at: Date()) >= 5 && expired?.job.state == .expired
            }
            #expect(areKept)
            try await bench.application().test(.live) { client async throws -> Void in
                let site = try #require(HTTPField.Name("Sec-Fetch-Site"))
                let revoked = try await client.execute(
                    uri: "/api/task/revoke/676d6a11-dac8-41e7-8019-9e49dfb0eb33", method: .post,
                    headers: [site: "same-origin"])
                #expect(revoked.status == .ok)
                for sample in try Self.ordered() where !Self.elsewhere.keys.contains(where: sample.name.hasPrefix) {
                    try await Self.check(sample, client)
                }
            }
            // Without terminate a job that runs goes on; it was asked to stop with it.
            let slow = try await bench.backend.record(of: "676d6a11-dac8-41e7-8019-9e49dfb0eb33")
            #expect(slow?.state == .running && slow?.isCancelRequested == false)
            let audit = try await bench.dashboard.store.audit(limit: 200)
            #expect(
                audit.contains {
                    $0.action == "rate_limit" && $0.target.contains("200/m") && $0.result.contains("new rate")
                })
            #expect(audit.contains { $0.action == "rate_limit" && $0.result.hasPrefix("refused") })
            #expect(!audit.contains { $0.result == "asked" }, "\(audit)")
            release.change { $0 = true }
        }
        running.cancel()
        _ = await running.result
    }

    private struct NoLuck: Error, CustomStringConvertible {
        var description: String { "it <b>broke</b>" }
    }

    private static func check(_ sample: Sample, _ client: some TestClientProtocol) async throws {
        let site = try #require(HTTPField.Name("Sec-Fetch-Site"))
        var headers: HTTPFields = [site: "same-origin"]
        var body = ByteBuffer()
        if let json = sample.request["json"] {
            headers[.contentType] = "application/json"
            body.writeString(JSONText.shown(json))
        } else if let raw = sample.request["raw"]?.stringValue {
            body.writeString(raw)
        } else if let form = sample.request["form"]?.objectValue {
            headers[.contentType] = "application/x-www-form-urlencoded"
            body.writeString(
                form.map { "\(Links.encode($0.key))=\(Links.encode($0.value.stringValue ?? ""))" }.joined(
                    separator: "&"))
        }
        let path = (sample.request["path"]?.stringValue ?? "").replacing(" ", with: "%20")
        let method: HTTPRequest.Method = sample.request["method"] == "POST" ? .post : .get
        let response = try await client.execute(uri: path, method: method, headers: headers, body: body)
        let expected = otherwise[sample.name]?.status ?? sample.status
        let said = text(response)
        #expect(Int64(response.status.code) == expected, "\(sample.name): \(response.status) \(said.prefix(300))")
        guard otherwise[sample.name] == nil else { return }
        if sample.body.objectValue == nil {
            #expect(said == sample.body.stringValue ?? "", "\(sample.name)")
            return
        }
        guard let value = try? JSONText.parse(Array(said.utf8)) else {
            Issue.record("\(sample.name): \(said.prefix(300))")
            return
        }
        compare(value, sample.body, sample.name)
    }

    /// Compares members and their types, and texts of messages.
    private static func compare(_ mine: WireValue, _ theirs: WireValue, _ what: String) {
        guard let (one, other) = objects(mine, theirs) else { return }
        if what.hasPrefix("tasks"), !what.hasSuffix("negative"), !what.contains("bad") {
            // Objects by id: one of each is compared.
            #expect(!one.isEmpty, "\(what)")
            let names = Set(one.compactMap { $0.value["name"]?.stringValue })
            switch what {
            case "tasks_filter": #expect(names == ["tasks.fail"], "\(one)")
            case "tasks_search": #expect(one.allSatisfy { $0.value["state"] == "FAILURE" }, "\(one)")
            case "tasks_limit": #expect(one.count == 2, "\(one)")
            case "tasks": #expect(one.count >= 8, "\(what): \(one.count)")
            default: break
            }
            if let first = Array(one).first?.value, let second = Array(other).first?.value {
                compare(first, second, "task in " + what)
            }
            return
        }
        if what == "workers" || what.hasPrefix("workers_"), what != "workers_status" {
            if let first = one["py1@hostA"], let second = other["py1@hostA"] {
                #expect(
                    Set(first.objectValue?.keys.map { $0 } ?? []) == Set(second.objectValue?.keys.map { $0 } ?? []),
                    "\(what)")
            } else {
                Issue.record("\(what): py1@hostA is missing")
            }
            return
        }
        #expect(Set(one.keys) == Set(other.keys), "\(what)")
        if what == "task_types" { #expect(one["task-types"] == other["task-types"]) }
        if what == "queues_length" { #expect(one["active_queues"]?.arrayValue?.first?["name"] == "celery") }
        if what == "apply" || what == "task_result_add" { #expect(one["result"] == other["result"], "\(what)") }
        for (key, value) in other where !unkept.contains(key) {
            guard let found = one[key] else { continue }
            if key == "message" || key == "error" { #expect(found == value, "\(what)") }
            // What is there in one is there in the other; times and texts differ.
            if what.hasPrefix("task_info"),
                ["received", "started", "succeeded", "failed", "runtime", "eta"].contains(key)
            {
                #expect(found.isNull == value.isNull, "\(what) \(key): \(found) and \(value)")
            }
            if ["state", "name", "uuid", "kwargs"].contains(key) || key == "worker" && !found.isNull {
                if !what.hasPrefix("task in") { #expect(found == value, "\(what) \(key)") }
            }
            if !found.isNull, !value.isNull {
                #expect(kind(found) == kind(value), "\(what) \(key): \(found) and \(value)")
            }
        }
    }

    private static func objects(_ one: WireValue, _ other: WireValue) -> (WireValue.Object, WireValue.Object)? {
        guard let one = one.objectValue, let other = other.objectValue else { return nil }
        return (one, other)
    }

    private static func kind(_ value: WireValue) -> String {
        switch value {
        case .null: "null"
        case .bool: "bool"
        case .integer, .bigInteger, .double: "number"
        case .string: "text"
        case .array: "array"
        case .object: "object"
        }
    }
}
