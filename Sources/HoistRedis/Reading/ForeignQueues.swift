public import Hoist
import RESP

extension RedisBackend {
    /// The most keys that are looked at: kombu keeps no list of its queues.
    private static let mostKeys = 200_000

    /// The queues that Celery's programs have declared on this server, that hold jobs, and that no program of Hoist has
    /// used.
    public func foreignQueues() async throws -> [QueueStatistics] {
        let known = Set(try await knownQueues())
        var names: Set<String> = []
        var (cursor, seen) = ("0", 0)
        repeat {
            let scan = RESPCommand(
                "SCAN", [.text(cursor), "MATCH", .text(keys.bindingPattern), "COUNT", 1000, "TYPE", "set"])
            let page = try await send(scan, doing: "look for Celery's queues").elements ?? []
            let bindings = page.last?.elements?.compactMap(\.text) ?? []
            let members = try await pipeline(
                bindings.map { RESPCommand("SMEMBERS", [.text($0)]) }, doing: "look for Celery's queues")
            for member in members.flatMap({ $0.elements?.compactMap(\.text) ?? [] }) {
                if let binding = RedisKeys.binding(member) { names.insert(binding.queue) }
            }
            cursor = page.first?.text ?? "0"
            seen += 1000
        } while cursor != "0" && seen < Self.mostKeys
        var found: [QueueStatistics] = []
        // What workers tell each other is no job.
        for name in names.subtracting(known).sorted() where !name.contains("pidbox") && !name.hasPrefix("celeryev") {
            let counts = try await pipeline(
                keys.lists(name).map { RESPCommand("LLEN", [.text($0)]) }, doing: "count the queue \(name)")
            var queue = QueueStatistics(name: name)
            queue.waiting = counts.reduce(0) { $0 + Int($1.integer ?? 0) }
            if queue.waiting > 0 { found.append(queue) }
        }
        return found
    }
}
