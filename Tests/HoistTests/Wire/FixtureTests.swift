import Foundation
import Hoist
import HoistYAML
import Testing

/// Messages captured from Celery 5.7, and how a Celery worker took them.
@Suite("Captured messages")
struct FixtureTests {
    init() { YAMLText.register() }

    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Fixtures")

    static let files: [URL] = ["messages-redis", "runs-redis", "runs-redis-config"].flatMap { name in
        let names =
            (try? FileManager.default.contentsOfDirectory(
                at: folder.appendingPathComponent(name), includingPropertiesForKeys: nil)) ?? []
        return names.filter { $0.pathExtension == "json" }
    }.sorted { $0.path < $1.path }

    /// Every envelope in a fixture, wherever it stands, with the body as the capture decoded it.
    private func envelopes(in value: WireValue) -> [(envelope: WireValue, body: WireValue?)] {
        switch value {
        case .array(let elements): return elements.flatMap(envelopes)
        case .object(let members):
            if let envelope = members["envelope"], let headers = envelope["headers"]?.objectValue {
                // Control messages travel in the same envelope, but are no tasks.
                let isTask = headers["task"] != nil || members["body_decoded"]?["task"] != nil
                return isTask ? [(envelope, members["body_decoded"])] : []
            }
            return members.flatMap { envelopes(in: $0.value) }
        default: return []
        }
    }

    @Test("all of them are there")
    func count() { #expect(Self.files.count > 150, "\(Self.files.count) fixtures") }

    @Test("each envelope is read, its body too where the serialization is accepted", arguments: files)
    func decodes(_ file: URL) throws {
        let fixture = try JSONParser.parse(Array(try Data(contentsOf: file)))
        for (envelope, body) in envelopes(in: fixture) {
            let message = try Message(envelope: Array(envelope.description.utf8))
            #expect(!message.id.isEmpty && !message.jobName.isEmpty && !message.queue.isEmpty)
            guard message.contentType != "application/x-python-serialize" else {
                let error = #expect(throws: WireError.self) { try message.decodedBody() }
                #expect(error?.message.contains("pickle") == true, "the refusal names what is refused")
                continue
            }
            let decoded = try message.decodedBody()
            if let parts = body?.arrayValue, parts.count == 3, !"\(parts)".contains("NaN") {
                #expect(WireValue.array(decoded.arguments.positional) == parts[0])
                #expect(WireValue.object(decoded.arguments.keyword) == parts[1])
            }
            // The message is the same after it is encoded and decoded again.
            let again = try Message(envelope: message.encodedEnvelope())
            #expect(again == message, "\(again.headers) \(again.properties)\n\(message.headers) \(message.properties)")
        }
    }

    /// Every task message of an AMQP capture, in the equivalent envelope.
    private func amqpMessages(in value: WireValue) -> [(envelope: WireValue, body: WireValue?)] {
        switch value {
        case .array(let elements): return elements.flatMap(amqpMessages)
        case .object(let members):
            guard let headers = members["application_headers"], headers["task"] != nil else {
                return members.flatMap { amqpMessages(in: $0.value) }
            }
            let (properties, body) = (members["basic_properties"] ?? [:], members["body_parsed"] ?? .null)
            var encoded: [UInt8] = []
            Base64.append(Array(body.description.utf8), to: &encoded)
            let envelope: WireValue = [
                "headers": headers, "content-type": properties["content_type"] ?? .null,
                "content-encoding": properties["content_encoding"] ?? .null,
                "body": body["base64"] ?? .string(String(decoding: encoded, as: UTF8.self)),
                "properties": [
                    "body_encoding": "base64", "delivery_tag": "1", "delivery_info": members["delivery"] ?? .null,
                    "priority": properties["priority"] ?? .null, "reply_to": properties["reply_to"] ?? .null,
                ],
            ]
            return [(envelope, body.arrayValue == nil ? Optional.none : body)]
        default: return []
        }
    }

    @Test("the task messages that RabbitMQ carried are read as well")
    func amqp() throws {
        let folder = Self.folder.appendingPathComponent("amqp")
        var count = 0
        for name in try FileManager.default.contentsOfDirectory(atPath: folder.path) {
            let fixture = try JSONParser.parse(Array(try Data(contentsOf: folder.appendingPathComponent(name))))
            for (envelope, body) in amqpMessages(in: fixture) {
                let decoded = try Message(envelope: Array(envelope.description.utf8)).decodedBody()
                if let body { #expect(WireValue.array(decoded.arguments.positional) == body.arrayValue?[0]) }
                count += 1
            }
        }
        #expect(count >= 10, "\(count) messages")
    }

    @Test("what kills or silences a Celery worker is refused with a reason, what it accepts is read")
    func malformed() throws {
        let file = Self.folder.appendingPathComponent("malformed/probes.json")
        let probes = try JSONParser.parse(Array(try Data(contentsOf: file)))["captured"]?.arrayValue ?? []
        #expect(probes.count == 39)
        for probe in probes {
            let name = probe["probe"]?.stringValue ?? ""
            let sent = probe["sent"] ?? .null
            let bytes = Array((sent.stringValue ?? sent.description).utf8)
            let isGood = probe["result"]?["status"]?.stringValue == "SUCCESS"
            let read = Result { try Message(envelope: bytes).decodedBody() }
            if isGood, name != "body_as_json_object_not_string" {
                #expect((try? read.get()) != nil, "\(name): \(read)")
            } else if case .failure(let error) = read {
                #expect(error is WireError, "\(name)")
            }
            if probe["worker_alive"]?.boolValue == false {
                #expect((try? read.get()) == nil, "\(name) must be refused")
            }
        }
    }
}
