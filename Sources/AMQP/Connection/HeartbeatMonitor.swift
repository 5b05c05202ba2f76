/// Decides when to send a heartbeat, and when a silent server counts as dead (AMQP 0-9-1 §4.2.7). Pure: time is an
/// argument, in nanoseconds.
struct HeartbeatMonitor {
    enum Action: Equatable { case nothing, send, giveUp }

    /// Zero for none.
    let interval: Int64
    private var lastRead: Int64
    private var lastWritten: Int64
    private var lastTick: Int64

    init(interval: Int64, now: Int64) {
        self.interval = interval
        (lastRead, lastWritten, lastTick) = (now, now, now)
    }

    mutating func read(at now: Int64) { lastRead = now }
    mutating func written(at now: Int64) { lastWritten = now }

    /// How often ``tick(now:)`` is due, in nanoseconds.
    var pace: Int64 { interval == 0 ? 1_000_000_000 : max(interval / 4, 50_000_000) }

    mutating func tick(now: Int64) -> Action {
        guard interval > 0 else { return .nothing }
        // This process stood still: what the server sent meanwhile has not been read yet.
        if now - lastTick > interval { lastRead = max(lastRead, now - interval) }
        lastTick = now
        if now - lastRead >= interval * 2 { return .giveUp }
        if now - lastWritten >= interval / 2 {
            lastWritten = now
            return .send
        }
        return .nothing
    }
}
