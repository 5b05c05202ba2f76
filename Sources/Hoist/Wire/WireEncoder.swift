#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Encodes `Encodable` values for the wire: property names in snake_case; dates, UUIDs, decimals and data as kombu's
/// typed objects, so that Python receives a `datetime`, a `UUID`, a `Decimal` and `bytes`.
package enum WireEncoder {
    /// - Throws: `EncodingError`, or what the value's own `encode(to:)` throws.
    package static func encode(_ value: some Encodable) throws -> WireValue {
        let encoder = ValueEncoder(path: [])
        try encoder.box(value)
        return encoder.node.value
    }

    /// The keyword arguments of a job: `value` must encode as an object.
    /// - Throws: `EncodingError` when `value` does not encode as an object, or what the value's own `encode(to:)`
    ///   throws. A retry cannot help.
    package static func encodeArguments(_ value: some Encodable) throws -> WireValue.Object {
        switch try encode(value) {
        case .object(let object): return object
        case let other:
            throw EncodingError.invalidValue(
                value,
                .init(codingPath: [], debugDescription: "a job encodes as named arguments, not as \(other.kindName)"))
        }
    }
}

extension WireValue {
    fileprivate static func whole(_ value: some BinaryInteger) -> WireValue {
        Int64(exactly: value).map(WireValue.integer) ?? .bigInteger("\(value)")
    }
}

/// One node of the tree under construction. A class, because an encoding type writes to a container after the encoder
/// has returned it.
private final class Node {
    enum Content {
        case value(WireValue)
        case array([Node])
        case object([(String, Node)])
    }

    var content: Content = .object([])

    var value: WireValue {
        switch content {
        case .value(let value): return value
        case .array(let nodes): return .array(nodes.map(\.value))
        case .object(let members):
            var object = WireValue.Object(minimumCapacity: members.count)
            for (key, node) in members { object[key] = node.value }
            return .object(object)
        }
    }

    func append() -> Node {
        let child = Node()
        if case .array(var nodes) = content {
            content = .value(.null)
            nodes.append(child)
            content = .array(nodes)
        } else {
            content = .array([child])
        }
        return child
    }

    func member(_ key: String) -> Node {
        let child = Node()
        if case .object(var members) = content {
            content = .value(.null)
            members.append((key, child))
            content = .object(members)
        } else {
            content = .object([(key, child)])
        }
        return child
    }

    var count: Int {
        if case .array(let nodes) = content { nodes.count } else { 0 }
    }
}

private final class ValueEncoder: Encoder, SingleValueEncodingContainer {
    let node: Node
    let codingPath: [any CodingKey]
    var userInfo: [CodingUserInfoKey: Any] { [:] }

    init(node: Node = Node(), path: [any CodingKey]) {
        self.node = node
        self.codingPath = path
    }

    func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
        if case .object = node.content {} else { node.content = .object([]) }
        return KeyedEncodingContainer(KeyedContainer<Key>(node: node, style: .of(type), codingPath: codingPath))
    }

    func unkeyedContainer() -> any UnkeyedEncodingContainer {
        if case .array = node.content {} else { node.content = .array([]) }
        return UnkeyedContainer(node: node, codingPath: codingPath)
    }

    func singleValueContainer() -> any SingleValueEncodingContainer { self }

    func box<T: Encodable>(_ value: T) throws {
        switch value {
        case let value as WireValue: node.content = .value(value)
        case let value as Date: node.content = .value(TypedValue.wire(value))
        case let value as UUID: node.content = .value(TypedValue.wire(value))
        case let value as Data: node.content = .value(TypedValue.wire(value))
        case let value as Decimal: node.content = .value(TypedValue.wire(value))
        case let value as URL: node.content = .value(.string(value.absoluteString))
        default: try value.encode(to: self)
        }
    }

    func encodeNil() { node.content = .value(.null) }
    func encode(_ value: Bool) { node.content = .value(.bool(value)) }
    func encode(_ value: String) { node.content = .value(.string(value)) }
    func encode(_ value: Double) { node.content = .value(.double(value)) }
    func encode(_ value: Float) { node.content = .value(.double(Double(value))) }
    func encode(_ value: Int) { node.content = .value(.whole(value)) }
    func encode(_ value: Int8) { node.content = .value(.whole(value)) }
    func encode(_ value: Int16) { node.content = .value(.whole(value)) }
    func encode(_ value: Int32) { node.content = .value(.whole(value)) }
    func encode(_ value: Int64) { node.content = .value(.whole(value)) }
    func encode(_ value: Int128) { node.content = .value(.whole(value)) }
    func encode(_ value: UInt) { node.content = .value(.whole(value)) }
    func encode(_ value: UInt8) { node.content = .value(.whole(value)) }
    func encode(_ value: UInt16) { node.content = .value(.whole(value)) }
    func encode(_ value: UInt32) { node.content = .value(.whole(value)) }
    func encode(_ value: UInt64) { node.content = .value(.whole(value)) }
    func encode(_ value: UInt128) { node.content = .value(.whole(value)) }
    func encode<T: Encodable>(_ value: T) throws { try box(value) }
}

private struct KeyedContainer<Key: CodingKey>: KeyedEncodingContainerProtocol {
    let node: Node
    let style: WireKeyStyle
    let codingPath: [any CodingKey]

    private func child(_ key: Key) -> ValueEncoder {
        ValueEncoder(node: node.member(style.name(of: key)), path: codingPath + [key])
    }

    /// Stores a plain value without an encoder of its own, because most arguments are plain.
    private func set(_ value: WireValue, _ key: Key) { node.member(style.name(of: key)).content = .value(value) }

    func encodeNil(forKey key: Key) { set(.null, key) }
    func encode(_ value: Bool, forKey key: Key) { set(.bool(value), key) }
    func encode(_ value: String, forKey key: Key) { set(.string(value), key) }
    func encode(_ value: Double, forKey key: Key) { set(.double(value), key) }
    func encode(_ value: Float, forKey key: Key) { set(.double(Double(value)), key) }
    func encode(_ value: Int, forKey key: Key) { set(.whole(value), key) }
    func encode(_ value: Int8, forKey key: Key) { set(.whole(value), key) }
    func encode(_ value: Int16, forKey key: Key) { set(.whole(value), key) }
    func encode(_ value: Int32, forKey key: Key) { set(.whole(value), key) }
    func encode(_ value: Int64, forKey key: Key) { set(.whole(value), key) }
    func encode(_ value: Int128, forKey key: Key) { set(.whole(value), key) }
    func encode(_ value: UInt, forKey key: Key) { set(.whole(value), key) }
    func encode(_ value: UInt8, forKey key: Key) { set(.whole(value), key) }
    func encode(_ value: UInt16, forKey key: Key) { set(.whole(value), key) }
    func encode(_ value: UInt32, forKey key: Key) { set(.whole(value), key) }
    func encode(_ value: UInt64, forKey key: Key) { set(.whole(value), key) }
    func encode(_ value: UInt128, forKey key: Key) { set(.whole(value), key) }
    func encode<T: Encodable>(_ value: T, forKey key: Key) throws { try child(key).box(value) }

    func nestedContainer<Nested: CodingKey>(keyedBy type: Nested.Type, forKey key: Key) -> KeyedEncodingContainer<
        Nested
    > {
        child(key).container(keyedBy: type)
    }

    func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer { child(key).unkeyedContainer() }
    func superEncoder() -> any Encoder { ValueEncoder(node: node.member("super"), path: codingPath) }
    func superEncoder(forKey key: Key) -> any Encoder { child(key) }
}

private struct UnkeyedContainer: UnkeyedEncodingContainer {
    let node: Node
    let codingPath: [any CodingKey]
    var count: Int { node.count }

    private func child() -> ValueEncoder {
        let key = WireCodingKey(intValue: count)
        return ValueEncoder(node: node.append(), path: codingPath + [key])
    }

    func encodeNil() { child().encodeNil() }
    func encode(_ value: Bool) { child().encode(value) }
    func encode(_ value: String) { child().encode(value) }
    func encode(_ value: Double) { child().encode(value) }
    func encode(_ value: Float) { child().encode(value) }
    func encode(_ value: Int) { child().encode(value) }
    func encode(_ value: Int8) { child().encode(value) }
    func encode(_ value: Int16) { child().encode(value) }
    func encode(_ value: Int32) { child().encode(value) }
    func encode(_ value: Int64) { child().encode(value) }
    func encode(_ value: Int128) { child().encode(value) }
    func encode(_ value: UInt) { child().encode(value) }
    func encode(_ value: UInt8) { child().encode(value) }
    func encode(_ value: UInt16) { child().encode(value) }
    func encode(_ value: UInt32) { child().encode(value) }
    func encode(_ value: UInt64) { child().encode(value) }
    func encode(_ value: UInt128) { child().encode(value) }
    func encode<T: Encodable>(_ value: T) throws { try child().box(value) }

    func nestedContainer<Nested: CodingKey>(keyedBy type: Nested.Type) -> KeyedEncodingContainer<Nested> {
        child().container(keyedBy: type)
    }

    func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer { child().unkeyedContainer() }
    func superEncoder() -> any Encoder { child() }
}
