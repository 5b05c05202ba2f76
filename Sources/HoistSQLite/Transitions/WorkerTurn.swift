import Hoist

extension SQLiteBackend {
    func turn(_ request: WorkerTurn, of worker: WorkerID) async throws -> TurnResult {
        let (result, madeReady, notices) = try await writer.transaction("turn jobs") { [clock] store in
            let (now, uptime) = (clock.now.microsecondsSinceEpoch, clock.uptime)
            let tookOver = try store.takeOver(now: now, uptime: uptime)
            var (result, putBack) = try store.settle(request, of: worker, now: now)
            try store.claim(request, of: worker, into: &result, now: now)
            // For this worker if it did not ask yet, for others if it cannot.
            if store.limitsHaveRoom { result.hasMore = true }
            let mayGoOn = tookOver || putBack || store.madeRoom || store.limitsHaveRoom
            return (result, mayGoOn, store.takeNotices())
        }
        jobNotices.tell(notices)
        if madeReady { ringReady() }
        if !request.settlements.isEmpty || !request.progress.isEmpty || !result.deliveries.isEmpty { ringChanged() }
        return result
    }
}

extension JobStore {
    func settle(_ request: WorkerTurn, of session: WorkerID, now: Int64) throws -> (TurnResult, putBack: Bool) {
        var result = TurnResult()
        var putBack = false
        guard let worker = try workerNumber(session) else {
            result.lost = request.settlements.map(\.jobID) + request.progress.map(\.jobID)
            return (result, false)
        }
        let keysExist = try anyKeys()
        for settlement in request.settlements {
            switch try settle(settlement, worker: worker, keysExist: keysExist, now: now) {
            case .lost: result.lost.append(settlement.jobID)
            case .ended: break
            case .putBack: putBack = true
            }
        }
        for report in request.logs where try isHeld(report.jobID, report.token, worker: worker) {
            try store(report.log, of: DeliveryToken.sequence(report.token))
        }
        for report in request.progress {
            guard try store(report, worker: worker) else {
                result.lost.append(report.jobID)
                continue
            }
        }
        if let holding = request.holding {
            if try putBackJobs(of: worker, except: holding, now: now, Transition.neverBegun) { putBack = true }
        }
        let cancelled = try sql("SELECT id FROM job WHERE worker = ? AND state = 3 AND cancel = 1").bind(worker)
        while try cancelled.step() { result.cancellations.append(cancelled.text(0) ?? "") }
        return (result, putBack)
    }

    private enum Settled { case lost, ended, putBack }

    private func anyKeys() throws -> Bool {
        let select = try sql("SELECT 1 FROM unique_key LIMIT 1")
        defer { select.end() }
        return try select.step()
    }

    private func settle(_ settlement: Settlement, worker: Int64, keysExist: Bool, now: Int64) throws -> Settled {
        let sequence = DeliveryToken.sequence(settlement.token)
        if case .succeeded(let output, let retention) = settlement.outcome, retention != 0, settlement.storesResult {
            return try succeed(settlement, sequence, output, retention, worker: worker, keysExist: keysExist, now: now)
        }
        guard let facts = try facts(settlement, worker: worker) else { return .lost }
        if case .snoozed(let date, closesQueue: true) = settlement.outcome, let queue = settlement.facts?.queue {
            try changeRules(of: queue) { $0.close(until: date.microsecondsSinceEpoch) }
        }
        try storeDetails(settlement, sequence)
        let isReady = try apply(Transition(settlement, of: facts), to: sequence, now: now)
        if settlement.leavesNoRecord { try delete(sequence) }
        return isReady ? .putBack : .ended
    }

    /// Stores what a transition says.
    /// - Returns: whether the job went back to its queue.
    func apply(_ transition: Transition, to sequence: Int64, now: Int64) throws -> Bool {
        let transition = try transition.continued(try message(of: sequence))
        guard transition.followUps?.replacesJob != true else {
            // What takes its place has its id.
            _ = try store(transition, of: sequence, now: now)
            return try store(transition.followUps, now: now)
        }
        let isFollowed = try store(transition.followUps, now: now)
        return try store(transition, of: sequence, now: now) || isFollowed
    }

    private func store(_ transition: Transition, of sequence: Int64, now: Int64) throws -> Bool {
        try releasePermits(of: sequence, after: transition)
        if case .end(_, _, .nothing) = transition.move {
            try releaseKeyAtEnd(of: sequence, now: now)
            try delete(sequence)
            return false
        }
        if let change = transition.change { try rewriteMessage(sequence, change.apply) }
        if let attempt = transition.attempt { try append(attempt, to: sequence) }
        if let failure = transition.failure { try store(failure, of: sequence) }
        if let output = transition.output { try store(output, of: sequence) }
        if transition.countsDeath {
            try sql("UPDATE job SET lost = lost + 1 WHERE seq = ?").bind(sequence).run()
        }
        switch transition.move {
        case .end(let state, let date, let kept):
            try end(sequence, as: StoredState(state), now: date.microsecondsSinceEpoch, kept: kept)
            return false
        case .back(let state, let due, _):
            // Its number keeps a job in front of those that came after it.
            let due = due?.microsecondsSinceEpoch
            let isDue = due.map { $0 <= now } ?? true
            let update = try sql(
                """
                UPDATE job SET state = ?, due = ?, retries = retries + ?, worker = NULL, revision = revision + 1
                WHERE seq = ?
                """)
            update.bind(isDue ? StoredState.waiting.rawValue : StoredState(state).rawValue).bind(isDue ? nil : due)
            try update.bind(transition.spendsAttempt ? 1 as Int64 : 0).bind(sequence).run()
            return true
        }
    }

    /// The common case, in as few statements as it takes.
    private func succeed(
        _ settlement: Settlement, _ sequence: Int64, _ output: [UInt8], _ retention: Double?, worker: Int64,
        keysExist: Bool, now: Int64
    ) throws -> Settled {
        let ended = settlement.finishedAt.microsecondsSinceEpoch
        let update = try sql(
            """
            UPDATE job SET state = 4, ended = ?1, purge = ?1 + coalesce(?2, retention, ?3), revision = revision + 1
            WHERE seq = ?4 AND state = 3 AND worker = ?5 AND token = ?6 AND id = ?7
            """)
        update.bind(ended).bind(retention.map { Duration(boundedSeconds: $0).inMicroseconds }).bind(
            rules.resultRetention)
        update.bind(sequence).bind(worker).bind(DeliveryToken.delivery(settlement.token)).bind(settlement.jobID)
        guard try update.run() == 1 else { return .lost }
        try store(output, of: sequence)
        try storeDetails(settlement, sequence)
        if keysExist { try releaseKeyAtEnd(of: sequence, now: now) }
        try releasePermits(of: sequence)
        return try store(settlement.followUps, now: now) ? .putBack : .ended
    }

    /// What is known of an attempt besides its outcome.
    private func storeDetails(_ settlement: Settlement, _ sequence: Int64) throws {
        if let usage = settlement.usage {
            try sql(
                "INSERT INTO result (seq, usage) VALUES (?, ?) ON CONFLICT (seq) DO UPDATE SET usage = excluded.usage"
            )
            .bind(sequence).bind(StoredJSON.encode(usage)).run()
        }
        if let log = settlement.log { try store(log, of: sequence) }
    }

    private func store(_ log: JobLog, of sequence: Int64) throws {
        try sql("INSERT INTO job_log (seq, body) VALUES (?, ?) ON CONFLICT (seq) DO UPDATE SET body = excluded.body")
            .bind(sequence).bind(StoredJSON.encode(log) ?? []).run()
    }

    /// Whether this worker holds the job by this delivery.
    private func isHeld(_ id: JobID, _ token: Int64, worker: Int64) throws -> Bool {
        let select = try sql("SELECT 1 FROM job WHERE seq = ? AND state = 3 AND worker = ? AND token = ? AND id = ?")
        select.bind(DeliveryToken.sequence(token)).bind(worker).bind(DeliveryToken.delivery(token)).bind(id)
        defer { select.end() }
        return try select.step()
    }

    /// The facts of the delivery, if this worker holds the job by it.
    private func facts(_ settlement: Settlement, worker: Int64) throws -> DeliveryFacts? {
        let select = try sql(
            """
            SELECT j.retries, j.cancel, j.at_most_once, j.lost, w.name FROM job j JOIN worker w ON w.id = j.worker
            WHERE j.seq = ? AND j.state = 3 AND j.worker = ? AND j.token = ? AND j.id = ?
            """)
        select.bind(DeliveryToken.sequence(settlement.token)).bind(worker)
        select.bind(DeliveryToken.delivery(settlement.token)).bind(settlement.jobID)
        defer { select.end() }
        guard try select.step() else { return nil }
        return DeliveryFacts(
            attempt: Int(select.int(0)) + 1, worker: select.text(4), lostWorkers: Int(select.int(3)),
            isAtMostOnce: select.int(2) == 1, isCancelRequested: select.int(1) == 1)
    }

    /// Puts a job that has not ended into its last state.
    func end(_ sequence: Int64, as state: StoredState, now: Int64, kept: Transition.Retention = .standard) throws {
        let update = try sql(
            """
            UPDATE job SET state = ?1, ended = ?2, purge = ?2 + coalesce(?3, retention, ?4), due = NULL,
                revision = revision + 1 WHERE seq = ?5
            """)
        let fixed: Int64? =
            switch kept {
            case .nothing: 0
            case .seconds(let seconds): Duration(boundedSeconds: seconds).inMicroseconds
            case .standard: nil
            case .deadLetter: rules.deadLetterRetention
            }
        try update.bind(state.rawValue).bind(now).bind(fixed).bind(rules.resultRetention).bind(sequence).run()
        try releaseKeyAtEnd(of: sequence, now: now)
    }

    private func store(_ output: [UInt8], of sequence: Int64) throws {
        // A job without an output needs no row.
        guard output != [0x6E, 0x75, 0x6C, 0x6C] else { return }
        let insert = try sql(
            "INSERT INTO result (seq, output) VALUES (?, ?) ON CONFLICT (seq) DO UPDATE SET output = excluded.output")
        try insert.bind(sequence).bind(output).run()
    }

    func store(_ failure: JobFailure, of sequence: Int64) throws {
        try sql(
            "INSERT INTO result (seq, failure) VALUES (?, ?) ON CONFLICT (seq) DO UPDATE SET failure = excluded.failure"
        )
        .bind(sequence).bind(StoredJSON.encode(failure)).run()
    }

    private func store(_ report: ProgressReport, worker: Int64) throws -> Bool {
        let sequence = DeliveryToken.sequence(report.token)
        let update = try sql(
            "UPDATE job SET revision = revision + 1 WHERE seq = ? AND state = 3 AND worker = ? AND token = ? AND id = ?"
        )
        update.bind(sequence).bind(worker)
        guard try update.bind(DeliveryToken.delivery(report.token)).bind(report.jobID).run() == 1 else { return false }
        try sql(
            "INSERT INTO result (seq, progress) VALUES (?, ?) ON CONFLICT (seq) DO UPDATE SET progress = excluded.progress"
        )
        .bind(sequence).bind(StoredJSON.encode(report.progress)).run()
        return true
    }

    func append(_ attempt: AttemptRecord, to sequence: Int64) throws {
        let insert = try sql(
            "INSERT INTO attempt (seq, ordinal, body) SELECT ?1, coalesce(max(ordinal), 0) + 1, ?2 FROM attempt WHERE seq = ?1"
        )
        try insert.bind(sequence).bind(StoredJSON.encode(attempt)).run()
        // A job that is snoozed for ever must not grow for ever.
        try sql(
            "DELETE FROM attempt WHERE seq = ?1 AND ordinal <= (SELECT max(ordinal) FROM attempt WHERE seq = ?1) - 100"
        )
        .bind(sequence).run()
    }

    func delete(_ sequence: Int64) throws {
        try releasePermits(of: sequence)
        try sql("DELETE FROM job WHERE seq = ?").bind(sequence).run()
        try sql("DELETE FROM payload WHERE seq = ?").bind(sequence).run()
        try sql("DELETE FROM result WHERE seq = ?").bind(sequence).run()
        try sql("DELETE FROM attempt WHERE seq = ?").bind(sequence).run()
        try sql("DELETE FROM job_log WHERE seq = ?").bind(sequence).run()
    }
}

/// Small values beside a job, as JSON.
enum StoredJSON {
    static func encode(_ value: some Encodable) -> [UInt8]? { try? JSONText.encode(value) }
    static func decode<T: Decodable>(_ type: T.Type, _ bytes: [UInt8]) -> T? { try? JSONText.decode(type, from: bytes) }
}
