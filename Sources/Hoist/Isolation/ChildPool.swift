import Logging
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// The children of a worker's process lane, and the one thread that listens to them.
///
/// Children share no lock and no memory with the worker, and the worker never waits for a child: a child that fails or
/// hangs costs only itself and its job.
final class ChildPool: Sendable {
    typealias ChildID = ChildPoolMachine.ChildID
    typealias RunID = WorkerInbox.RunID

    /// How many requests of a child may wait for an answer at once.
    private static let mostRequests = 10_000

    /// A job in the lane, as the pool sees it.
    struct Job: Sendable {
        var call: IsolatedCall
        /// Called when a child has been given the job.
        var onBegin: @Sendable () -> Void
        /// Called at each sign of progress, with the progress that the job reported; nil for a sign alone.
        var onProgress: @Sendable (JobProgress?) -> Void
        var log: JobLogRecorder
        var onLog: @Sendable (LogLine) -> Void
        /// Performs a request of the handler on the backend.
        var onRequest: @Sendable (ChildRequest) async -> ChildReply
        /// Records that change, for a job that the handler follows.
        var follow: @Sendable (JobID) -> JobUpdates
        var onEnd: @Sendable (ChildPoolMachine.End) -> Void
    }

    private struct State {
        var machine: ChildPoolMachine
        var links: [ChildID: ChildLink] = [:]
        var jobs: [RunID: Job] = [:]
        /// Exits that other threads have reported, for the listening thread.
        var exits: [(child: ChildID, exit: Result<SpawnedProcess.Exit, SpawnError>)] = []
        var isListening = false
        var nextMeasureAt: Int64 = 0
        var nextGroupMeasureAt: Int64 = 0
        var isClosed = false
        var onClosed: [CheckedContinuation<Void, Never>] = []
    }

    private let program: SpawnedProcess.Program
    private let logger: Logger
    private let metrics: WorkerMetrics
    private let onUsable: @Sendable (Bool) -> Void
    private let wake: WakePipe
    private let state: Mutex<State>
    private let clock = SystemJobClock()

    init(
        program: SpawnedProcess.Program, settings: ChildPoolMachine.Settings, logger: Logger, metrics: WorkerMetrics,
        onUsable: @escaping @Sendable (Bool) -> Void
    ) {
        self.program = program
        self.logger = logger
        self.metrics = metrics
        self.onUsable = onUsable
        wake = WakePipe()
        state = Mutex(State(machine: ChildPoolMachine(settings)))
    }

    // MARK: - What the worker wants

    /// Sets the number of children. The first call starts the listening thread.
    func resize(to size: Int) {
        let mustListen = state.withLock { state in
            defer { state.isListening = true }
            return !state.isListening
        }
        if mustListen { startThread(named: "hoist-children") { self.listen() } }
        change { $0.resize(to: size, now: $1) }
    }

    func start(_ job: Job) {
        change(registering: job) { $0.start(job.call.run, job.call.limits, now: $1) }
    }

    func cancel(_ run: RunID, _ reason: JobContext.CancellationReason) { change { $0.cancel(run, reason, now: $1) } }

    /// Ends all children. Returns when they are gone, or 2 seconds later. A call after that does nothing.
    func close() async {
        if state.withLock({ $0.isClosed }) { return }
        change { $0.close(now: $1) }
        let timer = clock.schedule(after: .seconds(2)) { self.finishClosing() }
        await withCheckedContinuation { continuation in
            let isOver = state.withLock { state in
                if state.isClosed || !state.isListening { return true }
                state.onClosed.append(continuation)
                return false
            }
            if isOver { continuation.resume() }
            wake.ring()
        }
        timer.cancel()
    }

    private func finishClosing() {
        let waiters = state.withLock { state in
            state.isClosed = true
            defer { state.onClosed.removeAll() }
            return state.onClosed
        }
        for waiter in waiters { waiter.resume() }
        wake.ring()
    }

    /// Has each child replaced after the job that it has.
    func replaceAll() { change { $0.replaceAll(now: $1) } }

    /// Sends a signal to the child that performs a job, and to no other.
    func send(_ signal: Int32, to run: RunID) {
        state.withLock { state in
            state.links.first { state.machine.run(of: $0.key) == run }?.value.process.signalGroup(signal)
        }
    }

    /// The processes that perform jobs, by run.
    var processesByRun: [RunID: pid_t] {
        state.withLock { state in
            state.links.reduce(into: [:]) { found, link in
                if let run = state.machine.run(of: link.key) { found[run] = link.value.process.id }
            }
        }
    }

    /// The ids of the children's processes.
    var processes: [pid_t] { state.withLock { $0.links.values.compactMap { $0.process.id } } }

    // MARK: - Doing what the machine says

    /// An action for after the release of the lock: it calls into other parts of the program.
    private typealias Effect = @Sendable () -> Void

    private func change(
        registering job: Job? = nil, _ body: (inout ChildPoolMachine, _ now: Int64) -> [ChildPoolMachine.Action]
    ) {
        let now = clock.uptime
        let effects = state.withLock { state in
            if let job { state.jobs[job.call.run] = job }
            let deadline = state.machine.nextDeadline()
            let actions = body(&state.machine, now)
            var effects = perform(actions, &state)
            // The listening thread sleeps until the deadline that it knows.
            if let next = state.machine.nextDeadline(), next < deadline ?? .max { effects.append(wake.ring) }
            return effects
        }
        for effect in effects { effect() }
    }

    private func perform(_ actions: [ChildPoolMachine.Action], _ state: inout State) -> [Effect] {
        var effects: [Effect] = []
        for action in actions {
            switch action {
            case .spawn(let id): spawn(id, &state)
            case .perform(let id, let run):
                guard let link = state.links[id], let job = state.jobs[run] else { continue }
                link.log = job.log
                guard link.send(.perform(job.call)) else {
                    link.log = nil
                    effects += perform(state.machine.undelivered(id, run, now: clock.uptime), &state)
                    continue
                }
                effects.append(job.onBegin)
                // The listening thread may sleep for long, and must measure the memory of this job.
                if link.hasBacklog || job.call.limits.memory != nil || state.machine.busyCount == 1 {
                    effects.append(wake.ring)
                }
            case .cancel(let id, let run, let reason):
                state.links[id]?.send(.cancel(run, reason))
                if state.links[id]?.hasBacklog == true { effects.append(wake.ring) }
            case .askToEnd(let id): state.links[id]?.send(.stop)
            case .terminate(let id): state.links[id]?.process.signalGroup(SIGTERM)
            case .kill(let id): state.links[id]?.process.signalGroup(SIGKILL)
            case .end(let run, let id, let end):
                guard let job = state.jobs.removeValue(forKey: run) else { continue }
                if let link = id.flatMap({ state.links[$0] }) {
                    // Output that the job wrote before the child reported its end.
                    link.readOutput(to: job.log)
                    link.forgetJob()
                    if link.hasLostOutput, let id {
                        effects += perform(state.machine.noteWear(id, now: clock.uptime), &state)
                    }
                }
                effects.append { job.onEnd(end) }
            case .becomeUsable(let isUsable):
                effects.append { [onUsable] in onUsable(isUsable) }
            }
        }
        return effects
    }

    private func spawn(_ id: ChildID, _ state: inout State) {
        guard let ends = ChildLink.makeEnds() else {
            logger.error("no child process can be started: too many files are open", metadata: ["error": "\(errno)"])
            state.exits.append((id, .success(.init(status: 1))))
            return wake.ring()
        }
        let process = SpawnedProcess(
            program, descriptors: [nil, ends.output.write, ends.error.write, ends.channel.write]
        ) {
            [weak self] exit in
            self?.state.withLock { $0.exits.append((id, exit)) }
            self?.wake.ring()
        }
        state.links[id] = ChildLink(
            process, channel: ends.channel.read, output: ends.output.read, error: ends.error.read)
    }

    // MARK: - Listening

    private func listen() {
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let now = clock.uptime
            let (effects, exits) = state.withLock { state in
                defer { state.exits.removeAll() }
                return (perform(state.machine.tick(now: now), &state), state.exits)
            }
            for effect in effects { effect() }
            for (id, exit) in exits {
                // A result that the child sent before it died counts.
                state.withLock { $0.machine.gone(id) }
                takeFrames(of: id, &buffer)
                for effect in state.withLock({ state in exited(id, exit, &state, now) }) { effect() }
            }
            measure(now)
            let isOver = state.withLock { state in state.machine.isEmpty && (state.isClosed || !state.onClosed.isEmpty)
            }
            if isOver {
                finishClosing()
                return
            }
            var polled = state.withLock { state in pollSet(state) }
            let timeout = state.withLock { state in milliseconds(untilNext: state, now: clock.uptime) }
            guard poll(&polled.descriptors, nfds_t(polled.descriptors.count), timeout) > 0 else { continue }
            if polled.descriptors[0].revents != 0 { wake.clear() }
            for (index, source) in polled.sources.enumerated() where polled.descriptors[index + 1].revents != 0 {
                let events = Int32(polled.descriptors[index + 1].revents)
                if source.kind == .channel {
                    if events & POLLOUT != 0 { state.withLock { state in _ = state.links[source.child]?.flush() } }
                    if events & ~POLLOUT != 0 { takeFrames(of: source.child, &buffer) }
                } else {
                    for effect in state.withLock({ state in takeOutput(source, &state, &buffer) }) { effect() }
                }
            }
        }
    }

    private struct Source {
        enum Kind { case channel, output, error }
        var child: ChildID
        var kind: Kind
    }

    private func pollSet(_ state: State) -> (descriptors: [pollfd], sources: [Source]) {
        var descriptors = [pollfd(fd: wake.readEnd, events: Int16(POLLIN), revents: 0)]
        var sources: [Source] = []
        for (id, link) in state.links {
            func add(_ kind: Source.Kind, _ descriptor: Int32?, _ events: Int32) {
                guard let descriptor else { return }
                descriptors.append(pollfd(fd: descriptor, events: Int16(events), revents: 0))
                sources.append(Source(child: id, kind: kind))
            }
            add(.channel, link.channel, POLLIN | (link.hasBacklog ? POLLOUT : 0))
            add(.output, link.output, POLLIN)
            add(.error, link.error, POLLIN)
        }
        return (descriptors, sources)
    }

    private func milliseconds(untilNext state: State, now: Int64) -> Int32 {
        var next = state.machine.nextDeadline()
        if !state.machine.measurable(now: now).isEmpty { next = min(next ?? .max, state.nextMeasureAt) }
        // A busy child becomes worth a measurement after 100 milliseconds.
        if state.machine.busyCount > 0 { next = min(next ?? .max, now + 100_000) }
        guard let next else { return -1 }
        return Int32(clamping: max(0, (next - now + 999) / 1000))
    }

    private func takeOutput(_ source: Source, _ state: inout State, _ buffer: inout [UInt8]) -> [Effect] {
        guard let link = state.links[source.child] else { return [] }
        let now = clock.uptime
        if source.kind == .output {
            link.output = link.take(link.output, source: "output", &buffer)
        } else {
            link.error = link.take(link.error, source: "error", &buffer)
        }
        if link.hasLostOutput { return perform(state.machine.noteWear(source.child, now: now), &state) }
        return link.takeFatalSignal().map { perform(state.machine.crashes(source.child, $0, now: now), &state) } ?? []
    }

    /// Receives the frames of a child. They are read and decoded outside of the lock, which the worker's own thread
    /// takes as well: only this thread receives.
    private func takeFrames(of id: ChildID, _ buffer: inout [UInt8]) {
        guard let link = state.withLock({ state in state.links[id].map(Unchecked.init) })?.value, link.channel != nil
        else { return }
        let isOpen = link.receive(&buffer)
        var problem: String?
        do throws(WireError) {
            while let frame = try link.nextFrame() {
                let report = try ChildReport(frame)
                let effects = state.withLock { state in take(report, of: id, &state, clock.uptime) }
                for effect in effects { effect() }
            }
        } catch {
            problem = "it wrote what is no message: \(error.message)"
        }
        guard problem != nil || !isOpen else { return }
        let effects = state.withLock { state in
            state.links[id]?.closeChannel()
            let now = clock.uptime
            return perform(
                problem.map { state.machine.broke(id, $0, now: now) } ?? state.machine.closedChannel(id, now: now),
                &state)
        }
        for effect in effects { effect() }
    }

    /// Carries a link out of the lock. Proof: outside of the lock only the received bytes are touched, only by the
    /// listening thread, and only that thread closes descriptors.
    private struct Unchecked: @unchecked Sendable {
        let value: ChildLink
    }

    private func take(
        _ report: ChildReport, of id: ChildID, _ state: inout State, _ now: Int64
    ) -> [Effect] {
        guard let link = state.links[id] else { return [] }
        /// The job of a run, if it is the current run of this child.
        func job(_ run: RunID) -> Job? { state.machine.run(of: id) == run ? state.jobs[run] : nil }
        switch report {
        case .ready:
            let milliseconds = Double(now - (state.machine.start(of: id) ?? now)) / 1000
            let process = link.process.id ?? 0
            return perform(state.machine.becameReady(id, now: now), &state) + [
                { [logger] in
                    logger.debug(
                        "a child process is ready",
                        metadata: ["process": "\(process)", "milliseconds": "\(milliseconds)"])
                }
            ]
        case .finished(let result): return perform(state.machine.finished(id, result, now: now), &state)
        case .progress(let run, let progress):
            guard let job = job(run) else { return [] }
            link.isCrashing = false
            state.machine.signed(id, run, now: now)
            return [{ job.onProgress(progress) }]
        case .sign(let run):
            guard let job = job(run) else { return [] }
            link.isCrashing = false
            state.machine.signed(id, run, now: now)
            return [{ job.onProgress(nil) }]
        case .log(let run, let line):
            guard let job = job(run) else { return [] }
            return [{ job.onLog(line) }]
        case .request(let request, let what):
            guard let job = state.machine.run(of: id).flatMap({ state.jobs[$0] }) else {
                link.send(
                    .reply(
                        request,
                        .failed(BackendError(.misuse, "a child speaks to the backend only while it performs a job"))))
                return []
            }
            if case .unwatch = what {
            } else if link.requests[request] != nil {
                return perform(state.machine.broke(id, "it asks twice with one number", now: now), &state)
            } else if link.requests.count >= Self.mostRequests {
                let error = BackendError(
                    .misuse, "a job may wait for \(Self.mostRequests) answers at once, and this one waits for more")
                link.send(.reply(request, .failed(error)))
                return []
            }
            return answer(request, what, of: id, link, job)
        }
    }

    private func answer(_ request: ChildRequest.ID, _ what: ChildRequest, of id: ChildID, _ link: ChildLink, _ job: Job)
        -> [Effect]
    {
        switch what {
        case .unwatch(let watched):
            link.cancelRequest(watched)
            return []
        case .watch(let jobID):
            begin(request, of: link) { [weak self] in
                do {
                    for try await record in job.follow(jobID) { self?.send(.update(request, record), to: id) }
                } catch {}
                self?.send(.update(request, nil), to: id, answering: request)
            }
        default:
            begin(request, of: link) { [weak self] in
                let reply = await job.onRequest(what)
                self?.send(.reply(request, reply), to: id, answering: request)
            }
        }
        return []
    }

    /// Works on a request of a child. A task of its own, for the caller is the thread that hears all children; it ends
    /// with the child.
    private func begin(
        _ request: ChildRequest.ID, of link: ChildLink, _ body: @escaping @Sendable () async -> Void
    ) {
        link.requests[request] = Task { await body() }
    }

    private func send(_ command: ChildCommand, to id: ChildID, answering request: ChildRequest.ID? = nil) {
        let effects = state.withLock { state -> [Effect] in
            guard let link = state.links[id], !Task.isCancelled else { return [] }
            if let request { link.requests[request] = nil }
            link.send(command)
            // The child sends requests, but does not read the replies.
            if link.backlog > Frame.maximumBytes {
                return perform(state.machine.broke(id, "it does not take what it asked for", now: clock.uptime), &state)
                    + [wake.ring]
            }
            return link.hasBacklog ? [wake.ring] : []
        }
        for effect in effects { effect() }
    }

    private func exited(
        _ id: ChildID, _ exit: Result<SpawnedProcess.Exit, SpawnError>, _ state: inout State, _ now: Int64
    ) -> [Effect] {
        var effects: [Effect] = []
        if let link = state.links[id] {
            link.readOutput(to: nil)
            if link.log == nil, !link.strayOutput.isEmpty {
                let output = link.strayOutput.suffix(20).joined(separator: "\n")
                effects.append { [logger] in
                    logger.info("a child process wrote while it had no job", metadata: ["output": "\(output)"])
                }
            }
        }
        switch exit {
        case .success(let exit): effects += perform(state.machine.exited(id, exit, now: now), &state)
        case .failure(let error):
            effects.append { [logger] in
                logger.error("a child process could not be started", metadata: ["error": "\(error)"])
            }
            effects += perform(state.machine.exited(id, .init(status: 127), now: now), &state)
        }
        state.links.removeValue(forKey: id)?.close()
        return effects
    }

    // MARK: - Memory

    /// Measures the memory of children, outside of the lock: reading `/proc` takes time.
    private func measure(_ now: Int64) {
        typealias Subject = (id: ChildID, run: RunID, process: pid_t, isLimited: Bool)
        let (children, looksAtGroups) = state.withLock { state -> ([Subject], Bool) in
            guard now >= state.nextMeasureAt else { return ([], false) }
            let children = state.machine.measurable(now: now).compactMap { child -> Subject? in
                state.links[child.id]?.process.id.map { (child.id, child.run, $0, child.isLimited) }
            }
            guard !children.isEmpty else { return ([], false) }
            let isAnyLimited = children.contains(where: \.isLimited)
            state.nextMeasureAt = now + (isAnyLimited ? 50_000 : 500_000)
            guard isAnyLimited, now >= state.nextGroupMeasureAt else { return (children, false) }
            state.nextGroupMeasureAt = now + 500_000
            return (children, true)
        }
        guard !children.isEmpty else { return }
        let groups =
            looksAtGroups ? ProcessTable.memory(ofGroups: Set(children.filter(\.isLimited).map(\.process))) : [:]
        let found = children.map { ($0.id, $0.run, groups[$0.process] ?? ProcessTable.heldMemory(of: $0.process)) }
        let effects = state.withLock { state in
            found.flatMap { id, run, memory in
                perform(state.machine.measured(id, run, memory: memory, now: now), &state)
            }
        }
        for effect in effects { effect() }
    }
}
