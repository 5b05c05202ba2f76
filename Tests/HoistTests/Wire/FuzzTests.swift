import Foundation
@testable import Hoist
import HoistTesting
import HoistYAML
import Testing

/// Every reader of bytes from outside, fed with mutated captured bytes. Nothing traps, nothing runs away.
@Suite("Mutated bytes", .timeLimit(.minutes(10)))
struct FuzzTests {
    /// Captured messages, as they lay in the queues.
    private static let envelopes: [[UInt8]] = {
        func found(in value: WireValue) -> [[UInt8]] {
            switch value {
            case .array(let elements): elements.flatMap(found)
            case .object(let members):
                if let envelope = members["envelope"], envelope["headers"] != nil {
                    [JSONWriter.bytes(of: envelope)]
                } else {
                    members.flatMap { found(in: $0.value) }
                }
            default: []
            }
        }
        return FixtureTests.files.prefix(120).flatMap { file in
            (try? JSONParser.parse(Array(Data(contentsOf: file)))).map(found) ?? []
        }
    }()

    private let limits = WireLimits(maximumBytes: 1 << 20, maximumDepth: 64, maximumValues: 100_000)

    @Test("JSON")
    func json() {
        Fuzzing.run("JSON", corpus: Self.envelopes) { bytes in
            guard let value = try? JSONParser.parse(bytes, limits: limits) else { return }
            let written = JSONWriter.bytes(of: value)
            // What was read once is read again, and is the same.
            if (try? JSONParser.parse(written)).map({ JSONWriter.bytes(of: $0) }) != written {
                Issue.record("\(bytes) is not read as it is written")
            }
            _ = JSONText.shown(value)
        }
    }

    @Test("messages")
    func messages() {
        Fuzzing.run("messages", corpus: Self.envelopes) { bytes in
            _ = Message.callersID(in: bytes)
            guard let message = try? Message(envelope: bytes, limits: limits) else { return }
            var record = JobRecord(id: message.id, name: message.jobName, queue: message.queue, state: .waiting)
            record.describe(message)
            record.enqueuedAt = message.headers.hoist.enqueuedAt
            _ = record.wireValue.description
            let arguments = (try? message.decodedBody(limits: limits))?.arguments
            _ = (try? JSONText.decode(JobRecord.self, from: JSONText.encode(record)))
            _ = arguments.map { ArgumentsText.keyword($0.keyword, secret: ["x"]) }
            if let embed = (try? message.decodedBody(limits: limits))?.embed {
                _ = try? Continuation(embed, message.headers)
            }
            if (try? Message(envelope: message.encodedEnvelope())) == nil {
                Issue.record("\(bytes) is not read as it is written")
            }
        }
    }

    @Test("MessagePack")
    func messagePack() {
        // [[1, "a", {"k": nil}], {"x": 1.5}, {}] and some of every kind.
        let corpus: [[UInt8]] = [
            [
                0x93, 0x93, 0x01, 0xA1, 0x61, 0x81, 0xA1, 0x6B, 0xC0, 0x81, 0xA1, 0x78, 0xCB, 0x3F, 0xF8, 0, 0, 0, 0, 0,
                0, 0x80,
            ],
            [0xDC, 0x00, 0x02, 0xCF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xD3, 0x80, 0, 0, 0, 0, 0, 0, 0],
            [0xDE, 0x00, 0x01, 0xD9, 0x01, 0x61, 0xC4, 0x02, 0x01, 0x02], [0xDF, 0x7F, 0xFF, 0xFF, 0xFF],
            [0xDD, 0xFF, 0xFF, 0xFF, 0xFF], [0xC9, 0, 0, 0, 1, 5, 0], [0xDB, 0xFF, 0xFF, 0xFF, 0xFF],
        ]
        Fuzzing.run("MessagePack", corpus: corpus, tokens: ["\u{0}\u{0}\u{0}\u{1}"]) { bytes in
            _ = try? MessagePackParser.parse(bytes, limits: limits)
        }
    }

    @Test("YAML")
    func yaml() {
        let corpus = [
            "- [1, 2.5, text]\n- {a: 1, b: [x, y]}\n- {callbacks: null}\n", "&a [1, *a]\n", "? complex\n: 1\n",
            "!!binary aGk=\n",
            "2026-11-29T12:00:00Z\n",
            "- 190:20:30\n- -1:30\n- 190:20:30.15\n- 0x1F\n- 0o17\n- !!int 9:9:9:9:9:9:9:9:9:9:9\n",
            "- &x {k: v}\n- *x\n- <<: *x\n",
        ].map { Array($0.utf8) }
        Fuzzing.run("YAML", corpus: corpus, tokens: Fuzzing.defaultTokens + ["&a ", "*a", "!!x ", "- ", "? ", "<<: "]) {
            _ = try? YAMLText.parse($0, limits: limits)
        }
    }

    @Test("events, requests and replies of control")
    func control() {
        func frame(_ body: String) -> [UInt8] {
            ControlFrame.encode(
                headers: ["clock": 7, "expires": 1.5, "hostname": "a@b"], body: Array(body.utf8), exchange: "celeryev",
                key: "task.multi", isLasting: true)
        }
        let corpus = [
            #"{"type": "worker-heartbeat", "hostname": "a@b", "timestamp": 1.5, "clock": 7, "freq": 2.0, "loadavg": [1, 2]}"#,
            #"[{"type": "task-received", "uuid": "1", "hostname": "a@b", "name": "n", "args": "(1,)", "eta": "2026-11-29T12:00:00+00:00", "retries": 1}]"#,
            #"[{"type": "hoist-log", "uuid": "1", "hostname": "a@b", "lines": [{"at": 1.0, "source": "output", "text": "x"}]}]"#,
            #"{"method": "rate_limit", "arguments": {"task_name": "n", "rate_limit": "10/m"}, "destination": ["a@b"], "pattern": null, "matcher": null, "ticket": "t", "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "k"}}"#,
            #"{"method": "ping", "pattern": "a*@[a-z]", "matcher": "glob"}"#,
            #"{"method": "ping", "pattern": "^(a|b)+@.*$", "matcher": "pcre"}"#,
            #"{"a@b": {"ok": "pong"}, "c@d": [1, {"x": null}]}"#,
        ].map(frame)
        Fuzzing.run("control", corpus: corpus) { bytes in
            for event in (try? FleetEvent.read(bytes)) ?? [] { _ = (event.facts.fields.count, event.job?.lines.count) }
            if let request = try? ControlRequest(frame: bytes) {
                _ = request.addressee.names("encoder-1@gpu-7")
                _ = try? ControlRequest(frame: request.encoded(expires: request.expires))
            }
            _ = try? ControlReply.read(bytes)
        }
    }

    @Test("frames of children, and of their worker")
    func frames() {
        let record = JobRecord(id: "a", name: "b", queue: "c", state: .succeeded, output: ["size": [1, nil, 2.5]])
        let failure = JobFailure(kind: .crashed, type: "T", message: "m", crash: .init(signal: 11, lastLines: ["a"]))
        let call = IsolatedCall(
            run: 7, jobID: "id", jobName: "name", queue: "default", attempt: 2, lostWorkers: 1,
            limits: RunLimits(time: .seconds(3), memory: .gibibytes(1)), envelope: Self.envelopes.first ?? [])
        let commands: [ChildCommand] = [
            .perform(call), .cancel(7, .noProgress), .reply(1, .published([.enqueued, .keyHeld(by: "x")])),
            .reply(2, .record(record)), .update(5, record), .stop,
        ]
        let outcomes: [Outcome] = [
            .succeeded(output: Array("[1]".utf8), retention: 1.5), .failed(failure), .cancelled, .notStarted,
            .snoozed(until: Date(timeIntervalSince1970: 1), closesQueue: true), .retry(at: .distantPast, failure),
        ]
        let reports = outcomes.map { ChildReport.finished(IsolatedResult(run: 7, outcome: $0)) }
        Fuzzing.run("frames", corpus: commands.map { $0.encoded() } + reports.map { $0.encoded() }) { bytes in
            var buffer = FrameBuffer(maximumBytes: 1 << 20)
            bytes.withUnsafeBytes { buffer.append($0) }
            while let frame = try? buffer.next() {
                _ = try? ChildCommand(frame)
                _ = try? ChildReport(frame)
            }
        }
    }

    @Test("times, secrets in Python's text, and text for terminals")
    func texts() {
        let corpus = [
            "2026-11-29T12:00:00.123456+01:00", "{'user': 'x', 'password': 'y', \"n\": [1, {'a': (2,)}]}",
            "\u{1B}[2J\u{202E}x\u{200B}",
        ].map { Array($0.utf8) }
        Fuzzing.run("texts", corpus: corpus, tokens: Fuzzing.defaultTokens + ["'password': ", "'", "(", "+99:99"]) {
            bytes in
            let text = String(decoding: bytes, as: UTF8.self)
            if let date = WireTimestamp.date(from: text) { _ = WireTimestamp.string(from: date) }
            _ = SecretNames.hide(in: text, ["user"])
            if TerminalText.line(text).unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7F }) {
                Issue.record("a control character is left in \(bytes)")
            }
        }
    }
}
