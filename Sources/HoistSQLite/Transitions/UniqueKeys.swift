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
        let until =
            unique.scope.kind == .window ? now + Duration(boundedSeconds: unique.scope.seconds).inMicroseconds : nil
        try sql("INSERT INTO unique_key (key, holder, scope, seconds, until) VALUES (?, ?, ?, ?, ?)")
            .bind(unique.key).bind(id).bind(unique.scope.kind.rawValue).bind(
                Duration(boundedSeconds: unique.scope.seconds).inSeconds
            ).bind(
                until
            ).run()
    }

    func releaseKeyAtStart(_ key: String, of id: JobID) throws {
        try sql("DELETE FROM unique_key WHERE key = ? AND holder = ? AND scope = 'waiting'").bind(key).bind(id).run()
    }

    /// Gives up the key of an ended job, or begins the time for which it is remembered. A key that another job holds by
    /// now is left alone.
    func releaseKeyAtEnd(of sequence: Int64, now: Int64) throws {
        let select = try sql("SELECT unique_key, id FROM job WHERE seq = ? AND unique_key IS NOT NULL").bind(sequence)
        guard try select.step() else { return }
        let (key, id) = (select.text(0), select.text(1))
        select.end()
        try sql("DELETE FROM unique_key WHERE key = ? AND holder = ? AND scope IN ('waiting', 'unfinished')").bind(key)
            .bind(id).run()
        try sql(
            "UPDATE unique_key SET until = ?1 + CAST(seconds * 1000000 AS INTEGER) WHERE key = ?2 AND holder = ?3 AND scope = 'remembered'"
        ).bind(now).bind(key).bind(id).run()
    }

    /// A job with another life holds its key again, unless another job has it by now.
    func holdKeyAgain(_ sequence: Int64) throws {
        let select = try sql(
            "SELECT j.id, p.message FROM job j JOIN payload p ON p.seq = j.seq WHERE j.seq = ? AND j.unique_key IS NOT NULL"
        ).bind(sequence)
        guard try select.step() else { return }
        let (id, bytes) = (select.text(0), select.bytes(1))
        select.end()
        guard let unique = (try? Message(envelope: bytes))?.headers.hoist.unique else { return }
        try sql(
            "INSERT INTO unique_key (key, holder, scope, seconds, until) VALUES (?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING"
        )
        .bind(unique.key).bind(id).bind(unique.scope.kind.rawValue).bind(
            Duration(boundedSeconds: unique.scope.seconds).inSeconds
        ).run()
        try sql("UPDATE unique_key SET until = NULL WHERE key = ? AND holder = ? AND scope = 'remembered'")
            .bind(unique.key).bind(id).run()
    }
}
