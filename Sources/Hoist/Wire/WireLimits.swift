/// The limits that a decoder checks before it allocates memory for input from a peer.
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

    /// Refuses to send a value whose size or depth exceeds these limits, because the receiver's decoder would refuse
    /// it.
    /// - Throws: ``WireError`` that names the exceeded limit.
    func check(_ value: WireValue, encodedAs bytes: [UInt8]) throws(WireError) {
        guard bytes.count <= maximumBytes else {
            throw WireError("\(bytes.count) bytes of JSON exceed the limit of \(maximumBytes)")
        }
        guard Self.depth(of: value, within: maximumDepth) else { throw WireError("nested deeper than \(maximumDepth)") }
    }

    private static func depth(of value: WireValue, within limit: Int) -> Bool {
        switch value {
        case .array(let elements): limit > 0 && elements.allSatisfy { depth(of: $0, within: limit - 1) }
        case .object(let members): limit > 0 && members.allSatisfy { depth(of: $0.value, within: limit - 1) }
        default: true
        }
    }
}

/// Bytes from a peer that violate the wire format or its limits.
public struct WireError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What was wrong and where, without any of the payload's own text.
    public var message: String

    public init(_ message: String) { self.message = message }

    public var description: String { message }
}
