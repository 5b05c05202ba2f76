/// Writes JSON: compact and UTF-8. On the wire, `NaN` and the infinities are bare tokens, as Python's `json` module
/// writes and reads them.
package struct JSONWriter {
    package private(set) var bytes: [UInt8] = []
    /// Whether numbers that RFC 8259 does not know become null, for readers other than Celery's.
    private let isStrict: Bool

    package init(reserving capacity: Int = 256, isStrict: Bool = false) {
        self.isStrict = isStrict
        bytes.reserveCapacity(capacity)
    }

    package static func bytes(of value: WireValue, isStrict: Bool = false) -> [UInt8] {
        var writer = JSONWriter(isStrict: isStrict)
        writer.write(value)
        return writer.bytes
    }

    package mutating func write(_ value: WireValue) {
        switch value {
        case .null: token("null")
        case .bool(let value): token(value ? "true" : "false")
        case .integer(let value): integer(value)
        case .bigInteger(let digits): bytes.append(contentsOf: digits.utf8)
        case .double(let value): double(value)
        case .string(let value): string(value)
        case .array(let elements):
            token("[")
            var isFirst = true
            for element in elements {
                if !isFirst { token(",") }
                isFirst = false
                write(element)
            }
            token("]")
        case .object(let members):
            token("{")
            var isFirst = true
            for (key, member) in members {
                if !isFirst { token(",") }
                isFirst = false
                string(key)
                token(":")
                write(member)
            }
            token("}")
        }
    }

    package mutating func token(_ text: StaticString) {
        bytes.append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    /// Appends JSON that is already encoded.
    package mutating func encoded(_ json: [UInt8]) { bytes.append(contentsOf: json) }

    package mutating func integer(_ value: Int64) {
        if value >= 0, value < 10 {
            bytes.append(0x30 + UInt8(value))
        } else {
            bytes.append(contentsOf: String(value).utf8)
        }
    }

    package mutating func double(_ value: Double) {
        if isStrict, !value.isFinite {
            token("null")
        } else if value.isNaN {
            token("NaN")
        } else if value.isInfinite {
            if value < 0 { token("-Infinity") } else { token("Infinity") }
        } else {
            bytes.append(contentsOf: value.description.utf8)
        }
    }

    package mutating func string(_ text: String) {
        bytes.append(UInt8(ascii: "\""))
        var text = text
        text.withUTF8 { buffer in
            var (start, index) = (0, PlainText.end(in: buffer, from: 0))
            while index < buffer.count {
                let byte = buffer[index]
                defer { index = byte < 0x80 ? PlainText.end(in: buffer, from: index + 1) : index + 1 }
                guard byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") else { continue }
                bytes.append(contentsOf: buffer[start..<index])
                start = index + 1
                escape(byte)
            }
            bytes.append(contentsOf: buffer[start...])
        }
        bytes.append(UInt8(ascii: "\""))
    }

    private mutating func escape(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "\""): token("\\\"")
        case UInt8(ascii: "\\"): token("\\\\")
        case 0x0A: token("\\n")
        case 0x0D: token("\\r")
        case 0x09: token("\\t")
        default:
            token("\\u00")
            bytes.append(byte < 0x10 ? 0x30 : 0x31)
            let low = byte & 0x0F
            bytes.append(low < 10 ? 0x30 + low : 0x61 + low - 10)
        }
    }

    /// Writes `content` as a JSON string of base64 text (RFC 4648 §4), which needs no escapes.
    package mutating func base64String(_ content: [UInt8]) {
        bytes.append(UInt8(ascii: "\""))
        Base64.append(content, to: &bytes)
        bytes.append(UInt8(ascii: "\""))
    }
}
