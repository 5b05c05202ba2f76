import HTTPTypes
public import Hoist
public import Hummingbird
import Logging
import NIOCore
import ServiceLifecycle

/// Ready-made routes for the jobs of a web server: enqueue, state, output, cancel, live updates.
///
/// ```swift
/// JobRoutes(client: jobs, allowing: ["reports.build"]).add(to: router.group("jobs"))
/// ```
/// | route | does |
/// |---|---|
/// | `POST /:name` | enqueues the allowed job of that name; the JSON body is its keyword arguments. 202 and a `Location` |
/// | `GET /:id` | the record |
/// | `GET /:id/output` | the output; waits up to `?wait=SECONDS` (60 at most). 409 while the job has not ended |
/// | `DELETE /:id` | cancels |
/// | `GET /:id/events` | the record as server-sent events, until the job has ended. Resumes by `Last-Event-ID` |
public struct JobRoutes<Context: RequestContext>: Sendable {
    private let client: JobClient
    private let allowedNames: Set<String>
    private let keepAlive: Duration

    /// - Parameters:
    ///   - client: enqueues and looks up the jobs.
    ///   - allowedNames: the job names that may be enqueued from outside. None by default.
    ///   - keepAlive: the interval of the comments that keep an event stream open. 15 seconds by default.
    public init(client: JobClient, allowing allowedNames: Set<String> = [], keepAlive: Duration = .seconds(15)) {
        self.client = client
        self.allowedNames = allowedNames
        self.keepAlive = keepAlive
    }

    public func add(to group: RouterGroup<Context>) {
        group.post(":id") { request, context in try await enqueue(request, context) }
        group.get(":id") { _, context in try json(try await record(context)) }
        group.get(":id/output") { request, context in try await output(request, context) }
        group.delete(":id") { request, context in try await cancel(request, context) }
        group.get(":id/events") { request, context in try await events(request, context) }
    }

    private func enqueue(_ request: Request, _ context: Context) async throws -> Response {
        try SameOrigin.check(request)
        let name = try context.parameters.require("id")
        guard allowedNames.contains(name) else {
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
        let handle = try await client.enqueue(named: name, arguments: Arguments(keyword: keyword))
        let parent = request.uri.path.split(separator: "/").dropLast().map { "/" + $0 }.joined()
        return try json(
            ["id": .string(handle.id), "is_new": .bool(handle.isNew)] as WireValue, status: .accepted,
            headers: [.location: "\(parent)/\(handle.id)"])
    }

    private func record(_ context: Context) async throws -> WireValue {
        let id = try context.parameters.require("id")
        guard let record = try await client.handle(of: id).record() else {
            throw HTTPError(.notFound, message: "no job \(id)")
        }
        return record.wireValue
    }

    private func output(_ request: Request, _ context: Context) async throws -> Response {
        let id = try context.parameters.require("id")
        let wait = request.uri.queryParameters.get("wait", as: Double.self).map { min(60, max(0, $0)) } ?? 0
        let handle = client.handle(of: id)
        guard let state = try await handle.state() else { throw HTTPError(.notFound, message: "no job \(id)") }
        do {
            // An ended job answers at once, however short the wait.
            return try json(try await handle.output(timeout: state.hasEnded ? nil : .seconds(wait)))
        } catch let error as JobError {
            let status: HTTPResponse.Status =
                error.code == .unknown ? .notFound : error.code == .notEnded ? .conflict : .gone
            throw HTTPError(status, message: error.description)
        }
    }

    private func cancel(_ request: Request, _ context: Context) async throws -> Response {
        try SameOrigin.check(request)
        let id = try context.parameters.require("id")
        switch try await client.backend.cancel(id) {
        case .cancelled: return try json(["result": "cancelled"] as WireValue)
        case .requested: return try json(["result": "requested"] as WireValue, status: .accepted)
        case .alreadyEnded: throw HTTPError(.conflict, message: "the job \(id) has ended already")
        case .unknown: throw HTTPError(.notFound, message: "no job \(id)")
        }
    }

    private func events(_ request: Request, _ context: Context) async throws -> Response {
        let id = try context.parameters.require("id")
        guard try await client.handle(of: id).record() != nil else {
            throw HTTPError(.notFound, message: "no job \(id)")
        }
        let lastSeen = HTTPField.Name("Last-Event-ID").flatMap { request.headers[$0] }.flatMap { Int64($0) }
        let stream = EventStream(updates: client.backend.updates(of: id), lastSeen: lastSeen, keepAlive: keepAlive)
        return Response(
            status: .ok, headers: [.contentType: "text/event-stream", .cacheControl: "no-cache"],
            body: ResponseBody { writer in
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
    ) throws -> Response {
        var headers = headers
        headers[.contentType] = "application/json"
        return Response(
            status: status, headers: headers, body: ResponseBody(byteBuffer: ByteBuffer(string: value.description)))
    }
}

/// The updates of one job as server-sent events (HTML Living Standard §9.2), with comments to keep the connection open.
struct EventStream: Sendable {
    let updates: JobUpdates
    let lastSeen: Int64?
    let keepAlive: Duration

    func events() -> AsyncStream<String> {
        let (stream, continuation) = AsyncStream.makeStream(of: String.self, bufferingPolicy: .bufferingNewest(64))
        // A task of its own: it ends with the stream, which outlives this call.
        let task = Task {
            await withTaskGroup(of: Void.self) { group in
                group.addTask {
                    do {
                        for try await record in updates where record.revision != lastSeen || record.state.hasEnded {
                            continuation.yield("id: \(record.revision)\nevent: update\ndata: \(record.wireValue)\n\n")
                        }
                        continuation.yield("event: end\ndata: {}\n\n")
                    } catch {
                        continuation.yield("event: error\ndata: {\"message\":\"the updates ended early\"}\n\n")
                    }
                }
                group.addTask {
                    while (try? await Task.sleep(for: keepAlive)) != nil { continuation.yield(": keep-alive\n\n") }
                }
                await group.next()
                group.cancelAll()
            }
            continuation.finish()
        }
        continuation.onTermination = { _ in task.cancel() }
        return stream
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
