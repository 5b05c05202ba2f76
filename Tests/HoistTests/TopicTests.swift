import Hoist
import Logging
import Testing

private let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

@Suite("Topics and labels")
struct TopicTests {
    @Test(
        "a pattern takes the topics that Celery's workers on Redis would",
        arguments: [
            ("*.error", "app.error", true), ("*.error", "a.b.error", false), ("*.error", ".error", false),
            ("#", "anything.at.all", true),
            ("#", "", true), ("app.#", "app.x.y", true), ("app.#", "app", false), ("app.#", "apple.x", false),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.b.d.c", false), ("a.#.c", "a.b.d.c", true), ("a.#.c", "a..c", true), ("a.#.c", "a.c", false),
            ("plain", "plain", true), ("plain", "plainer", false), ("", "", true), ("", "a", false), ("*", "a", true),
            ("*", "a.b", false),
            ("#.end", "x.y.end", true), ("#.end", "x.end.more", false), ("#.a.#", "b.a.c", true), ("*.*", "a.b", true),
            ("*.*", "a", false),
        ])
    func matching(_ pattern: String, _ topic: String, _ expected: Bool) {
        #expect(TopicBinding.topic(pattern, exchange: "e").matches(topic) == expected, "\(pattern) and \(topic)")
    }

    private struct Train: Job {
        static let name = "train"
        static let options = JobOptions(queue: "media", requires: ["gpu"])
        typealias Output = String
    }

    @Test("a job that requires labels goes to a worker that has all of them, on any backend, and to no other")
    func labels() async throws {
        let backend = MemoryBackend()
        let client = JobClient(backend, logger: silent)
        let gpu = try await client.enqueue(Train())
        let both = try await client.enqueue(Train(), .requires("gpu", "eu"))
        let none = try await client.enqueue(Train(), .requires())
        func work(_ name: String, _ labels: Set<String>) async throws {
            let configuration = Worker.Configuration(name: name, labels: labels, isBurst: true)
            try await Worker(backend, queues: ["media"], configuration: configuration, logger: silent) {
                Handler(Train.self) { _, context in context.worker }
            }.run()
        }
        try await work("plain@here", [])
        #expect(try await none.output() == "plain@here")
        #expect(try await gpu.state() == .waiting)
        #expect(try await both.state() == .waiting)
        #expect(try await gpu.record()?.queue == "media[gpu]")
        try await work("gpu@here", ["gpu"])
        #expect(try await gpu.output() == "gpu@here")
        #expect(try await both.state() == .waiting)
        try await work("both@here", ["eu", "gpu", "big"])
        #expect(try await both.output() == "both@here")
    }

    @Test(
        "a job may be for one worker, and a follow-up for the worker of its parent; where there is none to address it is refused"
    )
    func addressed() async throws {
        let backend = MemoryBackend()
        let client = JobClient(backend, logger: silent)
        func worker(_ name: String, isAddressable: Bool = true) -> Worker {
            let configuration = Worker.Configuration(name: name, isAddressable: isAddressable, isBurst: true)
            return Worker(backend, configuration: configuration, logger: silent) {
                Handler(named: "where") { arguments, context in
                    if arguments.positional.isEmpty {
                        _ = try await context.jobs.enqueue(
                            named: "where", arguments: Arguments(positional: [1]),
                            options: [.sameWorker, .id("follow-up")])
                    }
                    return .string(context.worker)
                }
            }
        }
        let job = try await client.enqueue(named: "where", options: [.worker("b")])
        try await worker("a").run()
        #expect(try await job.state() == .waiting)
        try await worker("b").run()
        // Its host is added where the name has none.
        let whole = "b@" + ProcessIdentity.host
        #expect(try await job.output() == .string(whole))
        #expect(try await client.handle(of: "follow-up").output() == .string(whole))
        let named = try await client.enqueue(named: "where", options: [.worker(whole)])
        try await worker("b").run()
        #expect(try await named.output() == .string(whole))
        await #expect(throws: BackendError.self) { try await client.enqueue(named: "where", options: [.sameWorker]) }
        let refused = try await client.enqueue(named: "where")
        try await worker("c", isAddressable: false).run()
        #expect(try await refused.record()?.failure?.message.contains("addressed") == true)
    }

    @Test("topics and broadcasts are refused where the backend has none")
    func refused() async throws {
        var backend = MemoryBackend().backend
        (backend.topics, backend.broadcasts) = (nil, nil)
        let client = JobClient(backend, logger: silent)
        await #expect(throws: BackendError.self) { try await client.publish(Train(), topic: "a", exchange: "b") }
        await #expect(throws: BackendError.self) { try await client.broadcast(Train(), on: "c") }
        let worker = Worker(backend, configuration: .init(broadcastChannels: ["c"]), logger: silent) {
            Handler(Train.self) { _, _ in "" }
        }
        await #expect(throws: WorkerError.self) { try await worker.run() }
        let topical = Worker(backend, queues: [.queue("q", topics: [.topic("a", exchange: "b")])], logger: silent) {
            Handler(Train.self) { _, _ in "" }
        }
        await #expect(throws: WorkerError.self) { try await topical.run() }
        let labelled = Worker(backend, configuration: .init(labels: ["a,b"]), logger: silent) {
            Handler(Train.self) { _, _ in "" }
        }
        await #expect(throws: WorkerError.self) { try await labelled.run() }
    }
}
