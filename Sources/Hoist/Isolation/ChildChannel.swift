import CProcess
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Whether this process is a child of a worker's process lane.
///
/// A worker starts its own executable again, with its own arguments. In that process ``Worker/run()`` notices that it
/// is a child, and serves the worker instead of consuming queues. What a program starts beside its worker, for instance
/// a web server, it must not start in a child.
public enum WorkerChild {
    public static var isChild: Bool { ChildChannel.inherited != nil }

    /// The worker's backend, with the operations that handlers may use: for a program that makes clients of its own.
    /// nil when this process is no child.
    public static var backend: Backend? { ParentBackend.shared?.backend }
}

/// A child's end of the channel to its worker.
final class ChildChannel: Sendable {
    /// `PARENT:KEY:SHAPE:NAME`: the parent's process id, the key of the worker in the parent, what the worker's backend
    /// can do, and the name of that worker.
    static let variable = "HOIST_CHILD"
    private static let descriptorNumber: Int32 = 3

    /// The channel of this process; nil when it is no child.
    static let inherited: ChildChannel? = {
        guard let variable = getenv(variable) else { return nil }
        let parts = String(cString: variable).split(separator: ":", maxSplits: 3, omittingEmptySubsequences: false).map(
            String.init)
        guard parts.count == 4, let parent = pid_t(parts[0]) else { return nil }
        // A program that a child starts inherits the variable, but not the channel.
        var status = stat()
        guard fstat(descriptorNumber, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return nil }
        guard getppid() == parent else { exit(0) }
        let channel = fcntl(descriptorNumber, F_DUPFD_CLOEXEC, 200)
        guard channel >= 0 else { exit(71) }
        close(descriptorNumber)
        hoist_become_child()
        // The parent may have died before this process asked to be told.
        guard getppid() == parent else { exit(0) }
        return ChildChannel(channel, key: parts[1], shape: BackendShape(parts[2]), worker: parts[3])
    }()

    let key: String
    let worker: String
    /// What the worker's backend can do.
    let shape: BackendShape
    private let descriptor: Int32
    private let writing = Mutex(())

    private init(_ descriptor: Int32, key: String, shape: BackendShape, worker: String) {
        self.descriptor = descriptor
        self.key = key
        self.worker = worker
        self.shape = shape
    }

    /// The variable for the children of a worker.
    static func environment(key: String, shape: BackendShape, worker: String) -> String {
        "\(variable)=\(getpid()):\(key):\(shape):\(worker)"
    }

    /// Blocks until the channel has taken the report.
    func send(_ report: ChildReport) { send(report.encoded()) }

    /// - Parameter bytes: a whole frame.
    func send(_ bytes: [UInt8]) {
        let isSent = writing.withLock { _ in
            var start = 0
            while start < bytes.count {
                let sent = bytes.withUnsafeBytes { bytes in
                    ChildLink.send(descriptor, bytes.baseAddress! + start, bytes.count - start)
                }
                if sent > 0 { start += sent } else if errno != EINTR { return false }
            }
            return true
        }
        // The worker is gone, or the job has closed the channel: no report can arrive any more.
        if !isSent { Self.endProcess() }
    }

    /// Blocks until bytes arrive.
    /// - Returns: the number of bytes; 0 when the worker is gone.
    func receive(_ buffer: inout [UInt8]) -> Int {
        while true {
            let count = buffer.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress, $0.count, 0) }
            if count < 0, errno == EINTR { continue }
            return max(0, count)
        }
    }

    /// Kills this process and its process group.
    static func endProcess() -> Never {
        // The group with the id of this process, not its current group: a job may have moved the process to the
        // worker's group.
        kill(-getpid(), SIGKILL)
        kill(getpid(), SIGKILL)
        _exit(70)
    }
}
