import GRDB
import Hoist
import HoistMonitor

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// A job as the history knows it.
struct HistoryJob: Sendable, Hashable {
    /// The place in the order in which jobs were heard of first.
    var sequence: Int64 = 0
    var id: JobID
    var name: String?
    var queue: String?
    var worker: String?
    var lane: String?
    var state: HistoryState
    var sentAt: Date?
    var receivedAt: Date?
    var startedAt: Date?
    var endedAt: Date?
    var due: Date?
    var expires: Date?
    /// Seconds that the last attempt ran.
    var runTime: Double?
    /// Attempts made before the present one.
    var retries = 0
    /// As readable text, cut, secrets hidden.
    var positionalText: String?
    var keywordText: String?
    var result: String?
    var error: String?
    var traceback: String?
    var rootID: JobID?
    var parentID: JobID?
    /// When something was heard of it last.
    var touchedAt: Date

    /// Secrets are still in the texts.
    init(_ job: MonitoredJob, at now: Date) {
        id = job.id
        name = job.name
        queue = job.queue
        worker = job.worker
        lane = job.lane
        state = HistoryState(job, at: now)
        sentAt = job.sentAt
        receivedAt = job.receivedAt
        startedAt = job.startedAt
        endedAt = job.endedAt
        due = job.due
        expires = job.expires
        runTime = job.runTime
        retries = job.retries
        positionalText = job.positionalText
        keywordText = job.keywordText
        result = job.result
        error = job.exception
        traceback = job.traceback
        rootID = job.rootID
        parentID = job.parentID
        touchedAt = now
    }

    /// Arguments in one text.
    var argumentsText: String {
        switch (positionalText, keywordText) {
        case (let positional?, let keyword?) where positional != "()" && positional != "[]":
            keyword == "{}" ? positional : positional + " " + keyword
        case (_, let keyword?): keyword
        case (let positional?, nil): positional
        case (nil, nil): ""
        }
    }

    /// Seconds between the enqueue, or where that is not known the claim, and the start; from its due time on.
    var waitTime: Double? {
        guard let startedAt, let since = sentAt ?? receivedAt else { return nil }
        return max(0, startedAt.timeIntervalSince(due.map { max($0, since) } ?? since))
    }

    /// The columns that ``init(_:)`` reads.
    static let columns = """
        job.seq, job.id, name.value, queue.value, worker.value, job.lane, job.state, job.sent, job.received, \
        job.started, job.ended, job.due, job.expires, job.run, job.retries, job.positional, job.keyword, job.result, \
        job.error, job.traceback, job.root, job.parent, job.touched
        """
    static let source = """
        job LEFT JOIN label AS name ON name.id = job.name LEFT JOIN label AS queue ON queue.id = job.queue \
        LEFT JOIN label AS worker ON worker.id = job.worker
        """

    /// - Parameter row: with the columns of ``columns``.
    init(_ row: Row) {
        func date(_ index: Int) -> Date? { (row[index] as Double?).map { Date(timeIntervalSince1970: $0) } }
        sequence = row[0]
        id = row[1]
        name = row[2]
        queue = row[3]
        worker = row[4]
        lane = row[5]
        state = HistoryState(rawValue: row[6]) ?? .waiting
        sentAt = date(7)
        receivedAt = date(8)
        startedAt = date(9)
        endedAt = date(10)
        due = date(11)
        expires = date(12)
        runTime = row[13]
        retries = row[14]
        positionalText = row[15]
        keywordText = row[16]
        result = row[17]
        error = row[18]
        traceback = row[19]
        rootID = row[20]
        parentID = row[21]
        touchedAt = date(22) ?? .distantPast
    }
}

/// One attempt of a job, as its events told it.
struct HistoryAttempt: Sendable, Hashable {
    /// 1 for the first.
    var number: Int
    var worker: String?
    var receivedAt: Date?
    var startedAt: Date?
    var endedAt: Date?
    /// Nil while it runs.
    var state: HistoryState?
    var error: String?

    init(number: Int) { self.number = number }

    /// - Parameter job: the job at a moment of this attempt.
    init(_ job: HistoryJob) {
        number = job.retries + 1
        worker = job.worker
        receivedAt = job.receivedAt
        startedAt = job.startedAt
        endedAt = job.endedAt
        state = job.state == .running || job.state == .waiting || job.state == .scheduled ? nil : job.state
        error = state == nil || state == .succeeded ? nil : job.error
    }

    init(_ row: Row) {
        func date(_ index: Int) -> Date? { (row[index] as Double?).map { Date(timeIntervalSince1970: $0) } }
        number = row[0]
        worker = row[1]
        receivedAt = date(2)
        startedAt = date(3)
        endedAt = date(4)
        state = (row[5] as Int?).flatMap(HistoryState.init(rawValue:))
        error = row[6]
    }
}
