#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif
public import Hoist

/// What is known of a fleet from its events: workers, jobs, counts, and where something was missed.
///
/// A pure value: events, replies and the time go in, and it does nothing by itself. What it holds is bounded by
/// ``Limits``, whatever hostile workers send. It is the same for Swift and Python workers.
public struct FleetPicture: Sendable {
    /// How much is kept.
    public struct Limits: Sendable {
        /// Jobs; the one that was heard of least recently is forgotten first. 10,000 by default.
        public var jobs: Int
        /// Bytes of texts of jobs, about. 64 MiB by default.
        public var bytes: Int
        /// Workers, dead ones included. 10,000 by default.
        public var workers: Int
        /// Kinds of jobs that are counted apart; the counts of others are kept together under ``FleetPicture/other``.
        /// 1,000 by default.
        public var names: Int
        /// The longest text that is kept of a job's arguments, output, error or trace, in bytes. 4,096 by default.
        public var textLength: Int
        /// How long a dead worker is remembered. A day by default.
        public var deadWorkersKept: Duration

        public init(
            jobs: Int = 10_000, bytes: Int = 64 << 20, workers: Int = 10_000, names: Int = 1000, textLength: Int = 4096,
            deadWorkersKept: Duration = .seconds(86_400)
        ) {
            self.jobs = max(1, jobs)
            self.bytes = max(1 << 16, bytes)
            self.workers = max(1, workers)
            self.names = max(1, names)
            self.textLength = max(64, textLength)
            self.deadWorkersKept = deadWorkersKept
        }
    }

    /// The name that counts of kinds of jobs have above ``Limits/names``.
    public static let other = "other"

    public let limits: Limits
    /// By name, `name@host`.
    public private(set) var workers: [String: MonitoredWorker] = [:]
    /// Ends of attempts, by kind of job.
    public private(set) var counts: [String: MonitoredCount] = [:]
    /// How much was missed.
    public private(set) var gaps = MonitoredGaps()
    private var jobs: [JobID: MonitoredJob] = [:]
    /// The jobs in the order in which they were heard of last; a job may be named several times.
    private var order: [(id: JobID, revision: UInt64)] = []
    private var head = 0
    private var revision: UInt64 = 0
    private var bytes = 0

    public init(limits: Limits = Limits()) { self.limits = limits }

    // MARK: - What it shows

    public subscript(job id: JobID) -> MonitoredJob? { jobs[id] }
    public var jobCount: Int { jobs.count }
    /// Bytes of texts that are kept of jobs, about.
    public var jobBytes: Int { bytes }

    /// The jobs, that which was heard of last first.
    public var latestJobs: some Sequence<MonitoredJob> {
        order[head...].reversed().lazy.compactMap { entry in
            let job = jobs[entry.id]
            return job?.revision == entry.revision ? job : nil
        }
    }

    /// The jobs that run, the oldest first. Those of workers that are dead are not among them.
    public func runningJobs(at now: Date) -> [MonitoredJob] {
        jobs.values.filter { $0.state == .started && hasItsWorker($0, at: now) }
            .sorted { ($0.startedAt ?? .distantPast, $0.id) < ($1.startedAt ?? .distantPast, $1.id) }
    }

    /// The jobs that a worker had when it died, and of which nothing was heard since.
    public func orphanedJobs(at now: Date) -> [MonitoredJob] {
        jobs.values.filter { ($0.state == .started || $0.state == .received) && !hasItsWorker($0, at: now) }
    }

    private func hasItsWorker(_ job: MonitoredJob, at now: Date) -> Bool {
        guard let worker = job.worker.flatMap({ workers[$0] }) else { return true }
        // What a process had that was killed is gone, also when another one goes on under its name.
        let begun = job.startedAt ?? job.receivedAt
        let isOfAnother = begun.map { $0 < worker.startedAt ?? .distantPast } ?? false
        return worker.isAlive(at: now) && !(worker.restarts > 0 && isOfAnother)
    }

    /// The workers that are alive, by name.
    public func liveWorkers(at now: Date) -> [MonitoredWorker] {
        workers.values.filter { $0.isAlive(at: now) }.sorted { $0.name < $1.name }
    }

    // MARK: - What goes in

    /// Takes an event.
    /// - Parameters:
    ///   - event: any event, in any order, also one that was taken before.
    ///   - now: when it was received, by this program's own clock.
    /// - Returns: the job or the worker that has changed.
    @discardableResult
    public mutating func hear(_ event: FleetEvent, at now: Date) -> Change {
        switch event {
        case .workerOnline(let report): return hear(report, isLeaving: false, isOnline: true, now)
        case .workerHeartbeat(let report): return hear(report, isLeaving: false, isOnline: false, now)
        case .workerOffline(let report): return hear(report, isLeaving: true, isOnline: false, now)
        case .other(let facts):
            note(facts, now)
            return .none
        case .missed(let begin, let end):
            noteGap(from: begin, to: end)
            return .none
        case .sent(let job): return hear(job, .sent, now)
        case .received(let job): return hear(job, .received, now)
        case .started(let job): return hear(job, .started, now)
        case .succeeded(let job): return hear(job, .succeeded, now)
        case .failed(let job): return hear(job, .failed, now)
        case .retried(let job): return hear(job, .retrying, now)
        case .revoked(let job): return hear(job, .revoked, now)
        case .rejected(let job): return hear(job, .rejected, now)
        case .progress(let job):
            note(job.facts, now)
            let limits = limits
            change(job.id) { $0.progress = job.progress.map { limits.cut($0) } }
            return .job(job.id, endedAs: nil)
        case .log(let job):
            note(job.facts, now)
            guard let line = job.lines.last else { return .none }
            let limits = limits
            change(job.id) { $0.lastLine = limits.cut(line.text) }
            return .job(job.id, endedAs: nil)
        case .returned(let job), .takenOver(let job):
            note(job.facts, now)
            guard let known = jobs[job.id], known.isReturned(by: job, limits) else { return .none }
            change(job.id) { $0.returned(job) }
            return .job(job.id, endedAs: nil)
        case .cancelAsked(let job):
            guard job.cancelResult == "cancelled", jobs[job.id]?.state.hasEnded != true else { return .none }
            return hear(job, .revoked, now)
        }
    }

    /// What an event has changed.
    public enum Change: Sendable, Hashable {
        case none
        /// A job; `endedAs` is how an attempt of it has ended, where this event is the first to tell so.
        case job(JobID, endedAs: MonitoredState?)
        case worker(String)
    }

    /// Takes what a worker has replied to a request.
    /// - Parameters:
    ///   - reply: the reply.
    ///   - query: the name of the command: `stats`, `active`, `active_queues`, `registered`, `conf`; others change
    ///     nothing.
    ///   - now: when it was received, by this program's own clock.
    public mutating func hear(_ reply: ControlReply, to query: String, at now: Date) {
        let name = limits.cut(reply.node, to: 512)
        guard workers[name] != nil || makeRoom(forWorkerAt: now) else { return }
        var worker = workers[name] ?? MonitoredWorker(name: name, firstHeard: now)
        worker.heardAt = max(worker.heardAt, now)
        switch query {
        case "stats":
            worker.statistics = limits.cut(reply.value)
            worker.slots =
                reply.value["pool"]?["max-concurrency"]?.integerValue.map(MonitoredWorker.slots) ?? worker.slots
        case "active_queues":
            worker.queues = (reply.value.arrayValue ?? []).prefix(1000).compactMap {
                $0["name"]?.stringValue.map { limits.cut($0, to: 512) }
            }
        case "registered":
            worker.jobNames = (reply.value.arrayValue ?? []).prefix(2000).compactMap {
                $0.stringValue.map { limits.cut($0, to: 512) }
            }
        case "conf": worker.settings = limits.cut(reply.value)
        case "active": takeActive(reply.value, of: name, now)
        default: break
        }
        workers[name] = worker
    }

    /// Notes that events were missed: the connection was away, or this program was too slow.
    public mutating func noteGap(from begin: Date, to end: Date) { gaps.note(from: begin, to: end) }

    /// Forgets workers that are dead for long.
    public mutating func tidy(at now: Date) {
        let limit = now.addingTimeInterval(-limits.deadWorkersKept.inSeconds)
        workers = workers.filter { $0.value.heardAt > limit || $0.value.isAlive(at: now) }
    }

    // MARK: - Workers

    private mutating func note(_ facts: EventFacts, _ now: Date) {
        let name = limits.cut(facts.node, to: 512)
        guard var worker = workers[name] else { return }
        worker.note(facts, now)
        workers[name] = worker
    }

    private mutating func hear(_ report: WorkerReport, isLeaving: Bool, isOnline: Bool, _ now: Date) -> Change {
        let name = limits.cut(report.node, to: 512)
        guard workers[name] != nil || makeRoom(forWorkerAt: now) else { return .none }
        var worker = workers[name] ?? MonitoredWorker(name: name, firstHeard: now)
        let isNew = worker.processID.map { $0 != report.facts.processID } ?? false
        // One that starts again under its name: what the one before had is gone with it.
        if isNew { worker.beginAgain() }
        if worker.startedAt == nil { worker.startedAt = report.facts.at }
        worker.note(report.facts, now)
        worker.hasLeft = isLeaving
        worker.beatAt = now
        worker.frequency = report.frequency?.clamped(to: 0.1...3600) ?? worker.frequency
        worker.active = report.active ?? worker.active
        worker.processed = report.processed ?? worker.processed
        if !report.loadAverage.isEmpty { worker.loadAverage = report.loadAverage }
        worker.software = report.software.map { limits.cut($0, to: 64) } ?? worker.software
        worker.version = report.version.map { limits.cut($0, to: 64) } ?? worker.version
        worker.system = report.system.map { limits.cut($0, to: 64) } ?? worker.system
        worker.processID = report.facts.processID ?? worker.processID
        if let hoist = report.facts.fields["hoist"] { worker.take(limits.cut(hoist)) }
        workers[name] = worker
        return .worker(name)
    }

    /// - Returns: false when the place is taken by workers that live.
    private mutating func makeRoom(forWorkerAt now: Date) -> Bool {
        guard workers.count >= limits.workers else { return true }
        let dead = workers.values.filter { !$0.isAlive(at: now) }.min { $0.heardAt < $1.heardAt }
        guard let dead else {
            gaps.workersLeftOut += 1
            return false
        }
        workers[dead.name] = nil
        return true
    }

    // MARK: - Jobs

    private mutating func takeActive(_ value: WireValue, of node: String, _ now: Date) {
        let limits = limits
        for element in (value.arrayValue ?? []).prefix(limits.jobs) {
            guard let id = element["id"]?.stringValue, !id.isEmpty, id.utf8.count <= 1024 else { continue }
            change(id) { job in
                guard !job.state.hasEnded else { return }
                job.state = .started
                job.worker = node
                job.name = element["name"]?.stringValue.map { limits.cut($0, to: 512) } ?? job.name
                job.startedAt =
                    job.startedAt ?? element["time_start"]?.doubleValue.flatMap(Date.init(boundedSecondsSinceEpoch:))
            }
        }
    }

    private mutating func hear(_ report: TaskReport, _ state: MonitoredState, _ now: Date) -> Change {
        note(report.facts, now)
        let limits = limits
        var counted: (name: String, state: MonitoredState, seconds: Double?)?
        change(report.id) { job in
            // The clocks of machines differ: Lamport's clock says which of two is later, and a job that has ended stays
            // so, until it is claimed again.
            let isLate = job.isLate(state, report, limits)
            job.describe(report, limits)
            // A client has no jobs.
            let isWorker = state != .sent && report.cancelResult == nil
            if isWorker { job.worker = limits.cut(report.node, to: 512) }
            if job.marks.insert(MonitoredJob.Mark(state: state, attempt: report.retries ?? job.retries)).inserted,
                state.isEndOfAttempt
            {
                counted = (job.name ?? FleetPicture.other, state, report.runTime)
            }
            guard !isLate else { return }
            job.take(report, state, limits)
        }
        if let counted { count(counted.name, counted.state, counted.seconds) }
        return .job(report.id, endedAs: counted?.state)
    }

    private mutating func count(_ name: String, _ state: MonitoredState, _ seconds: Double?) {
        let name = counts[name] != nil || counts.count < limits.names ? name : Self.other
        counts[name, default: MonitoredCount()].add(state, seconds)
    }

    /// Changes a job, or begins with it, and makes room where there is too much.
    private mutating func change(_ id: JobID, _ body: (inout MonitoredJob) -> Void) {
        var job = jobs[id] ?? MonitoredJob(id: id)
        bytes -= jobs[id]?.size ?? 0
        body(&job)
        revision += 1
        job.revision = revision
        job.size = job.measured
        bytes += job.size
        jobs[id] = job
        order.append((id, revision))
        var spared = 0
        while jobs.count > limits.jobs || bytes > limits.bytes, head < order.count - 1 {
            let oldest = order[head]
            head += 1
            // A job that runs for long is silent for long; what has ended is in nobody's way.
            if let job = jobs[oldest.id], job.revision == oldest.revision, !job.state.hasEnded, spared < Self.mostSpared
            {
                spared += 1
                order.append(oldest)
                continue
            }
            if let job = jobs[oldest.id], job.revision == oldest.revision {
                bytes -= job.size
                jobs[oldest.id] = nil
                gaps.jobsForgotten += 1
            }
        }
        compact()
    }

    /// So many jobs that have not ended are passed over for one that is forgotten.
    private static let mostSpared = 64

    /// Keeps the order about as long as there are jobs.
    private mutating func compact() {
        guard order.count - head > 2 * jobs.count + 1024 || head > 4096 && head * 2 > order.count else { return }
        order = order[head...].filter { jobs[$0.id]?.revision == $0.revision }
        head = 0
    }
}

extension FleetPicture.Limits {
    func cut(_ text: String, to length: Int? = nil) -> String {
        let length = length ?? textLength
        guard text.utf8.count > length else { return text }
        return String(decoding: text.utf8.prefix(length), as: UTF8.self)
    }

    func cut(_ progress: JobProgress) -> JobProgress {
        JobProgress(fraction: progress.fraction, message: progress.message.map { cut($0, to: 512) })
    }

    /// What a worker says of itself, unless it says too much.
    func cut(_ value: WireValue) -> WireValue { value.description.utf8.count <= 64 << 10 ? value : .null }
}
