import Hoist
public import Logging
public import ServiceLifecycle

/// A made-up fleet in memory: two workers, and a program that keeps enqueuing. For a first look at the dashboard.
public struct DemoFleet: Service {
    private let backend: Backend
    private let logger: Logger

    /// - Parameter logger: is told what the made-up workers say.
    public init(logger: Logger) {
        backend = MemoryBackend().backend
        self.logger = logger
    }

    /// The dashboard of this fleet. It keeps its history in memory.
    /// - Throws: `BackendError` `.unavailable` when no memory can be had for the history.
    public func dashboard() throws -> Dashboard {
        try Dashboard(
            [DashboardBackend("demo", backend)], store: .memory, access: .loopbackOnly, isReadOnly: false,
            retention: DashboardRetention(), isDemo: true, logger: logger)
    }

    /// Runs the fleet until a graceful shutdown, or until the task is cancelled.
    public func run() async throws {
        let workers = [("encoder-1@demo", ["media", "default"]), ("mailer-1@demo", ["mail", "default"])].map {
            worker($0.0, queues: $0.1)
        }
        try await withThrowingTaskGroup { group in
            for worker in workers { group.addTask { try await worker.run() } }
            group.addTask { await cancelWhenGracefulShutdown { await Self.enqueue(on: backend, logger) } }
            // The producer ends at a shutdown, and the workers drain by themselves.
            try await group.waitForAll()
        }
    }

    private struct Broken: Error, CustomStringConvertible {
        var description: String { "connection refused by smtp.example:25" }
    }

    private func worker(_ name: String, queues: [String]) -> Worker {
        Worker(
            backend, queues: queues.map { QueueSubscription($0) }, lanes: [.async(6)],
            configuration: .init(name: name, drainTimeout: .seconds(1), events: .always), logger: logger
        ) {
            Handler(named: "video.transcode") { _, context in
                for step in 1...40 {
                    try await Task.sleep(for: .milliseconds(.random(in: 100...400)))
                    try await context.report(progress: Double(step) / 40, "pass \(step / 21 + 1)")
                }
                return ["width": 1280, "height": 720]
            }
            Handler(named: "mail.send", options: JobOptions(retry: .exponential(initial: .seconds(2), maxAttempts: 3)))
            {
                _, _ in
                try await Task.sleep(for: .milliseconds(.random(in: 20...120)))
                if Int.random(in: 0..<12) == 0 { throw Broken() }
                return .null
            }
            Handler(named: "image.resize") { _, _ in
                try await Task.sleep(for: .milliseconds(.random(in: 5...60)))
                return ["bytes": 48_211]
            }
        }
    }

    /// Enqueues until the task is cancelled.
    private static func enqueue(on backend: Backend, _ logger: Logger) async {
        let client = JobClient(backend, logger: logger)
        var number = 0
        while !Task.isCancelled {
            number += 1
            let key = WireValue.string("a/\(number).jpg")
            _ = try? await client.enqueue(
                named: "image.resize", arguments: Arguments(keyword: ["key": key, "width": 640]),
                options: [.queue("default")])
            if number.isMultiple(of: 3) {
                _ = try? await client.enqueue(
                    named: "mail.send",
                    arguments: Arguments(keyword: ["to": .string("c-\(4000 + number)"), "template": "invoice"]),
                    options: [.queue("mail")])
            }
            if number.isMultiple(of: 20) {
                _ = try? await client.enqueue(
                    named: "video.transcode", arguments: Arguments(keyword: ["video_id": .string("\(number)")]),
                    options: [.queue("media")])
            }
            if number.isMultiple(of: 50) {
                _ = try? await client.enqueue(named: "report.build", options: [.queue("reports")])
                _ = try? await client.enqueue(
                    named: "mail.send", arguments: Arguments(keyword: ["to": "everybody"]),
                    options: [.queue("mail"), .after(.seconds(600))])
            }
            try? await Task.sleep(for: .milliseconds(.random(in: 40...200)))
        }
    }
}
