import HTTPTypes
import Hoist
@testable import HoistHummingbird
import HoistTesting
import Hummingbird
import HummingbirdTesting
import Logging
import NIOCore
import Testing

private let quiet = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

private struct Double_: Job {
    static let name = "test.double"
    var number: Int
    typealias Output = Int
}

/// A result store that cannot be reached.
private struct AwayResults: ResultStore {
    let base: MemoryBackend
    private var error: BackendError { BackendError(.unavailable, "away on purpose") }

    func store(_ results: [ResultWrite]) async throws { throw error }
    func record(of id: JobID) async throws -> JobRecord? { throw error }
    func updates(of id: JobID) -> JobUpdates { base.updates(of: id) }
    func log(of id: JobID) async throws -> JobLog? { throw error }
    func forget(_ id: JobID) async throws -> Bool { throw error }
}

@Suite("Job routes", .timeLimit(.minutes(3)))
struct JobRoutesTests {
    let backend = MemoryBackend()

    private func application(
        showing view: JobView = [.waiting, .attempts], keepAlive: Duration = .seconds(15), backend: Backend? = nil
    ) -> some ApplicationProtocol {
        let router = Router()
        JobRoutes<BasicRequestContext>(
            client: JobClient(backend ?? self.backend.backend, logger: quiet), allowing: ["test.double"],
            showing: view, keepAlive: keepAlive
        ).add(to: router.group("jobs"))
        return Application(router: router, logger: quiet)
    }

    private func worker(
        _ body: @escaping @Sendable (Double_, JobContext) async throws -> Int = { job, _ in job.number * 2 }
    ) -> Worker {
        Worker(backend, logger: quiet) { Handler(Double_.self, body) }
    }

    private func text(_ response: TestResponse) -> String { String(buffer: response.body) }

    @Test("a job goes in, its state and output come out")
    func roundTrip() async throws {
        let worker = worker()
        try await application().test(.router) { client in
            let answer = try await client.execute(
                uri: "/jobs/test.double", method: .post, body: ByteBuffer(string: #"{"number": 21}"#))
            #expect(answer.status == .accepted)
            let id = try #require(try JSONText.parse(Array(answer.body.readableBytesView))["id"]?.stringValue)
            #expect(answer.headers[.location] == "/jobs/\(id)")
            let waiting = try await client.execute(uri: "/jobs/\(id)", method: .get)
            #expect(text(waiting).contains(#""state":"waiting""#) && text(waiting).contains("no worker is running"))
            #expect(try await client.execute(uri: "/jobs/\(id)/output", method: .get).status == .conflict)
            try await withWorker(worker) {
                let output = try await client.execute(uri: "/jobs/\(id)/output?wait=10", method: .get)
                #expect(output.status == .ok && text(output) == "42")
            }
        }
    }

    private func members(_ response: TestResponse) throws -> Set<String> {
        Set(try JSONText.parse(Array(response.body.readableBytesView)).objectValue.map { Array($0.keys) } ?? [])
    }

    @Test("the public sees what became of a job, and nothing of the machines, arguments and traces behind it")
    func views() async throws {
        struct Secret: Error {}
        let worker = worker { _, context in
            context.logger.info("a line")
            throw Secret()
        }
        let handle = try await JobClient(backend, logger: quiet).enqueue(Double_(number: 4), .retry(.none))
        try await withWorker(worker) { _ = try? await handle.output(timeout: .seconds(10)) }
        let usual = ["id", "state", "enqueued_at", "started_at", "ended_at", "failure"]
        for (view, more) in [
            (JobView.result, []), (.attempts, ["attempts", "lost_workers"]), ([.waiting], []),
        ] as [(JobView, [String])] {
            try await application(showing: view).test(.router) { client in
                let answer = try await client.execute(uri: "/jobs/\(handle.id)", method: .get)
                let shown = try members(answer)
                #expect(shown == Set(usual + more))
                let failure = try JSONText.parse(Array(answer.body.readableBytesView))["failure"]
                #expect(Set(failure?.objectValue.map { Array($0.keys) } ?? []) == ["kind", "message"])
                let events = text(try await client.execute(uri: "/jobs/\(handle.id)/events", method: .get))
                #expect(events.contains("failed") && !events.contains("number") && !events.contains("history"))
            }
        }
        try await application(showing: .everything).test(.router) { client in
            let answer = try await client.execute(uri: "/jobs/\(handle.id)", method: .get)
            let shown = try members(answer)
            #expect(shown.isSuperset(of: usual + ["name", "queue", "worker", "arguments", "kwargs", "history"]))
            #expect(try JSONText.parse(Array(answer.body.readableBytesView))["kwargs"]?["number"] == 4)
        }
    }

    private struct Report: Job {
        static let name = "test.report"
        static let aliases = ["test.report_old"]
        static let options = JobOptions(queue: "reports", priority: 7)
        var month: String
        var uniqueKey: UniqueKey? { UniqueKey("report:\(month)") }
    }

    @Test("a job whose type is given goes to its queue, with its key, and arguments that do not fit are refused")
    func types() async throws {
        let router = Router()
        JobRoutes<BasicRequestContext>(client: JobClient(backend, logger: quiet), allowing: Report.self, Double_.self)
            .add(to: router.group("jobs"))
        try await Application(router: router, logger: quiet).test(.router) { client in
            func post(_ name: String, _ body: String) async throws -> TestResponse {
                try await client.execute(uri: "/jobs/\(name)", method: .post, body: ByteBuffer(string: body))
            }
            let first = try await post("test.report", #"{"month": "2027-01"}"#)
            let again = try await post("test.report_old", #"{"month": "2027-01"}"#)
            #expect(first.status == .accepted && again.status == .accepted)
            #expect(text(first).contains(#""is_new":true"#) && text(again).contains(#""is_new":false"#))
            let record = try #require(try await backend.jobs(JobFilter()).first)
            #expect(record.queue == "reports" && record.priority == 7 && record.name == "test.report")
            for (body, word) in [
                (#"{"month": 1}"#, "month"), ("{}", "month"), (#"{"month": "a", "more": 1}"#, "more"),
            ] {
                let refused = try await post("test.report", body)
                #expect(refused.status == .badRequest && text(refused).contains("argument \(word)"))
            }
            let other = try await post("test.other", "{}")
            #expect(other.status == .forbidden)
        }
        #expect(try await backend.jobs(JobFilter()).count == 1, "nothing else was enqueued")
    }

    @Test("a backend that is away is answered with 503, and when to come again")
    func away() async throws {
        let id = try await JobClient(backend, logger: quiet).enqueue(Double_(number: 1)).id
        var away = FaultyBackend(backend, faults: [.refuse]).backend
        away.results = AwayResults(base: backend)
        try await application(backend: away).test(.router) { client in
            let body = ByteBuffer(string: #"{"number": 1}"#)
            for answer in [
                try await client.execute(uri: "/jobs/\(id)", method: .get),
                try await client.execute(uri: "/jobs/test.double", method: .post, body: body),
                try await client.execute(uri: "/jobs/\(id)", method: .delete),
                try await client.execute(uri: "/jobs/\(id)/output", method: .get),
            ] {
                #expect(answer.status == .serviceUnavailable && answer.headers[.retryAfter] == "5")
                #expect(text(answer).contains("error") && !text(answer).contains("on purpose"))
            }
        }
    }

    @Test("what is not allowed, not JSON, unknown or from another site is refused")
    func refusals() async throws {
        try await application().test(.router) { client in
            #expect(try await client.execute(uri: "/jobs/test.other", method: .post).status == .forbidden)
            #expect(
                try await client.execute(uri: "/jobs/test.double", method: .post, body: ByteBuffer(string: "[1]"))
                    .status == .badRequest)
            #expect(
                try await client.execute(uri: "/jobs/test.double", method: .post, body: ByteBuffer(string: "{")).status
                    == .badRequest)
            for path in ["/jobs/nobody", "/jobs/nobody/output", "/jobs/nobody/events"] {
                #expect(try await client.execute(uri: path, method: .get).status == .notFound)
            }
            #expect(try await client.execute(uri: "/jobs/nobody", method: .delete).status == .notFound)
            let site = try #require(HTTPField.Name("Sec-Fetch-Site"))
            let foreign: HTTPFields = [site: "cross-site"]
            #expect(
                try await client.execute(uri: "/jobs/test.double", method: .post, headers: foreign).status == .forbidden
            )
            #expect(try await client.execute(uri: "/jobs/x", method: .delete, headers: foreign).status == .forbidden)
        }
        #expect(try await backend.jobs(JobFilter()).isEmpty, "nothing was enqueued")
    }

    @Test("a waiting job is cancelled, once")
    func cancel() async throws {
        let handle = try await JobClient(backend, logger: quiet).enqueue(Double_(number: 1))
        try await application().test(.router) { client async throws -> Void in
            #expect(try await client.execute(uri: "/jobs/\(handle.id)", method: .delete).status == .ok)
            #expect(try await client.execute(uri: "/jobs/\(handle.id)", method: .delete).status == .conflict)
            #expect(try await client.execute(uri: "/jobs/\(handle.id)/output", method: .get).status == .gone)
        }
    }

    @Test("events tell the life of a job, keep the connection open and resume after the last one seen")
    func events() async throws {
        let handle = try await JobClient(backend, logger: quiet).enqueue(Double_(number: 3))
        let worker = worker { job, context in
            try await context.report(progress: 0.5, "half")
            try await Task.sleep(for: .seconds(3))
            return job.number
        }
        try await application(keepAlive: .milliseconds(50)).test(.live) { client in
            try await withWorker(worker) {
                let all = text(try await client.execute(uri: "/jobs/\(handle.id)/events", method: .get))
                #expect(all.contains(#""message":"half""#) && all.contains(": keep-alive"))
                #expect(all.contains(#""state":"succeeded""#) && all.contains("event: end\ndata: {}\n\n"))
                let last = try #require(try await handle.record()?.revision)
                #expect(all.contains("id: \(last)\n"))
            }
        }
        // A stream ends its connection, so this is another one.
        try await application().test(.live) { client in
            let last = try #require(try await handle.record()?.revision)
            let lastEventID = try #require(HTTPField.Name("Last-Event-ID"))
            let resumed = text(
                try await client.execute(
                    uri: "/jobs/\(handle.id)/events", method: .get, headers: [lastEventID: String(last - 1)]))
            #expect(resumed.components(separatedBy: "event: update").count == 2, "only what is new")
        }
    }

    @Test("jobs that are not allowed are not there, whatever the verb; a closure sees the job and the request")
    func access() async throws {
        let jobs = JobClient(backend, logger: quiet)
        let payroll = try await jobs.enqueue(named: "payroll", options: [.id("payroll-2026-11")])
        let mine = try await jobs.enqueue(named: "report", options: [.id("mine"), .header("user", "ada")])
        try await application().test(.router) { client in
            let hidden = try await client.execute(uri: "/jobs/\(payroll.id)", method: .delete).status
            #expect(hidden == .notFound)
            for path in ["/jobs/\(payroll.id)", "/jobs/\(payroll.id)/output", "/jobs/\(payroll.id)/events"] {
                let status = try await client.execute(uri: path, method: .get).status
                #expect(status == .notFound)
            }
        }
        #expect(try await payroll.state() == .waiting)
        let router = Router()
        JobRoutes<BasicRequestContext>(client: jobs) { access in
            access.verb == .read
                && access.record?.headers["user"]?.stringValue == access.request.headers[.authorization]
        }.add(to: router.group("jobs"))
        try await Application(router: router, logger: quiet).test(.router) { client in
            let ada: HTTPFields = [.authorization: "ada"]
            let seen = try await client.execute(uri: "/jobs/mine", method: .get, headers: ada).status
            let unseen = try await client.execute(uri: "/jobs/mine", method: .get).status
            let kept = try await client.execute(uri: "/jobs/mine", method: .delete, headers: ada).status
            #expect(seen == .ok && unseen == .notFound && kept == .notFound)
        }
        #expect(try await mine.state() == .waiting)
    }

    @Test(
        "an id may be any text: the path is decoded once",
        arguments: [
            ("user:42", "user%3A42"), ("a b", "a%20b"), ("größe 名", "gr%C3%B6%C3%9Fe%20%E5%90%8D"),
            ("report/2026/11", "report%2F2026%2F11"), ("100%", "100%25"), ("a?b#c", "a%3Fb%23c"), ("a+b", "a%2Bb"),
            ("%41", "%2541"),
        ])
    func encodedIDs(id: String, path: String) async throws {
        let jobs = JobClient(backend, logger: quiet)
        try await jobs.enqueue(Double_(number: 1), .id(id))
        try await application().test(.router) { client in
            let record = try await client.execute(uri: "/jobs/\(path)", method: .get)
            let found = try JSONText.parse(Array(record.body.readableBytesView))["id"]?.stringValue
            #expect(found == id)
            let output = try await client.execute(uri: "/jobs/\(path)/output", method: .get).status
            let deleted = try await client.execute(uri: "/jobs/\(path)", method: .delete).status
            #expect(output == .conflict && deleted == .ok)
        }
    }

    @Test("an answer is JSON also where the output holds what is no number")
    func notANumber() async throws {
        let router = Router()
        let jobs = JobClient(backend, logger: quiet)
        JobRoutes<BasicRequestContext>(client: jobs, allowing: ["nan"]).add(to: router.group("jobs"))
        let worker = Worker(backend, logger: quiet) {
            Handler(named: "nan") { _, _ in [.double(.nan), .double(.infinity), 1] }
        }
        let handle = try await jobs.enqueue(named: "nan")
        try await Application(router: router, logger: quiet).test(.router) { client in
            try await withWorker(worker) {
                let output = try await client.execute(uri: "/jobs/\(handle.id)/output?wait=10", method: .get)
                #expect(text(output) == "[null,null,1]")
            }
            let waits = try await client.execute(uri: "/jobs/\(handle.id)/output?wait=nan", method: .get)
            #expect(waits.status == .ok)
            let record = text(try await client.execute(uri: "/jobs/\(handle.id)", method: .get))
            #expect(record.contains("[null,null,1]"))
        }
    }

    @Test("no more event streams are open than are allowed, for each client and in all")
    func streamLimits() throws {
        let streams = OpenStreams(total: 3, perClient: 2)
        var places = [streams.open(for: "a"), streams.open(for: "a"), streams.open(for: "a")]
        #expect(places.map { $0 != nil } == [true, true, false])
        places.append(streams.open(for: "b"))
        #expect(places[3] != nil && streams.open(for: "c") == nil)
        places[0]?.close()
        places[0]?.close()
        #expect(streams.open(for: "c") != nil, "and its place was free again at once")
        places = []
        #expect([1, 2, 3].allSatisfy { _ in streams.open(for: nil) != nil })
    }
}

extension String {
    fileprivate func components(separatedBy separator: String) -> [Substring] {
        split(separator: separator, omittingEmptySubsequences: false)
    }
}
