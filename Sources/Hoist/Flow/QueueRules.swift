/// What people and jobs have said about a queue, and what follows from it: the same on every backend that keeps it in
/// this form.
package struct QueueRules: Sendable, Hashable {
    package var isPaused = false
    /// Microseconds since 1970; nil for a queue that no job has closed.
    package var closedUntil: Int64?
    /// How many jobs may wait; nil for any number.
    package var capacity: Int?

    package init(isPaused: Bool = false, closedUntil: Int64? = nil, capacity: Int? = nil) {
        self.isPaused = isPaused
        self.closedUntil = closedUntil
        self.capacity = capacity
    }

    /// Nothing that would have to be kept.
    package var isDefault: Bool { self == QueueRules() }

    /// Whether workers may take jobs at this time.
    package func isOpen(at now: Int64) -> Bool { !isPaused && (closedUntil ?? .min) <= now }

    /// When a closed queue opens by itself; nil for one that is open or paused.
    package func opens(after now: Int64) -> Int64? { isPaused ? nil : closedUntil.flatMap { $0 > now ? $0 : nil } }

    /// Of two closures the longer one counts.
    package mutating func close(until time: Int64) { closedUntil = max(closedUntil ?? .min, time) }

    package mutating func resume() { (isPaused, closedUntil) = (false, nil) }

    /// Whether so many jobs more may wait.
    package func admits(_ count: Int, besides waiting: Int) -> Bool {
        capacity.map { waiting + count <= $0 } ?? true
    }

    /// Why the jobs of the queue do not start, in words; nil when that is not because of its rules.
    package func reason(queue: String, at now: Int64) -> String? {
        if isPaused { return "the queue \(queue) is paused" }
        guard let closedUntil, closedUntil > now else { return nil }
        let seconds = Duration.microseconds(closedUntil - now).inSeconds.rounded()
        return "a job has closed the queue \(queue) for \(seconds) s"
    }
}

extension BackendError {
    /// The answer to an enqueue beyond the limit of a queue.
    package static func atLimit(_ queue: String) -> BackendError {
        BackendError(.full, "the queue \(queue) has reached its limit; nothing was enqueued")
    }
}
