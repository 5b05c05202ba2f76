import ArgumentParser
import Hoist
import Logging
import ServiceLifecycle
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Keeps worker processes running. A worker that ends is restarted after a delay, which grows while the worker ends
/// early. The output of each worker is kept apart.
final class Supervisor: Service {
    struct Settings: Sendable {
        /// The program of a worker, by its number from 1.
        var program: @Sendable (_ index: Int) -> SpawnedProcess.Program
        var workers: Int
        /// Whether a worker that ends with status 0 has done all its work. If false, a worker is restarted whatever its
        /// exit status.
        var areWorkersDoneAtEnd = false
        /// Whether the supervisor ends when a worker cannot start: when it ends by itself, and not in order, before it has
        /// run for five seconds, and never has before.
        var endsWithFailedStart = false
        var output = Output.labelled
        var firstDelay = Duration.milliseconds(500)
        var longestDelay = Duration.seconds(30)
        /// A worker that ran at least this long sets the delay back to `firstDelay`.
        var provenAfter = Duration.seconds(60)
    }

    /// Where the output of a worker goes.
    enum Output: Sendable {
        /// To standard error, each line with the worker's name in front.
        case labelled
        /// To one file for each worker, `worker-1.log`.
        case folder(String)
        /// To where the output of this process goes.
        case inherited
    }

    private struct State {
        var running: [Int: SpawnedProcess] = [:]
        var isStopping = false
        /// Why the supervisor gives up; nil while it does not.
        var surrender: String?
        var hasRunWell = false
    }

    private let settings: Settings
    private let name: @Sendable (Int) -> String
    private let logger: Logger
    private let state = Mutex(State())
    private let stopping = Doorbell()

    init(
        _ settings: Settings, name: @escaping @Sendable (Int) -> String = { "worker-\($0)" }, logger: Logger
    ) {
        self.settings = settings
        self.name = name
        self.logger = logger
    }

    /// Returns when every worker has ended: in order with its work done, or because the supervisor stops.
    /// - Throws: ``CommandFailure`` when a worker cannot be started as it is configured.
    func run() async throws {
        await withTaskCancellationHandler {
            await withGracefulShutdownHandler {
                await withTaskGroup { group in
                    let workers = max(1, settings.workers)
                    for index in 1...workers {
                        group.addTask {
                            await self.keep(index)
                            return true
                        }
                    }
                    group.addTask {
                        await self.reapOrphans()
                        return false
                    }
                    var ended = 0
                    while ended < workers, let isWorker = await group.next() { ended += isWorker ? 1 : 0 }
                    group.cancelAll()
                }
            } onGracefulShutdown: {
                self.stop()
            }
        } onCancel: {
            stop()
        }
        if let reason = state.withLock({ $0.surrender }) {
            throw CommandFailure("\(reason); it is not started again, for it would end so every time")
        }
    }

    /// Sends SIGTERM to every worker. A second call, half a second later or more, makes the workers hand unfinished
    /// jobs back at once.
    func stop() {
        let running = state.withLock { state in
            state.isStopping = true
            return Array(state.running.values)
        }
        stopping.ring()
        for process in running { process.signal(SIGTERM) }
    }

    /// Whether another start would end as this one has.
    private func isHopeless(_ exit: SpawnedProcess.Exit, after microseconds: Int64) -> Bool {
        let hasRunWell = state.withLock { state in
            if microseconds >= 5_000_000 { state.hasRunWell = true }
            return state.hasRunWell
        }
        guard exit.signal == nil, exit.status != 0 else { return false }
        return [HopelessStart.status.rawValue, ExitCode.validationFailure.rawValue].contains(Int32(exit.status))
            || (settings.endsWithFailedStart && !hasRunWell)
    }

    private func giveUp(_ reason: String) {
        state.withLock { $0.surrender = $0.surrender ?? reason }
        stop()
    }

    private var isStopping: Bool { state.withLock { $0.isStopping } }

    private func keep(_ index: Int) async {
        let (name, clock) = (name(index), SystemJobClock())
        var delay = settings.firstDelay
        while !isStopping {
            let start = clock.uptime
            let how: String
            switch await runOnce(index, name) {
            case .success(let exit) where exit == .init(cpu: exit.cpu) && (settings.areWorkersDoneAtEnd || isStopping):
                return logger.info("\(name) has ended")
            case .success(let exit):
                how = exit.signal.map { "was killed by signal \($0)" } ?? "ended with status \(exit.status)"
                if isHopeless(exit, after: clock.uptime - start) { return giveUp("\(name) \(how)") }
            case .failure(let error): how = "\(error)"
            }
            if isStopping { return }
            if clock.uptime - start >= settings.provenAfter.inMicroseconds { delay = settings.firstDelay }
            logger.error("\(name) \(how); it is started again", metadata: ["in": "\(delay)"])
            let mark = stopping.mark
            if !isStopping { await stopping.wait(after: mark, for: delay, clock: clock) }
            delay = min(delay * 2, settings.longestDelay)
        }
    }

    /// Reaps the orphans of killed workers when this is the first process of a container, which inherits them.
    private func reapOrphans() async {
        guard var orphanage = Orphanage.ifNeeded else { return }
        while !Task.isCancelled {
            orphanage.reap()
            try? await Task.sleep(for: .seconds(1))
        }
    }

    private func runOnce(_ index: Int, _ name: String) async -> Result<SpawnedProcess.Exit, SpawnError> {
        let outputs = makeOutputs(name)
        let result = await withCheckedContinuation { continuation in
            let process = SpawnedProcess(settings.program(index), descriptors: [nil] + outputs) {
                continuation.resume(returning: $0)
            }
            let isLate = state.withLock { state in
                state.running[index] = process
                return state.isStopping
            }
            if isLate { process.signal(SIGTERM) }
        }
        state.withLock { $0.running[index] = nil }
        return result
    }

    /// The descriptors of a worker's standard output and error; nil, for /dev/null, where none can be opened.
    private func makeOutputs(_ name: String) -> [Int32?] {
        switch settings.output {
        case .inherited: return [1, 2].map { fcntl($0, F_DUPFD_CLOEXEC, 10) }
        case .folder(let folder):
            let file = open("\(folder)/\(name).log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
            guard file >= 0 else {
                logger.error(
                    "the log of \(name) cannot be written", metadata: ["folder": "\(folder)", "error": "\(errno)"])
                return [nil, nil]
            }
            return [file, fcntl(file, F_DUPFD_CLOEXEC, 10)]
        case .labelled: return makeLabelledOutputs(name)
        }
    }

    private func makeLabelledOutputs(_ name: String) -> [Int32?] {
        var ends: [Int32] = [-1, -1]
        guard ProcessPipe.open(&ends) else { return [nil, nil] }
        let (source, label) = (ends[0], name + " | ")
        startThread(named: "hoist-log") { Self.copyLines(from: source, label: label) }
        return [ends[1], fcntl(ends[1], F_DUPFD_CLOEXEC, 10)]
    }

    private static func copyLines(from source: Int32, label: String) {
        var buffer = [UInt8](repeating: 0, count: 1 << 14)
        var splitter = LineSplitter()
        func write(_ lines: [String]) {
            guard !lines.isEmpty else { return }
            // In one call, so that lines of several workers do not mix.
            let text = Array(lines.map { label + $0 + "\n" }.joined().utf8)
            text.withUnsafeBytes { writeAll($0, to: 2) }
        }
        while true {
            let count = buffer.withUnsafeMutableBytes { read(source, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            let lines = buffer.withUnsafeBytes {
                splitter.split(UnsafeRawBufferPointer(rebasing: $0[..<count]), keeping: .max).lines
            }
            write(lines)
        }
        if let last = splitter.end() { write([last]) }
        close(source)
    }

    private static func writeAll(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32) {
        var start = 0
        while start < bytes.count, let base = bytes.baseAddress {
            let written = write(descriptor, base + start, bytes.count - start)
            if written > 0 { start += written } else if errno != EINTR { return }
        }
    }
}
