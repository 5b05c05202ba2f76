#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// A job whose handler has a canvas run in its place.
///
/// Source: `celery/app/task.py` (`replace`, `add_to_chord`), version 5.7.
extension Continuation {
    /// How often a job may be replaced by what is replaced in turn.
    static let nestingLimit: Int64 = 1000

    /// What takes the place of a job: with its id, its place in a group, its links, and the rest of its chain behind it.
    /// - Parameters:
    ///   - continuation: what follows the job; nil for nothing.
    ///   - canvas: what is to run.
    ///   - headers: those of the job.
    ///   - queue: where the job came from.
    /// - Throws: ``JobFailure`` for a canvas that cannot take the place of a job.
    static func replacement(
        _ continuation: Continuation?, by canvas: Signature, _ headers: MessageHeaders, queue: String,
        _ rules: ContinuationRules, now: Date
    ) throws(JobFailure) -> FollowUps {
        let nesting = headers.replacedTaskNesting + 1
        guard nesting <= nestingLimit else {
            throw JobFailure(
                kind: .undecodable, type: "ImproperlyConfigured", message: "the job was replaced \(nestingLimit) times",
                module: "celery.exceptions")
        }
        guard canvas["chord"] == nil else {
            throw JobFailure(
                kind: .undecodable, type: "ImproperlyConfigured",
                message: "a signature with a chord cannot take the place of a job", module: "celery.exceptions")
        }
        guard headers.hoist.step == nil || canvas.kind == .task else {
            throw JobFailure(
                kind: .unsupported, type: "UnsupportedCanvas",
                message: "a step of a workflow may be replaced by one job, and not by a \(canvas.kind)")
        }
        let finished = FinishedJob(headers)
        var publisher = SignaturePublisher(finished, rules: rules, now: now)
        var replacement = try SignaturePublisher.reading { () throws(WireError) in
            try continuation.linked(try ending(canvas, queue: queue))
        }
        if replacement.kind == .chain, (try? replacement.parts())?.isEmpty ?? true {
            throw JobFailure(
                kind: .undecodable, type: "ImproperlyConfigured",
                message: "Cannot replace with an empty chain", module: "celery.exceptions")
        }
        replacement = try SignaturePublisher.reading { () throws(WireError) in
            try replacement.nested(nesting).taking(the: headers.id, root: headers.rootID ?? headers.id)
        }
        let chain = continuation?.chain.map { steps in
            steps.map { $0.with("replaced_task_nesting", .integer(nesting)) }
        }
        let place = headers.group.map { group in
            SignaturePublisher.Place(
                group: group, index: headers.groupIndex, chord: continuation?.chord?.wireValue)
        }
        _ = try publisher.apply(replacement, [], chain: chain, in: place)
        var followUps = publisher.followUps
        followUps.replacesJob = true
        if !followUps.messages.contains(where: { $0.id == headers.id }) {
            // Until a later step has the id, there is something to be waited for under it.
            var record = JobRecord(id: headers.id, name: headers.task, queue: "", state: .waiting)
            record.describe(headers)
            followUps.ends.append(ResultWrite(record, kept: .seconds(StoredWorkflow.lifetime.inSeconds)))
        }
        return followUps
    }

    /// A further member of the chord that a job is a member of.
    /// - Throws: ``JobFailure`` when the job is no member of a chord.
    static func member(
        _ continuation: Continuation?, _ canvas: Signature, _ headers: MessageHeaders, _ rules: ContinuationRules,
        now: Date
    ) throws(JobFailure) -> (group: String, count: Int, followUps: FollowUps) {
        guard let group = headers.group, let chord = continuation?.chord else {
            throw JobFailure(
                kind: .unsupported, type: "ValueError", message: "the job is no member of a chord", module: "builtins")
        }
        var publisher = SignaturePublisher(FinishedJob(headers), rules: rules, now: now)
        let place = SignaturePublisher.Place(group: group, index: headers.groupIndex, chord: chord.wireValue)
        _ = try publisher.apply(canvas, [], in: place)
        let count = try SignaturePublisher.reading { () throws(WireError) in try canvas.count }
        return (group, count, publisher.followUps)
    }

    /// Groups hand on the list of their outputs, for which a job of its own stands at the end.
    private static func ending(_ canvas: Signature, queue: String) throws(WireError) -> Signature {
        // Where a worker is that performs it.
        let accumulate = Signature.task("celery.accumulate", [], ["index": 0]).with("queue", .string(queue))
        switch canvas.kind {
        case .task, .chord: return canvas
        case .group: return .chord(canvas, then: accumulate)
        case .chain:
            var parts = try canvas.parts()
            if let last = parts.last, last.kind == .group { parts[parts.count - 1] = .chord(last, then: accumulate) }
            return canvas.with(parts: parts)
        }
    }
}

extension Continuation? {
    /// The canvas with the callbacks and errbacks of the job.
    fileprivate func linked(_ canvas: Signature) throws(WireError) -> Signature {
        guard let self else { return canvas }
        var canvas = canvas
        switch canvas.kind {
        case .chain:
            var parts = try canvas.parts()
            for index in parts.indices { try parts[index].add(self.errbacks, to: "link_error") }
            if let last = parts.indices.last { try parts[last].add(self.callbacks, to: "link") }
            return canvas.with(parts: parts)
        case .task, .chord, .group:
            try canvas.add(self.callbacks, to: "link")
            try canvas.add(self.errbacks, to: "link_error")
            return canvas
        }
    }
}

extension Signature {
    /// The canvas, each step of a chain included, as one that takes the place of a job.
    fileprivate func nested(_ nesting: Int64) throws(WireError) -> Signature {
        var canvas = with("replaced_task_nesting", .integer(nesting))
        if kind == .chain {
            canvas = canvas.with(parts: try parts().map { $0.with("replaced_task_nesting", .integer(nesting)) })
        }
        return canvas
    }

    /// The canvas whose end has the id of a job.
    fileprivate func taking(the id: JobID, root: JobID) throws(WireError) -> Signature {
        let canvas = with("root_id", .string(root))
        guard kind == .chord, let body = try body() else {
            // The last step of a chain keeps no id of its own.
            guard kind == .chain, var last = try parts().last else { return canvas.with("task_id", .string(id)) }
            var parts = try canvas.parts()
            if last.kind == .chord {
                last = try last.taking(the: id, root: root)
            } else {
                last = last.with("task_id", .string(id))
            }
            parts[parts.count - 1] = last
            return canvas.with(parts: parts).with("task_id", .string(id))
        }
        var chord = canvas.with(body: body.with("task_id", .string(id)))
        chord["task_id"] = nil
        return chord
    }
}
