#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// One connection from its first byte to its last (AMQP 0-9-1 §2.2.4), but for its channels. Pure: no channel, no clock.
struct ConnectionStateMachine: ~Copyable {
    struct Settings: Sendable {
        var authentication: AMQPConfiguration.Authentication
        var virtualHost: String
        /// Shown in the server's own management.
        var properties: AMQPTable
        /// What is asked for; the server may want less.
        var tuning: AMQPMethod.Tuning
    }

    enum Action: Equatable {
        case nothing
        case send([AMQPMethod])
        /// The connection is open for channels.
        case becomeOpen(AMQPMethod.Tuning, server: AMQPTable)
        /// The server takes no messages until further notice.
        case block(reason: String)
        case unblock
        /// Send the method, if there is one, and close the socket. `error` is nil for an orderly end.
        case finish(answer: AMQPMethod?, error: Failure?)
    }

    /// Why a connection has ended, without the place that only its owner knows.
    struct Failure: Equatable {
        var code: AMQPError.Code
        var message: String
        var replyCode: Int?
    }

    private enum State {
        case idle
        case awaitingStart
        case awaitingTune(server: AMQPTable)
        case awaitingOpenOK(AMQPMethod.Tuning, server: AMQPTable)
        case open
        case closing
        case closed
    }

    private let settings: Settings
    private var state: State

    init(_ settings: Settings) {
        self.settings = settings
        state = .idle
    }

    private static func isClosed(_ state: State) -> Bool {
        switch state {
        case .closed: true
        default: false
        }
    }

    /// The socket is open, and the protocol header is on its way.
    mutating func begun() { state = .awaitingStart }

    /// A method on channel 0.
    mutating func received(_ method: AMQPMethod) -> Action {
        var current = State.closed
        swap(&current, &state)
        switch (current, method) {
        case (.awaitingStart, .connectionStart(let major, let minor, let server, let mechanisms, _)):
            return start(major, minor, server, mechanisms)
        case (.awaitingTune(let server), .connectionTune(let offer)):
            return tune(offer, server)
        case (.awaitingTune, .connectionSecure):
            return fail(.authentication, "the server asks for a login in several steps, which is not supported")
        case (.awaitingOpenOK(let tuning, let server), .connectionOpenOK):
            state = .open
            return .becomeOpen(tuning, server: server)
        case (.open, .connectionBlocked(let reason)):
            state = .open
            return .block(reason: reason)
        case (.open, .connectionUnblocked):
            state = .open
            return .unblock
        case (.closing, .connectionCloseOK): return .finish(answer: nil, error: nil)
        // Both close at once: the server waits for this answer.
        case (.closing, .connectionClose): return .finish(answer: .connectionCloseOK, error: nil)
        case (.closing, _):
            state = .closing
            return .nothing
        case (.closed, _): return .nothing
        case (let other, .connectionClose(let closing)): return closed(closing, isOpen: Self.isOpen(other))
        case (_, let method):
            let text = "the server sent \(method.name) at a time when it must not"
            return .finish(
                answer: .connectionClose(AMQPMethod.Closing(code: 503, text: "unexpected method")),
                error: Failure(code: .protocolViolation, message: text))
        }
    }

    private static func isOpen(_ state: State) -> Bool {
        switch state {
        case .open: true
        default: false
        }
    }

    /// The server closes the connection.
    private func closed(_ closing: AMQPMethod.Closing, isOpen: Bool) -> Action {
        // 403 ACCESS_REFUSED and 530 NOT_ALLOWED, which is what a virtual host without permission gets.
        let isRefusal = closing.code == 403 || closing.code == 530
        let code: AMQPError.Code = isOpen ? .connectionLost : isRefusal ? .authentication : .unreachable
        return .finish(
            answer: .connectionCloseOK,
            error: Failure(
                code: code, message: "the server closed the connection: \(closing.text)",
                replyCode: Int(closing.code)))
    }

    private mutating func start(
        _ major: UInt8, _ minor: UInt8, _ server: AMQPTable, _ mechanisms: [UInt8]
    ) -> Action {
        guard (major, minor) == (0, 9) else {
            return fail(.protocolViolation, "the server speaks AMQP \(major).\(minor), and not 0.9.1")
        }
        let offered = String(decoding: mechanisms, as: UTF8.self).split(separator: " ").map(String.init)
        let mechanism = settings.authentication.mechanism
        guard offered.contains(mechanism) else {
            return fail(
                .authentication, "the server offers the logins \(offered.joined(separator: ", ")), and not \(mechanism)"
            )
        }
        state = .awaitingTune(server: server)
        return .send([
            .connectionStartOK(
                properties: settings.properties, mechanism: mechanism, response: settings.authentication.response,
                locale: "en_US")
        ])
    }

    private mutating func tune(_ offer: AMQPMethod.Tuning, _ server: AMQPTable) -> Action {
        let tuning = AMQPMethod.Tuning(
            channelMaximum: Self.smaller(offer.channelMaximum, settings.tuning.channelMaximum),
            frameMaximum: Self.smaller(offer.frameMaximum, settings.tuning.frameMaximum),
            heartbeat: Self.smaller(offer.heartbeat, settings.tuning.heartbeat))
        guard tuning.frameMaximum >= Frame.minimumSize else {
            return fail(
                .protocolViolation, "the server wants frames of \(tuning.frameMaximum) bytes; 4,096 is the least")
        }
        state = .awaitingOpenOK(tuning, server: server)
        return .send([.connectionTuneOK(tuning), .connectionOpen(virtualHost: settings.virtualHost)])
    }

    /// Zero means that there is no limit.
    private static func smaller<Number: UnsignedInteger>(_ a: Number, _ b: Number) -> Number {
        a == 0 ? b : b == 0 ? a : min(a, b)
    }

    private mutating func fail(_ code: AMQPError.Code, _ message: String) -> Action {
        state = .closed
        return .finish(answer: nil, error: Failure(code: code, message: message))
    }

    /// This program wants to close the connection.
    mutating func close() -> Action {
        var current = State.closed
        swap(&current, &state)
        switch current {
        case .open:
            state = .closing
            return .send([.connectionClose(AMQPMethod.Closing(code: 200, text: "goodbye"))])
        case .closing:
            state = .closing
            return .nothing
        case .closed: return .nothing
        case .idle, .awaitingStart, .awaitingTune, .awaitingOpenOK: return .finish(answer: nil, error: nil)
        }
    }

    /// The server violated the protocol elsewhere.
    mutating func violated(_ violation: AMQPViolation) -> Action {
        guard !Self.isClosed(state) else { return .nothing }
        state = .closed
        return .finish(
            answer: .connectionClose(AMQPMethod.Closing(code: 501, text: "protocol violation")),
            error: Failure(code: .protocolViolation, message: "the server violated AMQP: \(violation)"))
    }
}
