public import Hoist
import RESP
import Synchronization

extension RedisBackend {
    /// How long the record of a job is kept that waits in a list, where a worker of another kind may take it unseen.
    static let waitingRecordMilliseconds: Int64 = 7 * 86_400_000

    public func publish(_ messages: [Message]) async throws -> [PublishResult] {
        try await publish(messages, within: client.configuration.commandTimeout)
    }

    public func publish(_ messages: [Message], within limit: Duration) async throws -> [PublishResult] {
        guard !messages.isEmpty else { return [] }
        try await announce(Set(messages.map(\.queue)))
        let now = now
        var arguments: [RESPArgument] = [
            timeArgument, brokerDatabase, .text(resultDatabase), .text(keys.results), .integer(Self.waitingRecordMilliseconds),
        ]
        arguments.reserveCapacity(8 + messages.count * 8)
        let order = append(messages, to: &arguments, now: now)
        let replies = try await run(
            RedisScripts.publish, arguments, doing: "enqueue \(messages.count) jobs on \(messages[0].queue)", then: replicationCommands,
            timeout: limit + (configuration.replication?.timeout ?? .zero))
        try checkReplication(replies.last)
        guard let outcomes = replies[0].elements else { throw unexpected(replies[0], "enqueue jobs") }
        if outcomes.first?.integer == -1 {
            listenForWork()
            throw BackendError(.full, "the queue \(outcomes.last?.text ?? "") has reached its limit; nothing was enqueued")
        }
        guard outcomes.count == messages.count else { throw unexpected(replies[0], "enqueue jobs") }
        workDoorbell.ring()
        var results = [PublishResult](repeating: .enqueued, count: messages.count)
        for (index, outcome) in zip(order, outcomes) {
            switch outcome {
            case .integer(1): break
            case .integer: results[index] = .alreadyEnqueued
            default: results[index] = try await clash(messages[index], with: outcome.text ?? "")
            }
        }
        return results
    }

    /// The jobs as the script takes them: first those that need nothing but a place in their list, by list.
    /// - Returns: the index of each message, in the order of the script's answers.
    private func append(_ messages: [Message], to arguments: inout [RESPArgument], now: Int64) -> [Int] {
        var plain: [String: [Int]] = [:]
        var others: [Int] = []
        for (index, message) in messages.enumerated() {
            guard message.headers.hoist.unique == nil, message.headers.eta == nil else {
                others.append(index)
                continue
            }
            plain[keys.list(message.queue, wirePriority: wirePriority(message)), default: []].append(index)
        }
        var order: [Int] = []
        order.reserveCapacity(messages.count)
        arguments.append(.integer(Int64(plain.count)))
        for (list, indices) in plain {
            arguments += [.text(list), .text(messages[indices[0]].queue), .integer(Int64(indices.count))]
            let onWire = indices.map { wireMessage(messages[$0]) }
            for message in onWire { arguments.append(.text(message.id)) }
            for message in onWire { arguments.append(.bytes(StoredJob(message, state: .waiting, now: now).encoded)) }
            for message in onWire { arguments.append(.bytes(message.encodedEnvelope())) }
            order += indices
        }
        for index in others { append(messages[index], to: &arguments, now: now) }
        return order + others
    }

    private func append(_ message: Message, to arguments: inout [RESPArgument], now: Int64) {
        let onWire = wireMessage(message)
        let due = message.headers.eta?.microsecondsSinceEpoch
        let record = StoredJob(onWire, state: (due ?? 0) > now ? .scheduled : .waiting, now: now)
        arguments.append(.text(message.id))
        arguments.append(.text(keys.list(message.queue, wirePriority: onWire.properties.priority ?? 0)))
        arguments.append(.text(message.queue))
        arguments.append(.bytes(record.encoded))
        arguments.append(.bytes(onWire.encodedEnvelope()))
        arguments.append(due.map(RESPArgument.integer) ?? "")
        arguments.append(.text(record.unique?.key ?? ""))
        if let scope = record.unique?.scope, scope.kind == .window {
            arguments.append(.integer(now + Duration(boundedSeconds: scope.seconds).inMicroseconds))
        } else {
            arguments.append("")
        }
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
    func announce(_ queues: Set<String>) async throws {
        let new = announced.withLock { queues.subtracting($0) }
        guard !new.isEmpty else { return }
        guard new.allSatisfy({ !$0.isEmpty && !$0.contains("\n") }) else {
            throw BackendError(.misuse, "a queue's name must not be empty or hold a line break")
        }
        _ = try await send(RESPCommand("SADD", [.text(keys.queues)] + new.map { .text($0) }), doing: "announce queues")
        announced.withLock { $0.formUnion(new) }
    }

    private var replicationCommands: [RESPCommand] {
        guard let replication = configuration.replication else { return [] }
        let (count, wait) = (Int64(replication.replicas), max(1, replication.timeout.inMicroseconds / 1000))
        return [
            replication.needsDisk
                ? RESPCommand("WAITAOF", [1, .integer(count), .integer(wait)]) : RESPCommand("WAIT", [.integer(count), .integer(wait)])
        ]
    }

    private func checkReplication(_ reply: RESPValue?) throws {
        guard let replication = configuration.replication, let reply else { return }
        if case .error(let error) = reply {
            throw BackendError(.misuse, "the jobs are enqueued, but the server cannot say where: \(error.message)", isRetrySafe: false)
        }
        let (local, copies) =
            replication.needsDisk ? (reply.elements?.first?.integer ?? 0, reply.elements?.last?.integer ?? 0) : (1, reply.integer ?? 0)
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
            waiting.message.body = message.body
            // A seal may hold the body to it.
            waiting.message.headers.hoist.unique = message.headers.hoist.unique
            waiting.message.contentType = message.contentType
            waiting.message.contentEncoding = message.contentEncoding
            waiting.message.headers.compression = message.headers.compression
            waiting.message.headers.argumentsText = message.headers.argumentsText
            waiting.message.headers.keywordArgumentsText = message.headers.keywordArgumentsText
            if policy == .reschedule {
                waiting.message.headers.eta = message.headers.eta
                waiting.message.headers.expires = message.headers.expires
                waiting.due = message.headers.eta?.microsecondsSinceEpoch
            }
        }
        return isAmended ? .replaced(holder) : .keyHeld(by: holder)
    }

    func unexpected(_ value: RESPValue, _ what: String) -> BackendError {
        BackendError(.incompatible, "could not \(what): Redis answered what no script of ours answers", isRetrySafe: false)
    }
}
