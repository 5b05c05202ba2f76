/// A workflow of steps that hang on any number of others.
///
/// ```swift
/// let flow = Graph { graph in
///     let video = graph.add(Download(url: url))
///     let report = graph.add(Report(), on: video)
///     let text = graph.add(Transcribe(), on: video)
///     graph.add(CleanUp(), after: report, text, if: .ended)
///     return graph.add(Publish(), on: report, text.outcome)
/// }
/// ```
public struct Graph<Output: Codable & Sendable>: Workflow {
    public typealias Input = NoInput
    private let build: @Sendable (inout GraphBuilder) throws -> GraphNode<Output>

    /// - Parameter build: adds the steps, and returns the one whose output is the graph's. Called when the workflow is
    ///   enqueued.
    public init(_ build: @escaping @Sendable (inout GraphBuilder) throws -> GraphNode<Output>) { self.build = build }

    public func addSteps(to draft: inout WorkflowDraft, on source: WorkflowDraft.Source) throws -> WorkflowDraft.Source
    {
        var builder = GraphBuilder(draft)
        let end = try build(&builder)
        if let problem = builder.problem { throw problem }
        guard end.graph == builder.id else { throw WorkflowError.foreignNode }
        draft = builder.draft
        return end.source
    }
}

/// When a step of a graph runs, with regard to a step that it waits for.
public enum EdgePolicy: String, Sendable, Hashable, Codable {
    /// Once the other has succeeded. Where it fails, the step fails with it and does not run.
    case succeeded
    /// Once the other has failed for good. Where it succeeds, the step does not run.
    case failed
    /// Once the other has ended, either way.
    case ended
}

/// A step of a graph, by what it hands on.
public struct GraphNode<Output: Codable & Sendable>: AnyGraphNode {
    let source: WorkflowDraft.Source
    let graph: Int

    /// What became of the step, for a step that runs either way.
    public var outcome: GraphNode<StepOutcome<Output>> {
        guard case .output(let step) = source else {
            return GraphNode<StepOutcome<Output>>(source: source, graph: graph)
        }
        return GraphNode<StepOutcome<Output>>(source: .outcome(step), graph: graph)
    }

    public var edges: (steps: [Int], graph: Int) { (source.steps, graph) }
}

/// A node of any output.
public protocol AnyGraphNode: Sendable {
    /// The steps that the node stands for, and the graph that they belong to.
    var edges: (steps: [Int], graph: Int) { get }
}

/// Collects the steps of a ``Graph``.
public struct GraphBuilder {
    var draft: WorkflowDraft
    /// Tells the nodes of this graph from those of another.
    let id: Int
    private(set) var problem: (any Error)?

    init(_ draft: WorkflowDraft) {
        self.draft = draft
        id = Int.random(in: 0 ... .max)
    }

    /// Adds a step that gets nothing from others.
    /// - Parameters:
    ///   - step: a job, or any workflow.
    ///   - nodes: what it waits for; none to run at once.
    ///   - policy: when it runs.
    @discardableResult
    public mutating func add<Step: Workflow>(
        _ step: Step, after nodes: any AnyGraphNode..., if policy: EdgePolicy = .succeeded
    ) -> GraphNode<Step.Output> where Step.Input == NoInput {
        var edges: [WorkflowDraft.Edge] = []
        for node in nodes {
            let (steps, graph) = node.edges
            if graph != id { problem = problem ?? WorkflowError.foreignNode }
            edges += steps.map { WorkflowDraft.Edge(step: $0, policy: policy) }
        }
        return add { draft throws in
            try draft.after(edges) { draft throws in try step.addSteps(to: &draft, on: .nothing) }
        }
    }

    /// Adds a step that runs on what another hands on.
    @discardableResult
    public mutating func add<Step: Workflow>(_ step: Step, on node: GraphNode<Step.Input>) -> GraphNode<Step.Output> {
        if node.graph != id { problem = problem ?? WorkflowError.foreignNode }
        return add { draft throws in try step.addSteps(to: &draft, on: node.source) }
    }

    /// Adds a step that runs on what several others hand on together.
    @discardableResult
    public mutating func add<
        Step: Workflow, First: Codable & Sendable, Second: Codable & Sendable, each More: Codable & Sendable
    >(
        _ step: Step, on first: GraphNode<First>, _ second: GraphNode<Second>, _ more: repeat GraphNode<each More>
    ) -> GraphNode<Step.Output> where Step.Input == Joined<First, Second, repeat each More> {
        var sources = [first.source, second.source]
        var graphs = [first.graph, second.graph]
        for node in repeat each more {
            sources.append(node.source)
            graphs.append(node.graph)
        }
        if graphs.contains(where: { $0 != id }) { problem = problem ?? WorkflowError.foreignNode }
        return add { [sources] draft throws in try step.addSteps(to: &draft, on: .all(sources)) }
    }

    private mutating func add<Output>(
        _ body: (inout WorkflowDraft) throws -> WorkflowDraft.Source
    ) -> GraphNode<Output> {
        do {
            // A step of its own for what several hand on, so that it has an outcome.
            return GraphNode(source: .output(try draft.step(for: try body(&draft))), graph: id)
        } catch {
            problem = problem ?? error
            return GraphNode(source: .nothing, graph: id)
        }
    }
}

extension WorkflowError {
    static let foreignNode = WorkflowError("a step of a graph refers to a node of another graph")
}
