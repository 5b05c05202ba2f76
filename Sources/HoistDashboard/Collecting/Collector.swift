import Hoist
import HoistMonitor
import Logging
import Synchronization

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Hears what one backend's workers and clients tell, reads its queues, and writes the history.
final class Collector: Sendable {
    let name: String
    let backend: Backend
    /// The number of the backend in the history.
    let number: Int64
    let fleet: Fleet?
    /// Rung when there is something new to show.
    let changes = Doorbell()

    private struct State: Sendable {
        var live: LiveView
        /// What changed since it was written last.
        var changed: Set<JobID> = []
        var attempts: [JobID: [Int: HistoryAttempt]] = [:]
        var depths: [DepthSample] = []
        var gaps: [ClosedRange<Date>] = []
        /// Workers that are to be asked about themselves.
        var strangers: Set<String> = []
        /// When each worker was asked about itself last, so that one that does not answer is not asked at each beat.
        var askedAt: [String: Date] = [:]
        var reckonings: [String: Reckoning] = [:]
        /// Jobs whose worker died and of which the backend has told what became, until something is heard of them.
        var verdicts: [JobID: Verdict] = [:]
        var settled: [HistoryJob] = []
        /// Jobs that ran when events were missed, and of which nothing was heard since.
        var doubtful: Set<JobID> = []
        var hasMissed = false
        /// Queues that held jobs before: one that is empty is no longer listed.
        var sampled: Set<String> = []
    }

    /// What the backend said of a job.
    private struct Verdict: Sendable {
        var state: HistoryState
        var at: Date
    }

    private let store: HistoryStore
    private let retention: DashboardRetention
    private let mask: SecretMask
    private let logger: Logger
    private let state: Mutex<State>

    private static let writeEvery = Duration.milliseconds(250)
    private static let queuesEvery = Duration.seconds(10)

    init(
        _ source: DashboardBackend, store: HistoryStore, retention: DashboardRetention, mask: SecretMask, logger: Logger
    ) throws {
        name = source.name
        backend = source.backend
        self.store = store
        self.retention = retention
        self.mask = mask
        self.logger = logger
        number = try store.number(ofBackend: source.name)
        fleet = try? Fleet(source.backend)
        state = Mutex(State(live: LiveView(picture: FleetPicture(limits: .init(jobs: 20_000)))))
    }

    var clock: any JobClock { backend.clock }

    /// What is known now.
    func view<T>(_ body: (LiveView) throws -> T) rethrows -> T { try state.withLock { try body($0.live) } }

    // MARK: - Running

    /// Collects until the task is cancelled, and then writes what is left.
    func run() async {
        await noteAbsence()
        await withDiscardingTaskGroup { group in
            group.addTask { await self.hear() }
            group.addTask { await self.askStrangers() }
            group.addTask { await self.repeating(every: Self.queuesEvery) { await self.readQueues() } }
            group.addTask { await self.repeating(every: .seconds(1)) { self.measure() } }
            group.addTask { await self.repeating(every: .seconds(10)) { await self.tidy() } }
            group.addTask { await self.repeating(every: .seconds(1)) { await self.settleOrphans() } }
            group.addTask { await self.repeating(every: Self.writeEvery) { await self.write() } }
        }
        // A task that is cancelled writes nothing.
        await Task { await self.write() }.value
    }

    /// While no dashboard ran nothing was seen.
    private func noteAbsence() async {
        let now = clock.now
        guard let last = try? await store.lastLook(backend: number) ?? nil, now.timeIntervalSince(last) > 120 else {
            return
        }
        state.withLock { $0.gaps.append(min(last.addingTimeInterval(60), now)...now) }
    }

    private func repeating(every period: Duration, _ body: () async -> Void) async {
        while !Task.isCancelled {
            await body()
            await clock.sleep(for: period)
        }
    }

    private func hear() async {
        guard let fleet else { return }
        while !Task.isCancelled {
            do {
                let events = try await fleet.heardEvents()
                state.withLock { $0.live.connectedSince = clock.now }
                await untilEitherEnds {
                    for await event in events { self.take(event) }
                } _: {
                    // Listening first, so that nothing happens between the answers and the events.
                    await self.askAll(fleet)
                    while !Task.isCancelled {
                        await self.clock.sleep(for: .seconds(1))
                        let hasMissed = self.state.withLock { state in
                            defer { state.hasMissed = false }
                            return state.hasMissed
                        }
                        if hasMissed { await self.askAll(fleet) }
                    }
                }
            } catch {
                logger.warning(
                    "events cannot be heard", metadata: ["backend": "\(name)", "error": "\(error)"])
            }
            state.withLock { $0.live.connectedSince = nil }
            await clock.sleep(for: .seconds(1))
        }
    }

    /// Takes an event into the picture, and notes what of it is to be written.
    /// - Parameter time: when it was received; nil for now.
    func take(_ event: FleetEvent, at time: Date? = nil) {
        let now = time ?? clock.now
        state.withLock { state in
            state.live.events += 1
            if case .missed(let begin, let end) = event {
                state.gaps.append(min(begin, end)...max(begin, end))
                state.live.counters.missed()
                state.hasMissed = true
                state.doubtful.formUnion(state.live.picture.runningJobs(at: now).prefix(5000).map(\.id))
            }
            let change = state.live.picture.hear(event, at: now)
            if let report = event.job, let after = state.live.picture[job: report.id] {
                state.live.counters.take(report, after: after)
            }
            switch change {
            case .none: break
            case .worker(let name):
                let hasStarted = if case .workerOnline = event { true } else { false }
                take(beatOf: name, hasStarted: hasStarted, at: now, &state)
            case .job(let id, let endedAs): take(event, of: id, endedAs: endedAs, at: now, &state)
            }
        }
        changes.ring()
    }

    private func take(beatOf name: String, hasStarted: Bool, at now: Date, _ state: inout State) {
        guard let worker = state.live.picture.workers[name] else { return }
        let isDue = state.askedAt[name].map { now.timeIntervalSince($0) > 60 } ?? true
        if worker.statistics == nil, hasStarted || isDue, state.strangers.count < 1000 { state.strangers.insert(name) }
        guard worker.isPython == false, state.reckonings[name] != nil || state.reckonings.count < 10_000 else { return }
        for (kind, missing) in state.reckonings[name, default: Reckoning()].take(worker, hasStarted: hasStarted) {
            state.live.tallies.add(name: kind.name, queue: nil, worker: name, at: now) { $0.add(kind.state, missing) }
        }
    }

    private func take(
        _ event: FleetEvent, of id: JobID, endedAs end: MonitoredState?, at now: Date, _ state: inout State
    ) {
        // Of a job that was forgotten, progress and lines tell nothing that is kept.
        guard let monitored = state.live.picture[job: id], monitored.state != .unknown else { return }
        state.changed.insert(id)
        state.verdicts[id] = nil
        state.doubtful.remove(id)
        let job = HistoryJob(monitored, at: now)
        switch event {
        case .started:
            state.live.tallies.add(name: job.name, queue: job.queue, worker: job.worker, at: now) {
                if let wait = job.waitTime { $0.waits.add(wait) }
            }
        case .received, .succeeded, .failed, .retried, .revoked, .rejected, .takenOver, .returned: break
        default: return
        }
        // Of a job that was forgotten meanwhile it is not known which attempt this is.
        if job.receivedAt != nil || job.name != nil && job.startedAt != nil {
            let attempt = HistoryAttempt(job)
            state.attempts[id, default: [:]][attempt.number] = attempt
        }
        guard let end else { return }
        let (ended, run) = (HistoryState(monitored, endedAs: end), event.job?.runTime)
        if let worker = event.job?.node, let name = job.name {
            state.reckonings[worker]?.count(Reckoning.Kind(name: name, state: ended))
        }
        state.live.tallies.add(name: job.name, queue: job.queue, worker: job.worker, at: now) {
            $0.add(ended, run: run)
        }
    }

    // MARK: - Asking

    /// Asks all workers at once what events do not tell: what runs already, and who they are.
    private func askAll(_ fleet: Fleet) async {
        try? await fleet.tell("enable_events")
        await ask([.stats, .active, .activeQueues, .registered, .configuration], of: .all)
    }

    /// Asks workers, and keeps what they answer.
    func ask(_ queries: [Fleet.Query], of target: ControlTarget) async {
        guard let fleet else { return }
        for query in queries {
            for (node, value) in (try? await fleet.replies(to: query, of: target)) ?? [:] {
                take(ControlReply(node: node, value: value), to: query.name)
            }
        }
    }

    private func take(_ reply: ControlReply, to query: String) {
        let now = clock.now
        let isShort = JSONText.shown(reply.value).utf8.count <= 64 << 10
        state.withLock { state in
            state.live.picture.hear(reply, to: query, at: now)
            if state.live.picture.workers[reply.node] != nil, isShort {
                state.live.replies[reply.node, default: WorkerReplies(at: now)].at = now
                state.live.replies[reply.node]?.values[query] = reply.value
            }
            guard query == "active" else { return }
            for element in (reply.value.arrayValue ?? []).prefix(10_000) {
                guard let id = element["id"]?.stringValue, state.live.picture[job: id] != nil else { continue }
                state.changed.insert(id)
                state.verdicts[id] = nil
                state.doubtful.remove(id)
            }
        }
        changes.ring()
    }

    /// Asks each incarnation of a worker about itself, once.
    private func askStrangers() async {
        guard let fleet else { return }
        while !Task.isCancelled {
            let names = state.withLock { state in
                let names = Array(state.strangers.prefix(100))
                state.strangers.subtract(names)
                let now = clock.now
                for name in names where state.askedAt.count < 20_000 { state.askedAt[name] = now }
                return names
            }
            if !names.isEmpty {
                // A worker that has just started was not there when all were asked for events.
                try? await fleet.tell("enable_events", to: .nodes(names))
                await ask([.stats, .activeQueues, .registered, .configuration], of: .nodes(names))
            }
            await clock.sleep(for: .milliseconds(500))
        }
    }

    private func readQueues() async {
        do {
            let queues = try await backend.queues()
            let paused = try await backend.queueControl?.pausedQueues() ?? []
            let now = clock.now
            state.withLock { state in
                state.live.queues = queues.sorted { $0.name < $1.name }
                state.live.pausedQueues = paused
                state.live.queuesReadAt = now
                state.live.trouble = nil
                let shown = queues.prefix(RecentTallies.mostSeries)
                state.depths += shown.map {
                    DepthSample(
                        queue: $0.name, at: now, waiting: $0.waiting,
                        oldest: $0.oldestAge(at: now))
                }
                // An empty queue is not listed; it is known to be empty.
                let empty = state.sampled.subtracting(shown.map(\.name))
                state.depths += empty.map { DepthSample(queue: $0, at: now, waiting: 0, oldest: nil) }
                state.sampled.formUnion(shown.map(\.name))
                if state.sampled.count > 2 * RecentTallies.mostSeries { state.sampled = Set(shown.map(\.name)) }
            }
        } catch {
            state.withLock { $0.live.trouble = "\(error)" }
        }
        changes.ring()
    }

    // MARK: - Jobs whose worker died

    /// So many jobs are looked up in a second.
    private static let lookedUp = 50
    /// How long the broker has to give a dead worker's jobs to others, before they are looked for.
    private static let patience = 10.0

    /// Finds out what became of jobs that seem to run on workers that are dead, also of those that a dashboard before
    /// this one heard of.
    private func settleOrphans() async {
        let now = clock.now
        var jobs = state.withLock { state in
            let picture = state.live.picture
            let orphans = picture.orphanedJobs(at: now).filter { job in
                guard isOpen(state.verdicts[job.id], at: now) else { return false }
                guard let worker = job.worker.flatMap({ picture.workers[$0] }) else { return true }
                // Another process goes on under the name, or nobody does.
                let lost = worker.isAlive(at: now) ? worker.startedAt ?? worker.firstHeard : worker.heardAt
                return now.timeIntervalSince(lost) > Self.patience
            }
            let doubtful = state.doubtful.compactMap { picture[job: $0] }
                .filter { isOpen(state.verdicts[$0.id], at: now) }
            return (orphans + doubtful).prefix(Self.lookedUp).map {
                (heard: Optional($0), job: HistoryJob($0, at: now))
            }
        }
        if jobs.isEmpty { jobs = await abandoned(at: now).map { (heard: nil, job: $0) } }
        var failures = 0
        for (heard, job) in jobs where failures < 3 && !Task.isCancelled {
            guard let found = await verdict(on: job) else {
                failures += 1
                continue
            }
            state.withLock { settle(job, heard: heard, found, at: now, &$0) }
            changes.ring()
        }
    }

    /// Whether a job may be asked about: it never was, or what was said may have changed.
    private func isOpen(_ verdict: Verdict?, at now: Date) -> Bool {
        verdict.map { !$0.state.hasEnded && now.timeIntervalSince($0.at) > 60 } ?? true
    }

    /// Jobs that ran when a dashboard before this one heard of them last, and that no live worker says that it has.
    private func abandoned(at now: Date) async -> [HistoryJob] {
        let isSettled = view { live in live.connectedSince.map { now.timeIntervalSince($0) > 30 } ?? false }
        guard isSettled, let old = try? await store.abandoned(backend: number, before: now.addingTimeInterval(-60))
        else { return [] }
        return state.withLock { state in
            old.filter { job in
                let worker = job.worker.flatMap { state.live.picture.workers[$0] }
                // A live worker that does not say so may be busy.
                return isOpen(state.verdicts[job.id], at: now) && state.live.picture[job: job.id] == nil
                    && !(worker?.isAlive(at: now) ?? false)
            }.prefix(Self.lookedUp).map { $0 }
        }
    }

    private func settle(
        _ job: HistoryJob, heard: MonitoredJob?, _ found: (state: HistoryState, endedAt: Date?, error: String?),
        at now: Date, _ state: inout State
    ) {
        // Something was heard of it meanwhile: that is newer.
        guard state.live.picture[job: job.id] == heard else { return }
        // Celery keeps no record of a task that runs: one that was only out of sight may run on, if its worker lives.
        let worker = job.worker.flatMap { state.live.picture.workers[$0] }
        if found.state == .lost, state.doubtful.contains(job.id), worker?.isAlive(at: now) == true {
            state.verdicts[job.id] = Verdict(state: .running, at: now)
            return
        }
        if state.verdicts.count >= 100_000 { state.verdicts = [:] }
        state.verdicts[job.id] = Verdict(state: found.state, at: now)
        state.doubtful.remove(job.id)
        var job = job
        job.state = found.state
        job.touchedAt = now
        job.endedAt = found.endedAt ?? job.endedAt
        job.error = found.error ?? job.error
        state.settled.append(job)
    }

    /// - Returns: nil when the backend does not answer.
    private func verdict(on job: HistoryJob) async -> (state: HistoryState, endedAt: Date?, error: String?)? {
        do {
            guard let record = try await backend.record(of: job.id) else { return (.lost, nil, nil) }
            guard let state = HistoryState(word: record.state.rawValue) else { return nil }
            return (state, record.endedAt, record.failure.map { "\($0.type): \($0.message)" })
        } catch {
            return nil
        }
    }

    // MARK: - Keeping in order

    private func measure() {
        state.withLock { state in
            state.live.eventRate += (Double(state.live.events) - state.live.eventRate) * 0.3
            state.live.events = 0
        }
    }

    private func tidy() async {
        let now = clock.now
        state.withLock { state in
            state.live.picture.tidy(at: now)
            state.live.tallies.tidy(at: now)
            let workers = state.live.picture.workers
            state.live.counters.tidy { name in
                guard let worker = workers[name] else { return .gone }
                return worker.isAlive(at: now) ? .alive : .dead
            }
            state.reckonings = state.reckonings.filter { workers[$0.key] != nil }
            state.askedAt = state.askedAt.filter { workers[$0.key] != nil }
            state.live.replies = state.live.replies.filter { workers[$0.key] != nil }
        }
        while !Task.isCancelled, (try? await store.tidy(retention, at: now)) == true {}
    }

    private func write() async {
        let now = clock.now
        let batch = state.withLock { state -> HistoryBatch in
            let jobs = state.changed.compactMap { state.live.picture[job: $0] }
                .map { HistoryJob($0, at: now) }
            let batch = HistoryBatch(
                jobs: jobs.sorted { ($0.receivedAt ?? $0.touchedAt, $0.id) < ($1.receivedAt ?? $1.touchedAt, $1.id) }
                    + state.settled.filter { state.verdicts[$0.id] != nil },
                attempts: state.attempts, tallies: state.live.tallies.takePending(), depths: state.depths,
                gaps: state.gaps)
            (state.changed, state.attempts, state.depths, state.gaps, state.settled) = ([], [:], [], [], [])
            return batch
        }
        guard !batch.isEmpty else { return }
        do {
            try await store.write(batch.hidingSecrets(mask), backend: number)
        } catch {
            logger.warning("the history cannot be written", metadata: ["error": "\(error)"])
            state.withLock { state in
                state.live.tallies.putBack(batch.tallies)
                state.gaps = Array((batch.gaps + state.gaps).suffix(100))
                state.depths = Array((batch.depths + state.depths).suffix(10_000))
                state.settled = Array(
                    (batch.jobs.filter { state.verdicts[$0.id] != nil } + state.settled).suffix(10_000))
                for (id, attempts) in batch.attempts where state.attempts.count < 20_000 {
                    state.attempts[id] = attempts.merging(state.attempts[id] ?? [:]) { $1 }
                }
                // What the picture still has is written with the next batch.
                state.changed.formUnion(batch.jobs.map(\.id))
            }
        }
    }
}

extension HistoryState {
    /// How one attempt of a job has ended, which may have another life meanwhile.
    init(_ job: MonitoredJob, endedAs end: MonitoredState) {
        switch end {
        case .succeeded: self = .succeeded
        case .failed: self = .failed
        case .retrying: self = .retrying
        default: self = job.isExpired == true ? .expired : .cancelled
        }
    }
}
