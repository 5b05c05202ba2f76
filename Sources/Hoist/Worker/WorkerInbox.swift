import Synchronization

/// What the rest of the program leaves for a worker's engine. Everything here may be called from any thread.
final class WorkerInbox: Sendable {
    struct Finished: Sendable {
        var settlement: Settlement
        var run: RunID
    }

    /// One run of one job in this process.
    typealias RunID = UInt64

    struct Contents: Sendable {
        var finished: [Finished] = []
        var progress: [RunID: JobProgress] = [:]
        /// Runs that have written something.
        var written: Set<RunID> = []
        var resizes: [Lane] = []
        /// Set when children can, or cannot, be started.
        var isProcessLaneUsable: Bool?
        var mayHaveWork = false
        /// What the backend handed out by itself, and to which incarnation of the worker.
        var late: [(worker: WorkerID, result: Result<TurnResult, any Error>)] = []
        var stop: Worker.StopMode?
        /// What the broker has done with jobs by itself.
        var notices: [JobNotice] = []
        /// What the broker finds worth telling a person.
        var warnings: [String] = []
        /// The last renewal of the lease, and of which incarnation.
        var renewal: (worker: WorkerID, error: (any Error)?)?
    }

    private let contents = Mutex(Contents())
    private let healthState = Mutex(WorkerHealth(isAlive: false, isConsuming: false, running: 0, concurrency: 0))
    let bell = Doorbell()
    /// Rings at a stop alone.
    let stopBell = Doorbell()

    /// When somebody asked for the health last, by the machine's uptime.
    private let healthAsked = Mutex(Int64.min / 2)
    var healthAskedAt: Int64 { healthAsked.withLock { $0 } }
    func noteHealthAsked() { healthAsked.withLock { $0 = SystemJobClock().uptime } }

    func finish(_ finished: Finished) {
        contents.withLock { $0.finished.append(finished) }
        bell.ring()
    }

    func report(_ progress: JobProgress, run: RunID) {
        contents.withLock { $0.progress[run] = progress }
        bell.ring()
    }

    func noteLog(run: RunID) {
        contents.withLock { _ = $0.written.insert(run) }
        bell.ring()
    }

    func resize(_ lane: Lane) {
        contents.withLock { $0.resizes.append(lane) }
        bell.ring()
    }

    func noteProcessLane(isUsable: Bool) {
        contents.withLock { $0.isProcessLaneUsable = isUsable }
        bell.ring()
    }

    func noteWork() {
        contents.withLock { $0.mayHaveWork = true }
        bell.ring()
    }

    func deliver(_ result: Result<TurnResult, any Error>, to worker: WorkerID) {
        contents.withLock { $0.late.append((worker, result)) }
        bell.ring()
    }

    func warn(_ text: String) {
        contents.withLock { $0.warnings.append(text) }
        bell.ring()
    }

    func note(_ notices: [JobNotice]) {
        contents.withLock { $0.notices += notices }
        bell.ring()
    }

    /// - Parameter error: why the lease could not be renewed; nil when it was.
    func noteRenewal(_ error: (any Error)?, of worker: WorkerID) {
        contents.withLock { $0.renewal = (worker, error) }
        bell.ring()
    }

    /// Whether a stop has been asked for.
    var isStopping: Bool { contents.withLock { $0.stop != nil } }

    func stop(_ mode: Worker.StopMode) {
        contents.withLock { contents in
            if mode.rank > (contents.stop?.rank ?? 0) { contents.stop = mode }
        }
        bell.ring()
        stopBell.ring()
    }

    /// Takes the notices alone.
    func takeNotices() -> [JobNotice] {
        contents.withLock { contents in
            defer { contents.notices = [] }
            return contents.notices
        }
    }

    /// Takes everything; a stop stays.
    func take() -> Contents {
        contents.withLock { contents in
            let taken = contents
            contents = Contents(stop: contents.stop)
            return taken
        }
    }

    var health: WorkerHealth {
        get { healthState.withLock { $0 } }
        set { healthState.withLock { $0 = newValue } }
    }
}

/// Takes what a session brings between turns.
struct InboxSink: SessionSink {
    let inbox: WorkerInbox
    /// The incarnation that the session is for.
    let worker: WorkerID

    func arrived(_ result: TurnResult) { inbox.deliver(.success(result), to: worker) }
    func arrivalWasLost(_ error: any Error) { inbox.deliver(.failure(error), to: worker) }
    func mayHaveWork() { inbox.noteWork() }
    func noticed(_ notices: [JobNotice]) { inbox.note(notices) }
    func warned(_ text: String) { inbox.warn(text) }
}

/// The session of a worker's present incarnation, and what the worker says of itself.
final class SessionBox: Sendable {
    private struct State {
        var session: (any WorkerSession)?
        var presence: WorkerPresence
    }

    private let state: Mutex<State>

    init(_ presence: WorkerPresence) { state = Mutex(State(presence: presence)) }

    var current: (any WorkerSession)? {
        get { state.withLock { $0.session } }
        set { state.withLock { $0.session = newValue } }
    }

    /// What the next renewal of the lease tells others.
    var presence: WorkerPresence {
        get { state.withLock { $0.presence } }
        set { state.withLock { $0.presence = newValue } }
    }

    /// The session and its worker; nil when there is none.
    var announced: (session: any WorkerSession, presence: WorkerPresence)? {
        state.withLock { state in state.session.map { ($0, state.presence) } }
    }
}
