public import Hoist

/// What a message becomes in the tables, made before the transaction so that the database is not held for it.
struct PreparedJob: Sendable {
    var message: Message
    var envelope: [UInt8]

    init(_ message: Message) {
        self.message = message
        envelope = message.encodedEnvelope()
    }
}

extension SQLiteBackend {
    public func publish(_ messages: [Message]) async throws -> [PublishResult] {
        guard !messages.isEmpty else { return [] }
        let jobs = messages.map(PreparedJob.init)
        let (results, notices) = try await writer.transaction("enqueue \(messages.count) jobs") { [clock] store in
            let now = clock.now.microsecondsSinceEpoch
            try store.refreshLines()
            return (try store.publish(jobs, now: now), store.takeNotices())
        }
        jobNotices.tell(notices)
        ringReady()
        if results.contains(where: { if case .replaced = $0 { true } else { false } }) { ringChanged() }
        return results
    }
}

extension JobStore {
    /// Stores jobs, all or none.
    /// - Throws: ``BackendError`` `.full` before anything is stored.
    func publish(_ jobs: [PreparedJob], now: Int64) throws -> [PublishResult] {
        try checkRoom(for: jobs.map(\.message))
        let results = try jobs.map { try publish($0, now: now) }
        let new = zip(jobs, results).compactMap { $1 == .enqueued ? $0.message : nil }
        try stopOlder(for: new)
        // A job takes the place of what was stored for its id before, for instance when its chain had failed.
        try forgetForeignResults(of: new.map(\.id))
        return results
    }

    func publish(_ job: PreparedJob, now: Int64) throws -> PublishResult {
        let headers = job.message.headers
        if let unique = headers.hoist.unique {
            // The same message again, after an answer that got lost: it must not clash with the job that holds the key
            // by now.
            let known = try sql("SELECT 1 FROM job WHERE id = ?").bind(headers.id)
            let isKnown = try known.step()
            known.end()
            if isKnown { return .alreadyEnqueued }
            if let holder = try holder(of: unique.key, now: now), try !freeIfLate(unique.key, holder, now: now) {
                return try clash(job, unique, holder, now: now)
            }
        }
        let due = headers.eta?.microsecondsSinceEpoch
        let isDue = due.map { $0 <= now } ?? true
        let insert = try sql(
            """
            INSERT INTO job (
                id, line, state, priority, retries, at_most_once, due, expires, enqueued, retention, unique_key,
                partition, cost
            ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING
            """)
        insert.bind(headers.id)
        insert.bind(try line(queue: job.message.queue, name: headers.task))
        insert.bind(isDue ? StoredState.waiting.rawValue : StoredState.scheduled.rawValue)
        insert.bind(Int64(max(0, min(9, job.message.properties.priority ?? 0))))
        insert.bind(Int64(headers.retries))
        insert.bind(headers.hoist.isAtMostOnce ? 1 as Int64 : 0)
        insert.bind(isDue ? nil : due)
        insert.bind(headers.expires?.microsecondsSinceEpoch)
        insert.bind(headers.hoist.enqueuedAt?.microsecondsSinceEpoch ?? now)
        insert.bind(headers.hoist.resultRetention.map { Duration(boundedSeconds: $0).inMicroseconds })
        insert.bind(headers.hoist.unique?.key)
        insert.bind(headers.hoist.partition).bind(headers.hoist.cost.map(Int64.init))
        guard try insert.run() == 1 else { return .alreadyEnqueued }
        try sql("INSERT INTO payload (seq, message) VALUES (last_insert_rowid(), ?)").bind(job.envelope).run()
        if let unique = headers.hoist.unique { try hold(unique, by: headers.id, now: now) }
        return .enqueued
    }

    /// Ends a waiting job whose time has passed and which nobody has noticed yet, so that its key is free.
    /// - Returns: whether the key is free now.
    private func freeIfLate(_ key: String, _ holder: JobID, now: Int64) throws -> Bool {
        let select = try sql("SELECT seq FROM job WHERE id = ? AND state IN (0, 1, 2) AND expires <= ?").bind(holder)
            .bind(now)
        guard try select.step() else { return false }
        let sequence = select.int(0)
        select.end()
        try expire(sequence, now: now)
        return try self.holder(of: key, now: now) == nil
    }

    /// The waiting job that holds the key takes over what is new, where the policy says so.
    private func clash(_ job: PreparedJob, _ unique: UniqueKey, _ holder: JobID, now: Int64) throws -> PublishResult {
        guard unique.onClash == .replace || unique.onClash == .reschedule else { return .keyHeld(by: holder) }
        let find = try sql("SELECT seq FROM job WHERE id = ? AND state IN (0, 1, 2)").bind(holder)
        guard try find.step() else { return .keyHeld(by: holder) }
        let sequence = find.int(0)
        find.end()
        try rewriteMessage(sequence) { message in
            message.replaceWork(by: job.message)
            if unique.onClash == .reschedule {
                message.headers.eta = job.message.headers.eta
                message.headers.expires = job.message.headers.expires
            }
        }
        if unique.onClash == .reschedule {
            let due = job.message.headers.eta?.microsecondsSinceEpoch ?? now
            let state: StoredState = due > now ? .scheduled : .waiting
            try sql("UPDATE job SET due = ?, state = ?, expires = ? WHERE seq = ?")
                .bind(due).bind(state.rawValue).bind(job.message.headers.expires?.microsecondsSinceEpoch).bind(sequence)
                .run()
        }
        return .replaced(holder)
    }

    /// Changes a stored message, and tells those who follow the job.
    func rewriteMessage(_ sequence: Int64, _ change: (inout Message) throws -> Void) throws {
        let select = try sql("SELECT message FROM payload WHERE seq = ?").bind(sequence)
        guard try select.step() else { throw BackendError(.corrupt, "a job has no message") }
        let bytes = select.bytes(0)
        select.end()
        do {
            var message = try Message(envelope: bytes)
            try change(&message)
            try sql("UPDATE payload SET message = ? WHERE seq = ?").bind(message.encodedEnvelope()).bind(sequence).run()
        } catch let error as WireError {
            throw BackendError(.corrupt, "the stored message of a job cannot be read: \(error.message)")
        }
        try sql("UPDATE job SET revision = revision + 1 WHERE seq = ?").bind(sequence).run()
    }
}
