/// Reads JSON as Python's `json` module writes it: RFC 8259, and in addition the tokens `NaN`, `Infinity`, `-Infinity`
/// and integers of any size. When an object repeats a name, the last member wins, as in Python.
///
/// No input can trap: every read is checked, and depth and count are limited before anything is allocated.
package struct JSONParser {
    private let bytes: UnsafeBufferPointer<UInt8>
    private let limits: WireLimits
    private var index = 0
    private var depth = 0
    private var valuesLeft: Int

    private init(_ bytes: UnsafeBufferPointer<UInt8>, limits: WireLimits) {
        self.bytes = bytes
        self.limits = limits
        self.valuesLeft = limits.maximumValues
    }

    /// - Throws: ``WireError`` when the bytes are not JSON or exceed `limits`. A retry cannot help.
    package static func parse(_ bytes: [UInt8], limits: WireLimits = .default) throws(WireError) -> WireValue {
        try read(bytes, limits: limits) { (parser) throws(WireError) in try parser.value() }
    }

    /// - Throws: ``WireError`` when the text is not JSON or exceeds `limits`. A retry cannot help.
    package static func parse(_ text: String, limits: WireLimits = .default) throws(WireError) -> WireValue {
        try parse(Array(text.utf8), limits: limits)
    }

    /// Calls `body` with a parser of `bytes`. `body` must read all of them.
    /// - Throws: ``WireError`` when there are more bytes than `limits` allows or bytes after the value, or what `body`
    ///   throws. A retry cannot help.
    package static func read<T>(
        _ bytes: [UInt8], limits: WireLimits = .default, _ body: (inout JSONParser) throws(WireError) -> T
    ) throws(WireError) -> T {
        guard bytes.count <= limits.maximumBytes else {
            throw WireError("\(bytes.count) bytes exceed the limit of \(limits.maximumBytes)")
        }
        let result: Result<T, WireError> = bytes.withUnsafeBufferPointer { buffer in
            var parser = JSONParser(buffer, limits: limits)
            do throws(WireError) {
                parser.skipWhitespace()
                let value = try body(&parser)
                parser.skipWhitespace()
                guard parser.index == buffer.count else { throw parser.error("unexpected bytes after the value") }
                return .success(value)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private func error(_ what: String) -> WireError { WireError("invalid JSON at byte \(index): \(what)") }

    private var current: UInt8? { index < bytes.count ? bytes[index] : nil }

    private mutating func skipWhitespace() {
        while index < bytes.count {
            switch bytes[index] {
            case 0x20, 0x0A, 0x0D, 0x09: index += 1
            default: return
            }
        }
    }

    /// Reads one value.
    /// - Throws: ``WireError`` when no JSON value begins here, or the value exceeds the limits. A retry cannot help.
    package mutating func value() throws(WireError) -> WireValue {
        valuesLeft -= 1
        guard valuesLeft >= 0 else { throw error("more than \(limits.maximumValues) values") }
        guard let byte = current else { throw error("the document ends where a value should be") }
        switch byte {
        case UInt8(ascii: "{"): return try object()
        case UInt8(ascii: "["): return try array()
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): try expect("true"); return .bool(true)
        case UInt8(ascii: "f"): try expect("false"); return .bool(false)
        case UInt8(ascii: "n"): try expect("null"); return .null
        case UInt8(ascii: "N"): try expect("NaN"); return .double(.nan)
        case UInt8(ascii: "I"): try expect("Infinity"); return .double(.infinity)
        default: return try number()
        }
    }

    private mutating func expect(_ token: StaticString) throws(WireError) {
        let length = token.utf8CodeUnitCount
        guard index + length <= bytes.count else { throw error("expected \(token)") }
        for offset in 0..<length where bytes[index + offset] != token.utf8Start[offset] {
            throw error("expected \(token)")
        }
        index += length
    }

    private mutating func descend() throws(WireError) {
        depth += 1
        guard depth <= limits.maximumDepth else { throw error("nested deeper than \(limits.maximumDepth)") }
        index += 1
        skipWhitespace()
    }

    private mutating func array() throws(WireError) -> WireValue {
        try descend()
        defer { depth -= 1 }
        var elements: [WireValue] = []
        if current == UInt8(ascii: "]") {
            index += 1
            return .array(elements)
        }
        while true {
            elements.append(try value())
            skipWhitespace()
            switch current {
            case UInt8(ascii: ","):
                index += 1
                skipWhitespace()
            case UInt8(ascii: "]"):
                index += 1
                return .array(elements)
            default: throw error("expected , or ] in an array")
            }
        }
    }

    private mutating func object() throws(WireError) -> WireValue {
        var members = WireValue.Object()
        try forEachMember { (key, parser) throws(WireError) in members[key] = try parser.value() }
        return .object(members)
    }

    /// Reads an object member by member, without building it. `body` gets each name and must read the value, whatever
    /// its type.
    /// - Throws: ``WireError`` when no object begins here, the object is malformed or nested too deep, or what `body`
    ///   throws. A retry cannot help.
    package mutating func forEachMember(
        _ body: (_ key: String, _ parser: inout JSONParser) throws(WireError) -> Void
    ) throws(WireError) {
        guard current == UInt8(ascii: "{") else { throw error("expected an object") }
        try descend()
        defer { depth -= 1 }
        if current == UInt8(ascii: "}") {
            index += 1
            return
        }
        while true {
            guard current == UInt8(ascii: "\"") else { throw error("expected a member name") }
            let key = try string()
            skipWhitespace()
            guard current == UInt8(ascii: ":") else { throw error("expected : after a member name") }
            index += 1
            skipWhitespace()
            try body(key, &self)
            skipWhitespace()
            switch current {
            case UInt8(ascii: ","):
                index += 1
                skipWhitespace()
            case UInt8(ascii: "}"):
                index += 1
                return
            default: throw error("expected , or } in an object")
            }
        }
    }

    /// Reads the members of an object one by one; null counts as an object without members.
    /// - Throws: ``WireError`` when neither an object nor null begins here, or as ``forEachMember(_:)``. A retry cannot
    ///   help.
    package mutating func forEachMemberIfPresent(
        _ body: (_ key: String, _ parser: inout JSONParser) throws(WireError) -> Void
    ) throws(WireError) {
        if current == UInt8(ascii: "{") { return try forEachMember(body) }
        // Some languages write an empty map as an empty list.
        let other = try value()
        guard other.isNull || other == [] else { throw error("expected an object") }
    }

    private mutating func number() throws(WireError) -> WireValue {
        let start = index
        let isNegative = current == UInt8(ascii: "-")
        if isNegative { index += 1 }
        if isNegative, current == UInt8(ascii: "I") {
            try expect("Infinity")
            return .double(-.infinity)
        }
        let digitsStart = index
        var magnitude: UInt64 = 0
        var fits = true
        while let byte = current, byte &- 0x30 < 10 {
            let (product, overflow) = magnitude.multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.addingReportingOverflow(UInt64(byte &- 0x30))
            if overflow || carry { fits = false }
            magnitude = sum
            index += 1
        }
        let digitCount = index - digitsStart
        guard digitCount > 0 else { throw error("expected a value") }
        if digitCount > 1, bytes[digitsStart] == 0x30 { throw error("a number starts with 0") }
        let isInteger = current != UInt8(ascii: ".") && current != UInt8(ascii: "e") && current != UInt8(ascii: "E")
        if isInteger {
            if fits {
                if !isNegative, let value = Int64(exactly: magnitude) { return .integer(value) }
                if isNegative, magnitude <= UInt64(Int64.max) + 1 {
                    return .integer(Int64(truncatingIfNeeded: 0 &- magnitude))
                }
            }
            return .bigInteger(text(from: start))
        }
        try fractionAndExponent()
        guard let value = Double(text(from: start)) else { throw error("not a number") }
        return .double(value)
    }

    private mutating func fractionAndExponent() throws(WireError) {
        if current == UInt8(ascii: ".") {
            index += 1
            try digits()
        }
        if current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
            index += 1
            if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { index += 1 }
            try digits()
        }
    }

    private mutating func digits() throws(WireError) {
        let start = index
        while let byte = current, byte &- 0x30 < 10 { index += 1 }
        guard index > start else { throw error("expected a digit") }
    }

    private func text(from start: Int) -> String {
        String(decoding: UnsafeBufferPointer(rebasing: bytes[start..<index]), as: UTF8.self)
    }

    private mutating func string() throws(WireError) -> String {
        index += 1
        let start = index
        var seen: UInt8 = 0
        index = PlainText.end(in: bytes, from: index)
        while index < bytes.count {
            let byte = bytes[index]
            if byte == UInt8(ascii: "\"") {
                let slice = UnsafeBufferPointer(rebasing: bytes[start..<index])
                index += 1
                // Nearly all strings are ASCII, which needs no validation.
                if seen < 0x80 { return String(decoding: slice, as: UTF8.self) }
                guard let string = String(validating: slice, as: UTF8.self) else {
                    throw error("a string is not UTF-8")
                }
                return string
            }
            seen |= byte
            if byte == UInt8(ascii: "\\") { return try stringWithEscapes(from: start) }
            guard byte >= 0x20 else { throw error("a control character in a string") }
            index += 1
            // Back to plain text.
            if byte >= 0x80, index < bytes.count, bytes[index] < 0x80 { index = PlainText.end(in: bytes, from: index) }
        }
        throw error("a string does not end")
    }

    private mutating func stringWithEscapes(from start: Int) throws(WireError) -> String {
        var buffer = Array(bytes[start..<index])
        while index < bytes.count {
            let plain = PlainText.end(in: bytes, from: index)
            if plain > index {
                buffer += bytes[index..<plain]
                index = plain
                continue
            }
            let byte = bytes[index]
            index += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let string = String(validating: buffer, as: UTF8.self) else {
                    throw error("a string is not UTF-8")
                }
                return string
            case UInt8(ascii: "\\"): try escape(into: &buffer)
            case 0..<0x20: throw error("a control character in a string")
            default: buffer.append(byte)
            }
        }
        throw error("a string does not end")
    }

    private mutating func escape(into buffer: inout [UInt8]) throws(WireError) {
        guard let byte = current else { throw error("a string does not end") }
        index += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): buffer.append(byte)
        case UInt8(ascii: "b"): buffer.append(0x08)
        case UInt8(ascii: "f"): buffer.append(0x0C)
        case UInt8(ascii: "n"): buffer.append(0x0A)
        case UInt8(ascii: "r"): buffer.append(0x0D)
        case UInt8(ascii: "t"): buffer.append(0x09)
        case UInt8(ascii: "u"): buffer.append(contentsOf: try unicodeScalar().utf8Bytes)
        default: throw error("an unknown escape")
        }
    }

    private mutating func unicodeScalar() throws(WireError) -> Unicode.Scalar {
        let first = try hexQuad()
        if let scalar = Unicode.Scalar(first) { return scalar }
        // A lone surrogate is legal in Python's strings and has no UTF-8 form: it becomes the replacement character.
        guard first < 0xDC00, index + 1 < bytes.count, bytes[index] == UInt8(ascii: "\\"),
            bytes[index + 1] == UInt8(ascii: "u")
        else { return "\u{FFFD}" }
        let afterFirst = index
        index += 2
        let second = try hexQuad()
        guard (0xDC00..<0xE000).contains(second) else {
            index = afterFirst
            return "\u{FFFD}"
        }
        return Unicode.Scalar(0x10000 + ((first & 0x3FF) << 10) + (second & 0x3FF)) ?? "\u{FFFD}"
    }

    private mutating func hexQuad() throws(WireError) -> UInt32 {
        guard index + 4 <= bytes.count else { throw error("a \\u escape is cut short") }
        var value: UInt32 = 0
        for _ in 0..<4 {
            let byte = bytes[index]
            let digit: UInt8
            switch byte {
            case 0x30...0x39: digit = byte - 0x30
            case 0x41...0x46: digit = byte - 0x41 + 10
            case 0x61...0x66: digit = byte - 0x61 + 10
            default: throw error("a \\u escape needs four hex digits")
            }
            value = value << 4 | UInt32(digit)
            index += 1
        }
        return value
    }
}

extension Unicode.Scalar {
    fileprivate var utf8Bytes: [UInt8] { Array(String(Character(self)).utf8) }
}
