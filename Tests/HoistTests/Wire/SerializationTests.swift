import Testing

@testable import Hoist
@testable import HoistYAML

@Suite("Serializations and compression")
struct SerializationTests {
    private func message(_ body: [UInt8], type: String, compression: String? = nil) -> Message {
        var headers = MessageHeaders(task: "job", id: "1")
        headers.compression = compression
        return Message(
            headers: headers, properties: MessageProperties(routingKey: "q", deliveryTag: "1"), contentType: type,
            body: body)
    }

    @Test("MessagePack of every type is read")
    func messagePack() throws {
        let cases: [([UInt8], WireValue)] = [
            ([0x07], 7), ([0xFF], -1), ([0xC0], nil), ([0xC3], true), ([0xCC, 0xFF], 255), ([0xCD, 1, 0], 256),
            ([0xCF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], .bigInteger("18446744073709551615")),
            ([0xD0, 0x80], -128), ([0xD1, 0x80, 0], -32768), ([0xD2, 0xFF, 0xFF, 0xFF, 0xFE], -2),
            ([0xD3, 0x80, 0, 0, 0, 0, 0, 0, 0], .integer(.min)), ([0xCA, 0x3F, 0x80, 0, 0], 1.0),
            ([0xCB, 0x3F, 0xF8, 0, 0, 0, 0, 0, 0], 1.5), ([0xA2, 0x68, 0x69], "hi"), ([0xD9, 1, 0x68], "h"),
            ([0xC4, 2, 0xFF, 0xFE], ["__type__": "base64", "__value__": "//4="]), ([0x92, 1, 0x90], [1, []]),
            ([0x81, 0xA1, 0x61, 0x81, 0x05, 0xC2], ["a": ["5": false]]), ([0xDC, 0, 1, 1], [1]),
            ([0xDE, 0, 1, 0xA1, 0x61, 1], ["a": 1]),
        ]
        for (bytes, value) in cases { #expect(try MessagePackParser.parse(bytes) == value) }
    }

    @Test("damaged MessagePack is refused before anything is allocated for it")
    func damagedMessagePack() {
        let depth = [UInt8](repeating: 0x91, count: 100_000)
        let cases: [[UInt8]] = [
            [], [0xDD, 0xFF, 0xFF, 0xFF, 0xFF], [0xDF, 0xFF, 0xFF, 0xFF, 0xFF], [0xC6, 0xFF, 0xFF, 0xFF, 0xFF],
            [0xA5, 0x68], [0xA1, 0xFF],
            [0xD4, 1, 1], [0xC1], [1, 2], [0x81, 0x90, 1], depth,
        ]
        for bytes in cases { #expect(throws: WireError.self) { try MessagePackParser.parse(bytes) } }
    }

    @Test("YAML of the types that JSON has is read, quoted text stays text")
    func yaml() throws {
        let text = """
            - [1, -2.5, true, null, "123", 2026-11-21, 170141183460469231731687303715884105727]
            - {city: Oslo, n: 0x10}
            - {callbacks: null, data: !!binary "//4="}
            """
        let value = try YAMLText.parse(Array(text.utf8))
        #expect(
            value == [
                [1, -2.5, true, nil, "123", "2026-11-21", .bigInteger("170141183460469231731687303715884105727")],
                ["city": "Oslo", "n": 16], ["callbacks": nil, "data": ["__type__": "base64", "__value__": "//4="]],
            ])
    }

    @Test("numbers of YAML in base 60")
    func base60() throws {
        let value = try YAMLText.parse(Array("[1:30, -1:0:0, +190:20:30, 1_0:00, 190:20:30.5]".utf8))
        #expect(value == [90, -3600, 685_230, 600, 685_230.5])
    }

    @Test("YAML is a serialization like any other once its module has registered it")
    func registeredYAML() throws {
        YAMLText.register()
        #expect(try Serialization.parse(Array("a: 1".utf8), as: Serialization.yaml, limits: .default) == ["a": 1])
    }

    @Test("YAML that asks for objects, nests too deep or multiplies is refused")
    func hostileYAML() {
        var laughs = "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        for (last, next) in zip("abcdefghi", "bcdefghij") {
            laughs += "\(next): &\(next) [\(Array(repeating: "*\(last)", count: 10).joined(separator: ","))]\n"
        }
        let cases = [
            "!!python/object/apply:os.system ['true']", String(repeating: "[", count: 100_000),
            String(repeating: "[", count: 500) + String(repeating: "]", count: 500), "a: [", "? [1]\n: 2", laughs,
            "9:9:9:9:9:9:9:9:9:9:9:9", "-1:0:0:0:0:0:0:0:0:0:0:0:0", "!!int 99999999999999999999:1", "!!int a:b",
        ]
        for text in cases { #expect(throws: WireError.self) { try YAMLText.parse(Array(text.utf8)) } }
    }

    @Test("what was compressed comes back, in any of the three ways")
    func compression() throws {
        let text = Array(String(repeating: "to and fro ", count: 1000).utf8)
        let deflated = Compression.deflated(text)
        #expect(deflated.count < 200)
        #expect(try Compression.decompress(deflated, as: Compression.zlib) == text)
        #expect(try Compression.decompress(Compression.deflated([]), as: Compression.zlib) == [])
    }

    @Test(
        "a stream that is damaged, cut off or too large is refused",
        arguments: [Compression.zlib, Compression.bzip2, Compression.xz])
    func damagedStreams(_ name: String) throws {
        #expect(throws: WireError.self) { try Compression.decompress([1, 2, 3, 4, 5, 6, 7, 8], as: name) }
        #expect(throws: WireError.self) { try Compression.decompress([], as: name) }
    }

    @Test("a small message that would become a huge one is refused")
    func bomb() {
        let deflated = Compression.deflated([UInt8](repeating: 0, count: 4 << 20))
        let limits = WireLimits(maximumBytes: 1 << 20)
        #expect(throws: WireError.self) { try Compression.decompress(deflated, as: Compression.zlib, limits: limits) }
        #expect(throws: WireError.self) {
            try Compression.decompress(Array(deflated.dropLast(5)), as: Compression.zlib)
        }
    }

    @Test("pickle and unknown types are refused by name")
    func refused() {
        for (type, compression) in [
            ("application/x-python-serialize", nil), ("text/x-unknown", nil), ("application/json", "application/zstd"),
        ] {
            let error = #expect(throws: WireError.self) {
                try message([0x5B, 0x5D], type: type, compression: compression).decodedBody()
            }
            #expect(error?.message.contains(compression ?? type) == true)
        }
    }
}
