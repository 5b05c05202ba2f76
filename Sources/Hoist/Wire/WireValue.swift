/// A value as Celery's JSON carries it.
///
/// It holds what Python's encoder really writes, which is a little more than JSON: integers of any size and the bare
/// tokens `NaN`, `Infinity` and `-Infinity`. Dates, UUIDs, decimals and bytes travel as
/// `{"__type__": …, "__value__": …}` objects and stay objects here; they become Swift types when a job is decoded.
public enum WireValue: Sendable, Hashable {
    public typealias Object = WireObject

    case null
    case bool(Bool)
    case integer(Int64)
    /// The decimal digits of an integer that does not fit 64 bits.
    case bigInteger(String)
    case double(Double)
    case string(String)
    case array([WireValue])
    case object(Object)
}

extension WireValue {
    /// The member `key`, when this is an object that has it.
    public subscript(key: String) -> WireValue? {
        guard case .object(let object) = self else { return nil }
        return object[key]
    }

    public var isNull: Bool { self == .null }

    public var stringValue: String? {
        guard case .string(let value) = self else { return nil }
        return value
    }

    public var boolValue: Bool? {
        guard case .bool(let value) = self else { return nil }
        return value
    }

    /// The value as an integer: integers, and doubles without a fraction that fit.
    public var integerValue: Int64? {
        switch self {
        case .integer(let value): value
        case .double(let value): Int64(exactly: value)
        default: nil
        }
    }

    public var doubleValue: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .bigInteger(let digits): Double(digits)
        case .double(let value): value
        default: nil
        }
    }

    public var arrayValue: [WireValue]? {
        guard case .array(let value) = self else { return nil }
        return value
    }

    public var objectValue: Object? {
        guard case .object(let value) = self else { return nil }
        return value
    }

    /// What kind of value this is, in words for an error message.
    package var kindName: String {
        switch self {
        case .null: "null"
        case .bool: "a boolean"
        case .integer, .bigInteger: "an integer"
        case .double: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object(let object): object["__type__"]?.stringValue.map { "a \($0)" } ?? "an object"
        }
    }
}

extension WireValue: ExpressibleByNilLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
    ExpressibleByFloatLiteral, ExpressibleByStringLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    public init(nilLiteral: ()) { self = .null }
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    public init(integerLiteral value: Int64) { self = .integer(value) }
    public init(floatLiteral value: Double) { self = .double(value) }
    public init(stringLiteral value: String) { self = .string(value) }
    public init(arrayLiteral elements: WireValue...) { self = .array(elements) }
    public init(dictionaryLiteral elements: (String, WireValue)...) {
        self = .object(Object(elements))
    }
}

extension WireValue: CustomStringConvertible {
    /// The value as JSON text.
    public var description: String { String(decoding: JSONWriter.bytes(of: self), as: UTF8.self) }
}
