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
            text += "'\(key)': "
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

    private static func append(_ value: WireValue, to text: inout String) {
        guard text.utf8.count <= maximumLength else { return }
        switch value {
        case .null: text += "None"
        case .bool(let value): text += value ? "True" : "False"
        case .integer(let value): text += String(value)
        case .bigInteger(let digits): text += digits
        case .double(let value): text += value.description
        case .string(let value): text += "'\(value.utf8.count > maximumLength ? cut(value) : value)'"
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
                text += "'\(key)': "
                append(member, to: &text)
            }
            text += "}"
        }
    }
}
