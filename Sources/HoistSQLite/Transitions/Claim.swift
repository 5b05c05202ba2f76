import Hoist

extension JobStore {
    /// Hands ready jobs to the worker, claim by claim, the most urgent first and the oldest of those.
    func claim(_ request: WorkerTurn, of session: WorkerID, into result: inout TurnResult, now: Int64) throws {
        guard !request.claims.isEmpty, let worker = try workerNumber(session) else { return }
        try refreshLines()
        let rules = try queueRules()
        let opening = request.claims.compactMap { rules[$0.queue]?.opens(after: now) }.min()
        let due = try promoteDueJobs(request.claims, now: now)
        result.nextDue = [due, opening.map(JobDate.init(microsecondsSinceEpoch:))].compactMap(\.self).min()
        var budget = request.budget
        var takesSuspects = request.takesSuspects
        let starts = try startRules()
        for claim in request.claims where rules[claim.queue]?.isOpen(at: now) ?? true {
            let limit = budget.available(to: claim)
            if claim.jobNames.contains(where: { starts.limits(queue: claim.queue, name: $0) }) {
                let taken = try claimWithin(
                    starts, claim, limit: limit, of: session, worker: worker, takesSuspects: &takesSuspects,
                    into: &result, now: now)
                budget.spend(taken, on: claim)
                if taken > 0, rules[claim.queue]?.capacity != nil { madeRoom = true }
                continue
            }
            // One more than may be taken tells whether there is more.
            var candidates = try candidates(for: claim, limit: limit + 1, takesSuspects: takesSuspects)
            if candidates.count > limit {
                result.hasMore = true
                candidates.removeLast(candidates.count - limit)
            }
            var taken = 0
            for candidate in candidates {
                if candidate.isSuspect {
                    guard takesSuspects else { continue }
                    takesSuspects = false
                }
                guard let delivery = try take(candidate.sequence, claim, worker: worker, now: now) else { continue }
                result.deliveries.append(delivery)
                taken += 1
            }
            budget.spend(taken, on: claim)
            if taken > 0, rules[claim.queue]?.capacity != nil { madeRoom = true }
        }
    }

    private struct Candidate {
        var sequence: Int64
        var priority: Int64
        /// A worker has died with it.
        var isSuspect: Bool
    }

    /// The heads of the lines that the claim may take from, merged into one order.
    private func candidates(for claim: Claim, limit: Int, takesSuspects: Bool) throws -> [Candidate] {
        let known = knownLines(queue: claim.queue)
        var heads: [Candidate] = []
        var lineCount = 0
        for name in claim.jobNames {
            guard let line = known[name] else { continue }
            let before = heads.count
            let select = try sql(
                """
                SELECT seq, priority, lost FROM job INDEXED BY job_ready
                WHERE state = 0 AND line = ? AND (lost = 0 OR ?) ORDER BY priority DESC, seq LIMIT ?
                """)
            select.bind(line).bind(takesSuspects ? 1 as Int64 : 0).bind(Int64(limit))
            while try select.step() {
                heads.append(
                    Candidate(sequence: select.int(0), priority: select.int(1), isSuspect: select.int(2) > 0))
            }
            if heads.count > before { lineCount += 1 }
        }
        guard lineCount > 1 else { return heads }
        heads.sort { ($1.priority, $0.sequence) < ($0.priority, $1.sequence) }
        return Array(heads.prefix(limit))
    }

    func take(_ sequence: Int64, _ claim: Claim, worker: Int64, now: Int64) throws -> Delivery? {
        let select = try sql(
            """
            SELECT j.id, j.line, j.retries, j.token, j.lost, j.expires, j.unique_key, p.message
            FROM job j LEFT JOIN payload p ON p.seq = j.seq WHERE j.seq = ?
            """
        ).bind(sequence)
        guard try select.step() else { return nil }
        let id = select.text(0) ?? ""
        let line = try knownLine(select.int(1))
        let delivery = (select.int(3) + 1) & 0xFFFF
        let (retries, lost, expires) = (select.int(2), select.int(4), select.optionalInt(5))
        let key = select.text(6)
        let envelope = select.bytes(7)
        select.end()
        if let expires, expires <= now {
            try expire(sequence, now: now)
            return nil
        }
        let update = try sql(
            "UPDATE job SET state = 3, worker = ?, token = ?, started = ?, revision = revision + 1 WHERE seq = ?")
        try update.bind(worker).bind(delivery).bind(now).bind(sequence).run()
        if let key { try releaseKeyAtStart(key, of: id) }
        return Delivery(
            jobID: id, jobName: line.name, queue: line.queue, payload: .envelope(envelope), attempt: Int(retries) + 1,
            lostWorkers: Int(lost), token: DeliveryToken.make(sequence: sequence, delivery: delivery))
    }

    /// Makes delayed jobs ready whose time has come, of the lines that the claims may take from.
    /// - Returns: when the next one of them is due.
    private func promoteDueJobs(_ claims: [Claim], now: Int64) throws -> JobDate? {
        var nextDue: Int64?
        for claim in claims {
            let known = knownLines(queue: claim.queue)
            for name in claim.jobNames {
                guard let line = known[name], var due = try nextDueTime(line: line) else { continue }
                if due <= now {
                    // No more than this at a time, so that a million jobs which fall due together hold nobody up; the
                    // rest is due at once.
                    let update = try sql(
                        """
                        UPDATE job SET state = 0, due = NULL, revision = revision + 1 WHERE seq IN
                            (SELECT seq FROM job WHERE state IN (1, 2) AND line = ?1 AND due <= ?2 ORDER BY due LIMIT 1000)
                        """)
                    try update.bind(line).bind(now).run()
                    guard let next = try nextDueTime(line: line) else { continue }
                    due = next
                }
                nextDue = min(nextDue ?? due, due)
            }
        }
        return nextDue.map(JobDate.init(microsecondsSinceEpoch:))
    }

    private func nextDueTime(line: Int64) throws -> Int64? {
        let first = try sql(
            "SELECT due FROM job INDEXED BY job_due WHERE state IN (1, 2) AND line = ? ORDER BY due LIMIT 1"
        ).bind(line)
        defer { first.end() }
        return try first.step() ? first.int(0) : nil
    }
}
