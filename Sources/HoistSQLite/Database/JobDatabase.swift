import GRDB
import Hoist

/// One connection with its prepared statements. All work runs on the connection's own queue, never on the cooperative
/// threads.
///
/// `@unchecked Sendable`: `store` is made and used on `queue` only, whose serial dispatch queue protects it.
final class JobDatabase: @unchecked Sendable {
    private let queue: DatabaseQueue
    private let path: String
    private let store: JobStore

    init(_ queue: DatabaseQueue, path: String, rules: JobStore.Rules) throws {
        self.queue = queue
        self.path = path
        store = try queue.writeWithoutTransaction { try JobStore($0, rules: rules) }
    }

    /// Runs `body` as one immediate transaction. Cancelling the caller does not interrupt it, so that it is always
    /// clear whether the transaction was committed.
    /// - Throws: `BackendError`; nothing has changed then, and the call may be repeated.
    func transaction<T: Sendable>(_ what: String, _ body: @escaping @Sendable (JobStore) throws -> T) async throws -> T
    {
        try await withCheckedThrowingContinuation { continuation in
            queue.asyncWriteWithoutTransaction { [self] database in
                do {
                    try store.begin()
                    let result = try body(store)
                    try store.commitTransaction.begin().run()
                    continuation.resume(returning: result)
                } catch {
                    if database.isInsideTransaction { try? database.rollback() }
                    continuation.resume(throwing: BackendError(sqlite: error, path: path, doing: what))
                }
            }
        }
    }

    /// Runs `body` as one immediate transaction when the connection is free; nobody waits for it.
    /// - Parameter completion: told what `body` returns, or nil when it failed and nothing has changed.
    func transactionLater<T>(
        _ body: @escaping @Sendable (JobStore) throws -> T, completion: @escaping @Sendable (T?) -> Void
    ) {
        queue.asyncWriteWithoutTransaction { [self] database in
            do {
                try store.begin()
                let result = try body(store)
                try store.commitTransaction.begin().run()
                completion(result)
            } catch {
                if database.isInsideTransaction { try? database.rollback() }
                completion(nil)
            }
        }
    }

    func outsideTransaction(_ body: @escaping @Sendable (Database) throws -> Void) async throws {
        try await queue.writeWithoutTransaction { try body($0) }
    }
}

extension BackendError {
    /// Explains SQLite's result code to the person who has to act.
    init(sqlite error: any Error, path: String, doing what: String) {
        if let error = error as? BackendError {
            self = error
            return
        }
        guard let error = error as? DatabaseError else {
            self.init(.unavailable, "could not \(what) (\(path))", cause: error)
            return
        }
        switch error.resultCode {
        case .SQLITE_BUSY, .SQLITE_LOCKED:
            self.init(.busy, "could not \(what): another process held \(path) for too long; try again", cause: error)
        case .SQLITE_FULL:
            self.init(.full, "could not \(what): the disk of \(path) is full; free space and try again", cause: error)
        case .SQLITE_READONLY, .SQLITE_PERM:
            self.init(
                .readOnly, "could not \(what): \(path), or the folder it lies in, may not be written to", cause: error)
        case .SQLITE_CORRUPT:
            self.init(
                .corrupt,
                "could not \(what): \(path) is damaged; restore it, or save what is left with sqlite3 .recover",
                cause: error)
        case .SQLITE_NOTADB:
            self.init(.corrupt, "could not \(what): \(path) is not a SQLite database; name another file", cause: error)
        case .SQLITE_CANTOPEN where FileSystem.isReadOnly(path):
            self.init(
                .readOnly,
                "could not \(what): \(path) lies on a file system that is mounted read-only; name another place",
                cause: error)
        case .SQLITE_CANTOPEN:
            self.init(.unavailable, "could not \(what): \(path) cannot be opened; does its folder exist?", cause: error)
        default:
            self.init(.unavailable, "could not \(what) (\(path))", cause: error)
        }
    }
}
