import Foundation
import GRDB
import Hoist
import Logging

/// The users and tokens of a dashboard, which lie in the file of its history.
///
/// Passwords are stored as scrypt hashes, tokens as SHA-256.
public struct DashboardUsers: Sendable {
    private let database: any DatabaseWriter
    private let cost: PasswordHash.Cost

    /// Opens the users of a history, also beside a dashboard that runs. Makes the file where it is missing.
    /// - Throws: `BackendError` `.unavailable` when the file cannot be opened. A retry is safe.
    public init(path: String) throws { try self.init(path: path, cost: .standard) }

    init(path: String, cost: PasswordHash.Cost) throws {
        self.cost = cost
        do {
            var configuration = Configuration()
            configuration.busyMode = .timeout(5)
            try PrivateFile.make(path)
            let queue = try DatabasePool(path: path, configuration: configuration)
            try HistorySchema.migrator.migrate(queue)
            database = queue
        } catch {
            throw BackendError(.unavailable, "the users in \(path) cannot be opened", cause: error)
        }
    }

    private func change(_ what: String, _ body: (Database) throws -> Void) throws {
        do { try database.write { try body($0) } } catch let error as BackendError { throw error } catch {
            throw BackendError(.unavailable, "could not \(what)", cause: error)
        }
    }

    private func read<T>(_ body: (Database) throws -> T) throws -> T {
        do { return try database.read(body) } catch {
            throw BackendError(.unavailable, "the users cannot be read", cause: error)
        }
    }

    // MARK: - Users

    /// Adds a user, or gives one another role and password. Sessions of the user end.
    /// - Parameters:
    ///   - name: 1 to 100 characters, without a colon, which HTTP's basic authentication reserves.
    ///   - password: 8 to 1,000 characters.
    ///   - role: what the user may do.
    /// - Throws: `BackendError` `.misuse` for a name or password that may not be, `.unavailable` when it cannot be
    ///   stored; a retry is safe.
    public func set(_ name: String, password: String, role: DashboardRole) throws {
        guard (1...100).contains(name.count), !name.contains(":"),
            !name.unicodeScalars.contains(where: { $0.properties.generalCategory == .control })
        else {
            throw BackendError(.misuse, "a user's name has 1 to 100 characters, no colon and no control characters")
        }
        guard (8...1000).contains(password.count) else {
            throw BackendError(.misuse, "a password has 8 to 1,000 characters")
        }
        let hash = try PasswordHash(of: password, cost: cost)
        try change("store the user") { database in
            try database.execute(
                sql: "INSERT OR REPLACE INTO user (name, role, cost, salt, hash) VALUES (?, ?, ?, ?, ?)",
                arguments: [name, role.rawValue, hash.cost.text, Data(hash.salt), Data(hash.hash)])
            try database.execute(sql: "DELETE FROM session WHERE user = ?", arguments: [name])
        }
    }

    /// Removes a user and ends the sessions of it.
    /// - Returns: whether there was one.
    /// - Throws: `BackendError` `.unavailable` when that cannot be stored; a retry is safe.
    public func remove(_ name: String) throws -> Bool {
        var isRemoved = false
        try change("remove the user") { database in
            try database.execute(sql: "DELETE FROM user WHERE name = ?", arguments: [name])
            isRemoved = database.changesCount > 0
            try database.execute(sql: "DELETE FROM session WHERE user = ?", arguments: [name])
        }
        return isRemoved
    }

    /// The users and their roles, by name.
    /// - Throws: `BackendError` `.unavailable` when they cannot be read; a retry is safe.
    public func all() throws -> [(name: String, role: DashboardRole)] {
        try read { database in
            try Row.fetchAll(database, sql: "SELECT name, role FROM user ORDER BY name").compactMap { row in
                DashboardRole(rawValue: row[1]).map { (name: row[0], role: $0) }
            }
        }
    }

    // MARK: - Tokens

    /// Makes a token. It is told this once; only its digest is stored.
    /// - Parameters:
    ///   - name: says what it is for; a token that has it is replaced.
    ///   - rights: at least one.
    /// - Throws: `BackendError` `.misuse` without a name or rights, `.unavailable` when it cannot be stored; a retry is
    ///   safe.
    public func makeToken(_ name: String, rights: Set<DashboardRight>) throws -> String {
        guard (1...100).contains(name.count), !rights.isEmpty else {
            throw BackendError(.misuse, "a token has a name of 1 to 100 characters, and at least one right")
        }
        let token = "hoist_" + RandomText.make()
        try change("store the token") { database in
            try database.execute(
                sql: "INSERT OR REPLACE INTO token (name, hash, rights) VALUES (?, ?, ?)",
                arguments: [
                    name, Data(RandomText.digest(token)), rights.map(\.rawValue).sorted().joined(separator: " "),
                ])
        }
        return token
    }

    /// Removes a token.
    /// - Returns: whether there was one.
    /// - Throws: `BackendError` `.unavailable` when that cannot be stored; a retry is safe.
    public func removeToken(_ name: String) throws -> Bool {
        var isRemoved = false
        try change("remove the token") { database in
            try database.execute(sql: "DELETE FROM token WHERE name = ?", arguments: [name])
            isRemoved = database.changesCount > 0
        }
        return isRemoved
    }

    /// The tokens and what they may be used for, by name.
    /// - Throws: `BackendError` `.unavailable` when they cannot be read; a retry is safe.
    public func tokens() throws -> [(name: String, rights: Set<DashboardRight>)] {
        try read { database in
            try Row.fetchAll(database, sql: "SELECT name, rights FROM token ORDER BY name").map { row in
                (name: row[0], rights: Self.rights(row[1]))
            }
        }
    }

    static func rights(_ text: String) -> Set<DashboardRight> {
        Set(text.split(separator: " ").compactMap { DashboardRight(rawValue: String($0)) })
    }
}

// MARK: - Logging in

extension HistoryStore {
    func user(_ name: String) async throws -> (hash: PasswordHash, role: DashboardRole)? {
        try await read { database in
            guard
                let row = try Row.fetchOne(
                    database, sql: "SELECT salt, hash, role, cost FROM user WHERE name = ?", arguments: [name]),
                let role = DashboardRole(rawValue: row[2]), let cost = PasswordHash.Cost(text: row[3])
            else { return nil }
            return (PasswordHash(cost: cost, salt: Array(row[0] as Data), hash: Array(row[1] as Data)), role)
        }
    }

    func identity(ofToken token: String) async throws -> Identity? {
        try await read { database in
            try Row.fetchOne(
                database, sql: "SELECT name, rights FROM token WHERE hash = ?",
                arguments: [Data(RandomText.digest(token))]
            ).map { row in
                Identity(name: "token " + (row[0] as String), rights: DashboardUsers.rights(row[1]), isToken: true)
            }
        }
    }

    /// Seconds.
    private static let sessionIdle = 14 * 86_400.0
    private static let sessionWhole = 90 * 86_400.0

    /// - Parameter hash: of the password that was right: where another one was set meanwhile, no session begins.
    /// - Returns: the text that the browser keeps. Only its digest is stored.
    func beginSession(_ user: String, _ hash: PasswordHash, at now: Date) async throws -> String? {
        let session = RandomText.make()
        return try await database.write { database in
            try database.execute(
                sql: "DELETE FROM session WHERE used < ? OR begun < ?",
                arguments: [
                    now.timeIntervalSince1970 - Self.sessionIdle, now.timeIntervalSince1970 - Self.sessionWhole,
                ])
            try database.execute(
                sql:
                    "INSERT INTO session (hash, user, begun, used) SELECT ?, name, ?, ? FROM user WHERE name = ? AND hash = ?",
                arguments: [
                    Data(RandomText.digest(session)), now.timeIntervalSince1970, now.timeIntervalSince1970, user,
                    Data(hash.hash),
                ])
            return database.changesCount == 1 ? session : nil
        }
    }

    func endSession(_ session: String) async throws {
        try await database.write { database in
            try database.execute(
                sql: "DELETE FROM session WHERE hash = ?", arguments: [Data(RandomText.digest(session))])
        }
    }

    func identity(ofSession session: String, at now: Date) async throws -> Identity? {
        let hash = Data(RandomText.digest(session))
        let time = now.timeIntervalSince1970
        let found = try await read { database in
            try Row.fetchOne(
                database,
                sql: """
                    SELECT user.name, user.role, session.used FROM session JOIN user ON user.name = session.user
                    WHERE session.hash = ? AND session.used >= ? AND session.begun >= ?
                    """, arguments: [hash, time - Self.sessionIdle, time - Self.sessionWhole]
            ).flatMap { row -> (Identity, Double)? in
                DashboardRole(rawValue: row[1]).map {
                    (Identity(name: row[0], rights: $0.rights, session: session), row[2])
                }
            }
        }
        guard let (identity, used) = found else { return nil }
        if time - used > 600 {
            // That it was used is worth a note now and then, and no failed request.
            try? await database.write { database in
                try database.execute(sql: "UPDATE session SET used = ? WHERE hash = ?", arguments: [time, hash])
            }
        }
        return identity
    }
}
