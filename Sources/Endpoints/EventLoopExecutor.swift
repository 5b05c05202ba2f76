public import NIOCore
import NIOPosix
import Synchronization

/// An event loop with a thread of its own, as an executor for Swift's tasks: a task on this executor uses connections
/// of the loop without a change of threads.
///
/// Code that blocks holds up everything on the loop. The thread never ends, since connections may still be closing:
/// when this executor is dropped, the next new executor takes the thread over.
public final class EventLoopExecutor: TaskExecutor {
    private static let idle = Mutex<[MultiThreadedEventLoopGroup]>([])

    private let ownGroup: MultiThreadedEventLoopGroup
    fileprivate let loop: any EventLoop

    public init() {
        ownGroup = Self.idle.withLock { $0.popLast() } ?? MultiThreadedEventLoopGroup(numberOfThreads: 1)
        loop = ownGroup.next()
    }

    deinit { Self.idle.withLock { $0.append(ownGroup) } }

    /// The event loop group for connections on this executor's thread.
    public var group: any EventLoopGroup { ownGroup }

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        loop.execute { [self] in job.runSynchronously(on: asUnownedTaskExecutor()) }
    }

    public func asUnownedTaskExecutor() -> UnownedTaskExecutor { UnownedTaskExecutor(ordinary: self) }
}

/// The thread of an ``EventLoopExecutor``, as an executor for actors. It is a separate type: a task that runs on the
/// executor of an actor is enqueued again for every asynchronous function outside of actors that it calls.
public final class EventLoopSerialExecutor: SerialExecutor {
    private let tasks: EventLoopExecutor

    public init(_ tasks: EventLoopExecutor) { self.tasks = tasks }

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        tasks.loop.execute { [self] in
            job.runSynchronously(isolatedTo: asUnownedSerialExecutor(), taskExecutor: tasks.asUnownedTaskExecutor())
        }
    }

    public func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }
}
