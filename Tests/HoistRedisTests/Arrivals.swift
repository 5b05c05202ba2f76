import Hoist
import Synchronization

/// The deliveries that claims of a session have brought after their turn.
final class Arrivals: SessionSink {
    let state = Mutex<(deliveries: [Delivery], count: Int)>(([], 0))
    var deliveries: [Delivery] { state.withLock { $0.deliveries } }
    /// How often something arrived.
    var count: Int { state.withLock { $0.count } }
    var all: (deliveries: [Delivery], count: Int) { state.withLock { $0 } }

    func arrived(_ result: TurnResult) {
        state.withLock { state in
            state.count += 1
            state.deliveries += result.deliveries
        }
    }

    func arrivalWasLost(_ error: any Error) { state.withLock { $0.count += 1 } }
    func mayHaveWork() {}
}
