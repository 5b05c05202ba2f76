import GRDB
public import Hoist

extension SQLiteBackend: JobDirectory, JobEditing {
    public func queues() async throws -> [QueueStatistics] {
        try await read("count the queues") { database in
            let rows = try Row.fetchAll(
                database,
                sql: """
                    SELECT l.queue, sum(j.state = 0) AS waiting, sum(j.state IN (1, 2)) AS scheduled, sum(j.state = 3) AS running,
                        sum(j.state = 5) AS failed, min(iif(j.state = 0, j.enqueued, NULL)) AS oldest
                    FROM line l JOIN job j ON j.line = l.id GROUP BY l.queue ORDER BY l.queue
                    """)
            return rows.map { row in
                QueueStatistics(
                    name: row["queue"], waiting: row["waiting"], scheduled: row["scheduled"], running: row["running"],
                    failed: row["failed"],
                    oldestWaiting: (row["oldest"] as Int64?).map(JobDate.init(microsecondsSinceEpoch:)))
            }
        }
    }

    public func workers() async throws -> [WorkerPresence] {
        let uptime = clock.uptime
        return try await read("list the workers") { try Self.liveWorkers($0, uptime: uptime) }
    }

    public func arguments(of id: JobID) async throws -> Arguments? {
        try await read("read the job \(id)") { database in
            let row = try Row.fetchOne(
                database, sql: "SELECT p.message FROM job j JOIN payload p ON p.seq = j.seq WHERE j.id = ?",
                arguments: [id])
            guard let row, let message = try? Message(envelope: row.bytes("message")) else { return nil }
            return (try? message.decodedBody())?.arguments
        }
    }

    public func requeue(_ filter: JobFilter, arguments: Arguments?) async throws -> Int {
        let sequences = try await endedSequences(filter)
        let count = try await inSlices(sequences, "requeue jobs") { store, sequence in
            try store.revive(sequence, arguments: arguments)
        }
        ringReady()
        ringChanged()
        return count
    }

    public func drop(_ filter: JobFilter) async throws -> Int {
        let sequences = try await endedSequences(filter)
        let count = try await inSlices(sequences, "drop jobs") { store, sequence in try store.dropEnded(sequence) }
        ringChanged()
        return count
    }

    /// Runs `body` for each job, 2,000 jobs in a transaction, so that no lease renewal has to wait for all of them.
    /// - Returns: the number of jobs for which `body` returned true.
    private func inSlices(
        _ sequences: [Int64], _ what: String, _ body: @escaping @Sendable (JobStore, Int64) throws -> Bool
    ) async throws -> Int {
        var count = 0
        for start in stride(from: 0, to: sequences.count, by: 2000) {
            let slice = Array(sequences[start..<min(start + 2000, sequences.count)])
            count += try await writer.transaction(what) { store in try slice.count { try body(store, $0) } }
        }
        return count
    }

    private func endedSequences(_ filter: JobFilter) async throws -> [Int64] {
        var filter = filter
        let ended = Set(JobState.allCases.filter(\.hasEnded))
        filter.states = filter.states.map { $0.intersection(ended) } ?? ended
        return try await read("find jobs") { [filter] database in try Self.rows(filter, database).map { $0["seq"] } }
    }

    public func purge(queue: String) async throws -> Int {
        // In slices, so that no lease renewal has to wait for the whole purge.
        var count = 0
        while true {
            let slice = try await writer.transaction("purge the queue \(queue)") {
                try $0.purge(queue: queue, limit: 5000)
            }
            count += slice
            if slice < 5000 { break }
        }
        ringReady()
        ringChanged()
        return count
    }

    public func edit(_ id: JobID, _ edit: JobEdit) async throws -> Bool {
        let now = clock.now.microsecondsSinceEpoch
        let found = try await writer.transaction("edit the job \(id)") { try $0.edit(id, edit, now: now) }
        ringReady()
        ringChanged()
        return found
    }
}

extension JobStore {
    func revive(_ sequence: Int64, arguments: Arguments?) throws -> Bool {
        let update = try sql(
            """
            UPDATE job SET state = 0, retries = 0, lost = 0, cancel = 0, worker = NULL, due = NULL, expires = NULL, started = NULL,
                ended = NULL, purge = NULL, revision = revision + 1 WHERE seq = ? AND state IN (4, 5, 6, 7)
            """)
        guard try update.bind(sequence).run() == 1 else { return false }
        try sql("DELETE FROM result WHERE seq = ?").bind(sequence).run()
        try holdKeyAgain(sequence)
        if let arguments {
            try rewriteMessage(sequence) { message in
                try message.replaceArguments(arguments)
                message.headers.eta = nil
                message.headers.expires = nil
            }
        }
        return true
    }

    func dropEnded(_ sequence: Int64) throws -> Bool {
        let select = try sql("SELECT 1 FROM job WHERE seq = ? AND state IN (4, 5, 6, 7)").bind(sequence)
        let exists = try select.step()
        select.end()
        if exists { try delete(sequence) }
        return exists
    }

    func purge(queue: String, limit: Int) throws -> Int {
        let select = try sql(
            "SELECT j.seq, j.unique_key, j.id FROM job j JOIN line l ON l.id = j.line WHERE l.queue = ? AND j.state IN (0, 1, 2) LIMIT ?"
        )
        select.bind(queue).bind(Int64(limit))
        var found: [(sequence: Int64, key: String?, id: String?)] = []
        while try select.step() { found.append((select.int(0), select.text(1), select.text(2))) }
        for job in found {
            if let key = job.key {
                try sql("DELETE FROM unique_key WHERE key = ? AND holder = ? AND scope <> 'window'").bind(key).bind(
                    job.id
                ).run()
            }
            try delete(job.sequence)
        }
        return found.count
    }

    func edit(_ id: JobID, _ edit: JobEdit, now: Int64) throws -> Bool {
        let select = try sql("SELECT seq, retries FROM job WHERE id = ? AND state IN (0, 1, 2)").bind(id)
        guard try select.step() else { return false }
        let (sequence, retries) = (select.int(0), select.int(1))
        select.end()
        try rewriteMessage(sequence) { message in
            switch edit {
            case .reschedule(let date): message.headers.eta = date
            case .priority(let urgency): message.properties.priority = max(0, min(9, urgency))
            case .arguments(let arguments): try message.replaceArguments(arguments)
            }
        }
        switch edit {
        case .reschedule(let date):
            let due = date.microsecondsSinceEpoch
            let state: StoredState = due <= now ? .waiting : retries > 0 ? .retrying : .scheduled
            try sql("UPDATE job SET state = ?, due = ? WHERE seq = ?")
                .bind(state.rawValue).bind(due <= now ? nil : due).bind(sequence).run()
        case .priority(let urgency):
            try sql("UPDATE job SET priority = ? WHERE seq = ?").bind(Int64(max(0, min(9, urgency)))).bind(sequence)
                .run()
        case .arguments: break
        }
        return true
    }
}
