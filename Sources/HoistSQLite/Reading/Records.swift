import GRDB
public import Hoist

extension SQLiteBackend {
    public func record(of id: JobID) async throws -> JobRecord? {
        let filter = JobFilter(ids: [id], limit: 1)
        if let record = try await jobs(filter).first { return record }
        if let record = try await foreignRecord(of: id) { return record }
        // It may have been published between the two looks, which takes the place of what was written under its id.
        return try await jobs(filter).first
    }

    private func foreignRecord(of id: JobID) async throws -> JobRecord? {
        let now = clock.now.microsecondsSinceEpoch
        return try await read("read the job \(id)") { database in
            let row = try Row.fetchOne(
                database,
                sql: "SELECT body, revision FROM foreign_result WHERE id = ? AND (purge IS NULL OR purge > ?)",
                arguments: [id, now])
            guard let row, var record = StoredJSON.decode(JobRecord.self, row.bytes("body")) else { return nil }
            record.revision = row["revision"]
            return record
        }
    }

    public func log(of id: JobID) async throws -> JobLog? {
        try await read("read the log of a job") { database in
            let row = try Row.fetchOne(
                database, sql: "SELECT l.body FROM job_log l JOIN job j ON j.seq = l.seq WHERE j.id = ?",
                arguments: [id])
            if let row { return StoredJSON.decode(JobLog.self, row.bytes("body")) }
            let foreign = try Row.fetchOne(database, sql: "SELECT body FROM foreign_log WHERE id = ?", arguments: [id])
            return foreign.flatMap { StoredJSON.decode(JobLog.self, $0.bytes("body")) }
        }
    }

    public func updates(of id: JobID) -> JobUpdates {
        let bell = follower.doorbell(of: id) { [weak self] ids in try await self?.revisions(of: ids) ?? [:] }
        return JobUpdates(changes: bell, clock: clock) { try await self.record(of: id) }
    }

    private func revisions(of ids: [JobID]) async throws -> [JobID: Int64] {
        let list = try JSONText.encode(ids)
        return try await read("read which jobs have changed") { database in
            let rows = try Row.fetchCursor(
                database,
                sql: """
                    SELECT id, revision FROM job WHERE id IN (SELECT value FROM json_each(?1))
                    UNION ALL SELECT id, revision FROM foreign_result WHERE id IN (SELECT value FROM json_each(?1))
                    """, arguments: [String(decoding: list, as: UTF8.self)])
            var found: [JobID: Int64] = [:]
            while let row = try rows.next() { found[row["id"]] = row["revision"] }
            return found
        }
    }

    /// Runs `body` on the reading connection, which sees the last commit and delays no write.
    func read<T: Sendable>(_ what: String, _ body: @escaping @Sendable (Database) throws -> T) async throws -> T {
        try await withCheckedThrowingContinuation { continuation in
            reader.asyncWriteWithoutTransaction { [path] database in
                continuation.resume(
                    with: Result { try body(database) }.mapError { BackendError(sqlite: $0, path: path, doing: what) })
            }
        }
    }

    public func jobs(_ filter: JobFilter) async throws -> [JobRecord] {
        let (now, uptime) = (clock.now, clock.uptime)
        return try await read("read jobs") { database in
            let workers = try Self.liveWorkers(database, uptime: uptime)
            return try Self.rows(filter, database).map { try Self.record($0, database, workers: workers, now: now) }
        }
    }

    public func delayedJobs(queue: String, limit: Int) async throws -> [DelayedJob] {
        try await read("read delayed jobs") { database in
            let rows = try Row.fetchCursor(
                database,
                sql: """
                    SELECT j.due, p.message FROM job j INDEXED BY job_due JOIN line l ON l.id = j.line
                    LEFT JOIN payload p ON p.seq = j.seq
                    WHERE j.state IN (1, 2) AND l.queue = ? ORDER BY j.due, j.seq LIMIT ?
                    """, arguments: [queue, limit.clamped(to: 0...1000)])
            var jobs: [DelayedJob] = []
            while let row = try rows.next() {
                guard let message = try? Message(envelope: row.bytes("message")) else { continue }
                jobs.append(DelayedJob(message, queue: queue, due: row.date("due")))
            }
            return jobs
        }
    }

    public func page(_ filter: JobFilter, after cursor: JobCursor?) async throws -> JobPage {
        var before: Int64?
        if let cursor {
            guard let sequence = Int64(cursor.text) else { throw BackendError(strange: cursor) }
            before = sequence
        }
        var one = filter
        one.limit = filter.pageSize + 1
        let (now, uptime) = (clock.now, clock.uptime)
        return try await read("read jobs") { [before, one] database in
            let workers = try Self.liveWorkers(database, uptime: uptime)
            let rows = try Self.rows(one, before: before, database)
            let page = rows.prefix(one.limit - 1)
            let next = rows.count == one.limit ? page.last.map { JobCursor("\($0["seq"] as Int64)") } : nil
            return JobPage(
                jobs: try page.map { try Self.record($0, database, workers: workers, now: now) }, next: next)
        }
    }

    /// Each count reads an index of its state, and no job.
    public func counts() async throws -> [JobCount] {
        try await read("count the jobs") { database in
            let rows = try Row.fetchAll(
                database,
                sql: """
                    SELECT l.queue, l.name, s.state, s.count FROM (
                        SELECT line, 0 AS state, count(*) AS count FROM job INDEXED BY job_ready WHERE state = 0 GROUP BY line
                        UNION ALL SELECT line, state, count(*) FROM job INDEXED BY job_due WHERE state IN (1, 2) GROUP BY line, state
                        UNION ALL SELECT line, 3, count(*) FROM job INDEXED BY job_running WHERE state = 3 GROUP BY line
                        UNION ALL SELECT line, 5, count(*) FROM job INDEXED BY job_failed WHERE state = 5 GROUP BY line
                        UNION ALL SELECT line, state, count(*) FROM job INDEXED BY job_ended WHERE state IN (4, 6, 7)
                            GROUP BY line, state
                    ) s JOIN line l ON l.id = s.line
                    """)
            return rows.compactMap { row in
                StoredState(rawValue: row["state"]).map {
                    JobCount(queue: row["queue"], name: row["name"], state: $0.state, count: row["count"])
                }
            }
        }
    }

    static func rows(_ filter: JobFilter, before sequence: Int64? = nil, _ database: Database) throws -> [Row] {
        var conditions: [String] = []
        var arguments: [(any DatabaseValueConvertible)?] = []
        func oneOf(_ column: String, _ values: [any DatabaseValueConvertible]) {
            conditions.append("\(column) IN (\(values.map { _ in "?" }.joined(separator: ", ")))")
            arguments += values
        }
        if let sequence {
            conditions.append("j.seq < ?")
            arguments.append(sequence)
        }
        if let ids = filter.ids { oneOf("j.id", ids) }
        if let states = filter.states { oneOf("j.state", states.map { StoredState($0).rawValue }) }
        if let queue = filter.queue { oneOf("l.queue", [queue]) }
        if let name = filter.name { oneOf("l.name", [name]) }
        let condition = conditions.isEmpty ? "" : "WHERE " + conditions.joined(separator: " AND ")
        let cursor = try Row.fetchCursor(
            database,
            sql: """
                SELECT j.*, l.queue AS queue_name, l.name AS job_name, w.name AS worker_name, p.message, r.output, r.failure, r.progress, r.usage
                FROM job j JOIN line l ON l.id = j.line LEFT JOIN worker w ON w.id = j.worker
                LEFT JOIN payload p ON p.seq = j.seq LEFT JOIN result r ON r.seq = j.seq
                \(condition) ORDER BY j.seq DESC
                """, arguments: StatementArguments(arguments))
        var rows: [Row] = []
        while rows.count < filter.limit, let row = try cursor.next() {
            if let text = filter.argumentText {
                var record = JobRecord(id: "", name: "", queue: "", state: .waiting)
                if let message = try? Message(envelope: row.bytes("message")) { record.describe(message) }
                guard record.argumentsText.contains(text) else { continue }
            }
            rows.append(row.copy())
        }
        return rows
    }

    private static func record(_ row: Row, _ database: Database, workers: [WorkerPresence], now: JobDate) throws
        -> JobRecord
    {
        let stored = StoredState(rawValue: row["state"]) ?? .failed
        var record = JobRecord(
            id: row["id"], name: row["job_name"], queue: row["queue_name"], state: stored.state,
            priority: row["priority"],
            attempts: row["retries"], lostWorkers: row["lost"], enqueuedAt: row.date("enqueued"),
            dueAt: row.date("due"),
            startedAt: row.date("started"), endedAt: row.date("ended"), worker: row["worker_name"],
            isCancelRequested: row["cancel"] == 1, revision: row["revision"])
        if stored == .running || stored == .succeeded { record.attempts += 1 }
        if let expires = row.date("expires"), expires <= now, !record.state.hasEnded, record.state != .running {
            record.state = .expired
        }
        if let message = try? Message(envelope: row.bytes("message")) { record.describe(message) }
        record.progress = StoredJSON.decode(JobProgress.self, row.bytes("progress"))
        record.failure = StoredJSON.decode(JobFailure.self, row.bytes("failure"))
        record.usage = StoredJSON.decode(ResourceUsage.self, row.bytes("usage"))
        if record.state == .succeeded { record.output = (try? JSONText.parse(row.bytes("output"))) ?? .null }
        record.completeIfSucceeded()
        let sequence: Int64 = row["seq"]
        let bodies = try Row.fetchAll(
            database, sql: "SELECT body FROM attempt WHERE seq = ? ORDER BY ordinal", arguments: [sequence])
        record.history = bodies.compactMap { StoredJSON.decode(AttemptRecord.self, $0.bytes("body")) }
        if stored == .failed || (stored == .cancelled && record.history.last?.outcome == "cancelled") {
            record.attempts = record.history.last?.number ?? record.attempts
        }
        if record.worker == nil { record.worker = record.history.last?.worker }
        if record.state == .waiting {
            let rule = try Row.fetchOne(
                database, sql: "SELECT paused, closed_until FROM queue_rule WHERE queue = ?",
                arguments: [record.queue])
            let rules = rule.map { QueueRules(isPaused: $0["paused"] == 1, closedUntil: $0["closed_until"]) }
            record.waitingReason =
                rules?.reason(queue: record.queue, at: now.microsecondsSinceEpoch)
                ?? JobRecord.waitingReason(queue: record.queue, name: record.name, workers: workers)
        }
        return record
    }

    /// The workers whose lease has not passed. A worker whose lease has passed is left out even before its jobs are
    /// taken over.
    static func liveWorkers(_ database: Database, uptime: Int64) throws -> [WorkerPresence] {
        let rows = try Row.fetchAll(
            database, sql: "SELECT presence FROM worker WHERE lease_until > ? AND boot = ? ORDER BY id",
            arguments: [uptime, BootIdentity.current])
        return rows.compactMap { StoredJSON.decode(WorkerPresence.self, $0.bytes("presence")) }
    }
}

extension Row {
    func bytes(_ column: String) -> [UInt8] {
        guard case .blob(let data) = (self[column] as DatabaseValue).storage else { return [] }
        return Array(data)
    }

    fileprivate func date(_ column: String) -> JobDate? {
        (self[column] as Int64?).map(JobDate.init(microsecondsSinceEpoch:))
    }
}
