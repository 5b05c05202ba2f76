/// One value as a Redis server sends it, of either version of its protocol (RESP2 and RESP3).
public enum RESPValue: Sendable, Hashable {
    case null
    case integer(Int64)
    case double(Double)
    case boolean(Bool)
    /// An integer of any size, in digits.
    case bigNumber(String)
    /// A status text of the server, such as `OK`.
    case simple(String)
    /// Bytes; text with a format (RESP3's verbatim string) comes without its format.
    case bulk([UInt8])
    case error(RESPServerError)
    /// An array, or a set.
    case array([RESPValue])
    /// Keys and values in turn.
    case map([RESPValue])
}

/// An error that the server sent in place of a result.
public struct RESPServerError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The first word, such as `ERR`, `WRONGTYPE` or `MOVED`.
    public var code: String
    /// The whole line.
    public var message: String

    public init(_ message: String) {
        self.message = message
        var coded = message[...]
        // Before Redis 7 the server wraps an error inside a script: the error itself follows the last `: -`.
        if message.hasPrefix("ERR Error running script"), let last = message.ranges(of: ": -").last {
            coded = message[last.upperBound...]
        }
        code = String(coded.prefix { $0 != " " })
    }

    public var description: String { message }
}

extension RESPValue {
    /// The bytes of a bulk or simple string.
    public var bytes: [UInt8]? {
        switch self {
        case .bulk(let bytes): bytes
        case .simple(let text): Array(text.utf8)
        default: nil
        }
    }

    /// The text of a bulk or simple string. Bytes that are not UTF-8 are replaced.
    public var text: String? {
        switch self {
        case .bulk(let bytes): String(decoding: bytes, as: UTF8.self)
        case .simple(let text): text
        default: nil
        }
    }

    /// An integer, or text that spells one.
    public var integer: Int64? {
        switch self {
        case .integer(let value): value
        case .bulk, .simple: text.flatMap { Int64($0) }
        default: nil
        }
    }

    /// A number, or text that spells one: RESP2 has no numbers but integers.
    public var double: Double? {
        switch self {
        case .double(let value): value
        case .integer(let value): Double(value)
        case .bulk, .simple: text.flatMap { Double($0) }
        default: nil
        }
    }

    /// The elements of an array, or the keys and values of a map in turn: RESP2 has no maps.
    public var elements: [RESPValue]? {
        switch self {
        case .array(let elements), .map(let elements): elements
        default: nil
        }
    }

    public var isNull: Bool { self == .null }
}
