import Foundation
import Hoist
import HoistRabbitMQ
import HoistRedis
import HoistSQLite
import HoistTesting
import Logging
import TestServers
import Testing

/// VideoService as its users run it: processes, HTTP, real video.
@Suite(
    "VideoService", .serialized, .timeLimit(.minutes(3)),
    .enabled(if: ServiceBench.hasFFmpeg, "ffmpeg is not installed"))
struct VideoServiceTests {
    @Test(
        "an upload is answered at once and becomes a video, a poster and a contact sheet; a killed worker is replaced")
    func wholeWay() async throws {
        let bench = try ServiceBench()
        try await bench.startServer()
        let worker = try bench.start(["worker", "--backend", bench.backendURL, "--data", bench.path("videos")])
        let video = try bench.makeVideo(seconds: 8)
        let answer = try await bench.http("POST", "/upload", file: video)
        #expect(answer.status == 202)
        let id = try #require(answer.json["id"]?.stringValue)
        #expect(answer.json["job"]?.stringValue == "/jobs/\(id)")

        // Kill the worker in mid-transcode; another one finishes.
        #expect(
            try await eventually(.seconds(30)) {
                try await bench.job(id)["progress"]?["fraction"]?.doubleValue ?? 0 > 0.05
            })
        kill(worker.processIdentifier, SIGKILL)
        _ = try bench.start(["worker", "--backend", bench.backendURL, "--data", bench.path("videos")])
        #expect(try await eventually(.seconds(90)) { try await bench.job(id)["state"] == "succeeded" })
        let record = try await bench.job(id)
        #expect(record["lost_workers"] == 1)
        #expect(record["output"]?["width"] == 640)

        let base = "/videos/\(try #require(answer.json["video_id"]?.stringValue))/"
        for (name, type) in [("video.mp4", "video/mp4"), ("poster.jpg", "image/jpeg"), ("contact.jpg", "image/jpeg")] {
            let file = try await bench.http("GET", base + name)
            #expect(file.status == 200 && file.headers["content-type"] == type && file.body.count > 1000, "\(name)")
        }
        let part = try await bench.http("GET", base + "video.mp4", headers: ["Range": "bytes=0-9"])
        #expect(part.status == 206 && part.body.count == 10)
        let left = try FileManager.default.contentsOfDirectory(
            atPath: bench.path("videos") + base.dropFirst("/videos".count))
        #expect(Set(left) == ["input", "video.mp4", "poster.jpg", "contact.jpg"], "no partial file is left")
        let page = try await bench.http("GET", "/")
        #expect(page.status == 200 && String(decoding: page.body, as: UTF8.self).contains("VideoService"))
    }

    @Test(
        "on RabbitMQ, with results in Redis, by two options alone: an upload becomes a video though its worker is killed"
    )
    func rabbitMQ() async throws {
        let (rabbit, redis) = (try await RabbitServer.started(), try RedisServer())
        defer { redis.stop() }
        let bench = try ServiceBench()
        let places = ["--backend", rabbit.url(), "--results", redis.url]
        try await bench.startServer(places: places)
        let worker = try bench.start(["worker", "--data", bench.path("videos")] + places)
        let answer = try await bench.http("POST", "/upload", file: try bench.makeVideo(seconds: 8))
        #expect(answer.status == 202)
        let id = try #require(answer.json["id"]?.stringValue)
        let hasBegun = try await eventually {
            try await bench.job(id)["progress"]?["fraction"]?.doubleValue ?? 0 > 0.05
        }
        #expect(hasBegun)
        kill(worker.processIdentifier, SIGKILL)
        _ = try bench.start(["worker", "--data", bench.path("videos")] + places)
        let isDone = try await eventually(.seconds(90)) { try await bench.job(id)["state"] == "succeeded" }
        #expect(isDone)
        #expect(try await bench.job(id)["lost_workers"] == 1)
        let base = "/videos/\(try #require(answer.json["video_id"]?.stringValue))/"
        #expect(try await bench.http("GET", base + "video.mp4").status == 200)
    }

    @Test("what is no video is refused, and nothing is kept of it")
    func noVideo() async throws {
        let bench = try ServiceBench()
        try await bench.startServer()
        let text = bench.path("text")
        try String(repeating: "hello ", count: 1000).write(toFile: text, atomically: true, encoding: .utf8)
        #expect(try await bench.http("POST", "/upload", file: text).status == 415)
        #expect(try FileManager.default.contentsOfDirectory(atPath: bench.path("videos")).isEmpty)
        #expect(try await bench.http("GET", "/videos/..%2f..%2fjobs.db/video.mp4").status == 404)
    }

    @Test("a cancelled job stops ffmpeg and leaves no partial file")
    func cancel() async throws {
        let bench = try ServiceBench()
        try await bench.startServer()
        _ = try bench.start(["worker", "--backend", bench.backendURL, "--data", bench.path("videos")])
        let answer = try await bench.http("POST", "/upload", file: try bench.makeVideo(seconds: 30))
        let id = try #require(answer.json["id"]?.stringValue)
        #expect(
            try await eventually(.seconds(30)) {
                try await bench.job(id)["progress"]?["fraction"]?.doubleValue ?? 0 > 0.01
            })
        #expect(try await bench.http("DELETE", "/jobs/\(id)").status == 202)
        #expect(try await eventually(.seconds(30)) { try await bench.job(id)["state"] == "cancelled" })
        let folder = bench.path("videos/" + (answer.json["video_id"]?.stringValue ?? ""))
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["input"])
        #expect(bench.processes(naming: folder).isEmpty, "no ffmpeg is left")
    }

    @Test(
        "a crash of ffmpeg, and one of the handler's own process, cost an attempt each, and the worker goes on",
        arguments: ["ffmpeg", "handler"])
    func crash(of victim: String) async throws {
        let bench = try ServiceBench()
        try await bench.startServer()
        let worker = try bench.start(["worker", "--backend", bench.backendURL, "--data", bench.path("videos")])
        let answer = try await bench.http("POST", "/upload", file: try bench.makeVideo(seconds: 8))
        let id = try #require(answer.json["id"]?.stringValue)
        #expect(
            try await eventually(.seconds(30)) {
                try await bench.job(id)["progress"]?["fraction"]?.doubleValue ?? 0 > 0.05
            })
        let tools = bench.processes(naming: bench.path("videos/" + (answer.json["video_id"]?.stringValue ?? "")))
        let children = bench.processes(naming: bench.backendURL + "\0--data").filter { $0 != worker.processIdentifier }
            .filter {
                (try? String(contentsOfFile: "/proc/\($0)/stat", encoding: .utf8))?.contains(
                    ") S \(worker.processIdentifier) ") ?? false
            }
        #expect(tools.count == 1 && children.count == 1)
        kill(try #require(victim == "ffmpeg" ? tools.first : children.first), SIGSEGV)
        #expect(try await eventually(.seconds(90)) { try await bench.job(id)["state"] == "succeeded" })
        // What the service shows to everybody says nothing of the attempts before.
        #expect(try await bench.job(id)["history"] == nil)
        let text = try bench.run("hoist", ["job", id, "--json", "--backend", bench.backendURL], status: 0)
        let record = try JSONText.parse(Array(text.utf8))
        let first = try #require(record["history"]?.arrayValue?.first)
        #expect(record["attempts"] == 2 && worker.isRunning)
        if victim == "ffmpeg" {
            #expect(first["failure"]?["kind"] == "raised" && record["lost_workers"] == 0)
        } else {
            #expect(
                first["failure"]?["kind"] == "crashed" && first["failure"]?["crash"]?["signal"] == 11
                    && record["lost_workers"] == 1)
            #expect(record["usage"]?["cpu_seconds"]?.doubleValue ?? 0 > 0.1, "ffmpeg's time is the job's")
        }
        #expect(tools.allSatisfy { kill($0, 0) != 0 })
    }
}

@Suite("The upkeep command", .timeLimit(.minutes(3)))
struct UpkeepCommandTests {
    @Test("it ends what was not started in time though no worker runs, and leaves on SIGTERM")
    func expiry() async throws {
        let bench = try ServiceBench()
        let backend = try SQLiteBackend(url: bench.backendURL)
        var headers = MessageHeaders(task: "nobody", id: "late")
        headers.expires = Date() + 0.05
        _ = try await backend.publish([
            Message(
                headers: headers, properties: MessageProperties(routingKey: "q", deliveryTag: "late"),
                body: Array("[[],{},{}]".utf8))
        ])
        try await Task.sleep(for: .milliseconds(60))
        let upkeep = try bench.start(["upkeep", "--backend", bench.backendURL])
        #expect(try await eventually(.seconds(30)) { try await backend.record(of: "late")?.endedAt != nil })
        #expect(try await backend.record(of: "late")?.state == .expired)
        upkeep.terminate()
        #expect(try await eventually(.seconds(30)) { !upkeep.isRunning })
        #expect(upkeep.terminationStatus == 0)
        #expect(try await backend.workers().isEmpty)
    }
}

@Suite("The hoist tool", .timeLimit(.minutes(3)))
struct HoistToolTests {
    @Test("every command does its work, as text and as JSON")
    func commands() async throws {
        let bench = try ServiceBench()
        func hoist(_ arguments: String..., status: Int32 = 0) throws -> String {
            try bench.run("hoist", arguments + ["--backend", bench.backendURL], status: status)
        }
        // It makes no database by looking.
        for command in [["status"], ["job", "m1"], ["enqueue", "mail.send"]] {
            _ = try bench.run("hoist", command + ["--backend", bench.backendURL], status: 1)
        }
        #expect(!FileManager.default.fileExists(atPath: bench.path("jobs.db")))
        _ = try SQLiteBackend(url: bench.backendURL)
        let id = try hoist("enqueue", "mail.send", "--kwargs", #"{"to": "ada"}"#, "--queue", "mail", "--id", "m1")
        #expect(id == "m1\n")
        #expect(try hoist("enqueue", "mail.send", "--id", "m1") == "m1 (was there already)\n")
        #expect(try hoist("queues").contains("mail"))
        #expect(try hoist("status").contains("no workers"))
        #expect(try hoist("jobs", "--text", "ada").contains("m1"))
        #expect(try hoist("jobs", "--state", "failed") == "no jobs\n")
        #expect(try hoist("job", "m1").contains("no worker is running"))
        #expect(try JSONText.parse(Array(try hoist("job", "m1", "--json").utf8))["name"] == "mail.send")
        #expect(try hoist("cancel", "m1") == "cancelled\n")
        #expect(try hoist("workers", "--check", status: 1) == "no workers\n")
        _ = try hoist("job", "nobody", status: 1)
        _ = try hoist("enqueue", "x", "--kwargs", "[1]", status: 64)
        _ = try hoist("dead", "drop", status: 64)

        // The log of a job, in the order of writing.
        try await bench.makeWritingJob("w1", on: try SQLiteBackend(url: bench.backendURL))
        let log = try hoist("log", "w1")
        #expect(
            log.split(separator: "\n").count == 2 && log.contains("info  first step=1")
                && log.hasSuffix("warning  second\n"))
        #expect(try hoist("log", "w1", "--follow") == log)
        #expect(try JSONText.parse(Array(try hoist("log", "w1", "--json").utf8))["lines"]?.arrayValue?.count == 2)
        #expect(try hoist("log", "m1") == "")
        _ = try hoist("log", "nobody", status: 1)

        // A dead letter: listed, requeued with other arguments, dropped.
        let backend = try SQLiteBackend(url: bench.backendURL)
        try await bench.makeDeadLetter("d1", on: backend)
        #expect(try hoist("dead", "list").contains("d1"))
        #expect(try hoist("dead", "requeue", "d1", "--kwargs", #"{"to": "bob"}"#) == "1 requeued\n")
        #expect(try hoist("job", "d1").contains("bob"))
        try await bench.makeDeadLetter("d2", on: backend)
        #expect(try hoist("dead", "drop", "--all", "--json") == "{\"dropped\":1}\n")
        _ = try hoist("enqueue", "mail.doomed", "--queue", "dead")
        #expect(try hoist("purge", "dead", "--force") == "1 purged\n")
        #expect(try bench.run("hoist", ["status", "--backend", "ftp://x"], status: 1) == "")
    }

    @Test("on RabbitMQ jobs are enqueued, counted, given up, requeued and purged, and what it cannot do is refused")
    func rabbitMQ() async throws {
        let (rabbit, redis) = (try await RabbitServer.started(), try RedisServer())
        defer { redis.stop() }
        let bench = try ServiceBench()
        func hoist(_ arguments: String..., status: Int32 = 0) throws -> String {
            try bench.run(
                "hoist", arguments + ["--backend", rabbit.url(), "--results", redis.url], status: status)
        }
        // The queue of a worker is found by asking it, and so is that of a dead letter.
        let backend = Backend(try RabbitMQBackend(url: rabbit.url()), results: try RedisBackend(url: redis.url))
        let worker = Worker(
            backend, queues: ["mail"], logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        ) {
            Handler(named: "mail.send", options: JobOptions(retry: .none)) { _, _ in throw CancellationError() }
        }
        try await withWorker(worker) {
            let id = try hoist("enqueue", "mail.send", "--kwargs", #"{"to": "ada"}"#, "--queue", "mail", "--id", "m1")
            #expect(id == "m1\n")
            let isDead = try await eventually { try hoist("dead", "list").contains("m1") }
            #expect(isDead)
            let status = try hoist("status")
            #expect(status.contains("mail"), "\(status)")
            let dropped = try hoist("dead", "drop", "--all", "--json")
            #expect(dropped == "{\"dropped\":1}\n")
        }
        #expect(try hoist("purge", "mail", "--force") == "0 purged\n")
        _ = try hoist("pause", "mail", status: 1)
        _ = try bench.run("hoist", ["queues", "--backend", "amqp://127.0.0.1:1"], status: 69)
        _ = try bench.run("hoist", ["status", "--backend", rabbit.url(), "--results", rabbit.url()], status: 1)
    }

    @Test("queues are paused and limits set on Redis, and limits on SQLite")
    func control() throws {
        let server = try RedisServer()
        defer { server.stop() }
        let bench = try ServiceBench()
        func hoist(_ arguments: String..., status: Int32 = 0) throws -> String {
            try bench.run("hoist", arguments + ["--backend", server.url], status: status)
        }
        #expect(try hoist("pause", "mail") == "mail is paused\n")
        #expect(try hoist("resume", "mail") == "mail is resumed\n")
        #expect(try hoist("limits") == "no limits\n")
        #expect(
            try hoist("limit", "queue:mail", "--rate", "100/min", "--running", "4")
                == "queue mail: 100/min; 4 running\n")
        let kind = try hoist("limit", "job:mail.send", "--running", "1", "--each", "partition", "--full", "drop")
        #expect(kind == "job mail.send: 1 running each partition, new ones dropped\n")
        #expect(try hoist("limits").contains("queue mail     4 running"))
        #expect(try JSONText.parse(Array(try hoist("limits", "--json").utf8)).arrayValue?.count == 2)
        #expect(try hoist("limit", "job:mail.send", "--none") == "job mail.send: no limits\n")
        #expect(try hoist("limit", "queue:mail", "--as-declared") == "queue mail: no limits\n")
        #expect(try hoist("limit", "queue:mail", "--waiting", "1") == "queue mail: no limits\n")
        _ = try hoist("enqueue", "mail.send", "--queue", "mail")
        _ = try hoist("enqueue", "mail.send", "--queue", "mail", status: 1)
        _ = try hoist("limit", "queue:mail", "--waiting", "none")
        _ = try hoist("enqueue", "mail.send", "--queue", "mail")
        for wrong in [
            ["mail"], ["queue:mail"], ["queue:mail", "--rate", "100"], ["job:x", "--waiting", "3"],
            ["job:x", "--running", "0"],
        ] {
            _ = try bench.run("hoist", ["limit"] + wrong + ["--backend", server.url], status: 64)
        }
        _ = try SQLiteBackend(url: bench.backendURL)
        _ = try bench.run("hoist", ["limit", "queue:mail", "--running", "4", "--backend", bench.backendURL], status: 0)
        let limits = try bench.run("hoist", ["limits", "--backend", bench.backendURL], status: 0)
        #expect(limits.contains("queue mail") && limits.contains("4 running"), "\(limits)")
    }
}
