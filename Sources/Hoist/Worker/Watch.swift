import Synchronization

/// Watches the limits of one running job from the timer thread, where the job cannot hold it up.
final class Watch: Sendable {
    private let context: JobContext
    private let limits: Execution.Limits
    private let clock: any JobClock
    private let cancel: @Sendable (JobContext.CancellationReason) -> Void
    private let timers = Mutex<[ScheduledCall]?>([])

    init(
        context: JobContext, limits: Execution.Limits, clock: any JobClock,
        cancel: @escaping @Sendable (JobContext.CancellationReason) -> Void
    ) {
        self.context = context
        self.limits = limits
        self.clock = clock
        self.cancel = cancel
    }

    func begin() {
        if let time = limits.time {
            add(clock.schedule(after: time) { [self] in cancel(.timeLimit) })
        }
        if let heartbeat = limits.heartbeat { watchHeartbeat(heartbeat, after: heartbeat) }
    }

    func end() {
        let pending = timers.withLock { timers in
            defer { timers = nil }
            return timers ?? []
        }
        for timer in pending { timer.cancel() }
    }

    private func watchHeartbeat(_ limit: Duration, after delay: Duration) {
        add(
            clock.schedule(after: delay) { [self] in
                let left = limit.inMicroseconds - context.silence
                if left <= 0 { cancel(.noProgress) } else { watchHeartbeat(limit, after: .microseconds(left)) }
            })
    }

    private func add(_ timer: ScheduledCall) {
        let hasEnded = timers.withLock { timers in
            timers?.append(timer)
            return timers == nil
        }
        if hasEnded { timer.cancel() }
    }
}
