/// A value of a field table, with its exact type: RabbitMQ compares the arguments of a queue by value and by kind.
///
/// The types are those of RabbitMQ and Qpid (AMQP 0-9-1 errata, "Field types").
public enum AMQPFieldValue: Sendable, Hashable {
    case bool(Bool)
    case int8(Int8)
    case uint8(UInt8)
    case int16(Int16)
    case uint16(UInt16)
    case int32(Int32)
    case uint32(UInt32)
    case int64(Int64)
    case float(Float)
    case double(Double)
    /// `value` divided by ten to the power of `scale`.
    case decimal(scale: UInt8, value: UInt32)
    /// Text as its bytes: AMQP promises no encoding.
    case longString([UInt8])
    case bytes([UInt8])
    case array([AMQPFieldValue])
    /// Seconds since 1970.
    case timestamp(UInt64)
    case table(AMQPTable)
    case void

    /// A long string of text.
    public static func text(_ text: String) -> AMQPFieldValue { .longString(Array(text.utf8)) }

    /// A whole number as Python's clients send it: 32 bits, and 64 where it needs them.
    public static func integer(_ value: Int64) -> AMQPFieldValue {
        Int32(exactly: value).map { .int32($0) } ?? .int64(value)
    }

    /// The text of a long string that is UTF-8; else nil.
    public var textValue: String? {
        guard case .longString(let bytes) = self else { return nil }
        return String(validating: bytes, as: UTF8.self)
    }

    /// Any whole number.
    public var integerValue: Int64? {
        switch self {
        case .int8(let value): Int64(value)
        case .uint8(let value): Int64(value)
        case .int16(let value): Int64(value)
        case .uint16(let value): Int64(value)
        case .int32(let value): Int64(value)
        case .uint32(let value): Int64(value)
        case .int64(let value): value
        case .timestamp(let value): Int64(exactly: value)
        default: nil
        }
    }

    public var tableValue: AMQPTable? {
        guard case .table(let value) = self else { return nil }
        return value
    }

    public var arrayValue: [AMQPFieldValue]? {
        guard case .array(let value) = self else { return nil }
        return value
    }
}

extension AMQPFieldValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral {
    public init(stringLiteral value: String) { self = .text(value) }
    public init(integerLiteral value: Int64) { self = .integer(value) }
    public init(booleanLiteral value: Bool) { self = .bool(value) }
}

/// A field table: named values in the order of the wire.
public struct AMQPTable: Sendable, Hashable, ExpressibleByDictionaryLiteral {
    public struct Field: Sendable, Hashable {
        /// At most 255 bytes.
        public var name: String
        public var value: AMQPFieldValue

        public init(_ name: String, _ value: AMQPFieldValue) {
            self.name = name
            self.value = value
        }
    }

    public var fields: [Field]

    public init(_ fields: [Field] = []) { self.fields = fields }

    public init(dictionaryLiteral elements: (String, AMQPFieldValue)...) { fields = elements.map { Field($0, $1) } }

    public var isEmpty: Bool { fields.isEmpty }

    /// The first value of this name. Setting it replaces the value, or adds it at the end; nil removes it.
    public subscript(name: String) -> AMQPFieldValue? {
        get { fields.first { $0.name == name }?.value }
        set {
            let place = fields.firstIndex { $0.name == name }
            switch (place, newValue) {
            case (let place?, let value?): fields[place].value = value
            case (let place?, nil): fields.remove(at: place)
            case (nil, let value?): fields.append(Field(name, value))
            case (nil, nil): break
            }
        }
    }
}
