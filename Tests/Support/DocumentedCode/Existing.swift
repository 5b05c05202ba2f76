import AMQP
import Foundation
import Hoist
import HoistDashboard
import HoistRabbitMQ
import HoistRedis
import HoistSealing
import Hummingbird
import Logging
import RESP
import Timetables

// What the pages take as given.

private let backend: Backend = MemoryBackend().backend
private let logger = Logger(label: "snippets")
private let jobs = JobClient(backend, logger: logger)
private let caches = Caches()

private struct Caches: Sendable {
    func flush(_ seconds: Int) async throws -> Int { seconds }
}

/// The code of the first page of each module, and of the articles about single subjects.
enum ExistingSnippets {
    /// AMQP.
    static func rabbitClient() async throws {
        let client = try AMQPClient(AMQPConfiguration(url: "amqp://guest:guest@localhost"))
        let channel = try await client.connection().openChannel()
        try await channel.declare(queue: "letters")
        try await channel.confirmPublishes()
        let letter = AMQPMessage(body: Array("hello".utf8))
        try await channel.publish([.init(letter, routingKey: "letters", isMandatory: true)])
        if let (delivery, _) = try await channel.get("letters") { channel.acknowledge(delivery.tag) }
    }

    /// RESP.
    static func redisClient() async throws {
        let client = try RESPClient(RESPConfiguration(url: "redis://localhost:6379/0"))
        try await client.send(RESPCommand("SET", ["greeting", "hello"]))
        let value = try await client.send(RESPCommand("GET", ["greeting"])).text
        _ = value
    }

    /// Timetables.
    static func timetables() throws {
        let nightly = Timetable.cron("30 2 * * *", in: "Europe/Berlin")
        let next = try nightly.next(after: .now)
        let nextTwenty = try nightly.next(20, after: .now)
        let previous = try nightly.previous(before: .now)
        print(try nightly.words(after: .now))
        // at 02:30 every day, Europe/Berlin; on 28 March 2027 at 03:00, for 02:30 does not exist
        _ = (next, nextTwenty, previous)

        let timetables: [Timetable] = [
            .every(.seconds(30)),
            .when(hour: [9, 12, 18], minute: 12),
            .sun(.sunset, latitude: 52.5, longitude: 13.4),
            .rrule("DTSTART;TZID=Europe/Berlin:20260101T090000\nRRULE:FREQ=MONTHLY;BYDAY=-1FR"),
            .cron("0 9 * * MON-FRI", in: "Europe/Berlin").excluding("holidays-de", instead: .nextDay),
        ]
        _ = timetables
    }

    /// HoistDashboard.
    static func dashboard() async throws {
        let router = Router(context: DashboardRequestContext.self)
        let dashboard = try Dashboard([.init("prod", backend)], store: .file("hoist-history.db"), logger: logger)
        dashboard.add(to: router.group("hoist"))
        let application = Application(router: router, services: [dashboard])
        try await application.runService()
    }

    /// HoistRabbitMQ.
    static func rabbitBackend(_ url: String) throws {
        let broker = try RabbitMQBackend(url: "amqp://user:password@mq/shop")
        let backend = Backend(broker, results: try RedisBackend(url: "redis://cache/0"))
        let jobs = JobClient(backend, logger: logger)
        _ = jobs
    }

    static func rabbitQueues(_ url: String) throws {
        let queues = ["mail": QueueSettings(priorities: 10), "ledger": QueueSettings(.quorum)]
        let broker = try RabbitMQBackend(url: url, configuration: .init(queues: queues))
        _ = broker
    }

    /// HoistRedis.
    static func redisBackend() throws {
        let backend = try RedisBackend(url: "redis://localhost:6379/0")
        let jobs = JobClient(backend, logger: logger)
        _ = jobs
    }
}

/// The code of the pages about videos.
enum ExistingVideoSnippets {
    struct VideoReport: Codable, Sendable {}

    struct ProcessVideo: Job {
        static let name = "tasks.process_video_heavy"
        var videoID: String
        typealias Output = VideoReport
    }

    struct SendMail: Job {
        static let name = "mail.send"
        var to: String
    }

    struct FlushCache: Codable, Sendable {
        var older: Int
    }

    static func transcode(_ job: ProcessVideo, _ context: JobContext) async throws -> VideoReport { VideoReport() }
    static func process(_ job: ProcessVideo) async throws -> VideoReport { VideoReport() }
    static func send(_ mail: SendMail) async throws {}
    static func page(_ text: String) {}

    /// Hoist.
    static func first() async throws {
        struct ProcessVideo: Job {
            static let name = "tasks.process_video_heavy"
            static let options = JobOptions(
                queue: "media", retry: .exponential(maxAttempts: 5), timeLimit: .seconds(1800))
            var videoID: String
            typealias Output = VideoReport
        }

        let jobs = JobClient(backend, logger: logger)
        let handle = try await jobs.enqueue(ProcessVideo(videoID: "42"))
        let report = try await handle.output(timeout: .seconds(60))

        let worker = Worker(backend, queues: ["media"], lanes: [.async(64), .blocking(4)], logger: logger) {
            Handler(ProcessVideo.self) { job, context in
                try await context.report(progress: 0.4, "frame 1200 of 3000")
                return VideoReport()
            }
        }
        try await worker.runUntilSignalled()
        _ = report
    }

    /// Isolation.
    static func lanes() async throws {
        let worker = Worker(backend, queues: ["media"], lanes: [.async(64), .process(4)], logger: logger) {
            Handler(ProcessVideo.self, in: .process) { job, context in try await transcode(job, context) }
            Handler(SendMail.self) { mail, _ in try await send(mail) }
        }
        try await worker.run()
    }

    /// MonitoringAndControl.
    static func control() async throws {
        let flush = ControlCommand("flush_cache") { (request: FlushCache, worker: ControlledWorker) in
            ["flushed": try await caches.flush(request.older)]
        }
        let configuration = Worker.Configuration(name: "encoder-1", events: .whenAsked, commands: [flush])
        let worker = Worker(backend, queues: ["media"], configuration: configuration, logger: logger) {
            Handler(ProcessVideo.self) { job, context in try await transcode(job, context) }
        }

        let fleet = try Fleet(backend)
        for try await reply in fleet.ask(.stats) { print(reply.node, reply.value["uptime"] ?? .null) }
        try await fleet.revoke(["video-42"], terminate: .kill, on: .node("encoder-1@gpu-7"))
        for await event in fleet.events { if case .failed(let job) = event { page(job.name ?? job.id) } }
        try await worker.run()
    }

    /// HoistSealing.
    static func sealing(_ secret: String) async throws {
        let keys = try SealingKeys(.encrypted, current: SealingKey(id: "2027-01", base64: secret))
        let configuration = JobClient.Configuration(sealing: keys)
        let client = JobClient(backend, configuration: configuration, logger: logger)
        let worker = Worker(backend, configuration: .init(client: configuration), logger: logger) {
            Handler(ProcessVideo.self) { job, context in try await process(job) }
        }
        try await worker.run()
        _ = client
    }
}

/// The code of the article Schedules.
enum ExistingScheduleSnippets {
    struct Report: Job {
        static let name = "reports.make"
        var day: Date?
    }

    struct Poll: Job {
        static let name = "feeds.poll"
    }

    struct Sync: Job {
        static let name = "tenants.sync"
        var tenant: Int
    }

    static func write(_ report: Report, for tick: Tick?) async throws {}

    static func declaring() async throws {
        var configuration = Worker.Configuration()
        configuration.app = "shop"
        configuration.appRevision = 12

        let worker = Worker(backend, configuration: configuration, logger: logger) {
            Handler(Report.self) { report, context in try await write(report, for: context.schedule) }
        } schedules: {
            Schedule(
                "nightly", .cron("0 3 * * *", in: "Europe/Berlin"), Report(), .queue("reports"), overlap: .skip)
            Schedule("poll", .every(.seconds(30)), Poll(), jitter: .seconds(5))
            Schedule("by-date", .cron("@daily")) { tick in Report(day: tick.due) }
            Schedule("lights", .sun(.sunset, latitude: 52.5, longitude: 13.4), named: "shop.lights", queue: "py")
        }
        try await worker.run()
    }

    static func putting() async throws {
        try await jobs.schedules.put(Schedule("tenant-42", .cron("*/10 * * * *"), Sync(tenant: 42)))
        try await jobs.schedules.pause("tenant-42", note: "moving to another database")
        try await jobs.schedules.runNow("nightly")
    }
}

/// The code of the article Workflows.
enum ExistingWorkflowSnippets {
    struct Video: Codable, Sendable {}
    struct Piece: Codable, Sendable {}
    struct Report: Codable, Sendable {}

    struct Download: Job {
        static let name = "media.download"
        var url: String
        typealias Output = Video
    }
    struct Split: Job {
        static let name = "media.split"
        typealias Input = Video
        typealias Output = [Piece]
    }
    struct Transcode: Job {
        static let name = "media.transcode"
        var codec = "h264"
        typealias Input = Piece
        typealias Output = Piece
    }
    struct Join: Job {
        static let name = "media.join"
        typealias Input = [Piece]
        typealias Output = Report
    }

    struct Warn: Job {
        static let name = "media.warn"
        typealias Input = StepFailure
    }

    struct Transcribe: Job {
        static let name = "media.transcribe"
        typealias Input = Video
        typealias Output = String
    }

    struct CleanUp: Job {
        static let name = "media.clean_up"
    }

    struct Publish: Job {
        static let name = "media.publish"
        typealias Input = Joined<Report, StepOutcome<String>>
        typealias Output = String
    }

    static func composing(_ url: String) async throws {
        let flow = Download(url: url).then(Split()).then(forEach: Transcode(codec: "av1")).then(Join())
            .onFailure(Warn())
        let handle = try await jobs.enqueue(flow, .priority(9))
        let report = try await handle.output(timeout: .seconds(600))
        _ = report
    }

    static func graph(_ url: String) async throws {
        let flow = Graph { graph in
            let video = graph.add(Download(url: url))
            let report = graph.add(Split().then(forEach: Transcode()).then(Join()), on: video)
            let text = graph.add(Transcribe(), on: video)
            graph.add(CleanUp(), after: report, text, if: .ended)
            return graph.add(Publish(), on: report, text.outcome)
        }
        try await jobs.enqueue(flow)
    }

    static func canvas() async throws {
        let canvas = Signature.chord([.task("tasks.add", [1, 1]), .task("tasks.add", [2, 2])], .task("tasks.total"))
        let total = try await jobs.enqueue(canvas: canvas).job.output()
        _ = total
    }
}
