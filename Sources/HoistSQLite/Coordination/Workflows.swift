public import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

extension SQLiteBackend: WorkflowKeeping {
    public func begin(_ workflow: StoredWorkflow) async throws {
        let now = clock.now.microsecondsSinceEpoch
        try await writer.transaction("begin the workflow \(workflow.id)") { store in
            let insert = try store.sql(
                """
                INSERT INTO workflow (id, name, state, created, purge, body) VALUES (?, ?, ?, ?, ?, ?)
                ON CONFLICT (id) DO NOTHING
                """)
            insert.bind(workflow.id).bind(workflow.name).bind(workflow.state.rawValue)
            insert.bind(workflow.createdAt.microsecondsSinceEpoch).bind(now + StoredWorkflow.lifetime.inMicroseconds)
            try insert.bind(workflow.body).run()
        }
    }

    public func workflow(_ id: String) async throws -> StoredWorkflow? {
        try await writer.transaction("read the workflow \(id)") { try $0.workflow(id) }
    }

    public func workflows(limit: Int) async throws -> [StoredWorkflow] {
        try await writer.transaction("list workflows") { store in
            let select = try store.sql(
                "SELECT id, name, state, created, ended, body FROM workflow ORDER BY created DESC, seq DESC LIMIT ?")
            select.bind(Int64(limit))
            var workflows: [StoredWorkflow] = []
            while try select.step() { workflows.append(JobStore.workflow(select)) }
            return workflows
        }
    }

    public func end(_ end: WorkflowEnd) async throws {
        let now = clock.now.microsecondsSinceEpoch
        try await writer.transaction("end the workflow \(end.workflow)") { try $0.end(end, now: now) }
    }
}

extension JobStore {
    func workflow(_ id: String) throws -> StoredWorkflow? {
        let select = try sql("SELECT id, name, state, created, ended, body FROM workflow WHERE id = ?").bind(id)
        defer { select.end() }
        return try select.step() ? Self.workflow(select) : nil
    }

    fileprivate static func workflow(_ row: PreparedStatement) -> StoredWorkflow {
        StoredWorkflow(
            id: row.text(0) ?? "", name: row.text(1) ?? "",
            state: WorkflowState(rawValue: row.text(2) ?? "") ?? .running,
            createdAt: Date(microsecondsSinceEpoch: row.int(3)),
            endedAt: row.optionalInt(4).map(Date.init(microsecondsSinceEpoch:)), body: row.bytes(5))
    }

    func end(_ end: WorkflowEnd, now: Int64) throws {
        // A step that is given another life may turn a failure into a success.
        let update = try sql(
            """
            UPDATE workflow SET state = ?1, ended = ?2, purge = ?2 + ?3
            WHERE id = ?4 AND (state = 'running' OR state = 'failed' AND ?1 = 'succeeded')
            """)
        // A failed one as long as the dead letter of its step, which may be given another life.
        let kept = end.state == .failed ? StoredWorkflow.lifetime.inMicroseconds : rules.resultRetention
        try update.bind(end.state.rawValue).bind(now).bind(kept).bind(end.workflow).run()
    }

    /// Forgets workflows whose time has passed.
    func sweepWorkflows(now: Int64) throws {
        try sql("DELETE FROM workflow WHERE purge <= ?").bind(now).run()
    }
}
