#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Decodes wire values into `Decodable` types: the reverse of ``WireEncoder``.
package enum WireDecoder {
    /// - Throws: `DecodingError`, or what the type's own `init(from:)` throws.
    package static func decode<T: Decodable>(_ type: T.Type, from value: WireValue) throws -> T {
        try ValueDecoder(source: .value(value), codingPath: []).unbox(type)
    }
}

/// The source of a decoder: a value, or the arguments of a call, which bind by name or by place.
enum WireSource {
    case value(WireValue)
    case arguments(ArgumentBinder)
}

struct ValueDecoder: Decoder, SingleValueDecodingContainer {
    let source: WireSource
    let codingPath: [any CodingKey]
    var userInfo: [CodingUserInfoKey: Any] { [:] }

    private var value: WireValue {
        switch source {
        case .value(let value): value
        case .arguments(let binder): .object(binder.keywordArguments)
        }
    }

    func container<Key: CodingKey>(keyedBy type: Key.Type) throws -> KeyedDecodingContainer<Key> {
        let members: KeyedMembers
        switch source {
        case .arguments(let binder): members = .arguments(binder)
        case .value(.object(let object)): members = .object(object)
        case .value: throw mismatch([String: Any].self, "an object")
        }
        return KeyedDecodingContainer(KeyedValues<Key>(members: members, style: .of(type), codingPath: codingPath))
    }

    func unkeyedContainer() throws -> any UnkeyedDecodingContainer {
        guard case .array(let elements) = value else { throw mismatch([Any].self, "an array") }
        return UnkeyedValues(elements: elements, codingPath: codingPath)
    }

    func singleValueContainer() -> any SingleValueDecodingContainer { self }

    func unbox<T: Decodable>(_ type: T.Type) throws -> T {
        let special: Any?
        let wanted: String
        if type == WireValue.self {
            (special, wanted) = (value, "a value")
        } else if type == Date.self {
            (special, wanted) = (TypedValue.date(value), "a date")
        } else if type == UUID.self {
            (special, wanted) = (TypedValue.uuid(value), "a UUID")
        } else if type == Decimal.self {
            (special, wanted) = (TypedValue.decimal(value), "a decimal")
        } else if type == Data.self {
            (special, wanted) = (TypedValue.data(value), "bytes")
        } else if type == URL.self {
            (special, wanted) = (value.stringValue.flatMap { URL(string: $0) }, "a URL")
        } else {
            return try T(from: self)
        }
        guard let result = special as? T else { throw mismatch(type, wanted) }
        return result
    }

    private func mismatch(_ type: Any.Type, _ wanted: String) -> DecodingError {
        .typeMismatch(
            type, .init(codingPath: codingPath, debugDescription: "expected \(wanted), got \(value.kindName)"))
    }

    private func integer<T: FixedWidthInteger>(_ type: T.Type) throws -> T {
        switch value {
        case .integer(let number):
            if let result = T(exactly: number) { return result }
        case .double(let number):
            if let result = T(exactly: number) { return result }
        case .bigInteger(let digits):
            if let result = T(digits) { return result }
        default: throw mismatch(type, "an integer")
        }
        throw DecodingError.dataCorrupted(
            .init(codingPath: codingPath, debugDescription: "expected an integer that fits \(type), got another number")
        )
    }

    func decodeNil() -> Bool { value.isNull }

    func decode(_ type: Bool.Type) throws -> Bool {
        guard case .bool(let result) = value else { throw mismatch(type, "a boolean") }
        return result
    }

    func decode(_ type: String.Type) throws -> String {
        guard case .string(let result) = value else { throw mismatch(type, "a string") }
        return result
    }

    func decode(_ type: Double.Type) throws -> Double {
        guard let result = value.doubleValue else { throw mismatch(type, "a number") }
        return result
    }

    func decode(_ type: Float.Type) throws -> Float { Float(try decode(Double.self)) }
    func decode(_ type: Int.Type) throws -> Int { try integer(type) }
    func decode(_ type: Int8.Type) throws -> Int8 { try integer(type) }
    func decode(_ type: Int16.Type) throws -> Int16 { try integer(type) }
    func decode(_ type: Int32.Type) throws -> Int32 { try integer(type) }
    func decode(_ type: Int64.Type) throws -> Int64 { try integer(type) }
    func decode(_ type: Int128.Type) throws -> Int128 { try integer(type) }
    func decode(_ type: UInt.Type) throws -> UInt { try integer(type) }
    func decode(_ type: UInt8.Type) throws -> UInt8 { try integer(type) }
    func decode(_ type: UInt16.Type) throws -> UInt16 { try integer(type) }
    func decode(_ type: UInt32.Type) throws -> UInt32 { try integer(type) }
    func decode(_ type: UInt64.Type) throws -> UInt64 { try integer(type) }
    func decode(_ type: UInt128.Type) throws -> UInt128 { try integer(type) }
    func decode<T: Decodable>(_ type: T.Type) throws -> T { try unbox(type) }
}

private enum KeyedMembers {
    case object(WireValue.Object)
    case arguments(ArgumentBinder)

    func find(_ name: String, path: [any CodingKey]) throws -> WireValue? {
        switch self {
        case .object(let object): object[name]
        case .arguments(let binder): try binder.argument(named: name)
        }
    }

    var names: [String] {
        switch self {
        case .object(let object): Array(object.keys)
        case .arguments(let binder): Array(binder.keywordArguments.keys)
        }
    }
}

private struct KeyedValues<Key: CodingKey>: KeyedDecodingContainerProtocol {
    let members: KeyedMembers
    let style: WireKeyStyle
    let codingPath: [any CodingKey]

    var allKeys: [Key] { members.names.compactMap(Key.init(stringValue:)) }

    func contains(_ key: Key) -> Bool {
        (try? members.find(style.name(of: key), path: codingPath)) != nil
    }

    private func child(_ key: Key) throws -> ValueDecoder {
        let name = style.name(of: key)
        guard let value = try members.find(name, path: codingPath) else {
            throw DecodingError.keyNotFound(
                WireCodingKey(name), .init(codingPath: codingPath, debugDescription: "\(name) is missing"))
        }
        return ValueDecoder(source: .value(value), codingPath: codingPath + [WireCodingKey(name)])
    }

    /// nil where the member is missing or null. A look-up registers the name as a parameter, so places bind in
    /// declaration order.
    private func childIfPresent(_ key: Key) throws -> ValueDecoder? {
        let name = style.name(of: key)
        guard let value = try members.find(name, path: codingPath), !value.isNull else { return nil }
        return ValueDecoder(source: .value(value), codingPath: codingPath + [WireCodingKey(name)])
    }

    func decodeNil(forKey key: Key) throws -> Bool { try child(key).decodeNil() }
    func decode(_ type: Bool.Type, forKey key: Key) throws -> Bool { try child(key).decode(type) }
    func decode(_ type: String.Type, forKey key: Key) throws -> String { try child(key).decode(type) }
    func decode(_ type: Double.Type, forKey key: Key) throws -> Double { try child(key).decode(type) }
    func decode(_ type: Int.Type, forKey key: Key) throws -> Int { try child(key).decode(type) }
    func decode<T: Decodable>(_ type: T.Type, forKey key: Key) throws -> T { try child(key).unbox(type) }

    func decodeIfPresent(_ type: Bool.Type, forKey key: Key) throws -> Bool? { try childIfPresent(key)?.decode(type) }
    func decodeIfPresent(_ type: String.Type, forKey key: Key) throws -> String? {
        try childIfPresent(key)?.decode(type)
    }
    func decodeIfPresent(_ type: Double.Type, forKey key: Key) throws -> Double? {
        try childIfPresent(key)?.decode(type)
    }
    func decodeIfPresent(_ type: Int.Type, forKey key: Key) throws -> Int? { try childIfPresent(key)?.decode(type) }
    func decodeIfPresent<T: Decodable>(_ type: T.Type, forKey key: Key) throws -> T? {
        try childIfPresent(key)?.unbox(type)
    }

    func nestedContainer<Nested: CodingKey>(
        keyedBy type: Nested.Type, forKey key: Key
    ) throws -> KeyedDecodingContainer<Nested> {
        try child(key).container(keyedBy: type)
    }

    func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer {
        try child(key).unkeyedContainer()
    }

    func superDecoder() throws -> any Decoder {
        let value = try members.find("super", path: codingPath) ?? .null
        return ValueDecoder(source: .value(value), codingPath: codingPath)
    }

    func superDecoder(forKey key: Key) throws -> any Decoder { try child(key) }
}

private struct UnkeyedValues: UnkeyedDecodingContainer {
    let elements: [WireValue]
    let codingPath: [any CodingKey]
    var currentIndex = 0

    var count: Int? { elements.count }
    var isAtEnd: Bool { currentIndex >= elements.count }

    init(elements: [WireValue], codingPath: [any CodingKey]) {
        self.elements = elements
        self.codingPath = codingPath
    }

    private mutating func next<T>(_ type: T.Type) throws -> ValueDecoder {
        let path = codingPath + [WireCodingKey(intValue: currentIndex)]
        guard currentIndex < elements.count else {
            throw DecodingError.valueNotFound(
                type, .init(codingPath: path, debugDescription: "the array has only \(elements.count) elements"))
        }
        defer { currentIndex += 1 }
        return ValueDecoder(source: .value(elements[currentIndex]), codingPath: path)
    }

    mutating func decodeNil() throws -> Bool {
        guard currentIndex < elements.count, elements[currentIndex].isNull else { return false }
        currentIndex += 1
        return true
    }

    mutating func decode<T: Decodable>(_ type: T.Type) throws -> T { try next(type).unbox(type) }

    mutating func nestedContainer<Nested: CodingKey>(keyedBy type: Nested.Type) throws -> KeyedDecodingContainer<Nested>
    {
        try next(KeyedDecodingContainer<Nested>.self).container(keyedBy: type)
    }

    mutating func nestedUnkeyedContainer() throws -> any UnkeyedDecodingContainer {
        try next((any UnkeyedDecodingContainer).self).unkeyedContainer()
    }

    mutating func superDecoder() throws -> any Decoder { try next((any Decoder).self) }
}
