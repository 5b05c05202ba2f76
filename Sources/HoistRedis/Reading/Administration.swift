public import Hoist
import RESP

extension RedisBackend: JobDirectory, JobEditing {
    func knownQueues() async throws -> [String] {
        try await send(RESPCommand("SMEMBERS", [.text(keys.queues)]), doing: "list the queues").elements?.compactMap(
            \.text
        ).sorted() ?? []
    }

    /// Every list in which ready jobs of a queue wait: the queue's own lists, and the lists of its lines, where limits
    /// hold jobs up.
    func allLists(_ queue: String) async throws -> [String] {
        let lines = try await send(
            RESPCommand("SMEMBERS", [.text(keys.own + "lines:" + queue)]), doing: "look through the queue \(queue)")
        return keys.lists(queue) + (lines.elements ?? []).compactMap(\.text).flatMap { keys.lists(queue, line: $0) }
    }

    public func queues() async throws -> [QueueStatistics] {
        let names = try await knownQueues()
        let held = try await pipeline(
            try await holders().map { RESPCommand("HVALS", [.text(keys.own + "held:" + $0 + ":info")]) },
            doing: "count running jobs")
        var running: [String: Int] = [:]
        for value in held.flatMap({ $0.elements ?? [] }) {
            if let job = value.bytes.flatMap({ HeldJob($0, envelope: []) }) {
                running[keys.queue(ofList: job.list), default: 0] += 1
            }
        }
        var statistics: [QueueStatistics] = []
        for name in names {
            let lists = try await allLists(name)
            let counts = try await pipeline(
                lists.map { RESPCommand("LLEN", [.text($0)]) } + [
                    RESPCommand("ZCARD", [.text(keys.own + "delayed:" + name)]),
                    RESPCommand("ZCARD", [.text(keys.own + "dead:" + name)]),
                ] + lists.map { RESPCommand("LINDEX", [.text($0), -1]) }, doing: "count the queue \(name)")
            var queue = QueueStatistics(name: name, running: running[name] ?? 0)
            queue.waiting = counts.prefix(lists.count).reduce(0) { $0 + Int($1.integer ?? 0) }
            queue.scheduled = Int(counts[lists.count].integer ?? 0)
            queue.failed = Int(counts[lists.count + 1].integer ?? 0)
            queue.oldestWaiting = counts.suffix(lists.count).compactMap { element in
                element.bytes.flatMap { try? Message(envelope: $0) }?.headers.hoist.enqueuedAt
            }.min()
            if queue.waiting + queue.scheduled + queue.running + queue.failed > 0 { statistics.append(queue) }
        }
        return statistics
    }

    /// The workers that may hold jobs: live workers, and dead workers whose jobs are being given back.
    func holders() async throws -> [WorkerID] {
        let found = try await pipeline(
            [
                RESPCommand("ZRANGE", [.text(keys.own + "workers"), 0, -1]),
                RESPCommand("SMEMBERS", [.text(keys.own + "dying")]),
            ], doing: "list the workers")
        return found.flatMap { $0.elements?.compactMap(\.text) ?? [] }
    }

    public func workers() async throws -> [WorkerPresence] {
        let after = configuration.clock.map { "(\($0.now.microsecondsSinceEpoch)" } ?? "-inf"
        let ids =
            try await send(
                RESPCommand("ZRANGEBYSCORE", [.text(keys.own + "workers"), .text(after), "+inf"]),
                doing: "list the workers"
            )
            .elements?.compactMap(\.text) ?? []
        let found = try await pipeline(
            ids.map { RESPCommand("GET", [.text(keys.own + "worker:" + $0)]) }, doing: "list the workers")
        return found.compactMap { $0.bytes.flatMap { try? JSONText.decode(WorkerPresence.self, from: $0) } }.sorted {
            $0.startedAt < $1.startedAt
        }
    }

    public func jobs(_ filter: JobFilter) async throws -> [JobRecord] {
        var records: [JobRecord] = []
        if let ids = filter.ids {
            for id in ids {
                if let record = try await record(of: id), filter.matches(record) { records.append(record) }
            }
            return Array(records.prefix(filter.limit))
        }
        let states = filter.states ?? Set(JobState.allCases)
        let queues = if let queue = filter.queue { [queue] } else { try await knownQueues() }
        func wants(_ some: JobState...) -> Bool { !states.isDisjoint(with: some) }
        if wants(.running) { records += try await runningJobs() }
        for queue in queues {
            if wants(.waiting) { records += try await waitingJobs(queue, filter) }
            if wants(.scheduled, .retrying, .waiting) { records += try await keptJobs("delayed", queue) }
            if wants(.failed) { records += try await keptJobs("dead", queue) }
            if wants(.cancelled, .expired) { records += try await keptJobs("stopped", queue) }
        }
        if wants(.succeeded) { records += try await succeededJobs() }
        // The newest first; of jobs enqueued at the same moment, the one with the greater id.
        let order = records.enumerated().sorted { left, right in
            let (a, b) = (
                left.element.enqueuedAt?.microsecondsSinceEpoch ?? 0,
                right.element.enqueuedAt?.microsecondsSinceEpoch ?? 0
            )
            return a == b ? (left.element.id, left.offset) > (right.element.id, right.offset) : a > b
        }
        var found = Array(order.lazy.map(\.element).filter(filter.matches).prefix(filter.limit))
        let workers = try await workers()
        for index in found.indices where found[index].state == .waiting {
            found[index].waitingReason = JobRecord.waitingReason(
                queue: found[index].queue, name: found[index].name, workers: workers)
        }
        return found
    }

    private func runningJobs() async throws -> [JobRecord] {
        var records: [JobRecord] = []
        for worker in try await holders() {
            let held = RESPCommand("HKEYS", [.text(keys.own + "held:" + worker + ":info")])
            let ids = try await send(held, doing: "list running jobs").elements ?? []
            for id in ids.compactMap(\.text) { if let record = try await record(of: id) { records.append(record) } }
        }
        return records
    }

    /// Reads each list from its newest job, a thousand at a time and at most 100,000, until enough jobs of it match the
    /// filter.
    private func waitingJobs(_ queue: String, _ filter: JobFilter) async throws -> [JobRecord] {
        var records: [JobRecord] = []
        for list in try await allLists(queue) {
            var start: Int64 = 0
            // Of each list, for the newest job of all may be in any of them.
            let enough = records.count + filter.limit.clamped(to: 0...1_000_000)
            while records.count < enough, start < 100_000 {
                let slice =
                    try await send(
                        RESPCommand("LRANGE", [.text(list), .integer(start), .integer(start + 999)]),
                        doing: "list the queue \(queue)"
                    ).elements ?? []
                records += slice.compactMap { waitingJob($0.bytes, queue) }.filter(filter.matches)
                if slice.count < 1000 { break }
                start += 1000
            }
        }
        return records
    }

    /// The record of an element of a list; nil where it is no message.
    func waitingJob(_ element: [UInt8]?, _ queue: String) -> JobRecord? {
        guard let message = element.flatMap({ try? Message(envelope: $0) }) else { return nil }
        var record = JobRecord(
            id: message.id, name: message.jobName, queue: queue, state: .waiting,
            priority: RedisPriority.urgency(wire: message.properties.priority), attempts: message.headers.retries,
            enqueuedAt: message.headers.hoist.enqueuedAt)
        record.describe(message)
        return record
    }

    private func keptJobs(_ kind: String, _ queue: String) async throws -> [JobRecord] {
        let ids =
            try await send(
                RESPCommand("ZRANGE", [.text(keys.own + kind + ":" + queue), 0, 9999, "REV"]),
                doing: "list jobs of the queue \(queue)"
            ).elements?.compactMap(\.text) ?? []
        var records: [JobRecord] = []
        for id in ids { if let record = try await record(of: id) { records.append(record) } }
        return records
    }

    private func succeededJobs() async throws -> [JobRecord] {
        var cursor = "0"
        var records: [JobRecord] = []
        repeat {
            let page = try await results(from: cursor)
            records += page.records
            cursor = page.cursor
        } while cursor != "0"
        return records
    }

    func sendToResults(_ commands: [RESPCommand]) async throws -> [RESPValue] {
        guard !commands.isEmpty else { return [] }
        if let resultClient {
            return try await call("read results") { try await resultClient.send(pipeline: commands) }
        }
        guard !resultDatabase.isEmpty else { return try await pipeline(commands, doing: "read results") }
        // One pipeline, so that no other command comes between the two SELECTs.
        let there = RESPCommand("SELECT", [.text(resultDatabase)])
        let back = RESPCommand("SELECT", [brokerDatabase])
        return Array(try await pipeline([there] + commands + [back], doing: "read results").dropFirst().dropLast())
    }

    public func arguments(of id: JobID) async throws -> Arguments? {
        let location = try await locate(id)
        var envelope = location.held?.envelope ?? location.envelope
        if envelope == nil, let record = location.record {
            envelope = try await findElement(of: id, queues: [record.queue])?.element
        }
        return envelope.flatMap { try? Message(envelope: $0).decodedBody().arguments }
    }

    public func requeue(_ filter: JobFilter, arguments: Arguments?) async throws -> Int {
        var count = 0
        for record in try await endedJobs(filter) {
            if try await revive(record.id, arguments: arguments) { count += 1 }
        }
        workDoorbell.ring()
        return count
    }

    private func endedJobs(_ filter: JobFilter) async throws -> [JobRecord] {
        var filter = filter
        let ended = Set(JobState.allCases.filter(\.hasEnded))
        filter.states = filter.states.map { $0.intersection(ended) } ?? ended
        return try await jobs(filter)
    }

    private func revive(_ id: JobID, arguments: Arguments?) async throws -> Bool {
        let location = try await locate(id)
        guard let old = location.record, old.state.hasEnded, let envelope = location.envelope else { return false }
        let now = now
        var element = envelope
        var record = StoredJob(queue: old.queue, name: old.name, state: .waiting, now: now)
        var priority = 0
        if var message = try? Message(envelope: envelope) {
            if let arguments { try message.replaceArguments(arguments) }
            message.headers.eta = nil
            message.headers.expires = nil
            message.headers.retries = 0
            message.properties.deliveryTag = JobIdentifier.make()
            message.queue = old.queue
            priority = message.properties.priority ?? 0
            record = StoredJob(message, state: .waiting, now: now)
            element = message.encodedEnvelope()
        }
        let isRevived =
            try await run(
                RedisScripts.requeue,
                [
                    brokerDatabase, .text(resultDatabase), .text(id), .text(old.state == .failed ? "dead" : "stopped"),
                    .text(old.queue),
                    .text(keys.list(old.queue, wirePriority: priority)), .bytes(element), .bytes(record.encoded),
                    .text(keys.result(id)),
                    .text(record.unique?.key ?? ""), .text(record.unique?.scope.kind.rawValue ?? ""),
                ], doing: "requeue the job \(id)")[0].integer == 1
        if isRevived, let resultClient {
            let key = keys.result(id)
            _ = try await call("forget a result") {
                try await resultClient.send(RESPCommand("DEL", [.text(key)], key: key))
            }
        }
        if isRevived { follower.ring(id) }
        return isRevived
    }

    public func drop(_ filter: JobFilter) async throws -> Int {
        var count = 0
        for record in try await endedJobs(filter) { if try await forget(record.id) { count += 1 } }
        return count
    }

    public func purge(queue: String) async throws -> Int {
        var count = 0
        let lists = try await allLists(queue).map(RESPArgument.text)
        while true {
            let slice =
                try await run(
                    RedisScripts.purgeQueue, [timeArgument, .text(queue), 2000] + lists,
                    doing: "purge the queue \(queue)")[0]
                .integer ?? 0
            count += Int(slice)
            if slice < 2000 { return count }
        }
    }

    public func edit(_ id: JobID, _ edit: JobEdit) async throws -> Bool {
        try await amend(id) { waiting in
            switch edit {
            case .reschedule(let date):
                waiting.message.headers.eta = date
                waiting.due = date.microsecondsSinceEpoch
            case .priority(let urgency): waiting.message.properties.priority = urgency.clamped(to: 0...9)
            case .arguments(let arguments): try waiting.message.replaceArguments(arguments)
            }
        }
    }
}
