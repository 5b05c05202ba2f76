import Foundation
@testable import Hoist
import HoistTesting
import Testing

/// Values at the edge, in every place where a message, a result or a report has a number, a date or a text.
@Suite("Values from outside")
struct OutsideValuesTests {
    static let numbers = [
        "1e300", "-1e300", "NaN", "Infinity", "-Infinity", "9223372036854775807", "-9223372036854775808",
        "9223372036854775808", "1e19", "-1", "0", "1e-300", "\"text\"", "null", "[]", "{}", "true",
    ]

    private static let places = [
        #""retries":N"#, #""eta":N"#, #""expires":N"#, #""group_index":N"#, #""timelimit":[N,N]"#,
        #""replaced_task_nesting":N"#, #""stamps":N"#, #""hoist":N"#, #""hoist":{"enqueued_at":N}"#,
        #""hoist":{"result_retention":N,"heartbeat_limit":N,"memory_limit":N,"cost":N}"#,
        #""hoist":{"unique":{"key":"k","scope":{"kind":"remembered","seconds":N},"on_clash":"skip"}}"#,
        #""hoist":{"retry":{"maxAttempts":N,"base":N,"factor":N,"limit":N,"jitter":N}}"#,
    ]

    @Test("no number in a message ends a process, whoever reads it", arguments: places)
    func messages(place: String) throws {
        for number in Self.numbers {
            let header = place.replacing("N", with: number)
            let envelope = Array(
                #"{"headers":{"task":"t","id":"i",\#(header)},"content-type":"application/json","properties":{"priority":\#(number),"delivery_mode":\#(number)},"body":"[[],{},{}]"}"#
                    .utf8)
            guard let message = try? Message(envelope: envelope) else { continue }
            var record = JobRecord(id: "i", name: "t", queue: "q", state: .waiting)
            record.describe(message)
            let hoist = message.headers.hoist
            record.enqueuedAt = hoist.enqueuedAt
            #expect(!record.wireValue.description.isEmpty)
            #expect(try Message(envelope: message.encodedEnvelope()).id == "i")
            let now = Date()
            let delivery = Delivery(
                jobID: "i", jobName: "t", queue: "q", payload: .message(message), attempt: message.headers.retries + 1,
                lostWorkers: 0, token: 1)
            let facts = SettlementFacts(message, of: delivery, worker: "w")
            #expect(facts.attempt >= 1)
            for attempt in [1, 1000, Int(Int32.max)] {
                if let wait = hoist.retry?.delay(afterAttempt: attempt, draw: 0.5) { #expect(wait >= .zero) }
            }
            for date in [hoist.enqueuedAt, message.headers.eta, message.headers.expires].compactMap(\.self) {
                #expect(WireTimestamp.string(from: date).count >= 20)
                _ = Duration(boundedSeconds: now.timeIntervalSince(date)).inMicroseconds
            }
        }
    }

    @Test("dates and durations from anywhere are within what can be counted with")
    func bounds() throws {
        for seconds in [1e300, -1e300, .infinity, -.infinity, .nan, 0] as [Double] {
            let date = Date(timeIntervalSince1970: seconds)
            #expect(abs(date.microsecondsSinceEpoch) <= 253_402_300_799_000_000)
            #expect((0...10_000_000_000).contains(Duration(boundedSeconds: seconds).components.seconds))
            _ = Int64(bounded: seconds)
            let usage = try JSONText.decode(
                ResourceUsage.self,
                from: try JSONText.encode(ResourceUsage(cpuSeconds: seconds, wallSeconds: seconds, peakMemory: .max)))
            #expect(usage.cpuSeconds <= 10_000_000_000 && usage.peakMemory! <= 1 << 60)
            let progress = try JSONText.decode(
                JobProgress.self, from: try JSONText.encode(JobProgress(fraction: seconds)))
            #expect(progress.fraction.map { (0...1).contains($0) } ?? true)
        }
    }

    @Test("two names that look the same are two names")
    func codePoints() throws {
        let text = "{\"caf\u{E9}\":1,\"cafe\u{301}\":2}"
        let value = try JSONText.parse(Array(text.utf8))
        let object = try #require(value.objectValue)
        #expect(object.count == 2 && object["caf\u{E9}"] == 1 && object["cafe\u{301}"] == 2)
        #expect(JSONWriter.bytes(of: value) == Array(text.utf8))
        #expect(object.keys.map { Array($0.utf8).count } == [5, 6])
    }

    @Test("an id may be text, a typed UUID or a number, and headers an empty list")
    func identifiers() throws {
        func message(_ headers: String, body: String = "[[],{},{}]") throws -> Message {
            try Message(
                envelope: Array(
                    #"{"headers":\#(headers),"content-type":"application/json","properties":{},"body":"\#(body)"}"#.utf8
                ))
        }
        let hex = "0123456789abcdef0123456789abcdef"
        let typed = #"{"task":"t","id":{"__type__":"uuid","__value__":{"hex":"\#(hex)"}}}"#
        #expect(try message(typed).id == "01234567-89ab-cdef-0123-456789abcdef")
        #expect(try message(#"{"task":"t","id":42}"#).id == "42")
        let old = try message("[]", body: #"{\"task\":\"t\",\"id\":\"x\",\"args\":[1],\"kwargs\":{}}"#)
        #expect(old.id == "x" && old.jobName == "t")
        #expect(throws: WireError.self) { try message("[1]") }
    }

    @Test("headers that name the job twice are refused, for two readers could take two names from them")
    func repeatedHeaders() {
        for headers in [#""task":"a","id":"i","task":"b""#, #""task":"a","id":"i","id":"j""#] {
            let text = #"{"headers":{\#(headers)},"content-type":"application/json","properties":{},"body":""}"#
            #expect(throws: WireError.self) { try Message(envelope: Array(text.utf8)) }
        }
    }

    @Test("the id of a message that cannot be read is found where there is one")
    func callersID() {
        func id(_ text: String) -> JobID? { Message.callersID(in: Array(text.utf8)) }
        #expect(id(#"{"headers":{"id":"a"},"body":5}"#) == "a")
        #expect(id(#"{"headers":{},"properties":{"correlation_id":"b"}}"#) == "b")
        #expect(id(#"{"headers":{},"properties":{"body_encoding":"base64"},"body":"eyJpZCI6ImMifQ=="}"#) == "c")
        #expect(id(#"{"headers":{"id":""},"properties":{}}"#) == nil)
        #expect(id(#"{"headers":{"id":"\#(String(repeating: "x", count: 2000))"}}"#) == nil)
        #expect(id("nonsense") == nil && id("[]") == nil)
    }

    @Test("what claims to be JSON is JSON, for every value")
    func strictJSON() throws {
        let value: WireValue = [
            .double(.nan), .double(.infinity), .double(-.infinity), 1.5, "é\u{1}\"", ["x": .double(.nan)],
        ]
        #expect(JSONText.shown(value) == #"[null,null,null,1.5,"é\#u{5C}u0001\"",{"x":null}]"#)
        #expect((try? JSONSerialization.jsonObject(with: Data(JSONText.shown(value).utf8))) != nil)
    }

    @Test("nothing that controls a terminal, turns the direction of writing or cannot be seen gets through")
    func terminal() {
        #expect(TerminalText.line("plain, größe, 名, 🙂") == "plain, größe, 名, 🙂")
        #expect(TerminalText.line("\u{1B}]0;owned\u{7}\u{1B}[2J") == "\\u{1b}]0;owned\\u{7}\\u{1b}[2J")
        #expect(TerminalText.line("a\nb\r\u{85}c") == "a\\u{a}b\\u{d}\\u{85}c")
        for hidden in ["\u{202E}", "\u{2066}", "\u{200B}", "\u{FEFF}", "\u{2028}", "\u{9B}", "\u{3164}", "\u{E0041}"] {
            #expect(TerminalText.line("x\(hidden)y").hasPrefix("x\\u{"), "\(hidden.unicodeScalars.first!.value)")
        }
    }

    @Test("secret arguments are hidden however the job came: by type, by name, from Python")
    func secrets() async throws {
        struct Login: Job {
            static let name = "outside.login"
            static let secretArguments: Set<String> = ["answer"]
            var answer: String
        }
        let backend = MemoryBackend()
        let client = JobClient(backend, logger: quiet)
        let typed = try await client.enqueue(Login(answer: "42"))
        let arguments = Arguments(keyword: ["answer": "42", "api_key": "k", "user": "ada", "Password": "p"])
        let named = try await client.enqueue(named: Login.name, arguments: arguments)
        #expect(try await typed.record()?.argumentsText == "{'answer': '***'}")
        #expect(
            try await named.record()?.argumentsText
                == "{'answer': '***', 'api_key': '***', 'user': 'ada', 'Password': '***'}")
        var headers = MessageHeaders(task: Login.name, id: "p")
        headers.language = "py"
        headers.keywordArgumentsText =
            #"{'user': 'it''s', "password": "a, 'b'} \" c", 'answer': [1, {'x': 2}], 'n': 1}"#
        headers.hideForeignSecrets()
        #expect(headers.keywordArgumentsText == #"{'user': 'it''s', "password": '***', 'answer': '***', 'n': 1}"#)
    }

    @Test("a message that is mostly air is refused before it fills the memory")
    func bombs() throws {
        var python = Data()
        // bzip2 of 45 MB of zeros is 113 bytes; made here of the library itself would need its compressor.
        python.append(contentsOf: [0x42, 0x5A, 0x68, 0x39])
        #expect(throws: WireError.self) { try Compression.decompress(Array(python), as: "application/x-bz2") }
        let zeros = Compression.deflated([UInt8](repeating: 0x20, count: 40 << 20))
        #expect(try Compression.decompress(zeros, as: Compression.zlib).count == 40 << 20)
        #expect(throws: WireError.self) {
            try Compression.decompress(zeros, as: Compression.zlib, limits: WireLimits(maximumBytes: 1 << 20))
        }
    }

    @Test("a call is sent in steps of so many jobs and so many bytes")
    func steps() {
        func message(_ size: Int) -> Message {
            Message(
                headers: MessageHeaders(task: "t", id: "i"),
                properties: MessageProperties(routingKey: "q", deliveryTag: "d"),
                body: [UInt8](repeating: 0, count: size))
        }
        #expect(JobClient.steps(of: []).isEmpty)
        #expect(JobClient.steps(of: [message(1)]).map(\.count) == [1])
        #expect(JobClient.steps(of: (0..<12_000).map { _ in message(10) }).map(\.count) == [5000, 5000, 2000])
        let large = (0..<10).map { _ in message(3 << 20) }
        #expect(JobClient.steps(of: large).map(\.count) == [2, 2, 2, 2, 2])
        #expect(JobClient.steps(of: [message(20 << 20), message(1)]).map(\.count) == [1, 1])
    }
}

/// The memory that messages take together.
@Suite("The gate of large messages", .timeLimit(.minutes(3)))
struct DecodingGateTests {
    private let limit = 100 << 20

    @Test("who would exceed the limit waits its turn; small ones never wait")
    func order() async throws {
        let gate = DecodingGate()
        #expect(await gate.enter(60 << 20, of: limit))
        let order = Shared<[String]>([])
        async let second: Void = {
            _ = await gate.enter(80 << 20, of: limit)
            order.change { $0.append("second") }
        }()
        #expect(await gate.enter(1000, of: limit))
        order.change { $0.append("small") }
        gate.decoded(60 << 20, keeping: 0, of: limit)
        await second
        #expect(order.value == ["small", "second"])
        gate.decoded(80 << 20, keeping: 0, of: limit)
    }

    @Test("one is decoded however large it is and however much runs, so that no job waits for another's end")
    func always() async throws {
        let gate = DecodingGate()
        for _ in 0..<5 {
            #expect(await gate.enter(1 << 40, of: limit))
            gate.decoded(1 << 40, keeping: limit, of: limit)
        }
        #expect(await gate.enter(90 << 20, of: limit))
        gate.decoded(90 << 20, keeping: 0, of: limit)
        for _ in 0..<5 { gate.ended(1 << 40, keeping: limit, of: limit) }
        // All of it was given back: two fit again.
        #expect(await gate.enter(50 << 20, of: limit))
        #expect(await gate.enter(50 << 20, of: limit))
    }

    @Test("who waits can be cancelled, and has not entered")
    func cancelling() async throws {
        let gate = DecodingGate()
        #expect(await gate.enter(90 << 20, of: limit))
        let waiting = Task { await gate.enter(90 << 20, of: limit) }
        waiting.cancel()
        #expect(await waiting.value == false)
        gate.decoded(90 << 20, keeping: 0, of: limit)
        #expect(await gate.enter(90 << 20, of: limit))
    }
}
