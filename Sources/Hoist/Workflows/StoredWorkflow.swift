#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif
import Synchronization

/// A workflow as a backend stores it.
public struct StoredWorkflow: Sendable {
    /// Also the id under which its output is stored.
    public var id: String
    /// What a person calls it.
    public var name: String
    public var state: WorkflowState
    public var createdAt: Date
    /// When what it hands on was decided; nil while it runs.
    public var endedAt: Date?
    /// The plan, which only programs understand.
    public var body: [UInt8]

    public init(
        id: String, name: String, state: WorkflowState = .running, createdAt: Date, endedAt: Date? = nil, body: [UInt8]
    ) {
        (self.id, self.name, self.state) = (id, name, state)
        (self.createdAt, self.endedAt, self.body) = (createdAt, endedAt, body)
    }

    /// For how long a workflow is kept of which nothing is heard: as long as a dead letter.
    public static let lifetime = Duration.seconds(90 * 86_400)

    /// - Throws: ``WorkflowError`` when the stored plan cannot be read.
    var plan: IndexedPlan { get throws(WorkflowError) { try PlanCache.shared.plan(of: self) } }
}

/// The plans that this program has read last: every step of a workflow asks for the same one.
private final class PlanCache: Sendable {
    static let shared = PlanCache()
    private static let limit = 64

    private struct Entry {
        var plan: IndexedPlan
        var createdAt: Date
        var lastUse: UInt64
    }
    private let state = Mutex<(entries: [String: Entry], uses: UInt64)>(([:], 0))

    func plan(of workflow: StoredWorkflow) throws(WorkflowError) -> IndexedPlan {
        let known = state.withLock { state -> IndexedPlan? in
            state.uses += 1
            guard state.entries[workflow.id]?.createdAt == workflow.createdAt else { return nil }
            state.entries[workflow.id]?.lastUse = state.uses
            return state.entries[workflow.id]?.plan
        }
        if let known { return known }
        let plan: Plan
        do { plan = try JSONText.decode(Plan.self, from: workflow.body) } catch {
            throw WorkflowError("the plan of the workflow \(workflow.id) cannot be read: \(error)")
        }
        let indexed = try IndexedPlan(plan)
        state.withLock { state in
            state.entries[workflow.id] = Entry(plan: indexed, createdAt: workflow.createdAt, lastUse: state.uses)
            if state.entries.count > Self.limit,
                let oldest = state.entries.min(by: { $0.value.lastUse < $1.value.lastUse })
            {
                state.entries[oldest.key] = nil
            }
        }
        return indexed
    }
}

extension Backend {
    /// The parts that workflows need.
    /// - Throws: ``BackendError`` `.misuse` where one is missing.
    func workflowParts() throws(BackendError) -> (keeping: any WorkflowKeeping, groups: any GroupCounting) {
        guard let workflows, let groups else {
            throw BackendError(
                .misuse,
                "this backend keeps no workflows; memory, SQLite and Redis do, and RabbitMQ joined with one of them")
        }
        return (workflows, groups)
    }
}

/// Keeps workflows: a part of a backend.
public protocol WorkflowKeeping: Sendable {
    /// Stores a workflow that begins, before its first jobs are published.
    /// - Throws: ``BackendError``; storing it again is safe. A workflow with this id that is stored already stays as it is.
    func begin(_ workflow: StoredWorkflow) async throws

    /// - Returns: nil when it is not known, or when it has ended and its time has passed.
    /// - Throws: ``BackendError``; asking again is safe.
    func workflow(_ id: String) async throws -> StoredWorkflow?

    /// The workflows that are known, the newest first.
    /// - Parameter limit: 1 to 1,000.
    /// - Throws: ``BackendError``; asking again is safe.
    func workflows(limit: Int) async throws -> [StoredWorkflow]

    /// Notes that a workflow has ended. One that has ended stays as it is, unless a step of it was given another life
    /// and it has succeeded after all.
    /// - Throws: ``BackendError``; noting it again is safe.
    func end(_ end: WorkflowEnd) async throws
}
