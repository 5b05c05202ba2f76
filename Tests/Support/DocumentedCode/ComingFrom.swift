import Hoist
import HoistHummingbird
import HoistRedis
import Hummingbird
import Logging

// The code of the articles ComingFromCelery, ComingFromSidekiq, ComingFromSwiftJobs and ComingFromInProcessTasks.

enum ComingFromCelerySnippets {
    struct Picture: Codable, Sendable {
        var path: String
        var width: Int
    }

    struct Render: Job {
        static let name = "images.render"
        static let options = JobOptions(queue: "swift", retry: .exponential(maxAttempts: 4), timeLimit: .seconds(300))
        static let defaultArguments: WireObject = ["size": 800]
        var prompt: String
        var size = 800
        var seed: Int?
        typealias Output = Picture
    }

    static func paint(_ job: Render) -> Picture { Picture(path: "\(job.prompt).png", width: job.size) }

    static func work(logger: Logger) async throws {
        let backend = try RedisBackend(url: "redis://localhost:6379/0")
        let worker = Worker(backend, queues: ["swift"], lanes: [.blocking(2)], logger: logger) {
            Handler(Render.self, in: .blocking) { job, context in
                try await context.report(progress: 0.5, "painting")
                return paint(job)
            }
        }
        try await worker.runUntilSignalled()
    }

    static func enqueue(_ jobs: JobClient) async throws {
        let handle = try await jobs.enqueue(
            named: "reports.build", arguments: Arguments(keyword: ["month": "2027-01"]), options: [.queue("celery")])
        print(try await handle.output(timeout: .seconds(60)))
    }

    struct SMTPError: Error {}

    struct SMTP: Sendable {
        func isReachable() async throws -> Bool { true }
        func send(to address: String) async throws {}
    }

    struct SendMail: Job {
        static let name = "mail.send"
        // autoretry_for=(SMTPError,), max_retries=5, retry_backoff=True
        static let options = JobOptions(retry: .exponential(jitter: 1, maxAttempts: 6), retryOnly: [SMTPError.self])
        var to: String
    }

    static func mailHandler(_ smtp: SMTP) -> Handler {
        Handler(SendMail.self) { mail, context in
            guard try await smtp.isReachable() else {
                throw JobDirective.retry(after: .seconds(30), maxAttempts: 4)
            }
            try await smtp.send(to: mail.to)
        }
    }

    static func enqueueCanvas(_ jobs: JobClient) async throws {
        let canvas = Signature.chain([
            .task("images.render", ["a cat"]), .task("mail.send_picture").with("queue", "celery"),
        ])
        print(try await jobs.enqueue(canvas: canvas).job.output())
    }

    struct Report: Job {
        static let name = "reports.nightly"
    }

    static func schedule() -> Schedule {
        Schedule("nightly-report", .cron("0 3 * * *", in: "Europe/Berlin", days: .both), Report(), .queue("reports"))
    }
}

enum ComingFromSidekiqSnippets {
    struct Charge: Job {
        static let name = "shop.charge"
        static let options = JobOptions(
            queue: "critical", retry: .exponential(initial: .seconds(15), cap: .seconds(172_800), maxAttempts: 26))
        var invoice: Int
        var uniqueKey: UniqueKey? { UniqueKey("charge:\(invoice)") }
    }

    static func charge(_ invoice: Int) async throws {}

    static func enqueue(_ jobs: JobClient) async throws {
        try await jobs.enqueue(Charge(invoice: 42))
        try await jobs.enqueue(Charge(invoice: 43), .after(.seconds(300)), .queue("mail"))
        try await jobs.enqueue(contentsOf: (100...10_000).map { Charge(invoice: $0) })
    }

    static func work(_ backend: Backend, logger: Logger) async throws {
        var configuration = Worker.Configuration()
        configuration.order = .weighted
        let worker = Worker(
            backend, queues: [.queue("critical", weight: 6), "default", .queue("mail", concurrency: 4)],
            lanes: [.async(10)], configuration: configuration, logger: logger
        ) {
            Handler(Charge.self) { job, context in try await charge(job.invoice) }
                .onFailure { context, failure in context.logger.error("\(failure)") }
        }
        try await worker.runUntilSignalled()
    }

    struct ImportRow: Job {
        static let name = "import.row"
        var row: Int
    }

    struct SendReport: Job {
        static let name = "import.report"
    }

    static func enqueueBatch(of rows: [Int], _ jobs: JobClient) async throws {
        let batch = Group(rows.map { ImportRow(row: $0) }).followed(by: SendReport())
        let handle = try await jobs.enqueue(batch)
        print(try await handle.status()?.state ?? .running)
    }

    struct Timing: PerformMiddleware {
        func perform(_ context: JobContext, next: @Sendable () async throws -> Void) async throws {
            let start = ContinuousClock.now
            try await next()
            context.logger.debug("performed", metadata: ["time": "\(ContinuousClock.now - start)"])
        }
    }
}

enum ComingFromSwiftJobsSnippets {
    struct SendEmail: Job {
        static let name = "SendEmail"
        static let options = JobOptions(
            retry: .exponential(initial: .seconds(2), cap: .seconds(120), maxAttempts: 4), timeLimit: .seconds(60))
        var to: String
        var subject: String
    }

    struct CleanUp: Job {
        static let name = "CleanUp"
    }

    struct Mailer: Sendable {
        func send(to address: String, subject: String) async throws {}
    }

    static func serve(_ router: Router<BasicRequestContext>, _ mailer: Mailer, logger: Logger) async throws {
        let backend = try RedisBackend(url: "redis://localhost:6379/0")
        let jobs = JobClient(backend, logger: logger)
        let worker = Worker(backend, lanes: [.async(16)], logger: logger) {
            Handler(SendEmail.self) { email, context in
                try await mailer.send(to: email.to, subject: email.subject)
            }
        } schedules: {
            Schedule("clean-up", .cron("0 4 * * SUN", in: "Europe/Berlin"), CleanUp())
        }
        try await jobs.enqueue(SendEmail(to: "ada@example.org", subject: "Hello"))
        let application = Application(router: router, services: [worker])
        try await application.runService()
    }
}

enum ComingFromInProcessTasksSnippets {
    struct Mailer: Sendable {
        func notify(order: Int) async throws {}
    }

    struct Notice: Job {
        static let name = "shop.notice"
        static let options = JobOptions(queue: "mail", retry: .exponential(maxAttempts: 5))
        var order: Int
    }

    static func closure(_ background: BackgroundTasks, _ mailer: Mailer) async throws {
        try await background.run("notify") { try await mailer.notify(order: 42) }
    }

    static func serve(_ jobs: JobClient, _ mailer: Mailer, logger: Logger) async throws {
        let background = BackgroundTasks(jobs: jobs, logger: logger) {
            Handler(Notice.self) { notice, context in try await mailer.notify(order: notice.order) }
        }
        let router = Router()
        router.post("orders") { request, context in
            Response(status: .accepted).afterwards { try await background.perform(Notice(order: 42)) }
        }
        let application = Application(router: router, services: [background], logger: logger)
        try await application.runService()
    }

    static func durable(_ background: BackgroundTasks) async throws {
        try await background.perform(Notice(order: 42), .durable)
    }

    static func work(_ backend: Backend, _ mailer: Mailer, logger: Logger) async throws {
        let worker = Worker(backend, queues: ["mail"], logger: logger) {
            Handler(Notice.self) { notice, context in try await mailer.notify(order: notice.order) }
        }
        try await worker.runUntilSignalled()
    }

    static func enqueue(_ jobs: JobClient) async throws {
        let handle = try await jobs.enqueue(Notice(order: 42), .id("notice-42"))
        print(handle.id, handle.isNew)
    }
}
