#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

extension MemoryBackend: GroupCounting, WorkflowKeeping {
    public func open(_ groups: [GroupOpening]) async throws {
        change(ringing: []) { store, now, _ in for group in groups { store.open(group, now: now) } }
    }

    public func grow(_ group: String, by count: Int) async throws {
        change(ringing: []) { store, _, _ in store.groups.grow(group, by: count) }
    }

    public func count(_ arrival: Arrival) async throws -> ArrivalResult {
        change(ringing: []) { store, now, _ in store.count(arrival, now: now) }
    }

    public func close(_ groups: [GroupClosing]) async throws {
        change(ringing: []) { store, _, _ in for group in groups { store.groups.close(group) } }
    }

    public func progress(of group: String) async throws -> GroupProgress? {
        change(ringing: []) { store, _, _ in store.groups.progress(of: group) }
    }

    public func part(of member: JobID, index: Int64?, in group: String) async throws -> GroupPart? {
        change(ringing: []) { store, _, _ in store.groups.part(of: member, in: group) }
    }

    public func begin(_ workflow: StoredWorkflow) async throws {
        change(ringing: []) { store, _, _ in
            if store.workflows[workflow.id] == nil { store.workflows[workflow.id] = workflow }
        }
    }

    public func workflow(_ id: String) async throws -> StoredWorkflow? {
        change(ringing: []) { store, _, _ in store.workflows[id] }
    }

    public func workflows(limit: Int) async throws -> [StoredWorkflow] {
        change(ringing: []) { store, _, _ in
            Array(store.workflows.values.sorted { ($1.createdAt, $1.id) < ($0.createdAt, $0.id) }.prefix(limit))
        }
    }

    public func end(_ end: WorkflowEnd) async throws {
        change(ringing: []) { store, now, _ in store.end(end, now: now) }
    }
}

extension MemoryStore {
    mutating func open(_ group: GroupOpening, now: Date) { groups.open(group, lifetime: resultRetention, now: now) }

    mutating func count(_ arrival: Arrival, now: Date) -> ArrivalResult {
        groups.count(arrival, lifetime: resultRetention, now: now)
    }

    mutating func end(_ end: WorkflowEnd, now: Date) {
        guard var workflow = workflows[end.workflow], workflow.state.mayBecome(end.state) else { return }
        (workflow.state, workflow.endedAt) = (end.state, now)
        workflows[end.workflow] = workflow
    }

    /// Stores what follows from the end of a job.
    /// - Returns: whether a job became ready.
    mutating func store(_ followUps: FollowUps?, now: Date) -> Bool {
        guard var followUps else { return false }
        followUps.conclude(
            now: now, plan: { workflows[$0] }, open: { open($0, now: now) }, count: { count($0, now: now) })
        for message in followUps.messages { _ = publish(message, now: now) }
        store(followUps.ends, now: now)
        for closing in followUps.closings { groups.close(closing) }
        for workflowEnd in followUps.workflowEnds { end(workflowEnd, now: now) }
        return !followUps.messages.isEmpty
    }

    /// Forgets groups and workflows whose time has passed.
    mutating func sweepWorkflows(now: Date) {
        groups.sweep(now: now)
        workflows = workflows.filter { _, workflow in
            workflow.endedAt.map { ended in
                let kept = workflow.state == .failed ? StoredWorkflow.lifetime.inSeconds : resultRetention
                return ended.addingTimeInterval(kept) > now
            }
                ?? (workflow.createdAt.addingTimeInterval(StoredWorkflow.lifetime.inSeconds) > now)
        }
    }
}
