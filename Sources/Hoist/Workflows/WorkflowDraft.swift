/// The steps of a workflow while it is composed.
public struct WorkflowDraft: Sendable {
    /// What a step gets. The names are of one word, which are the same in every form of a stored key.
    public indirect enum Source: Sendable, Hashable, Codable {
        /// Nothing: the step has no input.
        case nothing
        /// What the workflow is started on.
        case given
        /// The output of a step, which must have succeeded.
        case output(Int)
        /// What became of a step, either way: a ``StepOutcome``.
        case outcome(Int)
        /// Why a step failed: a ``StepFailure``. Nothing runs where it succeeded.
        case failure(Int)
        /// The id of the job that failed.
        case culprit(Int)
        /// Several of these, as an array.
        case all([Source])

        /// The steps that it names, each once, in their order.
        var steps: [Int] {
            switch self {
            case .nothing, .given: return []
            case .output(let step), .outcome(let step), .failure(let step), .culprit(let step): return [step]
            case .all(let sources):
                var seen: Set<Int> = []
                return sources.flatMap(\.steps).filter { seen.insert($0).inserted }
            }
        }
    }

    struct Edge: Sendable, Hashable, Codable {
        var step: Int
        var policy: EdgePolicy
    }

    struct JobStep: Sendable {
        var name: String
        var secretArguments: Set<String>
        var defaults: JobOptions
        var keyword: WireValue.Object
        var partition: String?
        /// Where the input goes, when it does not go by place.
        var inputName: String?
        var options: [EnqueueOption]
    }

    /// The steps that run on one element.
    struct Inner: Sendable {
        var draft: WorkflowDraft
        var end: Int
        var name: String { draft.steps[end].name }
    }

    indirect enum Kind: Sendable {
        case job(JobStep)
        case forEach(Inner)
        /// Hands on what it gets.
        case gather
        /// Hands on the first of its sources that succeeded.
        case either
    }

    struct Step: Sendable {
        var name: String
        var kind: Kind
        var source: Source
        var after: [Edge]
    }

    /// The most steps that a plan may have, those within `forEach` included.
    public static let stepLimit = 100_000
    /// The deepest nesting of `forEach`.
    public static let depthLimit = 16

    var steps: [Step] = []
    /// Of every step that is added.
    var options: [EnqueueOption] = []
    /// What steps that hang on nothing else wait for.
    private var edges: [Edge] = []
    private var depth = 0
    private var innerSteps = 0

    mutating func add(_ kind: Kind, named name: String, on source: Source) throws -> Int {
        if case .forEach(let inner) = kind { innerSteps += inner.draft.steps.count + inner.draft.innerSteps }
        guard steps.count + innerSteps < Self.stepLimit else {
            throw WorkflowError(
                "the workflow has more than \(Self.stepLimit) steps; work whose number is large belongs into then(forEach:)"
            )
        }
        let isFree = source.steps.isEmpty
        steps.append(Step(name: name, kind: kind, source: source, after: isFree ? edges : []))
        return steps.count - 1
    }

    /// The step that hands a source on; one is added where the source is no output of a step.
    mutating func step(for source: Source) throws -> Int {
        if case .output(let step) = source { return step }
        return try add(.gather, named: "gather", on: source)
    }

    /// Adds steps that wait for others, where they hang on nothing else.
    mutating func after<T>(_ edges: [Edge], _ body: (inout WorkflowDraft) throws -> T) rethrows -> T {
        let outer = self.edges
        self.edges += edges.filter { !outer.contains($0) }
        defer { self.edges = outer }
        return try body(&self)
    }

    /// The steps that run on one element.
    mutating func inner(_ body: (inout WorkflowDraft) throws -> Source) throws -> Inner {
        guard depth < Self.depthLimit else {
            throw WorkflowError("then(forEach:) is nested more than \(Self.depthLimit) deep")
        }
        var inner = WorkflowDraft()
        (inner.options, inner.depth) = (options, depth + 1)
        let end = try inner.step(for: try body(&inner))
        return Inner(draft: inner, end: end)
    }
}
