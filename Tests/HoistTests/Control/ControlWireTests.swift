import Foundation
@testable import Hoist
import Testing

/// Requests, replies and events captured from Celery 5.7, and the same as Hoist writes them.
@Suite("Celery's requests, replies and events")
struct ControlWireTests {
    static let files: [URL] = {
        let folder = FixtureTests.folder.appendingPathComponent("control")
        let names = (try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)) ?? []
        return names.filter { $0.pathExtension == "json" }.sorted { $0.path < $1.path }
    }()

    /// Every message in a capture: an object that has headers, properties and a body that the capture has decoded.
    private func messages(in value: WireValue) -> [WireValue.Object] {
        switch value {
        case .array(let elements): return elements.flatMap(messages)
        case .object(let members):
            if members["body"] != nil, members["properties"] != nil { return [members] }
            return members.flatMap { messages(in: $0.value) }
        default: return []
        }
    }

    /// The envelope as it travelled.
    private func frame(_ message: WireValue.Object) -> [UInt8] {
        var envelope = message
        var body: [UInt8] = []
        Base64.append(JSONWriter.bytes(of: message["body"] ?? .null), to: &body)
        envelope["body"] = .string(String(decoding: body, as: UTF8.self))
        return JSONWriter.bytes(of: .object(envelope))
    }

    @Test("all of them are there")
    func count() { #expect(Self.files.count == 60, "\(Self.files.count)") }

    @Test("each request, reply and event is read", arguments: files)
    func reads(_ file: URL) throws {
        let capture = try JSONParser.parse(Array(try Data(contentsOf: file)))
        for message in messages(in: capture) {
            let (body, bytes) = (message["body"] ?? .null, frame(message))
            if body["method"] != nil {
                let request = try ControlRequest(frame: bytes)
                #expect(.string(request.method) == body["method"])
                #expect(request.replyTo != nil || body["reply_to"] == nil)
                // What Hoist writes of it is read by Celery as the same.
                let again = try ControlFrame(request.encoded(expires: nil), limits: .request)
                #expect(again.body == body, "\(again.body)\n\(body)")
                #expect(again.headers["clock"] == message["headers"]?["clock"])
            } else if message["headers"]?["ticket"] != nil {
                let (ticket, _, replies) = try ControlReply.read(bytes)
                #expect(ticket.map { .string($0) } == message["headers"]?["ticket"])
                let values = WireValue.object(.init(replies.map { ($0.node, $0.value) }))
                #expect(values == body)
            } else {
                let events = try FleetEvent.read(bytes)
                #expect(events.count == body.arrayValue?.count ?? 1)
                for event in events {
                    if case .other(let facts) = event {
                        #expect(facts.type.hasPrefix("worker-elect"), "\(facts.type) is a known type")
                    }
                }
            }
        }
    }

    @Test("a request is for those that it names, and for names that match its pattern")
    func addressees() throws {
        func names(_ members: WireValue.Object, _ node: String) throws -> Bool {
            let body = WireValue.object(members.merging(["method": "ping"]))
            let frame = ControlFrame.encode(
                headers: [:], body: JSONWriter.bytes(of: body), exchange: "celery.pidbox", key: "", isLasting: true)
            return try ControlRequest(frame: frame).addressee.names(node)
        }
        #expect(try names([:], "a@b"))
        #expect(try names(["destination": []], "a@b"))
        #expect(try names(["destination": ["c@d", "a@b"]], "a@b"))
        #expect(try !names(["destination": ["c@d"]], "a@b"))
        #expect(try names(["pattern": "a@*", "matcher": "glob"], "a@b"))
        #expect(try names(["pattern": "[!b-z]@?", "matcher": "glob"], "a@b"))
        #expect(try !names(["pattern": "[b-z]@?", "matcher": "glob"], "a@b"))
        #expect(try !names(["pattern": "*", "matcher": "nobody knows"], "a@b"))
        // Names win over a pattern, as with Celery.
        #expect(try !names(["destination": ["c@d"], "pattern": "*", "matcher": "glob"], "a@b"))
        let stars = String(repeating: "*a", count: 5000) + "b"
        #expect(try !names(["pattern": .string(stars), "matcher": "glob"], String(repeating: "a", count: 250)))
    }

    @Test("an expression counts from the start of a name, and one that is none or takes too much work matches nothing")
    func expressions() throws {
        // In the base system of Debian.
        try #require(NodeExpression.matches("a", "a") != nil, "libpcre2-8 is missing")
        func matches(_ pattern: String, _ node: String = "encoder-1@gpu-7") -> Bool? {
            NodeExpression.matches(pattern, node)
        }
        for pattern in ["encoder", "encoder-\\d@gpu", "^enc.*7$", ".*@gpu", "(?:a|e)nc", "", "encoder-(?=1)"] {
            #expect(matches(pattern) == true, "\(pattern)")
        }
        #expect(matches("\u{e4}\u{1f600}+$", "\u{e4}\u{1f600}\u{1f600}") == true)
        for pattern in ["gpu", "encoder-2", "ENC", "(", "[z-a]", "a{99999}", "*", "\\"] {
            #expect(matches(pattern) == false, "\(pattern)")
        }
        #expect(matches(String(repeating: "a", count: 1025), "a") == false)
        // Each of these takes minutes where nothing limits it.
        let long = String(repeating: "a", count: 200)
        let bombs = ["(a+)+$", "(a|aa)+$", "(a*)*b", "((a{1,9}){1,9}){1,9}b", "(?:(?:a?){50}){50}b", "(a(?1)?)+b"]
        for pattern in bombs {
            let duration = ContinuousClock().measure { #expect(matches(pattern, long + "!") == false, "\(pattern)") }
            #expect(duration < .seconds(10), "\(pattern) took \(duration)")
        }
    }

    @Test(
        "what is no request is refused",
        arguments: [
            "", "[]", "null", #"{"body":"e30="}"#, #"{"body":"bm8=","properties":{"body_encoding":"base64"}}"#,
            #"{"body":"{}","content-type":"application/x-python-serialize"}"#,
            #"{"body":"{\"method\":\"ping\"}","headers":{"compression":"application/x-gzip"}}"#,
            #"{"body":"{\"method\":\"ping\",\"arguments\":[1]}"}"#, #"{"body":"{\"method\":7}"}"#,
            "{\"body\":\"{\\\"method\\\":\\\"ping\\\",\\\"x\\\":" + String(repeating: "[", count: 1000)
                + String(repeating: "]", count: 1000) + "}\"}",
            "{\"body\":\"{\\\"method\\\":\\\"" + String(repeating: "a", count: 1 << 20) + "\\\"}\"}",
        ])
    func refusals(_ text: String) {
        #expect(throws: WireError.self) { try ControlRequest(frame: Array(text.utf8)) }
    }

    @Test("texts look as Python writes them")
    func pythonTexts() {
        #expect(PythonText.quoted("it's") == #""it's""#)
        #expect(PythonText.quoted("a\\b\n'\"") == #"'a\\b\n\'"'"#)
        #expect(PythonText.set(["id-2", "id-3"]) == "{'id-2', 'id-3'}")
        let failure = JobFailure(kind: .raised, type: "KeyError", message: "no 'x'")
        #expect(PythonText.exception(failure, limit: 100) == #"KeyError("no 'x'")"#)
    }

    @Test("rates are read as Celery reads them")
    func rates() throws {
        func rate(_ value: WireValue) throws -> Double? { try StartRate(value)?.perSecond }
        #expect(try rate("10/m") == 10.0 / 60)
        #expect(try rate("100/h") == 100.0 / 3600)
        #expect(try rate("1.5/s") == 1.5)
        #expect(try rate("3") == 3)
        #expect(try rate(4) == 4)
        #expect(try rate(0) == nil)
        #expect(try rate(nil) == nil)
        for bad in ["abc", "10/d", "nan", "-1", "inf", "1/m/s"] as [WireValue] {
            #expect(throws: ControlRefusal.self, "\(bad)") { try rate(bad) }
        }
        #expect(throws: ControlRefusal.self) { try rate([1]) }
    }

    @Test("a bucket gives as many starts as its rate says")
    func buckets() throws {
        var bucket = RateBucket(try #require(try StartRate("60/m")), now: 0)
        var starts = 0
        var now: Int64 = 0
        while now < 60_000_000 {
            if bucket.take(now: now) {
                starts += 1
            } else {
                let refill = try #require(bucket.nextRefill)
                #expect(refill > now && refill <= now + 1_000_001)
                now = refill
            }
        }
        #expect((60...61).contains(starts), "\(starts)")
    }
}
