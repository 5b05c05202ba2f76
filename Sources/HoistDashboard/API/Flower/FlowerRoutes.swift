import HTTPTypes
import Hoist
import Hummingbird
import NIOCore

/// Flower's API (2.2) at Flower's paths, for scripts that were made for it: for Swift and Python workers alike.
///
/// What differs is listed in the article: what Flower has wrong is right here.
enum FlowerAPI {
    static let routes: [DashboardRoute] = [
        route(.get, "api/workers") { try await $0.flowerWorkers($1) },
        route(.post, "api/worker/shutdown/:id") { try await $0.flowerShutDown($1) },
        route(.post, "api/worker/pool/restart/:id") {
            try await $0.flowerAsk(
                $1, Fleet.Query("pool_restart", ["reload": false]), said: { "Restarting '\($0)' worker's pool" },
                failed: { "Failed to restart the '\($0)' pool: \($1)" })
        },
        route(.post, "api/worker/pool/grow/:id") { dashboard, visit in
            let number = try await visit.flower(dashboard).integer("n", otherwise: 1)
            return try await dashboard.flowerAsk(
                visit, Fleet.Query("pool_grow", ["n": .integer(number)]),
                said: { "Growing '\($0)' worker's pool by \(number)" },
                failed: { "Failed to grow '\($0)' worker's pool: \($1)" })
        },
        route(.post, "api/worker/pool/shrink/:id") { dashboard, visit in
            let number = try await visit.flower(dashboard).integer("n", otherwise: 1)
            return try await dashboard.flowerAsk(
                visit, Fleet.Query("pool_shrink", ["n": .integer(number)]),
                said: { "Shrinking '\($0)' worker's pool by \(number)" },
                failed: { "Failed to shrink '\($0)' worker's pool: \($1)" })
        },
        route(.post, "api/worker/pool/autoscale/:id") { dashboard, visit in
            let given = try await visit.flower(dashboard)
            let (least, most) = (try given.integer("min"), try given.integer("max"))
            return try await dashboard.flowerAsk(
                visit, Fleet.Query("autoscale", ["min": .integer(least), "max": .integer(most)]),
                said: { "Autoscaling '\($0)' worker (min=\(least), max=\(most))" },
                failed: { "Failed to autoscale '\($0)' worker: \($1)" })
        },
        route(.post, "api/worker/queue/add-consumer/:id") { dashboard, visit in
            let queue = try await visit.flower(dashboard).text("queue")
            return try await dashboard.flowerAsk(
                visit, Fleet.Query("add_consumer", ["queue": .string(queue)]), said: nil,
                failed: { "Failed to add '\(queue)' consumer to '\($0)' worker: \($1)" })
        },
        route(.post, "api/worker/queue/cancel-consumer/:id") { dashboard, visit in
            let queue = try await visit.flower(dashboard).text("queue")
            return try await dashboard.flowerAsk(
                visit, Fleet.Query("cancel_consumer", ["queue": .string(queue)]), said: nil,
                failed: { "Failed to cancel '\(queue)' consumer from '\($0)' worker: \($1)" })
        },
        route(.get, "api/tasks") { try await $0.flowerTasks($1) },
        route(.get, "api/task/types") { try await $0.flowerTypes($1) },
        route(.get, "api/task/info/:id") { try await $0.flowerTask($1) },
        route(.get, "api/task/result/:id") { try await $0.flowerResult($1) },
        route(.post, "api/task/apply/:id") { try await $0.flowerSend($1, .apply) },
        route(.post, "api/task/async-apply/:id") { try await $0.flowerSend($1, .asyncApply) },
        route(.post, "api/task/send-task/:id") { try await $0.flowerSend($1, .sendTask) },
        route(.post, "api/task/revoke/:id") { try await $0.flowerRevoke($1) },
        route(.post, "api/task/timeout/:id") { try await $0.flowerTimeLimit($1) },
        route(.post, "api/task/rate-limit/:id") { try await $0.flowerRateLimit($1) },
        route(.get, "api/queues/length") { try $0.flowerQueues($1) },
        DashboardRoute(method: .get, path: "healthcheck", right: nil, audience: .flower) { _, _ in
            Response(
                status: .ok, headers: [.contentType: "text/html; charset=UTF-8"],
                body: ResponseBody(byteBuffer: ByteBuffer(string: "OK")))
        },
    ]

    private static func route(
        _ method: HTTPRequest.Method, _ path: String,
        _ handler: @escaping @Sendable (Dashboard, Visit) async throws -> Response
    ) -> DashboardRoute {
        let changes = method != .get
        return DashboardRoute(
            method: method, path: path, changes: changes, right: changes ? .act : .read, audience: .flower,
            handler: handler)
    }

    static func json(_ value: WireValue) -> Response {
        Response(
            status: .ok, headers: [.contentType: "application/json; charset=UTF-8"],
            body: ResponseBody(byteBuffer: ByteBuffer(string: JSONText.shown(value))))
    }
}

/// What a request to Flower's API gives: the query and the form, as Flower takes either.
struct FlowerArguments: Sendable {
    var values: [String: String]

    func text(_ name: String) throws -> String {
        guard let value = values[name], !value.isEmpty else { throw Problem(.badRequest, "Missing argument \(name)") }
        return value
    }

    func integer(_ name: String, otherwise standard: Int64? = nil) throws -> Int64 {
        guard let text = values[name], !text.isEmpty else {
            guard let standard else { throw Problem(.badRequest, "Missing argument \(name)") }
            return standard
        }
        guard let number = Int64(text) else { throw Self.invalid(text, "int") }
        return number
    }

    func number(_ name: String) throws -> Double? {
        guard let text = values[name], !text.isEmpty else { return nil }
        guard let number = Double(text), number.isFinite else { throw Self.invalid(text, "float") }
        return number
    }

    func flag(_ name: String) throws -> Bool {
        guard let text = values[name] else { return false }
        switch text.lowercased() {
        case "y", "yes", "t", "true", "on", "1": return true
        case "n", "no", "f", "false", "off", "0": return false
        default: throw Self.invalid(text, "bool")
        }
    }

    static func invalid(_ text: String, _ type: String) -> Problem {
        Problem(.badRequest, "Invalid argument '\(text.cut(to: 200))' of type '\(type)'")
    }
}

extension Visit {
    /// The arguments in the query, and in the form.
    func flower(_ dashboard: Dashboard) async throws -> FlowerArguments {
        var values = query
        let type = request.headers[.contentType] ?? ""
        if request.method != .get, type.hasPrefix("application/x-www-form-urlencoded") {
            values.merge(try await dashboard.form(of: self)) { $1 }
        }
        return FlowerArguments(values: values)
    }
}
