import Synchronization

/// The limits that a decoder checks before it allocates memory for input from a peer.
public struct WireLimits: Sendable {
    /// The largest message or result, in bytes. 64 MiB by default.
    public var maximumBytes: Int
    /// How deep arrays and objects may nest. 128 by default.
    public var maximumDepth: Int
    /// How many values one document may hold in all. 4,000,000 by default.
    public var maximumValues: Int

    /// How much memory the messages of a worker may take together while they are read and performed, in bytes, as far
    /// as that can be told from their size. A message beyond it waits for others to end. 256 MiB by default.
    public var maximumMemory: Int

    public init(
        maximumBytes: Int = 64 << 20, maximumDepth: Int = 128, maximumValues: Int = 4_000_000,
        maximumMemory: Int = 256 << 20
    ) {
        self.maximumBytes = maximumBytes
        self.maximumDepth = maximumDepth
        self.maximumValues = maximumValues
        self.maximumMemory = maximumMemory
    }

    private static let current = Mutex(WireLimits())

    /// The limits of this process.
    public static var `default`: WireLimits { current.withLock { $0 } }

    /// Sets the limits of this process, for all that it reads and writes from now on. A program that sends larger
    /// messages needs them as much as the workers that take them.
    public static func setDefault(_ limits: WireLimits) { current.withLock { $0 = limits } }

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
