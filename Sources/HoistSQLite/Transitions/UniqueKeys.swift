import Hoist

extension JobStore {
    /// The job that holds `key` now.
    func holder(of key: String, now: Int64) throws -> JobID? {
        try sql("DELETE FROM unique_key WHERE key = ? AND until <= ?").bind(key).bind(now).run()
        let select = try sql("SELECT holder FROM unique_key WHERE key = ?").bind(key)
        defer { select.end() }
        return try select.step() ? select.text(0) : nil
    }

    func hold(_ unique: UniqueKey, by id: JobID, now: Int64) throws {
        let until = unique.scope.kind == .window ? now + Int64(unique.scope.seconds * 1_000_000) : nil
        try sql("INSERT INTO unique_key (key, holder, scope, seconds, until) VALUES (?, ?, ?, ?, ?)")
            .bind(unique.key).bind(id).bind(unique.scope.kind.rawValue).bind(unique.scope.seconds).bind(until).run()
    }

    func releaseKeyAtStart(_ key: String) throws {
        try sql("DELETE FROM unique_key WHERE key = ? AND scope = 'waiting'").bind(key).run()
    }

    /// Gives up the key of an ended job, or begins the time for which it is remembered.
    func releaseKeyAtEnd(_ key: String, now: Int64) throws {
        try sql("DELETE FROM unique_key WHERE key = ? AND scope IN ('waiting', 'unfinished')").bind(key).run()
        try sql("UPDATE unique_key SET until = ?1 + CAST(seconds * 1000000 AS INTEGER) WHERE key = ?2 AND scope = 'remembered'")
            .bind(now).bind(key).run()
    }
}
