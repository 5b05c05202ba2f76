#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// The groups of the memory backend, whose members are counted.
struct MemoryGroups {
    private struct Group {
        var size: Int?
        var tree: WireValue?
        var parts: [JobID: GroupPart] = [:]
        var completedBy: JobID?
        var isOver = false
        var until: Date

        mutating func count(_ part: GroupPart, until: Date) -> ArrivalResult {
            self.until = max(self.until, until)
            guard !isOver else { return .counted }
            if parts[part.member] == nil { parts[part.member] = part }
            guard size == parts.count, completedBy ?? part.member == part.member else { return .counted }
            completedBy = part.member
            let ordered = parts.values.sorted { $0.isBefore($1) }
            return .completes(
                parts: ordered, outputs: tree.map { ordered.outputs(in: $0) } ?? ordered.map(\.output))
        }
    }

    private var groups: [String: Group] = [:]

    private mutating func group(_ id: String, lifetime: Double, now: Date) -> Group {
        var group = groups[id] ?? Group(until: now)
        group.until = max(group.until, now.addingTimeInterval(lifetime))
        return group
    }

    mutating func open(_ opening: GroupOpening, lifetime: Double, now: Date) {
        var group = group(opening.group, lifetime: opening.lifetime?.inSeconds ?? lifetime, now: now)
        if !group.isOver { (group.size, group.tree) = (group.size ?? opening.size, group.tree ?? opening.tree) }
        groups[opening.group] = group
    }

    mutating func grow(_ id: String, by count: Int) {
        guard let size = groups[id]?.size, groups[id]?.isOver == false else { return }
        groups[id]?.size = size + count
    }

    mutating func count(_ arrival: Arrival, lifetime: Double, now: Date) -> ArrivalResult {
        let until = now.addingTimeInterval(arrival.lifetime?.inSeconds ?? lifetime)
        return groups[arrival.group, default: Group(until: now)].count(arrival.part, until: until)
    }

    mutating func close(_ closing: GroupClosing) {
        guard groups[closing.group]?.completedBy == closing.member else { return }
        groups[closing.group]?.isOver = true
        groups[closing.group]?.parts = [:]
    }

    func progress(of id: String) -> GroupProgress? {
        groups[id].map { group in
            GroupProgress(ended: group.isOver ? group.size ?? 0 : group.parts.count, size: group.size)
        }
    }

    func part(of member: JobID, in id: String) -> GroupPart? { groups[id]?.parts[member] }

    /// Forgets groups of which nothing was heard for their time.
    mutating func sweep(now: Date) { groups = groups.filter { $0.value.until > now } }
}

extension GroupPart {
    /// In the order in which a group hands outputs on: by place, then by id.
    fileprivate func isBefore(_ other: GroupPart) -> Bool {
        (index ?? .max, member) < (other.index ?? .max, other.member)
    }
}
