import Synchronization

/// The ids and stamps of jobs that are not to be started, as far as this worker has heard of them.
///
/// Celery's workers keep as many, for as long: `worker.state.REVOKES_MAX`, `REVOKE_EXPIRES`.
final class RevokedJobs: Sendable {
    private static let mostIDs = 50_000
    private static let mostStamps = 10_000
    /// Microseconds.
    private static let lifetime: Int64 = 3 * 3600 * 1_000_000

    private struct State {
        var since: [JobID: Int64] = [:]
        /// The oldest first; an id may be named twice.
        var order: [(id: JobID, since: Int64)] = []
        var head = 0
        var stamps: [String: Set<String>] = [:]
        var stampCount = 0
    }

    private let state = Mutex(State())
    private let clock: any JobClock

    init(clock: any JobClock) { self.clock = clock }

    func insert(_ ids: some Sequence<JobID>) {
        let now = clock.uptime
        state.withLock { state in
            for id in ids where id.utf8.count <= 1024 {
                if state.since.updateValue(now, forKey: id) == nil { state.order.append((id, now)) }
            }
            Self.purge(&state, now)
        }
    }

    /// - Returns: false when no more stamps are taken.
    func insert(stamps: [(name: String, values: [String])]) -> Bool {
        state.withLock { state in
            for (name, values) in stamps {
                for value in values {
                    guard state.stampCount < Self.mostStamps else { return false }
                    if state.stamps[name, default: []].insert(value).inserted { state.stampCount += 1 }
                }
            }
            return true
        }
    }

    /// Whether a job is not to be started.
    func contains(_ id: JobID) -> Bool {
        state.withLock { state in
            guard !state.since.isEmpty, let since = state.since[id] else { return false }
            return clock.uptime - since < Self.lifetime
        }
    }

    var hasStamps: Bool { state.withLock { $0.stampCount > 0 } }

    /// Whether a job with these headers is not to be started.
    func matches(_ headers: MessageHeaders) -> Bool {
        state.withLock { state in
            state.stamps.contains { name, values in !values.isDisjoint(with: headers.stampValues(name)) }
        }
    }

    /// The ids, the oldest first.
    var ids: [JobID] {
        let now = clock.uptime
        return state.withLock { state in
            Self.purge(&state, now)
            return state.order[state.head...].map(\.id)
        }
    }

    private static func purge(_ state: inout State, _ now: Int64) {
        while state.head < state.order.count {
            let oldest = state.order[state.head]
            guard state.order.count - state.head > mostIDs || now - oldest.since >= lifetime else { break }
            state.head += 1
            state.since[oldest.id] = nil
        }
        if state.head > 1024, state.head * 2 > state.order.count {
            state.order.removeFirst(state.head)
            state.head = 0
        }
    }
}

extension MessageHeaders {
    /// The values of a stamp.
    func stampValues(_ name: String) -> Set<String> {
        switch stamps[name] {
        case .array(let values)?: Set(values.compactMap(Self.identifier))
        case let value?: Self.identifier(value).map { [$0] } ?? []
        case nil: []
        }
    }
}
