import ArgumentParser
import Foundation
import HTTPTypes
import Hoist
import HoistCommands
import HoistHummingbird
import HoistProbes
import HoistRedis
import HoistSQLite
import Hummingbird
import Logging
import Metrics
import PrometheusText
import ServiceLifecycle
import Tracing

// What the pages take as given.

private let backend: Backend = MemoryBackend().backend
private let logger = Logger(label: "snippets")
private let jobs = JobClient(backend, logger: logger)
private let server = MailServer()
private let observability = Observability(
    metrics: NOOPMetricsHandler.instance, tracer: NoOpInstrument(), exporter: Exporter())

private struct MailServer: Sendable {
    enum Answer: Sendable {
        case sent
        case busy(Int)
        case closed
        case tooManyRequests
        case unknownAddress
    }

    let name = "mail"

    func deliver(to address: String, attempt: Int) async throws -> Answer { .sent }
    func send(_ mail: some Job) async throws {}
}

private struct Observability: Sendable {
    var metrics: any MetricsFactory
    var tracer: any Instrument
    var exporter: any Service
}

private struct Exporter: Service {
    func run() async throws {}
}

private struct JSONLogHandler: LogHandler {
    let label: String
    var logLevel = Logger.Level.info
    var metadata: Logger.Metadata = [:]

    init(label: String) { self.label = label }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) { print(event.level, label, event.message) }
}

/// The code of the pages about single features.
enum FeaturesSnippets {
    /// Hoist: RetriesAndLimits.
    enum Retries {
        struct SendMail: Job {
            static let name = "mail.send"
            static let options = JobOptions(
                retry: .exponential(initial: .seconds(5), cap: .seconds(3600), maxAttempts: 8),
                neverRetry: [UnknownAddress.self])
            var to: String
        }

        struct UnknownAddress: Error {}

        struct Remind: Job {
            static let name = "orders.remind"
            var order: Int
        }

        struct SendInvoice: Job {
            static let name = "invoices.send"
            var number: Int
            var uniqueKey: UniqueKey? { UniqueKey("invoice:\(number)") }
        }

        struct UpdateIndex: Job {
            static let name = "index.update"
            var document: Int
        }

        struct CallPartner: Job {
            static let name = "partners.call"
            static let options = JobOptions(limits: [
                .rate(100, per: .seconds(1)),
                .running(2, scope: .partition),
            ])
            var partner: String
            var partitionKey: String? { partner }
        }

        struct Transcode: Job {
            static let name = "media.transcode"
            static let options = JobOptions(
                timeLimit: .seconds(1800), hardTimeLimit: .seconds(1860), heartbeatLimit: .seconds(60),
                memoryLimit: .gibibytes(4))
            var videoID: String
        }

        struct Part: Sendable {
            var end: Double
        }

        struct Video: Sendable {
            var parts: [Part]
        }

        static func policies(_ mail: SendMail) async throws {
            try await jobs.enqueue(mail, .retry(.fixed(.seconds(60), maxAttempts: 3)))
            try await jobs.enqueue(mail, .retry(.exponential(maxAttempts: 100).within(.seconds(86_400))))
        }

        static func directives() -> Worker {
            Worker(backend, logger: logger) {
                Handler(SendMail.self) { mail, context in
                    let answer = try await server.deliver(to: mail.to, attempt: context.attempt)
                    switch answer {
                    case .sent: break
                    case .busy(let seconds): throw JobDirective.retry(after: .seconds(seconds), reason: "server busy")
                    case .closed: throw JobDirective.snooze(for: .seconds(3600))
                    case .tooManyRequests: throw JobDirective.closeQueue(for: .seconds(30))
                    case .unknownAddress: throw JobDirective.deadLetter("the address does not exist")
                    }
                }
            }
        }

        static func delays(_ date: Date) async throws {
            try await jobs.enqueue(Remind(order: 7), .after(.seconds(3600)))
            try await jobs.enqueue(Remind(order: 8), .at(date), .expires(at: date.addingTimeInterval(600)))
        }

        static func unique(_ document: Int) async throws {
            let first = try await jobs.enqueue(SendInvoice(number: 42), .unique(UniqueKey("invoice:42")))
            let second = try await jobs.enqueue(SendInvoice(number: 42), .unique(UniqueKey("invoice:42")))
            print(second.isNew, second.id == first.id)  // false true

            let key = UniqueKey("index:\(document)", onClash: .reschedule)
            try await jobs.enqueue(UpdateIndex(document: document), .unique(key), .after(.seconds(30)))
        }

        static func limits() async throws {
            let worker = Worker(backend, queues: [.queue("mail", limits: [.running(20)])], logger: logger) {
                Handler(SendMail.self) { mail, _ in try await server.send(mail) }
            }
            try await worker.run()

            try await backend.limits?.setLimits([.rate(10, per: .seconds(60))], for: .job("mail.send"))
            try await backend.limits?.setLimits(nil, for: .job("mail.send"))
        }

        static func video(_ id: String) async throws -> Video { Video(parts: []) }
        static func transcode(_ part: Part) async throws {}

        static func times() -> Worker {
            Worker(backend, logger: logger) {
                Handler(Transcode.self, in: .process) { job, context in
                    for part in try await video(job.videoID).parts {
                        try await context.report(progress: part.end)
                        try await transcode(part)
                    }
                }
            }
        }
    }

    /// Hoist: LoggingMetricsTracing.
    enum Observing {
        struct SendMail: Job {
            static let name = "mail.send"
            var to: String
        }

        enum App: ServiceApp {
            static func prepare(_ options: NoOptions) async throws {
                LoggingSystem.bootstrap { label in JSONLogHandler(label: label) }
                MetricsSystem.bootstrap(observability.metrics)
                InstrumentationSystem.bootstrap(observability.tracer)
            }

            static func makeWorker(_ setup: inout WorkerSetup<NoOptions>) async throws -> Worker {
                setup.services.append(observability.exporter)
                return setup.worker(queues: ["mail"]) {
                    Handler(SendMail.self) { mail, _ in try await server.send(mail) }
                }
            }
        }

        static func program() async throws {
            LoggingSystem.bootstrap { label in JSONLogHandler(label: label) }
            let metrics = PrometheusFactory()
            MetricsSystem.bootstrap(metrics)
            InstrumentationSystem.bootstrap(observability.tracer)

            let logger = Logger(label: "worker")
            let worker = Worker(backend, queues: ["mail"], logger: logger) {
                Handler(SendMail.self) { mail, _ in try await server.send(mail) }
            }
            let probes = WorkerProbes(worker, at: .tcp(host: "0.0.0.0", port: 9090), metrics: metrics, logger: logger)
            try await worker.runUntilSignalled(besides: [observability.exporter, probes])
        }

        static func logs() -> Worker {
            Worker(backend, logger: logger) {
                Handler(SendMail.self) { mail, context in
                    context.logger.info("connecting", metadata: ["server": "\(server.name)"])
                    try await server.send(mail)
                }
            }
        }

        static func counting() -> JobClient {
            struct EnqueueCounter: EnqueueMiddleware {
                private let counter = Counter(label: "jobs_enqueued_total")

                func enqueue(
                    _ messages: [Message], next: @Sendable ([Message]) async throws -> [PublishResult]
                ) async throws -> [PublishResult] {
                    let results = try await next(messages)
                    counter.increment(by: results.count { $0 == .enqueued })
                    return results
                }
            }

            let configuration = JobClient.Configuration(middleware: [EnqueueCounter()])
            let jobs = JobClient(backend, configuration: configuration, logger: logger)
            return jobs
        }

        struct Charge: Job {
            static let name = "payments.charge"
            static let secretArguments: Set<String> = ["card_holder"]
            var cardHolder: String
            var amount: Int
        }
    }

    /// HoistHummingbird.
    enum Web {
        struct BuildReport: Job {
            static let name = "reports.build"
            var month: String
        }

        struct Notice: Job {
            static let name = "shop.notice"
            var text: String
        }

        struct Order: Decodable, Sendable {
            var number: Int
        }

        struct Sessions: Sendable {
            func user(of request: Request) async throws -> String? { nil }
            func isOperator(_ request: Request) async throws -> Bool { false }
        }

        struct Mailer: Sendable {
            func send(_ text: String) async throws {}
        }

        struct Store: Sendable {
            func save(_ order: Order) async throws {}
        }

        struct Thumbnails: Sendable {
            func make(of path: String) throws {}
        }

        static func routes() async throws {
            let router = Router()
            JobRoutes<BasicRequestContext>(client: jobs, allowing: ["reports.build"]).add(to: router.group("jobs"))
            let application = Application(router: router, logger: logger)
            try await application.runService()
        }

        static func access(_ router: Router<BasicRequestContext>, _ sessions: Sessions) {
            router.post("reports") { request, _ in
                guard let user = try await sessions.user(of: request) else { throw HTTPError(.unauthorized) }
                let handle = try await jobs.enqueue(BuildReport(month: "2027-01"), .header("user", .string(user)))
                return Response(status: .accepted, headers: [.location: "/jobs/\(handle.id)"])
            }
            JobRoutes<BasicRequestContext>(client: jobs) { access in
                guard access.verb != .enqueue, let user = try await sessions.user(of: access.request) else {
                    return false
                }
                return access.record?.headers["user"]?.stringValue == user
            }
            .add(to: router.group("jobs"))

            JobRoutes<BasicRequestContext>(client: jobs, showing: .everything) { access in
                try await sessions.isOperator(access.request)
            }
            .add(to: router.group("operator"))
        }

        static func background(
            _ router: Router<BasicRequestContext>, _ mailer: Mailer, _ store: Store, _ thumbnails: Thumbnails,
            _ path: String
        ) async throws {
            let background = BackgroundTasks(jobs: jobs, logger: logger) {
                Handler(Notice.self) { notice, _ in try await mailer.send(notice.text) }
            }
            router.post("orders") { request, context in
                let order = try await request.decode(as: Order.self, context: context)
                try await store.save(order)
                return Response(status: .created).afterwards {
                    try await background.perform(Notice(text: "order \(order.number)"))
                }
            }
            let application = Application(router: router, services: [background], logger: logger)
            try await application.runService()

            try await background.run("thumbnail", .blocking) { try thumbnails.make(of: path) }

            try await background.perform(Notice(text: "order 7"), .durable)
        }

        static func probes(_ router: Router<BasicRequestContext>, _ worker: Worker) async throws {
            router.group("worker").addHealthRoutes(for: worker)
            let application = Application(router: router, services: [worker], logger: logger)
            try await application.runService()
        }
    }

    /// HoistSQLite.
    enum Embedded {
        static func open() throws -> JobClient {
            let backend = try SQLiteBackend(path: "jobs.db")
            let jobs = JobClient(backend, logger: logger)
            return jobs
        }

        static func options() throws -> SQLiteBackend {
            var configuration = SQLiteBackend.Configuration(durability: .everyCommit)
            configuration.resultRetention = .seconds(7 * 86_400)
            let backend = try SQLiteBackend(url: "sqlite:/var/lib/shop/jobs.db", configuration: configuration)
            return backend
        }
    }

    /// HoistTesting, as far as it needs no test framework.
    enum Testing {
        func withRedis<T>(_ body: (Backend) async throws -> T) async throws -> T {
            let url = ProcessInfo.processInfo.environment["TEST_REDIS"] ?? "redis://127.0.0.1:6379/15"
            let prefix = "test-\(UUID().uuidString):"
            let configuration = RedisBackend.Configuration(keyPrefix: prefix, resultKeyPrefix: prefix)
            return try await body(try RedisBackend(url: url, configuration: configuration).backend)
        }
    }
}

// HoistCommands. At the top, for the lines of its blocks are long.

private struct Painter: Sendable {
    init(folder: String) throws {}
    func paint(_ path: String) async throws -> Int { path.count }
}

private struct Database: Service {
    func run() async throws {}
    func note(_ size: Int) async throws {}
}

private struct CleanUp: Job {
    static let name = "images.clean_up"
}

/// The code of the page about HoistCommands.
enum FeaturesCommandsSnippets {
    struct MakeThumbnail: Job {
        static let name = "images.thumbnail"
        static let options = JobOptions(queue: "images", retry: .exponential(maxAttempts: 5))
        var path: String
    }

    enum App: ServiceApp {
        struct Options: ParsableArguments {
            @Option(help: "The folder that the images lie in.") var data = "images"
        }

        static func prepare(_ options: Options) async throws {
            LoggingSystem.bootstrap { label in JSONLogHandler(label: label) }
        }

        static func makeWorker(_ setup: inout WorkerSetup<Options>) async throws -> Worker {
            let painter = try Painter(folder: setup.options.data)
            let database = Database()
            setup.services.append(database)
            setup.configuration.limits.time = .seconds(300)
            return setup.worker(queues: ["images"], lanes: [.process(2)]) {
                Handler(MakeThumbnail.self, in: .process) { job, _ in
                    try await database.note(try await painter.paint(job.path))
                }
            } schedules: {
                Schedule("clean-up", .cron("0 4 * * *"), CleanUp())
            }
        }

        static func makeServices(_ setup: ServerSetup<Options>) async throws -> [any Service] {
            let jobs = JobClient(setup.backend, logger: setup.logger)
            let router = Router()
            router.post("images/:name") { _, context in
                let handle = try await jobs.enqueue(MakeThumbnail(path: try context.parameters.require("name")))
                return Response(status: .accepted, headers: [.location: "/jobs/\(handle.id)"])
            }
            let application = Application(
                router: router,
                configuration: .init(address: .hostname(setup.address.host, port: setup.address.port)),
                logger: setup.logger)
            return [application]
        }
    }

    struct MyService: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Makes thumbnails.", version: "1.0.0",
            subcommands: [
                ServeCommand<App>.self, WorkerCommand<App>.self, UpCommand<App>.self, DevCommand<App>.self,
                UpkeepCommand.self, HoistCommand.self,
            ])
    }

    struct ImportCommand: AsyncParsableCommand {
        static let configuration = CommandConfiguration(commandName: "import", abstract: "Enqueue a folder.")

        @OptionGroup var backend: BackendOptions
        @OptionGroup var logging: LogOptions
        @Argument(help: "The folder.") var folder: String

        func run() async throws {
            let jobs = JobClient(try backend.open(), logger: logging.logger("import"))
            let paths = try FileManager.default.contentsOfDirectory(atPath: folder)
            try await jobs.enqueue(contentsOf: paths.map { MakeThumbnail(path: $0) })
        }
    }
}
