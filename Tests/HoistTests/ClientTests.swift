import Hoist
import HoistTesting
import Testing

@Suite("Client", .timeLimit(.minutes(3)))
struct ClientTests {
    let backend = MemoryBackend()

    @Test("queues: the call before the rule, the rule before the job, the job before the default")
    func routing() async throws {
        struct Routed: Job {
            static let name = "media.thumb"
            static let options = JobOptions(queue: "own")
        }
        let client = JobClient(
            backend,
            configuration: .init(
                defaultQueue: "other",
                routes: [.name("test.echo", to: "echoes"), .glob("media.th?mb", to: "ruled"), .custom { _ in nil }]),
            logger: quiet)
        let plain = JobClient(backend, logger: quiet)
        let queues = [
            try await client.enqueue(Routed(), .queue("called")).record()?.queue,
            try await client.enqueue(Routed()).record()?.queue,
            try await plain.enqueue(Routed()).record()?.queue, try await client.enqueue(Echo(text: "")).record()?.queue,
            try await client.enqueue(Work()).record()?.queue, try await plain.enqueue(Work()).record()?.queue,
        ]
        #expect(queues == ["called", "ruled", "own", "echoes", "other", "default"])
    }

    @Test(
        "globs",
        arguments: [
            ("*", "", true), ("a*c", "abbbc", true), ("a*c", "abbb", false), ("*.b.*", "a.b.c", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false), ("a*b*c", "a-b-b-c", true), ("", "a", false),
        ])
    func globs(_ pattern: String, _ name: String, _ matches: Bool) {
        #expect((RoutingRule.glob(pattern, to: "q").queue(name) != nil) == matches)
    }

    @Test("a refused clash throws and names the holder; else the holder's handle comes back")
    func unique() async throws {
        let client = JobClient(backend, logger: quiet)
        let first = try await client.enqueue(Work(), .unique(UniqueKey("k")))
        let second = try await client.enqueue(Work(), .unique(UniqueKey("k")))
        #expect(first.isNew && !second.isNew && first.id == second.id)
        let error = await #expect(throws: EnqueueError.self) {
            try await client.enqueue(Work(), .unique(UniqueKey("k", onClash: .refuse)))
        }
        #expect(error?.refused.map(\.keyHolder) == [first.id])
    }

    @Test("an id that is there is not enqueued again")
    func ids() async throws {
        let client = JobClient(backend, logger: quiet)
        #expect(try await client.enqueue(Work(), .id("one")).isNew)
        #expect(try await !client.enqueue(Work(), .id("one")).isNew)
        #expect(try await backend.enqueued(Work.self).count == 1)
    }

    @Test("an unknown job is not a waiting one, and a wait ends")
    func unknown() async throws {
        var configuration = JobClient.Configuration()
        configuration.unknownPatience = .milliseconds(50)
        let client = JobClient(backend, configuration: configuration, logger: quiet)
        let nobody = client.handle(of: "nobody", Echo.self)
        #expect(try await nobody.state() == nil)
        let error = await #expect(throws: JobError.self) { try await nobody.output() }
        #expect(error?.code == .unknown)
        // A caller may be less patient than the client.
        let patient = JobClient(backend, logger: quiet).handle(of: "nobody", Echo.self)
        let early = await #expect(throws: JobError.self) { try await patient.output(timeout: .milliseconds(20)) }
        #expect(early?.code == .unknown)
        // One that comes while it is waited for is found.
        configuration.unknownPatience = .seconds(30)
        let waited = JobClient(backend, configuration: configuration, logger: quiet).handle(of: "late", Echo.self)
        let output = Task { try await waited.output(timeout: .seconds(20)) }
        try await client.enqueue(Echo(text: "here"), .id("late"))
        let worker = Worker(backend, logger: quiet) { Handler(Echo.self) { job, _ in job.text } }
        try await withWorker(worker) {
            let text = try await output.value
            #expect(text == "here")
        }
        let waiting = try await client.enqueue(Echo(text: ""))
        let late = await #expect(throws: JobError.self) { try await waiting.output(timeout: .milliseconds(20)) }
        #expect(late?.code == .notEnded)
    }

    @Test("an enqueue does not wait for ever for a backend that does not answer")
    func timeout() async throws {
        let faulty = FaultyBackend(backend, faults: [.delay(.seconds(3600))])
        let client = JobClient(faulty, configuration: .init(enqueueTimeout: .milliseconds(30)), logger: quiet)
        let error = await #expect(throws: BackendError.self) { try await client.enqueue(Work(), .id("x")) }
        #expect(error?.code == .timedOut && error?.isRetrySafe == false)
        let patient = JobClient(faulty, logger: quiet)
        #expect(try await patient.enqueue(Work(), .id("x")).isNew, "the same id may be tried again")
    }

    struct Deep: Job {
        static let name = "test.deep"
        typealias Output = WireValue
    }

    @Test("what no worker could read is refused where it is made")
    func limits() async throws {
        let client = JobClient(backend, logger: quiet)
        let deep = (0..<200).reduce(WireValue.null) { value, _ in [value] }
        await #expect(throws: WireError.self) {
            try await client.enqueue(named: "x", arguments: Arguments(positional: [deep]))
        }
        let large = String(repeating: "x", count: WireLimits.default.maximumBytes)
        await #expect(throws: WireError.self) { try await client.enqueue(Echo(text: large)) }
        #expect(try await backend.jobs(JobFilter()).isEmpty)
        let inline = InlineJobs { Handler(Deep.self) { _, _ in deep } }
        #expect(try await inline.client.enqueue(Deep()).record()?.failure?.kind == .notEncodable)
    }

    @Test("secret arguments are hidden where people look, also after an edit")
    func secrets() async throws {
        struct Login: Job {
            static let name = "test.login"
            static let secretArguments: Set<String> = ["password"]
            var user: String
            var password: String
        }
        let handle = try await JobClient(backend, logger: quiet).enqueue(Login(user: "ada", password: "hush"))
        #expect(try await handle.record()?.argumentsText == "{'user': 'ada', 'password': '***'}")
        _ = try await backend.edit(handle.id, .arguments(Arguments(keyword: ["user": "bob", "password": "psst"])))
        #expect(try await handle.record()?.argumentsText == "{'user': 'bob', 'password': '***'}")
        #expect(try await backend.enqueued(Login.self).first?.password == "psst")
    }

    @Test("ids grow with time and do not repeat")
    func identifiers() {
        let ids = (0..<10_000).map { _ in JobIdentifier.make() }
        #expect(Set(ids).count == ids.count)
        #expect(ids.allSatisfy { $0.count == 36 && Array($0)[14] == "7" })
        // An id begins with the time, to a quarter of a microsecond.
        #expect(zip(ids, ids.dropFirst()).allSatisfy { $0.prefix(18) <= $1.prefix(18) })
    }
}
