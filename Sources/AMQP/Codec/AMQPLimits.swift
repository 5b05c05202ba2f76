/// What is accepted from a server. Checked before memory is allocated for it.
public struct AMQPLimits: Sendable, Hashable {
    /// The largest body of a message, in bytes. 64 MiB by default. The bytes of a larger one are skipped, and its
    /// delivery says so: ``AMQPMessage/skippedBytes``.
    public var maximumBodyBytes: Int
    /// How deep tables and arrays may nest. 32 by default.
    public var maximumDepth: Int
    /// How many values one table may hold in all. 10,000 by default.
    public var maximumFields: Int

    public init(maximumBodyBytes: Int = 64 << 20, maximumDepth: Int = 32, maximumFields: Int = 10_000) {
        self.maximumBodyBytes = maximumBodyBytes
        self.maximumDepth = maximumDepth
        self.maximumFields = maximumFields
    }
}

/// Bytes of a server that violate the protocol.
struct AMQPViolation: Error, Equatable, CustomStringConvertible {
    var description: String

    init(_ description: String) { self.description = description }
}
