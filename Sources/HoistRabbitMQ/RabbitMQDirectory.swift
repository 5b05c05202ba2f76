import AMQP
import Hoist
import Synchronization

/// What RabbitMQ tells of queues without its management: how many messages wait, and the dead letters themselves.
///
/// It has no list of its queues. Those are found that this program uses or is configured with, and those that workers
/// consume, which are asked.
final class RabbitMQDirectory: JobDirectory, JobEditing {
    private let client: AMQPClient
    private let publisher: Publisher
    private let configuration: RabbitMQBackend.Configuration
    private let clock: any JobClock
    private let known: Mutex<Set<String>>
    /// Asks workers which queues they consume.
    private let consumed: @Sendable () async -> Set<String>
    /// How many dead letters of a queue are looked at.
    private static let most = 10_000

    init(
        _ client: AMQPClient, _ publisher: Publisher, _ configuration: RabbitMQBackend.Configuration,
        clock: any JobClock, consumed: @escaping @Sendable () async -> Set<String>
    ) {
        self.client = client
        self.publisher = publisher
        self.configuration = configuration
        self.clock = clock
        self.consumed = consumed
        known = Mutex(Set(configuration.queues.keys))
    }

    deinit { client.close() }

    func note(_ queues: some Sequence<String>) {
        known.withLock { known in
            // Queues of single workers come and go.
            if known.count < 10_000 { known.formUnion(queues) }
        }
    }

    /// - Throws: ``BackendError`` when the server cannot be reached: no queue known is not the same as no queue.
    private func names() async throws -> [String] {
        let channel = try await open(doing: "look for queues")
        try? await channel.close()
        note(await consumed())
        return known.withLock { $0.sorted() }
    }

    private func open(doing what: String) async throws -> AMQPChannel {
        do throws(AMQPError) {
            return try await client.connection().openChannel()
        } catch {
            try Task.checkCancellation()
            throw BackendError(error, doing: what)
        }
    }

    /// - Returns: nil when there is no such queue.
    private func depth(of queue: String) async throws -> Int? {
        let channel = try await open(doing: "count the queue \(queue)")
        do throws(AMQPError) {
            let state = try await channel.state(of: queue)
            try await channel.close()
            return state.messages
        } catch {
            if error.replyCode == 404 { return nil }
            try? await channel.close()
            throw BackendError(error, doing: "count the queue \(queue)")
        }
    }

    // MARK: - Looking

    /// Waiting jobs, dead letters, and as scheduled those that wait for a worker that knows them. RabbitMQ does not tell
    /// how many jobs of a queue run or are delayed.
    func queues() async throws -> [QueueStatistics] {
        var found: [QueueStatistics] = []
        for name in try await names() {
            let queue = TaskQueue(name: name, settings: QueueSettings())
            guard let waiting = try await depth(of: name) else { continue }
            let statistics = QueueStatistics(
                name: name, waiting: waiting, scheduled: try await depth(of: queue.holding) ?? 0,
                failed: try await depth(of: queue.deadLetters) ?? 0)
            if statistics.waiting + statistics.scheduled + statistics.failed > 0 { found.append(statistics) }
        }
        return found
    }

    /// RabbitMQ knows connections, and not workers: `Fleet` asks them.
    func workers() async throws -> [WorkerPresence] { [] }

    /// The dead letters. The others are messages in queues, which RabbitMQ shows to nobody.
    func jobs(_ filter: JobFilter) async throws -> [JobRecord] {
        guard filter.states?.contains(.failed) ?? true else { return [] }
        var found: [JobRecord] = []
        for queue in try await wanted(filter) {
            try await eachDeadLetter(of: queue) { letter in
                if filter.matches(letter.record) { found.append(letter.record) }
                return .keep
            }
        }
        // The newest first.
        let order = found.sorted { left, right in
            let (a, b) = (
                left.enqueuedAt?.microsecondsSinceEpoch ?? 0, right.enqueuedAt?.microsecondsSinceEpoch ?? 0
            )
            return (a, left.id) > (b, right.id)
        }
        return Array(order.prefix(max(0, filter.limit)))
    }

    func page(_ filter: JobFilter, after cursor: JobCursor?) async throws -> JobPage {
        let offset: Int
        if let cursor {
            guard let number = Int(cursor.text), number >= 0 else { throw BackendError(strange: cursor) }
            offset = number
        } else {
            offset = 0
        }
        var all = filter
        let size = filter.limit.clamped(to: 1...1000)
        all.limit = .max
        let jobs = try await jobs(all).dropFirst(offset)
        let next = jobs.count > size ? JobCursor(String(offset + size)) : nil
        return JobPage(jobs: Array(jobs.prefix(size)), next: next)
    }

    func counts() async throws -> [JobCount] {
        var counts: [JobCount] = []
        for queue in try await queues() where queue.waiting > 0 {
            counts.append(JobCount(queue: queue.name, name: JobCount.untold, state: .waiting, count: queue.waiting))
        }
        let dead = try await jobs(JobFilter(states: [.failed], limit: .max))
        for (place, records) in Dictionary(grouping: dead, by: { [$0.queue, $0.name] }) {
            counts.append(JobCount(queue: place[0], name: place[1], state: .failed, count: records.count))
        }
        return counts
    }

    func arguments(of id: JobID) async throws -> Arguments? {
        var found: Arguments?
        for queue in try await names() where found == nil {
            try await eachDeadLetter(of: queue) { letter in
                guard letter.record.id == id else { return .keep }
                found = letter.message.flatMap { try? $0.decodedBody().arguments }
                return .keep
            }
        }
        return found
    }

    private func wanted(_ filter: JobFilter) async throws -> [String] {
        if let queue = filter.queue { return [queue] }
        return try await names()
    }

    // MARK: - Dead letters

    private struct DeadLetter {
        var queue: String
        var content: AMQPMessage
        /// Nil when it cannot be read.
        var message: Message?
        var record: JobRecord
    }

    private enum Verdict {
        case keep
        case drop
        /// Back into its queue, as this message.
        case requeue(AMQPMessage)
    }

    /// Looks at each dead letter of a queue once. Those that are kept go back to their places when the channel closes.
    private func eachDeadLetter(of queue: String, _ decide: (DeadLetter) throws -> Verdict) async throws {
        let name = TaskQueue(name: queue, settings: QueueSettings()).deadLetters
        guard let count = try await depth(of: name), count > 0 else { return }
        let channel = try await open(doing: "look through the dead letters of \(queue)")
        var refusal: BackendError?
        do throws(AMQPError) {
            for _ in 0..<min(count, Self.most) {
                guard let (delivery, _) = try await channel.get(name) else { break }
                let letter = letter(delivery.message, queue: queue)
                let verdict: Verdict
                do {
                    verdict = try decide(letter)
                } catch let error as BackendError {
                    refusal = error
                    throw AMQPError(.misuse, error.message)
                } catch {
                    throw AMQPError(.misuse, "\(error)")
                }
                switch verdict {
                case .keep: break
                case .drop: channel.acknowledge(delivery.tag)
                case .requeue(let message):
                    let item = Publisher.Item(message: message, queue: queue, place: .ready)
                    do {
                        try await publisher.publish([item], within: client.configuration.publishTimeout)
                    } catch {
                        refusal = error as? BackendError
                        throw AMQPError(.connectionLost, "\(error)", mayHaveRun: true)
                    }
                    channel.acknowledge(delivery.tag)
                }
            }
            try await channel.settleAcknowledgements()
            try await channel.close()
        } catch {
            // Else what was looked at would be hidden as long as the connection lives.
            if error.code == .timedOut { channel.connection.close() } else { try? await channel.close() }
            throw refusal ?? BackendError(error, doing: "look through the dead letters of \(queue)")
        }
    }

    private func letter(_ content: AMQPMessage, queue: String) -> DeadLetter {
        let message = try? content.taskMessage(from: queue, isRedelivered: false)
        let reason = content.properties.headers?[AMQPMessage.reasonHeader]?.textValue
        var record = JobRecord(
            id: message?.id ?? content.properties.correlationID ?? "", name: message?.jobName ?? "(unreadable)",
            queue: queue, state: .failed, priority: Int(content.properties.priority ?? 0),
            attempts: (message?.headers.retries ?? 0) + 1, enqueuedAt: message?.headers.hoist.enqueuedAt)
        if let message { record.describe(message.headers) }
        record.failure = reason.flatMap { try? WireDecoder.decode(JobFailure.self, from: JSONParser.parse($0)) }
        return DeadLetter(queue: queue, content: content, message: message, record: record)
    }

    // MARK: - Changing

    func requeue(_ filter: JobFilter, arguments: Arguments?) async throws -> Int {
        guard filter.states?.contains(.failed) ?? true else { return 0 }
        var count = 0
        for queue in try await wanted(filter) {
            try await eachDeadLetter(of: queue) { letter in
                guard count < filter.limit, filter.matches(letter.record) else { return .keep }
                guard var message = letter.message else {
                    // Nobody could read it the second time either; but a newer worker may.
                    count += 1
                    return .requeue(letter.content.revived())
                }
                if let arguments { try message.replaceArguments(arguments) }
                message.headers.retries = 0
                message.headers.eta = nil
                message.headers.expires = nil
                message.noteAnotherLife(at: clock.now)
                count += 1
                return .requeue(AMQPMessage(message))
            }
        }
        return count
    }

    func drop(_ filter: JobFilter) async throws -> Int {
        guard filter.states?.contains(.failed) ?? true else { return 0 }
        var count = 0
        for queue in try await wanted(filter) {
            try await eachDeadLetter(of: queue) { letter in
                guard count < filter.limit, filter.matches(letter.record) else { return .keep }
                count += 1
                return .drop
            }
        }
        return count
    }

    func purge(queue: String) async throws -> Int {
        let channel = try await open(doing: "purge \(queue)")
        do throws(AMQPError) {
            let count = try await channel.purge(queue: queue)
            try await channel.close()
            return count
        } catch {
            if error.replyCode == 404 { return 0 }
            throw BackendError(error, doing: "purge \(queue)")
        }
    }

    func edit(_ id: JobID, _ edit: JobEdit) async throws -> Bool {
        throw BackendError(.misuse, "a message that waits in RabbitMQ cannot be changed; cancel \(id) and enqueue anew")
    }
}

extension AMQPMessage {
    /// A dead letter as the message that it was.
    fileprivate func revived() -> AMQPMessage {
        var message = self
        message.properties.headers?[Self.reasonHeader] = nil
        return message
    }
}
