import Logging
import Synchronization

extension Worker {
    /// When a worker tells others of its jobs, as Celery's events.
    public enum EventMode: String, Sendable, CaseIterable {
        /// Once a monitor has asked for events, and while somebody listens. The default.
        case whenAsked = "when-asked"
        /// From the start, and while somebody listens.
        case always
        /// Never. Heartbeats are sent all the same.
        case never
    }
}

/// Tells others of a worker's jobs: a sink that keeps events for a moment, and a task that encodes and publishes them.
///
/// It never makes a job wait. While nobody listens nothing is encoded; when there is more than the limits allow, whole
/// jobs are left out and counted, but for those that fail.
final class EventRecorder: EventSink {
    struct Limits: Sendable {
        /// Events a second above which whole jobs are left out.
        var eventsPerSecond = 10_000
        /// Bytes that wait to be published, about.
        var bufferedBytes = 1 << 20
        /// Events in one message, and its bytes.
        var batch = 256
        var batchBytes = 64 << 10
        /// How long an event waits for others.
        var batchDelay = Duration.milliseconds(50)
        /// For how long there must have been no listener before nothing is encoded any more.
        var patience = Duration.seconds(30)
        /// How long one request for events holds where nobody can tell how many listen.
        var requestLasts = Duration.seconds(120)
    }

    private struct Pending: Sendable {
        var event: JobEvent
        var clock: Int64
        var size: Int
        /// The event of a job that was left out so far: it is told who the job is first.
        var isFirst = false
    }

    private enum Admission { case no, yes, first }

    private struct TotalKey: Hashable {
        var name: String
        var outcome: String
    }

    private struct Total {
        var count: UInt64 = 0
        /// The count that was told last; nil for one that is to be told again.
        var told: UInt64?
    }

    private struct State {
        var pending: [Pending] = []
        var bytes = 0
        var isEnabled: Bool
        var isAsleep = false
        /// By the clock's uptime.
        var lastHeard: Int64 = 0
        var lastAsked: Int64 = 0
        /// The jobs whose events are left out, until they end: hashes of their ids. Of two with one hash, which are very
        /// rare, the second is told of in part.
        var leftOut: Set<UInt64> = []
        var dropped = 0
        var window = Window()
        var counted: [(key: TotalKey, total: Total)] = []
        /// Where each key is counted.
        var places: [TotalKey: Int] = [:]
        /// What was counted last.
        var lastTotal: (key: TotalKey, index: Int)?
        var ends: UInt64 = 0
    }

    /// One second of events, to keep to the limit.
    private struct Window {
        var begin: Int64 = 0
        var offered = 0
        var accepted = 0
        /// Of 1,024 jobs so many are told of.
        var kept = 1024
    }

    /// Each job gives about so many events.
    private static let eventsPerJob = 3
    /// So many kinds of jobs and outcomes are counted apart.
    private static let mostTotals = 1000

    private let mode: Worker.EventMode
    private let writer: EventWriter
    private let limits: Limits
    private let time: LamportClock
    private let clock: any JobClock
    private let state: Mutex<State>
    private let wanted: Atomic<UInt8>
    private let bell = Doorbell()
    private let fullBell = Doorbell()

    init(node: String, mode: Worker.EventMode, limits: Limits = Limits(), time: LamportClock, clock: any JobClock) {
        self.mode = mode
        self.limits = limits
        self.time = time
        self.clock = clock
        writer = EventWriter(node: node)
        state = Mutex(State(isEnabled: mode == .always, lastHeard: clock.uptime))
        wanted = Atomic(Self.interests(isTelling: mode == .always).rawValue)
    }

    // MARK: - What jobs do

    var interests: EventInterests { EventInterests(rawValue: wanted.load(ordering: .relaxed)) }

    /// The ends are counted also while nobody listens.
    private static func interests(isTelling: Bool) -> EventInterests {
        isTelling ? [.received, .started, .progress, .ends] : [.ends]
    }

    /// Decides, when a job is claimed, whether it is told of: as a whole or not at all.
    func declines(_ interest: EventInterests, of job: JobID) -> Bool {
        guard interest == .received || interest == .started else { return false }
        let hash = job.utf8.stableHash
        return state.withLock { state in
            guard state.isEnabled, !state.isAsleep else { return true }
            if interest == .started {
                guard state.leftOut.contains(hash) else { return false }
            } else {
                beginWindow(&state)
                state.window.offered += Self.eventsPerJob
                let isChosen = state.window.kept == 1024 || Int(hash % 1024) < state.window.kept
                if isChosen, state.window.accepted < limits.eventsPerSecond {
                    state.window.accepted += Self.eventsPerJob
                    return false
                }
                leaveOut(hash, &state)
            }
            state.dropped += 1
            return true
        }
    }

    /// What is told of nobody is counted, and no event is made of it.
    func declinesEnd(_ outcome: Outcome, of job: JobID, named name: String) -> Bool {
        state.withLock { state in
            if state.isEnabled, !state.isAsleep {
                guard !outcome.isAlwaysTold, state.leftOut.remove(job.utf8.stableHash) != nil else { return false }
                state.dropped += 1
            }
            count(name, outcome.label, &state)
            return true
        }
    }

    func record(_ event: JobEvent) {
        var (event, payload) = (event, event.payloadSize)
        if payload > JobEvent.largest {
            event = event.withoutPayload
            payload = event.payloadSize
        }
        let size = 256 + payload
        let bells = state.withLock { state -> (Bool, Bool) in
            count(event, &state)
            guard state.isEnabled, !state.isAsleep else { return (false, false) }
            let before = state.pending.count
            let admission = admission(of: event, size, &state)
            if admission == .no {
                state.dropped += 1
            } else {
                state.pending.append(
                    Pending(event: event, clock: time.tick(), size: size, isFirst: admission == .first))
                state.bytes += size
            }
            let after = state.pending.count
            return (before == 0 && after > 0, before < limits.batch && after >= limits.batch)
        }
        if bells.0 { bell.ring() }
        if bells.1 { fullBell.ring() }
    }

    private func count(_ event: JobEvent, _ state: inout State) {
        switch event.kind {
        case .ended(let end), .retried(let end), .putBack(let end): count(event.jobName, end.outcome.label, &state)
        case .givenUp: count(event.jobName, "failed", &state)
        case .sent, .takenOver, .cancelAsked:
            // Something to tell, for a recorder that sleeps.
            state.ends &+= 1
        case .received, .started, .progressed, .wrote: break
        }
    }

    private func count(_ name: String, _ outcome: String, _ state: inout State) {
        state.ends &+= 1
        // The next job is most often of the same kind, and ends as well: two texts are compared and none is hashed.
        if let last = state.lastTotal, last.key.outcome == outcome, last.key.name == name {
            state.counted[last.index].total.count += 1
            return
        }
        var key = TotalKey(name: name, outcome: outcome)
        if state.places[key] == nil, state.counted.count >= Self.mostTotals { key.name = "other" }
        let index =
            state.places[key]
            ?? {
                state.counted.append((key, Total()))
                state.places[key] = state.counted.count - 1
                return state.counted.count - 1
            }()
        state.counted[index].total.count += 1
        state.lastTotal = (key, index)
    }

    private func beginWindow(_ state: inout State) {
        let now = clock.uptime
        guard now - state.window.begin >= 1_000_000 else { return }
        let offered = state.window.offered
        let kept =
            offered > limits.eventsPerSecond
            ? max(1, Int(1024 * Double(limits.eventsPerSecond) / Double(offered))) : 1024
        state.window = Window(begin: now, kept: kept)
    }

    /// Whether an event that was not declined is told. A job that fails always is.
    private func admission(of event: JobEvent, _ size: Int, _ state: inout State) -> Admission {
        let hash = event.jobID.utf8.stableHash
        guard state.bytes + size <= limits.bufferedBytes else {
            // What ends here is forgotten; what begins here is left out as a whole.
            if case .received = event.kind { leaveOut(hash, &state) } else { state.leftOut.remove(hash) }
            return .no
        }
        switch event.kind {
        case .received: return .yes
        case .started: return state.leftOut.contains(hash) ? .no : .yes
        case .sent, .progressed, .wrote:
            beginWindow(&state)
            state.window.offered += 1
            guard state.window.accepted < limits.eventsPerSecond, !state.leftOut.contains(hash) else { return .no }
            state.window.accepted += 1
            return .yes
        case .ended(let end), .retried(let end), .putBack(let end):
            guard state.leftOut.remove(hash) != nil else { return .yes }
            return end.outcome.isAlwaysTold ? .first : .no
        case .givenUp, .takenOver, .cancelAsked: return .yes
        }
    }

    private func leaveOut(_ hash: UInt64, _ state: inout State) {
        if state.leftOut.count < 100_000 { state.leftOut.insert(hash) }
    }

    // MARK: - What monitors ask for

    /// - Returns: what Celery's worker answers; nil where events are never sent.
    func enable() -> String? {
        guard mode != .never else { return nil }
        let wasEnabled = state.withLock { state in
            defer {
                (state.isEnabled, state.isAsleep) = (true, false)
                (state.lastHeard, state.lastAsked) = (clock.uptime, clock.uptime)
                wanted.store(Self.interests(isTelling: true).rawValue, ordering: .relaxed)
            }
            return state.isEnabled
        }
        bell.ring()
        return wasEnabled ? "task events already enabled" : "task events enabled"
    }

    func disable() -> String {
        let wasEnabled = state.withLock { state in
            defer {
                (state.isEnabled, state.pending, state.bytes, state.leftOut) = (false, [], 0, [])
                wanted.store(Self.interests(isTelling: false).rawValue, ordering: .relaxed)
            }
            return state.isEnabled
        }
        return wasEnabled ? "task events disabled" : "task events already disabled"
    }

    var dropped: Int { state.withLock { $0.dropped } }

    /// The totals by name and outcome, at most 4 KB of them: what does not fit is told with the next.
    /// - Parameter all: also those that have not changed since they were last told.
    func totals(all: Bool) -> WireValue {
        state.withLock { state in
            if all { for index in state.counted.indices { state.counted[index].total.told = nil } }
            let changed = state.counted.indices.filter { state.counted[$0].total.told != state.counted[$0].total.count }
                .map { (index: $0, key: state.counted[$0].key, total: state.counted[$0].total) }
            var names: WireValue.Object = [:]
            var size = 0
            for (index, key, total) in changed.sorted(by: {
                ($0.key.name, $0.key.outcome) < ($1.key.name, $1.key.outcome)
            }) {
                size += key.name.utf8.count + key.outcome.utf8.count + 32
                guard size <= 3500 || names.isEmpty else { break }
                var outcomes = names[key.name]?.objectValue ?? [:]
                outcomes[key.outcome] = .integer(Int64(clamping: total.count))
                names[key.name] = .object(outcomes)
                state.counted[index].total.told = total.count
            }
            return .object(names)
        }
    }

    // MARK: - Publishing

    /// Publishes events until the task is cancelled, and then what is left.
    func run(on fanout: any Fanout) async {
        var failures = 0
        var seen: UInt64 = 0
        while !Task.isCancelled {
            let mark = bell.mark
            let (isEmpty, isAsleep, ends) = state.withLock {
                ($0.pending.isEmpty, $0.isAsleep && $0.isEnabled, $0.ends)
            }
            if isAsleep, ends != seen {
                // An empty array: whoever listens is counted, and hears nothing.
                seen = ends
                if await send(Array("[]".utf8), on: fanout) != nil { continue }
            }
            if isEmpty {
                await bell.wait(after: mark, for: isAsleep ? .seconds(1) : nil, clock: clock)
                continue
            }
            let full = fullBell.mark
            if state.withLock({ $0.pending.count < limits.batch }) {
                await fullBell.wait(after: full, for: limits.batchDelay, clock: clock)
            }
            if await flush(on: fanout, isWhole: false) {
                failures = 0
            } else {
                failures += 1
                await clock.sleep(for: .milliseconds(min(2000, 50 << min(failures, 6))))
            }
        }
    }

    /// Publishes what there is, in batches that are full, or at the end of the worker all of it.
    /// - Returns: false when the broker did not take it; it is kept then, as far as there is room.
    func flush(on fanout: any Fanout, isWhole: Bool = true) async -> Bool {
        repeat {
            let batch = takeBatch()
            guard !batch.isEmpty else { return true }
            var json = JSONWriter(reserving: 16 << 10)
            json.token("[")
            var count = 0
            for pending in batch {
                if json.bytes.count >= limits.batchBytes { break }
                if count > 0 { json.token(",") }
                if pending.isFirst {
                    writer.writeReceived(pending.event, clock: pending.clock, to: &json)
                    json.token(",")
                }
                writer.write(pending.event, clock: pending.clock, to: &json)
                count += 1
            }
            json.token("]")
            if count < batch.count { putBack(Array(batch[count...])) }
            if await send(json.bytes, on: fanout) == nil {
                putBack(Array(batch[..<count]))
                return false
            }
        } while state.withLock({ isWhole ? !$0.pending.isEmpty : $0.pending.count >= limits.batch })
        return true
    }

    private func takeBatch() -> [Pending] {
        state.withLock { state in
            let batch = Array(state.pending.prefix(limits.batch))
            state.pending.removeFirst(batch.count)
            state.bytes -= batch.reduce(0) { $0 + $1.size }
            return batch
        }
    }

    private func putBack(_ batch: [Pending]) {
        state.withLock { state in
            // What was switched off meanwhile is not told.
            guard state.isEnabled, !state.isAsleep else { return }
            var kept = batch
            state.bytes += batch.reduce(0) { $0 + $1.size }
            while state.bytes > limits.bufferedBytes, let last = kept.popLast() {
                state.bytes -= last.size
                state.dropped += 1
            }
            state.pending.insert(contentsOf: kept, at: 0)
        }
    }

    /// - Returns: whether somebody listens, as far as that is known; nil when the broker did not take the frame.
    private func send(_ array: [UInt8], on fanout: any Fanout) async -> Bool? {
        do {
            return note(heard: try await publish(array, key: "task.multi", on: fanout))
        } catch {
            return nil
        }
    }

    /// - Returns: how many heard it; nil where that is not known.
    private func publish(_ body: [UInt8], key: String, on fanout: any Fanout) async throws -> Int? {
        let frame = ControlFrame.encode(
            headers: ["hostname": .string(writer.node)], body: body, exchange: FleetEvent.exchange, key: key,
            isLasting: false)
        return try await fanout.send(frame, exchange: FleetEvent.exchange, key: key)
    }

    private func note(heard: Int?) -> Bool {
        let now = clock.uptime
        return state.withLock { state in
            let isHeard: Bool
            if let heard {
                isHeard = heard > 0
                if isHeard { state.lastHeard = now }
                state.isAsleep = !isHeard && now - state.lastHeard >= limits.patience.inMicroseconds
            } else {
                isHeard = mode == .always || now - state.lastAsked < limits.requestLasts.inMicroseconds
                state.isAsleep = !isHeard
            }
            if state.isAsleep { (state.pending, state.bytes, state.leftOut) = ([], 0, []) }
            let isTelling = state.isEnabled && !state.isAsleep
            wanted.store(Self.interests(isTelling: isTelling).rawValue, ordering: .relaxed)
            return isHeard
        }
    }

    /// Says that this worker has heard of an election.
    func acknowledge(election id: String, on fanout: any Fanout) async throws {
        var json = JSONWriter(reserving: 512)
        writer.writeElectionAck(id, at: clock.now, clock: time.tick(), to: &json)
        _ = try await publish(json.bytes, key: "worker.elect.ack", on: fanout)
    }

    /// Publishes an event of the worker itself.
    /// - Throws: what the broker throws.
    func tell(_ type: WorkerEventType, _ pulse: WorkerPulse, frequency: Duration, on fanout: any Fanout) async throws {
        var json = JSONWriter(reserving: 1024)
        writer.write(type.name, pulse, frequency: frequency, at: clock.now, clock: time.tick(), to: &json)
        _ = try await publish(json.bytes, key: type.key, on: fanout)
    }
}

/// The events of a worker itself.
enum WorkerEventType {
    case online, heartbeat, offline

    var name: StaticString {
        switch self {
        case .online: "worker-online"
        case .heartbeat: "worker-heartbeat"
        case .offline: "worker-offline"
        }
    }

    var key: String {
        switch self {
        case .online: "worker.online"
        case .heartbeat: "worker.heartbeat"
        case .offline: "worker.offline"
        }
    }
}

extension JobEvent {
    /// Bodies and outputs above this are not kept: they would only be shown cut.
    fileprivate static let largest = 64 << 10

    fileprivate var withoutPayload: JobEvent {
        var event = self
        switch kind {
        case .received(var delivery):
            guard var message = delivery.message else { return self }
            message.body = []
            delivery.payload = .message(message)
            event.kind = .received(delivery)
        case .sent(var message):
            message.body = []
            event.kind = .sent(message)
        case .ended(var end):
            end.outcome = .succeeded(output: [], retention: nil)
            event.kind = .ended(end)
        case .retried, .putBack, .started, .progressed, .wrote, .givenUp, .takenOver, .cancelAsked: break
        }
        return event
    }

    /// The bytes that are kept as long as the event is.
    fileprivate var payloadSize: Int {
        switch kind {
        case .received(let delivery):
            switch delivery.payload {
            case .message(let message): message.body.count
            case .envelope(let bytes): bytes.count
            }
        case .sent(let message): message.body.count
        case .ended(let end), .retried(let end), .putBack(let end):
            if case .succeeded(let output, _) = end.outcome { output.count } else { 0 }
        case .wrote(let lines): lines.reduce(0) { $0 + $1.text.utf8.count + 64 }
        case .started, .progressed, .givenUp, .takenOver, .cancelAsked: 0
        }
    }
}
