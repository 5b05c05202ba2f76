import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Tallies of the last hour, ten seconds each, in memory, and what of them is still to be written.
struct RecentTallies: Sendable {
    /// So many series are counted apart; the rest is counted under ``Series/other``.
    static let mostSeries = 500

    private static let mostPending = 20_000

    /// By series and ten seconds since 1970.
    private var cells: [Series: [Int: Tally]] = [:]
    private(set) var pending: [HistoryBatch.TallyKey: Tally] = [:]

    /// Adds to all series that a job belongs to.
    mutating func add(
        name: String?, queue: String?, worker: String?, at date: Date, _ change: (inout Tally) -> Void
    ) {
        var all = [Series.all]
        if let name { all.append(Series(kind: .name, label: name)) }
        if let queue { all.append(Series(kind: .queue, label: queue)) }
        if let worker { all.append(Series(kind: .worker, label: worker)) }
        let second = Int(date.timeIntervalSince1970)
        for var series in all {
            if cells[series] == nil, cells.count >= Self.mostSeries { series.label = Series.other }
            change(&cells[series, default: [:]][second / 10 * 10, default: Tally()])
            let key = HistoryBatch.TallyKey(series: series, minute: second / 60 * 60)
            // The history has not taken anything for long: what is new is kept for the last hour alone.
            guard pending[key] != nil || pending.count < Self.mostPending else { continue }
            change(&pending[key, default: Tally()])
        }
    }

    /// What is to be written now.
    mutating func takePending() -> [HistoryBatch.TallyKey: Tally] {
        defer { pending = [:] }
        return pending
    }

    mutating func putBack(_ tallies: [HistoryBatch.TallyKey: Tally]) {
        for (key, tally) in tallies { pending[key, default: Tally()].merge(tally) }
    }

    /// Forgets what is older than an hour.
    mutating func tidy(at now: Date) {
        let oldest = Int(now.timeIntervalSince1970) - Resolution.tenSeconds.keptFor
        for (series, list) in cells {
            let kept = list.filter { $0.key >= oldest }
            cells[series] = kept.isEmpty ? nil : kept
        }
    }

    /// The tallies of a series, by the begin of ten seconds.
    subscript(series: Series) -> [Int: Tally] { cells[series] ?? [:] }

    /// All series of a kind.
    func series(_ kind: Series.Kind) -> [Series] {
        cells.keys.filter { $0.kind == kind }.sorted { $0.label < $1.label }
    }

    /// The sum of a series over the last seconds.
    func sum(_ series: Series, seconds: Int, at now: Date) -> Tally {
        let begin = Int(now.timeIntervalSince1970) - seconds
        var sum = Tally()
        for (at, tally) in cells[series] ?? [:] where at > begin { sum.merge(tally) }
        return sum
    }
}
