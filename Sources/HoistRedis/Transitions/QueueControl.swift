public import Hoist
import RESP

extension RedisBackend: QueueControl, LimitKeeping {
    public func pause(queue: String) async throws {
        try await announce([queue])
        _ = try await send(
            RESPCommand("SADD", [.text(keys.own + "paused"), .text(queue)]), doing: "pause the queue \(queue)")
    }

    public func close(queue: String, for duration: Duration) async throws {
        try await announce([queue])
        // The server's clock is the one that counts, and it may be another than ours.
        _ = try await run(
            RedisScripts.closeQueue, [timeArgument, .text(queue), .integer(max(0, duration.inMicroseconds))],
            doing: "close the queue \(queue)")
    }

    public func resume(queue: String) async throws {
        _ = try await send(
            RESPCommand("HDEL", [.text(keys.own + "closed"), .text(queue)]), doing: "resume the queue \(queue)")
        _ = try await send(
            RESPCommand("SREM", [.text(keys.own + "paused"), .text(queue)]), doing: "resume the queue \(queue)")
        _ = try await send(
            RESPCommand("PUBLISH", [.text(keys.workChannel), "resume"]), doing: "resume the queue \(queue)")
        workDoorbell.ring()
    }

    public func pausedQueues() async throws -> Set<String> {
        let members = try await send(RESPCommand("SMEMBERS", [.text(keys.own + "paused")]), doing: "list paused queues")
            .elements
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
        _ = try await send(
            RESPCommand("HSET", [.text(caps), .text(queue), .text(value)]), doing: "limit the queue \(queue)")
    }

    public func declareLimits(_ limits: [LimitTarget: [JobLimit]], aliases: [String: String]) async throws {
        if !aliases.isEmpty {
            let pairs = aliases.flatMap { [RESPArgument.text($0.key), .text($0.value)] }
            _ = try await send(RESPCommand("HSET", [.text(keys.own + "aliases")] + pairs), doing: "declare aliases")
        }
        // What is a kind of its own now may have been an alias before.
        let own = limits.keys.filter { $0.kind == .job }.map { RESPArgument.text($0.name) }
        if !own.isEmpty {
            _ = try await send(RESPCommand("HDEL", [.text(keys.own + "aliases")] + own), doing: "declare aliases")
        }
        try await setLimits(limits.mapValues { $0.isEmpty ? nil : $0 }, by: "declared")
    }

    public func setLimits(_ limits: [JobLimit]?, for target: LimitTarget) async throws {
        try await setLimits([target: limits], by: "set")
    }

    private func setLimits(_ limits: [LimitTarget: [JobLimit]?], by whom: RESPArgument) async throws {
        guard !limits.isEmpty else { return }
        var arguments = [whom]
        for (target, limits) in limits {
            arguments.append(.text(target.key))
            arguments.append(limits.map { .bytes(JSONWriter.bytes(of: .array($0.map(\.wireValue)))) } ?? "")
        }
        let hasChanged = try await run(RedisScripts.setLimits, arguments, doing: "set limits")[0].integer == 1
        if hasChanged { workDoorbell.ring() }
    }

    public func limits() async throws -> [LimitTarget: [JobLimit]] {
        let flat =
            try await send(RESPCommand("HGETALL", [.text(keys.own + "limits")]), doing: "read limits").elements ?? []
        var limits: [LimitTarget: [JobLimit]] = [:]
        for index in stride(from: 0, to: flat.count - 1, by: 2) {
            guard let target = flat[index].text.flatMap(LimitTarget.init(key:)),
                let values = flat[index + 1].bytes.flatMap({ try? JSONParser.parse($0).arrayValue })
            else { continue }
            limits[target] = values.compactMap(JobLimit.init)
        }
        return limits
    }
}
