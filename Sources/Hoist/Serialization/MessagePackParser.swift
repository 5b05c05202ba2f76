/// Reads MessagePack (the specification of 2017), as far as JSON can express its values; bytes become kombu's typed
/// values.
struct MessagePackParser {
    private let bytes: [UInt8]
    private var position = 0
    private var values = 0
    private let limits: WireLimits

    static func parse(_ bytes: [UInt8], limits: WireLimits = .default) throws(WireError) -> WireValue {
        guard bytes.count <= limits.maximumBytes else {
            throw WireError("\(bytes.count) bytes of MessagePack exceed the limit of \(limits.maximumBytes)")
        }
        var parser = MessagePackParser(bytes: bytes, limits: limits)
        let value = try parser.value(depth: 0)
        guard parser.position == bytes.count else {
            throw WireError("MessagePack: \(bytes.count - parser.position) bytes too many")
        }
        return value
    }

    private init(bytes: [UInt8], limits: WireLimits) {
        self.bytes = bytes
        self.limits = limits
    }

    private mutating func value(depth: Int) throws(WireError) -> WireValue {
        values += 1
        guard values <= limits.maximumValues else {
            throw WireError("MessagePack: more than \(limits.maximumValues) values")
        }
        let lead = try byte()
        switch lead {
        case 0x00...0x7F: return .integer(Int64(lead))
        case 0x80...0x8F: return try object(count: Int(lead & 0x0F), depth: depth)
        case 0x90...0x9F: return try array(count: Int(lead & 0x0F), depth: depth)
        case 0xA0...0xBF: return .string(try text(count: Int(lead & 0x1F)))
        case 0xC0: return .null
        case 0xC2: return .bool(false)
        case 0xC3: return .bool(true)
        case 0xC4...0xC6: return try binary(count: length(1 << (lead - 0xC4)))
        case 0xCA: return .double(Double(Float(bitPattern: UInt32(try integer(4)))))
        case 0xCB: return .double(Double(bitPattern: try integer(8)))
        case 0xCC...0xCF:
            let number = try integer(1 << (lead - 0xCC))
            return Int64(exactly: number).map(WireValue.integer) ?? .bigInteger(String(number))
        case 0xD0: return .integer(Int64(Int8(truncatingIfNeeded: try integer(1))))
        case 0xD1: return .integer(Int64(Int16(truncatingIfNeeded: try integer(2))))
        case 0xD2: return .integer(Int64(Int32(truncatingIfNeeded: try integer(4))))
        case 0xD3: return .integer(Int64(bitPattern: try integer(8)))
        case 0xD9...0xDB: return .string(try text(count: length(1 << (lead - 0xD9))))
        case 0xDC, 0xDD: return try array(count: length(lead == 0xDC ? 2 : 4), depth: depth)
        case 0xDE, 0xDF: return try object(count: length(lead == 0xDE ? 2 : 4), depth: depth)
        case 0xE0...0xFF: return .integer(Int64(Int8(bitPattern: lead)))
        default: throw WireError("MessagePack: the type \(String(lead, radix: 16)) is not accepted")
        }
    }

    private mutating func array(count: Int, depth: Int) throws(WireError) -> WireValue {
        try enter(count: count, depth: depth)
        var elements: [WireValue] = []
        elements.reserveCapacity(count)
        for _ in 0..<count { elements.append(try value(depth: depth + 1)) }
        return .array(elements)
    }

    private mutating func object(count: Int, depth: Int) throws(WireError) -> WireValue {
        try enter(count: count, depth: depth)
        var members: WireValue.Object = [:]
        for _ in 0..<count {
            // Keys that are not strings become strings, as in Python's JSON encoder.
            let key: String
            switch try value(depth: depth + 1) {
            case .string(let text): key = text
            case .integer(let number): key = String(number)
            case .bool(let flag): key = flag ? "true" : "false"
            case .null: key = "null"
            default: throw WireError("MessagePack: a key is neither text nor a whole number")
            }
            members[key] = try value(depth: depth + 1)
        }
        return .object(members)
    }

    /// Checks a count before anything is allocated for it: each element takes at least one byte.
    private func enter(count: Int, depth: Int) throws(WireError) {
        guard depth < limits.maximumDepth else {
            throw WireError("MessagePack: nested deeper than \(limits.maximumDepth)")
        }
        guard count <= bytes.count - position else { throw cutOff }
    }

    private mutating func binary(count: Int) throws(WireError) -> WireValue {
        TypedValue.wire(bytes: Array(try take(count)))
    }

    private mutating func text(count: Int) throws(WireError) -> String {
        guard let text = String(validating: try take(count), as: UTF8.self) else {
            throw WireError("MessagePack: text that is not UTF-8")
        }
        return text
    }

    private var cutOff: WireError { WireError("MessagePack: cut off") }

    private mutating func take(_ count: Int) throws(WireError) -> ArraySlice<UInt8> {
        guard count <= bytes.count - position else { throw cutOff }
        defer { position += count }
        return bytes[position..<position + count]
    }

    private mutating func byte() throws(WireError) -> UInt8 {
        guard position < bytes.count else { throw cutOff }
        defer { position += 1 }
        return bytes[position]
    }

    private mutating func integer(_ width: Int) throws(WireError) -> UInt64 {
        try take(width).reduce(0) { $0 << 8 | UInt64($1) }
    }

    private mutating func length(_ width: Int) throws(WireError) -> Int { Int(try integer(width)) }
}
