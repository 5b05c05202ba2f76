#if canImport(FoundationEssentials)
package import FoundationEssentials
#else
package import Foundation
#endif

/// What follows from the end of a job, stored and published in the step that settles it.
public struct FollowUps: Sendable {
    /// To be published, in this order. A message whose id the backend knows already is left out, for it was published
    /// when the job ended before. Caps of queues do not hold for these messages.
    public var messages: [Message] = []
    /// What was started, as Celery's `children` names it.
    public var children: [WireValue] = []
    /// Jobs that end with this one though they were never published: the rest of a chain whose step has failed.
    public var ends: [ResultWrite] = []
    /// How the job itself has ended, for a backend that counts its end before it settles the job.
    package var outcome: GroupPart?
    /// Groups that begin, before their members are published.
    public var openings: [GroupOpening] = []
    /// Members of groups that end with this job. A backend counts them in the step that settles the job, or before it:
    /// see `conclude(now:plan:open:count:)`.
    public var arrivals: [Arrival] = []
    /// Steps of workflows that end with this job, to be concluded likewise.
    public var steps: [StepEnd] = []
    /// Groups that are over once the messages are published.
    public var closings: [GroupClosing] = []
    /// Workflows that end with this job.
    public var workflowEnds: [WorkflowEnd] = []
    /// Whether the messages take the place of the job, which leaves no record then: one of them may have its id.
    public var replacesJob = false

    public init() {}

    /// A single job as a result's `children` names it.
    package static func child(_ id: JobID) -> WireValue { [[.string(id), nil], nil] }

    var isEmpty: Bool {
        messages.isEmpty && children.isEmpty && ends.isEmpty && openings.isEmpty && arrivals.isEmpty && steps.isEmpty
            && closings.isEmpty && workflowEnds.isEmpty
    }
}

/// What is to follow a job: what Celery asks for behind a task (callbacks, errbacks, the rest of a chain, the chord that it
/// counts for), and the step of a workflow that it is.
///
/// A Swift worker continues a canvas as Celery's does, so that workflows run through Python and Swift workers alike.
/// Source: `celery/app/trace.py` and `celery/backends/base.py`, version 5.7.
package struct Continuation: Sendable {
    private(set) var callbacks: [Signature] = []
    private(set) var errbacks: [Signature] = []
    /// The steps that follow, the last one first; nil when the task is no step of a chain.
    private(set) var chain: [Signature]?
    private(set) var chord: Signature?
    private let step: WorkflowStep?
    private let name: String

    /// - Parameters:
    ///   - embed: the third part of a message's body.
    ///   - headers: the headers of the message.
    /// - Returns: nil when nothing follows.
    /// - Throws: ``WireError`` when a part is no signature.
    package init?(_ embed: WireValue, _ headers: MessageHeaders) throws(WireError) {
        step = headers.hoist.step
        name = headers.task
        if case .object(let members) = embed, !members.isEmpty {
            callbacks = try Signature.list(members["callbacks"])
            errbacks = try Signature.list(members["errbacks"])
            chain = members["chain"]?.arrayValue == nil ? nil : try Signature.list(members["chain"])
            chord = try Signature.list(members["chord"]).first
        }
        if callbacks.isEmpty, errbacks.isEmpty, chain?.isEmpty ?? true, chord == nil, step == nil { return nil }
    }

    /// Whether the end of the job is counted for others, which must see its output.
    package var isCounted: Bool { chord != nil || step != nil }

    /// Why the job cannot run here: what it asks to follow it can never be published.
    /// - Parameter countsGroups: whether the backend can count the members of a chord.
    package func refusal(
        _ finished: FinishedJob, _ rules: ContinuationRules, countsGroups: Bool = true
    ) -> JobFailure? {
        guard countsGroups || !isCounted else { return .chord }
        do throws(JobFailure) {
            var publisher = SignaturePublisher(finished, rules: rules, now: .distantPast)
            _ = try continued(nil, &publisher)
            if !errbacks.isEmpty { _ = try publisher.apply(members: errbacks, as: "", []) }
            return countsGroups || publisher.openings.isEmpty ? nil : .chord
        } catch {
            return error
        }
    }

    /// - Parameter output: what the job returned: the first argument of everything that follows.
    /// - Throws: ``JobFailure`` when a message cannot be made, for instance because it would be too large. The job
    ///   fails with it then, for its workflow cannot go on.
    package func afterSuccess(
        _ output: WireValue, of finished: FinishedJob, _ rules: ContinuationRules, now: Date
    ) throws(JobFailure) -> FollowUps {
        var publisher = SignaturePublisher(finished, rules: rules, now: now)
        let children = try continued(output, &publisher)
        var followUps = publisher.followUps
        followUps.children = children
        arrive(
            finished, GroupPart(member: finished.id, index: finished.groupIndex, state: .succeeded, output: output),
            rules, &followUps)
        if let step { followUps.steps.append(StepEnd(step, jobID: finished.id, result: .succeeded(output))) }
        return followUps
    }

    /// Groups among the callbacks are started one by one; several others become one new group. Then comes the chain.
    private func continued(
        _ output: WireValue, _ publisher: inout SignaturePublisher
    ) throws(JobFailure) -> [WireValue] {
        var children: [WireValue] = []
        let groups = callbacks.filter { $0.kind == .group }
        let others = callbacks.filter { $0.kind != .group }
        for group in groups { children.append(try publisher.apply(group, [output])) }
        if others.count == 1 {
            children.append(try publisher.apply(others[0], [output]))
        } else if others.count > 1 {
            children.append(try publisher.apply(members: others, as: JobIdentifier.make(), [output]))
        }
        if let next = chain?.last {
            children.append(try publisher.apply(next, [output], chain: chain.map { Array($0.dropLast()) } ?? []))
        }
        // An empty chain starts nothing.
        return children.filter { $0 != [] }
    }

    /// The chord that the job is a member of counts its end.
    private func arrive(
        _ finished: FinishedJob, _ part: GroupPart, _ rules: ContinuationRules, _ followUps: inout FollowUps
    ) {
        followUps.outcome = part
        guard let chord, let group = finished.groupID, !group.isEmpty else { return }
        followUps.arrivals.append(
            Arrival(part, in: group, completion: ChordCompletion(body: chord, finished: finished, rules: rules)))
    }

    /// The errbacks get the id of the failed job. The rest of the chain fails with it, so that no client waits for it.
    package func afterFailure(
        _ failure: JobFailure, of finished: FinishedJob, _ rules: ContinuationRules, now: Date
    ) -> FollowUps {
        var followUps = FollowUps()
        let part = GroupPart(member: finished.id, index: finished.groupIndex, state: .failed, failure: failure)
        arrive(finished, part, rules, &followUps)
        var ending = CanvasEnding(.failed, failure, finished, rules, now: now)
        ending.end(chain ?? [])
        followUps.add(ending.followUps)
        followUps.add(SignaturePublisher.errbacks(errbacks, of: finished, rules, now: now))
        if let step {
            let cause = StepFailure(jobID: finished.id, step: name, type: failure.type, message: failure.message)
            followUps.steps.append(StepEnd(step, jobID: finished.id, result: .failed(cause)))
        }
        return followUps
    }

    /// The rest of the chain is cancelled with a step that was cancelled or has expired; errbacks do not run.
    package func afterCancellation(
        _ state: JobState, of finished: FinishedJob, _ rules: ContinuationRules, now: Date
    ) -> FollowUps {
        var followUps = FollowUps()
        let part = GroupPart(member: finished.id, index: finished.groupIndex, state: state)
        arrive(finished, part, rules, &followUps)
        var ending = CanvasEnding(state, nil, finished, rules, now: now)
        ending.end(chain ?? [])
        followUps.add(ending.followUps)
        if let step { followUps.steps.append(StepEnd(step, jobID: finished.id, result: .skipped)) }
        return followUps
    }
}

extension JobFailure {
    static let sealedCanvas = JobFailure(
        kind: .unsupported, type: "SealedArguments",
        message: "arguments are sealed here, and a canvas carries those of its jobs open")

    /// The message asks for a chord, which this backend cannot count.
    static let chord = JobFailure(
        kind: .unsupported, type: "UnsupportedCanvas",
        message:
            "the task is part of a chord or workflow, or starts one, and this backend has no result store that counts "
            + "members; join the broker with one")
}

extension Settlement {
    /// Settles a job again whose outcome was counted before its worker died.
    /// - Returns: nil when the message cannot be read.
    package init?(again delivery: Delivery, _ outcome: GroupPart, at now: Date) {
        guard let message = delivery.message,
            let continuation = try? Continuation((try? message.decodedBody())?.embed ?? .null, message.headers)
        else { return nil }
        let finished = FinishedJob(message.headers)
        let followUps: FollowUps?
        let settled: Outcome
        switch outcome.state {
        case .succeeded:
            settled = .succeeded(
                output: JSONWriter.bytes(of: outcome.output), retention: message.headers.hoist.resultRetention)
            followUps = try? continuation.afterSuccess(outcome.output, of: finished, .standard, now: now)
        case .failed:
            let failure = outcome.failure ?? .stoppedAtMostOnce
            settled = .failed(failure)
            followUps = continuation.afterFailure(failure, of: finished, .standard, now: now)
        default:
            settled = outcome.state == .expired ? .expired : .cancelled
            followUps = continuation.afterCancellation(outcome.state, of: finished, .standard, now: now)
        }
        guard let followUps else { return nil }
        self.init(jobID: delivery.jobID, token: delivery.token, outcome: settled, startedAt: now, finishedAt: now)
        self.followUps = followUps
    }
}

extension FollowUps {
    /// What follows from the end of a job that ended without a worker at hand: it was given up because its worker died,
    /// or it expired or was cancelled while it waited.
    package init?(of message: Message, endedAs state: JobState, _ failure: JobFailure?, now: Date) {
        // What cannot be read is followed by nothing but the step that it is.
        guard message.mayContinue,
            let continuation = try? Continuation((try? message.decodedBody())?.embed ?? .null, message.headers)
        else { return nil }
        let finished = FinishedJob(message.headers)
        self =
            state == .failed
            ? continuation.afterFailure(failure ?? .stoppedAtMostOnce, of: finished, .standard, now: now)
            : continuation.afterCancellation(state, of: finished, .standard, now: now)
        if isEmpty { return nil }
    }
}

extension Message {
    /// False where the body says plainly that nothing follows, as that of every Swift producer does: known without
    /// decoding it.
    package var mayContinue: Bool {
        if isSealed || headers.compression != nil || headers.hoist.step != nil { return true }
        return !body.ends(with: ",{}]")
            && !body.ends(with: "{\"callbacks\": null, \"errbacks\": null, \"chain\": null, \"chord\": null}]")
    }
}

extension [UInt8] {
    fileprivate func ends(with text: StaticString) -> Bool {
        count >= text.utf8CodeUnitCount
            && text.withUTF8Buffer { buffer in suffix(buffer.count).elementsEqual(buffer) }
    }
}
