/// The steps between the opening of a connection and its first command (HELLO, AUTH, CLIENT SETNAME, SELECT, ROLE).
/// Pure: no channel, no clock.
struct HandshakeStateMachine: ~Copyable {
    struct Settings: Sendable {
        var username: String?
        var password: String?
        var database: Int
        var clientName: String?
        /// Refuses a replica. Set for an address that a sentinel gave: a replica there must not take commands.
        var mustBePrimary = false
    }

    enum Action {
        case send(RESPCommand)
        case becomeReady(isRESP3: Bool)
        case fail(RESPError)
    }

    private enum State {
        case idle
        case awaitingHello
        /// Single steps: those that HELLO does not cover, or all when the server has no RESP3 or refuses HELLO to the
        /// user.
        case awaiting(Step, isRESP3: Bool)
        case finished
    }

    private enum Step { case authentication, name, database, role }

    private let settings: Settings
    private var state = State.idle

    init(_ settings: Settings) { self.settings = settings }

    mutating func begin() -> Action {
        state = .awaitingHello
        var arguments: [RESPArgument] = ["3"]
        if let password = settings.password {
            arguments += ["AUTH", .text(settings.username ?? "default"), .text(password)]
        }
        if let name = settings.clientName { arguments += ["SETNAME", .text(name)] }
        return .send(RESPCommand("HELLO", arguments))
    }

    mutating func received(_ value: RESPValue) -> Action {
        switch state {
        case .awaitingHello:
            guard case .error(let error) = value else { return next(after: .name, isRESP3: true) }
            switch error.code {
            case "WRONGPASS": return fail(.authentication, error)
            case "LOADING", "DENIED", "MAX", "MAXCLIENTS": return fail(.unreachable, error)
            case "ERR" where error.message.contains("max number of clients"): return fail(.unreachable, error)
            default: return next(after: nil, isRESP3: false)
            }
        case .awaiting(let step, let isRESP3):
            if case .error(let error) = value {
                switch step {
                case .authentication: return fail(.authentication, error)
                case .database: return fail(.server, error)
                // The client name is only informational, and ROLE may be forbidden.
                case .name, .role: break
                }
            }
            if step == .role, let role = value.elements?.first?.text, role != "master" {
                state = .finished
                return .fail(RESPError(.unreachable, "the server is a \(role), not the primary"))
            }
            return next(after: step, isRESP3: isRESP3)
        case .idle, .finished:
            return fail(.protocolViolation, RESPServerError("the server spoke before it was asked"))
        }
    }

    private mutating func next(after step: Step?, isRESP3: Bool) -> Action {
        if step == nil, let password = settings.password {
            let credentials: [RESPArgument] =
                settings.username.map { [.text($0), .text(password)] } ?? [.text(password)]
            return send(RESPCommand("AUTH", credentials), .authentication, isRESP3)
        }
        if step == nil || step == .authentication, let name = settings.clientName {
            return send(RESPCommand("CLIENT SETNAME", [.text(name)]), .name, isRESP3)
        }
        if step != .database, step != .role, settings.database != 0 {
            return send(RESPCommand("SELECT", [.integer(Int64(settings.database))]), .database, isRESP3)
        }
        if step != .role, settings.mustBePrimary { return send(RESPCommand("ROLE"), .role, isRESP3) }
        state = .finished
        return .becomeReady(isRESP3: isRESP3)
    }

    private mutating func send(_ command: RESPCommand, _ step: Step, _ isRESP3: Bool) -> Action {
        state = .awaiting(step, isRESP3: isRESP3)
        return .send(command)
    }

    private mutating func fail(_ code: RESPError.Code, _ error: RESPServerError) -> Action {
        state = .finished
        // Some servers repeat the arguments of an unknown command, and an argument may be a password.
        let isQuiet = code == .authentication && !["WRONGPASS", "NOPERM", "NOAUTH"].contains(error.code)
        return .fail(RESPError(code, isQuiet ? "the server refuses to authenticate (\(error.code))" : error.message))
    }
}
