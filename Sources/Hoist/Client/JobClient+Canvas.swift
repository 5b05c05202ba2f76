#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

extension JobClient {
    /// Publishes a canvas in Celery's form, which workers in Python and Swift carry on.
    ///
    /// Its messages carry what is to follow, and no plan is stored: see ``enqueue(_:_:)->WorkflowHandle<W.Output>`` for workflows that can
    /// be watched and cancelled. Called from a handler, the canvas becomes a child of the running job.
    /// - Parameter canvas: a task, chain, group or chord. Tasks without the option `queue` go to the queue of the routing
    ///   rules, else to `celery`.
    /// - Returns: the canvas as Celery names results: a tree of ids, as handlers return it for Python.
    /// - Throws: ``JobFailure`` for a canvas that makes no sense, with nothing published. ``BackendError``; some messages may
    ///   be published then. `.misuse` where the backend counts no groups and the canvas needs that.
    @discardableResult
    public func enqueue(canvas: Signature) async throws -> CanvasHandle {
        guard configuration.sealing == nil else { throw JobFailure.sealedCanvas }
        let parent = JobContext.current
        let rules =
            parent?.continuationRules
            ?? ContinuationRules(origin: origin) { [configuration] name in
                configuration.routes.lazy.compactMap { $0.queue(name) }.first ?? ContinuationRules.celeryQueue
            }
        let finished = parent.map { FinishedJob($0.messageHeaders) } ?? FinishedJob(id: "")
        var publisher = SignaturePublisher(finished, rules: rules, now: backend.clock.now)
        let tree = try publisher.begin(canvas)
        let followUps = publisher.followUps
        let handle = CanvasHandle(tree: tree, client: self)
        if canvas.kind != .group, !followUps.messages.contains(where: { $0.id == handle.id }) {
            // Until the last job is published there is something to be waited for under its id.
            let record = JobRecord(id: handle.id, name: canvas.task, queue: "", state: .waiting)
            let kept = Transition.Retention.seconds(StoredWorkflow.lifetime.inSeconds)
            try await backend.results.store([ResultWrite(record, kept: kept)])
        }
        try await publish(canvas: followUps)
        return handle
    }

    /// Publishes the messages of a canvas, after the groups that they are members of are there.
    func publish(canvas: FollowUps) async throws {
        if !canvas.openings.isEmpty {
            guard let groups = backend.groups else {
                throw BackendError(.misuse, "this backend counts no members of groups, which a chord needs")
            }
            try await groups.open(canvas.openings)
        }
        try await backend.broker.publish(followUps: canvas.messages)
        JobContext.current?.noteChildren(canvas.messages.map(\.id))
    }
}

/// A canvas that was published.
public struct CanvasHandle: Sendable {
    /// The results of the canvas as Celery names them: `[[id, parent], [members]]`. A handler that returns it has Python
    /// programs see a result.
    public let tree: WireValue
    private let client: JobClient

    init(tree: WireValue, client: JobClient) { (self.tree, self.client) = (tree, client) }

    /// The id of the job that ends the canvas, or of the group.
    public var id: JobID { tree.arrayValue?.first?.arrayValue?.first?.stringValue ?? "" }

    /// The job that ends the canvas. A group has none: see ``members``.
    public var job: JobHandle<WireValue> {
        JobHandle((id, true), backend: client.backend, client.configuration)
    }

    /// The jobs of a group; empty for another canvas.
    public var members: [JobHandle<WireValue>] {
        let members = tree.arrayValue?.last?.arrayValue ?? []
        return members.compactMap { member in
            (member.arrayValue?.first?.arrayValue?.first?.stringValue).map {
                JobHandle(($0, true), backend: client.backend, client.configuration)
            }
        }
    }
}
