import Hoist
import HoistTesting
import InMemoryTracing
import Logging
import MetricsTestKit
import Synchronization
import Testing
import Tracing

@Suite("Middleware, hooks, metrics, traces", .timeLimit(.minutes(3)))
struct ObservabilityTests {
    struct Outer: PerformMiddleware, EnqueueMiddleware {
        let log: Shared<[String]>
        let name: String
        func perform(_ context: JobContext, next: @Sendable () async throws -> Void) async throws {
            log.change { $0.append("\(name) before \(context.name)") }
            try await next()
            log.change { $0.append("\(name) after") }
        }
        func enqueue(
            _ messages: [Message], next: @Sendable ([Message]) async throws -> [PublishResult]
        ) async throws -> [PublishResult] {
            var messages = messages
            for index in messages.indices { messages[index].headers.custom["seen"] = .string(name) }
            return try await next(messages)
        }
    }

    @Test("middleware wraps enqueue and perform, the first outermost; hooks come inside")
    func middleware() async throws {
        let log = Shared<[String]>([])
        let backend = MemoryBackend()
        let middleware = [Outer(log: log, name: "one"), Outer(log: log, name: "two")]
        let client = JobClient(backend, configuration: .init(middleware: middleware), logger: quiet)
        var configuration = Worker.Configuration()
        configuration.middleware = middleware
        configuration.isBurst = true
        configuration.onStart = { log.change { $0.append("start") } }
        configuration.onStop = { log.change { $0.append("stop") } }
        let handle = try await client.enqueue(Echo(text: "x"))
        try await Worker(backend, configuration: configuration, logger: quiet) {
            Handler(Echo.self) { job, context in
                log.change { $0.append("run, seen by \(context.headers["seen"]?.stringValue ?? "-")") }
                return job.text
            }
            .onStart { _ in log.change { $0.append("hook start") } }
            .onSuccess { _ in log.change { $0.append("hook success") } }
            .onFinish { _ in log.change { $0.append("hook finish") } }
        }.run()
        #expect(try await handle.output(timeout: .seconds(30)) == "x")
        #expect(
            log.value == [
                "start", "hook start", "one before test.echo", "two before test.echo", "run, seen by two", "two after",
                "one after",
                "hook success", "hook finish", "stop",
            ])
    }

    @Test("hooks tell retry from failure")
    func failureHooks() async throws {
        let log = Shared<[String]>([])
        let inline = InlineJobs {
            Handler(Work.self) { _, _ in throw Broken() }
                .onRetry { _, failure in log.change { $0.append("retry \(failure.type)") } }
                .onFailure { _, failure in log.change { $0.append("failure \(failure.message)") } }
        }
        try await inline.client.enqueue(Work(), .retry(.fixed(.seconds(1), maxAttempts: 2)))
        inline.clock.advance(by: .seconds(1))
        try await inline.runDueJobs()
        #expect(log.value == ["retry Broken", "failure it broke"])
    }

    @Test("metrics count by queue, job and outcome")
    func metrics() async throws {
        let metrics = TestMetrics()
        let backend = MemoryBackend()
        var configuration = Worker.Configuration()
        configuration.metrics = metrics
        configuration.isBurst = true
        try await JobClient(backend, logger: quiet).enqueue(contentsOf: (0..<3).map { Work(number: $0) })
        try await Worker(backend, configuration: configuration, logger: quiet) {
            Handler(Work.self) { job, _ in if job.number == 2 { throw Broken() } }
        }.run()
        let labels = [("queue", "default"), ("job", "test.work")]
        #expect(try metrics.expectCounter("hoist_jobs_total", labels + [("outcome", "succeeded")]).totalValue == 2)
        #expect(try metrics.expectCounter("hoist_jobs_total", labels + [("outcome", "failed")]).totalValue == 1)
        #expect(metrics.timers(label: "hoist_job_run_seconds").flatMap(\.values).count == 3)
        #expect(metrics.timers(label: "hoist_job_wait_seconds").flatMap(\.values).count == 3)
    }

    @Test("the length of a queue and the age of its oldest job are measured")
    func queueMetrics() async throws {
        let metrics = TestMetrics()
        let backend = MemoryBackend()
        var configuration = Worker.Configuration()
        configuration.metrics = metrics
        configuration.lease = .seconds(1)
        try await JobClient(backend, logger: quiet).enqueue(
            contentsOf: (0..<3).map { _ in Echo(text: "nobody runs this") })
        try await withWorker(
            Worker(backend, configuration: configuration, logger: quiet) { Handler(Work.self) { _, _ in } }
        ) {
            let isMeasured = try await eventually { !metrics.recorders(label: "hoist_queue_length").isEmpty }
            #expect(isMeasured)
        }
        #expect(try metrics.expectGauge("hoist_queue_length", [("queue", "default")]).values.last == 3)
        #expect(try metrics.expectGauge("hoist_queue_oldest_age_seconds", [("queue", "default")]).values.last ?? 0 > 0)
    }

    @Test("spans are linked from enqueue to perform to child")
    func tracing() async throws {
        let tracer = InMemoryTracer()
        let backend = MemoryBackend()
        try await withTracer(tracer) {
            var configuration = Worker.Configuration()
            configuration.isBurst = true
            try await JobClient(backend, logger: quiet).enqueue(Work(number: 0))
            try await Worker(backend, configuration: configuration, logger: quiet) {
                Handler(Work.self) { job, context in
                    if job.number == 0 { try await context.jobs.enqueue(Work(number: 1)) }
                }
            }.run()
        }
        let spans = tracer.finishedSpans
        #expect(Set(spans.map(\.traceID)).count == 1, "one trace")
        let enqueues = spans.filter { $0.operationName == "enqueue test.work" }
        let performs = spans.filter { $0.operationName == "perform test.work" }
        #expect(enqueues.count == 2 && performs.count == 2)
        let parents = Dictionary(uniqueKeysWithValues: spans.map { ($0.spanID, $0.parentSpanID) })
        #expect(
            performs.allSatisfy { span in enqueues.contains { $0.spanID == parents[span.spanID] } },
            "perform under enqueue")
        #expect(
            enqueues.contains { span in performs.contains { $0.spanID == parents[span.spanID] } }, "child under parent")
    }

    @Test("a handler's logger carries the job")
    func logging() async throws {
        let seen = Shared<Logger.Metadata>([:])
        let inline = InlineJobs {
            Handler(Echo.self) { job, context in
                var metadata: Logger.Metadata = [:]
                for key in ["job.id", "job.name", "job.queue", "job.attempt"] {
                    metadata[key] = context.logger[metadataKey: key]
                }
                seen.change { [metadata] in $0 = metadata }
                return job.text
            }
        }
        try await inline.client.enqueue(Echo(text: "x"), .id("the-id"))
        #expect(
            seen.value == ["job.id": "the-id", "job.name": "test.echo", "job.queue": "default", "job.attempt": "1"])
    }
}
