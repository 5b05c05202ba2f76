import Hoist
import RESP
import Synchronization

/// Rings the doorbells of followed jobs when they change. All followers share one subscription to the channels of
/// results, and one to the channel of starts while at least one of them wants to hear of starts.
final class ResultFollower: Sendable {
    private struct State {
        var bells = JobBells()
        var hearsResults = false
        var hearsStarts = false
        var lastFollowed: Int64 = 0
    }

    private let results: RESPSubscriptions
    private let broker: RESPSubscriptions
    private let keys: RedisKeys
    private let clock: any JobClock
    private let state = Mutex(State())

    init(results: RESPSubscriptions, broker: RESPSubscriptions, keys: RedisKeys, clock: any JobClock) {
        self.results = results
        self.broker = broker
        self.keys = keys
        self.clock = clock
    }

    private var pattern: RESPSubscriptions.Target {
        .pattern(keys.resultPattern)
    }

    /// The bell of one job, shared by all its followers.
    /// - Parameter hearsStart: whether the bell also rings when a worker begins the job.
    func doorbell(of id: JobID, hearsStart: Bool) -> Doorbell {
        let uptime = clock.uptime
        let (bell, isFirst, isFirstForStarts) = state.withLock { state -> (Doorbell, Bool, Bool) in
            state.lastFollowed = uptime
            defer {
                state.hearsResults = true
                if hearsStart { state.hearsStarts = true }
            }
            return (state.bells.bell(of: id), !state.hearsResults, hearsStart && !state.hearsStarts)
        }
        if isFirst { subscribeToResults() }
        if isFirstForStarts { subscribeToStarts() }
        return bell
    }

    private func subscribeToResults() { results.subscribe(to: pattern) { [weak self] event in self?.heard(event) } }

    private func subscribeToStarts() {
        broker.subscribe(to: .channel(keys.startedChannel)) { [weak self] event in self?.heardOfStarts(event) }
    }

    func ring(_ id: JobID) { state.withLock { $0.bells[id] }?.ring() }

    private func heard(_ event: RESPSubscriptions.Event) {
        switch event {
        // What was published before may have been missed.
        case .subscribed: ringAll()
        case .message(let channel, _):
            let id = String(channel.dropFirst(keys.results.count))
            let uptime = clock.uptime
            let (bell, isIdle) = state.withLock { state -> (Doorbell?, Bool) in
                let bell = state.bells[id]
                if bell == nil { state.bells.remove(id) }
                // No job has been followed for a while: the subscription to all results is not needed.
                let isIdle = bell == nil && uptime - state.lastFollowed > 30_000_000 && state.bells.followed.isEmpty
                if isIdle {
                    (state.hearsResults, state.hearsStarts) = (false, false)
                    state.bells.clean()
                }
                return (bell, isIdle)
            }
            bell?.ring()
            guard isIdle else { return }
            results.unsubscribe(from: pattern)
            broker.unsubscribe(from: .channel(keys.startedChannel))
            // A follower may have come between the check and the end of the subscription.
            let (hearsResults, hearsStarts) = state.withLock { ($0.hearsResults, $0.hearsStarts) }
            if hearsResults { subscribeToResults() }
            if hearsStarts { subscribeToStarts() }
        }
    }

    private func heardOfStarts(_ event: RESPSubscriptions.Event) {
        guard case .message(_, let payload) = event else { return ringAll() }
        for line in payload.split(separator: UInt8(ascii: "\n")) { ring(String(decoding: line, as: UTF8.self)) }
    }

    private func ringAll() {
        for bell in state.withLock({ $0.bells.followed.values }) { bell.ring() }
    }

    func close() { results.close() }
}
