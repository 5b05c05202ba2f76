#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// The values that JSON lacks and kombu writes as `{"__type__": T, "__value__": V}`.
package enum TypedValue {
    private static func tagged(_ type: String, _ value: WireValue) -> WireValue {
        .object(["__type__": .string(type), "__value__": value])
    }

    static func wire(_ date: Date) -> WireValue { tagged("datetime", .string(WireTimestamp.string(from: date))) }

    static func wire(_ uuid: UUID) -> WireValue {
        let hex = uuid.uuidString.lowercased().filter { $0 != "-" }
        return tagged("uuid", .object(["hex": .string(hex)]))
    }

    static func wire(_ decimal: Decimal) -> WireValue { tagged("decimal", .string(decimal.description)) }

    static func wire(_ data: Data) -> WireValue { wire(bytes: Array(data)) }

    package static func wire(bytes: [UInt8]) -> WireValue {
        if let text = String(validating: bytes, as: UTF8.self) { return tagged("bytes", .string(text)) }
        var encoded: [UInt8] = []
        Base64.append(bytes, to: &encoded)
        return tagged("base64", .string(String(decoding: encoded, as: UTF8.self)))
    }

    /// The type and value of a typed object; nil for anything else.
    static func untagged(_ value: WireValue) -> (type: String, value: WireValue)? {
        guard case .object(let object) = value, object.count == 2, let type = object["__type__"]?.stringValue,
            let inner = object["__value__"]
        else { return nil }
        return (type, inner)
    }

    /// The value with the inner values of typed objects in their places.
    static func plain(_ value: WireValue) -> WireValue {
        if let (_, inner) = untagged(value) { return inner["hex"] ?? inner }
        return switch value {
        case .array(let elements): .array(elements.map(plain))
        case .object(let members): .object(WireValue.Object(members.map { ($0.key, plain($0.value)) }))
        default: value
        }
    }

    static func date(_ value: WireValue) -> Date? {
        if let (type, inner) = untagged(value) {
            guard type == "datetime" || type == "date" else { return nil }
            return inner.stringValue.flatMap(WireTimestamp.date(from:))
        }
        if let text = value.stringValue { return WireTimestamp.date(from: text) }
        return value.doubleValue.flatMap(Date.init(boundedSecondsSinceEpoch:))
    }

    static func uuid(_ value: WireValue) -> UUID? {
        if let (type, inner) = untagged(value) {
            guard type == "uuid", let hex = inner["hex"]?.stringValue, hex.utf8.count == 32,
                hex.utf8.allSatisfy({ ($0 | 0x20) &- 0x61 < 6 || $0 &- 0x30 < 10 })
            else { return nil }
            var text = hex
            for position in [8, 13, 18, 23] {
                text.insert("-", at: text.index(text.startIndex, offsetBy: position))
            }
            return UUID(uuidString: text)
        }
        return value.stringValue.flatMap(UUID.init(uuidString:))
    }

    static func decimal(_ value: WireValue) -> Decimal? {
        if let (type, inner) = untagged(value) {
            guard type == "decimal" else { return nil }
            return inner.stringValue.flatMap { Decimal(string: $0) }
        }
        switch value {
        case .integer(let number): return Decimal(number)
        case .bigInteger(let digits): return Decimal(string: digits)
        case .double(let number): return Decimal(string: number.description)
        case .string(let text): return Decimal(string: text)
        default: return nil
        }
    }

    static func data(_ value: WireValue) -> Data? {
        guard let (type, inner) = untagged(value), let text = inner.stringValue else { return nil }
        switch type {
        case "bytes": return Data(text.utf8)
        case "base64": return (try? Base64.decode(text.utf8)).map { Data($0) }
        default: return nil
        }
    }
}
