public import Hoist
import RESP
import Synchronization

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

extension RedisBackend: WorkflowKeeping {
    public func begin(_ workflow: StoredWorkflow) async throws {
        _ = try await run(
            RedisScripts.keepWorkflow,
            [
                timeArgument, .text(workflow.id), "begin", .text(workflow.name),
                .integer(workflow.createdAt.microsecondsSinceEpoch), .bytes(workflow.body),
                .integer(StoredWorkflow.lifetime.components.seconds * 1000),
            ], doing: "begin the workflow \(workflow.id)")
    }

    public func workflow(_ id: String) async throws -> StoredWorkflow? {
        let reply = try await send(
            RESPCommand("HMGET", [.text(keys.workflow(id)), "name", "state", "created", "ended", "body"]),
            doing: "read the workflow \(id)")
        return Self.workflow(id, reply)
    }

    public func workflows(limit: Int) async throws -> [StoredWorkflow] {
        let found = try await send(
            RESPCommand("ZREVRANGE", [.text(keys.workflows), "0", .integer(Int64(limit) - 1)]),
            doing: "list workflows")
        let ids = (found.elements ?? []).compactMap(\.text)
        let replies = try await pipeline(
            ids.map { RESPCommand("HMGET", [.text(keys.workflow($0)), "name", "state", "created", "ended", "body"]) },
            doing: "list workflows")
        let stored = zip(ids, replies).map { ($0, Self.workflow($0, $1)) }
        let gone = stored.filter { $0.1 == nil }.map { RESPArgument.text($0.0) }
        if !gone.isEmpty {
            _ = try await send(RESPCommand("ZREM", [.text(keys.workflows)] + gone), doing: "forget workflows")
        }
        return stored.compactMap(\.1)
    }

    public func end(_ end: WorkflowEnd) async throws {
        // As long as the dead letter of the step that failed, which may be given another life.
        let kept =
            end.state == .failed
            ? StoredWorkflow.lifetime.components.seconds * 1000
            : configuration.resultRetention.map { max(1, $0.components.seconds) * 1000 }
        _ = try await run(
            RedisScripts.keepWorkflow,
            [
                timeArgument, .text(end.workflow), "end", .text(end.state.rawValue), .integer(now),
                kept.map { .integer($0) } ?? "",
            ], doing: "end the workflow \(end.workflow)")
    }

    /// The workflow with its plan from memory, where this program has read it: a plan never changes, and may be large.
    func cachedWorkflow(_ id: String) async throws -> StoredWorkflow? {
        guard var known = workflowCache.withLock({ $0[id] }) else {
            let read = try await workflow(id)
            workflowCache.withLock { cache in
                if cache.count >= 64 { cache.removeAll() }
                cache[id] = read
            }
            return read
        }
        let reply = try await send(
            RESPCommand("HMGET", [.text(keys.workflow(id)), "state", "created"]), doing: "read the workflow \(id)")
        let fields = reply.elements ?? []
        guard let state = fields.first?.text.flatMap(WorkflowState.init),
            fields.last?.text.flatMap({ Int64($0) }) == known.createdAt.microsecondsSinceEpoch
        else {
            // It is over, or its id is another's by now.
            workflowCache.withLock { $0[id] = nil }
            return try await workflow(id)
        }
        known.state = state
        return known
    }

    private static func workflow(_ id: String, _ reply: RESPValue) -> StoredWorkflow? {
        guard let fields = reply.elements, fields.count == 5, let name = fields[0].text,
            let created = fields[2].text.flatMap({ Int64($0) }), let body = fields[4].bytes
        else { return nil }
        return StoredWorkflow(
            id: id, name: name, state: fields[1].text.flatMap(WorkflowState.init) ?? .running,
            createdAt: Date(microsecondsSinceEpoch: created),
            endedAt: fields[3].text.flatMap { Int64($0) }.map(Date.init(microsecondsSinceEpoch:)), body: body)
    }
}
