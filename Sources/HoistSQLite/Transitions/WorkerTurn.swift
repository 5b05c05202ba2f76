public import Hoist

extension SQLiteBackend {
    public func turn(_ request: WorkerTurn) async throws -> TurnResult {
        let (result, madeReady) = try await writer.transaction("turn jobs") { [clock] store in
            let (now, uptime) = (clock.now.microsecondsSinceEpoch, clock.uptime)
            let tookOver = try store.takeOver(now: now, uptime: uptime)
            var (result, putBack) = try store.settle(request, now: now)
            try store.claim(request, into: &result, now: now)
            return (result, tookOver || putBack)
        }
        if madeReady { ringReady() }
        if !request.settlements.isEmpty || !request.progress.isEmpty || !result.deliveries.isEmpty { ringChanged() }
        return result
    }
}

extension JobStore {
    func settle(_ request: WorkerTurn, now: Int64) throws -> (TurnResult, putBack: Bool) {
        var result = TurnResult()
        var putBack = false
        guard let worker = try workerNumber(request.worker) else {
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
            if try putBackJobs(of: worker, except: holding, now: now) { putBack = true }
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
        if case .succeeded(let output, let retention) = settlement.outcome, retention != 0 {
            return try succeed(settlement, sequence, output, retention, worker: worker, keysExist: keysExist, now: now)
        }
        guard let held = try heldJob(settlement, worker: worker) else { return .lost }
        var attempt = AttemptRecord(
            number: held.retries + 1, worker: held.workerName, startedAt: settlement.startedAt,
            endedAt: settlement.finishedAt,
            outcome: settlement.outcome.label, failure: nil, usage: settlement.usage)
        try storeDetails(settlement, sequence)
        switch settlement.outcome {
        case .succeeded:
            try releaseKeyAtEnd(of: sequence, now: now)
            try delete(sequence)
            return .ended
        case .failed(let failure):
            attempt.failure = failure
            try append(attempt, to: sequence)
            try countDeath(failure, of: sequence)
            try end(sequence, as: .failed, failure: failure, now: settlement.finishedAt.microsecondsSinceEpoch)
            return .ended
        case .retry(let date, let failure, let revision):
            attempt.failure = failure
            if let revision { try rewriteMessage(sequence, revision.apply) }
            try append(attempt, to: sequence)
            try store(failure, of: sequence)
            try countDeath(failure, of: sequence)
            return try putBack(
                sequence, as: .retrying, due: date.microsecondsSinceEpoch, spendsAttempt: true,
                isCancelled: held.isCancelled, now: now)
        case .snoozed(let date, _):
            try append(attempt, to: sequence)
            return try putBack(
                sequence, as: .scheduled, due: date.microsecondsSinceEpoch, spendsAttempt: false,
                isCancelled: held.isCancelled, now: now)
        case .handedBack:
            try append(attempt, to: sequence)
            if held.isAtMostOnce {
                try end(sequence, as: .failed, failure: .stoppedAtMostOnce, now: now)
                return .ended
            }
            return try putBack(
                sequence, as: .waiting, due: nil, spendsAttempt: false, isCancelled: held.isCancelled, now: now)
        case .notStarted:
            return try putBack(
                sequence, as: .waiting, due: nil, spendsAttempt: false, isCancelled: held.isCancelled, now: now)
        case .cancelled:
            try append(attempt, to: sequence)
            try end(sequence, as: .cancelled, now: settlement.finishedAt.microsecondsSinceEpoch)
            return .ended
        case .expired:
            try end(sequence, as: .expired, now: settlement.finishedAt.microsecondsSinceEpoch)
            return .ended
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
        if output != [0x6E, 0x75, 0x6C, 0x6C] {
            try sql(
                "INSERT INTO result (seq, output) VALUES (?, ?) ON CONFLICT (seq) DO UPDATE SET output = excluded.output"
            )
            .bind(sequence).bind(output).run()
        }
        try storeDetails(settlement, sequence)
        if keysExist { try releaseKeyAtEnd(of: sequence, now: now) }
        return .ended
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

    /// A process died of the job; the backend counts it with the workers that did.
    private func countDeath(_ failure: JobFailure, of sequence: Int64) throws {
        guard failure.isDeath else { return }
        try sql("UPDATE job SET lost = lost + 1 WHERE seq = ?").bind(sequence).run()
    }

    /// Whether this worker holds the job by this delivery.
    private func isHeld(_ id: JobID, _ token: Int64, worker: Int64) throws -> Bool {
        let select = try sql("SELECT 1 FROM job WHERE seq = ? AND state = 3 AND worker = ? AND token = ? AND id = ?")
        select.bind(DeliveryToken.sequence(token)).bind(worker).bind(DeliveryToken.delivery(token)).bind(id)
        defer { select.end() }
        return try select.step()
    }

    private struct HeldJob {
        var retries: Int
        var isCancelled: Bool
        var isAtMostOnce: Bool
        var workerName: String?
    }

    /// The job, if this worker holds it by this delivery.
    private func heldJob(_ settlement: Settlement, worker: Int64) throws -> HeldJob? {
        let select = try sql(
            """
            SELECT j.retries, j.cancel, j.at_most_once, w.name FROM job j JOIN worker w ON w.id = j.worker
            WHERE j.seq = ? AND j.state = 3 AND j.worker = ? AND j.token = ? AND j.id = ?
            """)
        select.bind(DeliveryToken.sequence(settlement.token)).bind(worker).bind(
            DeliveryToken.delivery(settlement.token))
        select.bind(settlement.jobID)
        defer { select.end() }
        guard try select.step() else { return nil }
        return HeldJob(
            retries: Int(select.int(0)), isCancelled: select.int(1) == 1, isAtMostOnce: select.int(2) == 1,
            workerName: select.text(3))
    }

    private func putBack(
        _ sequence: Int64, as state: StoredState, due: Int64?, spendsAttempt: Bool, isCancelled: Bool, now: Int64
    ) throws -> Settled {
        if isCancelled {
            try end(sequence, as: .cancelled, now: now)
            return .ended
        }
        let isDue = due.map { $0 <= now } ?? true
        let update = try sql(
            """
            UPDATE job SET state = ?, due = ?, retries = retries + ?, worker = NULL, revision = revision + 1 WHERE seq = ?
            """)
        update.bind(isDue ? StoredState.waiting.rawValue : state.rawValue).bind(isDue ? nil : due)
        try update.bind(spendsAttempt ? 1 as Int64 : 0).bind(sequence).run()
        return .putBack
    }

    /// Puts a job that has not ended into its last state.
    func end(_ sequence: Int64, as state: StoredState, failure: JobFailure? = nil, now: Int64) throws {
        if let failure { try store(failure, of: sequence) }
        let update = try sql(
            """
            UPDATE job SET state = ?1, ended = ?2, purge = ?2 + coalesce(iif(?1 = 5, ?3, retention), ?4), due = NULL,
                revision = revision + 1 WHERE seq = ?5
            """)
        let kept = state == .failed ? rules.deadLetterRetention : rules.resultRetention
        try update.bind(state.rawValue).bind(now).bind(rules.deadLetterRetention).bind(kept).bind(sequence).run()
        try releaseKeyAtEnd(of: sequence, now: now)
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
