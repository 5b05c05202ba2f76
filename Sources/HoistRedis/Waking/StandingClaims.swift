import Hoist
import Synchronization

/// What this side knows of the claims that wait on the server, see worker_turn.lua.
final class StandingClaims: Sendable {
    /// What has happened to claims: answers may arrive in another order than the server gave them.
    struct Moment: Comparable {
        /// Of the claims: later ones have higher numbers.
        var number: Int64 = 0
        /// How often they had been carried out.
        var times: Int64 = 0

        init() {}

        /// - Parameter text: the two, with a point between.
        init?(_ text: String) {
            let parts = text.split(separator: ".").map { Int64($0) }
            guard parts.count == 2, let number = parts[0], let times = parts[1] else { return nil }
            (self.number, self.times) = (number, times)
        }

        static func < (a: Moment, b: Moment) -> Bool { (a.number, a.times) < (b.number, b.times) }
    }

    private struct Worker {
        var deliver: WorkerTurn.LateResultHandler
        /// How often that was called, or is about to be.
        var deliveryCount = 0
        /// What waits, as far as is known here, in the server's words; empty for nothing.
        var version = ""
        /// When that was so.
        var latest = Moment()
        /// How many of the answers that belong to the latest number have come.
        var arrived: Int64 = 0
        /// Since when it is known that something is on its way here.
        var expectsSince: ContinuousClock.Instant?
        /// What earlier ones brought was given back.
        var firstValid: Int64 = 0
    }

    /// Claims that are made now.
    struct Begun {
        var number: Int64
        /// The version of the earlier ones that they take the place of.
        var replaced: String
        fileprivate var latest: Moment
    }

    /// Claims that are taken back.
    struct Withdrawn {
        /// The version that waited, as far as was known.
        var version: String
        fileprivate var deliveryCount: Int
    }

    /// What came of claims that waited.
    struct Claimed {
        var deliver: WorkerTurn.LateResultHandler
        /// False when jobs that were handed out under this number have been given back.
        var isValid: Bool
    }

    /// What is on its way is here sooner; else it got lost.
    static let patience = Duration.milliseconds(500)

    private let workers = Mutex<[WorkerID: Worker]>([:])
    private let lastNumber = Atomic<Int64>(0)
    /// Workers that have left: what is under way for them begins nothing any more.
    private let gone = Mutex<Set<WorkerID>>([])

    /// Before claims are made that are to wait when there is too little.
    /// - Returns: nil when something has been delivered that the budget does not take into account, or is on its way.
    func begin(_ request: WorkerTurn, _ deliver: @escaping WorkerTurn.LateResultHandler) -> Begun? {
        if isGone(request.worker) { return nil }
        let number = lastNumber.add(1, ordering: .relaxed).newValue
        return workers.withLock { workers in
            var entry = workers[request.worker] ?? Worker(deliver: deliver)
            guard entry.deliveryCount <= request.lateResultCount else { return nil }
            if let since = entry.expectsSince, .now - since > Self.patience {
                (entry.version, entry.expectsSince, entry.arrived) = ("", nil, entry.latest.times)
            }
            // Answers over several connections: a later one may come first.
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

    /// They wait now; or earlier ones were carried out, and nothing was claimed.
    /// - Parameter version: as worker_turn.lua returns it.
    func note(_ version: String, of worker: WorkerID, _ begun: Begun) {
        workers.withLock { workers in
            // What they brought may have come before.
            guard var entry = workers[worker], entry.latest.number < begun.number else { return }
            if version != "-" {
                entry.version = version
                entry.latest.number = begun.number
                (entry.latest.times, entry.arrived, entry.expectsSince) = (0, 0, nil)
            } else if entry.latest == begun.latest {
                // Until it is here, nothing is claimed.
                entry.version = begun.replaced
                entry.expectsSince = entry.expectsSince ?? .now
            }
            workers[worker] = entry
        }
    }

    /// They have been carried out.
    /// - Returns: nil when the worker has left, and what was handed out goes back.
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

    /// Something that was handed out may have been lost.
    func fail(_ worker: WorkerID, _ error: BackendError) {
        let deliver = workers.withLock { workers in
            workers[worker]?.deliveryCount += 1
            return workers[worker]?.deliver
        }
        deliver?(.failure(error))
    }

    /// Everything that claims made so far may bring is given back: it does not count when it arrives.
    /// - Returns: false, and nothing has changed, when something has been delivered that the request does not take into
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

    /// Whether claims wait for all that is known, or something that they got is on its way, or here and not taken into
    /// account yet.
    func hasAny(of request: WorkerTurn) -> Bool {
        workers.withLock { workers in
            guard let entry = workers[request.worker] else { return false }
            return !entry.version.isEmpty || entry.arrived < entry.latest.times
                || entry.deliveryCount > request.lateResultCount
        }
    }

    /// Before claims that wait are taken back.
    /// - Returns: nil when there never were any.
    func withdraw(_ worker: WorkerID) -> Withdrawn? {
        workers.withLock { workers in
            guard let entry = workers[worker] else { return nil }
            workers[worker]?.version = ""
            return Withdrawn(version: entry.version, deliveryCount: entry.deliveryCount)
        }
    }

    /// Whether something has been delivered since claims were taken back.
    func hasDelivered(_ worker: WorkerID, since withdrawn: Withdrawn) -> Bool {
        workers.withLock { ($0[worker]?.deliveryCount ?? .max) > withdrawn.deliveryCount }
    }

    func isGone(_ worker: WorkerID) -> Bool { gone.withLock { $0.contains(worker) } }

    /// A worker is there, perhaps again.
    func welcome(_ worker: WorkerID) { gone.withLock { _ = $0.remove(worker) } }

    func forget(_ worker: WorkerID) {
        gone.withLock { _ = $0.insert(worker) }
        workers.withLock { $0[worker] = nil }
    }
}
