public import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

extension SQLiteBackend: ScheduleKeeping {
    public func write(_ writes: [ScheduleWrite]) async throws -> [ScheduleWriteResult] {
        for write in writes { try write.check() }
        guard !writes.isEmpty else { return [] }
        let jobs = writes.map { $0.messages.map(PreparedJob.init) }
        let (results, notices) = try await writer.transaction("write \(writes.count) schedules") { [clock] store in
            let now = clock.now.microsecondsSinceEpoch
            try store.refreshLines()
            let results = try zip(writes, jobs).map { try store.write($0, starting: $1, now: now) }
            return (results, store.takeNotices())
        }
        jobNotices.tell(notices)
        if writes.contains(where: { !$0.messages.isEmpty }) { ringReady() }
        return results
    }

    public func schedules(_ ids: [String]) async throws -> [StoredSchedule] {
        try await writer.transaction("read schedules") { store in try ids.compactMap { try store.schedule($0) } }
    }

    public func schedules(after id: String, limit: Int) async throws -> [StoredSchedule] {
        try await writer.transaction("read schedules") { store in
            let select = try store.sql(
                "SELECT id, app, revision, wake, body FROM schedule WHERE id > ? ORDER BY id LIMIT ?")
            return try store.schedules(from: select.bind(id).bind(Int64(limit)))
        }
    }

    public func dueSchedules(in groups: [String], limit: Int) async throws -> DueSchedules {
        try await writer.transaction("look for schedules that are due") { [clock] store in
            let now = clock.now.microsecondsSinceEpoch
            var (due, next): ([StoredSchedule], Int64?) = ([], nil)
            for group in groups {
                let select = try store.sql(
                    """
                    SELECT id, app, revision, wake, body FROM schedule WHERE app = ? AND wake <= ? ORDER BY wake LIMIT ?
                    """)
                due += try store.schedules(from: select.bind(group).bind(now).bind(Int64(limit)))
                let later = try store.sql("SELECT min(wake) FROM schedule WHERE app = ? AND wake > ?").bind(group).bind(
                    now)
                if try later.step(), let wake = later.optionalInt(0) { next = min(next ?? wake, wake) }
                later.end()
            }
            due.sort { ($0.wake ?? .distantPast) < ($1.wake ?? .distantPast) }
            return DueSchedules(
                now: Date(microsecondsSinceEpoch: now), due: Array(due.prefix(limit)),
                next: next.map(Date.init(microsecondsSinceEpoch:)))
        }
    }

    public func scheduleHistory(of id: String) async throws -> [[UInt8]] {
        try await writer.transaction("read the history of a schedule") { store in
            let select = try store.sql("SELECT body FROM schedule_entry WHERE schedule = ? ORDER BY seq DESC").bind(id)
            var entries: [[UInt8]] = []
            while try select.step() { entries.append(select.bytes(0)) }
            return entries
        }
    }
}

extension JobStore {
    fileprivate func schedule(_ id: String) throws -> StoredSchedule? {
        let select = try sql("SELECT id, app, revision, wake, body FROM schedule WHERE id = ?")
        return try schedules(from: select.bind(id)).first
    }

    fileprivate func schedules(from select: PreparedStatement) throws -> [StoredSchedule] {
        var schedules: [StoredSchedule] = []
        while try select.step() {
            schedules.append(
                StoredSchedule(
                    id: select.text(0) ?? "", group: select.text(1) ?? "", revision: select.int(2),
                    wake: select.optionalInt(3).map(Date.init(microsecondsSinceEpoch:)), body: select.bytes(4)))
        }
        return schedules
    }

    fileprivate func write(
        _ write: ScheduleWrite, starting jobs: [PreparedJob], now: Int64
    ) throws -> ScheduleWriteResult {
        guard try schedule(write.id)?.revision == write.expected else { return .changed }
        if let notBefore = write.notBefore?.microsecondsSinceEpoch, now < notBefore { return .early }
        var published: [PublishResult] = []
        do {
            if !jobs.isEmpty { published = try publish(jobs, now: now) }
        } catch let error as BackendError where error.code == .full {
            return .full(queue: jobs[0].message.queue)
        }
        // A revision is never used twice, so that a row is replaced and not changed.
        try sql("DELETE FROM schedule WHERE id = ?").bind(write.id).run()
        guard let content = write.content else {
            try sql("DELETE FROM schedule_entry WHERE schedule = ?").bind(write.id).run()
            return .written(revision: 0, published)
        }
        try sql("INSERT INTO schedule (id, app, wake, body) VALUES (?, ?, ?, ?)").bind(write.id).bind(content.group)
            .bind(content.wake?.microsecondsSinceEpoch).bind(content.body).run()
        let last = try sql("SELECT last_insert_rowid()")
        _ = try last.step()
        let revision = last.int(0)
        last.end()
        for entry in write.entries.suffix(ScheduleWrite.historyLimit) {
            try sql("INSERT INTO schedule_entry (schedule, body) VALUES (?, ?)").bind(write.id).bind(entry).run()
        }
        if !write.entries.isEmpty {
            try sql(
                """
                DELETE FROM schedule_entry WHERE schedule = ?1 AND seq <= (
                    SELECT seq FROM schedule_entry WHERE schedule = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)
                """
            ).bind(write.id).bind(Int64(ScheduleWrite.historyLimit)).run()
        }
        return .written(revision: revision, published)
    }
}
