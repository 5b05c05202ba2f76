import Logging
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// The children of a worker's process lane, and the one thread that listens to them.
///
/// Children share no lock and no memory with the worker, and the worker never waits for one: whatever a child does, or does not do any more,
/// it can only cost itself and its job.
final class ChildPool: Sendable {
    typealias ChildID = ChildPoolMachine.ChildID
    typealias RunID = WorkerInbox.RunID

    /// A job in the lane, as the pool sees it.
    struct Job: Sendable {
        var call: IsolatedCall
        /// A sign of life or progress came, with what there was to say.
        var onProgress: @Sendable (JobProgress?) -> Void
        var log: JobLogRecorder
        var onLog: @Sendable (LogLine) -> Void
        /// What the handler asks of the backend.
        var onRequest: @Sendable (ChildRequest) async -> ChildReply
        /// Records that change, for a job that the handler follows.
        var follow: @Sendable (JobID) -> JobUpdates
        var onEnd: @Sendable (ChildPoolMachine.End) -> Void
    }

    private struct State {
        var machine: ChildPoolMachine
        var links: [ChildID: ChildLink] = [:]
        var jobs: [RunID: Job] = [:]
        /// What came from other threads for the listening one.
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

    /// Has so many children, from the first call on.
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

    /// Ends all children. Returns when they are gone, or 2 seconds later.
    func close() async {
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

    /// The ids of the children's processes.
    var processes: [pid_t] { state.withLock { $0.links.values.compactMap { $0.process.id } } }

    // MARK: - Doing what the machine says

    /// What is done once the lock is free: it calls into other parts of the program.
    private typealias Effect = @Sendable () -> Void

    private func change(registering job: Job? = nil, _ body: (inout ChildPoolMachine, _ now: Int64) -> [ChildPoolMachine.Action]) {
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
                link.send(.perform(job.call))
                link.log = job.log
                if link.hasBacklog { effects.append(wake.ring) }
            case .cancel(let id, let run, let reason):
                state.links[id]?.send(.cancel(run, reason))
                if state.links[id]?.hasBacklog == true { effects.append(wake.ring) }
            case .askToEnd(let id): state.links[id]?.send(.stop)
            case .terminate(let id): state.links[id]?.process.signalGroup(SIGTERM)
            case .kill(let id): state.links[id]?.process.signalGroup(SIGKILL)
            case .end(let run, let id, let end):
                guard let job = state.jobs.removeValue(forKey: run) else { continue }
                if let link = id.flatMap({ state.links[$0] }) {
                    // What it wrote before it said that it was done.
                    link.readOutput(to: job.log)
                    link.log = nil
                    link.cancelRequests()
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
        let process = SpawnedProcess(program, descriptors: [nil, ends.output.write, ends.error.write, ends.channel.write]) {
            [weak self] exit in
            self?.state.withLock { $0.exits.append((id, exit)) }
            self?.wake.ring()
        }
        state.links[id] = ChildLink(process, channel: ends.channel.read, output: ends.output.read, error: ends.error.read)
    }

    // MARK: - Listening

    private func listen() {
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let now = clock.uptime
            let (effects, isOver) = state.withLock { state in
                var effects = perform(state.machine.tick(now: now), &state)
                let exits = state.exits
                state.exits.removeAll()
                for (id, exit) in exits { effects += exited(id, exit, &state, now) }
                effects += measure(&state, now)
                return (effects, state.machine.isEmpty && state.isClosed || isClosing(state))
            }
            for effect in effects { effect() }
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
                let effects = state.withLock { state in take(source, events, &state, &buffer) }
                for effect in effects { effect() }
            }
        }
    }

    private func isClosing(_ state: State) -> Bool { state.machine.isEmpty && !state.onClosed.isEmpty }

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
        if next == nil, state.machine.busyCount > 0 {
            // Somebody may become worth a look.
            next = now + 100_000
        }
        guard let next else { return -1 }
        return Int32(clamping: max(0, (next - now + 999) / 1000))
    }

    private func take(_ source: Source, _ events: Int32, _ state: inout State, _ buffer: inout [UInt8]) -> [Effect] {
        guard let link = state.links[source.child] else { return [] }
        switch source.kind {
        case .output:
            link.output = link.take(link.output, source: "output", &buffer)
            return []
        case .error:
            link.error = link.take(link.error, source: "error", &buffer)
            guard let signal = link.fatalSignal else { return [] }
            return perform(state.machine.crashes(source.child, signal, now: clock.uptime), &state)
        case .channel:
            if events & POLLOUT != 0 { link.flush() }
            guard events & ~POLLOUT != 0 else { return [] }
            return takeFrames(of: source.child, link, &state, &buffer)
        }
    }

    private func takeFrames(of id: ChildID, _ link: ChildLink, _ state: inout State, _ buffer: inout [UInt8]) -> [Effect] {
        var effects: [Effect] = []
        let now = clock.uptime
        do throws(WireError) {
            let isOpen = link.receive(&buffer)
            while let frame = try link.nextFrame() { effects += take(try ChildReport(frame), of: id, link, &state, now) }
            // It ends, or a job has closed what is not its own: nothing more can come, so it is of no use.
            if !isOpen {
                link.closeChannel()
                effects += perform(state.machine.broke(id, "it closed its channel", now: now), &state)
            }
        } catch {
            link.closeChannel()
            effects += perform(state.machine.broke(id, "it wrote what is no message: \(error.message)", now: now), &state)
        }
        return effects
    }

    private func take(
        _ report: ChildReport, of id: ChildID, _ link: ChildLink, _ state: inout State, _ now: Int64
    ) -> [Effect] {
        /// The job that it may speak of, if it is that one.
        func job(_ run: RunID) -> Job? { state.machine.run(of: id) == run ? state.jobs[run] : nil }
        switch report {
        case .ready:
            let milliseconds = Double(now - (state.machine.start(of: id) ?? now)) / 1000
            logger.debug("a child process is ready", metadata: ["process": "\(link.process.id ?? 0)", "milliseconds": "\(milliseconds)"])
            return perform(state.machine.becameReady(id, now: now), &state)
        case .finished(let result): return perform(state.machine.finished(id, result, now: now), &state)
        case .progress(let run, let progress):
            guard let job = job(run) else { return [] }
            state.machine.signed(id, run, now: now)
            return [{ job.onProgress(progress) }]
        case .sign(let run):
            guard let job = job(run) else { return [] }
            state.machine.signed(id, run, now: now)
            return [{ job.onProgress(nil) }]
        case .log(let run, let line):
            guard let job = job(run) else { return [] }
            return [{ job.onLog(line) }]
        case .request(let request, let what):
            guard let job = state.machine.run(of: id).flatMap({ state.jobs[$0] }) else {
                link.send(.reply(request, .failed(BackendError(.misuse, "a child speaks to the backend only while it performs a job"))))
                return []
            }
            return answer(request, what, of: id, link, job)
        }
    }

    private func answer(_ request: ChildRequest.ID, _ what: ChildRequest, of id: ChildID, _ link: ChildLink, _ job: Job) -> [Effect] {
        switch what {
        case .unwatch(let watched):
            link.cancelRequest(watched)
            return []
        case .watch(let jobID):
            link.requests[request] = Task { [weak self] in
                do {
                    for try await record in job.follow(jobID) { self?.send(.update(request, record), to: id) }
                } catch {}
                self?.send(.update(request, nil), to: id)
            }
        default:
            link.requests[request] = Task { [weak self] in
                let reply = await job.onRequest(what)
                self?.send(.reply(request, reply), to: id, answering: request)
            }
        }
        return []
    }

    private func send(_ command: ChildCommand, to id: ChildID, answering request: ChildRequest.ID? = nil) {
        let hasBacklog = state.withLock { state in
            guard let link = state.links[id], !Task.isCancelled else { return false }
            if let request { link.requests[request] = nil }
            link.send(command)
            return link.hasBacklog
        }
        if hasBacklog { wake.ring() }
    }

    private func exited(
        _ id: ChildID, _ exit: Result<SpawnedProcess.Exit, SpawnError>, _ state: inout State, _ now: Int64
    ) -> [Effect] {
        var effects: [Effect] = []
        if let link = state.links[id] {
            // Its last words: a result that it sent before it died counts.
            var buffer = [UInt8](repeating: 0, count: 1 << 16)
            if link.channel != nil { effects += takeFrames(of: id, link, &state, &buffer) }
            link.readOutput(to: nil)
            if link.log == nil, !link.strayOutput.isEmpty {
                logger.info(
                    "a child process wrote while it had no job",
                    metadata: ["output": "\(link.strayOutput.suffix(20).joined(separator: "\n"))"])
            }
        }
        switch exit {
        case .success(let exit): effects += perform(state.machine.exited(id, exit, now: now), &state)
        case .failure(let error):
            logger.error("a child process could not be started", metadata: ["error": "\(error)"])
            effects += perform(state.machine.exited(id, .init(status: 127), now: now), &state)
        }
        state.links.removeValue(forKey: id)?.close()
        return effects
    }

    // MARK: - Memory

    private func measure(_ state: inout State, _ now: Int64) -> [Effect] {
        guard now >= state.nextMeasureAt else { return [] }
        let children = state.machine.measurable(now: now)
        guard !children.isEmpty else { return [] }
        let isAnyLimited = children.contains(where: \.isLimited)
        state.nextMeasureAt = now + (isAnyLimited ? 50_000 : 500_000)
        var groups: [pid_t: Int] = [:]
        if isAnyLimited, now >= state.nextGroupMeasureAt {
            state.nextGroupMeasureAt = now + 500_000
            groups = ProcessTable.memory(ofGroups: Set(children.filter(\.isLimited).compactMap { state.links[$0.id]?.process.id }))
        }
        var effects: [Effect] = []
        for (id, _) in children {
            guard let process = state.links[id]?.process.id else { continue }
            let memory = groups[process] ?? ProcessTable.memory(of: process)
            effects += perform(state.machine.measured(id, memory: memory, now: now), &state)
        }
        return effects
    }
}
