import GRDB
import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// What is written to the history at a time.
struct HistoryBatch: Sendable {
    /// The jobs that changed, in the order in which they were heard of first.
    var jobs: [HistoryJob] = []
    var attempts: [JobID: [Int: HistoryAttempt]] = [:]
    var tallies: [TallyKey: Tally] = [:]
    var depths: [DepthSample] = []
    var gaps: [ClosedRange<Date>] = []

    var isEmpty: Bool { jobs.isEmpty && tallies.isEmpty && depths.isEmpty && gaps.isEmpty }

    func hidingSecrets(_ mask: SecretMask) -> HistoryBatch {
        var batch = self
        batch.jobs = jobs.map(mask.hide)
        batch.attempts = attempts.mapValues { attempts in
            attempts.mapValues { attempt in
                var attempt = attempt
                attempt.error = attempt.error.map(mask.hide)
                return attempt
            }
        }
        return batch
    }

    /// A series in one minute.
    struct TallyKey: Sendable, Hashable {
        var series: Series
        /// Seconds since 1970, a whole minute.
        var minute: Int
    }
}

/// How full a queue was at a moment.
struct DepthSample: Sendable, Hashable {
    var queue: String
    var at: Date
    var waiting: Int
    /// Seconds that the oldest waiting job has waited.
    var oldest: Double?
}

extension HistoryStore {
    /// Writes a batch in one transaction.
    /// - Throws: what SQLite reports; nothing was written then, and a retry is safe.
    func write(_ batch: HistoryBatch, backend: Int64) async throws {
        guard !batch.isEmpty else { return }
        // Labels that the transaction makes are known to others once they are committed.
        let made = try await database.write { [self] database in
            var book = LabelBook(store: self, database: database)
            for job in batch.jobs {
                let sequence = try write(job, backend: backend, &book)
                for attempt in batch.attempts[job.id]?.values.sorted(by: { $0.number < $1.number }) ?? [] {
                    try write(attempt, of: sequence, &book)
                }
            }
            for (key, tally) in batch.tallies { try write(tally, key, backend: backend, &book) }
            for sample in batch.depths { try write(sample, backend: backend, &book) }
            for gap in batch.gaps {
                try database.execute(
                    sql: "INSERT INTO gap (backend, begun, ended) VALUES (?, ?, ?)",
                    arguments: [backend, gap.lowerBound.timeIntervalSince1970, gap.upperBound.timeIntervalSince1970])
            }
            return book.made
        }
        remember(made)
    }

    private func write(_ job: HistoryJob, backend: Int64, _ book: inout LabelBook) throws -> Int64 {
        let statement = try book.database.cachedStatement(
            sql: """
                INSERT INTO job (backend, id, name, queue, worker, lane, state, sent, received, started, ended, due,
                    expires, run, retries, positional, keyword, result, error, traceback, root, parent, touched)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (backend, id) DO UPDATE SET
                    name = coalesce(excluded.name, name), queue = coalesce(excluded.queue, queue),
                    worker = coalesce(excluded.worker, worker), lane = coalesce(excluded.lane, lane),
                    state = excluded.state, sent = coalesce(excluded.sent, sent),
                    received = coalesce(excluded.received, received),
                    -- Of a job that was forgotten meanwhile an event tells only what happened, not what it is.
                    started = CASE WHEN excluded.received IS NULL THEN coalesce(excluded.started, started)
                        ELSE excluded.started END,
                    due = CASE WHEN excluded.received IS NULL THEN coalesce(excluded.due, due) ELSE excluded.due END,
                    expires = coalesce(excluded.expires, expires), ended = excluded.ended, run = excluded.run,
                    retries = CASE WHEN excluded.received IS NULL THEN max(excluded.retries, retries)
                        ELSE excluded.retries END, positional = coalesce(excluded.positional, positional),
                    keyword = coalesce(excluded.keyword, keyword), result = excluded.result, error = excluded.error,
                    traceback = excluded.traceback, root = coalesce(excluded.root, root),
                    parent = coalesce(excluded.parent, parent), touched = excluded.touched
                RETURNING seq
                """)
        func seconds(_ date: Date?) -> Double? { date?.timeIntervalSince1970 }
        let arguments: StatementArguments = [
            backend, job.id, try book.number(of: job.name, .name), try book.number(of: job.queue, .queue),
            try book.number(of: job.worker, .worker), job.lane, job.state.rawValue, seconds(job.sentAt),
            seconds(job.receivedAt), seconds(job.startedAt), seconds(job.endedAt), seconds(job.due),
            seconds(job.expires), job.runTime, job.retries, job.positionalText, job.keywordText, job.result, job.error,
            job.traceback, job.rootID, job.parentID, job.touchedAt.timeIntervalSince1970,
        ]
        return try Int64.fetchOne(statement, arguments: arguments) ?? 0
    }

    private func write(_ attempt: HistoryAttempt, of job: Int64, _ book: inout LabelBook) throws {
        let statement = try book.database.cachedStatement(
            sql: """
                INSERT INTO attempt (job, number, worker, received, started, ended, state, error)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (job, number) DO UPDATE SET
                    worker = coalesce(excluded.worker, worker), received = coalesce(excluded.received, received),
                    started = coalesce(excluded.started, started), ended = excluded.ended, state = excluded.state,
                    error = excluded.error
                """)
        try statement.execute(arguments: [
            job, attempt.number, try book.number(of: attempt.worker, .worker),
            attempt.receivedAt?.timeIntervalSince1970, attempt.startedAt?.timeIntervalSince1970,
            attempt.endedAt?.timeIntervalSince1970, attempt.state?.rawValue, attempt.error,
        ])
    }

    private func number(of series: Series, _ book: inout LabelBook) throws -> Int64 {
        let kind: LabelKind? =
            switch series.kind {
            case .all: nil
            case .name: .name
            case .queue: .queue
            case .worker: .worker
            }
        return try kind.flatMap { try book.number(of: series.label, $0) } ?? 0
    }

    private func write(_ tally: Tally, _ key: HistoryBatch.TallyKey, backend: Int64, _ book: inout LabelBook) throws {
        let database = book.database
        let label = try number(of: key.series, &book)
        for resolution in Resolution.stored {
            let at = key.minute / resolution.seconds * resolution.seconds
            let place: StatementArguments = [backend, resolution.rawValue, key.series.kind.rawValue, label, at]
            let known = try Row.fetchOne(
                database.cachedStatement(
                    sql: """
                        SELECT succeeded, failed, retried, cancelled, runs, waits FROM cell
                        WHERE backend = ? AND step = ? AND kind = ? AND label = ? AND at = ?
                        """), arguments: place
            ).map(Tally.init)
            var sum = tally
            if let known { sum.merge(known) }
            try database.cachedStatement(
                sql: """
                    INSERT OR REPLACE INTO cell
                        (backend, step, kind, label, at, succeeded, failed, retried, cancelled, runs, waits)
                    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                    """
            ).execute(
                arguments: place + [
                    sum.succeeded, sum.failed, sum.retried, sum.cancelled, Data(sum.runs.bytes), Data(sum.waits.bytes),
                ])
        }
    }

    private func write(_ sample: DepthSample, backend: Int64, _ book: inout LabelBook) throws {
        let database = book.database
        let queue = try book.number(of: sample.queue, .queue)
        for resolution in Resolution.allCases {
            let at = Int(sample.at.timeIntervalSince1970) / resolution.seconds * resolution.seconds
            try database.cachedStatement(
                sql: """
                    INSERT INTO depth (backend, step, queue, at, waiting, oldest) VALUES (?, ?, ?, ?, ?, ?)
                    ON CONFLICT (backend, step, queue, at) DO UPDATE SET
                        waiting = max(waiting, excluded.waiting), oldest = max(coalesce(oldest, 0), coalesce(excluded.oldest, 0))
                    """
            ).execute(arguments: [backend, resolution.rawValue, queue, at, sample.waiting, sample.oldest])
        }
    }

    // MARK: - Retention

    /// Removes what is older than it is to be kept, in small steps, so that the writer is not held up.
    /// - Returns: whether there may be more to remove.
    func tidy(_ retention: DashboardRetention, at now: Date) async throws -> Bool {
        try await database.write { database in
            let time = now.timeIntervalSince1970
            var removed = 0
            for (states, kept) in retention.ages {
                for state in states {
                    try database.execute(
                        sql: """
                            DELETE FROM job WHERE seq IN (
                                SELECT seq FROM job WHERE state = ? AND touched < ? ORDER BY touched LIMIT 500)
                            """, arguments: [state.rawValue, time - kept.inSeconds])
                    removed = max(removed, database.changesCount)
                }
            }
            return removed >= 500
        }
    }
}

extension HistoryStore {
    /// Removes tallies, depths and gaps that are too old. They are found by their age.
    func tidyCharts(at now: Date) async throws {
        try await database.write { database in
            let time = Int(now.timeIntervalSince1970)
            for resolution in Resolution.allCases {
                for table in ["cell", "depth"] {
                    try database.execute(
                        sql: "DELETE FROM \(table) WHERE step = ? AND at < ?",
                        arguments: [resolution.rawValue, time - resolution.keptFor])
                }
            }
            try database.execute(sql: "DELETE FROM gap WHERE ended < ?", arguments: [time - 731 * 86_400])
        }
    }
}

extension Tally {
    /// - Parameter row: counts and durations as a cell has them.
    init(_ row: Row) {
        self.init()
        add(.succeeded, row[0])
        add(.failed, row[1])
        add(.retrying, row[2])
        add(.cancelled, row[3])
        runs = Durations(bytes: Array((row[4] as Data?) ?? Data()))
        waits = Durations(bytes: Array((row[5] as Data?) ?? Data()))
    }
}
