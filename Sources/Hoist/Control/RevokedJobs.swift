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
        /// Of each revoked stamp when it was revoked, by name and value.
        var stamps: [String: [String: Int64]] = [:]
        var stampOrder: [(name: String, value: String, since: Int64)] = []
    }

    private let state = Mutex(State())
    private let clock: any JobClock

    init(clock: any JobClock) { self.clock = clock }

    func insert(_ ids: some Sequence<JobID>) {
        let now = clock.uptime
        state.withLock { state in
            for id in ids where id.utf8.count <= 1024 {
                state.since[id] = now
                state.order.append((id, now))
            }
            Self.purge(&state, now)
        }
    }

    /// Takes what another worker has heard: a list of ids, or from Celery 5.6 an object that says when each was
    /// revoked.
    func merge(_ revoked: WireValue?) {
        switch revoked {
        case .array(let ids)?: insert(ids.compactMap(MessageHeaders.identifier))
        case .object(let ids)?: insert(ids.keys)
        default: break
        }
    }

    /// Names and values above 1,024 bytes are left out.
    func insert(stamps: [(name: String, values: [String])]) {
        let now = clock.uptime
        state.withLock { state in
            for (name, values) in stamps where name.utf8.count <= 1024 {
                for value in values where value.utf8.count <= 1024 {
                    state.stamps[name, default: [:]][value] = now
                    state.stampOrder.append((name, value, now))
                }
            }
            // The oldest make room. One that was revoked again is further behind as well.
            while let oldest = state.stampOrder.first,
                state.stampOrder.count > Self.mostStamps || now - oldest.since >= Self.lifetime
            {
                state.stampOrder.removeFirst()
                guard state.stamps[oldest.name]?[oldest.value] == oldest.since else { continue }
                state.stamps[oldest.name]?[oldest.value] = nil
                if state.stamps[oldest.name]?.isEmpty == true { state.stamps[oldest.name] = nil }
            }
        }
    }

    /// Whether a job is not to be started.
    func contains(_ id: JobID) -> Bool {
        state.withLock { state in
            guard !state.since.isEmpty, let since = state.since[id] else { return false }
            return clock.uptime - since < Self.lifetime
        }
    }

    var hasStamps: Bool { state.withLock { !$0.stamps.isEmpty } }

    /// Whether a job with these headers is not to be started.
    func matches(_ headers: MessageHeaders) -> Bool {
        state.withLock { state in
            guard case .object(let own) = headers.stamps else { return false }
            return own.contains { name, _ in
                guard let revoked = state.stamps[name] else { return false }
                return headers.stampValues(name).contains { revoked[$0] != nil }
            }
        }
    }

    /// The ids, the oldest first.
    var ids: [JobID] {
        let now = clock.uptime
        return state.withLock { state in
            Self.purge(&state, now)
            return state.order[state.head...].filter { state.since[$0.id] == $0.since }.map(\.id)
        }
    }

    private static func purge(_ state: inout State, _ now: Int64) {
        while state.head < state.order.count {
            let oldest = state.order[state.head]
            guard state.order.count - state.head > mostIDs || now - oldest.since >= lifetime else { break }
            state.head += 1
            // One that was revoked again is further behind as well.
            if state.since[oldest.id] == oldest.since { state.since[oldest.id] = nil }
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
