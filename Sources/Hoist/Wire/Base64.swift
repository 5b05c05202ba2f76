/// Base64 with padding (RFC 4648 §4), directly between byte arrays, because every job's message body passes through
/// here twice.
package enum Base64 {
    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    private static let invalid: UInt8 = 0xFF
    private static let values: [UInt8] = {
        var values = [UInt8](repeating: invalid, count: 256)
        for (value, character) in alphabet.enumerated() { values[Int(character)] = UInt8(value) }
        return values
    }()

    package static func append(_ content: [UInt8], to output: inout [UInt8]) {
        output.reserveCapacity(output.count + (content.count + 2) / 3 * 4)
        output += [UInt8](unsafeUninitializedCapacity: content.count / 3 * 4) { text, count in
            alphabet.withUnsafeBufferPointer { alphabet in
                var index = 0
                while index + 2 < content.count {
                    let group =
                        UInt32(content[index]) << 16 | UInt32(content[index + 1]) << 8 | UInt32(content[index + 2])
                    text[count] = alphabet[Int(group >> 18)]
                    text[count + 1] = alphabet[Int(group >> 12 & 63)]
                    text[count + 2] = alphabet[Int(group >> 6 & 63)]
                    text[count + 3] = alphabet[Int(group & 63)]
                    index += 3
                    count += 4
                }
            }
        }
        alphabet.withUnsafeBufferPointer { alphabet in
            let index = content.count / 3 * 3
            let rest = content.count - index
            guard rest > 0 else { return }
            let group = UInt32(content[index]) << 16 | (rest == 2 ? UInt32(content[index + 1]) << 8 : 0)
            output.append(alphabet[Int(group >> 18)])
            output.append(alphabet[Int(group >> 12 & 63)])
            output.append(rest == 2 ? alphabet[Int(group >> 6 & 63)] : UInt8(ascii: "="))
            output.append(UInt8(ascii: "="))
        }
    }

    /// Decodes groups of four digits, up to the first group that holds another character.
    private static func decodePlain(_ text: UnsafeBufferPointer<UInt8>) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: text.count / 4 * 3) { output, count in
            values.withUnsafeBufferPointer { values in
                var index = 0
                while index + 3 < text.count {
                    let (a, b) = (values[Int(text[index])], values[Int(text[index + 1])])
                    let (c, d) = (values[Int(text[index + 2])], values[Int(text[index + 3])])
                    // Only the value of a character that is not a digit has the highest bit set.
                    if (a | b | c | d) & 0x80 != 0 { break }
                    let group = UInt32(a) << 18 | UInt32(b) << 12 | UInt32(c) << 6 | UInt32(d)
                    output[count] = UInt8(truncatingIfNeeded: group >> 16)
                    output[count + 1] = UInt8(truncatingIfNeeded: group >> 8)
                    output[count + 2] = UInt8(truncatingIfNeeded: group)
                    index += 4
                    count += 3
                }
            }
        }
    }

    /// Decodes `text`. Line feeds, carriage returns and spaces are skipped, as Python's decoder skips them.
    /// - Throws: ``WireError`` when `text` holds any other character, text after the padding or an incomplete group. A
    ///   retry cannot help.
    package static func decode(_ text: some Collection<UInt8>) throws(WireError) -> [UInt8] {
        var output = text.withContiguousStorageIfAvailable(decodePlain) ?? []
        var group: UInt32 = 0
        var digits = 0
        var padding = 0
        for character in text.dropFirst(output.count / 3 * 4) {
            if character == UInt8(ascii: "=") {
                padding += 1
                continue
            }
            let value = values[Int(character)]
            if value == invalid {
                guard character == 0x0A || character == 0x0D || character == 0x20 else {
                    throw WireError("the body is not base64")
                }
                continue
            }
            guard padding == 0 else { throw WireError("the body is not base64: text after the padding") }
            group = group << 6 | UInt32(value)
            digits += 1
            if digits == 4 {
                output.append(UInt8(truncatingIfNeeded: group >> 16))
                output.append(UInt8(truncatingIfNeeded: group >> 8))
                output.append(UInt8(truncatingIfNeeded: group))
                group = 0
                digits = 0
            }
        }
        guard (digits == 0 && padding == 0) || digits + padding == 4, digits != 1 else {
            throw WireError("the body is not base64: cut short")
        }
        if digits == 2 { output.append(UInt8(truncatingIfNeeded: group >> 4)) }
        if digits == 3 {
            output.append(UInt8(truncatingIfNeeded: group >> 10))
            output.append(UInt8(truncatingIfNeeded: group >> 2))
        }
        return output
    }
}
