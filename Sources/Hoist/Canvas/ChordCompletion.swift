#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// What a chord does when all of its header has ended: its body runs on the outputs, or fails with the first member that
/// did not succeed.
///
/// Source: `celery/backends/base.py` (`chord_error_from_stack`) and `celery/backends/redis.py`, version 5.7.
struct ChordCompletion: GroupCompletion {
    let body: Signature
    /// The member that ended last.
    let finished: FinishedJob
    let rules: ContinuationRules

    func followUps(of parts: [GroupPart], outputs: [WireValue], now: JobDate) -> FollowUps {
        if let failed = parts.first(where: { $0.state != .succeeded }) { return afterFailure(of: failed, now: now) }
        var publisher = SignaturePublisher(finished, rules: rules, now: now)
        do throws(JobFailure) {
            _ = try publisher.apply(body, [.array(outputs)])
            return publisher.followUps
        } catch {
            return ended(with: error, now: now)
        }
    }

    private func afterFailure(of part: GroupPart, now: JobDate) -> FollowUps {
        let cause = part.failure ?? .revoked(part.state)
        // The members of a group get the failure itself.
        guard body.kind != .group else { return ended(with: cause, now: now) }
        let dependency = "Dependency \(part.member) raised \(cause.pythonText)"
        return ended(
            with: JobFailure(
                kind: .raised, type: "ChordError", message: dependency, module: "celery.exceptions",
                arguments: [.string(dependency)]), now: now)
    }

    private func ended(with failure: JobFailure, now: JobDate) -> FollowUps {
        var ending = CanvasEnding(.failed, failure, finished, rules, now: now)
        ending.end(body: body)
        return ending.followUps
    }
}

extension JobFailure {
    /// A member of a chord that was revoked, as a failure of what waited for it.
    static func revoked(_ state: JobState) -> JobFailure {
        let reason = state == .expired ? "expired" : "revoked"
        return JobFailure(
            kind: .raised, type: "TaskRevokedError", message: reason, module: "celery.exceptions",
            arguments: [.string(reason)])
    }

    /// The error as Python shows it.
    fileprivate var pythonText: String {
        let text = ArgumentsText.positional(arguments ?? [.string(message)])
        // A tuple of one ends in a comma, a call does not.
        return type + (text.hasSuffix(",)") ? text.dropLast(2) + ")" : text)
    }
}

/// Ends what a canvas would have started: results under the ids that clients wait for, members of chords that arrive
/// without having run, and errbacks.
struct CanvasEnding {
    private let state: JobState
    private let failure: JobFailure?
    /// The job with whose end it all ends.
    private let finished: FinishedJob
    private let rules: ContinuationRules
    private let now: JobDate
    private var seen: Set<JobID> = []
    private(set) var followUps = FollowUps()

    init(_ state: JobState, _ failure: JobFailure?, _ finished: FinishedJob, _ rules: ContinuationRules, now: JobDate) {
        (self.state, self.failure, self.finished, self.rules, self.now) = (state, failure, finished, rules, now)
    }

    /// The rest of a chain, in any order.
    mutating func end(_ steps: [Signature]) {
        for step in steps { end(step, depth: 0) }
    }

    /// The body of a chord whose header did not succeed: with its errbacks.
    mutating func end(body: Signature) {
        end(body, depth: 0)
        runErrbacks(of: body)
    }

    private mutating func end(_ signature: Signature, depth: Int) {
        guard depth < SignaturePublisher.depthLimit, followUps.ends.count < SignaturePublisher.messageLimit else {
            return
        }
        // A chain that has no id has that of its last step.
        let id = signature.id ?? (signature.kind == .chain ? (try? signature.parts())?.last?.id : nil)
        if let id, seen.insert(id).inserted {
            var record = JobRecord(id: id, name: signature.task, queue: "", state: state, endedAt: now)
            record.failure = failure
            followUps.ends.append(ResultWrite(record, kept: .standard))
            arrive(signature, id)
        }
        switch signature.kind {
        case .chord: if let body = try? signature.body() { end(body, depth: depth + 1) }
        case .group: for member in (try? signature.parts()) ?? [] { end(member, depth: depth + 1) }
        case .task, .chain: break
        }
        for next in (try? Signature.list(signature["chain"])) ?? [] { end(next, depth: depth + 1) }
    }

    /// What would have been a member of a chord arrives there.
    private mutating func arrive(_ signature: Signature, _ id: JobID) {
        // A group and a chord count by what is inside them.
        guard signature.kind != .group, signature.kind != .chord,
            let chord = (try? Signature.list(signature["chord"]))?.first,
            let group = signature["group_id"]?.stringValue
        else { return }
        let part = GroupPart(
            member: id, index: signature["group_index"]?.integerValue, state: state, failure: failure)
        followUps.arrivals.append(
            Arrival(part, in: group, completion: ChordCompletion(body: chord, finished: finished, rules: rules)))
    }

    /// The errbacks of a body that never ran. Each member of a group runs its own and those of the group, each one once.
    private mutating func runErrbacks(of body: Signature, and inherited: [Signature] = []) {
        guard state == .failed else { return }
        var errbacks = (try? Signature.list(body["link_error"])) ?? []
        for errback in inherited where !errbacks.contains(errback) { errbacks.append(errback) }
        if body.kind == .group {
            for member in (try? body.parts()) ?? [] { runErrbacks(of: member, and: errbacks) }
        } else if body.kind == .chord {
            if let inner = try? body.body() { runErrbacks(of: inner, and: errbacks) }
        } else if !errbacks.isEmpty, let id = body.id {
            followUps.add(SignaturePublisher.errbacks(errbacks, of: FinishedJob(id: id), rules, now: now))
        }
    }
}
