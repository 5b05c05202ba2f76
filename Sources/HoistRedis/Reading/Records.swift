public import Hoist
import RESP
import Synchronization

extension RedisBackend {
    public func record(of id: JobID) async throws -> JobRecord? {
        let location = try await locate(id)
        guard var record = record(id, location) else { return nil }
        if record.state == .waiting {
            record.waitingReason = try await waitingReason(queue: record.queue, name: record.name)
        }
        return record
    }

    func waitingReason(queue: String, name: String) async throws -> String {
        let isPaused =
            try await send(
                RESPCommand("SISMEMBER", [.text(keys.own + "paused"), .text(queue)]), doing: "read paused queues"
            ).integer == 1
        let closed = try await send(
            RESPCommand("HGET", [.text(keys.own + "closed"), .text(queue)]), doing: "read closed queues"
        ).integer
        let rules = QueueRules(isPaused: isPaused, closedUntil: closed)
        if let reason = rules.reason(queue: queue, at: now) { return reason }
        let reason = JobRecord.waitingReason(queue: queue, name: name, workers: try await workers())
        let limits = try await limits()
        let own = (limits[.queue(queue)] ?? []) + (limits[.job(name)] ?? [])
        return own.isEmpty ? reason : reason + "; limits: " + own.map(\.description).joined(separator: ", ")
    }

    func record(_ id: JobID, _ location: Location) -> JobRecord? {
        if let held = location.held {
            // On a separate server, a result is stored and published a moment before the job is released.
            if resultClient != nil, let result = location.result, result.state.hasEnded, result.changedAt >= held.began
            {
                return record(id, result, nil)
            }
            return running(id, held, location)
        }
        if let stored = location.record {
            // A worker that is not Hoist's took the job out of its list; its result says more than the record.
            if let result = location.result, !stored.state.hasEnded, result.hoist.isNull, result.state != .waiting {
                return self.record(id, result, stored)
            }
            return self.record(id, stored, location)
        }
        return location.result.map { self.record(id, $0, nil) }
    }

    private func running(_ id: JobID, _ held: HeldJob, _ location: Location) -> JobRecord {
        let facts = JobFacts(id: id, held: held, keys: keys, worker: location.presence?.name, now: held.began)
        var record = record(id, facts.record, Location(isCancelRequested: location.isCancelRequested))
        record.describe(facts.headers)
        record.state = .running
        record.attempts = facts.attempt
        record.startedAt = JobDate(microsecondsSinceEpoch: held.began)
        record.worker = location.presence?.name
        record.isCancelRequested = location.isCancelRequested
        record.revision = held.began &+ (location.isCancelRequested ? 1 : 0)
        // The progress of this attempt, not of an earlier one.
        if let result = location.result, result.changedAt >= held.began {
            record.progress = result.progress
            record.revision = max(record.revision, result.changedAt &+ 1)
        }
        return record
    }

    private func record(_ id: JobID, _ stored: StoredJob, _ location: Location) -> JobRecord {
        var record = JobRecord(
            id: id, name: stored.name, queue: stored.queue, state: stored.state, priority: stored.urgency,
            lostWorkers: stored.lostWorkers, enqueuedAt: stored.enqueuedAt.map(JobDate.init(microsecondsSinceEpoch:)),
            dueAt: location.due.map(JobDate.init(microsecondsSinceEpoch:)),
            startedAt: stored.startedAt.map(JobDate.init(microsecondsSinceEpoch:)),
            endedAt: stored.endedAt.map(JobDate.init(microsecondsSinceEpoch:)), worker: stored.worker,
            failure: stored.failure,
            usage: stored.history.last?.usage, history: stored.history, revision: stored.changedAt)
        if !stored.state.hasEnded {
            record.state = location.due == nil ? .waiting : stored.state == .retrying ? .retrying : .scheduled
        }
        if let message = location.envelope.flatMap({ try? Message(envelope: $0) }) {
            record.describe(message)
            record.attempts = message.headers.retries + (stored.state.hasEnded && stored.startedAt != nil ? 1 : 0)
        }
        record.completeIfSucceeded()
        return record
    }

    private func record(_ id: JobID, _ result: StoredResult, _ stored: StoredJob?) -> JobRecord {
        let (hoist, value) = (result.hoist, result.value)
        func date(_ key: String) -> JobDate? { hoist[key]?.integerValue.map(JobDate.init(microsecondsSinceEpoch:)) }
        var record = JobRecord(
            id: id, name: hoist["name"]?.stringValue ?? value["name"]?.stringValue ?? stored?.name ?? "",
            queue: hoist["queue"]?.stringValue ?? value["queue"]?.stringValue ?? stored?.queue ?? "",
            state: result.state,
            priority: Int(hoist["p"]?.integerValue ?? Int64(stored?.urgency ?? 0)).clamped(to: 0...9),
            attempts: StoredJob.count(
                hoist["attempts"] ?? value["retries"]?.integerValue.map { .integer($0 &+ 1) } ?? 1),
            lostWorkers: StoredJob.count(hoist["lost"]),
            enqueuedAt: date("at") ?? stored?.enqueuedAt.map(JobDate.init(microsecondsSinceEpoch:)),
            startedAt: date("began"),
            endedAt: date("ended") ?? value["date_done"]?.stringValue.flatMap(WireTimestamp.date(from:)),
            worker: hoist["worker"]?.stringValue ?? value["worker"]?.stringValue, progress: result.progress,
            output: result.state == .succeeded ? value["result"] : nil, failure: result.failure)
        record.usage = hoist["usage"].flatMap { try? WireDecoder.decode(ResourceUsage.self, from: $0) }
        record.history = hoist["history"].flatMap { try? WireDecoder.decode([AttemptRecord].self, from: $0) } ?? []
        let arguments = [hoist["args"]?.stringValue ?? "", hoist["kwargs"]?.stringValue ?? ""]
        record.argumentsText = arguments.filter { !$0.isEmpty }.joined(separator: " ")
        record.parentID = value["parent_id"]?.stringValue
        record.rootID = hoist["root"]?.stringValue
        record.headers = hoist["headers"]?.objectValue ?? [:]
        record.revision = hoist["t"]?.integerValue ?? Int64(truncatingIfNeeded: value.hashValue)
        record.completeIfSucceeded()
        return record
    }

    public func log(of id: JobID) async throws -> JobLog? {
        let bytes = try await send(RESPCommand("GET", [.text(keys.log(id))]), doing: "read the log of a job").bytes
        return bytes.flatMap { try? JSONText.decode(JobLog.self, from: $0) }
    }

    public func updates(of id: JobID) -> JobUpdates {
        JobUpdates(changes: follower.doorbell(of: id, hearsStart: true), clock: clock) { [weak self] in
            try await self?.record(of: id)
        }
    }

    public func recordAtEnd(of id: JobID, isNew: Bool, patience: Duration) async throws -> JobRecord? {
        // An id that has a result is not accepted for a new job, so a result found now is that of this job; reading the
        // result alone costs the server least.
        guard isNew, resultClient == nil, resultDatabase.isEmpty else {
            return try await updates(of: id).patient(isNew ? .zero : patience).lastIfEnded
        }
        let bell = follower.doorbell(of: id, hearsStart: false)
        while true {
            try Task.checkCancellation()
            let mark = bell.mark
            let command = RESPCommand("MGET", [.text(keys.result(id)), .text(keys.job(id))])
            let found = try await send(command, doing: "look for the result of the job \(id)").elements
            let result = found?.first?.bytes.flatMap(StoredResult.init).flatMap(isKept)
            if let result, result.state.hasEnded { return record(id, result, nil) }
            // Not every job leaves a result.
            let mayHaveEnded = found?.last?.bytes.flatMap(StoredJob.init)?.state.hasEnded ?? true
            if !mayHaveEnded {
                await bell.wait(after: mark, for: .seconds(2), clock: clock)
                // The caller waits no longer, so the server need not look.
                try Task.checkCancellation()
                // After a time-out a ring may have got lost.
                if bell.mark != mark { continue }
            }
            guard let record = record(id, try await locate(id)) else { return nil }
            if record.state.hasEnded { return record }
            if mayHaveEnded { await bell.wait(after: mark, for: .seconds(2), clock: clock) }
        }
    }
}

extension RedisBackend.Location {
    init(isCancelRequested: Bool) {
        self.init(
            worker: nil, presence: nil, held: nil, isCancelRequested: isCancelRequested, record: nil, due: nil,
            envelope: nil, result: nil)
    }
}
