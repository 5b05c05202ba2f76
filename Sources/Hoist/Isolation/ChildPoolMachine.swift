/// Decides what happens to the children of a process lane and to the jobs that they have. Pure: it starts, sends and
/// kills nothing itself, and time is an argument, in microseconds of uptime.
struct ChildPoolMachine {
    typealias ChildID = UInt64
    typealias RunID = WorkerInbox.RunID

    struct Settings {
        /// From asking to stop to stopping by force, and from SIGTERM to SIGKILL.
        var grace: Int64
        var startTimeout: Int64
        var recycleAfterJobs: Int?
        var recycleAboveMemory: Int?
        var recycleAfterAge: Int64?
    }

    /// Why a child is stopped with its job.
    enum Verdict: Equatable {
        case timedOut, stuck
        /// The child's runtime has caught this signal, and has some time for a backtrace.
        case crashed(Int32)
        case memoryExceeded(Int)
        /// The job did not stop when it was asked to for this reason. A job whose lease is lost is stopped unasked.
        case ignoredCancellation(JobContext.CancellationReason)
        /// The child violated the protocol or did not get ready; the text says how.
        case broken(String)
        /// It has closed its channel, and lives.
        case mute

        var isCrash: Bool { if case .crashed = self { true } else { false } }
    }

    /// How a run ended.
    enum End {
        case finished(IsolatedResult)
        case died(Verdict?, SpawnedProcess.Exit, peakMemory: Int, cpu: Int64, wall: Int64)
        /// No child could be started.
        case notStarted
    }

    enum Action {
        case spawn(ChildID)
        case perform(ChildID, RunID)
        case cancel(ChildID, RunID, JobContext.CancellationReason)
        /// Ask a child that has no job to end.
        case askToEnd(ChildID)
        case terminate(ChildID)
        case kill(ChildID)
        case end(RunID, ChildID?, End)
        /// Whether jobs can be started; told when it changes.
        case becomeUsable(Bool)
    }

    private struct Run {
        var id: RunID
        var limits: RunLimits
        var startedAt: Int64
        var lastSign: Int64
        /// The memory that the child held when the run began: left by earlier jobs.
        var memoryBefore: Int
        var peakMemory = 0
        /// When a requested cancellation is enforced, and why.
        var force: (at: Int64, reason: JobContext.CancellationReason)?
    }

    private enum Phase {
        case starting
        case idle
        case busy(Run)
        /// The child is ending, with the job that it had. It is killed at `killAt`, which is nil when it was killed
        /// already.
        case ending(Run?, Verdict?, killAt: Int64?)
    }

    private struct Child {
        var phase: Phase
        var startedAt: Int64
        var jobs = 0
        /// Processor time that its finished jobs have used.
        var cpu: Int64 = 0
        /// The memory that the child held after its last job, in bytes.
        var memory = 0
        /// The child has died, and its last frames are being read.
        var isGone = false
        /// It is to be replaced after its job.
        var isWorn = false

        var run: Run? {
            switch phase {
            case .busy(let run): run
            case .ending(let run, _, _): run
            case .starting, .idle: nil
            }
        }
    }

    /// How long a backtrace may take: for a large program without optimizations it takes a few seconds.
    private static let backtraceTime: Int64 = 10_000_000

    /// How long a process may live after its channel has closed.
    private static let dyingTime: Int64 = 200_000

    /// How long a job that was claimed ahead may wait for a child.
    private static let patience: Int64 = 50_000

    private var settings: Settings
    private var children: [ChildID: Child] = [:]
    /// The child that was used last is at the end, and is used next.
    private var idle: [ChildID] = []
    private var waiting: [(id: RunID, limits: RunLimits, since: Int64)] = []
    private(set) var size = 0
    private var nextChild: ChildID = 0
    private var failedStarts = 0
    private var mayStartAt: Int64 = 0
    private var isUsable = true
    private var isClosed = false

    init(_ settings: Settings) { self.settings = settings }

    // MARK: - What the worker wants

    mutating func resize(to newSize: Int, now: Int64) -> [Action] {
        size = max(0, newSize)
        var actions: [Action] = []
        while living > size, let child = idle.first { actions += askToEnd(child, now: now) }
        return actions + fillUp(now: now)
    }

    mutating func start(_ run: RunID, _ limits: RunLimits, now: Int64) -> [Action] {
        // No child can be started: another worker has to take the job.
        if !isUsable, idle.isEmpty { return [.end(run, nil, .notStarted)] }
        waiting.append((run, limits, now))
        return fillUp(now: now) + assign(now: now)
    }

    mutating func cancel(_ run: RunID, _ reason: JobContext.CancellationReason, now: Int64) -> [Action] {
        if let index = waiting.firstIndex(where: { $0.id == run }) {
            waiting.remove(at: index)
            return [.end(run, nil, .notStarted)]
        }
        for (id, child) in children {
            guard case .busy(var job) = child.phase, job.id == run else { continue }
            // Another worker has the job by now.
            if reason == .leaseLost { return stop(id, .ignoredCancellation(reason), now: now) }
            if job.force == nil { job.force = (now + settings.grace, reason) }
            children[id]?.phase = .busy(job)
            return [.cancel(id, run, reason)]
        }
        return []
    }

    /// Replaces each child, those with a job after that job.
    mutating func replaceAll(now: Int64) -> [Action] {
        for id in children.keys { children[id]?.isWorn = true }
        var actions: [Action] = []
        for id in idle { actions += askToEnd(id, now: now) }
        return actions + fillUp(now: now)
    }

    /// Ends all children: idle children may tidy up, within a second at most; all others are killed at once.
    mutating func close(now: Int64) -> [Action] {
        isClosed = true
        size = 0
        defer { waiting.removeAll() }
        var actions: [Action] = waiting.map { .end($0.id, nil, .notStarted) }
        for id in children.keys.sorted() {
            if case .idle? = children[id]?.phase {
                idle.removeAll { $0 == id }
                children[id]?.phase = .ending(nil, nil, killAt: now + min(settings.grace, 1_000_000))
                actions.append(.askToEnd(id))
            } else {
                actions.append(.kill(id))
            }
        }
        return actions
    }

    var isEmpty: Bool { children.isEmpty }

    // MARK: - What children do

    mutating func becameReady(_ id: ChildID, now: Int64) -> [Action] {
        guard case .starting? = children[id]?.phase else {
            return stop(id, .broken("it said twice that it is ready"), now: now)
        }
        failedStarts = 0
        children[id]?.phase = .idle
        idle.append(id)
        var actions: [Action] = []
        if !isUsable {
            isUsable = true
            actions.append(.becomeUsable(true))
        }
        if living > size { actions += askToEnd(id, now: now) }
        return actions + assign(now: now)
    }

    mutating func finished(_ id: ChildID, _ result: IsolatedResult, now: Int64) -> [Action] {
        guard var child = children[id], let run = child.run, run.id == result.run else {
            return stop(id, .broken("it finished what it was not given"), now: now)
        }
        var result = result
        result.peakMemory = result.peakMemory.map { max($0, run.peakMemory) } ?? run.peakMemory
        var actions: [Action] = [.end(run.id, id, .finished(result))]
        child.jobs += 1
        child.cpu += result.cpu
        child.memory = result.memory
        let isWorn =
            child.isWorn || result.hasDescendants || settings.recycleAfterJobs.map { child.jobs >= $0 } ?? false
            || settings.recycleAboveMemory.map { result.memory >= $0 } ?? false
        if case .ending(_, let verdict, _) = child.phase, !(verdict?.isCrash ?? false) {
            // The job finished in time, but the child's group was told to end: the child takes no more jobs.
            child.phase = .ending(nil, nil, killAt: nil)
            children[id] = child
            return actions + [.kill(id)]
        }
        child.phase = .idle
        children[id] = child
        if child.isGone { return actions }
        idle.append(id)
        if isWorn || living > size || isTooOld(child, now: now) { actions += askToEnd(id, now: now) + fillUp(now: now) }
        return actions + assign(now: now)
    }

    /// A sign of progress.
    mutating func signed(_ id: ChildID, _ run: RunID, now: Int64) {
        guard var job = children[id]?.run, job.id == run else { return }
        job.lastSign = now
        switch children[id]?.phase {
        case .busy?: children[id]?.phase = .busy(job)
        // The crash was that of a program that the job had started, whose runtime wrote the message.
        case .ending(_, .crashed?, _)?: children[id]?.phase = .busy(job)
        default: break
        }
    }

    /// The child sends nothing more. Mostly it has died, and its exit is reported in a moment.
    mutating func closedChannel(_ id: ChildID, now: Int64) -> [Action] {
        guard let child = children[id] else { return [] }
        switch child.phase {
        case .starting, .ending: return []
        case .idle:
            idle.removeAll { $0 == id }
            children[id]?.phase = .ending(nil, nil, killAt: now + Self.dyingTime)
            return isYoung(child, now: now) ? startFailed(now: now) : []
        case .busy(let run):
            children[id]?.phase = .ending(run, nil, killAt: now + Self.dyingTime)
            return []
        }
    }

    mutating func broke(_ id: ChildID, _ what: String, now: Int64) -> [Action] { stop(id, .broken(what), now: now) }

    mutating func crashes(_ id: ChildID, _ signal: Int32, now: Int64) -> [Action] {
        stop(id, .crashed(signal), now: now)
    }

    /// The child and the processes it started held this memory during this run, in bytes.
    mutating func measured(_ id: ChildID, _ run: RunID, memory: Int, now: Int64) -> [Action] {
        guard case .busy(var job)? = children[id]?.phase, job.id == run else { return [] }
        job.peakMemory = max(job.peakMemory, memory)
        children[id]?.phase = .busy(job)
        let own = memory - job.memoryBefore
        guard let limit = job.limits.memory?.bytes, own > limit else { return [] }
        return stop(id, .memoryExceeded(own), now: now)
    }

    /// The channel did not take the job: the child was dead before.
    mutating func undelivered(_ id: ChildID, _ run: RunID, now: Int64) -> [Action] {
        guard case .busy(let job)? = children[id]?.phase, job.id == run else { return [] }
        children[id]?.phase = .ending(nil, nil, killAt: now + Self.dyingTime)
        waiting.insert((run, job.limits, job.startedAt), at: 0)
        return fillUp(now: now) + assign(now: now)
    }

    /// The child has died: what is read from it now was sent before its death.
    mutating func gone(_ id: ChildID) {
        idle.removeAll { $0 == id }
        children[id]?.isGone = true
    }

    /// The child has lost something that jobs need, and takes no more jobs after the current one.
    mutating func noteWear(_ id: ChildID, now: Int64) -> [Action] {
        guard case .idle? = children[id]?.phase else {
            children[id]?.isWorn = true
            return []
        }
        let failure = children[id].map { isYoung($0, now: now) } ?? false ? startFailed(now: now) : []
        return failure + askToEnd(id, now: now) + fillUp(now: now)
    }

    mutating func exited(_ id: ChildID, _ exit: SpawnedProcess.Exit, now: Int64) -> [Action] {
        guard let child = children.removeValue(forKey: id) else { return [] }
        idle.removeAll { $0 == id }
        var actions: [Action] = []
        let cpu = max(0, exit.cpu - child.cpu)
        switch child.phase {
        case .starting, .idle: if isYoung(child, now: now) { actions += startFailed(now: now) }
        case .busy(let run):
            actions.append(
                .end(run.id, id, .died(nil, exit, peakMemory: run.peakMemory, cpu: cpu, wall: now - run.startedAt)))
        case .ending(let run?, var verdict, _):
            // The child was dead already when it counted as mute.
            if verdict == .mute, exit.signal != 9 { verdict = nil }
            actions.append(
                .end(run.id, id, .died(verdict, exit, peakMemory: run.peakMemory, cpu: cpu, wall: now - run.startedAt)))
        case .ending(nil, _, _): break
        }
        return actions + fillUp(now: now) + assign(now: now)
    }

    // MARK: - Time

    /// Does what is due.
    mutating func tick(now: Int64) -> [Action] {
        var actions: [Action] = []
        for (id, child) in children {
            switch child.phase {
            case .starting:
                if now >= child.startedAt + settings.startTimeout {
                    actions += stop(id, .broken("it did not get ready"), now: now)
                }
            case .idle:
                if isTooOld(child, now: now) { actions += askToEnd(id, now: now) }
            case .busy(let run):
                if let limit = run.limits.hardTime, now >= run.startedAt + limit.inMicroseconds {
                    actions += [.cancel(id, run.id, .timeLimit)] + stop(id, .timedOut, now: now)
                } else if let force = run.force, now >= force.at {
                    actions += stop(id, .ignoredCancellation(force.reason), now: now)
                } else if let limit = run.limits.heartbeat, now >= run.lastSign + limit.inMicroseconds + settings.grace
                {
                    actions += stop(id, .stuck, now: now)
                }
            case .ending(let run, let verdict, let killAt?):
                guard now >= killAt else { continue }
                // The child lives, but its channel is closed.
                let verdict = run != nil ? verdict ?? .mute : verdict
                children[id]?.phase = .ending(run, verdict, killAt: nil)
                actions.append(.kill(id))
            case .ending: break
            }
        }
        return actions + giveBack(now: now) + fillUp(now: now) + assign(now: now)
    }

    /// The number of waiting jobs that exceeds the places without a job.
    private var surplus: Int { max(0, waiting.count - max(0, size - children.values.count { $0.run != nil })) }

    /// Gives back jobs that were claimed ahead and wait too long behind other jobs: another worker may have time for
    /// them.
    private mutating func giveBack(now: Int64) -> [Action] {
        let count = surplus
        guard count > 0, now >= waiting[waiting.count - count].since + Self.patience else { return [] }
        let given = waiting.suffix(count)
        waiting.removeLast(count)
        return given.map { .end($0.id, nil, .notStarted) }
    }

    /// The time of the next action that is due; nil when none is pending.
    func nextDeadline() -> Int64? {
        var next: Int64?
        func note(_ time: Int64) { next = min(next ?? time, time) }
        for child in children.values {
            switch child.phase {
            case .starting: note(child.startedAt + settings.startTimeout)
            case .idle: if let age = settings.recycleAfterAge { note(child.startedAt + age) }
            case .busy(let run):
                if let limit = run.limits.hardTime { note(run.startedAt + limit.inMicroseconds) }
                if let force = run.force { note(force.at) }
                if let limit = run.limits.heartbeat { note(run.lastSign + limit.inMicroseconds + settings.grace) }
            case .ending(_, _, let killAt): if let killAt { note(killAt) }
            }
        }
        if missing > 0 { note(mayStartAt) }
        if surplus > 0 { note(waiting[waiting.count - surplus].since + Self.patience) }
        return next
    }

    /// The children whose memory is worth a measurement, and whether their job has a memory limit.
    func measurable(now: Int64) -> [(id: ChildID, run: RunID, isLimited: Bool)] {
        children.compactMap { id, child in
            guard case .busy(let run) = child.phase, run.limits.memory != nil || now - run.startedAt > 100_000 else {
                return nil
            }
            return (id, run.id, run.limits.memory != nil)
        }
    }

    /// When a child was started.
    func start(of id: ChildID) -> Int64? { children[id]?.startedAt }

    /// The run that a child has, in whatever state.
    func run(of id: ChildID) -> RunID? { children[id]?.run?.id }

    var busyCount: Int { children.values.count { if case .busy = $0.phase { true } else { false } } }

    // MARK: - Steps

    /// The number of children that take jobs now or will.
    private var living: Int { children.values.count { if case .ending = $0.phase { false } else { true } } }

    private mutating func fillUp(now: Int64) -> [Action] {
        guard missing > 0, now >= mayStartAt else { return [] }
        var actions: [Action] = []
        for _ in 0..<missing {
            nextChild += 1
            children[nextChild] = Child(phase: .starting, startedAt: now)
            actions.append(.spawn(nextChild))
        }
        return actions
    }

    /// The number of children to start. After a failed start it is one at a time, until a child gets ready.
    private var missing: Int {
        guard !isClosed else { return 0 }
        return failedStarts > 0 ? (startingCount == 0 && living < size ? 1 : 0) : max(0, size - living)
    }

    private var startingCount: Int { children.values.count { if case .starting = $0.phase { true } else { false } } }

    private mutating func assign(now: Int64) -> [Action] {
        var actions: [Action] = []
        while !waiting.isEmpty, let child = idle.popLast() {
            let (run, limits, _) = waiting.removeFirst()
            let memory = children[child]?.memory ?? 0
            children[child]?.phase = .busy(
                Run(id: run, limits: limits, startedAt: now, lastSign: now, memoryBefore: memory))
            actions.append(.perform(child, run))
        }
        return actions
    }

    private mutating func startFailed(now: Int64) -> [Action] {
        guard !isClosed else { return [] }
        failedStarts += 1
        mayStartAt = now + min(30_000_000, 100_000 << min(Int64(failedStarts), 9))
        guard failedStarts >= 3 else { return [] }
        defer {
            waiting.removeAll()
            isUsable = false
        }
        return (isUsable ? [.becomeUsable(false)] : []) + waiting.map { .end($0.id, nil, .notStarted) }
    }

    private mutating func askToEnd(_ id: ChildID, now: Int64) -> [Action] {
        idle.removeAll { $0 == id }
        children[id]?.phase = .ending(nil, nil, killAt: now + settings.grace)
        return [.askToEnd(id)]
    }

    /// Stops a child with the job that it has.
    private mutating func stop(_ id: ChildID, _ verdict: Verdict, now: Int64) -> [Action] {
        guard let child = children[id] else { return [] }
        idle.removeAll { $0 == id }
        switch child.phase {
        case .ending: return []
        case .starting, .idle:
            if case .crashed = verdict {
                children[id]?.phase = .ending(nil, verdict, killAt: now + Self.backtraceTime)
                return isYoung(child, now: now) ? startFailed(now: now) : []
            }
            children[id]?.phase = .ending(nil, verdict, killAt: nil)
            return [.kill(id)] + (isYoung(child, now: now) ? startFailed(now: now) : [])
        case .busy(let run):
            switch verdict {
            case .memoryExceeded, .broken, .mute, .ignoredCancellation(.leaseLost):
                // There is nothing to wait for: every moment makes it worse.
                children[id]?.phase = .ending(run, verdict, killAt: nil)
                return [.kill(id)]
            case .crashed:
                children[id]?.phase = .ending(run, verdict, killAt: now + Self.backtraceTime)
                return []
            case .timedOut, .stuck, .ignoredCancellation:
                children[id]?.phase = .ending(run, verdict, killAt: now + settings.grace)
                return [.terminate(id)]
            }
        }
    }

    /// A child that dies before it has done anything, or as soon as it is ready, must not be started again and again
    /// without a delay.
    private func isYoung(_ child: Child, now: Int64) -> Bool {
        switch child.phase {
        case .starting: true
        case .idle: child.jobs == 0 && now - child.startedAt < 1_000_000
        case .busy, .ending: false
        }
    }

    private func isTooOld(_ child: Child, now: Int64) -> Bool {
        settings.recycleAfterAge.map { now >= child.startedAt + $0 } ?? false
    }
}
