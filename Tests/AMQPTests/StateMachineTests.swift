import NIOCore
import Testing

@testable import AMQP

@Suite("A connection, state by event") struct ConnectionStateMachineTests {
    typealias Action = ConnectionStateMachine.Action

    static let tuning = AMQPMethod.Tuning(channelMaximum: 2047, frameMaximum: 131_072, heartbeat: 10)
    static let start = AMQPMethod.connectionStart(
        major: 0, minor: 9, properties: ["product": "RabbitMQ"], mechanisms: Array("PLAIN AMQPLAIN".utf8),
        locales: Array("en_US".utf8))
    static let offer = AMQPMethod.connectionTune(.init(channelMaximum: 0, frameMaximum: 65_536, heartbeat: 60))
    static let close = AMQPMethod.connectionClose(.init(code: 320, text: "shutdown"))

    enum State: String, CaseIterable { case awaitingStart, awaitingTune, awaitingOpenOK, open, closing, closed }

    static func machine(_ state: State, _ login: AMQPConfiguration.Authentication = .plain(user: "u", password: "p"))
        -> ConnectionStateMachine
    {
        var machine = ConnectionStateMachine(
            .init(authentication: login, virtualHost: "v", properties: ["product": "hoist"], tuning: tuning))
        machine.begun()
        let steps: [AMQPMethod]
        switch state {
        case .awaitingStart: steps = []
        case .awaitingTune: steps = [start]
        case .awaitingOpenOK: steps = [start, offer]
        case .open, .closing: steps = [start, offer, .connectionOpenOK]
        case .closed: steps = [start, offer, .connectionOpenOK, close]
        }
        for step in steps { _ = machine.received(step) }
        if state == .closing { _ = machine.close() }
        return machine
    }

    /// What is expected of each event in each state, as words; nil for a violation.
    static func expected(_ state: State, _ event: AMQPMethod) -> String? {
        switch (state, event) {
        case (.closed, _): "nothing"
        case (.closing, .connectionCloseOK), (.closing, .connectionClose): "end"
        case (.closing, _): "nothing"
        case (.open, .connectionClose): "connectionLost"
        case (_, .connectionClose): "unreachable"
        case (.awaitingStart, .connectionStart): "send"
        case (.awaitingTune, .connectionTune): "send"
        case (.awaitingTune, .connectionSecure): "authentication"
        case (.awaitingOpenOK, .connectionOpenOK): "open"
        case (.open, .connectionBlocked): "block"
        case (.open, .connectionUnblocked): "unblock"
        default: nil
        }
    }

    static func word(_ action: Action) -> String {
        switch action {
        case .nothing: "nothing"
        case .send: "send"
        case .becomeOpen: "open"
        case .block: "block"
        case .unblock: "unblock"
        case .finish(_, let error): error?.code.description ?? "end"
        }
    }

    static let events: [AMQPMethod] = [
        start, .connectionSecure(challenge: []), offer, .connectionOpenOK, close, .connectionCloseOK,
        .connectionBlocked(reason: "memory"), .connectionUnblocked, .connectionUpdateSecretOK, .channelOpenOK,
        .basicAck(tag: 1, multiple: false),
    ]

    @Test("every event in every state", arguments: State.allCases)
    func table(_ state: State) {
        for event in Self.events {
            var machine = Self.machine(state)
            let action = machine.received(event)
            #expect(Self.word(action) == Self.expected(state, event) ?? "protocolViolation", "\(state), \(event.name)")
            // After its end nothing wakes a connection again.
            if case .finish = action { #expect(machine.received(Self.start) == .nothing) }
        }
    }

    @Test("closing and violations end a connection in every state", arguments: State.allCases)
    func endings(_ state: State) {
        var closed = Self.machine(state)
        let expected =
            switch state {
            case .open: "send"
            case .closing, .closed: "nothing"
            default: "end"
            }
        #expect(Self.word(closed.close()) == expected)
        var violated = Self.machine(state)
        let action = violated.violated(AMQPViolation("x"))
        #expect(Self.word(action) == (state == .closed ? "nothing" : "protocolViolation"))
        #expect(violated.received(Self.start) == .nothing)
    }

    @Test("the smaller of both wishes is agreed on")
    func negotiation() {
        var machine = Self.machine(.awaitingTune)
        let agreed = AMQPMethod.Tuning(channelMaximum: 2047, frameMaximum: 65_536, heartbeat: 10)
        #expect(
            machine.received(Self.offer) == .send([.connectionTuneOK(agreed), .connectionOpen(virtualHost: "v")]))
        #expect(machine.received(.connectionOpenOK) == .becomeOpen(agreed, server: ["product": "RabbitMQ"]))
        var small = Self.machine(.awaitingTune)
        let tooSmall = AMQPMethod.connectionTune(.init(channelMaximum: 1, frameMaximum: 100, heartbeat: 0))
        #expect(Self.word(small.received(tooSmall)) == "protocolViolation")
    }

    @Test("logins: what is sent, and what is not offered")
    func logins() {
        var plain = Self.machine(.awaitingStart)
        guard case .send(let methods) = plain.received(Self.start),
            case .connectionStartOK(_, let mechanism, let response, _)? = methods.first
        else {
            Issue.record("no login")
            return
        }
        #expect(mechanism == "PLAIN")
        #expect(response == [0, UInt8(ascii: "u"), 0, UInt8(ascii: "p")])
        var external = Self.machine(.awaitingStart, .external)
        #expect(Self.word(external.received(Self.start)) == "authentication")
        var other = Self.machine(.awaitingStart)
        let version = AMQPMethod.connectionStart(major: 1, minor: 0, properties: [:], mechanisms: [], locales: [])
        #expect(Self.word(other.received(version)) == "protocolViolation")
    }

    @Test("a refused login says so, whatever the server's words are", arguments: [403, 530])
    func refusedLogin(_ code: UInt16) {
        var machine = Self.machine(.awaitingOpenOK)
        let action = machine.received(.connectionClose(.init(code: code, text: "no")))
        guard case .finish(.connectionCloseOK, let failure?) = action else {
            Issue.record("\(action)")
            return
        }
        #expect(failure.code == .authentication)
        #expect(failure.replyCode == Int(code))
    }
}

@Suite("A channel, event by event") struct ChannelStateMachineTests {
    typealias Machine = ChannelStateMachine<String, Int>

    static func word(_ action: Machine.Action) -> String {
        switch action {
        case .nothing: "nothing"
        case .complete(let call, .method(let method)): "\(call): \(method.name)"
        case .complete(let call, .message(let delivery, let remaining)): "\(call): \(delivery.tag) of \(remaining)"
        case .deliver(let delivery): "deliver \(delivery.tag)"
        case .confirmed(let publications): "confirmed \(publications.map { "\($0.0) \($0.1)" })"
        case .consumerCancelled(let tag): "cancelled \(tag)"
        case .send(let method): "send \(method.name)"
        case .end(let error, let answer, let calls, let publications):
            "end \(error.code) \(answer?.name ?? "-") \(calls) \(publications)"
        }
    }

    static let delivered = ContentAssembler.Content(
        method: .basicDeliver(consumer: "t", tag: 7, isRedelivered: true, exchange: "x", key: "k"),
        message: AMQPMessage(body: [1]))

    @Test("answers go to those who asked, in order")
    func answers() throws {
        var machine = Machine()
        #expect(machine.calling(.queueDeclare, "one") == nil)
        #expect(machine.calling(.get, "two") == nil)
        #expect(machine.calling(.get, "three") == nil)
        #expect(
            Self.word(try machine.received(.queueDeclareOK(name: "q", messages: 1, consumers: 0)))
                == "one: queueDeclareOK")
        #expect(Self.word(try machine.received(.basicGetEmpty)) == "two: basicGetEmpty")
        let got = ContentAssembler.Content(
            method: .basicGetOK(tag: 3, isRedelivered: false, exchange: "", key: "q", messages: 5),
            message: AMQPMessage(body: []))
        #expect(Self.word(try machine.received(got)) == "three: 3 of 5")
    }

    @Test("answers that nobody asked for, and methods of clients, are violations")
    func violations() {
        for method in CodecTests.methods where !method.hasContent {
            var machine = Machine()
            let isHarmless =
                switch method {
                case .channelClose, .channelFlow, .basicCancel: true
                default: false
                }
            if isHarmless { continue }
            #expect(throws: AMQPViolation.self, "\(method.name)") { _ = try machine.received(method) }
        }
        var machine = Machine()
        _ = machine.calling(.qos, "qos")
        #expect(throws: AMQPViolation.self) { _ = try machine.received(.queueBindOK) }
        let published = ContentAssembler.Content(
            method: .basicPublish(exchange: "", key: "", isMandatory: false), message: AMQPMessage(body: []))
        #expect(throws: AMQPViolation.self) { _ = try machine.received(published) }
    }

    @Test("what a server sends by itself")
    func unasked() throws {
        var machine = Machine()
        #expect(Self.word(try machine.received(Self.delivered)) == "deliver 7")
        #expect(Self.word(try machine.received(.basicCancel(tag: "t", noWait: true))) == "cancelled t")
        #expect(Self.word(try machine.received(.channelFlow(isActive: false))) == "send channelFlowOK")
    }

    @Test("a channel that the server closes tells all who wait, and answers")
    func closedByServer() throws {
        var machine = Machine()
        _ = machine.calling(.confirmSelect, "select")
        _ = try machine.received(.confirmSelectOK)
        _ = machine.publishing(1, mandatory: nil)
        _ = machine.calling(.queueBind, "bind")
        let action = try machine.received(.channelClose(.init(code: 404, text: "no queue")))
        #expect(Self.word(action) == "end channelClosed channelCloseOK [\"bind\"] [1]")
        #expect(machine.reason?.replyCode == 404)
        #expect(machine.calling(.qos, "late")?.code == .channelClosed)
        #expect(machine.publishing(2, mandatory: nil)?.code == .channelClosed)
        #expect(Self.word(try machine.received(Self.delivered)) == "nothing")
        #expect(Self.word(try machine.received(.basicAck(tag: 9, multiple: false))) == "nothing")
        #expect(Self.word(machine.lost(AMQPError(.connectionLost, "gone"))) == "nothing")
    }

    @Test("while a channel is being closed, answers come and nothing new is sent")
    func closing() throws {
        var machine = Machine()
        _ = machine.calling(.qos, "qos")
        #expect(machine.calling(.channelClose, "close") == nil)
        #expect(machine.calling(.qos, "late")?.code == .closed)
        #expect(machine.publishing(1, mandatory: nil)?.code == .closed)
        #expect(Self.word(try machine.received(.basicQoSOK)) == "qos: basicQoSOK")
        #expect(Self.word(try machine.received(Self.delivered)) == "deliver 7")
        #expect(Self.word(try machine.received(.channelCloseOK)) == "end closed - [\"close\"] []")
    }

    @Test("a lost connection tells all who wait")
    func lost() {
        var machine = Machine()
        _ = machine.calling(.confirmSelect, "select")
        _ = machine.publishing(1, mandatory: nil)
        #expect(
            Self.word(machine.lost(AMQPError(.connectionLost, "gone"))) == "end connectionLost - [\"select\"] [1]")
    }
}

@Suite("Confirms by number") struct ConfirmLedgerTests {
    private func ledger(_ count: Int) -> ConfirmLedger<Int> {
        var ledger = ConfirmLedger<Int>()
        for number in 1...count { ledger.published(number, mandatory: nil) }
        return ledger
    }

    private func numbers(_ settled: [(Int, AMQPConfirm)]) -> [Int] { settled.map(\.0) }

    @Test("single, out of order, and all up to a number")
    func orders() throws {
        var ledger = ledger(6)
        #expect(numbers(try ledger.settled(3, multiple: false, isTaken: true)) == [3])
        #expect(numbers(try ledger.settled(4, multiple: true, isTaken: true)) == [1, 2, 4])
        // A second confirm of the same message is nothing.
        #expect(numbers(try ledger.settled(3, multiple: false, isTaken: true)) == [])
        ledger.published(7, mandatory: nil)
        #expect(numbers(try ledger.settled(0, multiple: true, isTaken: true)) == [5, 6, 7])
        #expect(ledger.isEmpty)
        #expect(throws: AMQPViolation.self) { try ledger.settled(8, multiple: false, isTaken: true) }
        #expect(throws: AMQPViolation.self) { try ledger.settled(.max, multiple: true, isTaken: true) }
    }

    @Test("a nack is a refusal")
    func refusals() throws {
        var ledger = ledger(2)
        let settled = try ledger.settled(2, multiple: true, isTaken: false)
        #expect(settled.map(\.1) == [.refused, .refused])
    }

    @Test("a returned message is the first of its route and properties that was not returned yet")
    func returns() throws {
        var ledger = ConfirmLedger<Int>()
        var properties = AMQPProperties()
        properties.correlationID = "a"
        let route = ConfirmLedger<Int>.Route(exchange: "x", key: "k", properties: properties)
        ledger.published(1, mandatory: nil)
        ledger.published(2, mandatory: route)
        ledger.published(3, mandatory: route)
        properties.correlationID = "b"
        ledger.returned(.init(exchange: "x", key: "k", properties: properties), code: 312, reason: "NO_ROUTE")
        ledger.returned(route, code: 312, reason: "NO_ROUTE")
        let settled = try ledger.settled(3, multiple: true, isTaken: true)
        #expect(settled.map(\.1) == [.confirmed, .returned(code: 312, reason: "NO_ROUTE"), .confirmed])
    }

    @Test("what was not confirmed is left when the channel ends")
    func abandoned() throws {
        var ledger = ledger(3)
        _ = try ledger.settled(2, multiple: false, isTaken: true)
        #expect(ledger.abandon() == [1, 3])
        #expect(ledger.isEmpty)
    }
}

@Suite("Messages from their parts") struct ContentAssemblerTests {
    private let deliver = AMQPMethod.basicDeliver(consumer: "t", tag: 1, isRedelivered: false, exchange: "", key: "q")

    private func header(_ size: UInt64) -> ContentHeader { ContentHeader(bodySize: size, properties: .init()) }

    @Test("an empty body, one part, several parts")
    func parts() throws {
        var assembler = ContentAssembler(AMQPLimits())
        try assembler.begin(deliver)
        #expect(try assembler.received(header(0))?.message.body == [])
        try assembler.begin(deliver)
        #expect(try assembler.received(header(3)) == nil)
        #expect(!assembler.isIdle)
        #expect(try assembler.received(ByteBuffer(bytes: [1, 2])) == nil)
        #expect(try assembler.received(ByteBuffer(bytes: [3]))?.message.body == [1, 2, 3])
        #expect(assembler.isIdle)
    }

    @Test("a body over the limit is skipped, and its size is told")
    func oversized() throws {
        var assembler = ContentAssembler(AMQPLimits(maximumBodyBytes: 4))
        try assembler.begin(deliver)
        #expect(try assembler.received(header(5)) == nil)
        #expect(try assembler.received(ByteBuffer(bytes: [1, 2, 3])) == nil)
        let message = try assembler.received(ByteBuffer(bytes: [4, 5]))?.message
        #expect(message?.body == [])
        #expect(message?.skippedBytes == 5)
        // A size that no server means costs nothing.
        try assembler.begin(deliver)
        #expect(try assembler.received(header(.max)) == nil)
    }

    @Test("parts in the wrong order are violations")
    func violations() throws {
        var assembler = ContentAssembler(AMQPLimits())
        #expect(throws: AMQPViolation.self) { try assembler.received(header(1)) }
        #expect(throws: AMQPViolation.self) { try assembler.received(ByteBuffer(bytes: [1])) }
        try assembler.begin(deliver)
        #expect(throws: AMQPViolation.self) { try assembler.begin(deliver) }
        #expect(throws: AMQPViolation.self) { try assembler.received(ByteBuffer(bytes: [1])) }
        _ = try assembler.received(header(1))
        #expect(throws: AMQPViolation.self) { try assembler.received(ByteBuffer(bytes: [1, 2])) }
    }
}

@Suite("Heartbeats") struct HeartbeatMonitorTests {
    private let second: Int64 = 1_000_000_000

    @Test("sends after half an interval without a write, gives up after two without a read")
    func silence() {
        var monitor = HeartbeatMonitor(interval: 4 * second, now: 0)
        #expect(monitor.pace == second)
        #expect(monitor.tick(now: second) == .nothing)
        #expect(monitor.tick(now: 2 * second) == .send)
        #expect(monitor.tick(now: 3 * second) == .nothing)
        monitor.read(at: 3 * second)
        monitor.written(at: 3 * second)
        #expect(monitor.tick(now: 4 * second) == .nothing)
        #expect(monitor.tick(now: 5 * second) == .send)
        for now in 6...10 { #expect(monitor.tick(now: Int64(now) * second) != .giveUp) }
        #expect(monitor.tick(now: 11 * second) == .giveUp)
    }

    @Test("a process that stood still reads first what came meanwhile")
    func pause() {
        var monitor = HeartbeatMonitor(interval: second, now: 0)
        #expect(monitor.tick(now: 60 * second) == .send)
        #expect(monitor.tick(now: 60 * second + second / 2) == .send)
        #expect(monitor.tick(now: 61 * second) == .giveUp)
    }

    @Test("none without an interval")
    func none() {
        var monitor = HeartbeatMonitor(interval: 0, now: 0)
        #expect(monitor.tick(now: .max / 2) == .nothing)
    }
}
