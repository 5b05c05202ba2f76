#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Decides what a worker does with its jobs: which start, which wait, which go back, what to ask the broker for, and
/// how long to sleep. Pure: it starts, sends and cancels nothing itself, and time is an argument.
///
/// Every input is a method. What is to be done about it collects in the machine until ``takeActions()``; what is to be
/// sent next is asked for with ``next(_:)``.
struct WorkerMachine {
    typealias RunID = WorkerInbox.RunID

    /// The time of an input, by both clocks.
    struct Moment {
        var now: Date
        /// Microseconds.
        var uptime: Int64
    }

    /// What does not change while the worker runs.
    struct Rules {
        /// What the jobs that are known here take, by wire name.
        var needs: [String: SlotNeeds]
        var order = QueueOrder.strict
        var findsPartition: Claim.PartitionFinder?
        var isBurst = false
        var burstLeavesDelayedJobs = false
        /// Microseconds.
        var drainTimeout: Int64 = 25_000_000
        /// Whether the credit of a turn may last. Not for kinds that take slots or resources from one another, for only
        /// a turn knows what each has left; and not for children, whose number of jobs at hand changes with how long
        /// they take.
        var creditMayLast = false
        /// Whether a job was revoked before it began.
        var isRevoked: @Sendable (Delivery) -> Bool = { _ in false }
    }

    enum Action {
        /// A job was taken in. It starts with a later action, or is dropped.
        case admit(RunID, Delivery)
        /// Jobs that were taken in have their slots.
        case start([RunID])
        case cancel(RunID, JobContext.CancellationReason)
        /// The run is off the list: what it still returns is nobody's.
        case drop(RunID)
        /// A broker that cannot choose by name has delivered a job that has no handler here.
        case refuse(Delivery)
        /// A job was delivered that is not to be started.
        case revoke(Delivery)
        /// A lane has another size.
        case resize(LaneKind, slots: Int, before: Int)
    }

    /// What is to be done when nothing arrives.
    enum Step {
        case turn(Turn)
        /// Nothing, until something arrives or so much time has passed; nil for any time.
        case sleep(Duration?)
        /// The time for draining is over: what still runs goes back.
        case handBack
        /// The worker is done.
        case end
    }

    /// What to send, but for what only the jobs themselves know.
    struct Turn {
        var request: WorkerTurn
        /// The last progress of each job that has reported some.
        var progress: [(run: RunID, progress: JobProgress)] = []
        /// Jobs that have written something.
        var written: [RunID] = []
        fileprivate var incarnation: Int
    }

    /// A job on the list.
    struct Run {
        var jobID: JobID
        var jobName: String
        var token: Int64
        var queue: String
        var needs: SlotNeeds
        var attempt: Int
        var claimedAt: Date
        /// A worker has died with this job before.
        var isSuspect = false
        /// False for a job that was claimed and waits for slots.
        var hasBegun = false
    }

    private let rules: Rules
    private let kinds: [(needs: SlotNeeds, names: [String])]
    private(set) var queues: [QueueSubscription]
    private(set) var slots: SlotLedger
    private(set) var runs: [RunID: Run] = [:]
    private(set) var stop: Worker.StopMode?
    /// Whether the broker answered the last turn and the worker takes jobs.
    private(set) var isConsuming = false
    private var ahead = ClaimAhead()
    private var nextRun: RunID = 0
    /// The worker's lease was lost this many times.
    private var incarnation = 0
    private var unsettled: [Settlement] = []
    /// The settlements of the turn under way.
    private var inFlight: [Settlement] = []
    private var mayHaveWork = true
    private var mustLook = false
    /// Set when an answer got lost: the broker may think that this worker holds jobs of which it never heard.
    private(set) var mustReconcile = false
    private var nextDue: Date?
    /// Of this incarnation.
    private var arrivalsSeen = 0
    /// Set when lasting credit is for more than there is room for now.
    private var mustWithdraw = false
    private var drainDeadline: Int64?
    private var isProcessLaneClosed = false
    private var progress: [RunID: JobProgress] = [:]
    private var nextProgressAt: Int64 = 0
    private var written: Set<RunID> = []
    private var nextLogsAt: Int64 = 0
    private var actions: [Action] = []
    /// The rates of kinds of jobs on this worker alone, by wire name.
    private var rates: [String: RateBucket] = [:]
    /// Kinds of jobs of which this worker has refused one, until when it leaves them to others: else it would take the
    /// refused job again before a worker that knows its arguments.
    private var shunned: [String: Int64] = [:]
    private(set) var isQuiet = false
    /// All jobs that were taken in.
    var accepted: UInt64 { nextRun }

    /// - Parameters:
    ///   - rules: what does not change.
    ///   - queues: the queues to begin with, each name once.
    ///   - lanes: the slots of each lane that is in use.
    ///   - resources: what the worker has.
    init(_ rules: Rules, queues: [QueueSubscription], lanes: [LaneKind: Int], resources: [String: Int] = [:]) {
        self.rules = rules
        self.queues = queues
        kinds = Dictionary(grouping: rules.needs.keys.sorted()) { rules.needs[$0]! }.map { ($0.key, $0.value) }
            .sorted { $0.needs.budgetName < $1.needs.budgetName }
        slots = SlotLedger(
            lanes: lanes, resources: resources,
            queues: Dictionary(
                uniqueKeysWithValues: queues.compactMap { queue in queue.concurrency.map { (queue.name, $0) } }))
    }

    /// Whether the broker may believe that this worker has jobs.
    var hasHeldJobs: Bool { !runs.isEmpty || !unsettled.isEmpty || !inFlight.isEmpty }

    /// The actions that inputs have brought about since the last call, in their order.
    mutating func takeActions() -> [Action] {
        defer { actions = [] }
        return actions
    }

    // MARK: - What the lanes tell

    /// A run has ended. Runs that are off the list are ignored.
    mutating func finished(_ run: RunID, _ settlement: Settlement) {
        guard let lane = runs[run]?.needs.lane else { return }
        if lane == .process { learn(from: settlement) }
        forget(run)
        unsettled.append(settlement)
    }

    mutating func reported(_ run: RunID, _ progress: JobProgress) { self.progress[run] = progress }

    mutating func wrote(_ runs: Set<RunID>) { written.formUnion(runs) }

    /// Whether children can be started. While they cannot, their jobs wait where another worker can take them.
    /// - Returns: true when this is news.
    mutating func noteProcessLane(isUsable: Bool) -> Bool {
        guard isUsable == isProcessLaneClosed else { return false }
        isProcessLaneClosed = !isUsable
        if isUsable { mayHaveWork = true }
        return true
    }

    /// Finds out how long jobs of the process lane take.
    private mutating func learn(from settlement: Settlement) {
        if let usage = settlement.usage {
            ahead.note(run: Int64(usage.wallSeconds * 1_000_000))
        } else {
            ahead.noteDelay()
        }
        // Light jobs ahead of their slots would take every one that a heavy job waits for.
        let hasHeavyJobs = kinds.contains { $0.needs.lane == .process && !$0.needs.isLight }
        let before = slots.ahead[.process] ?? 0
        let count = hasHeavyJobs ? 0 : ahead.count(children: slots.capacity[.process] ?? 0)
        slots.ahead[.process] = count
        // What waited while there was no room for it has not been asked for.
        if count > before { mayHaveWork = true }
    }

    // MARK: - What people and programs ask for

    /// Takes no more jobs. A harder stop shortens the one before.
    mutating func stop(_ mode: Worker.StopMode, _ time: Moment) {
        guard mode.rank > stop?.rank ?? 0 else { return }
        stop = mode
        isConsuming = false
        switch mode {
        case .drain: drainDeadline = time.uptime + rules.drainTimeout
        case .immediately: drainDeadline = time.uptime
        default: break
        }
        mustWithdraw = rules.creditMayLast
        // What waits for slots goes to others: it has not begun.
        slots.freeze()
        for run in slots.notStarted { handBack(run, time) }
    }

    /// Gives a lane another size, at least that of its heaviest job, which would wait for ever otherwise.
    mutating func resize(_ lane: LaneKind, to size: Int) {
        let size = max(size, kinds.filter { $0.needs.lane == lane }.map(\.needs.slots).max() ?? 1)
        guard let old = slots.capacity[lane], old != size else { return }
        begin(slots.resize(lane, to: size))
        actions.append(.resize(lane, slots: size, before: old))
        mayHaveWork = true
        if size < old { mustWithdraw = rules.creditMayLast }
    }

    /// Consumes a queue more.
    /// - Returns: false when it is consumed already.
    mutating func add(_ queue: QueueSubscription) -> Bool {
        guard !queues.contains(where: { $0.name == queue.name }) else { return false }
        queues.append(queue)
        slots.limit(queue.name, to: queue.concurrency)
        mayHaveWork = true
        return true
    }

    /// Consumes a queue no more. Jobs of it that run go on.
    /// - Returns: false when it is not consumed.
    mutating func remove(queue: String) -> Bool {
        guard let index = queues.firstIndex(where: { $0.name == queue }) else { return false }
        queues.remove(at: index)
        mustWithdraw = rules.creditMayLast
        // What is left of the credit is for the other queues.
        mayHaveWork = true
        return true
    }

    /// Limits how often jobs of a kind start here; nil for no limit. A limit that was there is replaced.
    mutating func setRate(_ rate: StartRate?, of names: [String], _ time: Moment) {
        for name in names { rates[name] = rate.map { RateBucket($0, now: time.uptime) } }
        // Credit that lasts knows nothing of rates.
        mustWithdraw = rules.creditMayLast
        mayHaveWork = true
    }

    /// Takes no jobs until it is told otherwise. What runs goes on.
    mutating func setQuiet(_ isQuiet: Bool) {
        guard isQuiet != self.isQuiet else { return }
        self.isQuiet = isQuiet
        mustWithdraw = rules.creditMayLast
        mayHaveWork = true
    }

    /// Stops a job. One that has not begun goes back when its cancellation was requested, for it would not hear of that
    /// before it has slots.
    /// - Returns: whether it is here.
    @discardableResult
    mutating func cancel(_ id: JobID, _ reason: JobContext.CancellationReason, _ time: Moment) -> Bool {
        let found = runs.filter { $0.value.jobID == id }
        for (run, job) in found {
            actions.append(.cancel(run, reason))
            if !job.hasBegun, reason == .requested { handBack(run, time) }
        }
        return !found.isEmpty
    }

    // MARK: - What the broker tells

    /// There may be work, or a job that runs is to be stopped, which also a worker without a free slot must hear.
    mutating func rang() {
        mayHaveWork = true
        mustLook = !runs.isEmpty
    }

    /// The broker has answered a turn.
    /// - Returns: false when the lease was lost meanwhile: what was claimed under it belongs to others, or will.
    mutating func ended(_ turn: Turn, _ result: TurnResult, _ time: Moment) -> Bool {
        inFlight = []
        guard turn.incarnation == incarnation else {
            mayHaveWork = true
            return false
        }
        if turn.request.holding != nil { mustReconcile = false }
        isConsuming = stop == nil
        let lost = Set(result.lost)
        if !lost.isEmpty {
            // Of settlements nothing is left to stop.
            let reported = Set(turn.progress.map(\.run))
            abandon { run, job in lost.contains(job.jobID) && reported.contains(run) }
        }
        if !turn.request.claims.isEmpty { nextDue = result.nextDue }
        take(result, time)
        return true
    }

    /// Nobody knows what of a turn has happened. Its settlements are kept and sent again, for as long as it takes.
    mutating func failed(_ turn: Turn) {
        if turn.incarnation == incarnation {
            unsettled = inFlight + unsettled
            if turn.request.withdrawsCredit { mustWithdraw = true }
        }
        inFlight = []
        // A worker that has nothing left to settle leaves, and its credit with it.
        if stop != nil, runs.isEmpty, unsettled.isEmpty { mustWithdraw = false }
        lookAgain()
        isConsuming = false
    }

    /// The broker has handed out jobs by itself. When the next delayed job is due, only a turn tells.
    mutating func arrived(_ result: TurnResult, _ time: Moment) {
        arrivalsSeen += 1
        take(result, time)
    }

    mutating func arrivalWasLost() {
        arrivalsSeen += 1
        lookAgain()
    }

    private mutating func lookAgain() {
        (mayHaveWork, mustLook, mustReconcile) = (true, true, true)
    }

    private mutating func take(_ result: TurnResult, _ time: Moment) {
        if result.hasMore { mayHaveWork = true }
        for id in result.cancellations { cancel(id, .requested, time) }
        guard stop == nil else { return handBack(result.deliveries, time) }
        var started: [RunID] = []
        for delivery in result.deliveries { if let run = admit(delivery, time) { started.append(run) } }
        begin(started)
    }

    /// The lease was lost: every job belongs to others, and what is unsettled is theirs to settle.
    mutating func loseLease() {
        abandon { _, _ in true }
        (unsettled, inFlight) = ([], [])
        renewed()
    }

    /// The worker goes on under a new id.
    mutating func renewed() {
        incarnation += 1
        (arrivalsSeen, mustWithdraw) = (0, false)
        mayHaveWork = true
    }

    /// Stops jobs that are no longer this worker's, and forgets what they return.
    private mutating func abandon(_ isMeant: (RunID, Run) -> Bool) {
        slots.freeze()
        for (run, job) in runs where isMeant(run, job) {
            actions.append(.cancel(run, .leaseLost))
            forget(run)
        }
        if stop == nil { begin(slots.thaw()) }
        mayHaveWork = true
    }

    // MARK: - Jobs

    /// - Returns: the run of a job that starts now.
    private mutating func admit(_ delivery: Delivery, _ time: Moment) -> RunID? {
        guard let needs = rules.needs[delivery.jobName] else {
            actions.append(.refuse(delivery))
            return nil
        }
        if rules.isRevoked(delivery) {
            actions.append(.revoke(delivery))
            return nil
        }
        // Some were claimed together with others before the rate was set, or for slots that several kinds share.
        if rates[delivery.jobName]?.tokens(now: time.uptime) == 0 {
            handBack([delivery], time)
            mayHaveWork = true
            return nil
        }
        nextRun += 1
        let admission = slots.admit(nextRun, needs, queue: delivery.queue)
        if case .refuse = admission {
            handBack([delivery], time)
            return nil
        }
        _ = rates[delivery.jobName]?.take(now: time.uptime)
        runs[nextRun] = Run(
            jobID: delivery.jobID, jobName: delivery.jobName, token: delivery.token, queue: delivery.queue,
            needs: needs,
            attempt: delivery.attempt, claimedAt: time.now, isSuspect: delivery.lostWorkers > 0)
        actions.append(.admit(nextRun, delivery))
        if case .start = admission { return nextRun }
        return nil
    }

    private mutating func begin(_ started: [RunID]) {
        guard !started.isEmpty else { return }
        for run in started { runs[run]?.hasBegun = true }
        actions.append(.start(started))
    }

    /// Takes a run off the list and frees its slots.
    private mutating func forget(_ run: RunID) {
        guard let job = runs.removeValue(forKey: run) else { return }
        actions.append(.drop(run))
        // Only where there was no room can there be work that was not asked for.
        if !mayHaveWork, job.isSuspect || hasNoRoom(besides: job) { mayHaveWork = true }
        begin(slots.release(run))
    }

    /// Whether there is a kind of job that could not be claimed, and may be once `job` is gone.
    private func hasNoRoom(besides job: Run) -> Bool {
        kinds.contains { kind in
            let isRelated =
                kind.needs.lane == job.needs.lane
                || kind.needs.resources.keys.contains { job.needs.resources[$0] != nil }
            return (isRelated || slots.isLimited(job.queue)) && slots.available(kind.needs, queue: job.queue) == 0
        }
    }

    /// Settles something that no run has. It was claimed for a slot that is free again.
    mutating func settle(_ settlement: Settlement) {
        unsettled.append(settlement)
        mayHaveWork = true
    }

    /// Gives back jobs that came when there was no place for them.
    private mutating func handBack(_ deliveries: [Delivery], _ time: Moment) {
        unsettled += deliveries.map { delivery in
            Settlement(
                jobID: delivery.jobID, token: delivery.token, outcome: .notStarted, startedAt: time.now,
                finishedAt: time.now)
        }
    }

    private mutating func handBack(_ run: RunID, _ time: Moment) {
        guard let job = runs[run] else { return }
        let settlement = Settlement(
            jobID: job.jobID, token: job.token, outcome: job.hasBegun ? .handedBack : .notStarted,
            startedAt: time.now, finishedAt: time.now)
        forget(run)
        unsettled.append(settlement)
    }

    // MARK: - What to do next

    /// What is to be done now. A turn that it gives is under way until ``ended(_:_:_:)`` or ``failed(_:)``.
    mutating func next(_ time: Moment) -> Step {
        if stop != nil {
            if runs.isEmpty, unsettled.isEmpty, !mustWithdraw { return .end }
            if let drainDeadline, time.uptime >= drainDeadline { return .handBack }
        }
        if let due = nextDue, due <= time.now { (mayHaveWork, nextDue) = (true, nil) }
        if shunned.values.contains(where: { $0 <= time.uptime }) {
            shunned = shunned.filter { $0.value > time.uptime }
            mayHaveWork = true
        }
        if rates.values.contains(where: { $0.hasRefilled(now: time.uptime) }) {
            for name in rates.keys { rates[name]?.noteRefill(now: time.uptime) }
            mayHaveWork = true
        }
        // Without a queue there is nothing to ask for.
        if queues.isEmpty { (mayHaveWork, nextDue) = (false, nil) }
        let turn = makeTurn(time)
        guard turn.request.settlements.isEmpty, turn.progress.isEmpty, turn.written.isEmpty,
            turn.request.claims.isEmpty,
            !mustLook, !mustWithdraw
        else {
            (inFlight, unsettled) = (unsettled, [])
            if !turn.request.claims.isEmpty { mayHaveWork = false }
            // A withdrawal that is asked for meanwhile is one more.
            (mustLook, mustWithdraw) = (false, false)
            return .turn(turn)
        }
        return isBurstOver ? .end : .sleep(idleLimit(time))
    }

    /// The turn that ends the worker: all that still runs goes back.
    mutating func handBackAll(_ time: Moment) -> Turn {
        for run in runs.keys.sorted() { handBack(run, time) }
        return makeTurnThatSettles()
    }

    /// A turn that settles and does nothing else.
    mutating func makeTurnThatSettles() -> Turn {
        // Those of a turn that failed are still to be settled.
        (inFlight, unsettled) = (inFlight + unsettled, [])
        var turn = Turn(request: WorkerTurn(settlements: inFlight), incarnation: incarnation)
        turn.request.withdrawsCredit = mustWithdraw
        return turn
    }

    /// The last turn has settled what it was to settle.
    mutating func settled() { inFlight = [] }

    /// A turn that has the broker put back what it believes to be with this worker, and of which this worker never
    /// heard.
    func makeReconciliation() -> WorkerTurn {
        var turn = WorkerTurn()
        turn.holding = Set(runs.values.map(\.token) + (unsettled + inFlight).map(\.token))
        turn.arrivalsSeen = arrivalsSeen
        return turn
    }

    /// Whether a job of this name could begin at once, as far as this worker knows.
    func hasRoom(for name: String, of queue: String) -> Bool {
        guard let needs = rules.needs[name], rates[name] == nil, shunned[name] == nil,
            !(isProcessLaneClosed && needs.lane == .process)
        else {
            return false
        }
        // Of the jobs whose worker has died it has one at a time.
        return !runs.values.contains { $0.isSuspect } && slots.available(needs, queue: queue) > 0
    }

    private mutating func makeTurn(_ time: Moment) -> Turn {
        var turn = Turn(request: WorkerTurn(settlements: unsettled), incarnation: incarnation)
        if mustReconcile { turn.request.holding = Set(runs.values.map(\.token)) }
        turn.request.arrivalsSeen = arrivalsSeen
        turn.request.withdrawsCredit = mustWithdraw
        takeReports(into: &turn, time)
        noteRefusals(time)
        guard mayHaveWork, stop == nil, !isQuiet else { return turn }
        turn.request.budget = slots.budget(for: kinds.map(\.needs))
        for queue in rules.order.arrange(queues) {
            for (needs, names) in kinds where !(isProcessLaneClosed && needs.lane == .process) {
                let free =
                    rates.isEmpty && shunned.isEmpty
                    ? names : names.filter { rates[$0] == nil && shunned[$0] == nil }
                if !free.isEmpty { claim(free, needs.budgetName, of: queue, in: &turn) }
                for name in names where !rates.isEmpty && shunned[name] == nil {
                    guard let tokens = rates[name]?.tokens(now: time.uptime), tokens > 0 else { continue }
                    // A kind of its own, so that no more are claimed than may start.
                    let kind = needs.budgetName + "/" + name
                    turn.request.budget.kinds[kind] = min(tokens, turn.request.budget.kinds[needs.budgetName] ?? 0)
                    claim([name], kind, of: queue, in: &turn)
                }
            }
        }
        turn.request.creditLasts = rules.creditMayLast && rates.isEmpty && shunned.isEmpty
        turn.request.takesSuspects = !runs.values.contains { $0.isSuspect }
        return turn
    }

    private mutating func noteRefusals(_ time: Moment) {
        for settlement in unsettled {
            guard case .refused(let due, _) = settlement.outcome, let name = settlement.facts?.name else { continue }
            let wait = Int64(max(0, min(60, due.timeIntervalSince(settlement.finishedAt))) * 1_000_000)
            shunned[name] = time.uptime + wait + Self.headStart
        }
    }

    /// How long other workers have for a job that this one has refused, once it is due again. In microseconds.
    private static let headStart: Int64 = 500_000

    private func claim(_ names: [String], _ kind: String, of queue: QueueSubscription, in turn: inout Turn) {
        let claim = Claim(queue: queue.name, kind: kind, jobNames: names, partition: rules.findsPartition)
        if turn.request.budget.available(to: claim) > 0 { turn.request.claims.append(claim) }
    }

    /// Progress goes out at most twenty times a second, the last of each job, however often handlers report. Logs go
    /// out once a second; that of a job which has ended goes with its settlement.
    private mutating func takeReports(into turn: inout Turn, _ time: Moment) {
        if !progress.isEmpty, time.uptime >= nextProgressAt {
            turn.progress = progress.filter { runs[$0.key] != nil }.map { ($0.key, $0.value) }
            progress.removeAll()
            nextProgressAt = time.uptime + 50_000
        }
        if !written.isEmpty, time.uptime >= nextLogsAt {
            turn.written = written.filter { runs[$0] != nil }.sorted()
            written.removeAll()
            nextLogsAt = time.uptime + 1_000_000
        }
    }

    /// How long the worker may sleep when nothing rings.
    private func idleLimit(_ time: Moment) -> Duration? {
        var limits: [Duration] = []
        func wait(until uptime: Int64) { limits.append(.microseconds(max(0, uptime - time.uptime))) }
        if let nextDue, stop == nil { limits.append(.seconds(max(0, nextDue.timeIntervalSince(time.now)))) }
        if !progress.isEmpty { wait(until: nextProgressAt) }
        if written.contains(where: { runs[$0] != nil }) { wait(until: nextLogsAt) }
        if let drainDeadline { wait(until: drainDeadline) }
        if stop == nil, !isQuiet { for rate in rates.values { rate.nextRefill.map { wait(until: $0) } } }
        if stop == nil, !isQuiet { for end in shunned.values { wait(until: end) } }
        return limits.min()
    }

    private var isBurstOver: Bool {
        rules.isBurst && runs.isEmpty && unsettled.isEmpty && !mayHaveWork && shunned.isEmpty
            && (nextDue == nil || rules.burstLeavesDelayedJobs)
    }
}
