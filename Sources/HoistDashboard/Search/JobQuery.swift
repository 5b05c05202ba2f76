import GRDB
import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// A page of jobs, the newest first.
struct JobPageQuery: Sendable {
    var backend: Int64
    var search = JobSearch()
    /// Only jobs that were heard of before this one; nil for the first page.
    var before: Int64?
    /// 1...200.
    var limit = 50

    static let largestPage = 200
    /// Counts go no further.
    static let countLimit = 10_000
    /// So many places of words are looked at.
    private static let mostFound = 100_000

    struct Result: Sendable {
        var jobs: [HistoryJob]
        /// Where the next page begins; nil on the last one.
        var next: Int64?
    }

    /// Conditions in SQL with their values.
    private struct Conditions {
        var parts: [String] = []
        var values: [(any DatabaseValueConvertible)?] = []

        mutating func add(_ sql: String, _ values: (any DatabaseValueConvertible)?..., isNegated: Bool = false) {
            // What is not known (NULL) does not fit, and so its opposite fits.
            parts.append(isNegated ? "NOT coalesce(\(sql), 0)" : sql)
            self.values += values
        }
    }

    func run(_ database: Database, at now: Date) throws -> Result {
        let limit = min(max(1, limit), Self.largestPage)
        var conditions = conditions(at: now)
        if let before { conditions.add("job.seq < ?", before) }
        let rows = try Row.fetchAll(
            database,
            sql: """
                SELECT \(HistoryJob.columns) FROM \(HistoryJob.source)
                WHERE \(conditions.parts.joined(separator: " AND ")) ORDER BY job.seq DESC LIMIT ?
                """, arguments: StatementArguments(conditions.values) + [limit + 1])
        let jobs = rows.map(HistoryJob.init)
        guard jobs.count > limit else { return Result(jobs: jobs, next: nil) }
        return Result(jobs: Array(jobs.prefix(limit)), next: jobs[limit - 1].sequence)
    }

    /// - Returns: how many fit, at most ``countLimit`` + 1.
    func count(_ database: Database, at now: Date) throws -> Int {
        let conditions = conditions(at: now)
        return try Int.fetchOne(
            database,
            sql: """
                SELECT count(*) FROM (
                    SELECT 1 FROM job WHERE \(conditions.parts.joined(separator: " AND ")) LIMIT \(Self.countLimit + 1))
                """, arguments: StatementArguments(conditions.values)) ?? 0
    }

    private func conditions(at now: Date) -> Conditions {
        var conditions = Conditions()
        conditions.add("job.backend = ?", backend)
        for wish in search.wishes {
            let not = wish.isNegated
            switch wish.term {
            case .state(let state): conditions.add("job.state = ?", state.rawValue, isNegated: not)
            case .name(let text): add(label: text, .name, "name", to: &conditions, not)
            case .queue(let text): add(label: text, .queue, "queue", to: &conditions, not)
            case .worker(let text): add(label: text, .worker, "worker", to: &conditions, not)
            case .id(let text): conditions.add("job.id GLOB ?", Self.glob(text), isNegated: not)
            case .root(let text): conditions.add("job.root = ?", text, isNegated: not)
            case .parent(let text): conditions.add("job.parent = ?", text, isNegated: not)
            case .since(let seconds):
                conditions.add("job.touched >= ?", now.timeIntervalSince1970 - seconds, isNegated: not)
            case .before(let seconds):
                conditions.add("job.touched < ?", now.timeIntervalSince1970 - seconds, isNegated: not)
            case .ran(let comparison, let seconds):
                conditions.add("job.run \(comparison.rawValue) ?", seconds, isNegated: not)
            case .waited(let comparison, let seconds):
                conditions.add(
                    "job.started - coalesce(job.due, job.sent, job.received) \(comparison.rawValue) ?", seconds,
                    isNegated: not)
            case .attempt(let comparison, let number):
                conditions.add("job.retries + 1 \(comparison.rawValue) ?", number, isNegated: not)
            case .words(let text):
                // What lies behind the page need not be found. The opposite needs all that is found.
                let bound = not ? "" : "AND rowid < ? ORDER BY rowid DESC LIMIT \(Self.mostFound)"
                let sql = "job.seq IN (SELECT rowid FROM job_text WHERE job_text MATCH ? \(bound))"
                if not {
                    conditions.add(sql, Self.match(text), isNegated: true)
                } else {
                    conditions.add(sql, Self.match(text), before ?? Int64.max)
                }
            }
        }
        return conditions
    }

    private func add(
        label text: String, _ kind: HistoryStore.LabelKind, _ column: String, to conditions: inout Conditions,
        _ isNegated: Bool
    ) {
        if text.contains("*") {
            conditions.add(
                "job.\(column) IN (SELECT id FROM label WHERE kind = \(kind.rawValue) AND value GLOB ?)",
                Self.glob(text), isNegated: isNegated)
        } else {
            conditions.add(
                "job.\(column) = (SELECT id FROM label WHERE kind = \(kind.rawValue) AND value = ?)", text,
                isNegated: isNegated)
        }
    }

    /// - Returns: a pattern of SQLite in which only `*` is special.
    static func glob(_ text: String) -> String {
        text.replacing("[", with: "[[]").replacing("?", with: "[?]")
    }

    /// - Returns: a query of FTS5 in which nothing is special: every word must be there, the last one as a beginning.
    static func match(_ text: String) -> String {
        var words: [String] = []
        var word = ""
        for scalar in text.unicodeScalars {
            if isPartOfWord(scalar) {
                word.unicodeScalars.append(scalar)
            } else if !word.isEmpty {
                words.append(word)
                word = ""
            }
        }
        if !word.isEmpty { words.append(word) }
        return words.enumerated().map { place, word in
            let isBeginning = place == words.count - 1 && word.unicodeScalars.count > 1
            return "\"\(word)\"" + (isBeginning ? "*" : "")
        }.joined(separator: " AND ")
    }

    /// As SQLite's tokenizer `unicode61` has it.
    static func isPartOfWord(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter, .decimalNumber,
            .letterNumber, .otherNumber, .privateUse:
            true
        default: false
        }
    }
}

extension HistoryStore {
    /// One job, with its attempts, the oldest first.
    func job(_ id: JobID, backend: Int64) async throws -> (job: HistoryJob, attempts: [HistoryAttempt])? {
        try await read { database in
            guard
                let row = try Row.fetchOne(
                    database,
                    sql: "SELECT \(HistoryJob.columns) FROM \(HistoryJob.source) WHERE job.backend = ? AND job.id = ?",
                    arguments: [backend, id])
            else { return nil }
            let job = HistoryJob(row)
            let attempts = try Row.fetchAll(
                database,
                sql: """
                    SELECT number, label.value, received, started, ended, state, error
                    FROM attempt LEFT JOIN label ON label.id = attempt.worker WHERE job = ? ORDER BY number LIMIT 200
                    """, arguments: [job.sequence]
            ).map(HistoryAttempt.init)
            return (job, attempts)
        }
    }

    /// The jobs that a job has started, the oldest first.
    func children(of id: JobID, backend: Int64, limit: Int = 100) async throws -> [HistoryJob] {
        try await read { database in
            try Row.fetchAll(
                database,
                sql: """
                    SELECT \(HistoryJob.columns) FROM \(HistoryJob.source)
                    WHERE job.backend = ? AND job.parent = ? ORDER BY job.seq LIMIT ?
                    """, arguments: [backend, id, limit]
            ).map(HistoryJob.init)
        }
    }

    /// The jobs that fit, and how many more there are.
    func page(_ query: JobPageQuery, at now: Date) async throws -> JobPageQuery.Result {
        try await read { try query.run($0, at: now) }
    }

    func count(_ query: JobPageQuery, at now: Date) async throws -> Int {
        try await read { try query.count($0, at: now) }
    }

    /// Jobs that were claimed or ran when they were heard of last, which is longer ago; the oldest first.
    func abandoned(backend: Int64, before: Date, limit: Int = 100) async throws -> [HistoryJob] {
        try await read { database in
            try Row.fetchAll(
                database,
                sql: """
                    SELECT \(HistoryJob.columns) FROM \(HistoryJob.source)
                    WHERE job.state = 2 AND job.touched < ? AND job.backend = ? ORDER BY job.touched LIMIT ?
                    """, arguments: [before.timeIntervalSince1970, backend, limit]
            ).map(HistoryJob.init)
        }
    }

    /// Dead letters by name and error, the most first.
    func failures(backend: Int64, limit: Int) async throws -> [FailureGroup] {
        try await read { database in
            try Row.fetchAll(
                database,
                sql: """
                    SELECT label.value, what, count(*), max(ended) FROM (
                        SELECT * FROM (
                            SELECT name, substr(coalesce(error, ''), 1, 120) AS what, ended FROM job
                            WHERE backend = ?1 AND state = 4 ORDER BY seq DESC LIMIT 10000)
                        UNION ALL SELECT * FROM (
                            SELECT name, substr(coalesce(error, 'lost with its worker'), 1, 120), ended FROM job
                            WHERE backend = ?1 AND state = 8 ORDER BY seq DESC LIMIT 10000)
                    ) AS failed LEFT JOIN label ON label.id = failed.name
                    GROUP BY failed.name, what ORDER BY count(*) DESC LIMIT ?2
                    """, arguments: [backend, limit]
            ).map { row in
                FailureGroup(
                    name: row[0] ?? "", error: row[1], count: row[2],
                    last: (row[3] as Double?).map { Date(timeIntervalSince1970: $0) })
            }
        }
    }
}

/// Failed jobs of one name with one error.
struct FailureGroup: Sendable, Hashable {
    var name: String
    /// The begin of it.
    var error: String
    var count: Int
    var last: Date?
}
