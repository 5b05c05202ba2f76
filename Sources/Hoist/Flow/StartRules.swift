/// What limits say to a job that could start. Decided here for every backend that counts in a form of its own: which
/// scopes count a job, whether they let it start, and what a start uses up.
package struct StartRules: Sendable {
    /// What is counted together.
    package struct Scope: Sendable, Hashable {
        package var id: String
        package var limit: JobLimit
        /// What the limit was set for.
        package var target: LimitTarget
        /// Nil where all partitions are counted together.
        package var partition: String?
        /// Whether a job keeps its place in the scope while it is tried again.
        package var keepsPlace: Bool { limit.kind == .ordered }
    }

    package enum Verdict<Key: Sendable>: Sendable {
        case starts
        /// Not now. The time is known where a rate holds the job up.
        case waits(until: Int64?)
        /// Not before this job has been asked to stop.
        case waitsForEnd(of: Key)
        /// Never: as many jobs run, or newer ones wait, as the limit keeps.
        case drops
    }

    private let limits: [LimitTarget: [JobLimit]]
    private let aliases: [String: String]

    package init(_ limits: [LimitTarget: [JobLimit]] = [:], aliases: [String: String] = [:]) {
        self.limits = limits.filter { !$0.value.isEmpty }
        self.aliases = aliases
    }

    package var isEmpty: Bool { limits.isEmpty }

    /// The limits of a job: those of its queue, then those of its kind. Limits that were set for an alias itself apply
    /// to the alias.
    private func applying(_ queue: String, _ name: String) -> [(target: LimitTarget, limits: [JobLimit])] {
        let own = limits[.job(name)] != nil ? name : aliases[name] ?? name
        return [LimitTarget.queue(queue), .job(own)].compactMap { target in limits[target].map { (target, $0) } }
    }

    package func limits(queue: String, name: String) -> Bool { !applying(queue, name).isEmpty }

    private func has(_ queue: String, _ name: String, _ condition: (JobLimit) -> Bool) -> Bool {
        applying(queue, name).contains { $0.limits.contains(where: condition) }
    }

    /// Whether it makes a difference what the job belongs to.
    package func asksForPartition(queue: String, name: String) -> Bool {
        has(queue, name) { $0.scope.kind == .partition }
    }

    package func takesTurns(queue: String, name: String) -> Bool { has(queue, name) { $0.kind == .fair } }

    /// Whether the newest job counts, and older ones are stopped for it.
    package func replacesOld(queue: String, name: String) -> Bool {
        has(queue, name) { if case .running(_, .cancelOld) = $0.kind { true } else { false } }
    }

    /// Whether the limits of a target count the jobs of a name.
    package func isCounted(_ name: String, by target: LimitTarget) -> Bool {
        target.kind == .queue || target.name == (limits[.job(name)] != nil ? name : aliases[name] ?? name)
    }

    /// The scopes of partitions in which so many jobs may run at a time, and others wait: what stands in their ids in
    /// front of the partition and behind it.
    package func fullPartitions(queue: String, name: String) -> [(prefix: String, suffix: String, most: Int)] {
        applying(queue, name).flatMap { target, limits in
            limits.compactMap { limit -> (String, String, Int)? in
                guard limit.scope.kind == .partition else { return nil }
                switch limit.kind {
                case .running(let most, .wait): return (target.key + "\n=", "", most)
                case .ordered: return (target.key + "\n=", "\n!", 1)
                default: return nil
                }
            }
        }
    }

    /// - Parameter partition: empty for a job that belongs to none.
    package func scopes(queue: String, name: String, partition: String, worker: String) -> [Scope] {
        applying(queue, name).flatMap { target, limits in
            limits.enumerated().compactMap { number, limit -> Scope? in
                guard limit.kind != .fair, limit.scope.kind != .partition || !partition.isEmpty else { return nil }
                var id = target.key
                if limit.scope.kind == .partition { id += "\n=" + partition }
                if case .rate = limit.kind { id += "\n#\(number)" }
                if limit.kind == .ordered { id += "\n!" }
                if limit.scope.kind == .worker { id += "\n@" + worker }
                return Scope(
                    id: id, limit: limit, target: target, partition: limit.scope.kind == .partition ? partition : nil)
            }
        }
    }

    /// - Parameters:
    ///   - newer: how many newer jobs of a scope wait.
    ///   - counts: what is running, and what rates are used up.
    package func verdict<Counts: StartCounts>(
        on job: Counts.Key, _ scopes: [Scope], cost: Int, now: Int64, newer: (Scope) throws -> Int, _ counts: Counts
    ) rethrows -> Verdict<Counts.Key> {
        for scope in scopes {
            switch scope.limit.kind {
            case .rate(let count, let period, let burst):
                if cost == 0 { continue }
                let each = Double(period.inMicroseconds) / Double(count)
                let start = counts.rateUsed(until: scope.id) - Int64(bounded: Double(burst - 1) * each)
                if start > now { return .waits(until: start) }
            case .running(let most, let policy):
                if policy == .cancelOld, try newer(scope) >= most { return .drops }
                if counts.running(scope.id) < most || counts.isCounted(job, scope.id) { continue }
                if policy == .dropNew { return .drops }
                if policy == .cancelOld, let oldest = counts.oldest(scope.id) { return .waitsForEnd(of: oldest) }
                return .waits(until: nil)
            case .ordered:
                if counts.running(scope.id) > 0, !counts.isCounted(job, scope.id) { return .waits(until: nil) }
            case .fair: continue
            }
        }
        return .starts
    }

    /// Up to when a rate is used up after a start. At most a century ahead: larger numbers are not exact any more.
    package static func used(_ limit: JobLimit, until last: Int64, cost: Int, now: Int64) -> Int64? {
        guard case .rate(let count, let period, _) = limit.kind else { return nil }
        let more = Int64(bounded: Double(cost) * Double(period.inMicroseconds) / Double(count))
        return min(max(now, last) + min(more, 3_000_000_000_000_000), now + 3_000_000_000_000_000)
    }

    /// What a job that was handed out and never began gives back.
    package static func given(back limit: JobLimit, until last: Int64, cost: Int) -> Int64? {
        guard case .rate(let count, let period, _) = limit.kind else { return nil }
        return last - Int64(bounded: Double(cost) * Double(period.inMicroseconds) / Double(count))
    }

    /// Puts jobs into the order in which partitions take turns: those first whose turn was longest ago.
    package static func inTurns<Job>(
        _ jobs: [Job], partition: (Job) -> String?, lastTurn: (String) -> Int64
    ) -> [Job] {
        var groups: [String?: [Job]] = [:]
        var order: [String?] = []
        for job in jobs {
            let key = partition(job)
            if groups[key] == nil { order.append(key) }
            groups[key, default: []].append(job)
        }
        let turns = order.enumerated().map { (key: $1, turn: $1.map(lastTurn) ?? 0, index: $0) }
            .sorted { ($0.turn, $0.index) < ($1.turn, $1.index) }
        var arranged: [Job] = []
        arranged.reserveCapacity(jobs.count)
        var round = 0
        while arranged.count < jobs.count {
            for (key, _, _) in turns where round < groups[key]!.count { arranged.append(groups[key]![round]) }
            round += 1
        }
        return arranged
    }
}

/// What limits have counted so far.
package protocol StartCounts {
    associatedtype Key: Hashable, Sendable

    /// How many jobs a scope counts.
    func running(_ scope: String) -> Int
    func isCounted(_ job: Key, _ scope: String) -> Bool
    /// The job that has been counted longest.
    func oldest(_ scope: String) -> Key?
    /// Up to when a rate is used up; 0 for one that is not.
    func rateUsed(until scope: String) -> Int64
}
