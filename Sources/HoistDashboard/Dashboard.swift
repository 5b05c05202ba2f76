import Foundation
import HTTPTypes
import Hoist
public import Hummingbird
public import Logging
import NIOCore
public import ServiceLifecycle

/// A monitor of fleets in the browser: every job, why it waits, and what can be done. For Swift and Python workers alike.
///
/// ```swift
/// let dashboard = try Dashboard([.init("prod", backend)], store: .file("hoist-history.db"), logger: logger)
/// dashboard.add(to: router.group("hoist"))
/// let app = Application(router: router, services: [dashboard])
/// ```
/// It is a service: it collects while it runs, and writes what is left at its end. The router needs a request context
/// that knows the client's address, such as ``DashboardRequestContext``.
public final class Dashboard: Service, Sendable {
    let collectors: [Collector]
    let store: HistoryStore
    let guarding: RequestGuard
    let renderer: PageRenderer
    let logger: Logger
    let streams = StreamCounter()
    /// Set where a made-up fleet is shown.
    let isDemo: Bool

    /// - Parameters:
    ///   - backends: what is shown; at least one, each under a name of its own.
    ///   - store: where the history is kept.
    ///   - access: who may see the pages.
    ///   - isReadOnly: pages show everything, and nothing can be done.
    ///   - retention: how long jobs that have ended are kept.
    ///   - logger: is told of trouble with the backends and the store.
    /// - Throws: `BackendError` `.misuse` for no backend, and for two of one name; `.unavailable` when no history can
    ///   be opened, not even in memory, or when users are to log in and the file that they lie in cannot be opened.
    public convenience init(
        _ backends: [DashboardBackend], store: DashboardStore = .memory, access: DashboardAccess = .loopbackOnly,
        isReadOnly: Bool = false, retention: DashboardRetention = DashboardRetention(), logger: Logger
    ) throws {
        try self.init(
            backends, store: store, access: access, isReadOnly: isReadOnly, retention: retention, isDemo: false,
            logger: logger)
    }

    init(
        _ backends: [DashboardBackend], store place: DashboardStore, access: DashboardAccess, isReadOnly: Bool,
        retention: DashboardRetention, isDemo: Bool, cost: PasswordHash.Cost = .standard, logger: Logger
    ) throws {
        guard !backends.isEmpty else { throw BackendError(.misuse, "a dashboard needs a backend to show") }
        guard Set(backends.map(\.name)).count == backends.count else {
            throw BackendError(.misuse, "two backends of a dashboard have the same name")
        }
        do {
            let store = try HistoryStore.open(place, logger: logger)
            if access.kind == .users, let trouble = store.trouble {
                throw BackendError(.unavailable, "nobody could log in, for the users lie in the history: \(trouble)")
            }
            collectors = try backends.map {
                try Collector($0, store: store, retention: retention, mask: SecretMask(), logger: logger)
            }
            self.store = store
        } catch let error as BackendError {
            throw error
        } catch {
            throw BackendError(.unavailable, "the history cannot be opened", cause: error)
        }
        guarding = RequestGuard(access: access, isReadOnly: isReadOnly, store: store, cost: cost)
        do { renderer = try PageRenderer() } catch { throw BackendError(.unavailable, "\(error)") }
        self.isDemo = isDemo
        self.logger = logger
    }

    /// Collects until a graceful shutdown, or until the task is cancelled, and writes what is left.
    public func run() async throws {
        await cancelWhenGracefulShutdown {
            await withDiscardingTaskGroup { group in
                for collector in self.collectors { group.addTask { await collector.run() } }
                group.addTask {
                    let clock = self.collectors[0].clock
                    while !Task.isCancelled {
                        try? await self.store.tidyCharts(at: clock.now)
                        await clock.sleep(for: .seconds(60))
                    }
                }
            }
        }
    }

    /// Adds the pages, the API and the live streams to a router.
    /// - Parameter router: a router, or a group of one; every path is below it.
    public func add<Context: RequestContext>(to router: RouterGroup<Context>) {
        for route in DashboardRoute.all { add(route, to: router) }
    }

    /// Adds the pages, the API and the live streams to a router.
    /// - Parameter router: every path is below its root.
    public func add<Context: RequestContext>(to router: Router<Context>) { add(to: router.group()) }

    private func add<Context: RequestContext>(_ route: DashboardRoute, to router: RouterGroup<Context>) {
        router.on(RouterPath(route.path), method: route.method) { request, context in
            let peer = (context as? any RemoteAddressRequestContext)?.remoteAddress
            let address = peer.map { $0.ipAddress ?? ($0.pathname != nil ? "unix" : "") }
            return await self.respond(
                to: request, route, from: address,
                identifier: context.parameters.get("id").flatMap(\.removingPercentEncoding))
        }
    }

    /// The part of a path before the route's own.
    private static func base(of path: String, without route: DashboardRoute) -> String {
        let components = path.split(separator: "/")
        let own = route.path.split(separator: "/").count
        return components.dropLast(min(own, components.count)).map { "/" + $0 }.joined()
    }

    private func respond(
        to request: Request, _ route: DashboardRoute, from peer: String?, identifier: String?
    ) async -> Response {
        let base = Self.base(of: request.uri.path, without: route)
        var response: Response
        do {
            let identity = try await guarding.admit(
                request.head, peer: peer, mountedAt: base, right: route.right, changes: route.changes,
                at: collectors[0].clock.now)
            let visit = Visit(
                request: request, peer: peer, identity: identity, mountedAt: base, identifier: identifier,
                query: try Self.members((request.uri.query ?? "")[...]))
            response = try await route.handler(self, visit)
        } catch let refusal as RequestGuard.Refusal {
            response = refused(refusal, request, route, base)
        } catch let problem as Problem {
            response = problem.response(for: route.audience)
        } catch {
            logger.warning("a page failed", metadata: ["path": "\(route.path)", "error": "\(error)"])
            response = Problem(.serviceUnavailable, "The history or the backend cannot be read now. Try again.")
                .response(for: route.audience)
        }
        for field in RequestGuard.headers where response.headers[field.name] == nil { response.headers.append(field) }
        return response
    }

    private func refused(
        _ refusal: RequestGuard.Refusal, _ request: Request, _ route: DashboardRoute, _ base: String
    ) -> Response {
        // A person who opens a page is led to the login form. A request with wrong credentials is refused.
        if refusal.status == .unauthorized, route.isPage, route.method == .get, !route.isStream,
            request.headers[.authorization] == nil
        {
            let next = request.uri.path + (request.uri.query.map { "?" + $0 } ?? "")
            return Response(status: .seeOther, headers: [.location: base + "/login?next=" + Links.encode(next)])
        }
        var response = Problem(refusal.status, refusal.reason).response(for: route.audience)
        // A browser that is challenged asks by itself, and then has no way to log out.
        let isBrowser =
            request.headers[RequestGuard.fetchMode] != nil || request.headers[.accept]?.contains("text/html") == true
        if refusal.status == .unauthorized, !isBrowser, !route.isStream {
            response.headers[.wwwAuthenticate] = "Basic realm=\"hoist\", charset=\"UTF-8\""
        }
        if let seconds = refusal.retryAfter { response.headers[.retryAfter] = String(seconds) }
        return response
    }
}

/// A request, as far as the dashboard's routes care.
struct Visit: Sendable {
    let request: Request
    let peer: String?
    let identity: Identity
    /// Empty, or `/hoist`.
    let mountedAt: String
    /// The parameter of the path, decoded.
    let identifier: String?

    /// The query's parameters, decoded; of several of one name the last.
    let query: [String: String]
}

/// An answer that is an error.
struct Problem: Error, Sendable, CustomStringConvertible {
    var status: HTTPResponse.Status
    var detail: String
    var description: String { detail }

    init(_ status: HTTPResponse.Status, _ detail: String) { (self.status, self.detail) = (status, detail) }

    /// - Parameter audience: programs get `application/problem+json` (RFC 9457), others a text.
    func response(for audience: DashboardRoute.Audience) -> Response {
        guard audience == .programs else {
            return Response(
                status: status, headers: [.contentType: "text/plain; charset=UTF-8"],
                body: ResponseBody(byteBuffer: ByteBuffer(string: detail + (audience == .people ? "\n" : ""))))
        }
        let value: WireValue = [
            "type": "about:blank", "title": .string(status.reasonPhrase), "status": .integer(Int64(status.code)),
            "detail": .string(detail),
        ]
        return Response(
            status: status, headers: [.contentType: "application/problem+json"],
            body: ResponseBody(byteBuffer: ByteBuffer(string: JSONText.shown(value))))
    }
}
