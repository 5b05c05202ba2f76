/// Reads values in Python's notation, as Celery writes arguments for people: `('a', 1)`, `{'k': [True, None]}`.
///
/// What was cut, or holds more than plain values, is not read.
struct PythonLiteral {
    private static let maximumDepth = 32

    private var rest: Substring.UnicodeScalarView

    private init(_ text: String) { rest = Substring(text).unicodeScalars }

    /// - Returns: the values that the text holds one after the other; nil when it holds anything else.
    static func values(in text: String) -> [WireValue]? {
        var reader = PythonLiteral(text)
        var values: [WireValue] = []
        reader.skipSpaces()
        while !reader.rest.isEmpty {
            guard let value = reader.value(depth: 0) else { return nil }
            values.append(value)
            reader.skipSpaces()
        }
        return values
    }

    private mutating func skipSpaces() { while rest.first == " " || rest.first == "\n" { rest.removeFirst() } }

    private mutating func take(_ scalar: Unicode.Scalar) -> Bool {
        skipSpaces()
        guard rest.first == scalar else { return false }
        rest.removeFirst()
        return true
    }

    private mutating func value(depth: Int) -> WireValue? {
        guard depth < Self.maximumDepth else { return nil }
        skipSpaces()
        switch rest.first {
        case "'", "\"": return string().map { .string($0) }
        case "[": return elements(until: "]", depth: depth)
        case "(": return elements(until: ")", depth: depth)
        case "{": return members(depth: depth)
        default: return word()
        }
    }

    private mutating func elements(until end: Unicode.Scalar, depth: Int) -> WireValue? {
        rest.removeFirst()
        var elements: [WireValue] = []
        while !take(end) {
            guard let element = value(depth: depth + 1) else { return nil }
            elements.append(element)
            if take(",") { continue }
            guard take(end) else { return nil }
            break
        }
        return .array(elements)
    }

    private mutating func members(depth: Int) -> WireValue? {
        rest.removeFirst()
        var members: WireValue.Object = [:]
        while !take("}") {
            skipSpaces()
            guard rest.first == "'" || rest.first == "\"", let key = string(), take(":"),
                let member = value(depth: depth + 1)
            else { return nil }
            members[key] = member
            if take(",") { continue }
            guard take("}") else { return nil }
            break
        }
        return .object(members)
    }

    private mutating func string() -> String? {
        let quote = rest.removeFirst()
        var text = String.UnicodeScalarView()
        while let scalar = rest.popFirst() {
            if scalar == quote {
                let read = String(text)
                // Cut by who wrote it.
                return read.hasSuffix("...") ? nil : read
            }
            guard scalar == "\\" else {
                text.append(scalar)
                continue
            }
            guard let escaped = escape() else { return nil }
            text.append(escaped)
        }
        return nil
    }

    private mutating func escape() -> Unicode.Scalar? {
        switch rest.popFirst() {
        case "\\"?: "\\"
        case "'"?: "'"
        case "\""?: "\""
        case "n"?: "\n"
        case "r"?: "\r"
        case "t"?: "\t"
        case "x"?: hexadecimal(2)
        case "u"?: hexadecimal(4)
        case "U"?: hexadecimal(8)
        default: nil
        }
    }

    private mutating func hexadecimal(_ count: Int) -> Unicode.Scalar? {
        let digits = String(String.UnicodeScalarView(rest.prefix(count)))
        guard digits.unicodeScalars.count == count, let number = UInt32(digits, radix: 16) else { return nil }
        rest.removeFirst(count)
        return Unicode.Scalar(number)
    }

    private mutating func word() -> WireValue? {
        let end = rest.firstIndex { ",)]}: \n".unicodeScalars.contains($0) } ?? rest.endIndex
        let word = String(String.UnicodeScalarView(rest[..<end]))
        rest = rest[end...]
        switch word {
        case "None": return .null
        case "True": return true
        case "False": return false
        default:
            if let number = Int64(word) { return .integer(number) }
            let digits = word.first == "-" ? word.dropFirst() : word[...]
            if !digits.isEmpty, digits.utf8.allSatisfy({ $0 &- 0x30 < 10 }) { return .bigInteger(word) }
            guard let number = Double(word), number.isFinite, word.first != "+" else { return nil }
            return .double(number)
        }
    }
}
