public import Hoist
import RESP
import Synchronization

extension RedisBackend {
    public func publish(_ messages: [Message]) async throws -> [PublishResult] {
        try await publish(messages, within: client.configuration.commandTimeout)
    }

    public func publish(_ messages: [Message], within limit: Duration) async throws -> [PublishResult] {
        guard !messages.isEmpty else { return [] }
        try await announce(messages.lazy.map(\.queue))
        let now = now
        let firstOnWire = wireMessage(messages[0])
        let firstJob = storedJob(of: firstOnWire, now: now)
        let first = Enqueued(firstOnWire, firstJob, record: firstJob.encoded, list: list(of: firstOnWire))
        @Sendable func enqueued(_ message: Message) -> Enqueued {
            let onWire = wireMessage(message)
            let job = storedJob(of: onWire, now: now)
            // Mostly all of a call have the same.
            return Enqueued(onWire, job, record: job == firstJob ? first.record : job.encoded, list: list(of: onWire))
        }
        let others = Array(messages.dropFirst())
        let jobs =
            try [first]
            + (messages.isWorthSeveralProcessors ? await others.mapOnProcessors(enqueued) : others.map(enqueued))
        let begin = ContinuousClock.now
        if areAlike(jobs), configuration.replication == nil, specialUntil.withLock({ $0 < begin }) {
            expireRecords()
            if try await run(RedisScripts.enqueuePlain, alike(jobs), for: jobs, within: limit) == .integer(1) {
                workDoorbell.ring()
                return [PublishResult](repeating: .enqueued, count: jobs.count)
            }
            // Mostly for a cap or a limit, which will not be gone with the next job.
            specialUntil.withLock { $0 = .now + .seconds(1) }
        }
        let left = max(.milliseconds(1), limit - (ContinuousClock.now - begin))
        let reply = try await run(
            RedisScripts.enqueue, [timeArgument] + places + jobs.flatMap { arguments($0, now: now) }, for: jobs,
            within: left,
            then: replicationCommands)
        guard let outcomes = reply.elements else { throw unexpected(reply, "enqueue jobs") }
        if outcomes.first?.integer == -1 {
            listenForWork()
            throw BackendError.atLimit(outcomes.last?.text ?? "")
        }
        guard outcomes.count == messages.count else { throw unexpected(reply, "enqueue jobs") }
        workDoorbell.ring()
        var results = [PublishResult](repeating: .enqueued, count: messages.count)
        for (index, outcome) in outcomes.enumerated() {
            switch outcome {
            case .integer(1): break
            case .integer: results[index] = .alreadyEnqueued
            default: results[index] = try await clash(messages[index], with: outcome.text ?? "")
            }
        }
        return results
    }

    private func storedJob(of onWire: Message, now: Int64) -> StoredJob {
        let isLater = onWire.headers.eta?.microsecondsSinceEpoch ?? 0 > now
        return StoredJob(onWire, state: isLater ? .scheduled : .waiting, now: now)
    }

    /// What enqueue.lua is called with.
    func enqueueArguments(_ messages: [Message], now: Int64) -> [RESPArgument] {
        let jobs = messages.map { message in
            let onWire = wireMessage(message)
            let job = storedJob(of: onWire, now: now)
            return Enqueued(onWire, job, record: job.encoded, list: list(of: onWire))
        }
        return [timeArgument] + places + jobs.flatMap { arguments($0, now: now) }
    }

    /// The number on Redis' wire is 0 for the most urgent, and 0 where there is none.
    public func publish(followUps messages: [Message]) async throws {
        let converted = messages.map { message in
            var message = message
            if message.headers.hoist.step == nil {
                message.properties.priority = RedisPriority.urgency(wire: message.properties.priority ?? 0)
            }
            return message
        }
        _ = try await publish(converted)
    }

    /// A job as it goes to the server.
    private struct Enqueued: Sendable {
        var id: JobID
        var queue: String
        var due: Int64?
        var unique: UniqueKey?
        var list: String
        var record: [UInt8]
        var envelope: [UInt8]

        init(_ onWire: Message, _ job: StoredJob, record: [UInt8], list: String) {
            id = onWire.id
            queue = onWire.queue
            due = onWire.headers.eta?.microsecondsSinceEpoch
            unique = job.unique
            self.list = list
            self.record = record
            envelope = onWire.encodedEnvelope()
        }
    }

    private func run(
        _ script: RESPScript, _ arguments: [RESPArgument], for jobs: [Enqueued], within limit: Duration,
        then commands: [RESPCommand] = []
    ) async throws -> RESPValue {
        let replies = try await run(
            script, arguments, doing: "enqueue \(jobs.count) jobs on \(jobs[0].queue)", then: commands,
            timeout: limit + (configuration.replication?.timeout ?? .zero))
        if !commands.isEmpty { try checkReplication(replies.last) }
        return replies[0]
    }

    /// What both scripts must know.
    private var places: [RESPArgument] { [brokerDatabase, .text(resultDatabase), .text(keys.results)] }

    /// Whether the jobs need nothing but a place in one list, and have one record in common: all of one call mostly do.
    private func areAlike(_ jobs: [Enqueued]) -> Bool {
        let first = jobs[0]
        return first.due == nil && first.unique == nil
            && jobs.dropFirst().allSatisfy { $0.due == nil && $0.list == first.list && $0.record == first.record }
            && (jobs.count == 1 || Set(jobs.map(\.id)).count == jobs.count)
    }

    private func alike(_ jobs: [Enqueued]) -> [RESPArgument] {
        var arguments = places
        arguments.reserveCapacity(5 + jobs.count * 2)
        arguments += [.text(jobs[0].list), .bytes(jobs[0].record)]
        for job in jobs { arguments.append(.text(job.id)) }
        for job in jobs { arguments.append(.bytes(job.envelope)) }
        return arguments
    }

    private func arguments(_ job: Enqueued, now: Int64) -> [RESPArgument] {
        var endOfWindow: RESPArgument = ""
        if let scope = job.unique?.scope, scope.kind == .window {
            endOfWindow = .integer(now + Duration(boundedSeconds: scope.seconds).inMicroseconds)
        }
        return [
            .text(job.id), .text(job.list), .text(job.queue), .bytes(job.record), .bytes(job.envelope),
            job.due.map { .integer($0) } ?? "", .text(job.unique?.key ?? ""), endOfWindow,
        ]
    }

    private func list(of onWire: Message) -> String {
        keys.list(onWire.queue, wirePriority: onWire.properties.priority ?? 0)
    }

    /// The message as Celery's workers expect it here: 0 the most urgent.
    func wireMessage(_ message: Message) -> Message {
        var message = message
        message.properties.priority = wirePriority(message)
        // It says nothing that the id does not, and every byte here is copied several times by the server.
        if message.properties.correlationID == message.id { message.properties.correlationID = nil }
        return message
    }

    private func wirePriority(_ message: Message) -> Int {
        RedisPriority.wire(urgency: message.properties.priority ?? configuration.unlabelledUrgency)
    }

    /// Lists the queues of this program among those that are known, once each.
    func announce(_ queues: some Sequence<String>) async throws {
        let new = announced.withLock { known in Set(queues.filter { !known.contains($0) }) }
        guard !new.isEmpty else { return }
        try Self.checkNames(new)
        _ = try await send(RESPCommand("SADD", [.text(keys.queues)] + new.map { .text($0) }), doing: "announce queues")
        announced.withLock { $0.formUnion(new) }
    }

    static func checkNames(_ queues: Set<String>) throws(BackendError) {
        guard queues.allSatisfy({ !$0.isEmpty && !$0.utf8.contains(UInt8(ascii: "\n")) && $0.utf8.count <= 1024 })
        else {
            throw BackendError(.misuse, "a queue's name must not be empty, hold a line break or exceed 1,024 bytes")
        }
    }

    private var replicationCommands: [RESPCommand] {
        guard let replication = configuration.replication else { return [] }
        let (count, wait) = (Int64(replication.replicas), max(1, replication.timeout.inMicroseconds / 1000))
        return [
            replication.needsDisk
                ? RESPCommand("WAITAOF", [1, .integer(count), .integer(wait)])
                : RESPCommand("WAIT", [.integer(count), .integer(wait)])
        ]
    }

    private func checkReplication(_ reply: RESPValue?) throws {
        guard let replication = configuration.replication, let reply else { return }
        if case .error(let error) = reply {
            throw BackendError(
                .misuse, "the jobs are enqueued, but the server cannot say where: \(error.message)", isRetrySafe: false)
        }
        let (local, copies) =
            replication.needsDisk
            ? (reply.elements?.first?.integer ?? 0, reply.elements?.last?.integer ?? 0) : (1, reply.integer ?? 0)
        guard local >= 1, copies >= Int64(replication.replicas) else {
            throw BackendError(
                .timedOut,
                "the jobs are enqueued, but only \(copies) of \(replication.replicas) replicas have them\(local < 1 ? ", and the disk has not" : "")",
                isRetrySafe: false)
        }
    }

    private func clash(_ message: Message, with holder: JobID) async throws -> PublishResult {
        guard let policy = message.headers.hoist.unique?.onClash, policy == .replace || policy == .reschedule else {
            return .keyHeld(by: holder)
        }
        let isAmended = try await amend(holder) { waiting in
            waiting.message.replaceWork(by: message)
            if policy == .reschedule {
                waiting.message.headers.eta = message.headers.eta
                waiting.message.headers.expires = message.headers.expires
                waiting.due = message.headers.eta?.microsecondsSinceEpoch
            }
        }
        return isAmended ? .replaced(holder) : .keyHeld(by: holder)
    }

    /// An answer that cannot be that of the command. Answers may be out of step with commands, so that the connection is
    /// given up.
    func unexpected(_ value: RESPValue, _ what: String) -> BackendError {
        client.startOver()
        return BackendError(
            .incompatible, "could not \(what): Redis answered what no script of ours answers", isRetrySafe: false)
    }
}
