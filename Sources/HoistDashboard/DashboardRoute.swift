import Foundation
import HTTPTypes
import Hoist
import Hummingbird
import NIOCore

/// One route of a dashboard. All of them stand in one list, from which also the tests of access are made.
struct DashboardRoute: Sendable {
    var method: HTTPRequest.Method
    var path: String
    /// Whether it changes something, and so must come from the dashboard's own pages.
    var changes = false
    /// What who asks must be allowed to; nil for nothing.
    var right: DashboardRight? = .read
    var audience = Audience.people
    /// Whether it is asked for by a page, and not by a person.
    var isStream = false
    var handler: @Sendable (Dashboard, Visit) async throws -> Response

    /// Who reads the answer, also when it is an error.
    enum Audience: Sendable {
        case people
        case programs
        /// Programs that were made for Flower, whose errors are plain text.
        case flower
    }

    var isPage: Bool { audience == .people }

    static let all: [DashboardRoute] =
        PageAddress.paths.map { path in
            DashboardRoute(method: .get, path: path) { try await $0.page($1, path) }
        } + [
            DashboardRoute(method: .get, path: "stream", isStream: true) { try await $0.stream($1) },
            DashboardRoute(method: .get, path: "assets/:id", right: nil) { try $0.asset($1) },
            DashboardRoute(method: .get, path: "login", right: nil) { try $0.loginPage($1) },
            DashboardRoute(method: .post, path: "login", changes: true, right: nil) { try await $0.logIn($1) },
            DashboardRoute(method: .post, path: "logout", changes: true, right: nil) { try await $0.logOut($1) },
            DashboardRoute(method: .post, path: "jobs/:id", changes: true, right: .act) {
                try await $0.act($1, on: .job)
            },
            DashboardRoute(method: .post, path: "queues/:id", changes: true, right: .act) {
                try await $0.act($1, on: .queue)
            },
            DashboardRoute(method: .post, path: "workers/:id", changes: true, right: .act) {
                try await $0.act($1, on: .worker)
            },
        ] + DashboardAPI.routes + FlowerAPI.routes
}

// MARK: - Pages

extension Dashboard {
    /// Which backend a request is about: the first where it names none.
    func collector(_ query: [String: String]) throws -> Collector {
        guard let name = query["backend"] else { return collectors[0] }
        guard let collector = collectors.first(where: { $0.name == name }) else {
            throw Problem(.notFound, "There is no backend of this name here.")
        }
        return collector
    }

    func composer(_ query: [String: String], for visit: Visit) throws -> PageComposer {
        let collector = try collector(query)
        return PageComposer(
            collector: collector, store: store, renderer: renderer,
            links: Links(
                base: visit.mountedAt, backend: collector.name, isNamed: collectors.count > 1,
                range: query["range"].flatMap(ChartRange.init) ?? .quarterHour),
            isReadOnly: guarding.isReadOnly || !visit.identity.rights.contains(.act))
    }

    func page(_ visit: Visit, _ path: String) async throws -> Response {
        let query = visit.query
        let composer = try composer(query, for: visit)
        let components = path.split(separator: "/").map { $0 == ":id" ? visit.identifier ?? "" : String($0) }
        guard let address = PageAddress(components, query) else { throw Problem(.notFound, "There is no such page.") }
        let content = try await composer.content(address)
        let own = "/" + components.map(Links.encode).joined(separator: "/")
        let view = PageFrame(
            dashboard: self, composer: composer, content: content, path: own, query: query, identity: visit.identity
        ).view
        return Response(
            status: content.isMissing ? .notFound : .ok, headers: [.contentType: "text/html; charset=utf-8"],
            body: ResponseBody(byteBuffer: ByteBuffer(string: renderer.render("page", view))))
    }

    func asset(_ visit: Visit) throws -> Response {
        guard let asset = Assets.all[visit.identifier ?? ""] else { throw Problem(.notFound, "There is no such file.") }
        return Response(
            status: .ok,
            headers: [.contentType: asset.type, .cacheControl: "public, max-age=3600"],
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: asset.bytes)))
    }

    // MARK: - Actions

    enum Subject: Sendable { case job, queue, worker }

    private static let longestForm = 1 << 20

    func act(_ visit: Visit, on subject: Subject) async throws -> Response {
        let query = visit.query
        let composer = try composer(query, for: visit)
        let form = try await form(of: visit)
        guard let act = form["action"].flatMap(Actions.Act.init(rawValue:)), let name = visit.identifier, !name.isEmpty
        else { throw Problem(.badRequest, "The form names no action that there is.") }
        let actions = Actions(collector: composer.collector, store: store)
        let author = visit.identity.name
        let back: String
        do {
            switch subject {
            case .job:
                back = composer.links.job(name)
                try await actions.act(act, onJob: name, author: author)
            case .queue:
                back = composer.links.queue(name)
                try await actions.act(act, onQueue: name, author: author)
            case .worker:
                back = composer.links.worker(name)
                try await actions.act(act, onWorker: name, value: form["value"] ?? "", author: author)
            }
        } catch let refusal as Actions.Refusal {
            throw Problem(.conflict, refusal.message)
        } catch let error as BackendError {
            throw Problem(error.code == .misuse ? .conflict : .serviceUnavailable, error.message)
        }
        let separator = back.contains("?") ? "&" : "?"
        return Response(status: .seeOther, headers: [.location: back + separator + "done=" + act.rawValue])
    }

    /// The members of a form (`application/x-www-form-urlencoded`).
    func form(of visit: Visit) async throws -> [String: String] {
        let buffer: ByteBuffer
        do {
            buffer = try await visit.request.body.collect(upTo: Self.longestForm)
        } catch {
            throw Problem(.contentTooLarge, "A form has at most 1 MB.")
        }
        return try Self.members(String(buffer: buffer)[...])
    }

    /// The members of a query or a form, decoded; of several of one name the last.
    /// - Throws: ``Problem`` for what is not well formed.
    static func members(_ text: Substring) throws -> [String: String] {
        var members: [String: String] = [:]
        for pair in text.split(separator: "&").prefix(100) {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let key = decoded(parts[0]), let value = decoded(parts.count > 1 ? parts[1] : "") else {
                throw Problem(.badRequest, "The address or the form is not well formed.")
            }
            members[key] = value
        }
        return members
    }

    /// All values of one member, decoded.
    /// - Throws: ``Problem`` for what is not well formed.
    static func values(of name: String, in query: String) throws -> [String] {
        try query.split(separator: "&").filter { $0.hasPrefix(name + "=") }.map { pair in
            guard let value = decoded(pair.dropFirst(name.utf8.count + 1)) else {
                throw Problem(.badRequest, "The address is not well formed.")
            }
            return value
        }
    }

    private static func decoded(_ text: Substring) -> String? {
        text.replacing("+", with: " ").removingPercentEncoding
    }
}

/// What surrounds the content of a page.
private struct PageFrame {
    var dashboard: Dashboard
    var composer: PageComposer
    var content: PageContent
    /// Below the place where the dashboard is mounted.
    var path: String
    var query: [String: String]
    var identity: Identity

    var view: PageView {
        let links = composer.links
        let collector = composer.collector
        let (trouble, queues, isLive) = collector.view { ($0.trouble, $0.queues, $0.connectedSince != nil) }
        let deadLetters = queues.reduce(0) { $0 + $1.failed }
        let scheduled = queues.reduce(0) { $0 + $1.scheduled }
        // The parameters that stay when another range or backend is chosen.
        let kept = query.filter { !["range", "backend", "done", "before"].contains($0.key) }.sorted { $0.key < $1.key }
            .map { ($0.key, $0.value) }
        let shown = links.path(path, kept + (query["before"].map { [("before", $0)] } ?? []))
        return PageView(
            title: content.title, base: links.base, home: links.path("/"),
            liveLink: String(shown.dropFirst(links.base.utf8.count)),
            navigation: NavigationEntry.all.map { entry in
                let count = entry.section == "failures" ? deadLetters : entry.section == "scheduled" ? scheduled : 0
                return PageView.Entry(
                    title: entry.title, link: links.path(entry.path), isHere: entry.section == content.section,
                    key: entry.key, icon: entry.icon, badge: count > 0 ? Format.count(count) : nil)
            },
            search: content.search,
            hiddenFields: links.isNamed ? [PageView.Field(name: "backend", value: links.backend)] : [],
            hasBackends: dashboard.collectors.count > 1,
            backends: dashboard.collectors.map { other in
                var links = links
                links.backend = other.name
                return PageView.Entry(title: other.name, link: links.path("/"), isHere: other.name == collector.name)
            }, hasRange: content.hasRange,
            ranges: ChartRange.allCases.map { range in
                var links = links
                links.range = range
                return PageView.Entry(
                    title: range.title, link: links.path(path, kept), isHere: range == composer.links.range)
            },
            live: composer.sign, liveClass: isLive ? "on" : "off",
            banner: banner(trouble), notice: query["done"].flatMap(Actions.Act.init(rawValue:))?.done,
            user: identity.session == nil ? nil : identity.name, fragments: content.fragments,
            keyHelp: NavigationEntry.all.map { "\($0.key) \($0.title.lowercased())" }.joined(separator: ", "))
    }

    private func banner(_ trouble: String?) -> String? {
        if dashboard.isDemo { return "This is a made-up fleet in memory. Nothing of it is real." }
        if let trouble {
            return "The backend does not answer: \(trouble.cut(to: 300)) What you see is what was known before."
        }
        return dashboard.store.trouble.map { "\($0). A restart forgets what you see." }
    }
}
