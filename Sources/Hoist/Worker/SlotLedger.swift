/// What one job of a handler takes of its worker while it runs.
struct SlotNeeds: Hashable, Sendable {
    var lane: LaneKind
    /// Slots of the lane.
    var slots: Int
    /// Of each thing that a worker has only so much of.
    var resources: [String: Int]

    var isLight: Bool { slots == 1 && resources.isEmpty }

    /// A name for what has these needs: jobs of one are claimed together.
    var budgetName: String {
        let slots = slots == 1 ? "" : "*\(slots)"
        return lane.name + slots + resources.sorted { $0.key < $1.key }.map { "+\($0.key):\($0.value)" }.joined()
    }
}

/// Keeps the books of a worker's slots: which are free, who waits for some, how many jobs may be claimed.
///
/// A job that needs several slots is claimed when some are free, and has those that fall free next: light jobs cannot
/// starve it. One job waits so at a time in a lane; what was claimed together with it and cannot start goes back.
struct SlotLedger {
    typealias RunID = WorkerInbox.RunID

    private struct Entry {
        var needs: SlotNeeds
        var queue: String
    }

    private(set) var capacity: [LaneKind: Int]
    /// How many light jobs a lane may take in above its slots: see ``ClaimAhead``.
    var ahead: [LaneKind: Int] = [:]
    private var freeSlots: [LaneKind: Int]
    private var freeResources: [String: Int]
    private var freeOfQueue: [String: Int]
    private var running: [RunID: Entry] = [:]
    private var isFrozen = false
    private var waiting: [(run: RunID, entry: Entry)] = []

    /// - Parameter queues: those that have a limit of their own.
    init(lanes: [LaneKind: Int], resources: [String: Int], queues: [String: Int]) {
        capacity = lanes
        freeSlots = lanes
        freeResources = resources
        freeOfQueue = queues
    }

    /// Gives a queue a limit of its own, or takes the limit away. Jobs of the queue that are here count.
    mutating func limit(_ queue: String, to count: Int?) {
        let here = running.values.count { $0.queue == queue } + waiting.count { $0.entry.queue == queue }
        freeOfQueue[queue] = count.map { $0 - here }
    }

    /// How many jobs of each kind of needs may be claimed.
    func budget(for kinds: [SlotNeeds]) -> ClaimBudget {
        var budget = ClaimBudget(queues: freeOfQueue)
        for kind in kinds { budget.kinds[kind.budgetName] = claimable(kind) }
        return budget
    }

    /// How many jobs of a kind may be claimed from a queue.
    func available(_ needs: SlotNeeds, queue: String) -> Int { min(claimable(needs), freeOfQueue[queue] ?? .max) }

    /// Whether a queue has a limit of its own.
    func isLimited(_ queue: String) -> Bool { freeOfQueue[queue] != nil }

    private func claimable(_ needs: SlotNeeds) -> Int {
        let free = free(for: needs)
        guard free > 0 else { return 0 }
        for (_, other) in waiting {
            // What the other waits for is not given to this one.
            let waitsForSlots = other.needs.lane == needs.lane && isSlotBound(other.needs)
            if other.needs == needs || waitsForSlots
                || other.needs.resources.keys.contains(where: { needs.resources[$0] != nil })
            {
                return 0
            }
            // One job of a lane waits at a time.
            if free < needs.slots, other.needs.lane == needs.lane { return 0 }
        }
        var count = max(1, free / needs.slots)
        for (name, amount) in needs.resources where amount > 0 {
            count = min(count, (freeResources[name] ?? 0) / amount)
        }
        return count
    }

    enum Admission { case start, wait, refuse }

    /// Takes a job in.
    /// - Returns: whether it may start now, waits until ``release(_:)`` says when, or has no place.
    mutating func admit(_ run: RunID, _ needs: SlotNeeds, queue: String) -> Admission {
        let entry = Entry(needs: needs, queue: queue)
        let isLaneHeld = waiting.contains { $0.entry.needs.lane == needs.lane && isSlotBound($0.entry.needs) }
        guard fits(needs), !isLaneHeld else {
            if waiting.contains(where: { $0.entry.needs.lane == needs.lane }) { return .refuse }
            spend(queue: queue, 1)
            waiting.append((run, entry))
            return .wait
        }
        spend(queue: queue, 1)
        take(run, entry)
        return .start
    }

    /// Starts nothing any more that waits.
    mutating func freeze() { isFrozen = true }

    /// - Returns: those that may start now.
    mutating func thaw() -> [RunID] {
        isFrozen = false
        return startWaiting()
    }

    /// Frees what a job has.
    /// - Returns: those that may start now.
    mutating func release(_ run: RunID) -> [RunID] {
        if let index = waiting.firstIndex(where: { $0.run == run }) {
            spend(queue: waiting.remove(at: index).entry.queue, -1)
        } else if let entry = running.removeValue(forKey: run) {
            freeSlots[entry.needs.lane, default: 0] += entry.needs.slots
            for (name, amount) in entry.needs.resources { freeResources[name, default: 0] += amount }
            spend(queue: entry.queue, -1)
        }
        return startWaiting()
    }

    /// Gives a lane more slots or fewer; jobs that run are not disturbed.
    /// - Returns: those that may start now.
    mutating func resize(_ lane: LaneKind, to slots: Int) -> [RunID] {
        freeSlots[lane, default: 0] += slots - (capacity[lane] ?? 0)
        capacity[lane] = slots
        return startWaiting()
    }

    /// The slots of a lane that are in use, or spoken for. Jobs that were claimed ahead have none.
    func used(_ lane: LaneKind) -> Int {
        min(capacity[lane] ?? 0, (capacity[lane] ?? 0) - (freeSlots[lane] ?? 0))
            + waiting.reduce(0) { $0 + ($1.entry.needs.lane == lane ? $1.entry.needs.slots : 0) }
    }

    /// Jobs that were taken in and have not started.
    var notStarted: [RunID] { waiting.map(\.run) }

    private func fits(_ needs: SlotNeeds) -> Bool {
        free(for: needs) >= needs.slots && needs.resources.allSatisfy { (freeResources[$0.key] ?? 0) >= $0.value }
    }

    private func isSlotBound(_ needs: SlotNeeds) -> Bool { free(for: needs) < needs.slots }

    private func free(for needs: SlotNeeds) -> Int {
        (freeSlots[needs.lane] ?? 0) + (needs.isLight ? ahead[needs.lane] ?? 0 : 0)
    }

    private mutating func startWaiting() -> [RunID] {
        if isFrozen { return [] }
        var started: [RunID] = []
        var held: Set<LaneKind> = []
        for (run, entry) in waiting {
            if !held.contains(entry.needs.lane), fits(entry.needs) {
                take(run, entry)
                started.append(run)
            } else if isSlotBound(entry.needs) {
                // Those behind it must not take what it waits for.
                held.insert(entry.needs.lane)
            }
        }
        waiting.removeAll { started.contains($0.run) }
        return started
    }

    private mutating func take(_ run: RunID, _ entry: Entry) {
        running[run] = entry
        freeSlots[entry.needs.lane, default: 0] -= entry.needs.slots
        for (name, amount) in entry.needs.resources { freeResources[name, default: 0] -= amount }
    }

    private mutating func spend(queue: String, _ count: Int) {
        if let free = freeOfQueue[queue] { freeOfQueue[queue] = free - count }
    }
}
