import AMQP
import Foundation
import Hoist
import Testing

@testable import HoistRabbitMQ

/// What a real Celery 5.7 sent to RabbitMQ and declared there, as it was captured.
@Suite("Celery's messages and topology on RabbitMQ") struct FixtureTests {
    private static let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    /// Task messages, which the core's tests read as well.
    private static let tasks = tests.appendingPathComponent("HoistTests/Fixtures/amqp")
    private static let folder = tests.appendingPathComponent("HoistRabbitMQTests/Fixtures")

    private static func captured(_ name: String, in folder: URL = folder) throws -> WireValue {
        let data = try Data(contentsOf: folder.appendingPathComponent(name + ".json"))
        return try #require(try JSONParser.parse(Array(data))["captured"])
    }

    /// Every message in a file, wherever it lies.
    private static func messages(in value: WireValue) -> [WireValue] {
        switch value {
        case .array(let elements): elements.flatMap(messages)
        case .object(let members):
            members["basic_properties"] == nil ? members.flatMap { messages(in: $0.value) } : [value]
        default: []
        }
    }

    private static func message(_ captured: WireValue) throws -> AMQPMessage {
        let own = captured["basic_properties"]
        var body: [UInt8] = []
        if let base64 = captured["body_parsed"]?["base64"]?.stringValue {
            body = try Base64.decode(base64.utf8)
        } else if let text = captured["raw_body_utf8"]?.stringValue {
            body = Array(text.utf8)
        } else if let parsed = captured["body_parsed"] {
            body = JSONWriter.bytes(of: parsed)
        }
        var message = AMQPMessage(body: body)
        message.properties.contentType = own?["content_type"]?.stringValue
        message.properties.contentEncoding = own?["content_encoding"]?.stringValue
        message.properties.deliveryMode = own?["delivery_mode"]?.integerValue.map { UInt8($0) }
        message.properties.priority = own?["priority"]?.integerValue.map { UInt8($0) }
        message.properties.correlationID = own?["correlation_id"]?.stringValue
        message.properties.replyTo = own?["reply_to"]?.stringValue
        message.properties.expiration = own?["expiration"]?.stringValue
        message.properties.headers = AMQPTable(captured["application_headers"]?.objectValue ?? [:])
        return message
    }

    @Test("every task message is read, and passed on as it was")
    func tasks() throws {
        var count = 0
        for file in try FileManager.default.contentsOfDirectory(atPath: Self.tasks.path) where file.hasSuffix(".json") {
            for captured in Self.messages(in: try Self.captured(String(file.dropLast(5)), in: Self.tasks)) {
                guard let name = captured["application_headers"]?["task"]?.stringValue else { continue }
                let original = try Self.message(captured)
                let read = try original.taskMessage(from: "q", isRedelivered: false)
                #expect(read.jobName == name && read.body == original.body, "\(file)")
                #expect(read.id == captured["application_headers"]?["id"]?.stringValue)
                let again = AMQPMessage(read)
                #expect(again.body == original.body && again.properties.replyTo == original.properties.replyTo)
                #expect(again.properties.contentType == original.properties.contentType)
                // A header that is null means the same as none.
                for field in original.properties.headers?.fields ?? [] where !Self.isNothing(field.value) {
                    #expect(
                        again.properties.headers?[field.name]?.wireValue == field.value.wireValue,
                        "\(file) \(field.name)")
                }
                count += 1
            }
        }
        #expect(count >= 12, "\(count) messages")
    }

    private static func isNothing(_ value: AMQPFieldValue) -> Bool {
        switch value {
        case .void: true
        case .table(let table): table.isEmpty
        case .array(let elements): elements.allSatisfy(isNothing)
        case .int32(0): true
        default: false
        }
    }

    @Test(
        "events, requests and replies come through the envelope unchanged",
        arguments: [
            "classic_events", "quorum_events", "quorum_topic_events", "classic_pidbox_broadcasts",
            "quorum_pidbox_broadcasts", "classic_rpc_result_messages",
        ])
    func frames(_ file: String) throws {
        let messages = Self.messages(in: try Self.captured(file))
        #expect(!messages.isEmpty)
        for captured in messages {
            let original = try Self.message(captured)
            let back = AMQPMessage(frame: original.frame(exchange: "x", key: "k"))
            #expect(back.body == original.body)
            #expect(back.properties.headers?.wireObject == original.properties.headers?.wireObject)
            #expect(back.properties.contentType == original.properties.contentType)
            #expect(back.properties.deliveryMode == original.properties.deliveryMode)
        }
    }

    private static func arguments(_ captured: WireValue?) -> [String: AMQPFieldValue] {
        let fields = (captured?.arrayValue ?? []).compactMap { field -> (String, AMQPFieldValue)? in
            guard let parts = field.arrayValue, parts.count == 3, let name = parts[0].stringValue else { return nil }
            return switch parts[1].stringValue {
            case "signedint": (name, .int32(Int32(clamping: parts[2].integerValue ?? 0)))
            case "long": (name, .int64(parts[2].integerValue ?? 0))
            case "bool": (name, .bool(parts[2].boolValue ?? false))
            default: (name, .text(parts[2].stringValue ?? ""))
            }
        }
        return Dictionary(fields) { first, _ in first }
    }

    private static func dictionary(_ table: AMQPTable) -> [String: AMQPFieldValue] {
        Dictionary(table.fields.map { ($0.name, $0.value) }) { first, _ in first }
    }

    @Test("the ladder of delays is declared as Celery declares it, to the types of its arguments")
    func ladder() throws {
        let captured = try Self.captured("quorum_topic_topology_with_worker")
        let ours = DelayLadder(kind: .quorum).topology
        let theirs = (captured["queues"]?.arrayValue ?? []).filter {
            $0["name"]?.stringValue?.hasPrefix("celery_delayed_") == true
        }
        #expect(theirs.count == 28)
        for queue in theirs {
            let own = try #require(ours.queues.first { $0.name == queue["name"]?.stringValue })
            #expect(Self.dictionary(own.arguments) == Self.arguments(queue["arguments"]), "\(own.name)")
            #expect(own.isDurable && !own.autoDeletes && !own.isExclusive)
        }
        for exchange in captured["exchanges"]?.arrayValue ?? []
        where exchange["name"]?.stringValue?.hasPrefix("celery_delayed_") == true {
            let own = try #require(ours.exchanges.first { $0.name == exchange["name"]?.stringValue })
            #expect(own.type == .topic && own.isDurable && exchange["type"] == "topic" && exchange["durable"] == true)
        }
        func line(_ from: String, _ kind: String, _ to: String, _ key: String) -> String {
            "\(from) \(kind) \(to) \(key)"
        }
        let bound = Set(
            (captured["bindings"]?.arrayValue ?? []).compactMap { binding -> String? in
                guard let from = binding["source_name"]?.stringValue, from.hasPrefix("celery_delayed_"),
                    from != DelayLadder.exit
                else { return nil }
                return line(
                    from, binding["destination_kind"]?.stringValue ?? "",
                    binding["destination_name"]?.stringValue ?? "", binding["routing_key"]?.stringValue ?? "")
            })
        let own = Set(
            ours.bindings.map { binding in
                switch binding.destination {
                case .queue(let queue): line(binding.exchange, "queue", queue, binding.key)
                case .exchange(let exchange): line(binding.exchange, "exchange", exchange, binding.key)
                }
            })
        #expect(own == bound)
    }

    @Test("a queue is declared as Celery declares it, and so are the exchanges of events and control")
    func queues() throws {
        let captured = try Self.captured("classic_topology_with_worker")
        let own = TaskQueue(name: "celery", settings: QueueSettings()).topology
        let queue = try #require(captured["queues"]?.arrayValue?.first { $0["name"] == "celery" })
        #expect(own.queues[0].arguments.isEmpty && Self.arguments(queue["arguments"]).isEmpty)
        #expect(queue["durable"] == true && own.queues[0].isDurable)
        let exchange = try #require(captured["exchanges"]?.arrayValue?.first { $0["name"] == "celery" })
        #expect(exchange["type"] == "direct" && exchange["durable"] == true)
        #expect(own.exchanges == [.init("celery", .direct)])
        #expect(own.bindings == [.init(.queue("celery"), to: "celery", key: "celery")])
        let types: [String: AMQPChannel.ExchangeType] = ["direct": .direct, "topic": .topic, "fanout": .fanout]
        for name in ["celeryev", "celery.pidbox", "reply.celery.pidbox"] {
            let theirs = try #require(captured["exchanges"]?.arrayValue?.first { $0["name"]?.stringValue == name })
            let ours = RabbitMQFanout.exchange(name)
            #expect(
                ours.type == types[theirs["type"]?.stringValue ?? ""] && ours.isDurable == theirs["durable"]?.boolValue)
        }
    }
}
