/// What this side knows of the claims of one worker that wait on the server: see worker_turn.lua.
///
/// Pure: no connection, no clock. The worker's session asks it before each turn, and tells it each answer. Answers come
/// over several connections, and may arrive in another order than the server gave them.
struct StandingClaims {
    /// What has happened to claims, as the server counts it.
    struct Moment: Comparable {
        /// Of the claims: later ones have higher numbers.
        var number: Int64 = 0
        /// How often they had been carried out.
        var times: Int64 = 0

        init(number: Int64 = 0, times: Int64 = 0) { (self.number, self.times) = (number, times) }

        /// - Parameter text: the two, with a point between.
        init?(_ text: String) {
            let parts = text.split(separator: ".").map { Int64($0) }
            guard parts.count == 2, let number = parts[0], let times = parts[1] else { return nil }
            self.init(number: number, times: times)
        }

        static func < (a: Moment, b: Moment) -> Bool { (a.number, a.times) < (b.number, b.times) }
    }

    /// Claims that are made now.
    struct Begun: Equatable {
        var number: Int64
        /// The version of the earlier claims that these take the place of.
        var replaced: String
        /// Connections that were given up in an earlier epoch cannot carry out these claims.
        var epoch: Int64
        fileprivate var latest: Moment
    }

    /// Claims that are taken back.
    struct Withdrawn: Equatable {
        /// The version that waited, as far as was known.
        var version: String
        fileprivate var arrivalCount: Int
    }

    /// How long an answer may be on its way. An answer that takes longer is lost.
    static let patience = Duration.milliseconds(500)

    private var lastNumber: Int64 = 0
    private var hasBegun = false
    /// True once the worker has left or lost its lease: whatever arrives then begins nothing any more.
    private(set) var isOver = false
    /// How often the sink was told of something, or is about to be.
    private var arrivalCount = 0
    /// The version that waits, as far as is known, in the server's words; empty for none.
    private var version = ""
    /// When that was so.
    private var latest = Moment()
    /// How many of the answers that belong to the latest number have come.
    private var arrived: Int64 = 0
    /// Since when it is known that an answer is on its way.
    private var expectsSince: ContinuousClock.Instant?
    /// What claims with lower numbers brought was given back.
    private var firstValid: Int64 = 0
    /// How often answers were lost. The server may keep a connection that this side has given up, and with it a command
    /// that carries out claims: the command names the epoch that it was sent in, and carries out no claims of another.
    private(set) var epoch: Int64 = 0

    /// Before claims are made that are to wait when there is too little.
    /// - Parameter arrivalsSeen: how many arrivals the budget takes into account.
    /// - Returns: nil when something has arrived that the budget does not take into account, or is on its way.
    mutating func begin(arrivalsSeen: Int, now: ContinuousClock.Instant) -> Begun? {
        if isOver { return nil }
        hasBegun = true
        guard arrivalCount <= arrivalsSeen else { return nil }
        guard arrived >= latest.times else {
            expectsSince = expectsSince ?? now
            return nil
        }
        lastNumber += 1
        defer { version = "" }
        return Begun(number: lastNumber, replaced: version, epoch: epoch, latest: latest)
    }

    /// Gives up an answer that has been on its way for longer than ``patience``: what it brought may be lost.
    /// - Returns: whether the worker is to be told, which then has everything put back that it never heard of.
    mutating func giveUpOverdue(now: ContinuousClock.Instant) -> Bool {
        guard let since = expectsSince, now - since > Self.patience else { return false }
        return fail()
    }

    /// The claims wait now; or earlier ones were carried out, and nothing was claimed.
    /// - Parameter version: as worker_turn.lua returns it.
    mutating func note(_ version: String, _ begun: Begun, now: ContinuousClock.Instant) {
        // What they brought may have come before.
        guard !isOver, latest.number < begun.number else { return }
        if version != "-" {
            self.version = version
            latest = Moment(number: begun.number)
            (arrived, expectsSince) = (0, nil)
        } else if latest == begun.latest {
            // Until it is here, nothing is claimed.
            self.version = begun.replaced
            expectsSince = expectsSince ?? now
        }
    }

    /// The claims have been carried out.
    /// - Parameter version: of the claims that wait now; empty for none.
    /// - Returns: false when the jobs that were handed out under this number have been given back; nil when the worker
    ///   has left, and what was handed out goes back.
    mutating func claimed(_ moment: Moment, nowWaiting version: String) -> Bool? {
        guard hasBegun, !isOver else { return nil }
        let isValid = moment.number >= firstValid
        if moment.number > latest.number { arrived = 0 }
        if moment.number >= latest.number { arrived += 1 }
        if moment > latest {
            self.version = isValid ? version : ""
            latest = moment
        }
        if arrived >= latest.times { expectsSince = nil }
        arrivalCount += 1
        return isValid
    }

    /// Jobs that were handed out may have been lost.
    /// - Returns: whether the worker is to be told.
    mutating func fail() -> Bool {
        guard hasBegun, !isOver else { return false }
        (version, expectsSince, arrived) = ("", nil, latest.times)
        arrivalCount += 1
        epoch += 1
        return true
    }

    /// Everything that claims made so far may bring is given back: it does not count when it arrives.
    /// - Returns: false, and nothing has changed, when something has arrived that the worker has not seen.
    mutating func invalidate(arrivalsSeen: Int) -> Bool {
        guard hasBegun else { return true }
        guard arrivalCount <= arrivalsSeen else { return false }
        firstValid = lastNumber + 1
        (version, expectsSince, arrived) = ("", nil, latest.times)
        return true
    }

    /// Whether claims wait for all that is known, or something that they got is on its way, or here and not seen.
    func hasAny(arrivalsSeen: Int) -> Bool {
        hasBegun && (!version.isEmpty || arrived < latest.times || arrivalCount > arrivalsSeen)
    }

    /// Before claims that wait are taken back.
    /// - Returns: nil when there never were any.
    mutating func withdraw() -> Withdrawn? {
        guard hasBegun else { return nil }
        defer { version = "" }
        return Withdrawn(version: version, arrivalCount: arrivalCount)
    }

    /// Whether something has arrived since claims were taken back.
    func hasDelivered(since withdrawn: Withdrawn) -> Bool { isOver || arrivalCount > withdrawn.arrivalCount }

    /// The worker takes nothing any more.
    mutating func end() { isOver = true }
}
