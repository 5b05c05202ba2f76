public import Hoist

extension SQLiteBackend: Coordination, Upkeep {
    public func value(of key: String) async throws -> [UInt8]? {
        try check(key)
        let now = clock.now.microsecondsSinceEpoch
        return try await writer.transaction("read the value of \(key)") { try $0.value(of: key, now: now) }
    }

    public func compareAndSet(
        _ key: String, expected: [UInt8]?, to value: [UInt8]?, expiresAfter lifetime: Duration?
    ) async throws -> Bool {
        try check(key, value)
        return try await writer.transaction("change the value of \(key)") { [clock] store in
            let now = clock.now.microsecondsSinceEpoch
            guard try store.value(of: key, now: now) == expected else { return false }
            try store.set(key, to: value, until: lifetime.map { now + $0.inMicroseconds })
            return true
        }
    }

    public func tick(every interval: Duration) async throws {
        let (tookOver, notices) = try await leases.transaction("give the jobs of dead workers to others") {
            [clock] store in
            let tookOver = try store.takeOver(now: clock.now.microsecondsSinceEpoch, uptime: clock.uptime)
            return (tookOver, store.takeNotices())
        }
        jobNotices.tell(notices)
        try await sweepBesideTheRest()
        if tookOver {
            ringReady()
            ringChanged()
        }
    }
}

extension JobStore {
    func value(of key: String, now: Int64) throws -> [UInt8]? {
        let select = try sql("SELECT value FROM stored_value WHERE key = ? AND (until IS NULL OR until > ?)")
        select.bind(key).bind(now)
        defer { select.end() }
        return try select.step() ? select.bytes(0) : nil
    }

    /// Removes values that have expired.
    func sweepValues(now: Int64) throws {
        try sql("DELETE FROM stored_value WHERE until <= ?").bind(now).run()
    }

    func set(_ key: String, to value: [UInt8]?, until: Int64?) throws {
        guard let value else {
            try sql("DELETE FROM stored_value WHERE key = ?").bind(key).run()
            return
        }
        try sql(
            """
            INSERT INTO stored_value (key, value, until) VALUES (?1, ?2, ?3)
            ON CONFLICT (key) DO UPDATE SET value = ?2, until = ?3
            """
        ).bind(key).bind(value).bind(until).run()
    }
}
