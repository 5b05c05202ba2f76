/// A limit on how jobs start, kept by all workers of a backend together.
///
/// ```swift
/// struct SendMail: Job {
///     static let name = "mail.send"
///     var tenant: String
///     var partitionKey: String? { tenant }
///     static let options = JobOptions(limits: [
///         .rate(100, per: .seconds(1)),                                    // of this kind, in the whole cluster
///         .running(2, scope: .partition),                                  // of each tenant
///     ])
/// }
/// ```
/// A job over its limit takes no slot. It waits in a separate line, workers continue with the jobs behind it, and no
/// worker polls until the job may start. The jobs of one partition start in the order in which they arrived.
public struct JobLimit: Sendable, Hashable {
    /// What a limit counts.
    public struct Scope: Sendable, Hashable {
        package enum Kind: String, Sendable { case cluster = "c", partition = "p", worker = "w" }
        package let kind: Kind

        /// All jobs of the kind or the queue together. The default.
        public static let cluster = Scope(kind: .cluster)
        /// The jobs of each partition key separately, see ``Job/partitionKey``. Jobs without a key are not limited.
        public static let partition = Scope(kind: .partition)
        /// The jobs that each worker starts, separately: Celery's `rate_limit`.
        public static let worker = Scope(kind: .worker)
    }

    /// What happens to a job when the limit of running jobs is reached.
    public struct FullPolicy: Sendable, Hashable {
        package enum Kind: String, Sendable { case wait, drop, cancel }
        package let kind: Kind

        /// The job waits. The default.
        public static let wait = FullPolicy(kind: .wait)
        /// The new job is cancelled: the running job is enough.
        public static let dropNew = FullPolicy(kind: .drop)
        /// The oldest running job is asked to stop, waiting jobs are cancelled, and the new job runs: only the newest
        /// job counts.
        public static let cancelOld = FullPolicy(kind: .cancel)
    }

    package enum Kind: Sendable, Hashable {
        case rate(count: Int, per: Duration, burst: Int)
        case running(Int, FullPolicy)
        case ordered
        case fair
    }

    package let kind: Kind
    package let scope: Scope

    /// At most `count` starts in each `period`, spread evenly; after a pause up to `burst` − 1 more.
    /// - Parameters:
    ///   - count: 1 or more. A job of a higher cost counts as that number of starts, see ``EnqueueOption/cost(_:)``.
    ///   - period: more than 0.
    ///   - scope: which jobs are counted together.
    ///   - burst: the number of jobs that may start at once after a pause, 1 or more. By default the number that falls
    ///     into a tenth of a second.
    public static func rate(_ count: Int, per period: Duration, scope: Scope = .cluster, burst: Int? = nil) -> JobLimit
    {
        let count = max(1, count)
        let period = max(period, .microseconds(1))
        let usual = Double(count) * 0.1 / period.inSeconds
        return JobLimit(
            kind: .rate(count: count, per: period, burst: max(1, burst ?? Int(usual.clamped(to: 1...1_000_000)))),
            scope: scope)
    }

    /// At most `maximum` jobs run at a time.
    /// - Parameters:
    ///   - maximum: 1 or more.
    ///   - scope: which jobs are counted together. ``Scope/worker`` counts as ``Scope/cluster`` here, because lanes and
    ///     queue subscriptions limit the jobs of one worker.
    ///   - whenFull: what happens to a job when `maximum` jobs are running.
    public static func running(_ maximum: Int, scope: Scope = .cluster, whenFull: FullPolicy = .wait) -> JobLimit {
        JobLimit(kind: .running(max(1, maximum), whenFull), scope: scope.kind == .worker ? .cluster : scope)
    }

    /// Runs the jobs of each partition one after the other, in the order in which they leave the queue: for jobs of one
    /// priority, the order of enqueueing. A failed job keeps the others waiting until it was tried again or given up. A
    /// message whose producer did not set a partition key gets its place when a worker that knows its kind has seen it.
    public static let ordered = JobLimit(kind: .ordered, scope: .partition)

    /// Alternates between partitions, so that a partition with many jobs does not keep the other partitions waiting.
    public static let fair = JobLimit(kind: .fair, scope: .partition)
}

/// The target of a limit: a kind of job, or a queue.
public struct LimitTarget: Sendable, Hashable, CustomStringConvertible {
    package enum Kind: String, Sendable { case job = "j", queue = "q" }
    package let kind: Kind
    package let name: String

    package init(kind: Kind, name: String) {
        self.kind = kind
        self.name = name
    }

    /// The jobs of this wire name.
    public static func job(_ name: String) -> LimitTarget { LimitTarget(kind: .job, name: name) }
    public static func queue(_ name: String) -> LimitTarget { LimitTarget(kind: .queue, name: name) }

    public var description: String { (kind == .job ? "job " : "queue ") + name }

    /// As backends store it: `j:` and the name of a kind of job, or `q:` and the name of a queue.
    package var key: String { kind.rawValue + ":" + name }

    package init?(key: String) {
        guard let kind = key.first.flatMap({ Kind(rawValue: String($0)) }), key.dropFirst().first == ":" else {
            return nil
        }
        self.init(kind: kind, name: String(key.dropFirst(2)))
    }
}

extension JobLimit: CustomStringConvertible {
    /// The limit as the command line tool shows it: `100/s each partition`.
    public var description: String {
        let each = scope.kind == .partition ? " each partition" : scope.kind == .worker ? " each worker" : ""
        switch kind {
        case .rate(let count, let period, let burst):
            let unit: [Duration: String] = [
                .seconds(1): "s", .seconds(60): "min", .seconds(3600): "h", .seconds(86_400): "d",
            ]
            return "\(count)/\(unit[period] ?? "\(period)")\(burst > 1 ? ", \(burst) at once" : "")" + each
        case .running(let maximum, let policy):
            let word =
                policy.kind == .drop ? ", new ones dropped" : policy.kind == .cancel ? ", old ones cancelled" : ""
            return "\(maximum) running" + each + word
        case .ordered: return "one after the other" + each
        case .fair: return "turns between partitions"
        }
    }
}

extension JobLimit {
    /// The limit in a form that a backend may store.
    package var wireValue: WireValue {
        var value: WireValue.Object = ["w": .string(scope.kind.rawValue)]
        switch kind {
        case .rate(let count, let period, let burst):
            value["k"] = "rate"
            value["n"] = .integer(Int64(count))
            value["per"] = .integer(period.inMicroseconds)
            value["burst"] = .integer(Int64(burst))
        case .running(let maximum, let policy):
            value["k"] = "running"
            value["n"] = .integer(Int64(maximum))
            value["full"] = .string(policy.kind.rawValue)
        case .ordered: value["k"] = "ordered"
        case .fair: value["k"] = "fair"
        }
        return .object(value)
    }

    package init?(_ value: WireValue) {
        let scope = Scope(kind: value["w"]?.stringValue.flatMap(Scope.Kind.init(rawValue:)) ?? .cluster)
        let count = Int(clamping: value["n"]?.integerValue ?? 1)
        switch value["k"]?.stringValue {
        case "rate":
            self = .rate(
                count, per: .microseconds(value["per"]?.integerValue ?? 1_000_000), scope: scope,
                burst: Int(clamping: value["burst"]?.integerValue ?? 1))
        case "running":
            let policy = FullPolicy(kind: value["full"]?.stringValue.flatMap(FullPolicy.Kind.init(rawValue:)) ?? .wait)
            self = .running(count, scope: scope, whenFull: policy)
        case "ordered": self = .ordered
        case "fair": self = .fair
        default: return nil
        }
    }
}
