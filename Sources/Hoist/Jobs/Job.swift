/// A kind of job: a value with the arguments of one call, under a name that is used on the wire.
///
/// Producer and worker share the declaration; the code that does the work is registered in the worker alone, see
/// ``Handler``.
/// ```swift
/// struct ProcessVideo: Job {
///     static let name = "tasks.process_video_heavy"
///     var videoID: String                                // travels as the keyword argument video_id
///     typealias Output = VideoReport
///     static let options = JobOptions(queue: "media", retry: .exponential(maxAttempts: 5))
/// }
/// ```
/// Stored properties are the keyword arguments, in snake_case unless the type writes its `CodingKeys` out as `String`.
/// Arguments that arrive by place bind in declaration order.
///
/// A job may also declare an `Input`: what arrives by place, from the caller or from the step of a workflow before it. The
/// input is the first positional argument on the wire, and the handler gets it beside the job.
public protocol Job: Codable, Workflow {

    /// The wire name. Written out, never derived, so that renaming the type strands no message.
    static var name: String { get }
    /// Names under which older producers still send this job. Empty by default.
    static var aliases: [String] { get }
    /// Defaults for every call of this job.
    static var options: JobOptions { get }
    /// The name of the keyword argument as which the input may come too; nil by default: it comes by place alone.
    static var inputName: String? { get }
    /// Values for arguments that a message does not have, by their wire names: those of a version of the job before
    /// the argument came, or of a Python caller that leaves a parameter with a default out. Empty by default.
    ///
    /// ```swift
    /// static let defaultArguments: WireObject = ["size": 800]
    /// ```
    static var defaultArguments: WireObject { get }
    /// Whether an argument that the job does not know is ignored, as one of a newer producer may be. False by default:
    /// the job waits for a worker that knows the argument, and is a dead letter once every live worker of its queue
    /// has refused it.
    static var ignoresUnknownArguments: Bool { get }
    /// Wire names of arguments that logs, monitors and pages must not show. Empty by default.
    static var secretArguments: Set<String> { get }
    /// The unique key of every call that does not name another with ``EnqueueOption/unique(_:)``. nil by default. Copies
    /// that are published or broadcast, steps of workflows, runs of schedules, and jobs that are enqueued by their name
    /// alone have none.
    var uniqueKey: UniqueKey? { get }
    /// The partition of this job, for limits and fairness that are kept for each partition: a tenant, an account, an
    /// API token. nil by default: no partition. See ``JobLimit/Scope/partition``.
    var partitionKey: String? { get }
}

extension Job {
    public static var aliases: [String] { [] }
    public static var options: JobOptions { JobOptions() }
    public static var inputName: String? { nil }
    public static var defaultArguments: WireObject { [:] }
    public static var ignoresUnknownArguments: Bool { false }
    public static var secretArguments: Set<String> { [] }
    public var uniqueKey: UniqueKey? { nil }
    public var partitionKey: String? { nil }
}

/// The output of a job that returns nothing. It is `null` on the wire.
public struct NoOutput: Codable, Sendable, Hashable {
    public init() {}

    public init(from decoder: any Decoder) throws {}

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encodeNil()
    }
}
