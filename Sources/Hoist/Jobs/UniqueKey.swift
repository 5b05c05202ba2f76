/// A key that at most one job holds at a time.
public struct UniqueKey: Sendable, Hashable, Codable {
    /// How long a job holds its key.
    public struct Scope: Sendable, Hashable, Codable {
        package enum Kind: String, Sendable, Hashable, Codable { case waiting, unfinished, remembered, window }
        package let kind: Kind
        package let seconds: Double

        /// Until the job starts: a second one may wait while the first runs.
        public static let untilStarted = Scope(kind: .waiting, seconds: 0)
        /// Until the job has ended, in whatever way.
        public static let untilFinished = Scope(kind: .unfinished, seconds: 0)
        /// Until `duration` after the job has ended: an idempotency key. A second call gets the handle and the result
        /// of the first job.
        public static func remembered(for duration: Duration) -> Scope {
            Scope(kind: .remembered, seconds: duration.inSeconds)
        }
        /// For `duration` from enqueueing, whatever becomes of the job: at most one job in each window (throttle).
        public static func window(_ duration: Duration) -> Scope { Scope(kind: .window, seconds: duration.inSeconds) }
    }

    /// What an enqueue does when another job holds the key.
    public struct ClashPolicy: Sendable, Hashable, Codable {
        package enum Kind: String, Sendable, Hashable, Codable { case refuse, returnExisting, replace, reschedule }
        package let kind: Kind

        /// Throw ``EnqueueError``.
        public static let refuse = ClashPolicy(kind: .refuse)
        /// Answer with the handle of the job that holds the key. The default.
        public static let returnExisting = ClashPolicy(kind: .returnExisting)
        /// Give the waiting job the new arguments; it keeps its id, place and time. A running job is left alone, and
        /// its handle is returned.
        public static let replace = ClashPolicy(kind: .replace)
        /// Give the waiting job the new arguments and the new time (debounce): only the last of a burst runs.
        public static let reschedule = ClashPolicy(kind: .reschedule)
    }

    public var key: String
    public var scope: Scope
    public var onClash: ClashPolicy

    /// - Parameters:
    ///   - key: any text. Keys are shared by all jobs of a backend, so begin a key with its subject: `"invoice:42"`.
    ///   - scope: how long the job holds the key.
    ///   - onClash: what an enqueue does while another job holds the key.
    public init(_ key: String, scope: Scope = .untilFinished, onClash: ClashPolicy = .returnExisting) {
        self.key = key
        self.scope = scope
        self.onClash = onClash
    }
}
