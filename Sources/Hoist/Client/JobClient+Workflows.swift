#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

extension JobClient {
    /// Enqueues one job with its input.
    /// - Throws: as ``enqueue(_:_:)->JobHandle<J.Output>``, and `EncodingError` when the input does not encode.
    @discardableResult
    public func enqueue<J: Job>(
        _ job: J, on input: J.Input, _ options: EnqueueOption...
    ) async throws -> JobHandle<J.Output> {
        guard J.Input.self != NoInput.self else { return try await enqueue(contentsOf: [job], options)[0] }
        let keyword = try WireEncoder.encodeArguments(job)
        let arguments = Arguments(positional: [try WireEncoder.encode(input)], keyword: keyword)
        return try await enqueue(job, arguments, options)
    }

    /// Enqueues a workflow.
    /// - Parameters:
    ///   - workflow: what is to run.
    ///   - options: options of every step. ``EnqueueOption/id(_:)`` is the id of the workflow, under which its output is
    ///     stored; delays hold for the steps that it begins with.
    /// - Returns: the handle of the workflow, once the backend has its plan and its first jobs.
    /// - Throws: ``WorkflowError`` for a composition or an option that makes no sense, and where arguments are sealed;
    ///   nothing is stored then. ``BackendError``, with `.misuse` where the backend keeps no workflows; where
    ///   ``BackendError/isRetrySafe`` is false the workflow may run, and a retry with the same id is safe.
    ///   `EncodingError`, ``WireError`` and `CancellationError` as ``enqueue(_:_:)->JobHandle<J.Output>``.
    @discardableResult
    public func enqueue<W: Workflow>(
        _ workflow: W, _ options: EnqueueOption...
    ) async throws -> WorkflowHandle<W.Output> where W.Input == NoInput {
        try await begin(workflow, on: .null, options)
    }

    /// Enqueues a workflow that is started on a value.
    /// - Parameters:
    ///   - workflow: what is to run.
    ///   - input: what its first steps get.
    ///   - options: as for a workflow without an input.
    /// - Throws: as for a workflow without an input, and `EncodingError` when the input does not encode.
    @discardableResult
    public func enqueue<W: Workflow>(
        _ workflow: W, on input: W.Input, _ options: EnqueueOption...
    ) async throws -> WorkflowHandle<W.Output> {
        try await begin(workflow, on: try WireEncoder.encode(input), options)
    }

    /// Enqueues a job once for each input, as one group.
    /// - Parameters:
    ///   - job: the arguments that all have in common.
    ///   - inputs: any number, at most 100,000.
    ///   - options: options of every job. ``EnqueueOption/id(_:)`` is the id of the group.
    /// - Throws: as for a workflow.
    @discardableResult
    public func enqueue<J: Job>(
        each job: J, on inputs: [J.Input], _ options: EnqueueOption...
    ) async throws -> GroupHandle<J.Output> {
        guard inputs.count <= PlanAdvance.elementLimit else {
            throw WorkflowError(
                "\(J.name) is enqueued on \(inputs.count) inputs; \(PlanAdvance.elementLimit) are allowed")
        }
        let handle = try await begin(ForEach(job), on: try WireEncoder.encode(inputs), options)
        return GroupHandle(handle, size: inputs.count)
    }

    /// The handle of a workflow that was enqueued earlier or elsewhere.
    public func workflow<Output>(_ id: String, of output: Output.Type = WireValue.self) -> WorkflowHandle<Output> {
        WorkflowHandle(id: id, client: self)
    }

    // MARK: - Putting a plan together

    private func begin<W: Workflow>(
        _ workflow: W, on input: WireValue, _ options: [EnqueueOption]
    ) async throws -> WorkflowHandle<W.Output> {
        let (keeping, groups) = try backend.workflowParts()
        guard configuration.sealing == nil else {
            throw WorkflowError("this client seals arguments, and the plan of a workflow keeps them open")
        }
        let now = backend.clock.now
        let whole = request("workflow", [], defaults: JobOptions(), options, at: now)
        guard whole.unique == nil else {
            throw WorkflowError("workflows and their steps have no unique keys: give the workflow an id")
        }
        var draft = WorkflowDraft()
        let end = try draft.step(for: try workflow.addSteps(to: &draft, on: .given))
        let plan = try plan(of: draft, end: end, whole, options, isFirst: true, at: now)
        let id = whole.id ?? JobIdentifier.make()
        var stored = StoredWorkflow(
            id: id, name: draft.steps[end].name, createdAt: now, body: try JSONText.encode(plan))
        // What is stored must be readable, and a workflow with this id goes on as it is.
        _ = try stored.plan
        try await keeping.begin(stored)
        stored = try await keeping.workflow(id) ?? stored
        if stored.state.hasEnded { return WorkflowHandle(id: id, client: self) }
        var advance = PlanAdvance(stored, now: now)
        try advance.begin(on: input)
        var first = advance.followUps
        try await first.conclude(
            now: now, plan: { _ in stored }, open: { try await groups.open([$0]) },
            count: { try await groups.count($0) })
        if !first.messages.contains(where: { $0.id == id }), first.workflowEnds.isEmpty {
            // Until its last step is published there is something to be waited for under the id.
            var record = JobRecord(id: id, name: stored.name, queue: "", state: .waiting)
            record.enqueuedAt = now
            first.ends.append(ResultWrite(record, kept: .seconds(StoredWorkflow.lifetime.inSeconds)))
        }
        if !first.ends.isEmpty { try await backend.results.store(first.ends) }
        try await publish(steps: first.messages)
        if !first.closings.isEmpty { try await groups.close(first.closings) }
        for end in first.workflowEnds { try await keeping.end(end) }
        return WorkflowHandle(id: id, client: self)
    }

    private func plan(
        of draft: WorkflowDraft, end: Int, _ whole: EnqueueRequest, _ options: [EnqueueOption], isFirst: Bool,
        at now: JobDate
    ) throws -> Plan {
        let steps = try draft.steps.map { step in
            let isFirst = isFirst && step.source.steps.isEmpty && step.after.isEmpty
            let kind: Plan.Kind =
                switch step.kind {
                case .job(let job):
                    .job(
                        template: try template(
                            of: job, named: step.name, whole, options,
                            isFirst: isFirst, at: now),
                        input: job.inputName)
                case .forEach(let inner):
                    .each(try plan(of: inner.draft, end: inner.end, whole, options, isFirst: isFirst, at: now))
                case .gather: .gather
                case .either: .either
                }
            return Plan.Step(name: step.name, kind: kind, source: step.source, after: step.after)
        }
        return Plan(steps: steps, end: end)
    }

    /// The message of a step, but for what only its start tells.
    private func template(
        of step: WorkflowDraft.JobStep, named name: String, _ whole: EnqueueRequest, _ options: [EnqueueOption],
        isFirst: Bool, at now: JobDate
    ) throws -> String {
        var request = request(step.name, step.secretArguments, defaults: step.defaults, options, at: now)
        (request.id, request.eta) = (nil, isFirst ? whole.eta : nil)
        for option in step.options { option.apply(&request) }
        guard request.id == nil else {
            throw WorkflowError(
                "the step \(name) has an id of its own; the ids of steps come from the id of the workflow")
        }
        guard request.unique == nil else {
            throw WorkflowError("the step \(name) has a unique key: a step that another job holds up would never run")
        }
        try request.check(backend.broker.abilities)
        let queue = try request.place(usual: usualQueue(of: request, step.defaults.queue), parent: JobContext.current)
        let message = try request.message(
            Arguments(keyword: step.keyword),
            partition: request.partition ?? step.partition ?? (step.defaults.hasPartitions ? "" : nil), id: "step",
            queue: queue, origin: origin, parent: JobContext.current)
        return String(decoding: message.encodedEnvelope(), as: UTF8.self)
    }
}
