import Hoist
import NIOCore
import RESP
import Synchronization

/// Has Redis report when an empty list gets an element, whichever program puts it there.
///
/// Each watched list has a connection that blocks in `BLMOVE list list RIGHT RIGHT`: one step takes the element from
/// the end of the list and puts it back in the same place, so that it is never missing, and the answer is the ring. For
/// a worker whose claims wait on the server, the script that carries them out is sent right behind that command: Redis
/// runs it as soon as the list gets an element, and its answer brings the worker the job.
final class ListWatcher: Sendable {
    /// A worker that has a connection of its own for each list.
    struct Claimant: Sendable {
        var worker: WorkerID
        /// The command that carries out the claims; nil when the script cannot be called yet.
        var claim: @Sendable () -> RESPCommand?
        /// Receives the answer of the script.
        var answered: @Sendable (RESPValue) -> Verdict
        /// Called when the answer got lost: the script may have handed out jobs, and which ones is unknown.
        var lost: @Sendable () -> Void
    }

    enum Verdict {
        /// The list is empty: keep watching it.
        case again
        /// The claimant has got a job, and itself asks for more.
        case taken
        /// A worker must look: ring the doorbell.
        case ring
    }

    private struct Target: Hashable {
        var list: String
        /// Nil when the watch only rings the doorbell.
        var worker: WorkerID?
    }

    private struct Watch {
        var isArmed = false
        var hasClaim = false
        var connection: RESPConnection?
        var claimant: Claimant?
        var failures = 0
    }

    private struct State {
        var watches: [Target: Watch] = [:]
        var isClosed = false
        var strangerDelay: Int64 = 0
        var willLookAgain = false
    }

    private let client: RESPClient
    private let doorbell: Doorbell
    private let state = Mutex(State())
    /// How long one command blocks. A connection that dies meanwhile is noticed at its end.
    private static let blockSeconds: Int64 = 4

    init(client: RESPClient, doorbell: Doorbell) {
        self.client = client
        self.doorbell = doorbell
    }

    /// Rings once, or has the claims of `claimant` carried out, as soon as the list has an element.
    func arm(_ list: String, for claimant: Claimant? = nil) {
        let target = Target(list: list, worker: claimant?.worker)
        state.withLock { state in
            if !state.isClosed, state.watches[target] == nil { state.watches[target] = Watch(claimant: claimant) }
        }
        arm(target)
    }

    /// Does nothing for a target that has been dropped.
    private func arm(_ target: Target) {
        let isNew = state.withLock { state in
            guard state.watches[target]?.isArmed == false else { return false }
            state.watches[target]?.isArmed = true
            return true
        }
        if isNew { block(on: target) }
    }

    /// Ends all watches of this worker.
    func drop(_ worker: WorkerID) {
        let connections = state.withLock { state in
            let dropped = state.watches.filter { $0.key.worker == worker }
            for target in dropped.keys { state.watches[target] = nil }
            return dropped.values.compactMap(\.connection)
        }
        for connection in connections { connection.close() }
    }

    private func block(on target: Target) {
        let (watch, isClosed) = state.withLock { ($0.watches[target], $0.isClosed) }
        guard let watch, !isClosed else { return }
        guard let connection = watch.connection, connection.isOpen else { return connect(for: target) }
        var commands = [
            RESPCommand(
                "BLMOVE", [.text(target.list), .text(target.list), "RIGHT", "RIGHT", .integer(Self.blockSeconds)])
        ]
        if let claim = watch.claimant?.claim() { commands.append(claim) }
        let hasClaim = commands.count > 1
        state.withLock { $0.watches[target]?.hasClaim = hasClaim }
        connection.send(commands, timeout: .seconds(Self.blockSeconds + 3)) { [weak self] result in
            self?.answered(result, target)
        }
    }

    private func connect(for target: Target) {
        client.openConnection(for: target.list).whenComplete { [weak self] result in
            guard let self else {
                if case .success(let connection) = result { connection.close() }
                return
            }
            switch result {
            case .success(let connection):
                let isWanted = state.withLock { state in
                    guard !state.isClosed, state.watches[target] != nil else { return false }
                    state.watches[target]?.connection = connection
                    return true
                }
                if isWanted { block(on: target) } else { connection.close() }
            case .failure: failed(target)
            }
        }
    }

    private func answered(_ result: Result<[RESPValue], RESPError>, _ target: Target) {
        // For instance, the server is no longer the primary, or not the node of the list.
        guard case .success(let replies) = result, let first = replies.first else { return failed(target) }
        if case .error = first { return failed(target) }
        let watch = state.withLock { state in
            state.watches[target]?.isArmed = false
            state.watches[target]?.hasClaim = false
            state.watches[target]?.failures = 0
            return state.watches[target]
        }
        guard let watch else { return }
        var verdict = replies.count > 1 ? watch.claimant?.answered(replies[1]) ?? .ring : .ring
        if case .ring = verdict, first.isNull { verdict = .again }
        switch verdict {
        // Later, so that the worker first begins the job that came.
        case .again: client.schedule(after: .zero) { [weak self] in self?.arm(target) }
        case .taken: break
        case .ring: doorbell.ring()
        }
    }

    /// Closes the connection, and rings after a delay: an element that came in between may have been missed.
    private func failed(_ target: Target) {
        let (watch, failures) = state.withLock { state -> (Watch?, Int) in
            let watch = state.watches[target]
            state.watches[target]?.failures += 1
            state.watches[target]?.connection = nil
            state.watches[target]?.hasClaim = false
            return (watch, state.watches[target]?.failures ?? 0)
        }
        guard let watch else { return }
        watch.connection?.close()
        if watch.hasClaim { watch.claimant?.lost() }
        client.schedule(after: .milliseconds(min(4000, 100 << min(failures, 6)))) { [weak self] in
            guard let self else { return }
            state.withLock { $0.watches[target]?.isArmed = false }
            doorbell.ring()
        }
    }

    /// Rings after a delay: the lists hold jobs that no worker here can take, so Redis would answer at once, again and
    /// again.
    func lookAgainLater(clock: any JobClock) {
        let delay = state.withLock { state -> Int64? in
            guard !state.willLookAgain else { return nil }
            state.willLookAgain = true
            state.strangerDelay = min(max(state.strangerDelay * 2, 20_000), 500_000)
            return state.strangerDelay
        }
        guard let delay else { return }
        _ = clock.schedule(after: .microseconds(delay)) { [weak self] in
            guard let self else { return }
            state.withLock { $0.willLookAgain = false }
            doorbell.ring()
        }
    }

    func foundNoStrangers() { state.withLock { $0.strangerDelay = 0 } }

    func close() {
        let connections = state.withLock { state in
            state.isClosed = true
            defer { state.watches = [:] }
            return state.watches.values.compactMap(\.connection)
        }
        for connection in connections { connection.close() }
    }
}
