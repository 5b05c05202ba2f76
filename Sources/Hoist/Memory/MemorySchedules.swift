#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// The schedules of the memory backend.
struct MemorySchedules {
    private(set) var stored: [String: StoredSchedule] = [:]
    /// The newest first.
    private(set) var history: [String: [[UInt8]]] = [:]
    private var revision: Int64 = 0

    /// Why a write cannot be done; nil when it can.
    func refusal(of write: ScheduleWrite, now: Date) -> ScheduleWriteResult? {
        guard stored[write.id]?.revision == write.expected else { return .changed }
        return write.notBefore.map { now < $0 } == true ? .early : nil
    }

    /// - Returns: the new revision.
    mutating func perform(_ write: ScheduleWrite) -> Int64 {
        // No revision is used twice, also when a schedule is removed and put again.
        revision += 1
        guard let content = write.content else {
            (stored[write.id], history[write.id]) = (nil, nil)
            return revision
        }
        stored[write.id] = StoredSchedule(
            id: write.id, group: content.group, revision: revision, wake: content.wake, body: content.body)
        let entries = write.entries.reversed() + (history[write.id] ?? [])
        history[write.id] = Array(entries.prefix(ScheduleWrite.historyLimit))
        return revision
    }

    func page(after id: String, limit: Int) -> [StoredSchedule] {
        Array(stored.values.filter { id.isEmpty || id.isBefore($0.id) }.sorted { $0.id.isBefore($1.id) }.prefix(limit))
    }

    func due(in groups: [String], limit: Int, now: Date) -> DueSchedules {
        let waking = stored.values.filter { $0.wake != nil && groups.contains($0.group) }
            .sorted { ($0.wake ?? now) < ($1.wake ?? now) }
        let due = waking.prefix { ($0.wake ?? now) <= now }
        return DueSchedules(now: now, due: Array(due.prefix(limit)), next: waking.dropFirst(due.count).first?.wake)
    }
}

extension String {
    /// By bytes, as databases compare.
    fileprivate func isBefore(_ other: String) -> Bool { utf8.lexicographicallyPrecedes(other.utf8) }
}
