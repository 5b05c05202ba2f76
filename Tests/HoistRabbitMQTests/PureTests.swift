import AMQP
import Hoist
import HoistTesting
import Testing

@testable import HoistRabbitMQ

/// What can be told without a server.
@Suite("Messages, delays and credit, without a server") struct PureTests {
    private func message(_ id: JobID = "j1", name: String = "job", queue: String = "q") -> Message {
        var headers = MessageHeaders(task: name, id: id)
        headers.retries = 2
        headers.custom = ["tenant": "acme", "numbers": [1, 5_000_000_000, 1.5, nil, true]]
        return Message(
            headers: headers, properties: MessageProperties(routingKey: queue, deliveryTag: id),
            body: Array("[[],{},{}]".utf8))
    }

    // MARK: - Messages

    @Test("a message comes back from its parts as it was")
    func roundTrip() throws {
        var original = message()
        original.properties.priority = 7
        original.properties.replyTo = "me"
        let parts = AMQPMessage(original)
        #expect(parts.properties.deliveryMode == 2 && parts.properties.priority == 7)
        #expect(parts.properties.correlationID == "j1")
        let back = try parts.taskMessage(from: "q", isRedelivered: false)
        #expect(back.headers == original.headers && back.body == original.body)
        #expect(back.properties.replyTo == "me" && back.properties.priority == 7 && !back.properties.isRedelivered)
    }

    @Test("Python's None is void, and numbers have the size that they need")
    func fieldValues() {
        let value: WireValue = [nil, true, 5, 5_000_000_000, 1.5, "é", ["a": nil]]
        let field = AMQPFieldValue(value)
        #expect(
            field
                == .array([
                    .void, .bool(true), .int32(5), .int64(5_000_000_000), .double(1.5), "é", .table(["a": .void]),
                ]))
        #expect(field.wireValue == value)
        #expect(AMQPFieldValue.longString([255, 254]).wireValue == "//4=")
        #expect(AMQPFieldValue.decimal(scale: 2, value: 314).wireValue == .double(3.14))
        #expect(AMQPFieldValue.timestamp(.max).wireValue == .integer(.max))
    }

    @Test("what RabbitMQ has noted is no part of a message, and is gone when it is published again")
    func brokersOwn() throws {
        var parts = AMQPMessage(message())
        for name in ["x-death", "x-first-death-queue", "x-delivery-count", "CC"] {
            parts.properties.headers?[name] = .integer(.max)
        }
        parts.properties.userID = "somebody"
        #expect(parts.deliveryCount == 1000)
        #expect(try parts.taskMessage(from: "q", isRedelivered: false).headers == message().headers)
        let again = parts.again(isRedelivered: false)
        #expect(again.properties.headers == AMQPMessage(message()).properties.headers)
        #expect(again.properties.userID == nil && again.body == parts.body)
    }

    @Test("a message that was handed out before says so wherever it is published again, until it is tried again")
    func redelivered() throws {
        let again = AMQPMessage(message()).again(isRedelivered: true).again(isRedelivered: false)
        let read = try again.taskMessage(from: "q", isRedelivered: false)
        #expect(read.properties.isRedelivered)
        // The next attempt is a message of its own.
        #expect(try AMQPMessage(read).taskMessage(from: "q", isRedelivered: false).properties.isRedelivered == false)
    }

    @Test("names and ids that are too long for a property are left out of it, and a reason too long for a frame is cut")
    func tooLong() throws {
        let id = String(repeating: "x", count: 400)
        let parts = AMQPMessage(message(id))
        #expect(parts.properties.correlationID == nil)
        #expect(try parts.taskMessage(from: "q", isRedelivered: false).id == id)
        var failure = JobFailure(kind: .raised, type: "E", message: String(repeating: "y", count: 8000))
        failure.arguments = [.string(String(repeating: "z", count: 500_000))]
        let reason = try #require(parts.dead(failure).properties.headers?["x-hoist-reason"]?.textValue)
        #expect(reason.utf8.count < 2000)
        var large = parts
        large.properties.headers?["large"] = .longString(Array(repeating: 65, count: 200_000))
        let essentials = large.dead(failure).essentials
        #expect(essentials.body == large.body)
        #expect(essentials.properties.headers?.fields.map(\.name).sorted() == ["id", "task", "x-hoist-reason"])
    }

    @Test("frames go as kombu's messages, and come as their senders gave them")
    func frames() throws {
        let envelope: WireValue = [
            "body": "eyJhIjoxfQ==", "content-type": "application/json", "content-encoding": "utf-8",
            "headers": ["clock": 5], "properties": ["body_encoding": "base64", "delivery_mode": 2, "priority": 0],
        ]
        let parts = AMQPMessage(frame: JSONWriter.bytes(of: envelope))
        #expect(parts.body == Array("{\"a\":1}".utf8))
        #expect(parts.properties.headers == ["clock": 5] && parts.properties.deliveryMode == 2)
        let back = try JSONParser.parse(parts.frame(exchange: "x", key: "k"))
        #expect(back["body"] == "eyJhIjoxfQ==" && back["headers"] == ["clock": 5])
        let raw: [UInt8] = [1, 2, 255]
        #expect(AMQPMessage(frame: raw).frame(exchange: "x", key: "k") == raw)
    }

    // MARK: - Delays

    static let delayKeys: [(Int64, String)] = [
        (5, String(repeating: "0.", count: 25) + "1.0.1.q"), (.max, String(repeating: "1.", count: 28) + "q"),
        (0, String(repeating: "0.", count: 27) + "1.q"),
    ]

    @Test("a delay is a number of 28 digits", arguments: delayKeys)
    func delayKey(_ seconds: Int64, _ key: String) {
        #expect(DelayLadder.key(seconds: seconds, queue: "q") == key)
    }

    @Test("the ladder is Celery's: 28 queues, each leads to the next")
    func ladder() {
        let topology = DelayLadder(kind: .quorum).topology
        #expect(topology.queues.count == 28 && topology.exchanges.count == 29 && topology.bindings.count == 56)
        let last = topology.queues.first { $0.name == "celery_delayed_0" }
        #expect(
            last?.arguments == [
                "x-queue-type": "quorum", "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish",
                "x-message-ttl": 1000, "x-dead-letter-exchange": "celery_delayed_delivery",
            ])
        let first = topology.bindings.filter { $0.exchange == "celery_delayed_27" }
        #expect(first.map(\.key) == ["1.#", "0.#"])
        #expect(DelayLadder.topology(to: "a.b").bindings.first?.key == String(repeating: "*.", count: 28) + "a.b")
    }

    @Test("settings become arguments, and none where Celery has none")
    func settings() {
        #expect(QueueSettings().arguments.isEmpty)
        #expect(
            QueueSettings(
                .quorum, priorities: 10, maximumLength: 5, maximumBytes: 6, timeToLive: .seconds(2),
                isSingleActiveConsumer: true, isLazy: true
            ).arguments == [
                "x-queue-type": "quorum", "x-max-priority": 10, "x-max-length": 5, "x-max-length-bytes": 6,
                "x-overflow": "reject-publish", "x-message-ttl": 2000, "x-single-active-consumer": true,
                "x-queue-mode": "lazy",
            ])
    }

    // MARK: - Credit

    private func turn(_ kinds: [String: Int], queues: [String] = ["q"], lasts: Bool = true) -> WorkerTurn {
        var turn = WorkerTurn(
            claims: queues.map { Claim(queue: $0, kind: "async", jobNames: ["job"]) },
            budget: ClaimBudget(kinds: kinds))
        turn.creditLasts = lasts
        return turn
    }

    private func arrive(_ held: inout HeldDeliveries, _ tag: UInt64, queue: String = "q", name: String = "job") -> Int64
    {
        let message = message("j\(tag)", name: name, queue: queue)
        let delivery = AMQPDelivery(
            consumer: "c", tag: tag, isRedelivered: false, exchange: "", routingKey: queue,
            message: AMQPMessage(message))
        return held.add(delivery, message, queue: queue, channel: 1)
    }

    @Test("the prefetch is what is held and what there is room for, and nothing without room")
    func prefetch() {
        var held = HeldDeliveries()
        #expect(held.prefetch == 0)
        held.open(turn(["async": 3]))
        #expect(held.prefetch == 3)
        let tokens = (1...3).map { arrive(&held, UInt64($0)) }
        let taken = held.take().map(\.token)
        #expect(taken == tokens)
        // It stays while jobs are settled: what ends makes room for others at once.
        _ = held.remove(tokens[0])
        #expect(held.prefetch == 3)
        held.open(turn(["async": 1]))
        #expect(held.prefetch == 3)
        held.open(turn(["async": 0]))
        #expect(held.prefetch == 2)
        held.open(turn(["async": 4], lasts: false))
        #expect(held.prefetch == 0, "a worker that asks by itself is sent nothing")
    }

    @Test("what has no slot waits, in order, and what is of no wanted queue is given back")
    func waiting() {
        var held = HeldDeliveries()
        held.open(turn(["async": 1], queues: ["q", "r"]))
        let first = arrive(&held, 1)
        let second = arrive(&held, 2)
        let other = arrive(&held, 3, queue: "r")
        let taken = held.take().map(\.token)
        let more = held.take()
        #expect(taken == [first] && held.isWaiting && more.isEmpty)
        #expect(held.stray(consumed: ["q", "r"]).isEmpty)
        held.open(turn(["async": 1], queues: ["q"]))
        #expect(held.stray(consumed: ["q"]).map(\.token) == [other])
        #expect(held.stray(consumed: ["q", "r"]).isEmpty, "a queue at its own limit keeps its order")
        let next = held.take().map(\.token)
        #expect(next == [second])
        held.close()
        #expect(held.stray(consumed: ["q", "r"]).map(\.token) == [other] && held.prefetch == 0)
    }

    @Test("what the worker has and does not know of is told, and what it was never given is not")
    func unknown() {
        var held = HeldDeliveries()
        held.open(turn(["async": 1]))
        let first = arrive(&held, 1)
        _ = arrive(&held, 2)
        _ = held.take()
        #expect(held.unknown(to: []).map(\.token) == [first])
        #expect(held.unknown(to: [first]).isEmpty)
    }

    @Test("with the channel everything is lost, and only what the worker had counts")
    func lost() {
        var held = HeldDeliveries()
        held.open(turn(["async": 1]))
        _ = arrive(&held, 1)
        var untouched = held
        let hasLostOne = untouched.lose()
        #expect(!hasLostOne)
        _ = held.take()
        let hasLost = held.lose()
        #expect(hasLost)
        #expect(held.prefetch == 0 && !held.isWaiting && held.held.isEmpty)
    }
}
