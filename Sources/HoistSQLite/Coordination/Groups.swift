public import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

extension SQLiteBackend: GroupCounting {
    public func open(_ groups: [GroupOpening]) async throws {
        let now = clock.now.microsecondsSinceEpoch
        try await writer.transaction("begin a group") { store in for group in groups { try store.open(group, now: now) }
        }
    }

    public func grow(_ group: String, by count: Int) async throws {
        try await writer.transaction("add to a group") { try $0.grow(group, by: count) }
    }

    public func count(_ arrival: Arrival) async throws -> ArrivalResult {
        let now = clock.now.microsecondsSinceEpoch
        return try await writer.transaction("count a member of a group") { try $0.count(arrival, now: now) }
    }

    public func close(_ groups: [GroupClosing]) async throws {
        try await writer.transaction("close a group") { store in for group in groups { try store.close(group) } }
    }

    public func progress(of group: String) async throws -> GroupProgress? {
        try await writer.transaction("read a group") { try $0.progress(ofGroup: group) }
    }

    public func part(of member: JobID, index: Int64?, in group: String) async throws -> GroupPart? {
        try await writer.transaction("read a member of a group") { try $0.part(of: member, inGroup: group) }
    }
}

extension JobStore {
    func open(_ group: GroupOpening, now: Int64) throws {
        let until = now + (group.lifetime?.inMicroseconds ?? rules.resultRetention)
        try sql(
            """
            INSERT INTO job_group (id, size, until, tree) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO UPDATE
            SET size = coalesce(size, ?2), until = max(until, ?3), tree = coalesce(tree, ?4) WHERE is_over = 0
            """
        ).bind(group.group).bind(Int64(group.size)).bind(until).bind(group.tree.map { JSONWriter.bytes(of: $0) }).run()
    }

    func grow(_ group: String, by count: Int) throws {
        try sql("UPDATE job_group SET size = size + ? WHERE id = ? AND is_over = 0").bind(Int64(count)).bind(group)
            .run()
    }

    func count(_ arrival: Arrival, now: Int64) throws -> ArrivalResult {
        let part = arrival.part
        let until = now + (arrival.lifetime?.inMicroseconds ?? rules.resultRetention)
        // A member may come before the group is opened.
        try sql(
            "INSERT INTO job_group (id, until) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET until = max(until, ?2)"
        ).bind(arrival.group).bind(until).run()
        let select = try sql("SELECT seq, is_over FROM job_group WHERE id = ?").bind(arrival.group)
        guard try select.step() else { return .counted }
        let (sequence, isOver) = (select.int(0), select.int(1) == 1)
        select.end()
        if isOver { return .counted }
        let insert = try sql(
            """
            INSERT INTO job_group_part (grp, member, place, state, output, failure) VALUES (?, ?, ?, ?, ?, ?)
            ON CONFLICT (grp, member) DO NOTHING
            """)
        insert.bind(sequence).bind(part.member).bind(part.index).bind(StoredState(part.state).rawValue)
        insert.bind(part.output.isNull ? nil : JSONWriter.bytes(of: part.output)).bind(
            part.failure.flatMap(StoredJSON.encode))
        if try insert.run() == 1 {
            try sql("UPDATE job_group SET ended = ended + 1 WHERE seq = ?").bind(sequence).run()
        }
        let complete = try sql(
            """
            UPDATE job_group SET completed_by = ?1
            WHERE seq = ?2 AND size = ended AND (completed_by IS NULL OR completed_by = ?1)
            """)
        guard try complete.bind(part.member).bind(sequence).run() == 1 else { return .counted }
        let parts = try parts(ofGroup: sequence)
        let shape = try sql("SELECT tree FROM job_group WHERE seq = ? AND tree IS NOT NULL").bind(sequence)
        defer { shape.end() }
        let tree = try shape.step() ? try? JSONText.parse(shape.bytes(0)) : nil
        return .completes(parts: parts, outputs: tree.map { parts.outputs(in: $0) } ?? parts.map(\.output))
    }

    func close(_ closing: GroupClosing) throws {
        let update = try sql("UPDATE job_group SET is_over = 1 WHERE id = ? AND completed_by = ?")
        guard try update.bind(closing.group).bind(closing.member).run() == 1 else { return }
        try sql("DELETE FROM job_group_part WHERE grp = (SELECT seq FROM job_group WHERE id = ?)").bind(closing.group)
            .run()
    }

    private func parts(ofGroup sequence: Int64) throws -> [GroupPart] {
        let select = try sql(
            """
            SELECT member, place, state, output, failure FROM job_group_part WHERE grp = ?
            ORDER BY place IS NULL, place, member
            """
        ).bind(sequence)
        var parts: [GroupPart] = []
        while try select.step() { parts.append(Self.part(select)) }
        return parts
    }

    private static func part(_ row: PreparedStatement) -> GroupPart {
        let output = (try? JSONText.parse(row.bytes(3))) ?? .null
        return GroupPart(
            member: row.text(0) ?? "", index: row.optionalInt(1),
            state: StoredState(rawValue: row.int(2))?.state ?? .failed, output: output,
            failure: StoredJSON.decode(JobFailure.self, row.bytes(4)))
    }

    fileprivate func progress(ofGroup id: String) throws -> GroupProgress? {
        let select = try sql("SELECT ended, size FROM job_group WHERE id = ?").bind(id)
        defer { select.end() }
        guard try select.step() else { return nil }
        return GroupProgress(ended: Int(select.int(0)), size: select.optionalInt(1).map { Int($0) })
    }

    fileprivate func part(of member: JobID, inGroup id: String) throws -> GroupPart? {
        let select = try sql(
            """
            SELECT p.member, p.place, p.state, p.output, p.failure FROM job_group_part p JOIN job_group g ON g.seq = p.grp
            WHERE g.id = ? AND p.member = ?
            """
        ).bind(id).bind(member)
        defer { select.end() }
        return try select.step() ? Self.part(select) : nil
    }

    /// Forgets groups of which nothing was heard for their time.
    func sweepGroups(now: Int64) throws {
        try sql("DELETE FROM job_group_part WHERE grp IN (SELECT seq FROM job_group WHERE until <= ?)").bind(now).run()
        try sql("DELETE FROM job_group WHERE until <= ?").bind(now).run()
    }
}
