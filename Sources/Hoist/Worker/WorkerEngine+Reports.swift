#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// What a worker says of itself to those who ask from outside, and what they may change.
extension WorkerEngine {
    /// What `stats` tells.
    struct Report: Sendable {
        /// Seconds.
        var uptime: Int64
        var lanes: [WorkerStatus.LaneStatus]
        /// The children of the process lane, or this process.
        var processes: [Int]
        var processed: UInt64
        /// How many jobs of each kind were taken in.
        var totals: [String: UInt64]
        var widestLane: LaneKind?
        /// The range of the widest lane, where it has one.
        var autoscaled: ClosedRange<Int>?
        var hoist: WireValue.Object
        var namesake: String?
    }

    /// The lanes as they are, by name.
    var lanes: [WorkerStatus.LaneStatus] {
        machine.slots.capacity.map { lane, slots in
            WorkerStatus.LaneStatus(kind: lane, slots: slots, used: machine.slots.used(lane))
        }.sorted { $0.kind.name < $1.kind.name }
    }

    /// The lane with most slots.
    private var widestLane: LaneKind? { lanes.max { ($0.slots, $1.kind.name) < ($1.slots, $0.kind.name) }?.kind }

    private var facts: WireValue.Object {
        var members: WireValue.Object = [:]
        for lane in lanes {
            members[lane.kind.name] = [
                "slots": .integer(Int64(lane.slots)), "used": .integer(Int64(lane.used)),
            ]
        }
        return [
            "lanes": .object(members), "queues": .array(machine.queues.map { .string($0.name) }),
            "memory": .integer(Int64(MachineLoad.residentMemory)),
            "state": .string(machine.stop != nil ? "draining" : machine.isQuiet ? "quiet" : "working"),
        ]
    }

    var report: Report {
        let children = (children?.processes ?? []).map(Int.init).sorted()
        return Report(
            uptime: (backend.clock.uptime - startedUptime) / 1_000_000, lanes: lanes,
            processes: children.isEmpty ? [ProcessIdentity.id] : children, processed: machine.accepted,
            totals: acceptedByName, widestLane: widestLane, autoscaled: widestLane.flatMap { ranges[$0] }, hoist: facts,
            namesake: remote.confusion)
    }

    /// What a heartbeat tells.
    /// - Parameter all: whether the totals of all kinds of jobs are told, and not only of those that have changed.
    func pulse(all: Bool) -> WorkerPulse {
        var hoist = facts
        hoist["events_dropped"] = .integer(Int64(remote.eventsDropped))
        hoist["totals"] = remote.totals(all: all)
        return WorkerPulse(
            active: machine.runs.values.count { $0.hasBegun }, processed: machine.accepted, hoist: .object(hoist))
    }

    func knows(_ name: String) -> Bool { setup.handlers[name] != nil }

    /// The kinds of jobs, by name, with some of their settings behind.
    /// - Parameter items: the names of the settings, as Celery calls them.
    func handlerDescriptions(_ items: [String]) -> [String] {
        let wanted = items.isEmpty ? ["exchange", "routing_key", "rate_limit"] : items
        // As Celery's workers, without the tasks that every worker has.
        let handlers = setup.handlers.filter { !$0.key.hasPrefix("celery.") }
        return handlers.sorted { $0.key < $1.key }.map { name, handler in
            let settings = wanted.compactMap { item -> String? in
                let value: String? =
                    switch item {
                    case "name": name
                    case "rate_limit": rateTexts[name]
                    case "max_retries": String(handler.options.retry.maximumAttempts - 1)
                    case "ignore_result": handler.options.result.kind == .ignored ? "True" : "False"
                    case "serializer": "json"
                    case "queue": handler.options.queue
                    case "lane": handler.lane.name
                    case "time_limit": handler.options.runLimits.hardTime.map { "\($0.inSeconds)" }
                    case "soft_time_limit": handler.options.runLimits.time.map { "\($0.inSeconds)" }
                    default: nil
                    }
                return value.map { "\(item)=\($0)" }
            }
            return settings.isEmpty ? name : "\(name) [\(settings.joined(separator: " "))]"
        }
    }

    /// The jobs that the worker has, the oldest first.
    var heldJobs: [HeldJobView] {
        let processes = children?.processesByRun ?? [:]
        return machine.runs.sorted { $0.key < $1.key }.map { run, job in
            let shown = jobs[run]?.task.shown
            var view = HeldJobView(
                id: job.jobID, name: job.jobName, queue: job.queue, hasBegun: job.hasBegun,
                headers: shown?.context?.messageHeaders)
            // What is sealed stays so.
            view.arguments = shown?.message.flatMap { $0.isSealed ? nil : try? $0.decodedBody().arguments }
            if job.hasBegun {
                view.startedAt = shown?.startedAt ?? job.claimedAt
                view.processID = job.needs.lane == .process ? processes[run].map(Int.init) : ProcessIdentity.id
            }
            if let properties = shown?.context?.messageProperties {
                view.exchange = properties.exchange
                view.priority = properties.priority ?? 0
                view.isRedelivered = properties.isRedelivered
            }
            return view
        }
    }

    /// The running jobs that have stamps.
    var stampedJobs: [(id: JobID, headers: MessageHeaders)] {
        machine.runs.compactMap { run, job in
            guard let headers = jobs[run]?.task.shown.context?.messageHeaders, headers.stamps != .object([:]) else {
                return nil
            }
            return (job.jobID, headers)
        }
    }

    /// Gives back those of these jobs that have not begun: whoever claims them ends them as revoked.
    /// - Returns: those that run here.
    func giveBackNotBegun(_ ids: [JobID]) -> [JobID] {
        let wanted = Set(ids)
        let held = machine.runs.values.filter { wanted.contains($0.jobID) }
        for job in held where !job.hasBegun { machine.cancel(job.jobID, .requested, time) }
        perform()
        inbox.bell.ring()
        return held.filter(\.hasBegun).map(\.jobID)
    }

    /// The most slots that a request from outside may give a lane: each is a thread, or a process.
    private static func mostSlots(of lane: LaneKind) -> Int {
        switch lane {
        case .async: 10_000
        case .process: 256
        default: 1000
        }
    }

    /// Stops a job: in the process lane with a signal to its child, elsewhere by asking.
    /// - Returns: the lane; nil when the job is not here.
    func terminate(_ id: JobID, signal: Int32) -> LaneKind? {
        guard let (run, job) = machine.runs.first(where: { $0.value.jobID == id }) else { return nil }
        jobs[run]?.task.note(signal: signal)
        machine.cancel(id, .requested, time)
        perform()
        if job.needs.lane == .process { children?.send(signal, to: run) }
        inbox.bell.ring()
        return job.needs.lane
    }

    // MARK: - Changes

    /// - Parameter lane: nil for the one with most slots.
    /// - Returns: why nothing was changed; nil when it was.
    func resize(lane: LaneKind?, by count: Int) -> String? {
        guard let lane = lane ?? widestLane, let slots = machine.slots.capacity[lane] else {
            return "no handler of this worker runs in that lane"
        }
        guard ranges[lane] == nil else { return "autoscale" }
        guard slots + count >= 1 else { return "a lane has one slot at least, and the \(lane) lane has \(slots)" }
        let most = Self.mostSlots(of: lane)
        guard slots + count <= max(most, slots) else {
            return "the \(lane) lane may be given \(most) slots at most in this way"
        }
        resize(lane, to: slots + count)
        return nil
    }

    /// Gives a lane a range, or changes the one that it has.
    /// - Throws: ``ControlRefusal``
    func autoscale(lane: LaneKind?, most: Int?, least: Int?) throws(ControlRefusal) -> ClosedRange<Int> {
        guard let lane = lane ?? widestLane, let slots = machine.slots.capacity[lane] else {
            throw ControlRefusal("autoscale: no handler of this worker runs in that lane")
        }
        guard most != nil || least != nil else {
            throw ControlRefusal("autoscale: the arguments max and min are missing")
        }
        let old = ranges[lane] ?? slots...slots
        let lower = max(1, least ?? old.lowerBound)
        let upper = most ?? max(old.upperBound, lower)
        guard upper <= max(Self.mostSlots(of: lane), old.upperBound) else {
            throw ControlRefusal(
                "autoscale: the \(lane) lane may be given \(Self.mostSlots(of: lane)) slots at most in this way")
        }
        guard lower <= upper else { throw ControlRefusal("autoscale: the argument min is greater than max") }
        ranges[lane] = lower...upper
        if !(lower...upper).contains(slots) { resize(lane, to: slots.clamped(to: lower...upper)) }
        rangesBell.ring()
        return lower...upper
    }

    /// Has the children of the process lane replaced, each after its job.
    /// - Returns: false when there is no process lane.
    func replaceChildren() -> Bool {
        children?.replaceAll()
        return children != nil
    }

    /// - Returns: false when no handler has this name.
    func setRate(_ rate: StartRate?, of name: String) -> Bool {
        guard knows(name) else { return false }
        rateTexts[name] = rate?.text
        machine.setRate(rate, of: [name], time)
        inbox.bell.ring()
        return true
    }

    func setQuiet(_ isQuiet: Bool) {
        machine.setQuiet(isQuiet)
        inbox.bell.ring()
    }
}
