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
public protocol Job: Codable, Sendable {
    /// The output of the job. A job that declares none returns nothing.
    associatedtype Output: Codable & Sendable = NoOutput

    /// The wire name. Written out, never derived, so that renaming the type strands no message.
    static var name: String { get }
    /// Names under which older producers still send this job. Empty by default.
    static var aliases: [String] { get }
    /// Defaults for every call of this job.
    static var options: JobOptions { get }
    /// Wire names of arguments that logs, monitors and pages must not show. Empty by default.
    static var secretArguments: Set<String> { get }
    /// The partition of this job, for limits and fairness that are kept for each partition: a tenant, an account, an
    /// API token. nil by default: no partition. See ``JobLimit/Scope/partition``.
    var partitionKey: String? { get }
}

extension Job {
    public static var aliases: [String] { [] }
    public static var options: JobOptions { JobOptions() }
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
