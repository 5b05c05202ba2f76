import Hoist

/// What is known of a job when something becomes of it: from the worker that performed it, or from what the server
/// keeps.
struct JobFacts {
    var id: JobID
    var queue: String
    var list: String?
    var record: StoredJob
    var headers: MessageHeaders
    /// Nil when the message was not looked at, or cannot be read.
    var message: Message?
    var attempt: Int
    /// What the job has started, each a tree of ids.
    var children: [WireValue] = []
    var startedAt: Int64?
    var worker: String?
    var ignoresResult: Bool
    var usage: ResourceUsage?

    /// As the worker tells it, without asking the server.
    init(_ facts: SettlementFacts, id: JobID, startedAt: Int64, now: Int64) {
        self.id = id
        queue = facts.queue
        headers = facts.headers
        record = StoredJob(queue: facts.queue, name: facts.name, state: .running, now: now)
        record.urgency = RedisPriority.urgency(wire: facts.properties.priority)
        record.enqueuedAt = headers.hoist.enqueuedAt?.microsecondsSinceEpoch
        attempt = facts.attempt
        children = facts.children.map(FollowUps.child)
        ignoresResult = facts.ignoresResult
        self.startedAt = startedAt
        worker = facts.worker
    }

    /// As another store tells it.
    init(_ record: JobRecord, now: Int64) {
        id = record.id
        queue = record.queue
        headers = MessageHeaders(task: record.name, id: record.id)
        headers.rootID = record.rootID
        headers.parentID = record.parentID
        headers.keywordArgumentsText = record.argumentsText
        headers.custom = record.headers
        self.record = StoredJob(queue: record.queue, name: record.name, state: record.state, now: now)
        self.record.urgency = record.priority
        self.record.enqueuedAt = record.enqueuedAt?.microsecondsSinceEpoch
        self.record.lostWorkers = record.lostWorkers
        self.record.history = record.history
        attempt = record.attempts
        startedAt = record.startedAt?.microsecondsSinceEpoch
        worker = record.worker
        usage = record.usage
        ignoresResult = false
    }

    /// As the server keeps it.
    init(id: JobID, held: HeldJob, keys: RedisKeys, worker: String?, now: Int64) {
        self.id = id
        list = held.list
        queue = keys.queue(ofList: held.list)
        message = try? Message(envelope: held.envelope)
        headers = message?.headers ?? MessageHeaders(task: held.record?.name ?? "(unreadable)", id: id)
        if var record = held.record {
            record.queue = queue
            self.record = record
        } else if var message {
            message.queue = queue
            record = StoredJob(message, state: .running, now: now)
        } else {
            record = StoredJob(queue: queue, name: headers.task, state: .running, now: now)
        }
        record.changedAt = now
        attempt = headers.retries + 1
        startedAt = held.began
        self.worker = worker
        ignoresResult = headers.ignoresResult == true
    }

    /// The facts that decide what becomes of the job.
    func ofDelivery(isCancelled: Bool) -> DeliveryFacts {
        DeliveryFacts(
            attempt: attempt, worker: worker, claimedAt: startedAt.map(JobDate.init(microsecondsSinceEpoch:)),
            lostWorkers: record.lostWorkers, isAtMostOnce: headers.hoist.isAtMostOnce, isCancelRequested: isCancelled)
    }

    /// What only Hoist knows, for a result.
    func hoistMember(endedAt: Int64?, now: Int64) -> WireValue.Object {
        var object: WireValue.Object = [
            "name": .string(record.name), "queue": .string(queue), "p": .integer(Int64(record.urgency)),
            "attempts": .integer(Int64(attempt)),
            "t": .integer(now),
        ]
        object["at"] = record.enqueuedAt.map(WireValue.integer)
        object["began"] = startedAt.map(WireValue.integer)
        object["ended"] = endedAt.map(WireValue.integer)
        object["worker"] = worker.map(WireValue.string)
        if headers.argumentsText != "()" { object["args"] = .string(headers.argumentsText) }
        object["kwargs"] = .string(headers.keywordArgumentsText)
        object["root"] = headers.rootID.map(WireValue.string)
        if !headers.custom.isEmpty { object["headers"] = .object(headers.custom) }
        if record.lostWorkers > 0 { object["lost"] = .integer(Int64(record.lostWorkers)) }
        if !record.history.isEmpty { object["history"] = try? WireEncoder.encode(record.history) }
        if let usage { object["usage"] = try? WireEncoder.encode(usage) }
        if let failure = record.failure { object["failure"] = try? WireEncoder.encode(failure) }
        return object
    }

    /// Celery's `result_extended`.
    var extendedMembers: WireValue.Object? {
        let arguments = try? message?.decodedBody().arguments
        return [
            "name": .string(record.name), "args": arguments.map { .array($0.positional) } ?? .null,
            "kwargs": arguments.map { .object($0.keyword) } ?? .null, "worker": worker.map(WireValue.string) ?? .null,
            "retries": .integer(Int64(attempt - 1)), "queue": .string(queue),
        ]
    }
}
