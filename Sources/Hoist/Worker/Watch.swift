import Synchronization

/// Watches the limits of one running job from the timer thread, where the job cannot hold it up.
final class Watch: Sendable {
    private let context: JobContext
    private let limits: RunLimits
    private let clock: any JobClock
    private let cancel: @Sendable (JobContext.CancellationReason) -> Void
    private let timers = Mutex<(limit: ScheduledCall?, heartbeat: ScheduledCall?, hasEnded: Bool)>((nil, nil, false))

    init(
        context: JobContext, limits: RunLimits, clock: any JobClock,
        cancel: @escaping @Sendable (JobContext.CancellationReason) -> Void
    ) {
        self.context = context
        self.limits = limits
        self.clock = clock
        self.cancel = cancel
    }

    func begin() {
        if let time = limits.time {
            let timer = clock.schedule(after: time) { [self] in cancel(.timeLimit) }
            timers.withLock { $0.limit = timer }
        }
        if let heartbeat = limits.heartbeat { watchHeartbeat(heartbeat, after: heartbeat) }
    }

    func end() {
        let pending = timers.withLock { timers in
            defer { timers = (nil, nil, true) }
            return timers
        }
        pending.limit?.cancel()
        pending.heartbeat?.cancel()
    }

    private func watchHeartbeat(_ limit: Duration, after delay: Duration) {
        let timer = clock.schedule(after: delay) { [self] in
            if timers.withLock({ $0.hasEnded }) { return }
            let left = limit.inMicroseconds - context.silence
            if left <= 0 { cancel(.noProgress) } else { watchHeartbeat(limit, after: .microseconds(left)) }
        }
        let hasEnded = timers.withLock { timers in
            timers.heartbeat = timer
            return timers.hasEnded
        }
        if hasEnded { timer.cancel() }
    }
}
