import Hoist
import HoistMonitor
import Hummingbird

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

extension Dashboard {
    /// What Flower's pages ask workers, and what only its page of one worker asks.
    private static let usual: [Fleet.Query] = [.stats, .activeQueues, .registered, .configuration]
    private static let further: [Fleet.Query] = [.active, .scheduled, .reserved, .revoked]

    func flowerWorkers(_ visit: Visit) async throws -> Response {
        let collector = try collector(visit.query)
        let given = FlowerArguments(values: visit.query)
        let (isFresh, isStatus) = (try given.flag("refresh"), try given.flag("status"))
        let name = given.values["workername"]
        let now = collector.clock.now
        if isStatus {
            let states = collector.view { live in
                live.picture.workers.values.sorted { $0.name < $1.name }.map {
                    ($0.name, WireValue.bool($0.isAlive(at: now)))
                }
            }
            return FlowerAPI.json(.object(.init(states)))
        }
        if let name { try known(name, collector) }
        let isWhole = isFresh && name != nil
        if isFresh || collector.view({ $0.replies.isEmpty }) {
            await collector.ask(Self.usual + (isWhole ? Self.further : []), of: name.map { .node($0) } ?? .all)
        }
        let answers = collector.view { live in
            live.replies.filter { name == nil || $0.key == name }.sorted { $0.key < $1.key }
        }
        return FlowerAPI.json(
            .object(
                .init(
                    answers.map { worker, replies in
                        (worker, Self.shown(replies, isWhole: isWhole))
                    })))
    }

    private static func shown(_ replies: WorkerReplies, isWhole: Bool) -> WireValue {
        var members: WireValue.Object = ["timestamp": .double(replies.at.timeIntervalSince1970)]
        let queries = ["stats", "active_queues", "registered", "conf"] + (isWhole ? further.map(\.name) : [])
        for query in queries {
            guard var value = replies.values[query] else { continue }
            if query == "stats", case .object(var stats) = value, case .object(var broker)? = stats["broker"] {
                broker["alternates"] = nil
                stats["broker"] = .object(broker)
                value = .object(stats)
            }
            members[query] = SecretMask().hide(value)
        }
        return .object(members)
    }

    /// - Throws: ``Problem`` 404 for a worker of which nothing was heard.
    private func known(_ name: String, _ collector: Collector) throws {
        guard collector.view({ $0.picture.workers[name] != nil }) else {
            throw Problem(.notFound, "Unknown worker '\(name.cut(to: 200))'")
        }
    }

    func flowerShutDown(_ visit: Visit) async throws -> Response {
        let collector = try collector(visit.query)
        let name = visit.identifier ?? ""
        try known(name, collector)
        try await noting(visit, collector, "shutdown", "worker " + name) {
            try await $0.shutDown(.node(name))
            return "asked"
        }
        return FlowerAPI.json(["message": "Shutting down!"])
    }

    /// Asks something of the worker that the path names, and answers as Flower does.
    /// - Parameters:
    ///   - said: the message for a success; nil for the worker's own words.
    ///   - failed: the text for a refusal.
    func flowerAsk(
        _ visit: Visit, _ query: Fleet.Query, said: ((String) -> String)?, failed: (String, String) -> String
    ) async throws -> Response {
        try await flowerAsk(
            visit, query, worker: visit.identifier ?? "", said: said, failed: { failed(visit.identifier ?? "", $0) })
    }

    private func flowerAsk(
        _ visit: Visit, _ query: Fleet.Query, worker name: String, said: ((String) -> String)?,
        failed: (String) -> String
    ) async throws -> Response {
        let collector = try collector(visit.query)
        try known(name, collector)
        let target = "worker \(name) \(JSONText.shown(.object(query.arguments)).cut(to: 500))"
        let ok = try await noting(visit, collector, query.name, target) { fleet in
            guard let reply = try await fleet.replies(to: query, of: .node(name), timeout: .seconds(3))[name] else {
                throw Problem(.forbidden, failed("no answer within 3 seconds"))
            }
            guard let ok = reply["ok"]?.stringValue else {
                throw Problem(.forbidden, failed(reply["error"]?.stringValue ?? JSONText.shown(reply)))
            }
            return ok
        }
        return FlowerAPI.json(["message": .string(said?(name) ?? ok)])
    }

    /// Does something that stands in the audit log, with what it returns as its result.
    @discardableResult
    func noting(
        _ visit: Visit, _ collector: Collector, _ action: String, _ target: String,
        _ body: (Fleet) async throws -> String
    ) async throws -> String {
        guard let fleet = collector.fleet else {
            throw Problem(.serviceUnavailable, "This backend carries no requests to workers.")
        }
        return try await store.audited(
            AuditEntry(
                at: collector.clock.now, backend: collector.name, author: visit.identity.name, action: action,
                target: target.cut(to: 1024))
        ) { (0, try await body(fleet)) }
    }

    func flowerRateLimit(_ visit: Visit) async throws -> Response {
        let (task, given) = (visit.identifier ?? "", try await visit.flower(self))
        let worker = try given.text("workername")
        try await knownTask(task, worker, visit)
        return try await flowerAsk(
            visit,
            Fleet.Query(
                "rate_limit", ["task_name": .string(task), "rate_limit": .string(try given.text("ratelimit"))]),
            worker: worker, said: nil, failed: { "Failed to set rate limit: '\($0)'" })
    }

    func flowerTimeLimit(_ visit: Visit) async throws -> Response {
        let (task, given) = (visit.identifier ?? "", try await visit.flower(self))
        let worker = try given.text("workername")
        let (soft, hard) = (try given.number("soft"), try given.number("hard"))
        try await knownTask(task, worker, visit)
        var arguments: WireValue.Object = ["task_name": .string(task)]
        if let soft { arguments["soft"] = .double(soft) }
        if let hard { arguments["hard"] = .double(hard) }
        return try await flowerAsk(
            visit, Fleet.Query("time_limit", arguments), worker: worker, said: nil,
            failed: { "Failed to set timeouts: '\($0)'" })
    }

    /// - Throws: ``Problem`` 404 for a task that the worker does not know.
    private func knownTask(_ task: String, _ worker: String, _ visit: Visit) async throws {
        let collector = try collector(visit.query)
        try known(worker, collector)
        let names = collector.view { $0.picture.workers[worker]?.jobNames }
        guard names?.contains(where: { $0 == task || $0.hasPrefix(task + " [") }) ?? true else {
            throw Problem(.notFound, "Unknown task '\(task.cut(to: 200))'")
        }
    }

    func flowerQueues(_ visit: Visit) throws -> Response {
        let collector = try collector(visit.query)
        let now = collector.clock.now
        let queues = collector.view { live -> [(String, Int)] in
            var lengths: [String: Int] = [:]
            for worker in live.picture.liveWorkers(at: now) { for queue in worker.queues ?? [] { lengths[queue] = 0 } }
            for queue in live.queues { lengths[queue.name] = queue.waiting }
            return lengths.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
        }
        return FlowerAPI.json([
            "active_queues": .array(queues.map { ["name": .string($0.0), "messages": .integer(Int64($0.1))] })
        ])
    }
}
