public import Hoist

extension SQLiteBackend: LimitKeeping {
    public func declareLimits(_ limits: [LimitTarget: [JobLimit]], aliases: [String: String]) async throws {
        guard !limits.isEmpty || !aliases.isEmpty else { return }
        let hasChanged = try await writer.transaction("declare limits") { store in
            for (alias, name) in aliases {
                try store.sql("INSERT OR REPLACE INTO limit_alias (alias, name) VALUES (?, ?)").bind(alias).bind(name)
                    .run()
            }
            var hasChanged = false
            for (target, limits) in limits {
                // What is a kind of its own now may have been an alias before.
                if target.kind == .job {
                    try store.sql("DELETE FROM limit_alias WHERE alias = ?").bind(target.name).run()
                }
                if try store.set(limits.isEmpty ? nil : limits, for: target, origin: "declared") { hasChanged = true }
            }
            return hasChanged
        }
        if hasChanged { ringReady() }
    }

    public func setLimits(_ limits: [JobLimit]?, for target: LimitTarget) async throws {
        let hasChanged = try await writer.transaction("set limits") { store in
            try store.set(limits, for: target, origin: "set")
        }
        if hasChanged { ringReady() }
    }

    public func limits() async throws -> [LimitTarget: [JobLimit]] {
        try await writer.transaction("read limits") { try $0.limitsInForce().filter { !$0.value.isEmpty } }
    }
}

/// What limits have counted, as the transaction under way sees it.
private final class StoredCounts: StartCounts {
    private let store: JobStore

    init(_ store: JobStore) { self.store = store }

    /// A count that cannot be read counts as nothing here; the next statement of the transaction fails with the reason.
    private func number(_ statement: () throws -> PreparedStatement) -> Int64? {
        guard let select = try? statement(), (try? select.step()) == true else { return nil }
        defer { select.end() }
        return select.optionalInt(0)
    }

    func running(_ scope: String) -> Int {
        Int(number { try store.sql("SELECT count(*) FROM permit WHERE scope = ?").bind(scope) } ?? 0)
    }

    func isCounted(_ job: Int64, _ scope: String) -> Bool {
        number { try store.sql("SELECT 1 FROM permit WHERE scope = ? AND seq = ?").bind(scope).bind(job) } != nil
    }

    func oldest(_ scope: String) -> Int64? {
        number { try store.sql("SELECT seq FROM permit WHERE scope = ? ORDER BY since, seq LIMIT 1").bind(scope) }
    }

    /// Whether a job keeps its place in an ordered partition.
    func holdsPlace(_ job: Int64) throws -> Bool {
        number { try store.sql("SELECT 1 FROM permit WHERE seq = ? AND keeps_place = 1").bind(job) } != nil
    }

    func rateUsed(until scope: String) -> Int64 {
        number { try store.sql("SELECT used_until FROM start_rate WHERE scope = ?").bind(scope) } ?? 0
    }
}

extension JobStore {
    func limitsInForce() throws -> [LimitTarget: [JobLimit]] {
        guard try knownFlow().hasLimits else { return [:] }
        // What a person has set comes last, and counts.
        let select = try sql("SELECT target, limits FROM start_limit ORDER BY origin")
        var limits: [LimitTarget: [JobLimit]] = [:]
        while try select.step() {
            guard let target = select.text(0).flatMap(LimitTarget.init(key:)),
                let values = (try? JSONText.parse(select.bytes(1)))?.arrayValue
            else { continue }
            limits[target] = values.compactMap(JobLimit.init)
        }
        return limits
    }

    func startRules() throws -> StartRules {
        let limits = try limitsInForce()
        guard !limits.isEmpty else { return StartRules() }
        let select = try sql("SELECT alias, name FROM limit_alias")
        var aliases: [String: String] = [:]
        while try select.step() { aliases[select.text(0) ?? ""] = select.text(1) ?? "" }
        return StartRules(limits, aliases: aliases)
    }

    /// - Returns: whether anything has changed.
    func set(_ limits: [JobLimit]?, for target: LimitTarget, origin: String) throws -> Bool {
        flow = nil
        guard let limits else {
            return try sql("DELETE FROM start_limit WHERE target = ? AND origin = ?").bind(target.key).bind(origin)
                .run() > 0
        }
        let bytes = JSONWriter.bytes(of: .array(limits.map(\.wireValue)))
        let insert = try sql(
            """
            INSERT INTO start_limit (target, origin, limits) VALUES (?, ?, ?)
            ON CONFLICT (target, origin) DO UPDATE SET limits = excluded.limits WHERE limits <> excluded.limits
            """)
        return try insert.bind(target.key).bind(origin).bind(bytes).run() > 0
    }

    private struct Candidate {
        var sequence: Int64
        var name: String
        var priority: Int64
        var isSuspect: Bool
        var partition: String?
        var cost: Int
    }

    /// How many jobs a claim looks at, the first of each partition.
    private static let lookLimit: Int64 = 2000

    /// Hands out jobs that limits let start.
    /// - Returns: how many.
    func claimWithin(
        _ rules: StartRules, _ claim: Claim, limit: Int, of session: WorkerID, worker: Int64,
        takesSuspects: inout Bool, into result: inout TurnResult, now: Int64
    ) throws -> Int {
        let queue = claim.queue
        var candidates = try candidates(for: claim, rules, limit: limit, takesSuspects: takesSuspects)
        for index in candidates.indices where candidates[index].partition == nil {
            let candidate = candidates[index]
            guard rules.asksForPartition(queue: queue, name: candidate.name) else { continue }
            // Its producer did not say.
            let partition = try message(of: candidate.sequence).flatMap { claim.partition?($0) } ?? ""
            try sql("UPDATE job SET partition = ? WHERE seq = ?").bind(partition).bind(candidate.sequence).run()
            candidates[index].partition = partition
        }
        if candidates.contains(where: { rules.takesTurns(queue: queue, name: $0.name) }) {
            let turns = try partitionTurns(queue)
            candidates = StartRules.inTurns(
                candidates,
                partition: { rules.takesTurns(queue: queue, name: $0.name) ? $0.partition ?? "" : nil },
                lastTurn: { turns[$0] ?? 0 })
        }
        let counts = StoredCounts(self)
        var taken = 0
        for candidate in candidates {
            if taken >= limit {
                result.hasMore = true
                break
            }
            if candidate.isSuspect, !takesSuspects { continue }
            let partition = candidate.partition ?? ""
            let scopes = rules.scopes(queue: queue, name: candidate.name, partition: partition, worker: session)
            let verdict = try rules.verdict(
                on: candidate.sequence, scopes, cost: candidate.cost, now: now,
                newer: { scope in try newer(than: candidate, scope, rules, queue: queue) },
                counts)
            switch verdict {
            case .starts:
                if try !counts.holdsPlace(candidate.sequence), try isBehindOthers(candidate, scopes, claim) { continue }
                guard let delivery = try take(candidate.sequence, claim, worker: worker, now: now) else {
                    // It was late, and there may be more behind it.
                    result.hasMore = true
                    continue
                }
                if candidate.isSuspect { takesSuspects = false }
                result.deliveries.append(delivery)
                taken += 1
                try start(candidate.sequence, scopes, cost: candidate.cost, counts, now: now)
                if rules.takesTurns(queue: queue, name: candidate.name) { try noteTurn(queue, partition) }
            case .waits(let until?):
                let date = JobDate(microsecondsSinceEpoch: until)
                result.nextDue = min(result.nextDue ?? date, date)
            case .waits(nil): continue
            case .waitsForEnd(let oldest): try askToStop(oldest)
            case .drops:
                var transition = Transition.waitedInVain(.cancelled, at: JobDate(microsecondsSinceEpoch: now))
                transition.failure = .dropped
                _ = try apply(transition, to: candidate.sequence, now: now)
                result.hasMore = true
            }
        }
        return taken
    }

    /// The jobs that a claim may take, the most urgent first and the oldest of those. Of each partition no more than
    /// there is room for, and none of one that is full, so that none hides another; but always those that hold a place.
    private func candidates(
        for claim: Claim, _ rules: StartRules, limit: Int, takesSuspects: Bool
    ) throws -> [Candidate] {
        let known = knownLines(queue: claim.queue)
        var found: [(candidate: Candidate, priority: Int64)] = []
        for name in claim.jobNames {
            guard let line = known[name] else { continue }
            let select: PreparedStatement
            if rules.asksForPartition(queue: claim.queue, name: name) {
                select = try sql(
                    """
                    SELECT seq, priority, lost, partition, cost FROM (
                        SELECT seq, priority, lost, partition, cost,
                            seq IN (SELECT seq FROM permit WHERE keeps_place = 1) AS has_place,
                            row_number() OVER (
                                PARTITION BY coalesce(partition, seq) ORDER BY priority DESC, seq) AS place
                        FROM job WHERE state = 0 AND line = ?1 AND (lost = 0 OR ?2)
                    ) WHERE has_place OR place <= ?3 AND (coalesce(partition, '') = '' OR (
                        (SELECT count(*) FROM permit WHERE scope = ?4 || partition || ?5) < ?6
                        AND (SELECT count(*) FROM permit WHERE scope = ?7 || partition || ?8) < ?9))
                    ORDER BY has_place DESC, place, priority DESC, seq LIMIT ?10
                    """)
                select.bind(line).bind(takesSuspects ? 1 as Int64 : 0).bind(Int64(limit) + 1)
                var full = rules.fullPartitions(queue: claim.queue, name: name).prefix(2)
                for _ in 0..<2 {
                    let scope = full.popFirst()
                    select.bind(scope?.prefix ?? "").bind(scope?.suffix ?? "").bind(
                        scope.map { Int64($0.most) } ?? .max)
                }
                select.bind(Self.lookLimit)
            } else {
                select = try sql(
                    """
                    SELECT seq, priority, lost, partition, cost FROM job INDEXED BY job_ready
                    WHERE state = 0 AND line = ? AND (lost = 0 OR ?) ORDER BY priority DESC, seq LIMIT ?
                    """)
                select.bind(line).bind(takesSuspects ? 1 as Int64 : 0).bind(Int64(limit) + 1)
            }
            while try select.step() {
                let candidate = Candidate(
                    sequence: select.int(0), name: name, priority: select.int(1), isSuspect: select.int(2) > 0,
                    partition: select.text(3), cost: Int(select.optionalInt(4) ?? 1))
                found.append((candidate, select.int(1)))
            }
        }
        found.sort { ($1.priority, $0.candidate.sequence) < ($0.priority, $1.candidate.sequence) }
        return found.map(\.candidate)
    }

    /// The lines whose jobs a scope counts, of this queue.
    private func lines(of scope: StartRules.Scope, _ rules: StartRules, queue: String) -> [String: Int64] {
        let known = knownLines(queue: queue)
        guard scope.target.kind == .job else { return known }
        return known.filter { rules.isCounted($0.key, by: scope.target) }
    }

    /// How many newer jobs of a scope wait.
    private func newer(
        than candidate: Candidate, _ scope: StartRules.Scope, _ rules: StartRules, queue: String
    ) throws -> Int {
        var count = 0
        for line in lines(of: scope, rules, queue: queue).values {
            let select = try sql(
                "SELECT count(*) FROM job WHERE state = 0 AND line = ? AND seq > ? AND (? IS NULL OR partition = ?)")
            select.bind(line).bind(candidate.sequence).bind(scope.partition).bind(scope.partition)
            if try select.step() { count += Int(select.int(0)) }
            select.end()
        }
        return count
    }

    /// Whether a job of another kind comes before in an ordered queue: this worker may not even know its kind.
    private func isBehindOthers(
        _ candidate: Candidate, _ scopes: [StartRules.Scope], _ claim: Claim
    ) throws -> Bool {
        for scope in scopes where scope.keepsPlace && scope.target.kind == .queue {
            for (name, line) in knownLines(queue: claim.queue) where !claim.jobNames.contains(name) {
                let select = try sql(
                    """
                    SELECT 1 FROM job WHERE state = 0 AND line = ?1 AND partition = ?2
                        AND (priority > ?3 OR priority = ?3 AND seq < ?4) LIMIT 1
                    """)
                select.bind(line).bind(scope.partition).bind(candidate.priority).bind(candidate.sequence)
                let isBehind = try select.step()
                select.end()
                if isBehind { return true }
            }
        }
        return false
    }

    private func start(
        _ sequence: Int64, _ scopes: [StartRules.Scope], cost: Int, _ counts: StoredCounts, now: Int64
    ) throws {
        for scope in scopes {
            let used = counts.rateUsed(until: scope.id)
            if let until = StartRules.used(scope.limit, until: used, cost: cost, now: now) {
                try sql("INSERT OR REPLACE INTO start_rate (scope, used_until) VALUES (?, ?)").bind(scope.id).bind(
                    until
                )
                .run()
            } else {
                try sql(
                    "INSERT INTO permit (scope, seq, since, keeps_place) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
                ).bind(scope.id).bind(sequence).bind(now).bind(scope.keepsPlace ? 1 as Int64 : 0).run()
                flow?.hasPermits = true
            }
        }
    }

    /// Gives back what limits have counted for a job that has ended.
    func releasePermits(of sequence: Int64) throws {
        guard try knownFlow().hasPermits else { return }
        let released = try sql("DELETE FROM permit WHERE seq = ?").bind(sequence).run()
        if released > 0 { limitsHaveRoom = true }
    }

    /// The same for a job that may go back to its queue, where it keeps its place in an ordered partition.
    func releasePermits(of sequence: Int64, after transition: Transition) throws {
        if !transition.countsStart { try giveBackRates(of: sequence) }
        guard case .back = transition.move else { return try releasePermits(of: sequence) }
        guard try knownFlow().hasPermits else { return }
        let released = try sql("DELETE FROM permit WHERE seq = ? AND keeps_place = 0").bind(sequence).run()
        if released > 0 { limitsHaveRoom = true }
    }

    /// A job that was handed out and never began has used up nothing.
    private func giveBackRates(of sequence: Int64) throws {
        let rules = try startRules()
        guard !rules.isEmpty else { return }
        let select = try sql(
            """
            SELECT j.line, j.partition, j.cost, w.session FROM job j LEFT JOIN worker w ON w.id = j.worker WHERE j.seq = ?
            """
        ).bind(sequence)
        guard try select.step() else { return }
        let (number, partition) = (select.int(0), select.text(1) ?? "")
        let (cost, session) = (Int(select.optionalInt(2) ?? 1), select.text(3) ?? "")
        select.end()
        let line = try knownLine(number)
        let counts = StoredCounts(self)
        for scope in rules.scopes(queue: line.queue, name: line.name, partition: partition, worker: session) {
            guard let until = StartRules.given(back: scope.limit, until: counts.rateUsed(until: scope.id), cost: cost)
            else { continue }
            try sql("UPDATE start_rate SET used_until = ? WHERE scope = ?").bind(until).bind(scope.id).run()
        }
    }

    private func askToStop(_ sequence: Int64) throws {
        let update = try sql(
            "UPDATE job SET cancel = 1, revision = revision + 1 WHERE seq = ? AND state = 3 AND cancel = 0")
        // Its worker must hear of it.
        if try update.bind(sequence).run() > 0 { limitsHaveRoom = true }
    }

    /// Where only the newest job counts, the oldest that runs is asked to stop as a newer one comes.
    func stopOlder(for messages: [Message]) throws {
        let rules = try startRules()
        guard !rules.isEmpty else { return }
        let counts = StoredCounts(self)
        for message in messages where message.headers.eta == nil {
            guard rules.replacesOld(queue: message.queue, name: message.jobName) else { continue }
            let scopes = rules.scopes(
                queue: message.queue, name: message.jobName, partition: message.headers.hoist.partition ?? "",
                worker: "")
            for scope in scopes {
                guard case .running(let most, .cancelOld) = scope.limit.kind, counts.running(scope.id) >= most,
                    let oldest = counts.oldest(scope.id)
                else { continue }
                try askToStop(oldest)
            }
        }
    }

    private func partitionTurns(_ queue: String) throws -> [String: Int64] {
        let select = try sql("SELECT partition, turn FROM partition_turn WHERE queue = ?").bind(queue)
        var turns: [String: Int64] = [:]
        while try select.step() { turns[select.text(0) ?? ""] = select.int(1) }
        return turns
    }

    private func noteTurn(_ queue: String, _ partition: String) throws {
        try sql(
            """
            INSERT INTO partition_turn (queue, partition, turn)
                SELECT ?1, ?2, coalesce(max(turn), 0) + 1 FROM partition_turn WHERE queue = ?1
            ON CONFLICT (queue, partition) DO UPDATE SET turn = excluded.turn
            """
        ).bind(queue).bind(partition).run()
    }
}
