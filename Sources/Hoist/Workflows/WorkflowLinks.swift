// What follows the success or the failure of a part of a workflow.

/// Why a step did not succeed, as the steps that hang on its failure get it.
public struct StepFailure: Codable, Sendable, Hashable {
    /// The id of the job that failed.
    public var jobID: JobID
    /// The name of its step.
    public var step: String
    /// The type of the error.
    public var type: String
    /// What the error said.
    public var message: String

    public init(jobID: JobID, step: String, type: String, message: String) {
        (self.jobID, self.step, self.type, self.message) = (jobID, step, type, message)
    }
}

/// What became of a step, for those that run either way.
public enum StepOutcome<Output: Codable & Sendable>: Codable, Sendable {
    case succeeded(Output)
    case failed(StepFailure)

    private enum CodingKeys: String, CodingKey { case output, failure }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        if let failure = try container.decodeIfPresent(StepFailure.self, forKey: .failure) {
            self = .failed(failure)
        } else if Output.self == NoOutput.self, let nothing = NoOutput() as? Output {
            self = .succeeded(nothing)
        } else {
            self = .succeeded(try container.decode(Output.self, forKey: .output))
        }
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        switch self {
        case .succeeded(let output): try container.encode(output, forKey: .output)
        case .failed(let failure): try container.encode(failure, forKey: .failure)
        }
    }
}

/// A workflow with a further one that runs beside what follows it.
public struct Linked<Base: Workflow, Link: Workflow>: Workflow {
    public typealias Input = Base.Input
    public typealias Output = Base.Output

    enum Cause { case success, failure, failedJob }

    private let base: Base
    private let link: Link
    private let cause: Cause

    init(_ base: Base, _ link: Link, on cause: Cause) { (self.base, self.link, self.cause) = (base, link, cause) }

    public func addSteps(to draft: inout WorkflowDraft, on source: WorkflowDraft.Source) throws -> WorkflowDraft.Source
    {
        let end = try draft.step(for: try base.addSteps(to: &draft, on: source))
        let from: WorkflowDraft.Source =
            switch cause {
            case .success: .output(end)
            case .failure: .failure(end)
            case .failedJob: .culprit(end)
            }
        _ = try link.addSteps(to: &draft, on: from)
        return .output(end)
    }
}

/// A workflow with another one whose output takes the place of its own when it fails.
public struct Recovering<Base: Workflow, Fallback: Workflow>: Workflow
where Fallback.Input == StepFailure, Fallback.Output == Base.Output {
    public typealias Input = Base.Input
    public typealias Output = Base.Output
    private let base: Base
    private let fallback: Fallback

    init(_ base: Base, _ fallback: Fallback) { (self.base, self.fallback) = (base, fallback) }

    public func addSteps(to draft: inout WorkflowDraft, on source: WorkflowDraft.Source) throws -> WorkflowDraft.Source
    {
        let end = try draft.step(for: try base.addSteps(to: &draft, on: source))
        let other = try draft.step(for: try fallback.addSteps(to: &draft, on: .failure(end)))
        return .output(try draft.add(.either, named: "recover", on: .all([.output(end), .output(other)])))
    }
}

extension Workflow {
    /// Runs beside what follows, on the output of this one.
    public func onSuccess<Link: Workflow>(_ link: Link) -> Linked<Self, Link> where Link.Input == Output {
        Linked(self, link, on: .success)
    }

    /// Runs when this one, or a step inside it, has failed for good.
    public func onFailure<Link: Workflow>(_ link: Link) -> Linked<Self, Link> where Link.Input == StepFailure {
        Linked(self, link, on: .failure)
    }

    /// Runs when this one, or a step inside it, has failed for good, on the id of the job that failed: what an errback of
    /// Celery's gets.
    public func onFailure<Link: Workflow>(_ link: Link) -> Linked<Self, Link> where Link.Input == JobID {
        Linked(self, link, on: .failedJob)
    }

    /// Runs when this one has failed for good. Its output takes the place of the missing one, and what follows goes on.
    public func recover<Fallback: Workflow>(with fallback: Fallback) -> Recovering<Self, Fallback> {
        Recovering(self, fallback)
    }
}
