import Foundation
import Hoist
import HoistSQLite
import HoistTesting
import Logging
import TestServers
import Testing

/// What the commands print with `--json` is what `docs/command-line.schema.json` says.
@Suite("JSON of the command line", .serialized, .timeLimit(.minutes(2)))
struct JSONOutputTests {
    private struct Slow: Job {
        static let name = "slow"
    }

    private let folder: URL
    private let url: String
    private let schema: Schema

    init() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-json-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        url = "sqlite:" + folder.appendingPathComponent("jobs.db").path
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let text = try Data(contentsOf: root.appendingPathComponent("docs/command-line.schema.json"))
        schema = Schema(definitions: try JSONText.parse(Array(text))["$defs"]?.objectValue ?? [:])
    }

    private func hoist(_ arguments: [String]) async throws -> String {
        try await BuiltProgram.run("hoist", arguments + ["--json", "--backend", url]).text
    }

    /// - Parameter name: of the definition; nil for the name of the command.
    private func check(_ arguments: String..., as name: String? = nil, isLines: Bool = false) async throws {
        let text = try await hoist(arguments)
        let name = name ?? arguments[0]
        let pieces = isLines ? text.split(separator: "\n").map(String.init) : [text]
        #expect(!pieces.isEmpty)
        for piece in pieces {
            let value = try JSONText.parse(Array(piece.utf8))
            let faults = schema.faults(of: value, definition: name)
            #expect(faults.isEmpty, "hoist \(arguments.joined(separator: " ")): \(faults)\n\(text.prefix(2000))")
        }
    }

    @Test("every command prints what the schema says, with jobs in every state")
    func commands() async throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        let silent = Logger(label: "json", factory: { _ in SwiftLogNoOpLogHandler() })
        let backend = try SQLiteBackend(url: url)
        let client = JobClient(backend, logger: silent)
        let gate = Doorbell()
        let worker = Worker(backend, lanes: [.async(4)], logger: silent) {
            Handler(Slow.self) { _, context in
                context.logger.critical("begun")
                try await context.report(progress: 0.5, "half")
                await gate.wait(after: 0, for: .seconds(60), clock: SystemJobClock())
            }
            Handler(named: "works") { _, _ in ["a": [1, 2.5, nil]] }
            Handler(named: "fails") { _, _ in throw JobDirective.deadLetter("no") }
        }
        let running = Task { try await worker.run() }
        let slow = try await client.enqueue(Slow(), .header("tenant", "acme"))
        let works = try await client.enqueue(named: "works")
        _ = try await works.output(timeout: .seconds(20))
        let fails = try await client.enqueue(named: "fails")
        _ = try? await fails.output(timeout: .seconds(20))
        try await client.enqueue(named: "nobody's")
        let later = try await client.enqueue(named: "works", options: [.after(.seconds(600))])
        _ = try await client.enqueue(named: "works", options: [.after(.seconds(600))]).cancel()
        #expect(try await eventually { try await slow.record()?.progress?.fraction == 0.5 })
        #expect(try await eventually { try await backend.log(of: slow.id)?.lines.isEmpty == false })

        let step = Named<NoInput, WireValue>("works")
        _ = try await client.enqueue(step.followed(by: step), .id("flow")).output(timeout: .seconds(20))
        _ = try await client.enqueue(step.followed(by: step), .id("flow-later"), .after(.seconds(600)))
        try await check("workflow", "list", as: "workflow list")
        try await check("workflow", "show", "flow", as: "workflow show")
        try await check("workflow", "cancel", "flow-later", as: "workflow cancel")
        #expect(try await backend.record(of: "flow-later.0")?.state == .cancelled)

        for command in ["status", "queues", "workers", "jobs"] { try await check(command) }
        try await check("jobs", "--all", as: "job", isLines: true)
        for job in [slow.id, works.id, fails.id, later.id] {
            try await check("job", job)
            try await check("why", job)
        }
        try await check("why", "nobody")
        try await check("schedule", "add", "s", "0 3 * * *", "works", "--overlap", "skip", as: "schedule")
        try await check("schedule", "run", "s", as: "schedule run")
        try await check("schedule", "pause", "s", "--note", "why", as: "schedule")
        for command in ["resume", "skip", "show"] { try await check("schedule", command, "s", as: "schedule") }
        try await check("schedule", "history", "s", as: "schedule history")
        try await check("schedule", "list", as: "schedule list")
        let runs = try await BuiltProgram.run("hoist", ["schedule", "next", "@daily", "--json"]).text
        #expect(try schema.faults(of: JSONText.parse(Array(runs.utf8)), definition: "schedule next").isEmpty, "\(runs)")
        try await check("log", slow.id)
        try await check("dead", "list", as: "dead list")
        try await check("dead", "requeue", fails.id, as: "dead requeue")
        try await check("enqueue", "works")
        try await check("cancel", later.id)
        try await check("cancel", "--name", "nobody's", as: "cancel many")
        try await check("pause", "q")
        try await check("resume", "q")
        try await check("purge", "q", "--force")
        try await check("inspect", "stats")
        try await check("control", "enable_events")
        try await check("top")
        try await check("events", "--count", "2", isLines: true)
        gate.ring()
        worker.stop(.immediately)
        try await running.value
    }

    @Test("the check finds what is wrong")
    func itself() throws {
        defer { try? FileManager.default.removeItem(at: folder) }
        func faults(_ value: WireValue, _ name: String) -> Int { schema.faults(of: value, definition: name).count }
        #expect(faults(["id": "a", "is_new": true], "enqueue") == 0)
        #expect(faults(["id": "a"], "enqueue") == 1)
        #expect(faults(["id": 1, "is_new": true], "enqueue") == 1)
        #expect(faults(["id": "a", "is_new": true, "more": 1], "enqueue") == 1)
        #expect(faults("2026-11-29T22:11:48.612221+00:00", "time") == 0)
        #expect(faults("yesterday", "time") == 1 && faults(["__type__": "datetime"], "time") == 1)
        #expect(faults("asleep", "state") == 1 && faults([["name": 1]], "queues") == 5)
    }
}

/// As much of JSON Schema as the file uses.
private struct Schema {
    var definitions: WireValue.Object

    func faults(of value: WireValue, definition name: String) -> [String] {
        guard let definition = definitions[name] else { return ["there is no definition of \(name)"] }
        return faults(value, definition, name)
    }

    private func faults(_ value: WireValue, _ rule: WireValue, _ path: String) -> [String] {
        if let reference = rule["$ref"]?.stringValue {
            guard let definition = definitions[String(reference.split(separator: "/").last ?? "")] else {
                return ["\(path): \(reference) is not there"]
            }
            return faults(value, definition, path)
        }
        if let choices = rule["enum"]?.arrayValue { return choices.contains(value) ? [] : ["\(path) is \(value)"] }
        let types = rule["type"]?.arrayValue ?? rule["type"].map { [$0] } ?? []
        guard types.isEmpty || types.contains(where: { isOf($0.stringValue ?? "", value) }) else {
            return ["\(path) is \(value)"]
        }
        var found: [String] = []
        if rule["format"] == "date-time", let text = value.stringValue {
            let isDate = text.wholeMatch(of: /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)/) != nil
            if !isDate { found.append("\(path) is no date: \(text)") }
        }
        if let elements = value.arrayValue, let items = rule["items"] {
            for (index, element) in elements.enumerated() { found += faults(element, items, "\(path)[\(index)]") }
        }
        if let members = value.objectValue {
            for name in rule["required"]?.arrayValue ?? [] where members[name.stringValue ?? ""] == nil {
                found.append("\(path).\(name) is missing")
            }
            for (name, member) in members {
                if let property = rule["properties"]?[name] {
                    found += faults(member, property, "\(path).\(name)")
                } else if rule["additionalProperties"] == false {
                    found.append("\(path).\(name) is not described")
                }
            }
        }
        return found
    }

    private func isOf(_ type: String, _ value: WireValue) -> Bool {
        switch (type, value) {
        case ("null", .null), ("boolean", .bool), ("string", .string), ("array", .array), ("object", .object),
            ("integer", .integer), ("number", .integer), ("number", .double):
            true
        default: false
        }
    }
}
