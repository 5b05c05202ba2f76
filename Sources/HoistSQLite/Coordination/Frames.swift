import GRDB
public import Hoist
import Synchronization

/// Frames in a table that is kept for a minute, and read when the file's doorbell rings. Nothing is written while
/// nobody listens.
extension SQLiteBackend: Fanout {
    public func send(_ frame: [UInt8], exchange: String, key: String) async throws -> Int? {
        let now = clock.now.microsecondsSinceEpoch
        // Mostly nobody listens: then the file is not locked for writing.
        let listeners = try await read("look who listens to \(exchange)") { database in
            try Int.fetchOne(
                database, sql: "SELECT sum(listeners) FROM frame_listener WHERE exchange = ? AND until > ?",
                arguments: [exchange, now])
        }
        guard listeners ?? 0 > 0 else { return 0 }
        let heard = try await writer.transaction("send a frame on \(exchange)") {
            try $0.send(frame, exchange: exchange, key: key, now: now)
        }
        if heard > 0 { ringChanged() }
        return heard
    }

    public func frames(exchange: String, pattern: String) async throws -> AsyncStream<FanoutFrame> {
        try await frameReader.listen(exchange: exchange, pattern: pattern, on: self)
    }
}

extension JobStore {
    /// Seconds that a listener counts as alive without a sign of life.
    static let listenerLifetime: Int64 = 60

    /// - Returns: how many listen.
    func send(_ frame: [UInt8], exchange: String, key: String, now: Int64) throws -> Int {
        let select = try sql("SELECT sum(listeners) FROM frame_listener WHERE exchange = ? AND until > ?")
        select.bind(exchange).bind(now)
        let listeners = try select.step() ? Int(select.int(0)) : 0
        select.end()
        guard listeners > 0 else { return 0 }
        try sql("INSERT INTO frame (exchange, key, body, sent) VALUES (?, ?, ?, ?)")
            .bind(exchange).bind(key).bind(frame).bind(now).run()
        try sql("DELETE FROM frame WHERE sent < ?").bind(now - 60_000_000).run()
        return listeners
    }

    /// Says that this many listen on an exchange in one program; none removes the row.
    /// - Returns: the number of the last frame so far.
    func listen(_ listener: String, exchange: String, count: Int, now: Int64) throws -> Int64 {
        if count == 0 {
            try sql("DELETE FROM frame_listener WHERE id = ? AND exchange = ?").bind(listener).bind(exchange).run()
        } else {
            try sql(
                """
                INSERT INTO frame_listener (id, exchange, listeners, until) VALUES (?1, ?2, ?3, ?4)
                ON CONFLICT (id, exchange) DO UPDATE SET listeners = ?3, until = ?4
                """
            ).bind(listener).bind(exchange).bind(Int64(count)).bind(now + Self.listenerLifetime * 1_000_000).run()
        }
        try sql("DELETE FROM frame_listener WHERE until <= ?").bind(now).run()
        let last = try sql("SELECT seq FROM sqlite_sequence WHERE name = 'frame'")
        defer { last.end() }
        return try last.step() ? last.int(0) : 0
    }
}

/// Reads frames for the listeners of this program.
final class FrameReader: Sendable {
    private struct State {
        /// The last frame that was read; nil while nobody listens.
        var lastID: Int64?
        var exchanges: Set<String> = []
        var bell: ScheduledCall?
        var refresh: ScheduledCall?
        var isReading = false
        var mustReadAgain = false
    }

    /// So many frames are read at once.
    private static let mostRead = 10_000

    private let id = JobIdentifier.make()
    private let listeners: FanoutListeners
    private let left = Doorbell()
    private let state = Mutex(State())

    init() { listeners = FanoutListeners(onChange: { [left] _, _ in left.ring() }) }

    func listen(exchange: String, pattern: String, on backend: SQLiteBackend) async throws -> AsyncStream<FanoutFrame> {
        let stream = listeners.listen(exchange: exchange, pattern: pattern)
        let now = backend.clock.now.microsecondsSinceEpoch
        // Counted within the transaction, so that of two that change the number at once the later one is right.
        let last = try await backend.writer.transaction("listen to \(exchange)") { [id, listeners] store in
            try store.listen(id, exchange: exchange, count: listeners.count(of: exchange), now: now)
        }
        state.withLock { state in
            state.lastID = state.lastID ?? last
            state.exchanges.insert(exchange)
            if state.bell == nil {
                state.bell = backend.changes.listen { [weak self, weak backend] in
                    if let self, let backend { read(backend) }
                }
            }
        }
        scheduleRefresh(backend)
        return stream
    }

    /// Says again that this program listens, well before it counts as dead.
    private func scheduleRefresh(_ backend: SQLiteBackend) {
        state.withLock { state in
            guard state.refresh == nil else { return }
            let delay = Duration.seconds(JobStore.listenerLifetime / 3)
            state.refresh = backend.clock.schedule(after: delay) { [weak self, weak backend] in
                guard let self, let backend else { return }
                self.state.withLock { $0.refresh = nil }
                // Timers and bells call on threads that must not wait for the database.
                runBeside(on: sideThread) { await self.refresh(backend) }
            }
        }
    }

    private func refresh(_ backend: SQLiteBackend) async {
        let now = backend.clock.now.microsecondsSinceEpoch
        for exchange in state.withLock({ $0.exchanges }) {
            // What fails now is said again in twenty seconds.
            _ = try? await backend.writer.transaction("listen to \(exchange)") {
                [id, listeners] store in
                try store.listen(id, exchange: exchange, count: listeners.count(of: exchange), now: now)
            }
            state.withLock { state in
                if listeners.count(of: exchange) == 0 { state.exchanges.remove(exchange) }
            }
        }
        let isIdle = state.withLock { state in
            guard state.exchanges.isEmpty else { return false }
            state.bell?.cancel()
            (state.bell, state.lastID) = (nil, nil)
            return true
        }
        if !isIdle { scheduleRefresh(backend) }
    }

    /// One reading at a time, so that frames keep their order; another one follows when the bell rings meanwhile.
    private func read(_ backend: SQLiteBackend) {
        let mustBegin = state.withLock { state in
            guard state.lastID != nil else { return false }
            if state.isReading { state.mustReadAgain = true }
            defer { state.isReading = true }
            return !state.isReading
        }
        guard mustBegin else { return }
        runBeside(on: sideThread) {
            var mustGoOn = true
            while mustGoOn {
                await self.readOnce(backend)
                mustGoOn = self.state.withLock { state in
                    state.isReading = state.mustReadAgain
                    state.mustReadAgain = false
                    return state.isReading
                }
            }
        }
    }

    private func readOnce(_ backend: SQLiteBackend) async {
        guard let last = state.withLock({ $0.lastID }) else { return }
        let rows = try? await backend.read("read frames") { database in
            try Row.fetchAll(
                database, sql: "SELECT id, exchange, key, body FROM frame WHERE id > ? ORDER BY id LIMIT ?",
                arguments: [last, Self.mostRead]
            ).map { row in
                (
                    id: row["id"] as Int64, exchange: row["exchange"] as String, key: row["key"] as String,
                    bytes: row.bytes("body")
                )
            }
        }
        // Rows are numbered without holes: those before the first are gone, because this program slept for a minute.
        if let first = rows?.first, first.id > last + 1 {
            for exchange in state.withLock({ $0.exchanges }) { listeners.noteGap(exchange: exchange) }
        }
        if rows?.count == Self.mostRead { state.withLock { $0.mustReadAgain = true } }
        for row in rows ?? [] {
            listeners.hear(FanoutFrame(key: row.key, bytes: row.bytes), exchange: row.exchange)
            state.withLock { $0.lastID = row.id }
        }
    }
}
