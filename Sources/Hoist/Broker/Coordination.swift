/// Keeps small values that programs agree on: who leads, when a schedule is due next.
///
/// Each value is changed by comparing: of two programs that change it at once, one succeeds.
public protocol Coordination: Sendable {
    /// The value of a key; nil when there is none, or when it has expired.
    /// - Parameter key: 1 to 512 bytes.
    /// - Throws: ``BackendError``; asking again is safe. `.misuse` for a key of another length.
    func value(of key: String) async throws -> [UInt8]?

    /// Changes a value if it is the expected one.
    /// - Parameters:
    ///   - key: 1 to 512 bytes.
    ///   - expected: the value that must be there; nil for none.
    ///   - value: the new value, at most 65,536 bytes; nil to remove the value.
    ///   - lifetime: when the new value expires, by the clock of the backend; nil for never.
    /// - Returns: false when another value is there; nothing has changed then.
    /// - Throws: ``BackendError``; the value may be changed then: read it before a retry. `.misuse` for a key or value
    ///   of another length.
    func compareAndSet(
        _ key: String, expected: [UInt8]?, to value: [UInt8]?, expiresAfter lifetime: Duration?
    ) async throws -> Bool
}

extension Coordination {
    /// - Throws: ``BackendError`` `.misuse` for a key or value of a length that is not allowed.
    package func check(_ key: String, _ value: [UInt8]? = nil) throws(BackendError) {
        guard (1...512).contains(key.utf8.count) else {
            throw BackendError(.misuse, "the key of a stored value has \(key.utf8.count) bytes; 1 to 512 are allowed")
        }
        guard value?.count ?? 0 <= 65_536 else {
            throw BackendError(.misuse, "the value of \(key) has \(value?.count ?? 0) bytes; 65,536 are allowed")
        }
    }
}
