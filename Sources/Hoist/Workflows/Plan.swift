/// The steps of a workflow as they are stored: once, when it is enqueued.
struct Plan: Sendable, Codable {
    /// Names of one word, which are the same in every form of a key.
    indirect enum Kind: Sendable, Codable {
        /// The envelope of the step's message, but for its id, its input and its times.
        case job(template: String, input: String?)
        /// Runs another plan on each element.
        case each(Plan)
        /// Hands on what it gets.
        case gather
        /// Hands on the first of its sources that succeeded.
        case either
    }

    struct Step: Sendable, Codable {
        var name: String
        var kind: Kind
        var source: WorkflowDraft.Source
        var after: [WorkflowDraft.Edge]

        /// The steps that it waits for, each once.
        var parents: [Int] {
            var seen: Set<Int> = []
            return (source.steps + after.map(\.step)).filter { seen.insert($0).inserted }
        }
    }

    var steps: [Step]
    /// The step whose output is that of the plan.
    var end: Int
}

/// A plan with what is found out about it once.
final class IndexedPlan: Sendable {
    let plan: Plan
    /// Of each step the steps that it waits for.
    let parents: [[Int]]
    /// Of each step the steps that wait for it.
    let dependents: [[Int]]
    /// The plans of steps that run on each element.
    let inner: [Int: IndexedPlan]

    /// - Throws: ``WorkflowError`` when a step refers to none.
    init(_ plan: Plan) throws(WorkflowError) {
        self.plan = plan
        parents = plan.steps.map(\.parents)
        var dependents = [[Int]](repeating: [], count: plan.steps.count)
        var inner: [Int: IndexedPlan] = [:]
        for (index, step) in plan.steps.enumerated() {
            for parent in parents[index] {
                // A plan is put together from front to back: no step waits for a later one, so that none waits for itself.
                guard parent >= 0, parent < index else {
                    throw WorkflowError("the stored plan refers to a step that is not there")
                }
                dependents[parent].append(index)
            }
            if case .each(let plan) = step.kind { inner[index] = try IndexedPlan(plan) }
        }
        guard plan.steps.indices.contains(plan.end) else { throw WorkflowError("the stored plan has no end") }
        self.dependents = dependents
        self.inner = inner
    }
}

extension IndexedPlan {
    /// The id of a step's job. The job whose output is that of the workflow has the id of the workflow.
    /// - Parameter prefix: what comes in front of the number within a `forEach`.
    func jobID(of number: Int, behind prefix: [Int], in workflow: String) -> JobID {
        prefix.isEmpty && number == plan.end ? workflow : WorkflowStep.id(workflow, prefix + [number])
    }
}

/// A step of a workflow, as the message of its job names it.
public struct WorkflowStep: Sendable, Hashable {
    /// The id of the workflow.
    public var workflow: String
    /// The number of the step in its plan; within a `forEach` the number of that step and of the element come first.
    public var path: [Int]

    package init(workflow: String, path: [Int]) { (self.workflow, self.path) = (workflow, path) }

    init?(_ value: WireValue) {
        guard let workflow = value["id"]?.stringValue, (1...1024).contains(workflow.utf8.count),
            let numbers = value["path"]?.arrayValue, numbers.count % 2 == 1,
            numbers.count <= 2 * WorkflowDraft.depthLimit + 1
        else { return nil }
        var path: [Int] = []
        for number in numbers {
            guard let number = number.integerValue, (0...1_000_000_000).contains(number) else { return nil }
            path.append(Int(number))
        }
        self.init(workflow: workflow, path: path)
    }

    var wireValue: WireValue {
        ["id": .string(workflow), "path": .array(path.map { .integer(Int64($0)) })]
    }

    /// The id of the step, which is that of its job unless the job is the end of the workflow.
    var id: JobID { Self.id(workflow, path) }
    /// The group in which the parents of the step are counted.
    var parentsGroup: String { id + "/in" }
    /// The group in which the elements that the step runs on are counted.
    var elementsGroup: String { id + "/each" }

    static func id(_ workflow: String, _ path: some Sequence<Int>) -> JobID {
        path.reduce(into: workflow) { id, number in id += ".\(number)" }
    }
}

/// The end of a step's job.
public struct StepEnd: Sendable {
    package enum Result: Sendable {
        case succeeded(WireValue)
        case failed(StepFailure)
        /// It was not to run, or was cancelled.
        case skipped
    }

    package var step: WorkflowStep
    package var jobID: JobID
    package var result: Result

    package init(_ step: WorkflowStep, jobID: JobID, result: Result) {
        (self.step, self.jobID, self.result) = (step, jobID, result)
    }
}

extension StepEnd.Result {
    init(_ part: GroupPart) {
        switch part.state {
        case .succeeded: self = .succeeded(part.output)
        case .failed:
            let failure =
                (try? WireDecoder.decode(StepFailure.self, from: part.output))
                ?? StepFailure(
                    jobID: part.member, step: "", type: part.failure?.type ?? "Unknown",
                    message: part.failure?.message ?? "")
            self = .failed(failure)
        default: self = .skipped
        }
    }

    func part(_ member: JobID, index: Int) -> GroupPart {
        switch self {
        case .succeeded(let output): GroupPart(member: member, index: Int64(index), state: .succeeded, output: output)
        case .failed(let failure):
            GroupPart(
                member: member, index: Int64(index), state: .failed,
                output: (try? WireEncoder.encode(failure)) ?? .null,
                failure: JobFailure(kind: .raised, type: failure.type, message: failure.message))
        case .skipped: GroupPart(member: member, index: Int64(index), state: .cancelled)
        }
    }
}

/// The end of a workflow: what it hands on is decided.
public struct WorkflowEnd: Sendable, Hashable {
    public var workflow: String
    public var state: WorkflowState

    public init(_ workflow: String, _ state: WorkflowState) { (self.workflow, self.state) = (workflow, state) }
}

public enum WorkflowState: String, Sendable, Hashable, Codable, CaseIterable {
    case running, succeeded, failed
    /// No further step starts. Steps that run are told to stop.
    case cancelled

    public var hasEnded: Bool { self != .running }

    /// A step that is given another life may turn a failure into a success.
    package func mayBecome(_ other: WorkflowState) -> Bool {
        self == .running || self == .failed && other == .succeeded
    }
}
