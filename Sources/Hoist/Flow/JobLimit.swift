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
/// A job over its limit holds no slot: it waits in a line of its own, workers go on with what is behind it, and nobody
/// polls until it may start. The jobs of one partition start in the order in which they came.
public struct JobLimit: Sendable, Hashable {
    /// What a limit counts.
    public struct Scope: Sendable, Hashable {
        package enum Kind: String, Sendable { case cluster = "c", partition = "p", worker = "w" }
        package let kind: Kind

        /// All jobs of the kind or the queue together. The default.
        public static let cluster = Scope(kind: .cluster)
        /// The jobs of each partition key apart, see ``Job/partitionKey``. Jobs without a key are not limited.
        public static let partition = Scope(kind: .partition)
        /// What each worker starts, apart: Celery's `rate_limit`.
        public static let worker = Scope(kind: .worker)
    }

    /// What becomes of a job that finds the limit of running jobs reached.
    public struct FullPolicy: Sendable, Hashable {
        package enum Kind: String, Sendable { case wait, drop, cancel }
        package let kind: Kind

        /// It waits for its turn. The default.
        public static let wait = FullPolicy(kind: .wait)
        /// It is cancelled: the one that runs is enough.
        public static let dropNew = FullPolicy(kind: .drop)
        /// The oldest that runs is asked to stop, those that wait are cancelled, and this one runs: only the newest
        /// counts.
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

    /// At most so many starts in a time, spread evenly; after a pause as many more as `burst` says, less one.
    /// - Parameters:
    ///   - count: 1 or more; a job that costs more counts for that many, see ``EnqueueOption/cost(_:)``.
    ///   - period: more than 0.
    ///   - scope: what is counted together.
    ///   - burst: how many may start at once after a pause, 1 or more. By default as many as fall into a tenth of a
    ///     second.
    public static func rate(_ count: Int, per period: Duration, scope: Scope = .cluster, burst: Int? = nil) -> JobLimit
    {
        let count = max(1, count)
        let period = max(period, .microseconds(1))
        let usual = Double(count) * 0.1 / period.inSeconds
        return JobLimit(
            kind: .rate(count: count, per: period, burst: max(1, burst ?? Int(usual.clamped(to: 1...1_000_000)))),
            scope: scope)
    }

    /// At most so many running at a time.
    /// - Parameters:
    ///   - maximum: 1 or more.
    ///   - scope: what is counted together; ``Scope/worker`` is what lanes and queue subscriptions are for, and counts
    ///     as the cluster here.
    ///   - whenFull: what becomes of a job that finds so many running.
    public static func running(_ maximum: Int, scope: Scope = .cluster, whenFull: FullPolicy = .wait) -> JobLimit {
        JobLimit(kind: .running(max(1, maximum), whenFull), scope: scope.kind == .worker ? .cluster : scope)
    }

    /// The jobs of each partition one after the other, in the order in which they come out of the queue, which is that
    /// of enqueueing for jobs of one priority. One that fails keeps the others waiting until it was tried again or
    /// given up. A message whose producer did not say what it belongs to has its place from when a worker that knows
    /// its kind has seen it.
    public static let ordered = JobLimit(kind: .ordered, scope: .partition)

    /// Partitions take turns, so that one with many jobs does not keep the others waiting.
    public static let fair = JobLimit(kind: .fair, scope: .partition)
}

/// What a limit is for: a kind of job, or a queue.
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
}

extension JobLimit: CustomStringConvertible {
    /// As the command line tool shows it: `100/s each partition`.
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
    /// As a backend may keep it.
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
