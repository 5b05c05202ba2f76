import NIOCore
import Testing

@testable import RESP

@Suite("Opening a connection")
struct HandshakeTests {
    private func words(_ action: HandshakeStateMachine.Action) -> String {
        switch action {
        case .send(let command):
            String(buffer: command.bytes).split(separator: "\r\n").filter { !$0.hasPrefix("*") && !$0.hasPrefix("$") }
                .joined(
                    separator: " ")
        case .becomeReady(let isRESP3): "ready \(isRESP3 ? 3 : 2)"
        case .fail(let error): "fail \(error.code)"
        }
    }

    private let settings = HandshakeStateMachine.Settings(
        username: "ada", password: "secret", database: 4, clientName: "hoist")

    @Test("RESP3, in as few steps as it takes")
    func resp3() {
        var machine = HandshakeStateMachine(settings)
        #expect(words(machine.begin()) == "HELLO 3 AUTH ada secret SETNAME hoist")
        #expect(words(machine.received(.map([.simple("server"), .simple("redis")]))) == "SELECT 4")
        #expect(words(machine.received(.simple("OK"))) == "ready 3")
    }

    @Test("an old server is spoken to in RESP2")
    func resp2() {
        var machine = HandshakeStateMachine(settings)
        _ = machine.begin()
        #expect(words(machine.received(.error(RESPServerError("ERR unknown command `HELLO`")))) == "AUTH ada secret")
        #expect(words(machine.received(.simple("OK"))) == "CLIENT SETNAME hoist")
        #expect(
            words(machine.received(.error(RESPServerError("NOPERM no")))) == "SELECT 4",
            "a name is not worth failing for")
        #expect(words(machine.received(.simple("OK"))) == "ready 2")
    }

    @Test("a password without a user, no database")
    func passwordOnly() {
        var machine = HandshakeStateMachine(.init(password: "p", database: 0))
        #expect(words(machine.begin()) == "HELLO 3 AUTH default p")
        #expect(words(machine.received(.error(RESPServerError("ERR unknown command")))) == "AUTH p")
        #expect(words(machine.received(.simple("OK"))) == "ready 2")
    }

    @Test("wrong credentials, a wrong database and a replica end it with a reason")
    func refusals() {
        var machine = HandshakeStateMachine(settings)
        _ = machine.begin()
        #expect(words(machine.received(.error(RESPServerError("WRONGPASS no")))) == "fail authentication")
        #expect(words(machine.received(.simple("OK"))) == "fail protocolViolation", "nothing is expected any more")
        machine = HandshakeStateMachine(settings)
        _ = machine.begin()
        _ = machine.received(.map([]))
        #expect(words(machine.received(.error(RESPServerError("ERR DB index is out of range")))) == "fail server")
        machine = HandshakeStateMachine(.init(database: 0, mustBePrimary: true))
        _ = machine.begin()
        #expect(words(machine.received(.map([]))) == "ROLE")
        #expect(words(machine.received(.array([.bulk(Array("slave".utf8))]))) == "fail unreachable")
        machine = HandshakeStateMachine(.init(database: 0))
        #expect(words(machine.received(.simple("OK"))) == "fail protocolViolation", "before it was asked")
    }
}

@Suite("Commands under way")
struct PipelineTests {
    private func describe(_ action: PipelineStateMachine<Int>.Received) -> String {
        switch action {
        case .nothing: "nothing"
        case .complete(let request, let replies): "\(request): \(replies.count)"
        case .push(let elements): "push \(elements.count)"
        case .close(let error): "close \(error.code)"
        }
    }

    private func describe(_ action: PipelineStateMachine<Int>.Tick) -> String {
        switch action {
        case .nothing: "nothing"
        case .ping: "ping"
        case .close(let error): "close \(error.code) \(error.mayHaveRun)"
        }
    }

    @Test("answers belong to requests in order, several to one")
    func order() {
        var machine = PipelineStateMachine<Int>(keepAlive: 100, isSubscriber: false, now: 0)
        machine.sent(1, expecting: 2, deadline: 50)
        machine.sent(2, expecting: 1, deadline: 50)
        #expect(describe(machine.received(.value(.null), now: 1)) == "nothing")
        #expect(describe(machine.received(.push([.null]), now: 1)) == "push 1", "messages come in between")
        #expect(describe(machine.received(.value(.error(RESPServerError("ERR"))), now: 2)) == "1: 2")
        #expect(describe(machine.received(.value(.integer(1)), now: 3)) == "2: 1")
        let isIdle = machine.isIdle
        #expect(isIdle)
        #expect(describe(machine.received(.value(.null), now: 4)) == "close protocolViolation", "nobody asked")
    }

    @Test("a silent connection is pinged, and closed when it stays silent")
    func keepAlive() {
        var machine = PipelineStateMachine<Int>(keepAlive: 100, isSubscriber: false, now: 0)
        #expect(describe(machine.tick(now: 99)) == "nothing")
        #expect(describe(machine.tick(now: 100)) == "ping")
        #expect(describe(machine.received(.value(.simple("PONG")), now: 150)) == "nothing", "the ping is ours")
        #expect(describe(machine.tick(now: 249)) == "nothing")
        #expect(describe(machine.tick(now: 250)) == "ping")
        #expect(describe(machine.tick(now: 349)) == "nothing")
        #expect(describe(machine.tick(now: 350)) == "close timedOut true")
    }

    @Test("a request whose time has passed closes the connection; what was under way is told")
    func deadline() {
        var machine = PipelineStateMachine<Int>(keepAlive: 100, isSubscriber: false, now: 0)
        machine.sent(1, expecting: 1, deadline: 500)
        machine.sent(2, expecting: 1, deadline: 600)
        #expect(describe(machine.tick(now: 499)) == "nothing", "no ping while something is awaited")
        #expect(describe(machine.tick(now: 500)) == "close timedOut true")
        let untold = (machine.close(), machine.close())
        #expect(untold.0 == [1, 2] && untold.1.isEmpty, "each once")
    }

    @Test("a subscriber gets its messages as plain arrays from an old server")
    func subscriber() {
        var machine = PipelineStateMachine<Int>(keepAlive: 100, isSubscriber: true, now: 0)
        let message: [RESPValue] = [.bulk(Array("message".utf8)), .bulk([]), .bulk([])]
        #expect(describe(machine.received(.value(.array(message)), now: 1)) == "push 3")
        _ = machine.tick(now: 101)
        #expect(
            describe(machine.received(.value(.array([.bulk(Array("pong".utf8)), .bulk([])])), now: 102)) == "nothing")
    }
}
