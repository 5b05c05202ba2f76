#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// What a workflow does next: from the end of one step to the messages of the steps that it frees.
///
/// Pure. A step with one parent is published at once. One with several is counted for: each parent arrives in a group
/// that is named after the step, and the last of them publishes it. Every id is made from the place of the step, so that
/// a worker that advances the same step again makes the same ids.
struct PlanAdvance {
    private let workflow: StoredWorkflow
    private let now: JobDate
    private(set) var followUps = FollowUps()
    private var parentID: JobID?
    private var unfinished: [(number: Int, scope: Scope, result: StepEnd.Result)] = []

    init(_ workflow: StoredWorkflow, now: JobDate) {
        self.workflow = workflow
        self.now = now
    }

    /// The steps of a plan on one element, or of the whole plan.
    private struct Scope {
        var plan: IndexedPlan
        /// In front of the numbers of its steps.
        var prefix: [Int]
        var given: WireValue = .null
    }

    // MARK: - Inputs

    /// The steps that the workflow begins with.
    /// - Throws: ``WorkflowError`` when the plan cannot be read.
    mutating func begin(on given: WireValue) throws(WorkflowError) {
        begin(Scope(plan: try workflow.plan, prefix: [], given: given))
        finish()
    }

    mutating func ended(_ end: StepEnd) {
        guard let scope = scope(of: end.step) else { return }
        parentID = end.jobID
        ended(end.step.path[end.step.path.count - 1], in: scope, end.result)
        finish()
    }

    /// The parents of a step have ended.
    mutating func completed(_ step: WorkflowStep, _ parts: [GroupPart]) {
        guard let scope = scope(of: step) else { return }
        parentID = parts.last?.member
        let number = step.path[step.path.count - 1]
        let parents = scope.plan.parents[number]
        var ends: [Int: StepEnd.Result] = [:]
        let byMember = Dictionary(
            parents.map { (WorkflowStep.id(workflow.id, scope.prefix + [$0]), $0) }
        ) { first, _ in first }
        for part in parts { if let parent = byMember[part.member] { ends[parent] = StepEnd.Result(part) } }
        start(number, in: scope, ends)
        finish()
    }

    /// All elements of a step that runs on each have ended.
    mutating func collected(_ step: WorkflowStep, _ parts: [GroupPart]) {
        guard let scope = scope(of: step) else { return }
        parentID = parts.last?.member
        let number = step.path[step.path.count - 1]
        let results = parts.map(StepEnd.Result.init)
        let failure = results.lazy.compactMap { if case .failed(let failure) = $0 { failure } else { nil } }.first
        let outputs = results.compactMap { if case .succeeded(let output) = $0 { output } else { nil } }
        let result: StepEnd.Result =
            failure.map { .failed($0) } ?? (outputs.count == parts.count ? .succeeded(.array(outputs)) : .skipped)
        ended(number, in: scope, result)
        finish()
    }

    /// Where a step belongs; nil for a place that the plan does not have.
    private func scope(of step: WorkflowStep) -> Scope? {
        guard var plan = try? workflow.plan else { return nil }
        var prefix = step.path[...]
        let number = prefix.removeLast()
        for index in stride(from: prefix.startIndex, to: prefix.endIndex, by: 2) {
            guard let inner = plan.inner[prefix[index]] else { return nil }
            plan = inner
        }
        return plan.plan.steps.indices.contains(number) ? Scope(plan: plan, prefix: Array(prefix)) : nil
    }

    // MARK: - Steps

    private mutating func begin(_ scope: Scope) {
        for (number, parents) in scope.plan.parents.enumerated() where parents.isEmpty { start(number, in: scope, [:]) }
    }

    /// A step has ended. What that means for others is found out by ``finish()``: a plan may be a hundred thousand steps
    /// long, and is not followed by recursion.
    private mutating func ended(_ number: Int, in scope: Scope, _ result: StepEnd.Result) {
        unfinished.append((number, scope, result))
    }

    private mutating func finish() {
        var next = 0
        while next < unfinished.count {
            let (number, scope, result) = unfinished[next]
            next += 1
            goOn(behind: number, in: scope, result)
        }
        unfinished = []
    }

    /// Those that wait for a step that has ended may go on.
    private mutating func goOn(behind number: Int, in scope: Scope, _ result: StepEnd.Result) {
        if number == scope.plan.plan.end { ended(scope, result) }
        for dependent in scope.plan.dependents[number] {
            let parents = scope.plan.parents[dependent]
            guard parents.count > 1, let index = parents.firstIndex(of: number) else {
                start(dependent, in: scope, [number: result])
                continue
            }
            let step = WorkflowStep(workflow: workflow.id, path: scope.prefix + [dependent])
            let member = WorkflowStep.id(workflow.id, scope.prefix + [number])
            followUps.openings.append(
                GroupOpening(step.parentsGroup, size: parents.count, lifetime: StoredWorkflow.lifetime))
            followUps.arrivals.append(
                Arrival(
                    result.part(member, index: index), in: step.parentsGroup, lifetime: StoredWorkflow.lifetime,
                    completion: StepCompletion(workflow, step, collects: false)))
        }
    }

    /// What a scope hands on is decided.
    private mutating func ended(_ scope: Scope, _ result: StepEnd.Result) {
        guard scope.prefix.isEmpty else {
            let element = scope.prefix[scope.prefix.count - 1]
            let step = WorkflowStep(workflow: workflow.id, path: Array(scope.prefix.dropLast()))
            let member = WorkflowStep.id(workflow.id, scope.prefix)
            followUps.arrivals.append(
                Arrival(
                    result.part(member, index: element), in: step.elementsGroup, lifetime: StoredWorkflow.lifetime,
                    completion: StepCompletion(workflow, step, collects: true)))
            return
        }
        var record = JobRecord(id: workflow.id, name: workflow.name, queue: "", state: .succeeded, endedAt: now)
        record.enqueuedAt = workflow.createdAt
        var state = WorkflowState.succeeded
        switch result {
        case .succeeded(let output): record.output = output
        case .failed(let failure):
            (record.state, state) = (.failed, .failed)
            record.failure = JobFailure(
                kind: .raised, type: failure.type, message: "the step \(failure.step) failed: \(failure.message)")
        case .skipped: (record.state, state) = (.cancelled, .cancelled)
        }
        // The job that bears the id of the workflow stores its end itself.
        if parentID != workflow.id { followUps.ends.append(ResultWrite(record, kept: .standard)) }
        followUps.workflowEnds.append(WorkflowEnd(workflow.id, state))
    }

    /// All parents of a step have ended.
    private mutating func start(_ number: Int, in scope: Scope, _ ends: [Int: StepEnd.Result]) {
        let step = scope.plan.plan.steps[number]
        if case .either = step.kind { return ended(number, in: scope, either(of: scope.plan.parents[number], ends)) }
        if let obstacle = obstacle(of: step, ends) { return ended(number, in: scope, obstacle) }
        let input = value(of: step.source, ends, scope.given)
        switch step.kind {
        case .gather, .either: ended(number, in: scope, .succeeded(input))
        case .job(let template, let inputName):
            // What is cancelled starts nothing more.
            guard workflow.state != .cancelled else {
                return ended(number, in: scope, .skipped)
            }
            do {
                let hasInput = step.source != .nothing
                followUps.messages.append(
                    try message(template, number, in: scope, input: hasInput ? (inputName, input) : nil))
            } catch {
                let id = jobID(number, in: scope)
                ended(
                    number, in: scope,
                    .failed(StepFailure(jobID: id, step: step.name, type: "WireError", message: "\(error)")))
            }
        case .each:
            let id = WorkflowStep.id(workflow.id, scope.prefix + [number])
            guard let elements = input.arrayValue, let inner = scope.plan.inner[number] else {
                let failure = StepFailure(
                    jobID: id, step: step.name, type: "WorkflowError",
                    message: "it runs on each element of an array, and was given none")
                return ended(number, in: scope, .failed(failure))
            }
            guard elements.count <= Self.elementLimit else {
                let failure = StepFailure(
                    jobID: id, step: step.name, type: "WorkflowError",
                    message: "it was given \(elements.count) elements; \(Self.elementLimit) are allowed")
                return ended(number, in: scope, .failed(failure))
            }
            if elements.isEmpty { return ended(number, in: scope, .succeeded([])) }
            followUps.openings.append(
                GroupOpening(
                    WorkflowStep(workflow: workflow.id, path: scope.prefix + [number]).elementsGroup,
                    size: elements.count, lifetime: StoredWorkflow.lifetime))
            for (index, element) in elements.enumerated() {
                begin(Scope(plan: inner, prefix: scope.prefix + [number, index], given: element))
            }
        }
    }

    /// The most elements that a step may run on.
    static let elementLimit = 100_000

    /// Why a step does not run: what it ends as then.
    private func obstacle(of step: Plan.Step, _ ends: [Int: StepEnd.Result]) -> StepEnd.Result? {
        var failure: StepFailure?
        var isSkipped = false
        func needs(_ parent: Int, _ policy: EdgePolicy) {
            switch (ends[parent] ?? .skipped, policy) {
            case (.succeeded, .failed), (.skipped, .succeeded), (.skipped, .failed): isSkipped = true
            case (.failed(let cause), .succeeded): failure = failure ?? cause
            case (.succeeded, _), (.failed, _), (.skipped, .ended): break
            }
        }
        func walk(_ source: WorkflowDraft.Source) {
            switch source {
            case .nothing, .given: break
            case .output(let parent): needs(parent, .succeeded)
            case .outcome(let parent): needs(parent, .ended)
            case .failure(let parent), .culprit(let parent): needs(parent, .failed)
            case .all(let sources): for source in sources { walk(source) }
            }
        }
        walk(step.source)
        for edge in step.after { needs(edge.step, edge.policy) }
        return failure.map { .failed($0) } ?? (isSkipped ? .skipped : nil)
    }

    private func either(of parents: [Int], _ ends: [Int: StepEnd.Result]) -> StepEnd.Result {
        let results = parents.map { ends[$0] ?? .skipped }
        return results.first { if case .succeeded = $0 { true } else { false } }
            ?? results.last { if case .failed = $0 { true } else { false } } ?? .skipped
    }

    private func value(of source: WorkflowDraft.Source, _ ends: [Int: StepEnd.Result], _ given: WireValue) -> WireValue
    {
        switch source {
        case .nothing: return .null
        case .given: return given
        case .all(let sources): return .array(sources.map { value(of: $0, ends, given) })
        case .output(let step):
            if case .succeeded(let output)? = ends[step] { return output }
        case .outcome(let step):
            switch ends[step] {
            case .succeeded(let output)?: return ["output": output]
            case .failed(let failure)?: return ["failure": (try? WireEncoder.encode(failure)) ?? .null]
            case .skipped?, nil:
                let failure = StepFailure(jobID: "", step: "", type: "Cancelled", message: "the step did not run")
                return ["failure": (try? WireEncoder.encode(failure)) ?? .null]
            }
        case .failure(let step):
            if case .failed(let failure)? = ends[step] { return (try? WireEncoder.encode(failure)) ?? .null }
        case .culprit(let step):
            if case .failed(let failure)? = ends[step] { return .string(failure.jobID) }
        }
        return .null
    }

    // MARK: - Messages

    private func jobID(_ number: Int, in scope: Scope) -> JobID {
        scope.plan.jobID(of: number, behind: scope.prefix, in: workflow.id)
    }

    private func message(
        _ template: String, _ number: Int, in scope: Scope, input: (name: String?, value: WireValue)?
    ) throws -> Message {
        var message = try Message(envelope: Array(template.utf8))
        let id = jobID(number, in: scope)
        let made = message.headers.hoist.enqueuedAt ?? now
        message.headers.id = id
        message.headers.rootID = workflow.id
        message.headers.parentID = parentID ?? message.headers.parentID
        message.headers.eta = message.headers.eta.map { now.addingTimeInterval($0.timeIntervalSince(made)) }
        message.headers.expires = message.headers.expires.map { now.addingTimeInterval($0.timeIntervalSince(made)) }
        message.headers.hoist.enqueuedAt = now
        message.headers.hoist.step = WorkflowStep(workflow: workflow.id, path: scope.prefix + [number])
        message.properties.correlationID = id
        message.properties.deliveryTag = JobIdentifier.make()
        if let input {
            var arguments = try message.decodedBody().arguments
            if let name = input.name {
                arguments.keyword[name] = input.value
            } else {
                arguments.positional.insert(input.value, at: 0)
            }
            message.setArguments(arguments)
            let limits = WireLimits(maximumBytes: (WireLimits.default.maximumBytes - 65_536) / 4 * 3)
            try limits.check(
                .array([.array(arguments.positional), .object(arguments.keyword)]), encodedAs: message.body)
        }
        return message
    }
}

/// What a step does when everything that it waits for has ended.
private struct StepCompletion: GroupCompletion {
    let workflow: StoredWorkflow
    let step: WorkflowStep
    /// Whether the elements of a step have ended, and not the parents of one.
    let collects: Bool

    init(_ workflow: StoredWorkflow, _ step: WorkflowStep, collects: Bool) {
        (self.workflow, self.step, self.collects) = (workflow, step, collects)
    }

    func followUps(of parts: [GroupPart], outputs: [WireValue], now: JobDate) -> FollowUps {
        var advance = PlanAdvance(workflow, now: now)
        if collects { advance.collected(step, parts) } else { advance.completed(step, parts) }
        return advance.followUps
    }
}
