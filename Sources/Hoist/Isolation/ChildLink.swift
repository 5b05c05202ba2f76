import CProcess

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// A worker's ends of the channel and the pipes that it shares with one child. Touched only under the lock of the pool,
/// except for receiving frames, which only the listening thread does.
final class ChildLink {
    let process: SpawnedProcess
    private(set) var channel: Int32?
    var output: Int32?
    var error: Int32?
    /// The log for the output of the child while it has a job.
    var log: JobLogRecorder?
    /// The last lines that the child wrote without a job.
    private(set) var strayOutput: [String] = []
    /// The signal that Swift's runtime reports as caught while it prints a backtrace: the process is about to die, but
    /// has not ended yet.
    private var fatalSignal: Int32?
    /// Whether the child prints a backtrace: its lines are worth keeping.
    var isCrashing = false
    /// The requests of the child that have no answer yet.
    var requests: [ChildRequest.ID: Task<Void, Never>] = [:]
    private var received = FrameBuffer()
    private var unsent: [UInt8] = []
    private var unsentStart = 0
    private var lines: [String: LineSplitter] = ["output": LineSplitter(), "error": LineSplitter()]

    init(_ process: SpawnedProcess, channel: Int32, output: Int32, error: Int32) {
        self.process = process
        self.channel = channel
        self.output = output
        self.error = error
    }

    typealias Ends = (read: Int32, write: Int32)

    /// A channel and two pipes. The worker's ends do not block, and no process that is started meanwhile inherits any
    /// end.
    static func makeEnds() -> (channel: Ends, output: Ends, error: Ends)? {
        guard let channel = makePair(hoist_socket_pair) else { return nil }
        guard let output = makePair(hoist_pipe) else {
            [channel.read, channel.write].forEach { _ = Self.close($0) }
            return nil
        }
        guard let error = makePair(hoist_pipe) else {
            [channel.read, channel.write, output.read, output.write].forEach { _ = Self.close($0) }
            return nil
        }
        return (channel, output, error)
    }

    private static func makePair(_ make: (UnsafeMutablePointer<Int32>?) -> Int32) -> Ends? {
        var ends: [Int32] = [-1, -1]
        guard make(&ends) == 0 else { return nil }
        _ = fcntl(ends[0], F_SETFL, fcntl(ends[0], F_GETFL) | O_NONBLOCK)
        // Above the descriptor numbers that the child gets the ends as.
        let high = fcntl(ends[1], F_DUPFD_CLOEXEC, 10)
        guard high >= 0 else {
            ends.forEach { _ = close($0) }
            return nil
        }
        _ = close(ends[1])
        return (ends[0], high)
    }

    // MARK: - To the child

    /// Bytes that the channel has not taken yet.
    var backlog: Int { unsent.count - unsentStart }
    var hasBacklog: Bool { backlog > 0 }

    /// Sends now the bytes that the channel takes, and the rest when the channel takes more.
    /// - Returns: false when the channel is closed.
    @discardableResult
    func send(_ command: ChildCommand) -> Bool {
        guard channel != nil else { return false }
        let bytes = command.encoded()
        if hasBacklog {
            if unsentStart > 1 << 20, unsentStart > unsent.count / 2 {
                unsent.removeFirst(unsentStart)
                unsentStart = 0
            }
            unsent += bytes
        } else {
            unsent = bytes
            unsentStart = 0
        }
        return flush()
    }

    /// - Returns: false when the other end of the channel is closed.
    @discardableResult
    func flush() -> Bool {
        var isHeard = true
        while hasBacklog, let channel {
            let sent = unsent.withUnsafeBytes { bytes in
                Self.send(channel, bytes.baseAddress! + unsentStart, bytes.count - unsentStart)
            }
            if sent > 0 {
                unsentStart += sent
            } else if errno != EINTR {
                // Bytes that a dead child does not take are dropped; the end of the child is noticed elsewhere.
                if errno != EAGAIN {
                    unsentStart = unsent.count
                    isHeard = false
                }
                break
            }
        }
        if !hasBacklog {
            unsent = []
            unsentStart = 0
        }
        return isHeard
    }

    /// As send(2), without SIGPIPE when the other end is closed.
    static func send(_ channel: Int32, _ pointer: UnsafeRawPointer, _ count: Int) -> Int {
        #if os(Linux)
        Glibc.send(channel, pointer, count, Int32(MSG_NOSIGNAL))
        #else
        Darwin.send(channel, pointer, count, 0)
        #endif
    }

    // MARK: - From the child

    /// Receives what the channel holds, but at most 16 buffers: other children must have their turn.
    /// - Returns: false when the channel has ended.
    func receive(_ buffer: inout [UInt8]) -> Bool {
        guard let channel else { return true }
        for _ in 0..<16 {
            let count = buffer.withUnsafeMutableBytes { recv(channel, $0.baseAddress, $0.count, 0) }
            if count > 0 {
                buffer.withUnsafeBytes { received.append(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
                if count < buffer.count { return true }
            } else if count == 0 {
                return false
            } else if errno != EINTR {
                return errno == EAGAIN
            }
        }
        return true
    }

    func nextFrame() throws(WireError) -> ArraySlice<UInt8>? { try received.next() }

    /// Takes what a pipe holds, at most a bufferful.
    /// - Returns: the pipe; nil when it has come to its end and is closed.
    func take(_ pipe: Int32?, source: String, _ buffer: inout [UInt8]) -> Int32? {
        guard let pipe else { return nil }
        let count = buffer.withUnsafeMutableBytes { read(pipe, $0.baseAddress, $0.count) }
        guard count > 0 else {
            if count < 0, errno == EAGAIN || errno == EINTR { return pipe }
            write(lines[source]?.end().map { [$0] } ?? [], omitted: 0, source: source, to: log)
            _ = Self.close(pipe)
            return nil
        }
        // Lines beyond those that the log keeps are only counted.
        let taken = buffer.withUnsafeBytes { bytes in
            lines[source]?.split(UnsafeRawBufferPointer(rebasing: bytes[..<count]), keeping: max(20, log?.limit ?? 0))
                ?? (
                    lines: [], omitted: 0
                )
        }
        write(taken.lines, omitted: taken.omitted, source: source, to: log)
        return pipe
    }

    private func write(_ lines: [String], omitted: Int, source: String, to log: JobLogRecorder?) {
        if source == "error",
            let line = lines.last(where: { $0.hasPrefix("*** Signal ") && $0.contains("Backtracing") })
        {
            fatalSignal = Int32(line.dropFirst("*** Signal ".count).prefix { $0.isNumber }) ?? SIGABRT
            isCrashing = true
        }
        if let log {
            log.add(lines, omitted: omitted, source: source, isUrgent: isCrashing)
        } else if !lines.isEmpty {
            strayOutput = (strayOutput + lines).suffix(20)
        }
    }

    /// Takes all that the pipes hold now.
    func readOutput(to log: JobLogRecorder?) {
        if let log { self.log = log }
        var buffer: [UInt8] = []
        // Bounded, at more than a pipe holds: a process that still writes does so for nothing.
        for _ in 0..<8 {
            let (hasOutput, hasErrors) = (Self.holdsBytes(output), Self.holdsBytes(error))
            guard hasOutput || hasErrors else { break }
            if buffer.isEmpty { buffer = [UInt8](repeating: 0, count: 1 << 16) }
            if hasOutput { output = take(output, source: "output", &buffer) }
            if hasErrors { error = take(error, source: "error", &buffer) }
        }
        for source in ["output", "error"] {
            if let line = lines[source]?.end() { write([line], omitted: 0, source: source, to: self.log) }
        }
    }

    private static func holdsBytes(_ pipe: Int32?) -> Bool {
        guard let pipe else { return false }
        var polled = pollfd(fd: pipe, events: Int16(POLLIN), revents: 0)
        return poll(&polled, 1, 0) > 0 && Int32(polled.revents) & POLLIN != 0
    }

    // MARK: - Requests and the end

    func cancelRequest(_ id: ChildRequest.ID) { requests.removeValue(forKey: id)?.cancel() }

    /// Whether a pipe is closed: the job has closed the output of later jobs, or the child is dying, which is noticed
    /// in a moment.
    var hasLostOutput: Bool { output == nil || error == nil }

    func takeFatalSignal() -> Int32? { fatalSignal.take() }

    /// The job has ended: its state must not reach the next job.
    func forgetJob() {
        log = nil
        (fatalSignal, isCrashing) = (nil, false)
        cancelRequests()
    }

    private func cancelRequests() {
        for request in requests.values { request.cancel() }
        requests.removeAll()
    }

    func closeChannel() {
        if let channel { _ = Self.close(channel) }
        channel = nil
        cancelRequests()
    }

    func close() {
        closeChannel()
        for pipe in [output, error] { if let pipe { _ = Self.close(pipe) } }
        (output, error) = (nil, nil)
    }

    @discardableResult
    private static func close(_ descriptor: Int32) -> Int32 {
        #if canImport(Glibc)
        Glibc.close(descriptor)
        #else
        Darwin.close(descriptor)
        #endif
    }
}

/// Wakes a thread that waits in `poll`.
final class WakePipe: Sendable {
    let readEnd: Int32
    private let writeEnd: Int32

    init() {
        var ends: [Int32] = [-1, -1]
        let code = hoist_pipe(&ends)
        for end in ends { _ = fcntl(end, F_SETFL, O_NONBLOCK) }
        precondition(code == 0, "no pipe could be opened (error \(errno)): too many files are open")
        (readEnd, writeEnd) = (ends[0], ends[1])
    }

    deinit {
        close(readEnd)
        close(writeEnd)
    }

    @Sendable func ring() {
        // A full pipe wakes as well.
        var byte: UInt8 = 1
        _ = write(writeEnd, &byte, 1)
    }

    func clear() {
        var buffer = [UInt8](repeating: 0, count: 256)
        while read(readEnd, &buffer, buffer.count) == buffer.count {}
    }
}
