import Hoist
import NIOCore
import RESP
import Synchronization

/// Has Redis tell when an empty list gets an element, whoever puts it there.
///
/// Each watched list has a connection that blocks in `BLMOVE list list RIGHT RIGHT`: the element is taken from the end of the list and put
/// back in the same place in one step, so that it is never missing, and the answer is the ring.
final class ListWatcher: Sendable {
    private struct Watch {
        var isArmed = false
        var connection: RESPConnection?
        var failures = 0
    }

    private struct State {
        var watches: [String: Watch] = [:]
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

    /// Rings once for each of these lists, as soon as it has an element.
    func arm(_ lists: [String]) {
        let new = state.withLock { state -> [String] in
            guard !state.isClosed else { return [] }
            return lists.filter { list in
                if state.watches[list]?.isArmed == true { return false }
                state.watches[list, default: Watch()].isArmed = true
                return true
            }
        }
        for list in new { block(on: list) }
    }

    private func block(on list: String) {
        let (connection, isWanted) = state.withLock { ($0.watches[list]?.connection, !$0.isClosed) }
        guard isWanted else { return }
        guard let connection, connection.isOpen else { return connect(for: list) }
        let command = RESPCommand("BLMOVE", [.text(list), .text(list), "RIGHT", "RIGHT", .integer(Self.blockSeconds)])
        connection.send(command, timeout: .seconds(Self.blockSeconds + 3)) { [weak self] result in self?.answered(result, list) }
    }

    private func connect(for list: String) {
        client.openConnection(for: list).whenComplete { [weak self] result in
            guard let self else {
                if case .success(let connection) = result { connection.close() }
                return
            }
            switch result {
            case .success(let connection):
                let isWanted = state.withLock { state in
                    guard !state.isClosed else { return false }
                    state.watches[list]?.connection = connection
                    return true
                }
                if isWanted { block(on: list) } else { connection.close() }
            case .failure: failed(list)
            }
        }
    }

    private func answered(_ result: Result<RESPValue, RESPError>, _ list: String) {
        switch result {
        case .success(.null):
            state.withLock { $0.watches[list]?.failures = 0 }
            block(on: list)
        // No longer the primary, or not the node of the list.
        case .success(.error), .failure: failed(list)
        case .success:
            state.withLock { state in
                state.watches[list]?.isArmed = false
                state.watches[list]?.failures = 0
            }
            doorbell.ring()
        }
    }

    /// Gives the connection up, and rings after a while: whatever came meanwhile may have been missed.
    private func failed(_ list: String) {
        let (connection, failures) = state.withLock { state -> (RESPConnection?, Int) in
            state.watches[list]?.failures += 1
            return (state.watches[list]?.connection.take(), state.watches[list]?.failures ?? 0)
        }
        connection?.close()
        client.schedule(after: .milliseconds(min(4000, 100 << min(failures, 6)))) { [weak self] in
            guard let self else { return }
            state.withLock { $0.watches[list]?.isArmed = false }
            doorbell.ring()
        }
    }

    /// Rings after a while: the lists hold what nobody here can take, so that Redis would answer at once, again and again.
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
