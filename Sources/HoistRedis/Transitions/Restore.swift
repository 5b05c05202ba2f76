import Hoist
import RESP
import Synchronization

extension RedisBackend {
    /// Puts back what workers of Celery's took and did not acknowledge for longer than kombu's visibility time-out, as
    /// any of them would.
    func restoreUnacknowledged() async throws {
        let (unacked, index, mutex) = (
            keys.prefix + "unacked", keys.prefix + "unacked_index", keys.prefix + "unacked_mutex"
        )
        let latest = Double(now) / 1_000_000 - configuration.visibilityTimeout.inSeconds
        let tags =
            try await send(
                RESPCommand("ZRANGEBYSCORE", [.text(index), "-inf", .text(String(latest)), "LIMIT", 0, 100]),
                doing: "look for unacknowledged messages"
            ).elements?.compactMap(\.text) ?? []
        guard !tags.isEmpty else { return }
        let token = JobIdentifier.make()
        let isOurs = try await send(
            RESPCommand("SET", [.text(mutex), .text(token), "NX", "PX", 300_000]), doing: "restore messages")
        guard !isOurs.isNull else { return }
        for tag in tags { try await restore(tag, unacked: unacked, index: index) }
        if try await send(RESPCommand("GET", [.text(mutex)]), doing: "restore messages").text == token {
            _ = try await send(RESPCommand("DEL", [.text(mutex)]), doing: "restore messages")
        }
        workDoorbell.ring()
    }

    private func restore(_ tag: String, unacked: String, index: String) async throws {
        guard
            let entry = try await send(RESPCommand("HGET", [.text(unacked), .text(tag)]), doing: "restore a message")
                .bytes
        else {
            // Acknowledged between the two.
            _ = try await send(RESPCommand("ZREM", [.text(index), .text(tag)]), doing: "restore a message")
            return
        }
        guard let parts = (try? JSONParser.parse(entry))?.arrayValue, parts.count == 3,
            var message = parts[0].objectValue
        else { return }
        var headers = message["headers"]?.objectValue ?? [:]
        headers["redelivered"] = true
        message["headers"] = .object(headers)
        var properties = message["properties"]?.objectValue ?? [:]
        var information = properties["delivery_info"]?.objectValue ?? [:]
        information["redelivered"] = true
        properties["delivery_info"] = .object(information)
        message["properties"] = .object(properties)
        let priority = Int(properties["priority"]?.integerValue ?? 0)
        let queues = try await queues(exchange: parts[1].stringValue ?? "", routingKey: parts[2].stringValue ?? "")
        // Other applications in this database may give their workers more time.
        guard consumed.withLock({ consumed in queues.contains(where: consumed.contains) }) else { return }
        let bytes = JSONWriter.bytes(of: .object(message))
        _ = try await run(
            RedisScripts.restoreUnacknowledged,
            [.text(unacked), .text(index), .text(tag), .bytes(entry)]
                + queues.flatMap { [.text(keys.list($0, wirePriority: priority)), .bytes(bytes)] },
            doing: "restore a message")
    }

    /// The queues that a message goes to: the one of its routing key, or those that are bound to its exchange with it.
    private func queues(exchange: String, routingKey: String) async throws -> [String] {
        guard !exchange.isEmpty else { return [routingKey] }
        let members =
            try await send(
                RESPCommand("SMEMBERS", [.text(keys.bindingSet(of: exchange))]),
                doing: "read the bindings of an exchange"
            ).elements?.compactMap(\.text) ?? []
        return members.compactMap(RedisKeys.binding).filter { $0.routingKey == routingKey }.map(\.queue)
    }
}
