public import NIOCore
import NIOPosix
import Synchronization

/// An event loop of one's own, and its thread for Swift's tasks: whoever runs there speaks to connections on that loop without changing threads.
///
/// Code that blocks holds up everything on the loop. Its thread goes to the next one that is made when this one is dropped, and never ends:
/// connections may still be closing.
public final class EventLoopExecutor: TaskExecutor, SerialExecutor {
    private static let idle = Mutex<[MultiThreadedEventLoopGroup]>([])

    private let ownGroup: MultiThreadedEventLoopGroup
    private let loop: any EventLoop

    public init() {
        ownGroup = Self.idle.withLock { $0.popLast() } ?? MultiThreadedEventLoopGroup(numberOfThreads: 1)
        loop = ownGroup.next()
    }

    deinit { Self.idle.withLock { $0.append(ownGroup) } }

    /// For connections that are to live here.
    public var group: any EventLoopGroup { ownGroup }

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        loop.execute { [self] in
            job.runSynchronously(isolatedTo: asUnownedSerialExecutor(), taskExecutor: asUnownedTaskExecutor())
        }
    }

    public func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }
    public func asUnownedTaskExecutor() -> UnownedTaskExecutor { UnownedTaskExecutor(ordinary: self) }
}
