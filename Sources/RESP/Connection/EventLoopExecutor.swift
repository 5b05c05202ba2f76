public import NIOCore
import NIOPosix
import Synchronization

/// An event loop of one's own, and its thread for Swift's tasks: whoever runs there speaks to connections on that loop
/// without changing threads.
///
/// Code that blocks holds up everything on the loop. Its thread goes to the next one that is made when this one is
/// dropped, and never ends: connections may still be closing.
public final class EventLoopExecutor: TaskExecutor {
    private static let idle = Mutex<[MultiThreadedEventLoopGroup]>([])

    private let ownGroup: MultiThreadedEventLoopGroup
    fileprivate let loop: any EventLoop

    public init() {
        ownGroup = Self.idle.withLock { $0.popLast() } ?? MultiThreadedEventLoopGroup(numberOfThreads: 1)
        loop = ownGroup.next()
    }

    deinit { Self.idle.withLock { $0.append(ownGroup) } }

    /// For connections that are to live here.
    public var group: any EventLoopGroup { ownGroup }

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        loop.execute { [self] in job.runSynchronously(on: asUnownedTaskExecutor()) }
    }

    public func asUnownedTaskExecutor() -> UnownedTaskExecutor { UnownedTaskExecutor(ordinary: self) }
}

/// The thread of an ``EventLoopExecutor`` for actors. Apart from it, for a task that runs as an actor would has to be
/// enqueued again for every asynchronous function that it calls which is no actor's.
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
