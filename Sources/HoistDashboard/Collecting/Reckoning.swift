import HoistMonitor

/// Compares what a Hoist worker says that it has ended with what its events told: what was left out, or missed, is
/// counted all the same.
struct Reckoning: Sendable {
    struct Kind: Sendable, Hashable {
        var name: String
        var state: HistoryState
    }

    private var processID: Int?
    /// What the worker had ended before it was heard of.
    private var base: [Kind: Int] = [:]
    /// What events have told since.
    private var counted: [Kind: Int] = [:]
    /// What the worker said at the heartbeat before: the events of all of that have come by now.
    private var told: [Kind: Int] = [:]
    private var isNew = true
    /// The worker was heard from its start: what it has ended, it has ended since then.
    private var isWhole = false

    /// More is not believed of one heartbeat.
    private static let mostMissing = 10_000_000

    /// An event told the end of an attempt.
    mutating func count(_ kind: Kind) { counted[kind, default: 0] += 1 }

    /// - Returns: what was not told by events, and is counted now.
    /// - Parameter hasStarted: the worker says that it has just started.
    mutating func take(_ worker: MonitoredWorker, hasStarted: Bool = false) -> [(kind: Kind, missing: Int)] {
        let now = Self.totals(worker)
        if isNew || processID != worker.processID {
            // What it did before is not known by the minute. What events told already stays told.
            self = Reckoning()
            (processID, isNew, told) = (worker.processID, false, now)
            isWhole = hasStarted
            if !isWhole { base = now }
            return []
        }
        var all: [(Kind, Int)] = []
        if !isWhole {
            // A worker tells what has changed, and all only now and then: what is told first may be old.
            for (kind, total) in now where told[kind] == nil {
                base[kind] = max(0, total - counted[kind, default: 0])
            }
        }
        for (kind, total) in told {
            let missing = total - base[kind, default: 0] - counted[kind, default: 0]
            if missing > 0 {
                all.append((kind, min(missing, Self.mostMissing)))
                counted[kind, default: 0] += missing
            }
        }
        told = now
        return all.map { (kind: $0.0, missing: $0.1) }
    }

    private static func totals(_ worker: MonitoredWorker) -> [Kind: Int] {
        var totals: [Kind: Int] = [:]
        for (name, outcomes) in worker.totals {
            for (outcome, count) in outcomes {
                if let state = state(outcome) { totals[Kind(name: name, state: state), default: 0] += count }
            }
        }
        return totals
    }

    private static func state(_ outcome: String) -> HistoryState? {
        switch outcome {
        case "succeeded": .succeeded
        case "failed": .failed
        case "retried": .retrying
        case "cancelled": .cancelled
        case "expired": .expired
        default: nil
        }
    }
}
