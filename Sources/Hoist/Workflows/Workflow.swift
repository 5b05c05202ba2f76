/// Jobs that are composed: what each step needs, and what it hands on, is checked by the compiler.
///
/// A job is the smallest workflow. Larger ones come from composing:
/// ```swift
/// let flow = Download(url: url).then(Split()).then(forEach: Transcode(codec: "av1")).then(Join()).onFailure(Warn())
/// let report: Report = try await jobs.enqueue(flow).output()
/// ```
/// A workflow is a value. Its plan is stored once when it is enqueued, and each step starts in the settlement of the step
/// before it. See the article Workflows.
public protocol Workflow<Input, Output>: Sendable {
    /// What it is started on: what the caller gives, or the output of the step before. None by default.
    associatedtype Input: Codable & Sendable = NoInput
    /// What it hands on. None by default.
    associatedtype Output: Codable & Sendable = NoOutput

    /// Adds the steps of the workflow to a draft. Composed workflows implement it; a program that uses them calls
    /// ``JobClient/enqueue(_:_:)->WorkflowHandle<W.Output>`` instead.
    /// - Parameters:
    ///   - draft: the steps so far.
    ///   - source: what the workflow is started on.
    /// - Returns: what the workflow hands on.
    /// - Throws: ``WorkflowError`` for a composition that makes no sense, and `EncodingError` for a step that does not
    ///   encode.
    func addSteps(to draft: inout WorkflowDraft, on source: WorkflowDraft.Source) throws -> WorkflowDraft.Source
}

/// The input of a workflow that needs none. It is never sent.
public struct NoInput: Codable, Sendable, Hashable {
    public init() {}
}

/// A workflow cannot be enqueued, or a step of one cannot go on. Nothing is stored; a retry cannot help.
public struct WorkflowError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What is wrong, with the step that it concerns.
    public var message: String

    package init(_ message: String) { self.message = message }

    public var description: String { message }
}

extension Job {
    public func addSteps(to draft: inout WorkflowDraft, on source: WorkflowDraft.Source) throws -> WorkflowDraft.Source
    {
        let step = WorkflowDraft.JobStep(
            name: Self.name, secretArguments: Self.secretArguments, defaults: Self.options,
            keyword: try WireEncoder.encodeArguments(self), partition: partitionKey, inputName: Self.inputName,
            options: draft.options)
        return .output(try draft.add(.job(step), named: Self.name, on: Input.self == NoInput.self ? .nothing : source))
    }
}

// MARK: - One after the other

/// Two workflows, the second on what the first hands on.
public struct Chain<First: Workflow, Second: Workflow>: Workflow {
    public typealias Input = First.Input
    public typealias Output = Second.Output
    private let first: First
    private let second: Second
    /// Whether the second gets nothing from the first.
    private let isDetached: Bool

    init(_ first: First, _ second: Second, isDetached: Bool = false) {
        (self.first, self.second, self.isDetached) = (first, second, isDetached)
    }

    public func addSteps(to draft: inout WorkflowDraft, on source: WorkflowDraft.Source) throws -> WorkflowDraft.Source
    {
        let middle = try first.addSteps(to: &draft, on: source)
        guard isDetached else { return try second.addSteps(to: &draft, on: middle) }
        let edges = middle.steps.map { WorkflowDraft.Edge(step: $0, policy: .succeeded) }
        return try draft.after(edges) { draft throws in try second.addSteps(to: &draft, on: .nothing) }
    }
}

extension Workflow {
    /// What comes next runs on the output of this one.
    public func then<Next: Workflow>(_ next: Next) -> Chain<Self, Next> where Next.Input == Output {
        Chain(self, next)
    }

    /// What comes next runs once this one has succeeded, and gets nothing from it: an immutable signature, in Celery's
    /// words.
    public func followed<Next: Workflow>(by next: Next) -> Chain<Self, Next> where Next.Input == NoInput {
        Chain(self, next, isDetached: true)
    }

    /// What comes next runs once for each element of the output, all elements at once. The outputs are handed on in the
    /// order of the elements. An element that fails fails the whole, once all elements have ended.
    public func then<Each: Workflow>(forEach next: Each) -> Chain<Self, ForEach<Each>> where Output == [Each.Input] {
        Chain(self, ForEach(next))
    }
}

/// A workflow that runs once for each element of its input.
public struct ForEach<Each: Workflow>: Workflow {
    public typealias Input = [Each.Input]
    public typealias Output = [Each.Output]
    private let each: Each

    /// - Parameter each: runs on each element. The number of elements is known only at run time.
    public init(_ each: Each) { self.each = each }

    public func addSteps(to draft: inout WorkflowDraft, on source: WorkflowDraft.Source) throws -> WorkflowDraft.Source
    {
        let inner = try draft.inner { draft throws in try each.addSteps(to: &draft, on: .given) }
        return .output(try draft.add(.forEach(inner), named: inner.name, on: source))
    }
}

// MARK: - Beside each other

/// Any number of workflows of one type, each on the same input. Their outputs are handed on in order.
public struct Group<Member: Workflow>: Workflow {
    public typealias Input = Member.Input
    public typealias Output = [Member.Output]
    private let members: [Member]

    public init(_ members: [Member]) { self.members = members }

    public func addSteps(to draft: inout WorkflowDraft, on source: WorkflowDraft.Source) throws -> WorkflowDraft.Source
    {
        .all(try members.map { try $0.addSteps(to: &draft, on: source) })
    }
}

/// Workflows of different types, each on the same input. Their outputs are handed on together, see ``Joined``.
public struct All<Input: Codable & Sendable, each MemberOutput: Codable & Sendable>: Workflow {
    public typealias Output = Joined<repeat each MemberOutput>
    private let members: (repeat any Workflow<Input, each MemberOutput>)

    public init(_ members: repeat any Workflow<Input, each MemberOutput>) { self.members = (repeat each members) }

    public func addSteps(to draft: inout WorkflowDraft, on source: WorkflowDraft.Source) throws -> WorkflowDraft.Source
    {
        var sources: [WorkflowDraft.Source] = []
        for member in repeat each members { sources.append(try member.addSteps(to: &draft, on: source)) }
        return .all(sources)
    }
}

/// Values of different types, in order: an array on the wire.
public struct Joined<each Value: Codable & Sendable>: Codable, Sendable {
    public let values: (repeat each Value)

    public init(_ values: repeat each Value) { self.values = (repeat each values) }

    public init(from decoder: any Decoder) throws {
        var container = try decoder.unkeyedContainer()
        values = (repeat try container.decode((each Value).self))
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.unkeyedContainer()
        for value in repeat each values { try container.encode(value) }
    }
}

// MARK: - Options of a part

/// A workflow whose steps have further options.
public struct Configured<Base: Workflow>: Workflow {
    public typealias Input = Base.Input
    public typealias Output = Base.Output
    private let base: Base
    private let options: [EnqueueOption]
    private let name: String?

    init(_ base: Base, _ options: [EnqueueOption], name: String? = nil) {
        (self.base, self.options, self.name) = (base, options, name)
    }

    public func addSteps(to draft: inout WorkflowDraft, on source: WorkflowDraft.Source) throws -> WorkflowDraft.Source
    {
        let outer = draft.options
        draft.options += options
        defer { draft.options = outer }
        let end = try base.addSteps(to: &draft, on: source)
        if let name { for step in end.steps { draft.steps[step].name = name } }
        return end
    }
}

extension Workflow {
    /// Options of every step of this part. Options of a step within override them.
    public func with(_ options: EnqueueOption...) -> Configured<Self> { Configured(self, options) }

    /// A name for the last step of this part, by which a person knows it. By default a step has the name of its job.
    public func named(_ name: String) -> Configured<Self> { Configured(self, [], name: name) }
}

// MARK: - Steps of other programs

/// A step that this program has no type for: a job of another Swift program, or a Python task.
public struct Named<Input: Codable & Sendable, Output: Codable & Sendable>: Workflow {
    private let name: String
    private let queue: String?
    private let keyword: WireValue.Object

    /// - Parameters:
    ///   - name: the wire name.
    ///   - queue: where its workers look; nil for the queue of the routing rules.
    ///   - keyword: the keyword arguments. The input is the first positional argument.
    public init(_ name: String, queue: String? = nil, _ keyword: [String: WireValue] = [:]) {
        self.name = name
        self.queue = queue
        var object: WireValue.Object = [:]
        for (key, value) in keyword.sorted(by: { $0.key < $1.key }) { object[key] = value }
        self.keyword = object
    }

    public func addSteps(to draft: inout WorkflowDraft, on source: WorkflowDraft.Source) throws -> WorkflowDraft.Source
    {
        let step = WorkflowDraft.JobStep(
            name: name, secretArguments: [], defaults: JobOptions(queue: queue), keyword: keyword, partition: nil,
            inputName: nil, options: draft.options)
        return .output(try draft.add(.job(step), named: name, on: Input.self == NoInput.self ? .nothing : source))
    }
}
