import Hoist

extension JobStore {
    /// Hands ready jobs to the worker, claim by claim, the most urgent first and the oldest of those.
    func claim(_ request: Exchange, into result: inout ExchangeResult, now: Int64) throws {
        result.nextDue = try promoteDueJobs(now: now)
        guard !request.claims.isEmpty, let worker = try workerNumber(request.worker) else { return }
        try refreshLines()
        var budget = request.budget
        for claim in request.claims {
            let limit = budget.available(to: claim)
            // One more than may be taken tells whether there is more.
            var candidates = try candidates(for: claim, limit: limit + 1)
            if candidates.count > limit {
                result.hasMore = true
                candidates.removeLast(candidates.count - limit)
            }
            var taken = 0
            for candidate in candidates {
                guard let delivery = try take(candidate.sequence, claim, worker: worker, now: now) else { continue }
                result.deliveries.append(delivery)
                taken += 1
            }
            budget.spend(taken, on: claim)
        }
    }

    private struct Candidate {
        var sequence: Int64
        var priority: Int64
    }

    /// The heads of the lines that the claim may take from, merged into one order.
    private func candidates(for claim: Claim, limit: Int) throws -> [Candidate] {
        let known = knownLines(queue: claim.queue)
        var heads: [Candidate] = []
        var lineCount = 0
        for name in claim.jobNames {
            guard let line = known[name] else { continue }
            let before = heads.count
            let select = try sql(
                "SELECT seq, priority FROM job INDEXED BY job_ready WHERE state = 0 AND line = ? ORDER BY priority DESC, seq LIMIT ?")
            select.bind(line).bind(Int64(limit))
            while try select.step() { heads.append(Candidate(sequence: select.int(0), priority: select.int(1))) }
            if heads.count > before { lineCount += 1 }
        }
        guard lineCount > 1 else { return heads }
        heads.sort { ($1.priority, $0.sequence) < ($0.priority, $1.sequence) }
        return Array(heads.prefix(limit))
    }

    private func take(_ sequence: Int64, _ claim: Claim, worker: Int64, now: Int64) throws -> Delivery? {
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
            try end(sequence, as: .expired, now: now)
            return nil
        }
        let update = try sql("UPDATE job SET state = 3, worker = ?, token = ?, started = ?, revision = revision + 1 WHERE seq = ?")
        try update.bind(worker).bind(delivery).bind(now).bind(sequence).run()
        if let key { try releaseKeyAtStart(key) }
        return Delivery(
            jobID: id, jobName: line.name, queue: line.queue, payload: .envelope(envelope), attempt: Int(retries) + 1,
            lostWorkers: Int(lost), token: DeliveryToken.make(sequence: sequence, delivery: delivery))
    }

    /// Makes delayed jobs ready whose time has come.
    /// - Returns: when the next one is due.
    private func promoteDueJobs(now: Int64) throws -> JobDate? {
        while true {
            let first = try sql("SELECT due FROM job WHERE state IN (1, 2) ORDER BY due LIMIT 1")
            guard try first.step() else { return nil }
            let due = first.int(0)
            first.end()
            if due > now { return JobDate(microsecondsSinceEpoch: due) }
            let update = try sql(
                """
                UPDATE job SET state = 0, due = NULL, revision = revision + 1
                WHERE seq IN (SELECT seq FROM job WHERE state IN (1, 2) AND due <= ? ORDER BY due LIMIT 1000)
                """)
            guard try update.bind(now).run() > 0 else { return nil }
        }
    }
}
