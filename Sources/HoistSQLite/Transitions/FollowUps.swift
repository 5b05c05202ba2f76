public import Hoist

extension SQLiteBackend {
    public func store(_ results: [ResultWrite]) async throws {
        let now = clock.now.microsecondsSinceEpoch
        try await writer.transaction("store \(results.count) results") { try $0.store(results, now: now) }
        ringChanged()
    }
}

extension JobStore {
    /// Stores what follows from the end of a job, in the transaction that ends it.
    /// - Returns: whether a job became ready.
    func store(_ followUps: FollowUps?, now: Int64) throws -> Bool {
        guard var followUps else { return false }
        if followUps.needsConclusion {
            try followUps.conclude(
                now: JobDate(microsecondsSinceEpoch: now), plan: { try workflow($0) },
                open: { try open($0, now: now) }, count: { try count($0, now: now) })
        }
        if !followUps.messages.isEmpty { try refreshLines() }
        for message in followUps.messages { _ = try publish(PreparedJob(message), now: now) }
        try forgetForeignResults(of: followUps.messages.map(\.id))
        try store(followUps.ends, now: now)
        for closing in followUps.closings { try close(closing) }
        for workflowEnd in followUps.workflowEnds { try end(workflowEnd, now: now) }
        return !followUps.messages.isEmpty
    }

    /// Writes results of jobs that are not in this file: the rest of a chain, or jobs of another broker. A success is
    /// never written over.
    func store(_ results: [ResultWrite], now: Int64) throws {
        for write in results {
            let id = write.record.id
            let known = try sql("SELECT 1 FROM job WHERE id = ?").bind(id)
            let isKnown = try known.step()
            known.end()
            if isKnown { continue }
            let kept: Int64
            switch write.kept {
            case .nothing:
                try sql("DELETE FROM foreign_result WHERE id = ?").bind(id).run()
                continue
            case .seconds(let seconds): kept = Duration(boundedSeconds: seconds).inMicroseconds
            case .standard: kept = rules.resultRetention
            case .deadLetter: kept = rules.deadLetterRetention
            }
            let insert = try sql(
                """
                INSERT INTO foreign_result (id, state, body, purge) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO UPDATE
                SET state = ?2, body = ?3, purge = ?4, revision = revision + 1 WHERE state <> 4
                """)
            insert.bind(id).bind(StoredState(write.record.state).rawValue).bind(StoredJSON.encode(write.record) ?? [])
            try insert.bind(write.isKeptForATime ? now + kept : nil).run()
            if let log = write.log {
                try sql("INSERT INTO foreign_log (id, body) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET body = ?2")
                    .bind(id).bind(StoredJSON.encode(log) ?? []).run()
            }
        }
    }

    func forgetForeignResults(of ids: [JobID]) throws {
        let any = try sql("SELECT 1 FROM foreign_result LIMIT 1")
        let areThereAny = try any.step()
        any.end()
        guard areThereAny else { return }
        for id in ids { try sql("DELETE FROM foreign_result WHERE id = ?").bind(id).run() }
    }

    /// The message of a job; nil when it cannot be read.
    func message(of sequence: Int64) throws -> Message? {
        let select = try sql("SELECT message FROM payload WHERE seq = ?").bind(sequence)
        defer { select.end() }
        return try select.step() ? try? Message(envelope: select.bytes(0)) : nil
    }

    func forgetForeignResult(_ id: JobID) throws -> Bool {
        try sql("DELETE FROM foreign_log WHERE id = ?").bind(id).run()
        return try sql("DELETE FROM foreign_result WHERE id = ? AND state IN (4, 5, 6, 7)").bind(id).run() == 1
    }

    /// Removes foreign results that have passed their time.
    func sweepForeignResults(now: Int64) throws {
        let removed = try sql("DELETE FROM foreign_result WHERE purge <= ?").bind(now).run()
        guard removed > 0 else { return }
        try sql("DELETE FROM foreign_log WHERE id NOT IN (SELECT id FROM foreign_result)").run()
    }
}
