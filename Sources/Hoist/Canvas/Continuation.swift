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

    public init() {}

    /// A single job as a result's `children` names it.
    package static func child(_ id: JobID) -> WireValue { [[.string(id), nil], nil] }

    var isEmpty: Bool { messages.isEmpty && children.isEmpty && ends.isEmpty }
}

/// What Celery asks for behind a task: callbacks, errbacks, the rest of a chain, the chord that it counts for.
///
/// A Swift worker continues them as Celery's does, so that workflows run through Python and Swift workers alike.
/// Source: `celery/app/trace.py` and `celery/backends/base.py`, version 5.7.
package struct Continuation: Sendable {
    private let callbacks: [Signature]
    private let errbacks: [Signature]
    /// The steps that follow, the last one first; nil when the task is no step of a chain.
    private let chain: [Signature]?
    private let chord: Signature?

    /// - Parameter embed: the third part of a message's body.
    /// - Returns: nil when nothing follows.
    /// - Throws: ``WireError`` when a part is no signature.
    package init?(_ embed: WireValue) throws(WireError) {
        guard case .object(let members) = embed, !members.isEmpty else { return nil }
        callbacks = try Signature.list(members["callbacks"])
        errbacks = try Signature.list(members["errbacks"])
        chain = members["chain"]?.arrayValue == nil ? nil : try Signature.list(members["chain"])
        chord = try Signature.list(members["chord"]).first
        if callbacks.isEmpty, errbacks.isEmpty, chain?.isEmpty ?? true, chord == nil { return nil }
    }

    /// Why the job cannot run here: it would have to count for a chord, or to start one. Only what this step itself
    /// must do counts; a chord further down the chain is the affair of the step before it.
    package func refusal(_ finished: FinishedJob, _ rules: ContinuationRules) -> JobFailure? {
        do throws(JobFailure) {
            guard chord == nil else { throw .chord }
            var publisher = SignaturePublisher(finished, rules: rules, now: .distantPast)
            _ = try continued(nil, &publisher)
            if !errbacks.isEmpty { _ = try publisher.apply(members: errbacks, as: "", []) }
            return nil
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
        var followUps = FollowUps()
        followUps.children = try continued(output, &publisher)
        followUps.messages = publisher.messages
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

    /// The errbacks get the id of the failed job. The rest of the chain, and the body of the chord, fail with it, so
    /// that no client waits for them.
    package func afterFailure(
        _ failure: JobFailure, of finished: FinishedJob, _ rules: ContinuationRules, now: Date
    ) -> FollowUps {
        var followUps = ended(as: .failed, failure, now: now)
        // One that cannot be published must not keep the others, or the failure itself, from being stored.
        let publishable = errbacks.filter { errback in
            var trial = SignaturePublisher(finished, rules: rules, now: now)
            return (try? trial.apply(members: [errback], as: "", [])) != nil
        }
        guard !publishable.isEmpty else { return followUps }
        var publisher = SignaturePublisher(finished, rules: rules, now: now)
        _ = try? publisher.apply(members: publishable, as: JobIdentifier.make(), [.string(finished.id)])
        followUps.messages = publisher.messages
        return followUps
    }

    /// The rest of the chain is cancelled with a step that was cancelled or has expired; errbacks do not run.
    package func afterCancellation(_ state: JobState, now: Date) -> FollowUps { ended(as: state, nil, now: now) }

    private func ended(as state: JobState, _ failure: JobFailure?, now: Date) -> FollowUps {
        var followUps = FollowUps()
        var seen: Set<JobID> = []
        func end(_ signature: Signature) {
            if let id = signature.id, seen.insert(id).inserted {
                var record = JobRecord(id: id, name: signature.task, queue: "", state: state, endedAt: now)
                record.failure = failure
                followUps.ends.append(ResultWrite(record, kept: .standard))
            }
            switch signature.kind {
            case .chord: if let body = try? signature.body() { end(body) }
            case .group: for member in (try? signature.parts()) ?? [] { end(member) }
            case .task, .chain: break
            }
            for next in (try? Signature.list(signature["chain"])) ?? [] { end(next) }
            if let chord = (try? Signature.list(signature["chord"]))?.first { end(chord) }
        }
        for step in chain ?? [] { end(step) }
        if let chord { end(chord) }
        return followUps
    }
}

extension FollowUps {
    /// What follows from the end of a job that ended without a worker at hand: it was given up because its worker died,
    /// or it expired or was cancelled while it waited.
    package init?(of message: Message, endedAs state: JobState, _ failure: JobFailure?, now: Date) {
        guard message.mayContinue, let embed = (try? message.decodedBody())?.embed,
            let continuation = try? Continuation(embed)
        else { return nil }
        let finished = FinishedJob(message.headers)
        self =
            state == .failed
            ? continuation.afterFailure(failure ?? .stoppedAtMostOnce, of: finished, .standard, now: now)
            : continuation.afterCancellation(state, now: now)
        if isEmpty { return nil }
    }
}

extension Message {
    /// False where the body says plainly that nothing follows, as that of every Swift producer does: known without
    /// decoding it.
    package var mayContinue: Bool {
        if isSealed || headers.compression != nil { return true }
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
