import CProcess
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Starts a detached thread. Hoist's own threads run forever or until the queue of their owner is closed.
package func startThread(named name: String, _ body: @escaping @Sendable () -> Void) {
    let code = tryToStartThread(named: name, body)
    precondition(code == 0, "no thread could be started (error \(code)): the limit of threads is reached")
}

/// Starts a detached thread that the caller can do without.
/// - Returns: 0, or the error code of `pthread_create`.
func tryToStartThread(named name: String, _ body: @escaping @Sendable () -> Void) -> Int32 {
    final class Start {
        let name: String
        let body: @Sendable () -> Void
        init(name: String, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }
    let start = Unmanaged.passRetained(Start(name: name, body: body)).toOpaque()
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    defer { pthread_attr_destroy(&attributes) }
    #if canImport(Darwin)
    var thread: pthread_t?
    let code = pthread_create(
        &thread, &attributes,
        { argument in
            let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
            pthread_setname_np(start.name)
            start.body()
            return nil
        }, start)
    #else
    var thread = pthread_t()
    let code = pthread_create(
        &thread, &attributes,
        { argument in
            let start = Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue()
            start.body()
            return nil
        }, start)
    #endif
    if code != 0 { Unmanaged<Start>.fromOpaque(start).release() }
    return code
}

/// A condition that one or more threads wait on. A notification without a waiting thread is kept for the next wait.
///
/// `@unchecked Sendable`: `mutex`, `condition` and `isNotified` are touched only between lock and unlock of `mutex`.
final class ThreadSignal: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var isNotified = false

    init() {
        pthread_mutex_init(mutex, nil)
        #if canImport(Darwin)
        pthread_cond_init(condition, nil)
        #else
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
        #endif
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    func notify() {
        pthread_mutex_lock(mutex)
        isNotified = true
        pthread_cond_signal(condition)
        pthread_mutex_unlock(mutex)
    }

    /// Blocks the thread until notified, or for `microseconds`.
    func wait(microseconds: Int64?) {
        pthread_mutex_lock(mutex)
        defer {
            isNotified = false
            pthread_mutex_unlock(mutex)
        }
        guard let microseconds else {
            while !isNotified { pthread_cond_wait(condition, mutex) }
            return
        }
        let deadline = SystemJobClock().uptime + microseconds
        while !isNotified, hoist_wait_until(condition, mutex, deadline) == 0 {}
    }
}

/// A thread for short work beside jobs: passing frames and replies on. No job can occupy it, and nothing on it may
/// block.
package let sideThread: any TaskExecutor = ThreadExecutor(name: "hoist-side", threadCount: 1)

/// Runs Swift tasks on threads of its own, which are started on demand up to a limit.
///
/// A worker's engine runs on one, so that job code which blocks the cooperative pool starves neither leases nor
/// settling; the blocking lane is another.
final class ThreadExecutor: TaskExecutor, SerialExecutor {
    private struct State {
        var jobs: [UnownedJob] = []
        var head = 0
        var threads = 0
        var idle: [ThreadSignal] = []
        var isClosed = false
        var limit: Int
    }

    private let name: String
    /// A serial executor always has one thread.
    private let isSerial: Bool
    private let state: Mutex<State>

    init(name: String, threadCount: Int? = nil) {
        self.name = name
        isSerial = threadCount == nil
        state = Mutex(State(limit: threadCount ?? 1))
    }

    /// Sets the limit of threads. Threads beyond a lower limit continue to run.
    func resize(to threadCount: Int) { state.withLock { $0.limit = max(threadCount, $0.threads) } }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        let (idle, mustStart) = state.withLock { state -> (ThreadSignal?, Bool) in
            state.jobs.append(job)
            if let idle = state.idle.popLast() { return (idle, false) }
            guard state.threads < state.limit else { return (nil, false) }
            state.threads += 1
            return (nil, true)
        }
        idle?.notify()
        if mustStart { startThread(named: name) { self.runThread() } }
    }

    /// Lets the threads end once they have nothing to do. Called when no task will use the executor again.
    func close() {
        let idle = state.withLock { state in
            state.isClosed = true
            defer { state.idle.removeAll() }
            return state.idle
        }
        for signal in idle { signal.notify() }
    }

    private func runThread() {
        let signal = ThreadSignal()
        while true {
            let (job, isClosed) = state.withLock { state -> (UnownedJob?, Bool) in
                if state.head < state.jobs.count {
                    let job = state.jobs[state.head]
                    state.head += 1
                    if state.head == state.jobs.count {
                        state.jobs.removeAll(keepingCapacity: true)
                        state.head = 0
                    } else if state.head > 1024, state.head * 2 > state.jobs.count {
                        state.jobs.removeFirst(state.head)
                        state.head = 0
                    }
                    return (job, false)
                }
                if state.isClosed {
                    state.threads -= 1
                    return (nil, true)
                }
                state.idle.append(signal)
                return (nil, false)
            }
            if let job {
                if isSerial {
                    job.runSynchronously(isolatedTo: asUnownedSerialExecutor(), taskExecutor: asUnownedTaskExecutor())
                } else {
                    job.runSynchronously(on: asUnownedTaskExecutor())
                }
            } else if isClosed {
                return
            } else {
                signal.wait(microseconds: nil)
            }
        }
    }

    func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }
    func asUnownedTaskExecutor() -> UnownedTaskExecutor { UnownedTaskExecutor(ordinary: self) }
}
