import Foundation
import Hoist
import Testing

@Suite("Swift values on the wire")
struct WireCodingTests {
    struct Everything: Codable, Equatable {
        struct Inner: Codable, Equatable { var maxURLLength: Int }
        enum Choice: String, Codable { case one, two }
        var videoID: String
        var count: Int
        var ratio: Double
        var flag: Bool
        var when: Date
        var key: UUID
        var raw: Data
        var price: Decimal
        var link: URL
        var maybe: String?
        var list: [Inner]
        var byName: [String: Int]
        var choice: Choice
        var big: UInt64
    }

    @Test("every kind of property comes back as it went")
    func roundTrip() throws {
        let value = Everything(
            videoID: "42", count: -3, ratio: 0.1, flag: true, when: Date(timeIntervalSince1970: 1_700_000_000.25),
            key: UUID(),
            raw: Data([0xFF, 0x00]), price: Decimal(string: "19.99")!, link: URL(string: "https://example.org/a")!,
            maybe: nil,
            list: [.init(maxURLLength: 1)], byName: ["camelCase": 1], choice: .two, big: .max)
        let wire = try WireEncoder.encode(value)
        #expect(try WireDecoder.decode(Everything.self, from: JSONParser.parse(wire.description)) == value)
        #expect(wire["video_id"] == "42", "properties are snake_case")
        #expect(wire["list"]?.arrayValue?.first == ["max_url_length": 1], "inner ones too")
        #expect(wire["by_name"] == ["camelCase": 1], "the keys of a dictionary are data")
        #expect(wire["when"] == ["__type__": "datetime", "__value__": "2023-11-14T22:13:20.250000+00:00"])
        #expect(wire["big"]?.description == "18446744073709551615")
        #expect(wire["price"] == ["__type__": "decimal", "__value__": "19.99"])
    }

    @Test("typed values that make no sense are refused, not trapped on")
    func nonsense() throws {
        let uuid: WireValue = ["__type__": "uuid", "__value__": ["hex": "😀😀😀😀😀😀😀😀"]]
        #expect(throws: DecodingError.self) { try WireDecoder.decode(UUID.self, from: uuid) }
        #expect(throws: DecodingError.self) { try WireDecoder.decode(Date.self, from: .double(.nan)) }
        #expect(throws: DecodingError.self) { try WireDecoder.decode(Int.self, from: .double(.infinity)) }
        var header = HoistHeader()
        header.resultRetention = .infinity
        header.heartbeatLimit = .nan
        var message = Message(
            headers: MessageHeaders(task: "t", id: "i"),
            properties: MessageProperties(routingKey: "q", deliveryTag: "d"), body: [])
        message.headers.hoist = header
        let again = try Message(envelope: message.encodedEnvelope())
        #expect(again.headers.hoist.resultRetention == 10_000_000_000)
        #expect(again.headers.hoist.heartbeatLimit == 0)
        #expect(Duration.seconds(Int64.max).inMicroseconds > 0)
        #expect(Duration(boundedSeconds: .nan) == .zero && Duration(boundedSeconds: 1e300) == .seconds(10_000_000_000))
    }

    @Test("a large text lies in its envelope as it is, anything else in base64; all come back")
    func bodies() throws {
        let large = Array(String(repeating: "\"\\ä\u{0}\u{1F40C}\n", count: 1000).utf8)
        for (body, isText) in [(large, true), (Array(large.prefix(100)), false), (large + [0xFF], false), ([], false)] {
            let message = Message(
                headers: MessageHeaders(task: "task", id: "id"),
                properties: MessageProperties(routingKey: "default", deliveryTag: "tag"),
                body: body)
            let envelope = message.encodedEnvelope()
            #expect(try Message(envelope: envelope).body == body)
            let object = try JSONParser.parse(envelope)
            #expect(object["properties"]?["body_encoding"] == (isText ? .null : "base64"))
            if isText { #expect(object["body"]?.stringValue.map { Array($0.utf8) } == body) }
        }
        var compressed = Message(
            headers: MessageHeaders(task: "task", id: "id"),
            properties: MessageProperties(routingKey: "default", deliveryTag: "tag"),
            body: large)
        compressed.headers.compression = "application/x-gzip"
        #expect(try JSONParser.parse(compressed.encodedEnvelope())["properties"]?["body_encoding"] == "base64")
    }

    @Test("a type that writes its coding keys out as strings decides for itself")
    func ownKeys() throws {
        struct Own: Codable {
            var videoID: String
            enum CodingKeys: String, CodingKey { case videoID = "videoId" }
        }
        #expect(try WireEncoder.encode(Own(videoID: "x")) == ["videoId": "x"])
    }

    @Test(
        "Python's times are read",
        arguments: [
            ("2026-11-21T01:57:06.060446+00:00", 1_795_226_226_060_446),
            ("2026-11-21T01:57:06Z", 1_795_226_226_000_000),
            ("2026-11-21T03:57:06+02:00", 1_795_226_226_000_000), ("2026-11-21 01:57:06.06", 1_795_226_226_060_000),
            ("2026-11-21", 1_795_219_200_000_000), ("1969-12-31T23:59:59.5", -500_000),
            ("2024-02-29T00:00:00", 1_709_164_800_000_000),
        ] as [(String, Int64)])
    func timestamps(_ text: String, _ microseconds: Int64) {
        #expect(WireTimestamp.date(from: text)?.microsecondsSinceEpoch == microseconds)
    }

    @Test("times of four centuries are written as they are read")
    func timestampRoundTrip() {
        for day in stride(from: -70_000 as Int64, to: 80_000, by: 37) {
            let date = Date(microsecondsSinceEpoch: day * 86_400_000_000 + 12_345_678_901)
            let read = WireTimestamp.date(from: WireTimestamp.string(from: date))
            #expect(read?.microsecondsSinceEpoch == date.microsecondsSinceEpoch)
        }
    }

    @Test(
        "what is no time is refused",
        arguments: ["", "now", "2026", "2026-13-01", "2026-11-21T25", "2026-11-21T01:57:06+", "1732154226"])
    func noTimestamps(_ text: String) { #expect(WireTimestamp.date(from: text) == nil) }
}

@Suite("Arguments")
struct ArgumentTests {
    struct Call: Codable, Equatable {
        var videoID: String
        var width: Int
        var note: String?
    }

    @Test("positional arguments bind in declaration order, the rest by name")
    func binding() throws {
        let expected = Call(videoID: "42", width: 7, note: nil)
        #expect(try Arguments(positional: ["42", 7]).bind(to: Call.self) == expected)
        #expect(try Arguments(positional: ["42"], keyword: ["width": 7]).bind(to: Call.self) == expected)
        #expect(try Arguments(keyword: ["width": 7, "video_id": "42", "note": nil]).bind(to: Call.self) == expected)
        #expect(try Arguments(positional: ["42", 7, "x"]).bind(to: Call.self).note == "x")
    }

    @Test(
        "an error names the parameter",
        arguments: [
            (Arguments(keyword: ["width": 7]), "video_id", "missing"),
            (Arguments(positional: ["42", "wide"]), "width", "expected an integer, got a string"),
            (Arguments(positional: ["42"], keyword: ["video_id": "43", "width": 7]), "video_id", "given twice"),
            (Arguments(positional: ["42", 7], keyword: ["heigth": 1]), "heigth", "unexpected"),
            (Arguments(positional: ["42", 7, "x", "y"]), nil, "takes 3 arguments but 4"),
            (Arguments(positional: ["42", 1e300]), "width", "fits"),
        ] as [(Arguments, String?, String)])
    func errors(_ arguments: Arguments, _ parameter: String?, _ problem: String) {
        let error = #expect(throws: ArgumentError.self) { try arguments.bind(to: Call.self) }
        #expect(error?.parameter == parameter)
        #expect(error?.problem.contains(problem) == true, "\(String(describing: error))")
    }
}
