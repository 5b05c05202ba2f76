/// Arguments as readable text for logs and monitors: Python's notation, cut at about 1,000 characters, secrets hidden.
enum ArgumentsText {
    static let hidden = "'***'"
    private static let maximumLength = 1024

    static func positional(_ values: [WireValue]) -> String {
        var text = "("
        for (index, value) in values.enumerated() {
            if index > 0 { text += ", " }
            append(value, to: &text)
            if text.utf8.count > maximumLength { return cut(text) + ")" }
        }
        return text + (values.count == 1 ? ",)" : ")")
    }

    static func keyword(_ members: WireValue.Object, secret: Set<String>) -> String {
        var text = "{"
        var isFirst = true
        for (key, value) in members {
            if !isFirst { text += ", " }
            isFirst = false
            text += quoted(key) + ": "
            if secret.contains(key) || SecretNames.isUsual(key) { text += hidden } else { append(value, to: &text) }
            if text.utf8.count > maximumLength { return cut(text) + "}" }
        }
        return text + "}"
    }

    /// One value.
    static func text(of value: WireValue) -> String {
        var text = ""
        append(value, to: &text)
        return text
    }

    private static func cut(_ text: String) -> String { String(text.prefix(maximumLength - 3)) + "..." }

    /// As Python writes a string: in double quotes where it holds single quotes alone.
    private static func quoted(_ value: String) -> String {
        let needsEscapes = value.utf8.contains { $0 == UInt8(ascii: "'") || $0 == UInt8(ascii: "\\") || $0 < 0x20 }
        guard needsEscapes else { return "'\(value)'" }
        let quote: Unicode.Scalar =
            value.unicodeScalars.contains("'") && !value.unicodeScalars.contains("\"") ? "\"" : "'"
        var text = String.UnicodeScalarView([quote])
        for scalar in value.unicodeScalars {
            switch scalar {
            case quote, "\\": text.append(contentsOf: ["\\", scalar])
            case "\n": text.append(contentsOf: "\\n".unicodeScalars)
            case "\r": text.append(contentsOf: "\\r".unicodeScalars)
            case "\t": text.append(contentsOf: "\\t".unicodeScalars)
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                text.append(contentsOf: "\\x\(digits.count < 2 ? "0" : "")\(digits)".unicodeScalars)
            default: text.append(scalar)
            }
        }
        text.append(quote)
        return String(text)
    }

    private static func append(_ value: WireValue, to text: inout String) {
        guard text.utf8.count <= maximumLength else { return }
        switch value {
        case .null: text += "None"
        case .bool(let value): text += value ? "True" : "False"
        case .integer(let value): text += String(value)
        case .bigInteger(let digits): text += digits
        case .double(let value): text += value.description
        case .string(let value): text += quoted(value.utf8.count > maximumLength ? cut(value) : value)
        case .array(let elements):
            text += "["
            for (index, element) in elements.enumerated() where text.utf8.count <= maximumLength {
                if index > 0 { text += ", " }
                append(element, to: &text)
            }
            text += "]"
        case .object(let members):
            text += "{"
            var isFirst = true
            for (key, member) in members where text.utf8.count <= maximumLength {
                if !isFirst { text += ", " }
                isFirst = false
                text += quoted(key) + ": "
                append(member, to: &text)
            }
            text += "}"
        }
    }
}
