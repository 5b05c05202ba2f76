import Hoist
import RESP

/// What a script is to do with one delivery; its arguments as worker_turn.lua takes them.
struct SettlingStep {
    var id: JobID
    var token: Int64
    var operation: Operation
    /// False when a job goes back that was only looked at: it leaves no trace with limits.
    var isBegun = true
    /// False when a job goes back that was never begun: it has used up nothing of a rate.
    var countsAsStart = true
    /// Nil when nobody wants to know.
    var result: StoredMeta?
    var queue: String
    var followUps: [FollowUp] = []
    /// What follows, while members of groups and steps of workflows are still to be counted; nil when there are none.
    var uncounted: FollowUps?
    /// What is over once the step is done; nil for nothing.
    var over: FollowUps?

    /// What follows from the end of the job, in the form of worker_turn.lua.
    enum FollowUp {
        case message(Message, list: String, record: StoredJob)
        /// Of another job; a success that is there already stays.
        case result(StoredMeta)
    }

    enum Operation {
        case done
        /// Ended otherwise; the message is kept until then. `yields`: not if a cancellation has been asked for.
        case ended(kind: String, keepUntil: Int64, record: StoredJob, yields: Bool)
        /// Back to its queue, at once or at `due`; an envelope when it has changed.
        case back(list: String, due: Int64?, inFront: Bool, record: StoredJob, envelope: [UInt8]?)
    }

    struct StoredMeta {
        var key: String
        /// 0 for ever.
        var seconds: Int64
        var value: [UInt8]
        /// Nothing is to be left of what was there before.
        var isRemoval = false
    }

    /// Whether the job has ended afterwards.
    var endsJob: Bool { if case .back = operation { false } else { true } }

    /// Whether the script that lets many jobs go at once may do it.
    var isPlainlyDone: Bool { if case .done = operation { followUps.isEmpty && uncounted == nil } else { false } }
}

extension SettlingStep {
    mutating func follow(_ followUps: FollowUps?, in backend: RedisBackend, now: Int64) {
        if let followUps, followUps.needsConclusion {
            uncounted = followUps
        } else {
            self.followUps = backend.followUps(followUps, now: now)
        }
    }
}

extension RedisBackend {
    /// Seconds for which a result is kept: 0 for ever.
    private func seconds(_ retention: Double?, _ headers: MessageHeaders) -> Int64 {
        guard let seconds = retention ?? headers.hoist.resultRetention ?? configuration.resultRetention?.inSeconds
        else { return 0 }
        return max(1, Duration(boundedSeconds: seconds.rounded(.up)).components.seconds)
    }

    private func meta(
        _ facts: JobFacts, _ status: String, _ result: [UInt8], endedAt: Int64?, retention: Double? = nil, now: Int64
    ) -> SettlingStep.StoredMeta? {
        guard !facts.ignoresResult else { return nil }
        let seconds = seconds(retention, facts.headers)
        var hoist = facts.hoistMember(endedAt: endedAt, now: now)
        // Redis forgets by its own clock; a test that moves another must not have to wait.
        if configuration.clock != nil, seconds > 0 { hoist["until"] = .integer(now + seconds * 1_000_000) }
        var stored = CeleryResult(id: facts.id, status: status, result: result, hoist: hoist)
        stored.children = facts.children
        if status == "FAILURE" || status == "RETRY" { stored.traceback = facts.record.failure?.trace }
        stored.groupID = facts.headers.group
        stored.parentID = facts.headers.parentID
        stored.doneAt = endedAt.map(JobDate.init(microsecondsSinceEpoch:))
        if configuration.extendsResults { stored.extended = facts.extendedMembers }
        return SettlingStep.StoredMeta(key: keys.result(facts.id), seconds: seconds, value: stored.encoded)
    }

    /// Whether an outcome can be settled without asking what the server keeps of the job.
    func isPlain(_ settlement: Settlement) -> Bool {
        guard case .succeeded = settlement.outcome, let facts = settlement.facts else { return false }
        return facts.attempt == 1 && facts.lostWorkers == 0 && !configuration.extendsResults && settlement.storesResult
            && settlement.followUps == nil
    }

    func progressMeta(_ report: ProgressReport, _ facts: JobFacts, now: Int64) -> SettlingStep.StoredMeta? {
        meta(facts, "PROGRESS", CeleryResult.progress(report.progress), endedAt: nil, now: now)
    }

    func step(_ settlement: Settlement, _ facts: JobFacts, isCancelled: Bool = false, now: Int64) -> SettlingStep {
        var facts = facts
        facts.startedAt = settlement.startedAt.microsecondsSinceEpoch
        facts.usage = settlement.usage
        let transition = Transition(settlement, of: facts.ofDelivery(isCancelled: isCancelled))
        return step(transition, facts, settlement.token, now: now)
    }

    /// What follows from the end of a job, in the form of the server.
    func followUps(_ followUps: FollowUps?, now: Int64) -> [SettlingStep.FollowUp] {
        guard let followUps else { return [] }
        let messages = followUps.messages.map { message in
            // The priority of a signature is the number on Redis' wire already, and 0 where there is none. That of a step
            // is an urgency.
            var onWire = wireMessage(message)
            if message.headers.hoist.step == nil { onWire.properties.priority = message.properties.priority ?? 0 }
            let isLater = onWire.headers.eta?.microsecondsSinceEpoch ?? 0 > now
            return SettlingStep.FollowUp.message(
                onWire, list: keys.list(onWire.queue, wirePriority: onWire.properties.priority ?? 0),
                record: StoredJob(onWire, state: isLater ? .scheduled : .waiting, now: now))
        }
        return messages + followUps.ends.map { .result(meta($0, now: now)) }
    }

    /// The state of a job that this backend does not hold, as Celery stores it.
    func meta(_ write: ResultWrite, now: Int64) -> SettlingStep.StoredMeta {
        let record = write.record
        var seconds: Int64 = 0
        switch write.kept {
        case .nothing:
            return SettlingStep.StoredMeta(key: keys.result(record.id), seconds: 0, value: [], isRemoval: true)
        case .seconds(let kept): seconds = max(1, Duration(boundedSeconds: kept.rounded(.up)).components.seconds)
        case .standard: seconds = configuration.resultRetention?.components.seconds ?? 0
        case .deadLetter: seconds = configuration.deadLetterRetention.components.seconds
        }
        var facts = JobFacts(record, now: now)
        let (status, result): (String, [UInt8]) =
            switch record.state {
            case .succeeded: ("SUCCESS", record.output.map { JSONWriter.bytes(of: $0) } ?? CeleryResult.null)
            case .failed: ("FAILURE", CeleryResult.exception(record.failure ?? .stoppedAtMostOnce))
            case .cancelled: ("REVOKED", CeleryResult.revoked("revoked"))
            case .expired: ("REVOKED", CeleryResult.revoked("expired"))
            case .retrying: ("RETRY", record.failure.map { CeleryResult.exception($0) } ?? CeleryResult.null)
            case .running: ("PROGRESS", record.progress.map { CeleryResult.progress($0) } ?? CeleryResult.null)
            case .waiting, .scheduled: ("PENDING", CeleryResult.null)
            }
        facts.record.failure = record.failure
        var hoist = facts.hoistMember(endedAt: record.endedAt?.microsecondsSinceEpoch, now: now)
        if configuration.clock != nil, seconds > 0 { hoist["until"] = .integer(now + seconds * 1_000_000) }
        // It was revoked before anybody knew it: the message that comes under the id is not started, see claim.lua.
        if record.state == .cancelled, record.name.isEmpty { hoist["unseen"] = true }
        var stored = CeleryResult(id: record.id, status: status, result: result, hoist: hoist)
        stored.parentID = record.parentID
        stored.doneAt = record.endedAt
        if record.state == .failed || record.state == .retrying { stored.traceback = record.failure?.trace }
        return SettlingStep.StoredMeta(key: keys.result(record.id), seconds: seconds, value: stored.encoded)
    }

    /// What a script is to do, so that the server stores what a transition says.
    func step(_ transition: Transition, _ facts: JobFacts, _ token: Int64, now: Int64) -> SettlingStep {
        var facts = facts
        let transition = transition.continued(facts.message)
        facts.children += transition.followUps?.children ?? []
        var step = unfollowedStep(transition, facts, token, now: now)
        step.follow(transition.followUps, in: self, now: now)
        return step
    }

    private func unfollowedStep(
        _ transition: Transition, _ facts: JobFacts, _ token: Int64, now: Int64
    ) -> SettlingStep {
        var facts = facts
        if let attempt = transition.attempt { facts.record.append(attempt) }
        if let failure = transition.failure { facts.record.failure = failure }
        if transition.countsDeath { facts.record.lostWorkers += 1 }
        if let change = transition.change, var message = facts.message {
            change.apply(&message)
            facts.message = message
        }
        if !transition.countsStart { facts.startedAt = nil }
        switch transition.move {
        case .end(.succeeded, let date, let kept):
            let result: SettlingStep.StoredMeta?
            if transition.followUps?.replacesJob == true {
                // The job goes on, and nothing has become of it.
                result = nil
            } else if kept == .nothing {
                result = SettlingStep.StoredMeta(key: keys.result(facts.id), seconds: 0, value: [], isRemoval: true)
            } else {
                var retention: Double?
                if case .seconds(let seconds) = kept { retention = seconds }
                result = meta(
                    facts, "SUCCESS", transition.output ?? CeleryResult.null, endedAt: date.microsecondsSinceEpoch,
                    retention: retention, now: now)
            }
            return SettlingStep(id: facts.id, token: token, operation: .done, result: result, queue: facts.queue)
        case .end(let state, let date, _):
            return end(
                facts, token, as: state, failure: transition.failure, at: date.microsecondsSinceEpoch,
                yields: transition.yieldsToCancellation, now: now)
        case .back(let state, let due, let inFront):
            var step = back(
                facts, token, as: state, due: due?.microsecondsSinceEpoch, inFront: inFront,
                spendsAttempt: transition.spendsAttempt, now: now)
            step.countsAsStart = transition.countsStart
            return step
        }
    }

    func back(
        _ facts: JobFacts, _ token: Int64, as state: JobState, due: Int64?, inFront: Bool = false,
        spendsAttempt: Bool = false, now: Int64
    ) -> SettlingStep {
        var record = facts.record
        record.state = state
        var result: SettlingStep.StoredMeta?
        var envelope: [UInt8]?
        if var message = facts.message {
            if spendsAttempt {
                message.headers.retries += 1
                message.headers.parentID = message.headers.parentID ?? message.id
                var retried = facts
                retried.record = record
                result = record.failure.flatMap {
                    meta(retried, "RETRY", CeleryResult.exception($0), endedAt: nil, now: now)
                }
            }
            if due != nil { message.headers.eta = due.map(JobDate.init(microsecondsSinceEpoch:)) }
            message.properties.isRedelivered = !spendsAttempt && facts.startedAt != nil
            message.properties.deliveryTag = JobIdentifier.make()
            message.queue = facts.queue
            message.properties.exchange = ""
            envelope = message.encodedEnvelope()
        }
        return SettlingStep(
            id: facts.id, token: token,
            operation: .back(
                list: facts.list ?? keys.list(facts.queue, wirePriority: 0), due: due, inFront: inFront, record: record,
                envelope: envelope),
            result: result, queue: facts.queue)
    }

    func end(
        _ facts: JobFacts, _ token: Int64, as state: JobState, failure: JobFailure? = nil, at ended: Int64,
        yields: Bool = false, now: Int64
    ) -> SettlingStep {
        let ending = ending(facts, as: state, failure: failure, at: ended, now: now)
        return SettlingStep(
            id: facts.id, token: token,
            operation: .ended(kind: ending.kind, keepUntil: ending.keepUntil, record: ending.record, yields: yields),
            result: ending.result, queue: facts.queue)
    }

    struct Ending {
        var kind: String
        var keepUntil: Int64
        var record: StoredJob
        var result: SettlingStep.StoredMeta?
    }

    /// How a job is kept that ended without success.
    func ending(_ facts: JobFacts, as state: JobState, failure: JobFailure?, at ended: Int64, now: Int64) -> Ending {
        var facts = facts
        facts.record.state = state
        facts.record.failure = failure ?? facts.record.failure
        facts.record.endedAt = ended
        facts.record.startedAt = facts.startedAt
        facts.record.worker = facts.worker
        facts.record.changedAt = now
        let (kind, status, result, kept): (String, String, [UInt8], Duration) =
            switch state {
            case .failed:
                (
                    "dead", "FAILURE", CeleryResult.exception(failure ?? .stoppedAtMostOnce),
                    configuration.deadLetterRetention
                )
            case .expired: ("stopped", "REVOKED", CeleryResult.revoked("expired"), retention(facts))
            default:
                (
                    "stopped", "REVOKED", CeleryResult.revoked(facts.startedAt == nil ? "revoked" : "terminated"),
                    retention(facts)
                )
            }
        return Ending(
            kind: kind, keepUntil: now + kept.inMicroseconds, record: facts.record,
            result: meta(facts, status, result, endedAt: ended, now: now))
    }

    private func retention(_ facts: JobFacts) -> Duration {
        facts.headers.hoist.resultRetention.map(Duration.init(boundedSeconds:)) ?? configuration.resultRetention
            ?? .seconds(365 * 86_400)
    }
}
