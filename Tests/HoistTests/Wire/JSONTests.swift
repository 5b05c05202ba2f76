import Hoist
import Testing

@Suite("JSON")
struct JSONTests {
    @Test(
        "values survive the way there and back",
        arguments: [
            "null", "true", "false", "0", "-1", "9223372036854775807", "-9223372036854775808", "1.5", "-1e-07", "\"\"",
            "[]", "{}",
            "[1,[2,[3]],{\"a\":{\"b\":null}}]", "\"\\\"\\\\\\n\\t\\u0001\"", "\"é😀\"", "[NaN,Infinity,-Infinity]",
            "123456789012345678901234567890",
        ])
    func roundTrip(_ text: String) throws {
        #expect(try JSONParser.parse(text).description == text)
    }

    @Test("escapes are read as Python writes them")
    func escapes() throws {
        #expect(try JSONParser.parse(#""\u00e9\ud83d\ude00\/\b\f""#) == .string("é😀/\u{8}\u{c}"))
        #expect(try JSONParser.parse(#""\ud83d""#) == .string("\u{FFFD}"), "a lone surrogate has no UTF-8 form")
        #expect(try JSONParser.parse(#""\ud83dx""#) == .string("\u{FFFD}x"))
    }

    @Test("what is not plain text is found at every place in a string, and next to every other", arguments: 0..<20)
    func places(_ position: Int) throws {
        let kinds = ["x", "\"", "\\", "\n", "\u{1f}", "é", "€", "😀", "\u{7f}", " ", "!", "#", "[", "]"]
        for first in kinds {
            for second in kinds {
                let text =
                    String(repeating: "a", count: position) + first + second
                    + String(repeating: "b", count: 20 - position)
                let written = JSONWriter.bytes(of: .string(text))
                #expect(try JSONParser.parse(written) == .string(text))
                #expect(
                    try JSONParser.parse([0x5B] + written + [0x2C] + written + [0x5D]) == [
                        .string(text), .string(text),
                    ])
            }
        }
        for control in UInt8(0)..<0x20 {
            let bytes =
                Array(("\"" + String(repeating: "a", count: position)).utf8) + [control] + Array("bbbbbbbbbb\"".utf8)
            #expect(throws: WireError.self) { try JSONParser.parse(bytes) }
        }
        for wrong in UInt8(0x80)...0xFF {
            let bytes =
                Array(("\"" + String(repeating: "a", count: position)).utf8) + [wrong] + Array("bbbbbbbbbb\"".utf8)
            #expect(throws: WireError.self) { try JSONParser.parse(bytes) }
        }
    }

    @Test("the last of several members with one name wins")
    func duplicates() throws {
        #expect(try JSONParser.parse(#"{"a":1,"b":2,"a":3}"#) == ["a": 3, "b": 2])
    }

    @Test(
        "what is not JSON is refused, never trapped on",
        arguments: [
            "", " ", "{", "[", "[1", "[1,", "[1,]", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,}", "{a:1}", "\"",
            "\"\\", "\"\\u12",
            "\"\\x\"", "\"\u{1}\"", "nul", "tru", "Inf", "-", "01", "1.", "1e", "+1", "1 2", "[1}", "{]", "'a'",
        ])
    func malformed(_ text: String) {
        #expect(throws: WireError.self) { try JSONParser.parse(text) }
    }

    @Test("limits hold before anything is allocated for it")
    func limits() {
        let deep = String(repeating: "[", count: 100_000)
        #expect(throws: WireError.self) { try JSONParser.parse(deep) }
        #expect(throws: WireError.self) { try JSONParser.parse("[1,2,3]", limits: WireLimits(maximumValues: 3)) }
        #expect(throws: WireError.self) { try JSONParser.parse("[1,2,3]", limits: WireLimits(maximumBytes: 6)) }
    }

    @Test("bytes that are not UTF-8 are refused")
    func invalidText() {
        #expect(throws: WireError.self) { try JSONParser.parse([0x22, 0xFF, 0x22]) }
        #expect(throws: WireError.self) { try JSONParser.parse([0x22, 0x5C, 0x6E, 0xC3, 0x22]) }
    }

    @Test("every prefix and a thousand mutations of a message are read or refused")
    func mutations() throws {
        let message = Message(
            headers: MessageHeaders(task: "t", id: "i"),
            properties: MessageProperties(routingKey: "q", deliveryTag: "d"),
            body: MessageBody(arguments: Arguments(positional: [1, "two"], keyword: ["three": [3.5, nil]])).encoded())
        let bytes = message.encodedEnvelope()
        var read = 0
        for length in 0..<bytes.count where (try? Message(envelope: Array(bytes.prefix(length)))) != nil { read += 1 }
        #expect(read == 0, "no prefix is a message")
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<1000 {
            var mutated = bytes
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                mutated[Int.random(in: 0..<mutated.count, using: &generator)] = UInt8.random(
                    in: 0...255, using: &generator)
            }
            if let message = try? Message(envelope: mutated) { _ = try? message.decodedBody() }
        }
    }

    @Test("base64 of every length comes back, and damage is noticed")
    func base64() throws {
        for length in 0..<100 {
            let content = (0..<length).map { _ in UInt8.random(in: 0...255) }
            var encoded: [UInt8] = []
            Base64.append(content, to: &encoded)
            #expect(try Base64.decode(encoded) == content)
        }
        // White space at every position, and damage at every position.
        let text = Array("aGVhdnkgbGlmdGluZw==".utf8)
        for position in 0...text.count {
            #expect(try Base64.decode(text[..<position] + [0x0A] + text[position...]) == Array("heavy lifting".utf8))
            #expect(throws: WireError.self) { try Base64.decode(text[..<position] + [0x2A] + text[position...]) }
        }
        for damaged in ["A", "AA", "AAA", "AA=", "A===", "AA==AA==", "A*AA"] {
            #expect(throws: WireError.self, "\(damaged)") { try Base64.decode(damaged.utf8) }
        }
    }
}
