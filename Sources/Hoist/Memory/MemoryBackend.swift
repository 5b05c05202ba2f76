#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
import Synchronization

/// Keeps jobs in the memory of one process: for tests, and for work that may be lost with the process.
///
/// As strict as the backends that keep jobs: leases, fencing, unique keys and dead letters behave alike.
public final class MemoryBackend: Broker, ResultStore, QueueControl, LimitKeeping, JobDirectory, JobEditing,
    BackendConvertible
{
    public let clock: any JobClock
    public var address: BrokerAddress { BrokerAddress(transport: "memory", url: "memory:") }
    public let workDoorbell = Doorbell()
    public let abilities: BrokerAbilities = [
        .uniqueKeys, .knownIDs, .delays, .fencing, .selectsByName, .storesResults, .tenPriorities, .leases,
        .cancellation, .expiry, .progress, .history, .waitingRecords,
    ]
    private let changes = Doorbell()
    private let state: Mutex<MemoryStore>
    private let follower: JobFollower

    /// - Parameters:
    ///   - clock: what due times and leases are measured by.
    ///   - resultRetention: how long the records of ended jobs are kept by default. A day.
    ///   - maximumLostWorkers: a job that so many workers died with becomes a dead letter. 3 by default.
    public init(
        clock: any JobClock = SystemJobClock(), resultRetention: Duration = .seconds(86_400),
        maximumLostWorkers: Int = 3
    ) {
        self.clock = clock
        follower = JobFollower(changes: changes)
        state = Mutex(
            MemoryStore(resultRetention: resultRetention.inSeconds, maximumLostWorkers: max(1, maximumLostWorkers)))
    }

    func change<T: Sendable>(ringing bells: [Doorbell], _ body: (inout MemoryStore, Date, Int64) throws -> T)
        rethrows -> T
    {
        let (now, uptime) = (clock.now, clock.uptime)
        let (result, notices, madeRoom) = try state.withLock { store in
            let hadRoom = store.madeRoom
            store.maintain(now: now, uptime: uptime)
            // A limit has room because of what happened by itself.
            let madeRoom = store.madeRoom && !hadRoom
            let result = try body(&store, now, uptime)
            defer { store.notices = [] }
            return (result, store.notices, madeRoom)
        }
        jobNotices.tell(notices)
        if madeRoom { workDoorbell.ring() }
        for bell in bells { bell.ring() }
        return result
    }

    public func publish(_ messages: [Message]) async throws -> [PublishResult] {
        try Task.checkCancellation()
        return try change(ringing: [workDoorbell, changes]) { store, now, _ in
            try store.checkRoom(for: messages)
            return messages.map { store.publish($0, now: now) }
        }
    }

    public func open(
        _ worker: WorkerPresence, lease: Duration, sink: any SessionSink
    ) async throws -> any WorkerSession {
        guard try await renew(worker, lease: lease) else {
            throw BackendError(
                .misuse, "the worker id \(worker.id) has been used before; each incarnation needs its own")
        }
        jobNotices.add(worker, sink)
        return MemorySession(self, worker.id, lease: lease, listening: workDoorbell.listen { sink.mayHaveWork() })
    }

    func turn(_ turn: WorkerTurn, of worker: WorkerID) -> TurnResult {
        let changesRecords = !turn.settlements.isEmpty || !turn.progress.isEmpty
        let (result, mustRing) = change(ringing: []) { store, now, _ in store.turn(turn, of: worker, now: now) }
        if mustRing { workDoorbell.ring() }
        if changesRecords || !result.deliveries.isEmpty { changes.ring() }
        return result
    }

    func renew(_ worker: WorkerPresence, lease: Duration) async throws -> Bool {
        let (isAlive, mustRing) = change(ringing: []) { store, _, uptime in
            let lives = store.renew(worker, until: uptime + lease.inMicroseconds)
            defer { store.tookOver = false }
            return (lives, store.tookOver)
        }
        if mustRing { workDoorbell.ring() }
        return isAlive
    }

    public func pause(queue: String) async throws {
        change(ringing: []) { store, _, _ in store.changeRules(of: queue) { $0.isPaused = true } }
    }

    public func resume(queue: String) async throws {
        change(ringing: [workDoorbell]) { store, _, _ in store.changeRules(of: queue) { $0.resume() } }
    }

    public func pausedQueues() async throws -> Set<String> {
        change(ringing: []) { store, _, _ in Set(store.rules.filter(\.value.isPaused).keys) }
    }

    public func close(queue: String, for duration: Duration) async throws {
        change(ringing: []) { store, now, _ in
            store.changeRules(of: queue) {
                $0.close(until: now.microsecondsSinceEpoch + max(0, duration.inMicroseconds))
            }
        }
    }

    public func limit(queue: String, to maximum: Int?) async throws {
        change(ringing: [workDoorbell]) { store, _, _ in
            store.changeRules(of: queue) { $0.capacity = maximum.map { max(0, $0) } }
        }
    }

    public func declareLimits(_ limits: [LimitTarget: [JobLimit]], aliases: [String: String]) async throws {
        change(ringing: [workDoorbell]) { store, _, _ in
            store.limitAliases.merge(aliases) { _, new in new }
            for (target, limits) in limits {
                // What is a kind of its own now may have been an alias before.
                if target.kind == .job { store.limitAliases[target.name] = nil }
                store.declaredLimits[target] = limits.isEmpty ? nil : limits
            }
        }
    }

    public func setLimits(_ limits: [JobLimit]?, for target: LimitTarget) async throws {
        change(ringing: [workDoorbell]) { store, _, _ in store.setLimits[target] = limits }
    }

    public func limits() async throws -> [LimitTarget: [JobLimit]] {
        change(ringing: []) { store, _, _ in
            store.declaredLimits.merging(store.setLimits) { _, set in set }.filter { !$0.value.isEmpty }
        }
    }

    func resign(_ worker: WorkerID) {
        change(ringing: [workDoorbell, changes]) { store, now, _ in store.resign(worker, now: now) }
    }

    public func store(_ results: [ResultWrite]) async throws {
        change(ringing: [changes]) { store, now, _ in store.store(results, now: now) }
    }

    public func cancel(_ id: JobID) async throws -> CancelResult {
        change(ringing: [workDoorbell, changes]) { store, now, _ in store.cancel(id, now: now) }
    }

    public func record(of id: JobID) async throws -> JobRecord? {
        change(ringing: []) { store, _, _ in store.record(of: id) }
    }

    public func log(of id: JobID) async throws -> JobLog? {
        change(ringing: []) { store, _, _ in store.jobs[id]?.log ?? store.foreign[id]?.log }
    }

    public func updates(of id: JobID) -> JobUpdates {
        let bell = follower.doorbell(of: id) { [weak self] ids in self?.revisions(of: ids) ?? [:] }
        return JobUpdates(changes: bell, clock: clock) { [weak self] in try await self?.record(of: id) }
    }

    private func revisions(of ids: [JobID]) -> [JobID: Int64] {
        change(ringing: []) { store, _, _ in
            Dictionary(uniqueKeysWithValues: ids.compactMap { id in store.record(of: id).map { (id, $0.revision) } })
        }
    }

    public func forget(_ id: JobID) async throws -> Bool {
        change(ringing: [changes]) { store, _, _ in store.removeEnded([id]) == 1 }
    }

    public func queues() async throws -> [QueueStatistics] { change(ringing: []) { store, _, _ in store.queues() } }

    public func workers() async throws -> [WorkerPresence] {
        change(ringing: []) { store, _, _ in store.workers.values.map(\.presence).sorted { $0.startedAt < $1.startedAt }
        }
    }

    public func jobs(_ filter: JobFilter) async throws -> [JobRecord] {
        change(ringing: []) { store, _, _ in store.records(filter) }
    }

    public func page(_ filter: JobFilter, after cursor: JobCursor?) async throws -> JobPage {
        var before: Int?
        if let cursor {
            guard let sequence = Int(cursor.text) else { throw BackendError(strange: cursor) }
            before = sequence
        }
        return change(ringing: []) { [before] store, _, _ in store.page(filter, before: before) }
    }

    public func counts() async throws -> [JobCount] { change(ringing: []) { store, _, _ in store.counts() } }

    public func arguments(of id: JobID) async throws -> Arguments? {
        change(ringing: []) { store, _, _ in (try? store.jobs[id]?.message.decodedBody())?.arguments }
    }

    public func requeue(_ filter: JobFilter, arguments: Arguments?) async throws -> Int {
        try change(ringing: [workDoorbell, changes]) { store, now, _ in
            let ended = store.records(filter).filter { $0.state.hasEnded }
            for record in ended { try store.revive(record.id, arguments: arguments, now: now) }
            return ended.count
        }
    }

    public func drop(_ filter: JobFilter) async throws -> Int {
        change(ringing: [changes]) { store, _, _ in store.removeEnded(store.records(filter).map(\.id)) }
    }

    public func purge(queue: String) async throws -> Int {
        change(ringing: [workDoorbell, changes]) { store, _, _ in store.purge(queue: queue) }
    }

    public func edit(_ id: JobID, _ edit: JobEdit) async throws -> Bool {
        try change(ringing: [workDoorbell, changes]) { store, now, _ in try store.edit(id, edit, now: now) }
    }

    public var backend: Backend {
        var backend = Backend(broker: self, results: self)
        backend.directory = self
        backend.editing = self
        backend.queueControl = self
        backend.limits = self
        backend.topics = StoredTopics(self)
        backend.broadcasts = FrameBroadcasts(self)
        backend.fanout = self
        backend.coordination = self
        backend.upkeep = self
        backend.schedules = self
        backend.groups = self
        backend.workflows = self
        return backend
    }

    // MARK: - Fanout, coordination, upkeep

    private let listeners = FanoutListeners()
    let jobNotices = JobNotices()

    public func send(_ frame: [UInt8], exchange: String, key: String) async throws -> Int? {
        listeners.hear(FanoutFrame(key: key, bytes: frame), exchange: exchange)
    }

    public func frames(exchange: String, pattern: String) async throws -> AsyncStream<FanoutFrame> {
        listeners.listen(exchange: exchange, pattern: pattern)
    }

    public func value(of key: String) async throws -> [UInt8]? {
        try check(key)
        return change(ringing: []) { store, now, _ in store.value(of: key, now: now) }
    }

    public func compareAndSet(
        _ key: String, expected: [UInt8]?, to value: [UInt8]?, expiresAfter lifetime: Duration?
    ) async throws -> Bool {
        try check(key, value)
        return change(ringing: []) { store, now, _ in
            store.compareAndSet(key, expected, value, until: lifetime.map(now.advanced(by:)), now: now)
        }
    }

    public func write(_ writes: [ScheduleWrite]) async throws -> [ScheduleWriteResult] {
        for write in writes { try write.check() }
        return change(ringing: [workDoorbell, changes]) { store, now, _ in
            writes.map { write in
                if let refusal = store.schedules.refusal(of: write, now: now) { return refusal }
                if !write.messages.isEmpty, (try? store.checkRoom(for: write.messages)) == nil {
                    return .full(queue: write.messages[0].queue)
                }
                let published = write.messages.map { store.publish($0, now: now) }
                return .written(revision: store.schedules.perform(write), published)
            }
        }
    }

    public func schedules(_ ids: [String]) async throws -> [StoredSchedule] {
        change(ringing: []) { store, _, _ in ids.compactMap { store.schedules.stored[$0] } }
    }

    public func schedules(after id: String, limit: Int) async throws -> [StoredSchedule] {
        change(ringing: []) { store, _, _ in store.schedules.page(after: id, limit: limit) }
    }

    public func dueSchedules(in groups: [String], limit: Int) async throws -> DueSchedules {
        change(ringing: []) { store, now, _ in store.schedules.due(in: groups, limit: limit, now: now) }
    }

    public func scheduleHistory(of id: String) async throws -> [[UInt8]] {
        change(ringing: []) { store, _, _ in store.schedules.history[id] ?? [] }
    }

    /// Everything is done beside each call: an empty one is enough.
    public func tick(every interval: Duration) async throws {
        let tookOver = change(ringing: []) { store, _, _ in
            defer { store.tookOver = false }
            return store.tookOver
        }
        if tookOver { workDoorbell.ring() }
    }
}

extension MemoryBackend: Fanout, Coordination, Upkeep, ScheduleKeeping {}

/// A session of a worker in the same process.
final class MemorySession: WorkerSession {
    private let backend: MemoryBackend
    private let worker: WorkerID
    private let lease: Duration
    private let listening: ScheduledCall

    init(_ backend: MemoryBackend, _ worker: WorkerID, lease: Duration, listening: ScheduledCall) {
        (self.backend, self.worker, self.lease, self.listening) = (backend, worker, lease, listening)
    }

    deinit {
        listening.cancel()
        backend.jobNotices.remove(worker)
    }

    func turn(_ turn: WorkerTurn) async throws -> TurnResult { backend.turn(turn, of: worker) }

    func renew(_ worker: WorkerPresence) async throws -> Bool { try await backend.renew(worker, lease: lease) }

    func close() async throws {
        listening.cancel()
        backend.jobNotices.remove(worker)
        backend.resign(worker)
    }
}
