import GRDB
import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// How far back charts look.
enum ChartRange: String, Sendable, CaseIterable {
    case quarterHour = "15m"
    case hour = "1h"
    case day = "1d"
    case week = "1w"
    case month = "30d"
    case year = "1y"

    var title: String {
        switch self {
        case .quarterHour: "15 min"
        case .hour: "1 h"
        case .day: "1 d"
        case .week: "1 w"
        case .month: "30 d"
        case .year: "1 y"
        }
    }

    var seconds: Int {
        switch self {
        case .quarterHour: 900
        case .hour: 3600
        case .day: 86_400
        case .week: 604_800
        case .month: 30 * 86_400
        case .year: 365 * 86_400
        }
    }

    /// The length of one bar.
    var step: Int {
        switch self {
        case .quarterHour: 10
        case .hour: 60
        case .day: 900
        case .week: 7200
        case .month: 6 * 3600
        case .year: 4 * 86_400
        }
    }

    /// What is read.
    var resolution: Resolution {
        switch self {
        case .quarterHour: .tenSeconds
        case .hour: .minute
        case .day, .week: .fiveMinutes
        case .month, .year: .hour
        }
    }

    /// Where the bars of a chart that ends now begin, seconds since 1970.
    func starts(at now: Date) -> [Int] {
        let last = Int(now.timeIntervalSince1970) / step * step
        let count = seconds / step
        return (0..<count).map { last - (count - 1 - $0) * step }
    }
}

extension HistoryStore {
    /// The tallies of a series, by the begin of the bar that they are in.
    func tallies(_ series: Series, backend: Int64, range: ChartRange, at now: Date) async throws -> [Int: Tally] {
        try await read { database in
            let begin = range.starts(at: now)[0]
            let resolution = range.resolution == .tenSeconds ? Resolution.minute : range.resolution
            let rows = try Row.fetchCursor(
                database,
                sql: """
                    SELECT succeeded, failed, retried, cancelled, runs, waits, at FROM cell
                    WHERE backend = ? AND step = ? AND kind = ? AND at >= ?
                        AND label = CASE ? WHEN '' THEN 0 ELSE
                            coalesce((SELECT id FROM label WHERE label.kind = ? AND value = ?), -1) END
                    """,
                arguments: [
                    backend, resolution.rawValue, series.kind.rawValue, begin, series.label, series.kind.rawValue - 1,
                    series.label,
                ])
            var bars: [Int: Tally] = [:]
            while let row = try rows.next() {
                let at: Int = row[6]
                let bar = max(range.step, resolution.seconds)
                bars[at / bar * bar, default: Tally()].merge(Tally(row))
            }
            return bars
        }
    }

    /// The depths of a queue, or the sum of all queues, by the begin of the bar.
    func depths(queue: String?, backend: Int64, range: ChartRange, at now: Date) async throws -> [Int: DepthPoint] {
        try await read { database in
            let begin = range.starts(at: now)[0]
            let ofQueue = queue == nil ? "" : "AND queue = (SELECT id FROM label WHERE kind = 1 AND value = ?)"
            var arguments: StatementArguments = [backend, range.resolution.rawValue]
            if let queue { arguments += [queue] }
            let rows = try Row.fetchCursor(
                database,
                sql: """
                    SELECT at, sum(waiting), max(oldest) FROM depth
                    WHERE backend = ? AND step = ? \(ofQueue) AND at >= ? GROUP BY at
                    """, arguments: arguments + [begin])
            var bars: [Int: DepthPoint] = [:]
            while let row = try rows.next() {
                let at: Int = row[0]
                let point = DepthPoint(waiting: row[1], oldest: row[2])
                let bar = at / range.step * range.step
                bars[bar] = bars[bar].map { $0.higher(point) } ?? point
            }
            return bars
        }
    }

    /// When nothing was heard.
    func gaps(backend: Int64, since: Date) async throws -> [ClosedRange<Double>] {
        try await read { database in
            try Row.fetchAll(
                database,
                sql: "SELECT begun, ended FROM gap WHERE backend = ? AND ended >= ? ORDER BY ended DESC LIMIT 1000",
                arguments: [backend, since.timeIntervalSince1970]
            ).map { row in
                let (begin, end): (Double, Double) = (row[0], row[1])
                return min(begin, end)...max(begin, end)
            }
        }
    }
}

extension QueueStatistics {
    /// Seconds that the oldest waiting job has waited; nil where none waits.
    func oldestAge(at now: Date) -> Double? { oldestWaiting.map { max(0, now.timeIntervalSince($0)) } }
}

/// How full queues were.
struct DepthPoint: Sendable, Hashable {
    var waiting: Int
    /// Seconds.
    var oldest: Double?

    func higher(_ other: DepthPoint) -> DepthPoint {
        DepthPoint(
            waiting: max(waiting, other.waiting),
            oldest: oldest.map { max($0, other.oldest ?? 0) } ?? other.oldest)
    }
}
