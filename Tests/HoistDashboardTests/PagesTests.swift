import Foundation
import HTTPTypes
import Hoist
@testable import HoistDashboard
import HoistMonitor
import HoistTesting
import Hummingbird
import HummingbirdTesting
import Logging
import NIOCore
import TestServers
import Testing

/// The dashboard's pages, API and actions, over HTTP.
@Suite("The dashboard's pages", .timeLimit(.minutes(3)))
struct PagesTests {
    private static let paths = [
        "/", "/?range=1h", "/?range=1y", "/jobs", "/jobs?q=state:failed", "/queues", "/queues/mail", "/workers",
        "/workers/w@h", "/scheduled", "/dead-letters", "/names", "/audit",
    ]

    @Test("every page shows an empty fleet, and one with jobs")
    func pages() async throws {
        let bench = try Bench()
        try await bench.application().test(.live) { client async throws -> Void in
            for path in Self.paths where path != "/workers/w@h" {
                let response = try await client.execute(uri: path, method: .get)
                #expect(response.status == .ok, "\(path)")
            }
            #expect(try await client.execute(uri: "/workers/w@h", method: .get).status == .notFound)
            #expect(try await client.execute(uri: "/jobs/none", method: .get).status == .notFound)
            #expect(try await client.execute(uri: "/nothing", method: .get).status == .notFound)

            bench.beat()
            bench.tell("task-received", "1", ["name": "mail.send", "queue": "mail", "kwargs": "{'to': 'c-4711'}"])
            bench.tell("task-started", "1")
            bench.tell("task-failed", "1", ["exception": "Broken('no')", "traceback": "line 1"])
            try await collecting(bench) {
                for path in Self.paths {
                    let response = try await client.execute(uri: path, method: .get)
                    #expect(response.status == .ok, "\(path)")
                    #expect(text(response).contains("</html>"), "\(path)")
                }
                let jobs = text(try await client.execute(uri: "/jobs?q=name:mail.send", method: .get))
                #expect(jobs.contains("mail.send") && jobs.contains("c-4711") && jobs.contains("Broken(&#39;no&#39;)"))
                let job = text(try await client.execute(uri: "/jobs/1", method: .get))
                #expect(job.contains("Broken(&#39;no&#39;)") && job.contains("line 1") && job.contains("w@h"))
                let names = text(try await client.execute(uri: "/names", method: .get))
                #expect(names.contains("mail.send") && names.contains("100"))
                let letters = text(try await client.execute(uri: "/dead-letters", method: .get))
                #expect(letters.contains("mail.send"))
            }
        }
    }

    /// Runs the dashboard's service until what was told is in the history.
    /// - Parameter isEmpty: nothing was told yet.
    private func collecting(
        _ bench: Bench, unless isEmpty: Bool = false, _ body: () async throws -> Void
    ) async throws {
        let running = Task { try await bench.dashboard.run() }
        let isKept = try await eventually {
            if isEmpty { return true }
            return try await bench.dashboard.store.count(JobPageQuery(backend: bench.collector.number), at: Date()) > 0
        }
        #expect(isKept)
        let result: Result<Void, any Error>
        do { result = .success(try await body()) } catch { result = .failure(error) }
        running.cancel()
        _ = await running.result
        try result.get()
    }

    @Test("a mistake in a search is told under the field, with its place")
    func mistake() async throws {
        try await Bench().application().test(.live) { client async throws -> Void in
            let page = text(try await client.execute(uri: "/jobs?q=name:a%20state:gone", method: .get))
            #expect(page.contains("At character 8: there is no state gone"))
            #expect(page.contains("value=\"name:a state:gone\""))
            let problem = try await client.execute(uri: "/api/v1/jobs?q=state:gone", method: .get)
            #expect(problem.status == .badRequest && problem.headers[.contentType] == "application/problem+json")
        }
    }

    @Test("links and assets are below the path that the dashboard is mounted at")
    func mounted() async throws {
        try await Bench().application(at: "tools/hoist").test(.live) { client async throws -> Void in
            let page = text(try await client.execute(uri: "/tools/hoist/jobs", method: .get))
            #expect(page.contains("href=\"/tools/hoist/queues\"") && page.contains("/tools/hoist/assets/hoist.css"))
            #expect(!page.contains("href=\"/jobs") && !page.contains("href=\"/assets"))
            for name in Assets.all.keys {
                let file = try await client.execute(uri: "/tools/hoist/assets/\(name)", method: .get)
                #expect(file.status == .ok && file.body.readableBytes > 100, "\(name)")
            }
            #expect(
                try await client.execute(uri: "/tools/hoist/assets/..%2FPackage.swift", method: .get).status
                    == .notFound)
        }
    }

    @Test("of several backends each is shown apart")
    func backends() async throws {
        let bench = try Bench(backends: 2)
        try await bench.jobs.enqueue(named: "mail.send", options: [.queue("mail")])
        try await bench.application().test(.live) { client async throws -> Void in
            let running = Task { try await bench.dashboard.run() }
            let isShown = try await eventually {
                text(try await client.execute(uri: "/queues?backend=prod", method: .get)).contains(
                    "/queues/mail?backend=prod")
            }
            #expect(isShown)
            let other = text(try await client.execute(uri: "/queues?backend=other1", method: .get))
            #expect(!other.contains("/queues/mail"))
            #expect(try await client.execute(uri: "/queues?backend=none", method: .get).status == .notFound)
            running.cancel()
            _ = await running.result
        }
    }

    // MARK: - What comes from outside

    private static let hostileWords = [
        "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "{{title}}{{{html}}}", "'; DROP TABLE job; --",
        "../../etc/passwd", "\u{202E}reversed", "\u{1B}[31mred", "\r\nSet-Cookie: a=b", "javascript:alert(1)",
        "%3Cscript%3E", "a\u{0}b", "</script><svg onload=alert(1)>", "😀 ünï", String(repeating: "x", count: 2000),
        // Each mark makes one character of itself and what is special to HTML.
        "\u{600}<form action=x><img>", "\"\u{301} onload=alert(1) x=\"\u{301}", "&\u{301}lt;", "<\u{301}script>alert",
    ]

    @Test("whatever a job is called, and says, is shown as text and nothing else", arguments: hostileWords)
    func hostile(word: String) async throws {
        let bench = try Bench()
        let value = WireValue.string(word)
        let id = String(word.prefix(300))
        let members: WireValue.Object = [
            "name": value, "queue": value, "args": value, "kwargs": value, "root_id": value, "parent_id": value,
        ]
        bench.tell("task-received", id, members)
        bench.tell("task-started", id)
        bench.tell("task-failed", id, ["exception": value, "traceback": value])
        let worker: WireValue.Object = ["hostname": value, "sw_ver": value, "sw_sys": value]
        bench.beat(worker)
        try await bench.jobs.enqueue(named: "job", options: [.queue("queue")])
        try await bench.application().test(.live) { client async throws -> Void in
            try await collecting(bench) {
                let all =
                    Self.paths + [
                        "/jobs/" + Links.encode(id), "/queues/" + Links.encode(word), "/workers/" + Links.encode(word),
                        "/jobs?q=" + Links.encode(word), "/?range=" + Links.encode(word),
                        "/jobs?before=" + Links.encode(word),
                    ]
                for path in all {
                    let response = try await client.execute(uri: path, method: .get)
                    #expect(
                        response.status != .internalServerError && response.status != .serviceUnavailable, "\(path)")
                    let page = text(response)
                    for forbidden in [
                        "<script>alert", "<img", "onerror=alert(1)>", "<svg onload", "<form action=x",
                        "\"\u{301} onload",
                        "<\u{301}script",
                    ] {
                        #expect(page.range(of: forbidden, options: .literal) == nil, "\(forbidden) on \(path)")
                    }
                    #expect(!page.contains("href=\"javascript:"), "\(path)")
                }
            }
        }
    }

    @Test("only pictures of our own and whole parts of pages are not escaped")
    func unescaped() throws {
        var found: Set<String> = []
        for (name, bytes) in PageRenderer.templates {
            let template = String(decoding: bytes, as: UTF8.self)
            for match in template.matches(of: /\{\{\{\s*([^}]*?)\s*\}\}\}|\{\{&\s*([^}]*?)\s*\}\}/) {
                found.insert("\(name) \(match.1 ?? match.2 ?? "")")
            }
        }
        #expect(found == ["page html", "charts svg", "queues spark", "names spark", "job lifeLine"])
    }

    @Test("no page has a style, a script or a handler within it")
    func policy() async throws {
        let bench = try Bench()
        bench.beat()
        try await bench.application().test(.live) { client async throws -> Void in
            for path in Self.paths {
                let response = try await client.execute(uri: path, method: .get)
                let page = text(response)
                #expect(page.firstMatch(of: /\sstyle=|<style|<script>|\son[a-z]+=/) == nil, "\(path)")
                let policy = try #require(HTTPField.Name("Content-Security-Policy"))
                #expect(response.headers[policy]?.contains("default-src 'none'") == true)
                #expect(response.headers[.cacheControl] == "no-store")
            }
        }
    }

    // MARK: - Acting

    @Test("what is done to jobs and queues happens, is told, and stands in the audit log")
    func acting() async throws {
        let bench = try Bench()
        let site = try #require(HTTPField.Name("Sec-Fetch-Site"))
        let waiting = try await bench.jobs.enqueue(named: "mail.send", options: [.queue("mail")])
        let later = try await bench.jobs.enqueue(named: "mail.send", options: [.queue("mail"), .after(.seconds(600))])
        try await bench.application().test(.live) { client async throws -> Void in
            func act(_ uri: String, _ form: String) async throws -> TestResponse {
                try await client.execute(
                    uri: uri, method: .post, headers: [site: "same-origin"], body: ByteBuffer(string: form))
            }
            let cancelled = try await act("/jobs/\(waiting.id)", "action=cancel")
            #expect(cancelled.status == .seeOther && cancelled.headers[.location] == "/jobs/\(waiting.id)?done=cancel")
            #expect(try await waiting.state() == .cancelled)
            let page = text(try await client.execute(uri: "/jobs/\(waiting.id)?done=cancel", method: .get))
            #expect(page.contains("was asked to stop") && page.contains("cancelled"))
            #expect(try await act("/jobs/\(waiting.id)", "action=cancel").status == .conflict)
            #expect(try await act("/jobs/\(later.id)", "action=run-now").status == .seeOther)
            #expect(try await later.state() == .waiting)
            #expect(try await act("/jobs/\(waiting.id)", "action=retry").status == .seeOther)
            #expect(try await waiting.state() == .waiting)
            #expect(try await act("/jobs/\(later.id)", "action=drop").status == .conflict)
            #expect(try await act("/queues/mail", "action=pause").status == .seeOther)
            #expect(try await bench.backend.pausedQueues() == ["mail"])
            #expect(try await act("/queues/mail", "action=resume").status == .seeOther)
            #expect(try await bench.backend.pausedQueues().isEmpty)
            #expect(try await act("/queues/mail", "action=purge").status == .seeOther)
            #expect(try await later.state() == nil)
            #expect(try await act("/queues/mail", "action=cancel").status == .conflict)
            #expect(try await act("/workers/none", "action=grow").status == .conflict)
            #expect(try await act("/queues/mail", "action=%zz").status == .badRequest)
            let audit = try await bench.dashboard.store.audit(limit: 100)
            #expect(audit.count == 10 && audit.last?.action == "cancel" && audit.last?.result == "cancelled")
            #expect(audit.count { $0.result.hasPrefix("refused") } == 4)
            let log = text(try await client.execute(uri: "/audit", method: .get))
            #expect(log.contains("purge") && log.contains("queue mail"))
        }
    }

    @Test("the API tells what pages show, and refuses what is out of range")
    func api() async throws {
        let bench = try Bench()
        bench.beat()
        for number in 0..<5 {
            bench.tell("task-received", "\(number)", ["name": "mail.send", "queue": "mail"])
            bench.tell("task-succeeded", "\(number)", ["runtime": 0.25, "result": "'ok'"])
        }
        try await bench.application().test(.live) { client async throws -> Void in
            func get(_ uri: String) async throws -> WireValue {
                try JSONText.parse(Array(try await client.execute(uri: uri, method: .get).body.readableBytesView))
            }
            try await collecting(bench) {
                let page = try await get("/api/v1/jobs?limit=2")
                #expect(page["jobs"]?.arrayValue?.count == 2 && page["next"]?.integerValue != nil)
                let job = try await get("/api/v1/jobs/3")
                #expect(job["state"] == "succeeded" && job["run_time"] == 0.25 && job["worker"] == "w@h")
                #expect(job["attempts"]?.arrayValue?.count == 1)
                #expect(try await get("/api/v1/workers")["workers"]?.arrayValue?.first?["name"] == "w@h")
                #expect(try await get("/api/v1/queues")["queues"] == [])
                for uri in [
                    "/api/v1/jobs?limit=0", "/api/v1/jobs?limit=201", "/api/v1/jobs?limit=x", "/api/v1/jobs?before=-1",
                ] {
                    #expect(try await client.execute(uri: uri, method: .get).status == .badRequest, "\(uri)")
                }
                #expect(try await client.execute(uri: "/api/v1/jobs/none", method: .get).status == .notFound)
                #expect(try await client.execute(uri: "/live", method: .get).status == .ok)
                #expect(try await client.execute(uri: "/ready", method: .get).status == .ok)
            }
        }
    }

    /// What `/metrics` tells once the queues have been read.
    private func metrics(_ client: some TestClientProtocol) async throws -> String {
        let isRead = try await eventually {
            text(try await client.execute(uri: "/metrics", method: .get)).contains("hoist_queue_waiting_jobs")
        }
        #expect(isRead)
        return text(try await client.execute(uri: "/metrics", method: .get))
    }

    @Test("metrics are what Prometheus reads, whatever workers and jobs are called")
    func metrics() async throws {
        let bench = try Bench()
        bench.beat(["active": 3])
        for name in ["mail.send", "a\"b\\c\nd", "😀"] {
            bench.tell("task-received", name, ["name": .string(name), "queue": "mail"])
            bench.tell("task-started", name)
            bench.tell("task-succeeded", name, ["runtime": 0.25])
        }
        bench.tell("task-received", "waits", ["name": "mail.send"])
        try await bench.jobs.enqueue(named: "mail.send", options: [.queue("mail")])
        try await bench.application().test(.live) { client async throws -> Void in
            try await collecting(bench) {
                let metrics = try await self.metrics(client)
                for line in [
                    #"hoist_jobs_total{backend="prod",name="mail.send",outcome="succeeded"} 1"#,
                    #"hoist_jobs_total{backend="prod",name="a\"b\\c\nd",outcome="succeeded"} 1"#,
                    #"hoist_queue_waiting_jobs{backend="prod",queue="mail"} 1"#,
                    #"hoist_queue_wanted_slots{backend="prod",queue="mail"} 1"#,
                    #"hoist_worker_up{backend="prod",worker="w@h"} 1"#,
                    #"flower_events_total{task="mail.send",type="task-succeeded",worker="w@h"} 1"#,
                    #"flower_task_runtime_seconds_bucket{task="mail.send",worker="w@h",le="0.25"} 1"#,
                    #"flower_task_runtime_seconds_bucket{task="mail.send",worker="w@h",le="0.1"} 0"#,
                    #"flower_task_runtime_seconds_sum{task="mail.send",worker="w@h"} 0.25"#,
                    #"flower_worker_prefetched_tasks{task="mail.send",worker="w@h"} 1"#,
                    #"flower_worker_online{worker="w@h"} 1"#,
                    #"flower_worker_number_of_currently_executing_tasks{worker="w@h"} 3"#,
                ] {
                    #expect(metrics.contains(line + "\n"), "\(line)")
                }
                let file = try TemporaryFolder()
                try metrics.write(toFile: file.path("m"), atomically: true, encoding: .utf8)
                let check = try await BuiltProgram.output(
                    of: "/bin/sh", ["-c", "promtool check metrics < \(file.path("m")) 2>&1"])
                // It would have flower_* gauges of another kind; what is wrong is an error.
                #expect(!check.text.contains("error") && check.status != 127, "\(check.text)")
            }
        }
    }

    @Test("numbers of any size from workers are shown as something")
    func numbers() async throws {
        let bench = try Bench()
        let numbers: [WireValue] = [
            .integer(.max), .integer(.min), .integer(-1), .double(1e300), .double(-1e300), .double(.nan),
            .double(.infinity), .string("x"), .null, [],
        ]
        for (index, number) in numbers.enumerated() {
            let id = "n\(index)"
            let totals: WireValue = ["mail.send": ["succeeded": number, "failed": number]]
            let lanes: WireValue = ["async": ["slots": number, "used": number]]
            let hoist: WireValue = [
                "totals": totals, "lanes": lanes, "queues": ["mail"], "memory": number, "events_dropped": number,
            ]
            let members: WireValue.Object = [
                "hostname": .string("w\(index % 3)@h"), "active": number, "processed": number, "freq": number,
                "loadavg": [number, number], "hoist": hoist,
            ]
            for _ in 0..<3 { bench.beat(members) }
            for type in ["task-received", "task-started", "task-retried", "task-failed"] {
                bench.tell(
                    type, id,
                    [
                        "name": "mail.send", "queue": "mail", "retries": number, "runtime": number, "eta": number,
                        "expires": number, "timestamp": number, "clock": number,
                    ])
            }
        }
        try await bench.jobs.enqueue(named: "mail.send", options: [.queue("mail")])
        try await bench.application().test(.live) { client async throws -> Void in
            try await collecting(bench) {
                let areKept = try await eventually {
                    try await bench.dashboard.store.count(
                        JobPageQuery(backend: bench.collector.number), at: Date()) == numbers.count
                }
                #expect(areKept)
                for path in Self.paths + numbers.indices.map({ "/jobs/n\($0)" }) + ["/workers/w0@h", "/metrics"] {
                    let status = try await client.execute(uri: path, method: .get).status
                    #expect(status == .ok || path == "/workers/w@h", "\(path) \(status)")
                }
            }
        }
    }

    @Test("another site may lead here, and may not ask in the background")
    func crossSiteReading() async throws {
        let (site, mode) = (HTTPField.Name("Sec-Fetch-Site"), HTTPField.Name("Sec-Fetch-Mode"))
        try await Bench().application().test(.live) { client async throws -> Void in
            for (fetch, expected) in [
                ("navigate", HTTPResponse.Status.ok), ("no-cors", .forbidden), ("cors", .forbidden),
            ] {
                let headers: HTTPFields = [try #require(site): "cross-site", try #require(mode): fetch]
                let status = try await client.execute(uri: "/jobs?q=a", method: .get, headers: headers).status
                #expect(status == expected, "\(fetch)")
            }
        }
    }

    @Test("a live stream tells what is new on each of its pages")
    func stream() async throws {
        let bench = try Bench()
        try await bench.application().test(.live) { client async throws -> Void in
            let port = try #require(client.port)
            let address = "http://127.0.0.1:\(port)/stream?of=%2Fjobs&of=%2Fworkers"
            try await collecting(bench, unless: true) {
                bench.beat()
                bench.tell("task-received", "1", ["name": "mail.send", "queue": "mail"])
                let told = try await BuiltProgram.output(of: "/usr/bin/curl", ["-s", "-N", "-m", "3", address]).text
                #expect(told.contains("event: fragment") && told.contains("mail.send") && told.contains("w@h"))
                #expect(told.contains(#""page":"\/jobs""#) || told.contains(#""page":"/jobs""#))
                for of in [
                    "", "?of=x", "?of=/none", "?" + Array(repeating: "of=/jobs", count: 13).joined(separator: "&"),
                ] {
                    let status = try await client.execute(uri: "/stream" + of, method: .get).status
                    #expect(status == .badRequest || status == .notFound, "\(of)")
                }
            }
        }
    }

    @Test("the alert rules and the board that are shipped ask for metrics that there are")
    func shipped() async throws {
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("docs/prometheus")
        let rules = folder.appendingPathComponent("hoist-alerts.yml")
        let check = try await BuiltProgram.output(of: "/bin/sh", ["-c", "promtool check rules \(rules.path) 2>&1"])
        #expect(check.status == 0 && check.text.contains("6 rules found"), "\(check.text)")
        let board = try String(contentsOf: folder.appendingPathComponent("hoist-board.json"), encoding: .utf8)
        #expect(throws: Never.self) { try JSONText.parse(Array(board.utf8)) }

        let bench = try Bench()
        bench.beat(["hoist": ["lanes": ["async": ["slots": 2, "used": 1]], "memory": 1]])
        bench.tell("task-received", "1", ["name": "mail.send", "queue": "mail"])
        bench.tell("task-failed", "1", ["runtime": 0.25])
        try await bench.jobs.enqueue(named: "mail.send", options: [.queue("mail")])
        try await bench.application().test(.live) { client async throws -> Void in
            try await collecting(bench) {
                let metrics = try await self.metrics(client)
                let asked = (try String(contentsOf: rules, encoding: .utf8) + board)
                    .matches(of: /(hoist|flower)_[a-z_]+/).map { String($0.0) }
                #expect(Set(asked).count > 10)
                for name in Set(asked) {
                    let family = name.hasSuffix("_bucket") ? String(name.dropLast(7)) : name
                    #expect(metrics.contains("# TYPE \(family) "), "\(name)")
                }
            }
        }
    }
}
