public import Hoist
import RESP

extension RedisBackend: QueueControl {
    public func pause(queue: String) async throws {
        try await announce([queue])
        _ = try await send(RESPCommand("SADD", [.text(keys.own + "paused"), .text(queue)]), doing: "pause the queue \(queue)")
    }

    public func resume(queue: String) async throws {
        _ = try await send(RESPCommand("SREM", [.text(keys.own + "paused"), .text(queue)]), doing: "resume the queue \(queue)")
        _ = try await send(RESPCommand("PUBLISH", [.text(keys.workChannel), "resume"]), doing: "resume the queue \(queue)")
        workDoorbell.ring()
    }

    public func pausedQueues() async throws -> Set<String> {
        let members = try await send(RESPCommand("SMEMBERS", [.text(keys.own + "paused")]), doing: "list paused queues").elements
        return Set(members?.compactMap(\.text) ?? [])
    }

    public func limit(queue: String, to maximum: Int?) async throws {
        try await announce([queue])
        let caps = keys.own + "caps"
        guard let maximum else {
            _ = try await send(RESPCommand("HDEL", [.text(caps), .text(queue)]), doing: "limit the queue \(queue)")
            return
        }
        // With its lists, so that a producer's script can count them.
        let value = ([String(max(0, maximum))] + keys.lists(queue)).joined(separator: "\n")
        _ = try await send(RESPCommand("HSET", [.text(caps), .text(queue), .text(value)]), doing: "limit the queue \(queue)")
    }
}
