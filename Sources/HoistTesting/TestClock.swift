#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif
public import Hoist
import Synchronization

/// A clock that stands still until a test moves it: delays, retries, expiries and leases of days pass in microseconds.
public final class TestClock: JobClock {
    private struct Entry {
        var at: Int64
        var id: UInt64
        var body: @Sendable () -> Void
    }

    private struct State {
        var elapsed: Int64 = 0
        var nextID: UInt64 = 0
        var entries: [Entry] = []
    }

    private let start: Date
    private let state = Mutex(State())

    public init(start: Date = Date(timeIntervalSince1970: 1_800_000_000)) { self.start = start }

    public var now: Date { start.addingTimeInterval(Double(state.withLock { $0.elapsed }) / 1_000_000) }
    public var uptime: Int64 { 1_000_000_000 + state.withLock { $0.elapsed } }

    public func schedule(after delay: Duration, _ body: @escaping @Sendable () -> Void) -> ScheduledCall {
        let microseconds = delay.components.seconds * 1_000_000 + delay.components.attoseconds / 1_000_000_000_000
        let id: UInt64? = state.withLock { state in
            guard microseconds > 0 else { return nil }
            state.nextID += 1
            state.entries.append(Entry(at: state.elapsed + microseconds, id: state.nextID, body: body))
            return state.nextID
        }
        guard let id else {
            body()
            return ScheduledCall {}
        }
        return ScheduledCall { [weak self] in self?.state.withLock { $0.entries.removeAll { $0.id == id } } }
    }

    /// Advances the clock by `duration`. Every call that is due by then runs, in the order of time, before this method
    /// returns.
    public func advance(by duration: Duration) {
        let microseconds = duration.components.seconds * 1_000_000 + duration.components.attoseconds / 1_000_000_000_000
        let target = state.withLock { $0.elapsed } + microseconds
        while true {
            let next: (@Sendable () -> Void)? = state.withLock { state in
                guard let index = state.entries.indices.min(by: { state.entries[$0].at < state.entries[$1].at }),
                    state.entries[index].at <= target
                else {
                    state.elapsed = target
                    return nil
                }
                let entry = state.entries.remove(at: index)
                state.elapsed = max(state.elapsed, entry.at)
                return entry.body
            }
            guard let next else { return }
            next()
        }
    }
}
