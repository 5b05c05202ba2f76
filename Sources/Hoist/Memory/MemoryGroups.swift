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
        let lifetime = arrival.lifetime?.inSeconds ?? lifetime
        let member = arrival.part.member
        // In place: a group may have very many parts.
        return withUnsafeMutablePointer(to: &groups[arrival.group, default: Group(until: now)]) { group in
            group.pointee.until = max(group.pointee.until, now.addingTimeInterval(lifetime))
            guard !group.pointee.isOver else { return .counted }
            if group.pointee.parts[member] == nil { group.pointee.parts[member] = arrival.part }
            guard group.pointee.size == group.pointee.parts.count, group.pointee.completedBy ?? member == member else {
                return .counted
            }
            group.pointee.completedBy = member
            let parts = group.pointee.parts.values.sorted()
            return .completes(
                parts: parts, outputs: group.pointee.tree.map { parts.outputs(in: $0) } ?? parts.map(\.output))
        }
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

    var count: Int { groups.count }
}

extension GroupPart: Comparable {
    public static func == (left: GroupPart, right: GroupPart) -> Bool {
        left.member == right.member && left.index == right.index
    }

    /// In the order in which a group hands outputs on: by place, then by id.
    public static func < (left: GroupPart, right: GroupPart) -> Bool {
        let places = (left.index ?? .max, right.index ?? .max)
        return places.0 == places.1 ? left.member < right.member : places.0 < places.1
    }
}
