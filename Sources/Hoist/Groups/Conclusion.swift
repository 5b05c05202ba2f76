/// Turns the ends that follow-ups report, of members of groups and of steps of workflows, into what they start, and opens
/// the groups that begin.
///
/// A completed group may be a member of another group, and a step of a workflow may complete one: the follow-ups grow
/// until nothing is left to count. The two methods differ in nothing but how they ask the backend.
extension FollowUps {
    /// Whether there are ends to be counted.
    public var needsConclusion: Bool { !openings.isEmpty || !arrivals.isEmpty || !steps.isEmpty }

    /// For a backend that counts in the transaction which settles the job.
    /// - Throws: what the closures throw.
    public mutating func conclude(
        now: JobDate, plan: (String) throws -> StoredWorkflow?, open: (GroupOpening) throws -> Void,
        count: (Arrival) throws -> ArrivalResult
    ) rethrows {
        while let next = nextEnd() {
            switch next {
            case .opening(let opening): try open(opening)
            case .arrival(let arrival): note(try count(arrival), of: arrival, now: now)
            case .step(let end): note(end, try plan(end.step.workflow), now: now)
            }
        }
    }

    /// For a backend that counts before it settles the job.
    /// - Throws: what the closures throw.
    public mutating func conclude(
        now: JobDate, plan: (String) async throws -> StoredWorkflow?, open: (GroupOpening) async throws -> Void,
        count: (Arrival) async throws -> ArrivalResult
    ) async rethrows {
        while let next = nextEnd() {
            switch next {
            case .opening(let opening): try await open(opening)
            case .arrival(let arrival): note(try await count(arrival), of: arrival, now: now)
            case .step(let end): note(end, try await plan(end.step.workflow), now: now)
            }
        }
    }

    private enum End { case opening(GroupOpening), arrival(Arrival), step(StepEnd) }

    private mutating func nextEnd() -> End? {
        // A group opens before a member of it arrives. The last comes first, for there may be very many.
        if let opening = openings.popLast() { return .opening(opening) }
        if let arrival = arrivals.popLast() { return .arrival(arrival) }
        return steps.popLast().map { .step($0) }
    }

    private mutating func note(_ result: ArrivalResult, of arrival: Arrival, now: JobDate) {
        guard case .completes(let parts, let outputs) = result else { return }
        add(arrival.completion.followUps(of: parts, outputs: outputs, now: now))
        let hasFailed = parts.contains { $0.state != .succeeded }
        closings.append(GroupClosing(arrival.group, hasFailed: hasFailed, by: arrival.part.member))
    }

    private mutating func note(_ end: StepEnd, _ workflow: StoredWorkflow?, now: JobDate) {
        guard let workflow else { return }
        var advance = PlanAdvance(workflow, now: now)
        advance.ended(end)
        add(advance.followUps)
    }

    mutating func add(_ others: FollowUps) {
        messages += others.messages
        children += others.children
        ends += others.ends
        openings += others.openings
        closings += others.closings
        arrivals += others.arrivals
        steps += others.steps
        workflowEnds += others.workflowEnds
    }
}
