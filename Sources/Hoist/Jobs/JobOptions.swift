/// The defaults of one kind of job. A call may override each of them, see ``EnqueueOption``.
public struct JobOptions: Sendable {
    /// The queue, unless a routing rule or the call says otherwise; nil for the client's default queue.
    public var queue: String?
    /// 0...9, 9 is the most urgent; nil for no priority, which sorts with 0.
    public var priority: Int?
    public var retry: RetryPolicy
    /// Errors of these types are retried and no others; nil for all.
    public var retryOnly: [any Error.Type]?
    /// Errors of these types are never retried. Wins over `retryOnly`.
    public var neverRetry: [any Error.Type]
    /// The job is not tried again after failures of these kinds. None by default.
    public var neverRetryAfter: Set<JobFailure.Kind>
    /// See ``RunLimits/time``.
    public var timeLimit: Duration?
    /// See ``RunLimits/hardTime``. A worker that runs the job in a lane other than `process` refuses to start.
    public var hardTimeLimit: Duration?
    /// See ``RunLimits/heartbeat``.
    public var heartbeatLimit: Duration?
    /// See ``RunLimits/memory``. A worker that runs the job in a lane other than `process` refuses to start.
    public var memoryLimit: ByteCount?
    /// A job that has not been started this long after it was enqueued is dropped and marked expired.
    public var expiresAfter: Duration?
    /// How results are kept.
    public var result: ResultPolicy
    public var delivery: DeliveryGuarantee
    /// The limits on starts of jobs of this kind, for all workers together. None by default. A worker whose backend
    /// cannot keep limits refuses to start.
    public var limits: [JobLimit]
    /// Labels that a worker must have to run the job, see ``Worker/Configuration/labels``. None by default.
    public var requires: Set<String>

    public init(
        queue: String? = nil,
        priority: Int? = nil,
        retry: RetryPolicy = .none,
        retryOnly: [any Error.Type]? = nil,
        neverRetry: [any Error.Type] = [],
        neverRetryAfter: Set<JobFailure.Kind> = [],
        timeLimit: Duration? = nil,
        hardTimeLimit: Duration? = nil,
        heartbeatLimit: Duration? = nil,
        memoryLimit: ByteCount? = nil,
        expiresAfter: Duration? = nil,
        result: ResultPolicy = .keep,
        delivery: DeliveryGuarantee = .atLeastOnce,
        limits: [JobLimit] = [],
        requires: Set<String> = []
    ) {
        self.queue = queue
        self.priority = priority
        self.retry = retry
        self.retryOnly = retryOnly
        self.neverRetry = neverRetry
        self.neverRetryAfter = neverRetryAfter
        self.timeLimit = timeLimit
        self.hardTimeLimit = hardTimeLimit
        self.heartbeatLimit = heartbeatLimit
        self.memoryLimit = memoryLimit
        self.expiresAfter = expiresAfter
        self.result = result
        self.delivery = delivery
        self.limits = limits
        self.requires = requires
    }

    var runLimits: RunLimits {
        RunLimits(time: timeLimit, hardTime: hardTimeLimit, heartbeat: heartbeatLimit, memory: memoryLimit)
    }

    /// Whether a limit depends on the partition of the job.
    var hasPartitions: Bool { limits.contains { $0.scope.kind == .partition } }

    func mayRetry(_ error: any Error) -> Bool {
        let kind = type(of: error)
        if neverRetry.contains(where: { $0 == kind }) { return false }
        return retryOnly?.contains { $0 == kind } ?? true
    }
}

/// How long the result of a job is kept.
public struct ResultPolicy: Sendable, Hashable {
    enum Kind: Sendable, Hashable { case backendDefault, kept(Duration), ignored }
    let kind: Kind

    /// As long as the backend keeps results by default, which is a day.
    public static let keep = ResultPolicy(kind: .backendDefault)
    /// For `duration` after the job has ended.
    public static func keep(for duration: Duration) -> ResultPolicy { ResultPolicy(kind: .kept(duration)) }
    /// No result: nothing is left of a job that succeeded. A failed job still becomes a dead letter.
    public static let ignore = ResultPolicy(kind: .ignored)
}

/// What happens to a job when its worker dies.
public struct DeliveryGuarantee: Sendable, Hashable {
    let isAtMostOnce: Bool

    /// Another worker runs the job again.
    public static let atLeastOnce = DeliveryGuarantee(isAtMostOnce: false)
    /// The job does not run again; it becomes a dead letter that says so.
    public static let atMostOnce = DeliveryGuarantee(isAtMostOnce: true)
}
