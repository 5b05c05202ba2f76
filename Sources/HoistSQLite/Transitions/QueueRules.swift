public import Hoist

extension SQLiteBackend: QueueControl {
    public func pause(queue: String) async throws {
        try await writer.transaction("pause the queue \(queue)") { store in
            try store.changeRules(of: queue) { $0.isPaused = true }
        }
    }

    public func resume(queue: String) async throws {
        try await writer.transaction("resume the queue \(queue)") { store in
            try store.changeRules(of: queue) { $0.resume() }
        }
        ringReady()
    }

    public func pausedQueues() async throws -> Set<String> {
        try await writer.transaction("list paused queues") { store in
            Set(try store.queueRules().filter(\.value.isPaused).keys)
        }
    }

    public func close(queue: String, for duration: Duration) async throws {
        try await writer.transaction("close the queue \(queue)") { [clock] store in
            let until = clock.now.microsecondsSinceEpoch + max(0, duration.inMicroseconds)
            try store.changeRules(of: queue) { $0.close(until: until) }
        }
    }

    public func limit(queue: String, to maximum: Int?) async throws {
        try await writer.transaction("limit the queue \(queue)") { store in
            try store.changeRules(of: queue) { $0.capacity = maximum.map { max(0, $0) } }
        }
        ringReady()
    }
}

extension JobStore {
    /// Mostly there are no rules and no limits, which one question tells.
    func knownFlow() throws -> Flow {
        if let flow { return flow }
        let select = try sql(
            """
            SELECT EXISTS (SELECT 1 FROM queue_rule), EXISTS (SELECT 1 FROM start_limit), EXISTS (SELECT 1 FROM permit)
            """)
        guard try select.step() else { throw BackendError(.corrupt, "the tables of rules and limits cannot be read") }
        let found = Flow(hasRules: select.int(0) == 1, hasLimits: select.int(1) == 1, hasPermits: select.int(2) == 1)
        select.end()
        flow = found
        return found
    }

    /// Of queues of which something was said.
    func queueRules() throws -> [String: QueueRules] {
        guard try knownFlow().hasRules else { return [:] }
        let select = try sql("SELECT queue, paused, closed_until, capacity FROM queue_rule")
        var rules: [String: QueueRules] = [:]
        while try select.step() {
            rules[select.text(0) ?? ""] = QueueRules(
                isPaused: select.int(1) == 1, closedUntil: select.optionalInt(2),
                capacity: select.optionalInt(3).map { Int($0) })
        }
        return rules
    }

    func changeRules(of queue: String, _ body: (inout QueueRules) -> Void) throws {
        var rules = try queueRules()[queue] ?? QueueRules()
        body(&rules)
        flow = nil
        if rules.isDefault {
            try sql("DELETE FROM queue_rule WHERE queue = ?").bind(queue).run()
            return
        }
        let insert = try sql(
            "INSERT OR REPLACE INTO queue_rule (queue, paused, closed_until, capacity) VALUES (?, ?, ?, ?)")
        insert.bind(queue).bind(rules.isPaused ? 1 as Int64 : 0).bind(rules.closedUntil)
        try insert.bind(rules.capacity.map(Int64.init)).run()
    }

    /// - Throws: `BackendError` `.full` when one of the queues has no room for its jobs.
    func checkRoom(for messages: [Message]) throws {
        let rules = try queueRules().filter { $0.value.capacity != nil }
        guard !rules.isEmpty else { return }
        for (queue, new) in Dictionary(grouping: messages, by: \.queue) {
            guard let rules = rules[queue] else { continue }
            var waiting = 0
            for line in knownLines(queue: queue).values {
                let ready = try sql("SELECT count(*) FROM job INDEXED BY job_ready WHERE state = 0 AND line = ?").bind(
                    line)
                if try ready.step() { waiting += Int(ready.int(0)) }
                ready.end()
                let later = try sql("SELECT count(*) FROM job INDEXED BY job_due WHERE state IN (1, 2) AND line = ?")
                    .bind(line)
                if try later.step() { waiting += Int(later.int(0)) }
                later.end()
            }
            guard rules.admits(new.count, besides: waiting) else { throw BackendError.atLimit(queue) }
        }
    }
}
