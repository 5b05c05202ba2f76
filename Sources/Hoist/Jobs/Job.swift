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
    /// Wire names of arguments that logs, monitors and pages must not show. Empty by default.
    static var secretArguments: Set<String> { get }
    /// The partition of this job, for limits and fairness that are kept for each partition: a tenant, an account, an
    /// API token. nil by default: no partition. See ``JobLimit/Scope/partition``.
    var partitionKey: String? { get }
}

extension Job {
    public static var aliases: [String] { [] }
    public static var options: JobOptions { JobOptions() }
    public static var inputName: String? { nil }
    public static var secretArguments: Set<String> { [] }
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
