import Foundation
import HTTPTypes
import Hoist
import HoistHummingbird
import Hummingbird
import ImagePainter
import Logging
import NIOCore

/// The HTTP side: takes orders, answers at once, and shows what becomes of them.
struct ImageServer: Sendable {
    let store: PictureStore
    let jobs: JobClient
    let background: BackgroundTasks
    let gallery: Gallery
    /// Nil outside of the demo.
    let kills: DemoKills?
    /// Whether background tasks are painted on the threads that answer requests.
    let paintsOnSharedThreads: Bool
    private let startedAt = Date()

    init(store: PictureStore, jobs: JobClient, background: BackgroundTasks, isDemo: Bool, paintsOnSharedThreads: Bool) {
        self.paintsOnSharedThreads = paintsOnSharedThreads
        self.store = store
        self.jobs = jobs
        self.background = background
        gallery = Gallery(store: store, backend: jobs.backend, background: BackgroundPictures())
        kills = isDemo ? DemoKills(backend: jobs.backend) : nil
    }

    func router() -> Router<BasicRequestContext> {
        let router = Router(context: BasicRequestContext.self)
        router.get("/") { _, _ in Self.page }
        router.get("/favicon.ico") { _, _ in Response(status: .noContent) }
        router.get("/state") { _, _ in try await state() }
        router.post("/generate") { request, context in try await generate(request, context) }
        router.get("/pictures/:id/:file") { request, context in try await picture(request, context) }
        router.post("/pictures/:id/cancel") { request, context in try await cancel(request, context) }
        router.post("/pictures/:id/retry") { request, context in try await retry(request, context) }
        JobRoutes<BasicRequestContext>(client: jobs, showing: [.waiting, .attempts]) { access in
            access.jobName == PaintImage.name && access.verb == .read
        }
        .add(to: router.group("jobs"))
        guard let kills else { return router }
        router.post("/demo/kill-server") { request, _ in
            try SameOrigin.check(request)
            kills.killServer()
            return Self.json(["result": "the server is killed"], status: .accepted)
        }
        router.post("/demo/kill-worker") { request, _ in
            try SameOrigin.check(request)
            guard let name = try await kills.killWorker() else {
                throw HTTPError(.conflict, message: "there is no worker to kill")
            }
            return Self.json(["worker": .string(name)], status: .accepted)
        }
        return router
    }

    private static let page = Response(
        status: .ok,
        headers: [
            .contentType: "text/html; charset=utf-8",
            .contentSecurityPolicy:
                "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src 'self'",
        ], body: ResponseBody(byteBuffer: ByteBuffer(bytes: PackageResources.index_html)))

    private func state() async throws -> Response {
        Self.json([
            "demo": .bool(kills != nil),
            "server": [
                "pid": .integer(Int64(getpid())), "started_at": .string(startedAt.ISO8601Format()),
            ],
            "queue": try await gallery.queue(), "workers": try await gallery.workers(),
            "pictures": try await gallery.pictures(),
        ])
    }

    private struct Wish: Decodable {
        var prompt: String
        var size: Int?
        var seed: Int64?
        var mode: Order.Mode?
    }

    /// 202 with the picture's URL; 400 for what cannot be painted.
    private func generate(_ request: Request, _ context: BasicRequestContext) async throws -> Response {
        try SameOrigin.check(request)
        let wish = try await request.decode(as: Wish.self, context: context)
        let prompt = wish.prompt.trimmingCharacters(in: .whitespacesAndNewlines)
        guard (1...500).contains(prompt.count) else {
            throw HTTPError(.badRequest, message: "a prompt has 1 to 500 characters")
        }
        let size = wish.size ?? 512
        guard Painter.sizes.contains(size) else {
            throw HTTPError(
                .badRequest,
                message: "a size is \(Painter.sizes.lowerBound) to \(Painter.sizes.upperBound) pixels")
        }
        return try await accept(prompt, size: size, seed: wish.seed ?? 0, mode: wish.mode ?? .queue)
    }

    private func accept(_ prompt: String, size: Int, seed: Int64, mode: Order.Mode) async throws -> Response {
        let order = Order(
            id: Self.makeID(), prompt: prompt, size: size, seed: seed, mode: mode, orderedAt: Date())
        try store.add(order)
        do {
            switch mode {
            case .queue:
                // The worker does it: this process may end meanwhile, and a worker that dies has a successor.
                try await jobs.enqueue(job(order), .id(Gallery.jobID(order.id)))
            case .background: try await paintHere(order)
            }
        } catch {
            store.remove(order.id)
            throw error
        }
        return Self.json(
            ["id": .string(order.id), "url": .string("/pictures/\(order.id)/\(Studio.image)")], status: .accepted)
    }

    private func job(_ order: Order) -> PaintImage {
        PaintImage(picture: order.id, prompt: order.prompt, size: order.size, seed: order.seed)
    }

    /// What FastAPI's `BackgroundTasks` does: in this process, after the response, and gone with it.
    private func paintHere(_ order: Order) async throws {
        let (pictures, studio, job) = (gallery.background, Studio(store: store), job(order))
        pictures.add(order.id)
        try await background.run("paint", paintsOnSharedThreads ? .async : .blocking) {
            await pictures.run(job, in: studio)
        }
    }

    /// Ids rise with time, so that the newest pictures are found by their names.
    private static func makeID() -> String {
        let milliseconds = UInt64(max(0, Date().timeIntervalSince1970 * 1000))
        return String(milliseconds, radix: 16) + "-" + String(UInt32.random(in: 0 ... .max), radix: 16)
    }

    private func order(_ context: BasicRequestContext) throws -> Order {
        let id = try context.parameters.require("id")
        guard PictureStore.isValid(id: id), let order = store.order(id) else {
            throw HTTPError(.notFound, message: "there is no such picture")
        }
        return order
    }

    private func picture(_ request: Request, _ context: BasicRequestContext) async throws -> Response {
        let (order, name) = (try order(context), try context.parameters.require("file"))
        guard Studio.files.contains(name), store.has(order.id, name) else {
            throw HTTPError(.notFound, message: "not painted yet")
        }
        return Response(
            status: .ok, headers: [.contentType: "image/png", .cacheControl: "max-age=31536000, immutable"],
            body: try await FileIO().loadFile(path: store.path(order.id, name), context: context))
    }

    private func cancel(_ request: Request, _ context: BasicRequestContext) async throws -> Response {
        try SameOrigin.check(request)
        let order = try order(context)
        let isCancelled =
            switch order.mode {
            case .queue:
                [.cancelled, .requested].contains(try await jobs.backend.cancel(Gallery.jobID(order.id)))
            case .background: gallery.background.cancel(order.id)
            }
        guard isCancelled else { throw HTTPError(.conflict, message: "the picture is finished already") }
        return Self.json(["result": "cancelled"], status: .accepted)
    }

    /// Orders the same picture again, in place of one that was not painted.
    private func retry(_ request: Request, _ context: BasicRequestContext) async throws -> Response {
        try SameOrigin.check(request)
        let order = try order(context)
        guard !store.has(order.id, Studio.image) else {
            throw HTTPError(.conflict, message: "the picture is finished already")
        }
        let response = try await accept(order.prompt, size: order.size, seed: order.seed, mode: order.mode)
        store.remove(order.id)
        return response
    }

    private static func json(_ value: WireValue, status: HTTPResponse.Status = .ok) -> Response {
        Response(
            status: status, headers: [.contentType: "application/json", .cacheControl: "no-store"],
            body: ResponseBody(byteBuffer: ByteBuffer(string: JSONText.shown(value))))
    }
}
