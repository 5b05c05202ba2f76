import CProcess
import Logging
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// A worker in a child: performs the jobs that its parent sends, one at a time, and talks to its parent only.
final class ChildWorker: Sendable {
    private struct Current {
        var run: WorkerInbox.RunID
        var box: RunningTask
    }

    private let channel: ChildChannel
    private let handlers: [String: RegisteredHandler]
    private let parent: ParentBackend
    private let environment: Execution.Environment
    private let current = Mutex<Current?>(nil)
    private let hasEnded = Doorbell()

    init(
        _ channel: ChildChannel, _ parent: ParentBackend, handlers: [String: RegisteredHandler],
        configuration: Worker.Configuration,
        logger: Logger
    ) {
        self.channel = channel
        self.parent = parent
        self.handlers = handlers
        environment = Execution.Environment(
            worker: channel.worker, jobs: JobClient(parent, configuration: configuration.client, logger: logger),
            logger: logger,
            configuration: configuration, liveLimits: { _ in RunLimits() })
    }

    /// Performs jobs until the parent has no more. When the parent is gone, this process ends.
    func run() async {
        let mark = hasEnded.mark
        startThread(named: "hoist-child") { self.listen() }
        channel.send(.ready)
        await hasEnded.wait(after: mark, for: nil, clock: parent.clock)
    }

    private func listen() {
        var frames = FrameBuffer()
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = channel.receive(&buffer)
            if count == 0 { ChildChannel.endProcess() }
            buffer.withUnsafeBytes { frames.append(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
            do throws(WireError) {
                while let frame = try frames.next() { take(try ChildCommand(frame)) }
            } catch {
                // The position in the stream is lost: no later frame can be read.
                ChildChannel.endProcess()
            }
        }
    }

    private func take(_ command: ChildCommand) {
        switch command {
        case .perform(let call): perform(call)
        case .cancel(let run, let reason): current.withLock { $0?.run == run ? $0?.box : nil }?.cancel(reason)
        case .reply(let id, let reply): parent.take(reply, to: id)
        case .update(let id, let record): parent.update(id, record)
        case .stop: hasEnded.ring()
        }
    }

    private func perform(_ call: IsolatedCall) {
        let box = RunningTask()
        current.withLock { $0 = Current(run: call.run, box: box) }
        let signs = SignSender(channel, run: call.run)
        let delivery = Delivery(
            jobID: call.jobID, jobName: call.jobName, queue: call.queue, payload: .envelope(call.envelope),
            attempt: call.attempt,
            lostWorkers: call.lostWorkers, token: 0)
        guard let handler = handlers[call.jobName] else {
            let failure = JobFailure(
                kind: .raised, type: "WorkerError", message: "this child has no handler for \(call.jobName)")
            return channel.send(.finished(IsolatedResult(run: call.run, outcome: .failed(failure))))
        }
        let (channel, environment) = (channel, environment)
        // A task of its own, for the caller is the thread that hears the worker.
        let task = Task(executorPreference: globalConcurrentExecutor) {
            let meter = JobMeter(memoryLimit: call.limits.memory?.bytes)
            let base = environment.logger
            var logger = Logger(
                label: base.label, factory: { _ in ChannelLogHandler(channel, run: call.run, level: base.logLevel) })
            logger.logLevel = base.logLevel
            let execution = Execution(delivery, handler, environment, limits: call.limits, handlerLogger: logger)
            let end = await execution.run(
                onContext: { box.set($0, $1) }, onProgress: { channel.send(.progress(call.run, $0)) },
                onSign: { signs.sign() },
                cancel: { box.cancel($0) })
            hoist_flush_output()
            channel.send(.finished(meter.result(of: call.run, end.outcome, children: end.context?.children ?? [])))
        }
        box.set(task)
    }
}

/// Reports signs of progress to the parent, at most one every 100 milliseconds.
private final class SignSender: Sendable {
    private let channel: ChildChannel
    private let run: WorkerInbox.RunID
    private let lastSent = Mutex<Int64>(.min / 2)

    init(_ channel: ChildChannel, run: WorkerInbox.RunID) {
        self.channel = channel
        self.run = run
    }

    func sign() {
        let now = SystemJobClock().uptime
        let isDue = lastSent.withLock { last in
            guard now - last >= 100_000 else { return false }
            last = now
            return true
        }
        if isDue { channel.send(.sign(run)) }
    }
}

/// Sends the lines of a handler's logger to the parent, at most a thousand a second.
private struct ChannelLogHandler: LogHandler {
    private final class Allowance: Sendable {
        private let state = Mutex((lines: LineAllowance(), omitted: 0))

        /// Whether a line may be sent, and how many lines before it were omitted.
        func take() -> (isAllowed: Bool, omitted: Int) {
            state.withLock { state in
                guard state.lines.take(1) == 1 else {
                    state.omitted += 1
                    return (false, 0)
                }
                defer { state.omitted = 0 }
                return (true, state.omitted)
            }
        }
    }

    private let channel: ChildChannel
    private let run: WorkerInbox.RunID
    private let allowance = Allowance()
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]

    init(_ channel: ChildChannel, run: WorkerInbox.RunID, level: Logger.Level) {
        self.channel = channel
        self.run = run
        logLevel = level
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let (isAllowed, omitted) = allowance.take()
        guard isAllowed else { return }
        // The parent's logger has the metadata of the job already.
        var details = metadata.filter { !$0.key.hasPrefix("job.") }.merging(event.metadata ?? [:]) { $1 }.mapValues {
            "\($0)"
        }
        if omitted > 0 { details["lines-omitted"] = "\(omitted)" }
        channel.send(
            .log(
                run,
                LogLine(
                    level: event.level.rawValue, message: "\(event.message)", metadata: details, source: event.source)))
    }
}

/// Measures what one job uses of its process.
private struct JobMeter {
    private let cpu = hoist_cpu_microseconds()
    private let start = SystemJobClock().uptime

    /// - Parameter memoryLimit: the limit of the job. It also bounds, far above the limit, the memory that the process
    ///   may ask the system for: this covers the time between two measurements by the parent.
    init(memoryLimit: Int?) {
        let limit = memoryLimit.map {
            UInt64(clamping: ProcessTable.privateBytes() + 2 * min($0, 1 << 48) + (512 << 20))
        }
        hoist_limit_memory(limit ?? 0)
    }

    func result(of run: WorkerInbox.RunID, _ outcome: Outcome, children: [JobID]) -> IsolatedResult {
        let memory = ProcessTable.memory(of: getpid())
        var result = IsolatedResult(run: run, outcome: outcome)
        result.children = children
        result.memory = memory
        result.hasDescendants = hoist_has_children() == 1
        // Within less than a millisecond a job cannot have held much memory that it has given back.
        result.wall = SystemJobClock().uptime - start
        let isShort = result.wall < 1000
        result.peakMemory = max(memory, isShort ? 0 : ProcessTable.takePeakMemory())
        result.cpu = max(0, hoist_cpu_microseconds() - cpu)
        return result
    }
}
