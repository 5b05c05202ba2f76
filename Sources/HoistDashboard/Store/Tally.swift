import HoistMonitor

/// How the attempts of a span of time have ended, and how long they took.
struct Tally: Sendable, Hashable {
    var succeeded = 0
    var failed = 0
    var retried = 0
    var cancelled = 0
    /// How long successes and failures ran.
    var runs = Durations()
    /// How long what began had waited.
    var waits = Durations()

    var ended: Int { succeeded + failed + cancelled }
    var isEmpty: Bool { ended + retried == 0 && waits.isEmpty }

    mutating func add(_ state: HistoryState, run: Double?) {
        add(state, 1)
        if let run { runs.add(run) }
    }

    /// Adds ends of which the time is not known.
    mutating func add(_ state: HistoryState, _ count: Int) {
        switch state {
        case .succeeded: Self.add(count, to: &succeeded)
        case .failed, .lost: Self.add(count, to: &failed)
        case .retrying: Self.add(count, to: &retried)
        case .cancelled, .expired: Self.add(count, to: &cancelled)
        case .waiting, .scheduled, .running: break
        }
    }

    /// Whatever workers say, sums of several counts still fit.
    private static let most = 1_000_000_000_000_000

    private static func add(_ count: Int, to sum: inout Int) { sum = min(sum + min(max(0, count), most), most) }

    mutating func merge(_ other: Tally) {
        Self.add(other.succeeded, to: &succeeded)
        Self.add(other.failed, to: &failed)
        Self.add(other.retried, to: &retried)
        Self.add(other.cancelled, to: &cancelled)
        runs.merge(other.runs)
        waits.merge(other.waits)
    }
}

/// What a tally is of.
struct Series: Sendable, Hashable {
    enum Kind: Int, Sendable, CaseIterable { case all = 0, name = 1, queue = 2, worker = 3 }

    var kind: Kind
    /// Empty for ``Kind/all``.
    var label: String

    static let all = Series(kind: .all, label: "")
    /// What has no place among those that are counted apart.
    static let other = "other"
}

/// The lengths of time that tallies are kept for, and for how long.
enum Resolution: Int, Sendable, CaseIterable {
    /// In memory alone.
    case tenSeconds = 10
    case minute = 60
    case fiveMinutes = 300
    case hour = 3600

    var seconds: Int { rawValue }

    /// Seconds.
    var keptFor: Int {
        switch self {
        case .tenSeconds: 3600
        case .minute: 2 * 86_400
        case .fiveMinutes: 30 * 86_400
        case .hour: 731 * 86_400
        }
    }

    static let stored: [Resolution] = [.minute, .fiveMinutes, .hour]
}
