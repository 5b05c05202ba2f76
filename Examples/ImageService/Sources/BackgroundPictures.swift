import Hoist
import Synchronization

/// The pictures that this process paints itself. They are gone with it.
final class BackgroundPictures: Sendable {
    struct State: Sendable {
        var state = JobState.waiting
        var progress = JobProgress()
        var failure: String?
    }

    private let states = Mutex<[String: State]>([:])

    func state(of id: String) -> State? { states.withLock { $0[id] } }

    func add(_ id: String) { states.withLock { $0[id] = State() } }

    func change(_ id: String, _ body: (inout State) -> Void) {
        states.withLock { states in
            if var state = states[id] {
                body(&state)
                states[id] = state
            }
        }
    }

    /// - Returns: false when it has ended already, or is none of this process.
    func cancel(_ id: String) -> Bool {
        states.withLock { states in
            guard let state = states[id]?.state, !state.hasEnded else { return false }
            states[id]?.state = .cancelled
            return true
        }
    }

    /// Paints a picture, and notes how far it is.
    func run(_ job: PaintImage, in studio: Studio) async {
        change(job.picture) { if $0.state == .waiting { $0.state = .running } }
        do {
            let painting = try await studio.paint(job) { fraction, message in
                guard self.state(of: job.picture)?.state == .running else { throw CancellationError() }
                self.change(job.picture) { $0.progress = JobProgress(fraction: fraction, message: message) }
            }
            if var order = studio.store.order(job.picture) {
                order.painting = painting
                try studio.store.save(order)
            }
            change(job.picture) { $0.state = .succeeded }
        } catch {
            change(job.picture) { state in
                guard !state.state.hasEnded else { return }
                (state.state, state.failure) = (.failed, "\(error)")
            }
        }
    }
}
