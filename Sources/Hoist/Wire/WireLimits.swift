/// What a decoder accepts from a peer before it allocates for it.
public struct WireLimits: Sendable {
    /// The largest message or result, in bytes. 64 MiB by default.
    public var maximumBytes: Int
    /// How deep arrays and objects may nest. 128 by default.
    public var maximumDepth: Int
    /// How many values one document may hold in all. 4,000,000 by default.
    public var maximumValues: Int

    public init(maximumBytes: Int = 64 << 20, maximumDepth: Int = 128, maximumValues: Int = 4_000_000) {
        self.maximumBytes = maximumBytes
        self.maximumDepth = maximumDepth
        self.maximumValues = maximumValues
    }

    public static let `default` = WireLimits()
}

/// Bytes from a peer that are not what the wire format asks for.
public struct WireError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What was wrong and where, without any of the payload's own text.
    public var message: String

    public init(_ message: String) { self.message = message }

    public var description: String { message }
}
