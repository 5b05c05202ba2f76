import Foundation
import HTTPTypes
public import Hoist
public import Hummingbird
import Logging
import NIOCore
import ServiceLifecycle
import Synchronization

/// Ready-made routes for the jobs of a web server: enqueue, state, output, cancel, live updates.
///
/// ```swift
/// JobRoutes(client: jobs, allowing: ["reports.build"]).add(to: router.group("jobs"))
/// ```
/// Every route is for the jobs that the program allows, by name or by a closure that also sees the request; any other
/// job is not there (404), for its arguments and output may be another program's secrets. What is shown of a job is a
/// ``JobView``. A backend that is away is answered with 503 and `Retry-After`; `docs/job-routes.openapi.json` describes
/// the answers.
///
/// | route | does |
/// |---|---|
/// | `POST /:name` | enqueues the allowed job of that name; the JSON body is its keyword arguments. 202 and a `Location` |
/// | `GET /:id` | the job |
/// | `GET /:id/output` | the output; waits up to `?wait=SECONDS` (60 at most). 409 while the job has not ended |
/// | `DELETE /:id` | cancels |
/// | `GET /:id/events` | the job as server-sent events, until the job has ended. Resumes by `Last-Event-ID`. 429 when too many are open |
public struct JobRoutes<Context: RequestContext>: Sendable {
    /// What a request asks for.
    public struct Access: Sendable {
        public enum Verb: Sendable, Hashable { case enqueue, read, cancel }

        public var verb: Verb
        public var jobName: String
        /// Nil when the job is still to be enqueued.
        public var record: JobRecord?
        public var request: Request
    }

    /// How many event streams may be open at the same time.
    public struct StreamLimits: Sendable {
        public var total: Int
        /// By the address of the client, where the request context knows it.
        public var perClient: Int

        public init(total: Int = 1000, perClient: Int = 20) {
            self.total = max(0, total)
            self.perClient = max(0, perClient)
        }
    }

    private let client: JobClient
    private let permits: @Sendable (Access) async throws -> Bool
    /// What is known of jobs by their names; of others a route knows their names alone.
    private let kinds: [String: JobKind]
    private let view: JobView
    private let keepAlive: Duration
    private let streams: OpenStreams

    /// - Parameters:
    ///   - client: enqueues and looks up the jobs.
    ///   - allowedNames: the names of the jobs that may be enqueued, read and cancelled.
    ///   - view: what is shown of a job. What anybody may see by default.
    ///   - keepAlive: the interval of the comments that keep an event stream open. 15 seconds by default.
    ///   - streamLimits: how many event streams may be open. 1,000 in all and 20 for each client by default.
    public init(
        client: JobClient, allowing allowedNames: Set<String>, showing view: JobView = .result,
        keepAlive: Duration = .seconds(15),
        streamLimits: StreamLimits = StreamLimits()
    ) {
        self.init(client: client, showing: view, keepAlive: keepAlive, streamLimits: streamLimits) {
            allowedNames.contains($0.jobName)
        }
    }

    /// Routes for jobs whose types the program has: a job goes to the queue of its options, with its unique key, and
    /// arguments that do not fit are answered with 400 in place of a dead letter.
    ///
    /// ```swift
    /// JobRoutes(client: jobs, allowing: BuildReport.self, MakeThumbnail.self).add(to: router.group("jobs"))
    /// ```
    /// - Parameters:
    ///   - client: enqueues and looks up the jobs.
    ///   - types: the jobs that may be enqueued, read and cancelled.
    ///   - view: what is shown of a job. What anybody may see by default.
    ///   - keepAlive: the interval of the comments that keep an event stream open. 15 seconds by default.
    ///   - streamLimits: how many event streams may be open. 1,000 in all and 20 for each client by default.
    public init(
        client: JobClient, allowing types: any Job.Type..., showing view: JobView = .result,
        keepAlive: Duration = .seconds(15), streamLimits: StreamLimits = StreamLimits()
    ) {
        let kinds = types.map { JobKind($0) }
        let names = Set(kinds.flatMap(\.names))
        self.init(
            client: client, knowing: kinds, showing: view, keepAlive: keepAlive, streamLimits: streamLimits
        ) { names.contains($0.jobName) }
    }

    /// - Parameters:
    ///   - client: enqueues and looks up the jobs.
    ///   - view: what is shown of a job. What anybody may see by default.
    ///   - keepAlive: the interval of the comments that keep an event stream open. 15 seconds by default.
    ///   - streamLimits: how many event streams may be open. 1,000 in all and 20 for each client by default.
    ///   - permits: whether a request may do what it asks for. What it throws is the answer.
    public init(
        client: JobClient, showing view: JobView = .result, keepAlive: Duration = .seconds(15),
        streamLimits: StreamLimits = StreamLimits(),
        permitting permits: @escaping @Sendable (Access) async throws -> Bool
    ) {
        self.init(
            client: client, knowing: [], showing: view, keepAlive: keepAlive, streamLimits: streamLimits,
            permitting: permits)
    }

    private init(
        client: JobClient, knowing kinds: [JobKind], showing view: JobView, keepAlive: Duration,
        streamLimits: StreamLimits, permitting permits: @escaping @Sendable (Access) async throws -> Bool
    ) {
        self.client = client
        self.kinds = Dictionary(kinds.flatMap { kind in kind.names.map { ($0, kind) } }) { first, _ in first }
        self.permits = permits
        self.view = view
        self.keepAlive = keepAlive
        streams = OpenStreams(total: streamLimits.total, perClient: streamLimits.perClient)
    }

    public func add(to group: RouterGroup<Context>) {
        group.post(":id") { request, context in try await enqueue(request, context) }
        group.get(":id") { request, context in json(view.shown(try await job(request, context, .read).record)) }
        group.get(":id/output") { request, context in try await output(request, context) }
        group.delete(":id") { request, context in try await cancel(request, context) }
        group.get(":id/events") { request, context in try await events(request, context) }
    }

    private func enqueue(_ request: Request, _ context: Context) async throws -> Response {
        try SameOrigin.check(request)
        let name = try identifier(context)
        guard try await permits(Access(verb: .enqueue, jobName: name, record: nil, request: request)) else {
            throw HTTPError(.forbidden, message: "the job \(name) may not be enqueued over HTTP")
        }
        let body = try await request.body.collect(upTo: context.maxUploadSize)
        let arguments: WireValue
        do {
            arguments = body.readableBytes == 0 ? [:] : try JSONText.parse(Array(body.readableBytesView))
        } catch {
            throw HTTPError(.badRequest, message: error.message)
        }
        guard case .object(let keyword) = arguments else {
            throw HTTPError(.badRequest, message: "the body is not a JSON object of arguments")
        }
        let call = Arguments(keyword: keyword)
        let handle: JobHandle<WireValue>
        do {
            let kind = kinds[name]
            let options = try kind?.callOptions(call) ?? []
            handle = try await client.enqueue(
                named: kind?.names[0] ?? name, arguments: call, defaults: kind?.options ?? JobOptions(),
                options: options)
        } catch let error as ArgumentError {
            throw HTTPError(.badRequest, message: error.description)
        } catch let error as EnqueueError {
            throw HTTPError(.conflict, message: error.description)
        }
        let parent = request.uri.path.split(separator: "/").dropLast().map { "/" + $0 }.joined()
        return json(
            ["id": .string(handle.id), "is_new": .bool(handle.isNew)] as WireValue, status: .accepted,
            headers: [.location: "\(parent)/\(handle.id)"])
    }

    /// The path's parameter, decoded once: an id may be any text.
    private func identifier(_ context: Context) throws -> String {
        let text = try context.parameters.require("id")
        guard let decoded = text.removingPercentEncoding else {
            throw HTTPError(.badRequest, message: "the path is not percent-encoded UTF-8")
        }
        return decoded
    }

    /// The job of the path, if the program permits it: one that it does not permit is not there.
    private func job(
        _ request: Request, _ context: Context, _ verb: Access.Verb
    ) async throws -> (id: JobID, record: JobRecord) {
        let id = try identifier(context)
        guard let record = try await client.handle(of: id).record(),
            try await permits(Access(verb: verb, jobName: record.name, record: record, request: request))
        else { throw HTTPError(.notFound, message: "no job \(id)") }
        return (id, record)
    }

    private func output(_ request: Request, _ context: Context) async throws -> Response {
        let (id, record) = try await job(request, context, .read)
        let asked = request.uri.queryParameters.get("wait", as: Double.self) ?? 0
        let wait = asked.isFinite ? min(60, max(0, asked)) : 0
        let (handle, state) = (client.handle(of: id), record.state)
        do {
            // An ended job answers at once, however short the wait.
            return json(try await handle.output(timeout: state.hasEnded ? nil : .seconds(wait)))
        } catch let error as JobError {
            let status: HTTPResponse.Status =
                error.code == .unknown ? .notFound : error.code == .notEnded ? .conflict : .gone
            throw HTTPError(status, message: view.reason(error))
        }
    }

    private func cancel(_ request: Request, _ context: Context) async throws -> Response {
        try SameOrigin.check(request)
        let (id, _) = try await job(request, context, .cancel)
        switch try await client.backend.cancel(id) {
        case .cancelled: return json(["result": "cancelled"] as WireValue)
        case .requested: return json(["result": "requested"] as WireValue, status: .accepted)
        case .alreadyEnded: throw HTTPError(.conflict, message: "the job \(id) has ended already")
        case .unknown: throw HTTPError(.notFound, message: "no job \(id)")
        }
    }

    private func events(_ request: Request, _ context: Context) async throws -> Response {
        let (id, _) = try await job(request, context, .read)
        let address = (context as? any RemoteAddressRequestContext)?.remoteAddress?.ipAddress
        guard let place = streams.open(for: address) else {
            throw HTTPError(
                .tooManyRequests, headers: [.retryAfter: "5"], message: "too many event streams are open")
        }
        let lastSeen = HTTPField.Name("Last-Event-ID").flatMap { request.headers[$0] }.flatMap { Int64($0) }
        let stream = EventStream(
            updates: client.backend.updates(of: id), view: view, lastSeen: lastSeen, keepAlive: keepAlive)
        return Response(
            status: .ok, headers: [.contentType: "text/event-stream", .cacheControl: "no-cache"],
            body: ResponseBody { writer in
                defer { place.close() }
                // Ends when the client goes away, when the server shuts down, or with the job.
                try await request.body.consumeWithCancellationOnInboundClose { _ in
                    for await event in stream.events().cancelOnGracefulShutdown() {
                        try await writer.write(ByteBuffer(string: event))
                    }
                }
                try await writer.finish(nil)
            })
    }

    private func json(
        _ value: WireValue, status: HTTPResponse.Status = .ok, headers: HTTPFields = [:]
    ) -> Response {
        var headers = headers
        headers[.contentType] = "application/json"
        return Response(
            status: status, headers: headers, body: ResponseBody(byteBuffer: ByteBuffer(string: JSONText.shown(value))))
    }
}

/// Counts the event streams that are open.
final class OpenStreams: Sendable {
    private let counts = Mutex<[String: Int]>([:])
    private let total: Int
    private let perClient: Int

    init(total: Int, perClient: Int) { (self.total, self.perClient) = (total, perClient) }

    /// A stream's place among those that may be open; it is free again when it is closed, or no longer referred to.
    final class Place: Sendable {
        private let owner: OpenStreams
        private let client: String
        private let isClosed = Mutex(false)

        fileprivate init(_ owner: OpenStreams, _ client: String) { (self.owner, self.client) = (owner, client) }

        deinit { close() }

        func close() {
            let isFirst = isClosed.withLock { isClosed in
                defer { isClosed = true }
                return !isClosed
            }
            if isFirst { owner.closed(client) }
        }
    }

    /// - Parameter address: of the client; nil when it is not known.
    /// - Returns: nil when there are too many.
    func open(for address: String?) -> Place? {
        let client = address ?? ""
        let isAdmitted = counts.withLock { counts in
            let mine = counts[client, default: 0]
            guard counts.values.reduce(0, +) < total, address == nil || mine < perClient else { return false }
            counts[client] = mine + 1
            return true
        }
        return isAdmitted ? Place(self, client) : nil
    }

    private func closed(_ client: String) {
        counts.withLock { counts in
            let left = (counts[client] ?? 1) - 1
            counts[client] = left > 0 ? left : nil
        }
    }
}

/// The updates of one job as server-sent events (HTML Living Standard §9.2), with comments to keep the connection open.
struct EventStream: Sendable {
    let updates: JobUpdates
    let view: JobView
    let lastSeen: Int64?
    let keepAlive: Duration

    func events() -> AsyncStream<String> {
        .fed(bufferingPolicy: .bufferingNewest(64)) { stream in
            await untilEitherEnds {
                do {
                    for try await record in updates where record.revision != lastSeen || record.state.hasEnded {
                        stream.yield(
                            "id: \(record.revision)\nevent: update\ndata: \(JSONText.shown(view.shown(record)))\n\n")
                    }
                    stream.yield("event: end\ndata: {}\n\n")
                } catch {
                    stream.yield("event: error\ndata: {\"message\":\"the updates ended early\"}\n\n")
                }
            } _: {
                while (try? await Task.sleep(for: keepAlive)) != nil { stream.yield(": keep-alive\n\n") }
            }
        }
    }
}

/// Refuses writes that a browser sends for a page of another site.
public enum SameOrigin {
    /// - Throws: `HTTPError` 403 when the browser says that the request comes from another site (`Sec-Fetch-Site`, else
    ///   `Origin`). Clients other than browsers send neither header and pass.
    public static func check(_ request: Request) throws {
        if let site = HTTPField.Name("Sec-Fetch-Site").flatMap({ request.headers[$0] }) {
            guard site == "same-origin" || site == "none" else {
                throw HTTPError(.forbidden, message: "the request comes from another site")
            }
            return
        }
        guard let origin = request.headers[.origin], let authority = request.head.authority else { return }
        guard origin.hasSuffix("://" + authority) else {
            throw HTTPError(.forbidden, message: "the request comes from another site")
        }
    }
}
