public import Hoist
import RESP

extension RedisBackend: Coordination, Upkeep {
    public func value(of key: String) async throws -> [UInt8]? {
        try check(key)
        let reply = try await run(
            RedisScripts.compareAndSet, [timeArgument, .text(keys.storedValue(key)), "read"],
            doing: "read the value of \(key)")[0]
        return reply.bytes
    }

    public func compareAndSet(
        _ key: String, expected: [UInt8]?, to value: [UInt8]?, expiresAfter lifetime: Duration?
    ) async throws -> Bool {
        try check(key, value)
        let reply = try await run(
            RedisScripts.compareAndSet,
            [
                timeArgument, .text(keys.storedValue(key)), "set", expected == nil ? "" : "1", .bytes(expected ?? []),
                value == nil ? "" : "1", .bytes(value ?? []), lifetime.map { .integer($0.inMicroseconds) } ?? "",
            ], doing: "change the value of \(key)")[0]
        return reply.integer == 1
    }

    public func tick(every interval: Duration) async throws {
        let reply = try await run(
            RedisScripts.findDeadWorkers, [timeArgument, .integer(max(1, interval.inMicroseconds))],
            doing: "look for dead workers")[0]
        guard let parts = reply.elements, parts.count == 2 else { throw unexpected(reply, "look for dead workers") }
        for worker in (parts[0].elements ?? []) + (parts[1].elements ?? []) {
            if let worker = worker.text { try await takeOver(worker) }
        }
        keepInOrder()
    }
}
