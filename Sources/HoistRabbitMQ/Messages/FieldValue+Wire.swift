import AMQP
import Hoist

/// Values of headers, as field tables have them and as messages have them.
extension AMQPFieldValue {
    /// As Python's client writes it: None is void, whole numbers have 32 bits where these are enough.
    init(_ value: WireValue) {
        switch value {
        case .null: self = .void
        case .bool(let value): self = .bool(value)
        case .integer(let value): self = .integer(value)
        case .bigInteger(let digits): self = .text(digits)
        case .double(let value): self = .double(value)
        case .string(let text): self = .text(text)
        case .array(let elements): self = .array(elements.map { AMQPFieldValue($0) })
        case .object(let members): self = .table(AMQPTable(members))
        }
    }

    /// Bytes that are no text become Base64, times become seconds since 1970.
    var wireValue: WireValue {
        switch self {
        case .void: .null
        case .bool(let value): .bool(value)
        case .int8, .uint8, .int16, .uint16, .int32, .uint32, .int64: .integer(integerValue ?? 0)
        case .timestamp(let value): .integer(Int64(clamping: value))
        case .float(let value): .double(Double(value))
        case .double(let value): .double(value)
        case .decimal(let scale, let value):
            .double(Double(value) / (0..<min(scale, 30)).reduce(1) { result, _ in result * 10 })
        case .longString(let bytes), .bytes(let bytes):
            .string(String(validating: bytes, as: UTF8.self) ?? Base64.text(bytes))
        case .array(let elements): .array(elements.map(\.wireValue))
        case .table(let table): .object(table.wireObject)
        }
    }
}

extension AMQPTable {
    init(_ members: WireValue.Object) { self.init(members.map { Field($0.key, AMQPFieldValue($0.value)) }) }

    var wireObject: WireValue.Object { WireValue.Object(fields.map { ($0.name, $0.value.wireValue) }) }
}

extension Base64 {
    static func text(_ bytes: [UInt8]) -> String {
        var output: [UInt8] = []
        append(bytes, to: &output)
        return String(decoding: output, as: UTF8.self)
    }
}
