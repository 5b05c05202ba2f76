/// Where a handler runs.
public struct LaneKind: Sendable, Hashable, CustomStringConvertible {
    package let name: String
    public var description: String { name }

    /// On Swift's cooperative threads, thousands at once. For code that awaits.
    public static let async = LaneKind(name: "async")
    /// On threads of the worker's own, one job a thread. For code that blocks or computes for long.
    public static let blocking = LaneKind(name: "blocking")
    /// In processes of their own, one job a process at a time. For code that may crash, leak or hang: only that job
    /// pays, and limits on time and memory are kept by force. See <doc:Isolation>.
    public static let process = LaneKind(name: "process")

    package static let all = [LaneKind.async, .blocking, .process]

    /// Slots of a lane that a worker says nothing of.
    var defaultSlots: Int {
        switch self {
        case .async: 64
        case .process: max(2, ProcessIdentity.processorCount)
        default: 4
        }
    }
}

/// How many slots a lane of a worker has: how many jobs it runs at once, where each takes one.
public struct Lane: Sendable, Hashable {
    package let kind: LaneKind
    package let range: ClosedRange<Int>
    /// Slots at the start.
    package var slots: Int { range.lowerBound }

    private init(_ kind: LaneKind, _ range: ClosedRange<Int>) {
        self.kind = kind
        self.range = max(1, range.lowerBound)...max(1, range.upperBound)
    }

    /// - Parameter slots: 1 or more; less counts as 1.
    public static func async(_ slots: Int) -> Lane { Lane(.async, slots...slots) }
    public static func blocking(_ slots: Int) -> Lane { Lane(.blocking, slots...slots) }
    /// - Parameter slots: as many child processes.
    public static func process(_ slots: Int) -> Lane { Lane(.process, slots...slots) }
    package static func of(_ kind: LaneKind, _ slots: ClosedRange<Int>) -> Lane { Lane(kind, slots) }
    /// As many slots as there is work for, within a range: see ``Autoscaling``.
    public static func blocking(_ slots: ClosedRange<Int>) -> Lane { Lane(.blocking, slots) }
    public static func process(_ slots: ClosedRange<Int>) -> Lane { Lane(.process, slots) }
}

/// The code that performs one kind of job.
///
/// ```swift
/// Handler(ProcessVideo.self, in: .blocking) { job, context in
///     try await context.report(progress: 0.5, "halfway")
///     return VideoReport(…)
/// }
/// ```
public struct Handler: Sendable {
    /// The wire names that it performs, aliases included.
    public let names: [String]
    private(set) var lane: LaneKind
    private(set) var options: JobOptions
    private(set) var slots = 1
    private(set) var resources: [String: Int] = [:]
    let perform: @Sendable (Arguments, JobContext) async throws -> [UInt8]
    /// What a job with these arguments belongs to.
    let partition: @Sendable (Arguments) -> String?
    private(set) var hooks = Hooks()

    struct Hooks: Sendable {
        var start: [@Sendable (JobContext) async -> Void] = []
        var success: [@Sendable (JobContext) async -> Void] = []
        var retry: [@Sendable (JobContext, JobFailure) async -> Void] = []
        var failure: [@Sendable (JobContext, JobFailure) async -> Void] = []
        var finish: [@Sendable (JobContext) async -> Void] = []
    }

    /// - Parameters:
    ///   - job: the kind of job.
    ///   - lane: where the handler runs. Nothing else about it changes with the lane.
    ///   - perform: may run more than once for a job, see the guarantees; throw ``JobDirective`` to decide what comes
    ///     next.
    // Disfavoured, so that a closure which only throws counts as one without output where the job has none.
    @_disfavoredOverload
    public init<J: Job>(
        _ job: J.Type, in lane: LaneKind = .async,
        _ perform: @escaping @Sendable (J, JobContext) async throws -> J.Output
    ) where J.Input == NoInput {
        self.init(job, in: lane) { job, _, context in try await perform(job, context) }
    }

    /// A handler of a job with an input.
    /// - Parameters:
    ///   - job: the kind of job.
    ///   - lane: where the handler runs.
    ///   - perform: gets the job, its input and the context.
    @_disfavoredOverload
    public init<J: Job>(
        _ job: J.Type, in lane: LaneKind = .async,
        _ perform: @escaping @Sendable (J, J.Input, JobContext) async throws -> J.Output
    ) {
        names = [J.name] + J.aliases
        for name in names { SecretNames.note(J.secretArguments, of: name) }
        self.lane = lane
        options = J.options
        self.perform = { arguments, context in
            let (job, input) = try arguments.bind(job: J.self)
            return try Self.encoded(try await perform(job, input, context))
        }
        partition = { arguments in (try? arguments.bind(job: J.self))?.job.partitionKey }
    }

    /// A handler of a job with an input and without output.
    public init<J: Job>(
        _ job: J.Type, in lane: LaneKind = .async,
        _ perform: @escaping @Sendable (J, J.Input, JobContext) async throws -> Void
    ) where J.Output == NoOutput {
        self.init(job, in: lane) { (job: J, input: J.Input, context: JobContext) -> NoOutput in
            try await perform(job, input, context)
            return NoOutput()
        }
    }

    /// A handler of a job without output.
    public init<J: Job>(
        _ job: J.Type, in lane: LaneKind = .async, _ perform: @escaping @Sendable (J, JobContext) async throws -> Void
    ) where J.Output == NoOutput, J.Input == NoInput {
        self.init(job, in: lane) { (job: J, context: JobContext) -> NoOutput in
            try await perform(job, context)
            return NoOutput()
        }
    }

    /// A handler of jobs that this program has no type for: the arguments as they came, and an output as it will
    /// travel.
    ///
    /// Prefer a ``Job``, which binds and checks its arguments. This one is for names that are known only at run time,
    /// and for Python functions with `*args`.
    /// - Parameters:
    ///   - names: the wire name, and aliases.
    ///   - lane: where the handler runs.
    ///   - options: what a job's own options would say.
    ///   - partition: what a job belongs to, see ``Job/partitionKey``.
    ///   - perform: gets the arguments as they came.
    public init(
        named names: String..., in lane: LaneKind = .async, options: JobOptions = JobOptions(),
        partition: @escaping @Sendable (Arguments) -> String? = { _ in nil },
        _ perform: @escaping @Sendable (Arguments, JobContext) async throws -> WireValue
    ) {
        self.names = names
        self.lane = lane
        self.options = options
        self.perform = { arguments, context in try Self.encoded(try await perform(arguments, context)) }
        self.partition = partition
    }

    /// - Throws: ``WorkerError`` for limits that cannot be kept where the handler runs.
    func check(_ limits: RunLimits) throws(WorkerError) {
        #if !os(Linux)
        guard limits.memory == nil else {
            throw WorkerError(
                message: "\(names[0]) has a memory limit, and on this system memory cannot be watched: Linux can")
        }
        #endif
        guard lane != .process, limits.needsProcess else { return }
        let limit = limits.hardTime != nil ? "a hard time limit" : "a memory limit"
        throw WorkerError(
            message:
                "\(names[0]) has \(limit), and code in the \(lane) lane cannot be stopped: register it with in: .process, or use timeLimit, which asks it to stop"
        )
    }

    /// The output as JSON.
    /// - Throws: ``JobFailure`` when it is nothing that could be read again.
    private static func encoded(_ output: some Encodable) throws -> [UInt8] {
        do {
            let value = try WireEncoder.encode(output)
            let bytes = JSONWriter.bytes(of: value)
            try WireLimits.default.check(value, encodedAs: bytes)
            return bytes
        } catch {
            throw JobFailure(kind: .notEncodable, type: "\(type(of: error))", message: "\(error)")
        }
    }

    /// Called before each attempt.
    public func onStart(_ hook: @escaping @Sendable (JobContext) async -> Void) -> Handler {
        with { $0.start.append(hook) }
    }
    public func onSuccess(_ hook: @escaping @Sendable (JobContext) async -> Void) -> Handler {
        with { $0.success.append(hook) }
    }
    /// Called when an attempt failed and another follows.
    public func onRetry(_ hook: @escaping @Sendable (JobContext, JobFailure) async -> Void) -> Handler {
        with { $0.retry.append(hook) }
    }
    /// Called when the job failed for good and becomes a dead letter.
    public func onFailure(_ hook: @escaping @Sendable (JobContext, JobFailure) async -> Void) -> Handler {
        with { $0.failure.append(hook) }
    }
    /// Called after each attempt, whatever came of it.
    public func onFinish(_ hook: @escaping @Sendable (JobContext) async -> Void) -> Handler {
        with { $0.finish.append(hook) }
    }

    /// How many slots of its lane a job takes; 1 by default. More than the lane has, and the worker refuses to start.
    public func slots(_ count: Int) -> Handler {
        var copy = self
        copy.slots = max(1, count)
        return copy
    }

    /// What a job takes, while it runs, of something that the worker has only so much of, see
    /// ``Worker/Configuration/resources``.
    /// - Parameters:
    ///   - resource: `gpu`, `license`: any name.
    ///   - amount: 1 by default.
    public func needs(_ resource: String, _ amount: Int = 1) -> Handler {
        var copy = self
        copy.resources[resource] = max(0, amount)
        return copy
    }

    /// The same handler where no child can be had, without the limits that only a process can keep.
    package func inThisProcess() -> Handler {
        guard lane == .process else { return self }
        var copy = self
        copy.lane = .async
        (copy.options.hardTimeLimit, copy.options.memoryLimit) = (nil, nil)
        return copy
    }

    private func with(_ change: (inout Hooks) -> Void) -> Handler {
        var copy = self
        change(&copy.hooks)
        return copy
    }
}

/// A handler as a worker keeps it: by reference, for every job under way holds on to one.
final class RegisteredHandler: Sendable {
    let lane: LaneKind
    let options: JobOptions
    let hooks: Handler.Hooks
    let needs: SlotNeeds
    let perform: @Sendable (Arguments, JobContext) async throws -> [UInt8]
    let partition: @Sendable (Arguments) -> String?

    init(_ handler: Handler) {
        lane = handler.lane
        needs = SlotNeeds(lane: handler.lane, slots: handler.slots, resources: handler.resources)
        options = handler.options
        hooks = handler.hooks
        perform = handler.perform
        partition = handler.partition
    }
}

/// Collects the handlers of a worker.
@resultBuilder
public enum HandlerBuilder {
    public static func buildExpression(_ handler: Handler) -> [Handler] { [handler] }
    public static func buildExpression(_ handlers: [Handler]) -> [Handler] { handlers }
    public static func buildBlock(_ parts: [Handler]...) -> [Handler] { parts.flatMap { $0 } }
    public static func buildOptional(_ part: [Handler]?) -> [Handler] { part ?? [] }
    public static func buildEither(first: [Handler]) -> [Handler] { first }
    public static func buildEither(second: [Handler]) -> [Handler] { second }
    public static func buildArray(_ parts: [[Handler]]) -> [Handler] { parts.flatMap { $0 } }
}

/// Runs around the performing of every job, in the lane of its handler.
public protocol PerformMiddleware: Sendable {
    /// - Parameters:
    ///   - context: the job that is to be performed.
    ///   - next: performs the job. What it throws decides the outcome, unless this method throws something else.
    /// - Throws: any error: it decides the outcome as if the handler had thrown it. ``JobDirective`` and the job's
    ///   retry policy say whether the job is tried again.
    func perform(_ context: JobContext, next: @Sendable () async throws -> Void) async throws
}
