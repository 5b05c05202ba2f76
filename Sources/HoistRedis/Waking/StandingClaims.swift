import Hoist
import Synchronization

/// This program's view of the claims that wait on the server, see worker_turn.lua.
final class StandingClaims: Sendable {
    /// A point in the history of claims, to put answers in order: they may arrive in another order than the server gave
    /// them.
    struct Moment: Comparable {
        /// The number of the claims: later claims have higher numbers.
        var number: Int64 = 0
        /// How often the claims had been carried out.
        var times: Int64 = 0

        init() {}

        /// - Parameter text: `number` and `times`, with a point between.
        init?(_ text: String) {
            let parts = text.split(separator: ".").map { Int64($0) }
            guard parts.count == 2, let number = parts[0], let times = parts[1] else { return nil }
            (self.number, self.times) = (number, times)
        }

        static func < (a: Moment, b: Moment) -> Bool { (a.number, a.times) < (b.number, b.times) }
    }

    private struct Worker {
        var deliver: WorkerTurn.LateResultHandler
        /// How often `deliver` was called, or is about to be called.
        var deliveryCount = 0
        /// The version of the claims that wait, as far as known here; empty for none.
        var version = ""
        /// The latest moment that is known.
        var latest = Moment()
        /// How many answers for the number of that moment have arrived.
        var arrived: Int64 = 0
        /// Since when an answer is known to be on its way.
        var expectsSince: ContinuousClock.Instant?
        /// The lowest valid number: jobs that claims with lower numbers brought were given back.
        var firstValid: Int64 = 0
    }

    /// Claims that are made now.
    struct Begun {
        var number: Int64
        /// The version of the earlier claims that these claims replace.
        var replaced: String
        fileprivate var latest: Moment
    }

    /// Claims that are taken back.
    struct Withdrawn {
        /// The version that waited, as far as was known.
        var version: String
        fileprivate var deliveryCount: Int
    }

    /// The outcome of claims that waited.
    struct Claimed {
        var deliver: WorkerTurn.LateResultHandler
        /// False when jobs that were handed out under this number have been given back.
        var isValid: Bool
    }

    /// An answer that is on its way arrives within this time; otherwise it got lost.
    static let patience = Duration.milliseconds(500)

    private let workers = Mutex<[WorkerID: Worker]>([:])
    private let lastNumber = Atomic<Int64>(0)
    /// Workers that have left: jobs that are on their way to them are not begun any more.
    private let gone = Mutex<Set<WorkerID>>([])

    /// Called before new claims are sent that wait on the server when there are too few jobs.
    /// - Returns: nil when the worker has left, or when jobs have been delivered, or are on their way, that the budget
    ///   does not take into account.
    func begin(_ request: WorkerTurn, _ deliver: @escaping WorkerTurn.LateResultHandler) -> Begun? {
        if isGone(request.worker) { return nil }
        let number = lastNumber.add(1, ordering: .relaxed).newValue
        return workers.withLock { workers in
            var entry = workers[request.worker] ?? Worker(deliver: deliver)
            guard entry.deliveryCount <= request.lateResultCount else { return nil }
            if let since = entry.expectsSince, .now - since > Self.patience {
                (entry.version, entry.expectsSince, entry.arrived) = ("", nil, entry.latest.times)
            }
            // Answers come over several connections: a later answer may arrive first.
            guard entry.arrived >= entry.latest.times else {
                entry.expectsSince = entry.expectsSince ?? .now
                workers[request.worker] = entry
                return nil
            }
            let begun = Begun(number: number, replaced: entry.version, latest: entry.latest)
            entry.deliver = deliver
            entry.version = ""
            workers[request.worker] = entry
            return begun
        }
    }

    /// Notes the answer of a turn: its claims wait now, or none do, or earlier claims were carried out and nothing was
    /// claimed.
    /// - Parameter version: as worker_turn.lua returns it.
    func note(_ version: String, of worker: WorkerID, _ begun: Begun) {
        workers.withLock { workers in
            // The answers of these claims may have arrived before.
            guard var entry = workers[worker], entry.latest.number < begun.number else { return }
            if version != "-" {
                entry.version = version
                entry.latest.number = begun.number
                (entry.latest.times, entry.arrived, entry.expectsSince) = (0, 0, nil)
            } else if entry.latest == begun.latest {
                // Until the answer of the earlier claims is here, nothing is claimed.
                entry.version = begun.replaced
                entry.expectsSince = entry.expectsSince ?? .now
            }
            workers[worker] = entry
        }
    }

    /// Notes that claims have been carried out.
    /// - Returns: nil when the worker has left; the jobs that were handed out then go back.
    func claimed(_ moment: Moment, of worker: WorkerID, nowWaiting version: String) -> Claimed? {
        workers.withLock { workers in
            guard var entry = workers[worker] else { return nil }
            let isValid = moment.number >= entry.firstValid
            if moment.number > entry.latest.number { entry.arrived = 0 }
            if moment.number >= entry.latest.number { entry.arrived += 1 }
            if moment > entry.latest {
                entry.version = isValid ? version : ""
                entry.latest = moment
            }
            if entry.arrived >= entry.latest.times { entry.expectsSince = nil }
            entry.deliveryCount += 1
            workers[worker] = entry
            return Claimed(deliver: entry.deliver, isValid: isValid)
        }
    }

    /// Reports to the worker that jobs that were handed out may have been lost.
    func fail(_ worker: WorkerID, _ error: BackendError) {
        let deliver = workers.withLock { workers in
            workers[worker]?.deliveryCount += 1
            return workers[worker]?.deliver
        }
        deliver?(.failure(error))
    }

    /// Invalidates all claims made so far: jobs that they bring are given back, and do not count when they arrive.
    /// - Returns: false, with nothing changed, when jobs have been delivered that the request does not take into
    ///   account.
    func invalidate(_ request: WorkerTurn) -> Bool {
        workers.withLock { workers in
            guard var entry = workers[request.worker] else { return true }
            guard entry.deliveryCount <= request.lateResultCount else { return false }
            entry.firstValid = lastNumber.load(ordering: .relaxed) + 1
            (entry.version, entry.expectsSince, entry.arrived) = ("", nil, entry.latest.times)
            workers[request.worker] = entry
            return true
        }
    }

    /// Whether claims wait as far as known, or jobs that they got are on their way, or here and not taken into account
    /// yet.
    func hasAny(of request: WorkerTurn) -> Bool {
        workers.withLock { workers in
            guard let entry = workers[request.worker] else { return false }
            return !entry.version.isEmpty || entry.arrived < entry.latest.times
                || entry.deliveryCount > request.lateResultCount
        }
    }

    /// Called before claims that wait are taken back.
    /// - Returns: nil when the worker never had any.
    func withdraw(_ worker: WorkerID) -> Withdrawn? {
        workers.withLock { workers in
            guard let entry = workers[worker] else { return nil }
            workers[worker]?.version = ""
            return Withdrawn(version: entry.version, deliveryCount: entry.deliveryCount)
        }
    }

    /// Whether jobs have been delivered since the claims were taken back.
    func hasDelivered(_ worker: WorkerID, since withdrawn: Withdrawn) -> Bool {
        workers.withLock { ($0[worker]?.deliveryCount ?? .max) > withdrawn.deliveryCount }
    }

    func isGone(_ worker: WorkerID) -> Bool { gone.withLock { $0.contains(worker) } }

    /// Notes that a worker is present, perhaps again.
    func welcome(_ worker: WorkerID) { gone.withLock { _ = $0.remove(worker) } }

    func forget(_ worker: WorkerID) {
        gone.withLock { _ = $0.insert(worker) }
        workers.withLock { $0[worker] = nil }
    }
}
