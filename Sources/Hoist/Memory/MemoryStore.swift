#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// The jobs of a ``MemoryBackend``. Every method is one transition; the backend holds its lock around each.
struct MemoryStore: Sendable {
    struct Job: Sendable {
        var message: Message
        var record: JobRecord
        var sequence: Int64
        var retries = 0
        var token: Int64 = 0
        var worker: WorkerID?
        var keptUntil: Date?
        var log: JobLog?
    }

    struct LiveWorker: Sendable {
        var presence: WorkerPresence
        var leaseUntil: Int64
    }

    struct ForeignResult: Sendable {
        var record: JobRecord
        var keptUntil: Date?
        var log: JobLog?
    }

    struct StoredValue: Sendable {
        var bytes: [UInt8]
        var until: Date?
    }

    struct HeldKey: Sendable {
        var holder: JobID
        var until: Date?
    }

    /// 90 days in seconds.
    static let deadLetterRetention: Double = 90 * 86_400

    let resultRetention: Double
    let maximumLostWorkers: Int
    var jobs: [JobID: Job] = [:]
    var workers: [WorkerID: LiveWorker] = [:]
    var keys: [String: HeldKey] = [:]
    var values: [String: StoredValue] = [:]
    /// Of queues of which something was said.
    var rules: [String: QueueRules] = [:]
    var declaredLimits: [LimitTarget: [JobLimit]] = [:]
    var setLimits: [LimitTarget: [JobLimit]] = [:]
    var limitAliases: [String: String] = [:]
    var startCounts = MemoryCounts()
    /// Set when a limit has room again: workers that wait for it must look.
    private(set) var madeRoom = false
    /// Results of jobs that are not here: the rest of a chain, or jobs of another broker.
    var foreign: [JobID: ForeignResult] = [:]
    var groups = MemoryGroups()
    var workflows: [String: StoredWorkflow] = [:]
    var nextSequence: Int64 = 0
    var nextRevision: Int64 = 0
    var nextToken: Int64 = 0
    private var knownWorkers: Set<WorkerID> = []
    /// As of the call under way.
    private var time = Date.distantPast
    /// Nothing happens to jobs and keys by itself before.
    private var nextEvent = Date.distantFuture
    /// Set when jobs of a dead worker became ready again.
    var tookOver = false
    /// What was done with jobs by itself.
    var notices: [JobNotice] = []

    // MARK: - Time passing

    /// What happens by itself: delayed jobs fall due, waiting ones expire, dead workers lose their jobs, records pass
    /// their time.
    mutating func maintain(now: Date, uptime: Int64) {
        time = now
        for (id, worker) in workers where worker.leaseUntil <= uptime {
            workers[id] = nil
            for job in jobs.values where job.worker == id {
                loseWorker(job.record.id, name: worker.presence.name, now: now)
            }
        }
        guard nextEvent <= now else { return }
        nextEvent = .distantFuture
        sweepWorkflows(now: now)
        for (id, job) in jobs {
            noteEvents(of: job)
            if let keptUntil = job.keptUntil, keptUntil <= now { jobs[id] = nil }
            if isWaiting(job.record.state), let expires = job.message.headers.expires, expires <= now {
                _ = apply(.waitedInVain(.expired, at: now), to: id, now: now)
                notices.append(
                    JobNotice(
                        .expired, jobID: id, jobName: job.record.name, queue: job.record.queue,
                        attempt: job.record.attempts + 1))
            } else if job.record.state == .scheduled || job.record.state == .retrying, let due = job.record.dueAt,
                due <= now
            {
                change(id) { $0.record.state = .waiting }
            }
        }
        for (id, result) in foreign {
            guard let until = result.keptUntil else { continue }
            if until <= now { foreign[id] = nil } else { nextEvent = min(nextEvent, until) }
        }
        for (key, held) in keys {
            guard let until = held.until else { continue }
            if until <= now { keys[key] = nil } else { nextEvent = min(nextEvent, until) }
        }
    }

    private mutating func noteEvents(of job: Job) {
        let expires = isWaiting(job.record.state) ? job.message.headers.expires : nil
        let due = job.record.state == .scheduled || job.record.state == .retrying ? job.record.dueAt : nil
        for time in [job.keptUntil, expires, due] { if let time { nextEvent = min(nextEvent, time) } }
    }

    private func isWaiting(_ state: JobState) -> Bool { state == .waiting || state == .scheduled || state == .retrying }

    private mutating func change(_ id: JobID, _ body: (inout Job) -> Void) {
        guard var job = jobs[id] else { return }
        body(&job)
        nextRevision += 1
        job.record.revision = nextRevision
        jobs[id] = job
        noteEvents(of: job)
    }

    // MARK: - Queues

    mutating func changeRules(of queue: String, _ body: (inout QueueRules) -> Void) {
        var changed = rules[queue] ?? QueueRules()
        body(&changed)
        rules[queue] = changed.isDefault ? nil : changed
    }

    /// - Throws: ``BackendError`` `.full` when one of the queues has no room for its jobs.
    func checkRoom(for messages: [Message]) throws(BackendError) {
        guard rules.values.contains(where: { $0.capacity != nil }) else { return }
        for (queue, new) in Dictionary(grouping: messages, by: \.queue) {
            guard let rules = rules[queue], rules.capacity != nil else { continue }
            let waiting = jobs.values.count { $0.record.queue == queue && isWaiting($0.record.state) }
            guard rules.admits(new.count, besides: waiting) else { throw .atLimit(queue) }
        }
    }

    // MARK: - Publishing

    var schedules = MemorySchedules()

    mutating func publish(_ message: Message, now: Date) -> PublishResult {
        if jobs[message.id] != nil { return .alreadyEnqueued }
        if let unique = message.headers.hoist.unique {
            if let held = keys[unique.key] { return clash(message, unique, held.holder, now: now) }
            let until = unique.scope.kind == .window ? now.addingTimeInterval(unique.scope.seconds) : nil
            keys[unique.key] = HeldKey(holder: message.id, until: until)
            nextEvent = min(nextEvent, until ?? .distantFuture)
        }
        nextSequence += 1
        nextRevision += 1
        var record = JobRecord(
            id: message.id, name: message.jobName, queue: message.queue, state: .waiting,
            priority: Priority.urgency(of: message),
            enqueuedAt: message.headers.hoist.enqueuedAt ?? now, revision: nextRevision)
        record.describe(message)
        if let eta = message.headers.eta, eta > now {
            record.state = .scheduled
            record.dueAt = eta
        }
        let job = Job(message: message, record: record, sequence: nextSequence, retries: message.headers.retries)
        jobs[message.id] = job
        stopOlder(for: message)
        // It takes the place of what was stored for its id before, for instance when its chain had failed.
        foreign[message.id] = nil
        noteEvents(of: job)
        return .enqueued
    }

    private mutating func clash(_ message: Message, _ unique: UniqueKey, _ holder: JobID, now: Date) -> PublishResult {
        guard unique.onClash == .replace || unique.onClash == .reschedule, let job = jobs[holder],
            isWaiting(job.record.state)
        else { return .keyHeld(by: holder) }
        change(holder) { job in
            job.message.replaceWork(by: message)
            job.record.describe(job.message)
            if unique.onClash == .reschedule {
                let due = message.headers.eta
                job.message.headers.eta = due
                job.message.headers.expires = message.headers.expires
                job.record.dueAt = due
                job.record.state = due.map { $0 > now } == true ? .scheduled : .waiting
            }
        }
        return .replaced(holder)
    }

    /// Gives up the key of a job where its scope says so.
    private mutating func release(_ message: Message, starting: Bool, now: Date) {
        guard let unique = message.headers.hoist.unique, keys[unique.key]?.holder == message.id else { return }
        switch unique.scope.kind {
        case .waiting: keys[unique.key] = nil
        case .unfinished: if !starting { keys[unique.key] = nil }
        case .remembered:
            guard !starting else { break }
            let until = now.addingTimeInterval(unique.scope.seconds)
            keys[unique.key]?.until = until
            nextEvent = min(nextEvent, until)
        case .window: break
        }
    }

    // MARK: - WorkerTurn

    mutating func turn(_ request: WorkerTurn, of worker: WorkerID, now: Date) -> (TurnResult, mustRing: Bool) {
        var result = TurnResult()
        var mustRing = false
        for settlement in request.settlements {
            guard let job = jobs[settlement.jobID], job.worker == worker, job.token == settlement.token else {
                result.lost.append(settlement.jobID)
                continue
            }
            if settle(job, settlement, now: now) { mustRing = true }
        }
        for report in request.logs
        where jobs[report.jobID]?.worker == worker && jobs[report.jobID]?.token == report.token {
            jobs[report.jobID]?.log = report.log
        }
        for report in request.progress {
            guard let job = jobs[report.jobID], job.worker == worker, job.token == report.token else {
                result.lost.append(report.jobID)
                continue
            }
            change(report.jobID) { $0.record.progress = report.progress }
        }
        if let holding = request.holding {
            for job in jobs.values where job.worker == worker && !holding.contains(job.token) {
                if apply(.neverBegun(facts(job), at: now), to: job.record.id, now: now) { mustRing = true }
            }
        }
        result.cancellations = jobs.values.filter { $0.worker == worker && $0.record.isCancelRequested }.map(
            \.record.id)
        claim(request, of: worker, into: &result, now: now)
        let due = jobs.values.lazy.filter { job in
            (job.record.state == .scheduled || job.record.state == .retrying)
                && request.claims.contains { $0.queue == job.record.queue && $0.jobNames.contains(job.record.name) }
        }.compactMap(\.record.dueAt).min()
        result.nextDue = [result.nextDue, due].compactMap(\.self).min()
        if madeRoom {
            // For this worker if it did not ask yet, for others if it cannot.
            (madeRoom, mustRing, result.hasMore) = (false, true, true)
        }
        for claim in request.claims {
            guard let opens = rules[claim.queue]?.opens(after: now.microsecondsSinceEpoch) else { continue }
            let date = Date(microsecondsSinceEpoch: opens)
            result.nextDue = min(result.nextDue ?? date, date)
        }
        // Producers may wait for room.
        if result.deliveries.contains(where: { rules[$0.queue]?.capacity != nil }) { mustRing = true }
        return (result, mustRing)
    }

    private mutating func claim(
        _ request: WorkerTurn, of id: WorkerID, into result: inout TurnResult, now: Date
    ) {
        guard let worker = workers[id] else { return }
        var budget = request.budget
        var takesSuspects = request.takesSuspects
        for claim in request.claims where rules[claim.queue]?.isOpen(at: now.microsecondsSinceEpoch) ?? true {
            let limit = budget.available(to: claim)
            let ready = jobs.values.filter {
                $0.record.state == .waiting && $0.record.queue == claim.queue && claim.jobNames.contains($0.record.name)
            }.sorted { ($1.record.priority, $0.sequence) < ($0.record.priority, $1.sequence) }
            let admitted = admit(
                ready, claim, limit: limit, worker: id, takesSuspects: &takesSuspects, into: &result, now: now)
            if ready.count > limit, admitted.count == limit { result.hasMore = true }
            for job in admitted {
                let id = job.record.id
                release(job.message, starting: true, now: now)
                nextToken += 1
                let token = nextToken
                change(id) { job in
                    job.token = token
                    job.worker = worker.presence.id
                    job.record.state = .running
                    job.record.attempts = job.retries + 1
                    job.record.startedAt = now
                    job.record.worker = worker.presence.name
                    job.record.progress = nil
                }
                guard let claimed = jobs[id] else { continue }
                result.deliveries.append(
                    Delivery(
                        jobID: id, jobName: claimed.record.name, queue: claimed.record.queue,
                        payload: .message(claimed.message),
                        attempt: claimed.record.attempts, lostWorkers: claimed.record.lostWorkers, token: claimed.token)
                )
            }
            budget.spend(admitted.count, on: claim)
        }
    }

    // MARK: - Outcomes

    private func facts(_ job: Job) -> DeliveryFacts {
        DeliveryFacts(
            attempt: job.record.attempts, worker: job.record.worker, claimedAt: job.record.startedAt,
            lostWorkers: job.record.lostWorkers, isAtMostOnce: job.message.headers.hoist.isAtMostOnce,
            isCancelRequested: job.record.isCancelRequested)
    }

    /// - Returns: whether the job may be claimed again.
    private mutating func settle(_ job: Job, _ settlement: Settlement, now: Date) -> Bool {
        let id = job.record.id
        if case .snoozed(let date, closesQueue: true) = settlement.outcome {
            changeRules(of: job.record.queue) { $0.close(until: date.microsecondsSinceEpoch) }
        }
        change(id) { job in
            job.record.usage = settlement.usage
            if let log = settlement.log { job.log = log }
        }
        let isReady = apply(Transition(settlement, of: facts(job)), to: id, now: now)
        if settlement.leavesNoRecord { jobs[id] = nil }
        return isReady
    }

    /// Stores what a transition says.
    /// - Returns: whether the job may be claimed again.
    private mutating func apply(_ transition: Transition, to id: JobID, now: Date) -> Bool {
        let transition = transition.continued(jobs[id]?.message)
        guard transition.followUps?.replacesJob != true else {
            // What takes its place has its id.
            _ = store(transition, of: id, now: now)
            return store(transition.followUps, now: now)
        }
        let hasFollowUps = store(transition.followUps, now: now)
        return store(transition, of: id, now: now) || hasFollowUps
    }

    /// Writes results of jobs that are not here. A success is never written over.
    mutating func store(_ results: [ResultWrite], now: Date) {
        for write in results where jobs[write.record.id] == nil {
            let id = write.record.id
            if foreign[id]?.record.state == .succeeded { continue }
            nextRevision += 1
            var record = write.record
            record.revision = nextRevision
            guard write.kept != .nothing else {
                foreign[id] = nil
                continue
            }
            let until = write.isKeptForATime ? now.addingTimeInterval(seconds(write.kept, asked: nil)) : nil
            foreign[id] = ForeignResult(record: record, keptUntil: until, log: write.log ?? foreign[id]?.log)
            nextEvent = min(nextEvent, until ?? .distantFuture)
        }
    }

    private func seconds(_ kept: Transition.Retention, asked: Double?) -> Double {
        switch kept {
        case .nothing: 0
        case .seconds(let seconds): seconds
        case .standard: asked ?? resultRetention
        case .deadLetter: Self.deadLetterRetention
        }
    }

    private mutating func store(_ transition: Transition, of id: JobID, now: Date) -> Bool {
        var goesBack = false
        if case .back = transition.move { goesBack = true }
        if !transition.countsStart, let job = jobs[id] {
            let scopes = startRules.scopes(
                queue: job.record.queue, name: job.record.name, partition: job.message.headers.hoist.partition ?? "",
                worker: job.worker ?? "")
            startCounts.gaveBack(scopes, cost: job.message.headers.hoist.cost ?? 1)
        }
        if startCounts.released(id, goesBack: goesBack) { madeRoom = true }
        if case .end(_, _, .nothing) = transition.move, let job = jobs[id] {
            release(job.message, starting: false, now: now)
            jobs[id] = nil
            return false
        }
        change(id) { job in
            if transition.spendsAttempt { job.retries += 1 }
            if let change = transition.change {
                change.apply(&job.message)
                job.record.describe(job.message)
            }
            if let output = transition.output { job.record.output = (try? JSONParser.parse(output)) ?? .null }
            if let failure = transition.failure { job.record.failure = failure }
            if transition.countsDeath { job.record.lostWorkers += 1 }
            if let attempt = transition.attempt { job.record.history.append(attempt) }
            // A job that is snoozed for ever must not grow for ever.
            job.record.history.removeFirst(max(0, job.record.history.count - 100))
        }
        switch transition.move {
        case .end(let state, let date, let kept):
            end(id, as: state, now: date, kept: kept)
            return false
        case .back(_, let due, _):
            change(id) { job in
                job.worker = nil
                job.record.attempts = job.retries
                job.record.dueAt = due
                job.record.state = transition.state(at: now)
            }
            return true
        }
    }

    private mutating func end(_ id: JobID, as state: JobState, now: Date, kept: Transition.Retention = .standard) {
        guard let job = jobs[id] else { return }
        release(job.message, starting: false, now: now)
        let seconds = seconds(kept, asked: job.message.headers.hoist.resultRetention)
        change(id) { job in
            job.worker = nil
            job.record.state = state
            job.record.endedAt = now
            job.record.completeIfSucceeded()
            job.keptUntil = now.addingTimeInterval(seconds)
        }
    }

    private mutating func loseWorker(_ id: JobID, name: String, now: Date) {
        guard let job = jobs[id] else { return }
        let transition = Transition.workerLost(facts(job), worker: name, maximum: maximumLostWorkers, at: now)
        if apply(transition, to: id, now: now) { tookOver = true }
        let delivery = Delivery(
            jobID: id, jobName: job.record.name, queue: job.record.queue, payload: .message(job.message),
            attempt: job.record.attempts, lostWorkers: job.record.lostWorkers + 1, token: job.token)
        if let notice = JobNotice(delivery, transition, lost: job.worker ?? "", named: name) { notices.append(notice) }
    }

    mutating func askToStop(_ id: JobID) {
        guard let job = jobs[id], job.record.state == .running, !job.record.isCancelRequested else { return }
        change(id) { $0.record.isCancelRequested = true }
        // Its worker must hear of it.
        madeRoom = true
    }

    /// Ends a job that a limit does not keep.
    mutating func drop(_ id: JobID, now: Date) {
        var transition = Transition.waitedInVain(.cancelled, at: now)
        transition.failure = .dropped
        _ = apply(transition, to: id, now: now)
    }

    // MARK: - Workers and clients

    mutating func renew(_ presence: WorkerPresence, until: Int64) -> Bool {
        if workers[presence.id] == nil, knownWorkers.contains(presence.id) { return false }
        knownWorkers.insert(presence.id)
        workers[presence.id] = LiveWorker(presence: presence, leaseUntil: until)
        return true
    }

    init(resultRetention: Double, maximumLostWorkers: Int) {
        self.resultRetention = resultRetention
        self.maximumLostWorkers = maximumLostWorkers
    }

    mutating func resign(_ worker: WorkerID, now: Date) {
        workers[worker] = nil
        for job in jobs.values where job.worker == worker {
            _ = apply(.resigned(facts(job), at: now), to: job.record.id, now: now)
        }
    }

    mutating func cancel(_ id: JobID, now: Date) -> CancelResult {
        guard let job = jobs[id] else { return .unknown }
        switch job.record.state {
        case .waiting, .scheduled, .retrying:
            _ = apply(.waitedInVain(.cancelled, at: now), to: id, now: now)
            return .cancelled
        case .running:
            change(id) { $0.record.isCancelRequested = true }
            return .requested
        case .succeeded, .failed, .cancelled, .expired: return .alreadyEnded
        }
    }

    mutating func revive(_ id: JobID, arguments: Arguments?, now: Date) throws(BackendError) {
        if let arguments { try jobs[id]?.message.replaceArguments(arguments) }
        // It holds its key again, unless another job has it by now.
        if let unique = jobs[id]?.message.headers.hoist.unique,
            keys[unique.key] == nil || keys[unique.key]?.holder == id
        {
            keys[unique.key] = HeldKey(holder: id, until: nil)
        }
        change(id) { job in
            job.message.headers.eta = nil
            job.message.headers.expires = nil
            job.retries = 0
            job.keptUntil = nil
            job.record.state = .waiting
            job.record.lostWorkers = 0
            job.record.isCancelRequested = false
            job.record.attempts = 0
            job.record.dueAt = nil
            job.record.endedAt = nil
            job.record.output = nil
            job.record.failure = nil
            job.record.usage = nil
            job.record.describe(job.message)
        }
    }

    mutating func edit(_ id: JobID, _ edit: JobEdit, now: Date) throws(BackendError) -> Bool {
        guard let job = jobs[id], isWaiting(job.record.state) else { return false }
        if case .arguments(let arguments) = edit { try jobs[id]?.message.replaceArguments(arguments) }
        change(id) { job in
            switch edit {
            case .reschedule(let date):
                job.message.headers.eta = date
                job.record.dueAt = date
                job.record.state = date > now ? (job.retries > 0 ? .retrying : .scheduled) : .waiting
            case .priority(let urgency):
                job.message.properties.priority = urgency.clamped(to: Priority.range)
                job.record.priority = urgency.clamped(to: Priority.range)
            case .arguments:
                job.record.describe(job.message)
            }
        }
        return true
    }

    func value(of key: String, now: Date) -> [UInt8]? {
        values[key].flatMap { value in value.until.map { $0 <= now } == true ? nil : value.bytes }
    }

    mutating func compareAndSet(
        _ key: String, _ expected: [UInt8]?, _ new: [UInt8]?, until: Date?, now: Date
    ) -> Bool {
        guard value(of: key, now: now) == expected else { return false }
        values[key] = new.map { StoredValue(bytes: $0, until: until) }
        return true
    }

    mutating func removeEnded(_ ids: [JobID]) -> Int {
        let ended = ids.filter { record(of: $0)?.state.hasEnded == true }
        for id in ended { (jobs[id], foreign[id]) = (nil, nil) }
        return ended.count
    }

    mutating func purge(queue: String) -> Int {
        let waiting = jobs.values.filter { $0.record.queue == queue && isWaiting($0.record.state) }
        for job in waiting {
            release(job.message, starting: false, now: .distantPast)
            if startCounts.released(job.record.id, goesBack: false) { madeRoom = true }
            jobs[job.record.id] = nil
        }
        return waiting.count
    }

    func record(of id: JobID) -> JobRecord? { jobs[id].map(described) ?? foreign[id]?.record }

    private func described(_ job: Job) -> JobRecord {
        var record = job.record
        if record.state == .waiting {
            let rule = rules[record.queue]?.reason(queue: record.queue, at: time.microsecondsSinceEpoch)
            record.waitingReason =
                rule
                ?? JobRecord.waitingReason(
                    queue: record.queue, name: record.name, workers: workers.values.map(\.presence))
        }
        return record
    }

    func records(_ filter: JobFilter) -> [JobRecord] {
        let fitting = jobs.values.filter { filter.matches($0.record) }.sorted { $0.sequence > $1.sequence }
        return fitting.prefix(filter.limit).map(described)
    }

    /// Sorts all jobs: a queue in memory is small.
    func page(_ filter: JobFilter, before sequence: Int?) -> JobPage {
        let fitting = jobs.values.filter { job in
            sequence.map { job.sequence < $0 } ?? true && filter.matches(job.record)
        }.sorted { $0.sequence > $1.sequence }
        let size = filter.pageSize
        let page = fitting.prefix(size)
        let next = fitting.count > size ? page.last.map { JobCursor("\($0.sequence)") } : nil
        return JobPage(jobs: page.map(described), next: next)
    }

    func counts() -> [JobCount] {
        var counts: [JobCount: Int] = [:]
        for job in jobs.values {
            let record = job.record
            counts[JobCount(queue: record.queue, name: record.name, state: record.state, count: 0), default: 0] += 1
        }
        return counts.map { kind, count in
            var kind = kind
            kind.count = count
            return kind
        }
    }

    func queues() -> [QueueStatistics] {
        var byName: [String: QueueStatistics] = [:]
        for job in jobs.values {
            var queue = byName[job.record.queue] ?? QueueStatistics(name: job.record.queue)
            switch job.record.state {
            case .waiting:
                queue.waiting += 1
                if let enqueued = job.record.enqueuedAt {
                    queue.oldestWaiting = min(queue.oldestWaiting ?? enqueued, enqueued)
                }
            case .scheduled, .retrying: queue.scheduled += 1
            case .running: queue.running += 1
            case .failed: queue.failed += 1
            case .succeeded, .cancelled, .expired: break
            }
            byName[queue.name] = queue
        }
        return byName.values.sorted { $0.name < $1.name }
    }
}
