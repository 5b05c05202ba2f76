#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Who a request is for.
public enum ControlTarget: Sendable, Hashable {
    /// Every worker that listens.
    case all
    /// The workers of these names, `name@host`.
    case nodes([String])
    /// The workers whose names match: `*` for any text, `?` for any character, `[…]` for one of some.
    case pattern(String)

    /// The worker of this name.
    public static func node(_ name: String) -> ControlTarget { .nodes([name]) }
}

/// A request to workers, in Celery's form.
///
/// Celery 5.7, `kombu.pidbox`: a JSON object on the fanout exchange `celery.pidbox`.
struct ControlRequest: Sendable {
    static let exchange = "celery.pidbox"
    static let replyExchange = "reply.celery.pidbox"

    enum Addressee: Sendable, Hashable {
        case all
        case nodes([String])
        case glob(String)
        /// A regular expression.
        case expression(String)
        /// A matcher that nobody here knows.
        case unknown
    }

    var method: String
    var arguments: WireValue.Object
    var addressee: Addressee
    /// Tells the replies to this request from others; nil when none is wanted.
    var ticket: String?
    var replyTo: ReplyAddress?
    var clock: Int64
    /// When the asker no longer waits; nil where it does not say.
    var expires: Date?

    init(
        _ method: String, _ arguments: WireValue.Object, to target: ControlTarget, ticket: String?,
        replyTo: ReplyAddress?, clock: Int64
    ) {
        self.method = method
        self.arguments = arguments
        addressee =
            switch target {
            case .all: .all
            case .nodes(let names): .nodes(names)
            case .pattern(let pattern): .glob(pattern)
            }
        self.ticket = ticket
        self.replyTo = replyTo
        self.clock = clock
    }

    /// - Throws: ``WireError`` for what is no request.
    init(frame bytes: [UInt8]) throws(WireError) {
        let frame = try ControlFrame(bytes, limits: .request)
        guard case .object(let body) = frame.body, let method = body["method"]?.stringValue, !method.isEmpty else {
            throw WireError("the request names no method")
        }
        self.method = method
        switch body["arguments"] {
        case .object(let members)?: arguments = members
        case .null?, nil: arguments = [:]
        default: throw WireError("the arguments of the request are no object")
        }
        clock = frame.headers["clock"]?.integerValue ?? 0
        expires = frame.headers["expires"]?.doubleValue.flatMap { $0 > 0 ? Date(boundedSecondsSinceEpoch: $0) : nil }
        ticket = body["ticket"]?.stringValue
        if let address = body["reply_to"], let exchange = address["exchange"]?.stringValue,
            let key = address["routing_key"]?.stringValue, !key.isEmpty
        {
            replyTo = ReplyAddress(exchange: exchange, key: key)
        }
        addressee = Self.addressee(of: body)
    }

    private static func addressee(of body: WireValue.Object) -> Addressee {
        switch body["destination"] {
        case .array(let names)? where !names.isEmpty: return .nodes(names.compactMap(\.stringValue))
        case .string(let name)? where !name.isEmpty: return .nodes([name])
        default: break
        }
        guard let pattern = body["pattern"]?.stringValue, !pattern.isEmpty else { return .all }
        return switch body["matcher"]?.stringValue {
        // As kombu: a pattern counts only with a matcher.
        case nil: .all
        case "glob"?: pattern.utf8.count <= 1024 ? .glob(pattern) : .unknown
        case "pcre"?: .expression(pattern)
        default: .unknown
        }
    }

    /// - Parameter expires: when the asker no longer waits; nil when it does not wait at all.
    func encoded(expires: Date?) -> [UInt8] {
        var body: WireValue.Object = ["method": .string(method), "arguments": .object(arguments)]
        (body["destination"], body["pattern"], body["matcher"]) = (.null, .null, .null)
        switch addressee {
        case .all, .unknown: break
        case .nodes(let names): body["destination"] = .array(names.map { .string($0) })
        case .glob(let pattern): (body["pattern"], body["matcher"]) = (.string(pattern), "glob")
        case .expression(let pattern): (body["pattern"], body["matcher"]) = (.string(pattern), "pcre")
        }
        if let ticket, let replyTo {
            body["ticket"] = .string(ticket)
            body["reply_to"] = ["exchange": .string(replyTo.exchange), "routing_key": .string(replyTo.key)]
        }
        return ControlFrame.encode(
            headers: [
                "clock": .integer(clock), "expires": expires.map { .double($0.timeIntervalSince1970) } ?? .integer(0),
            ], body: JSONWriter.bytes(of: .object(body)), exchange: Self.exchange, key: "", isLasting: true)
    }
}

extension Fanout {
    /// Tells every worker not to start a job, and to stop it where it runs (`revoke` with `terminate`). For a broker that
    /// cannot cancel jobs by itself.
    /// - Returns: how many listeners heard it, as ``send(_:exchange:key:)``.
    package func revoke(_ id: JobID) async throws -> Int? {
        let request = ControlRequest(
            "revoke", ["task_id": .string(id), "terminate": true], to: .all, ticket: nil, replyTo: nil, clock: 0)
        return try await send(request.encoded(expires: nil), exchange: ControlRequest.exchange, key: "")
    }
}

/// What a worker has answered.
public struct ControlReply: Sendable, Hashable {
    /// The name of the worker.
    public var node: String
    public var value: WireValue

    public init(node: String, value: WireValue) {
        self.node = node
        self.value = value
    }

    /// Why the worker refused, where it did.
    public var refusal: String? { value["error"]?.stringValue }

    static func encode(
        _ value: WireValue, from node: String, ticket: String, clock: Int64, to address: ReplyAddress
    ) -> [UInt8] {
        ControlFrame.encode(
            headers: ["ticket": .string(ticket), "clock": .integer(clock)],
            body: JSONWriter.bytes(of: .object([node: value])), exchange: address.exchange, key: address.key,
            isLasting: false)
    }

    /// The replies in a frame, with the ticket of their request.
    static func read(_ bytes: [UInt8]) throws(WireError) -> (ticket: String?, clock: Int64, replies: [ControlReply]) {
        let frame = try ControlFrame(bytes, limits: .reply)
        guard case .object(let members) = frame.body else { throw WireError("the reply is no object") }
        return (
            frame.headers["ticket"]?.stringValue, frame.headers["clock"]?.integerValue ?? 0,
            members.map { ControlReply(node: $0.key, value: $0.value) }
        )
    }
}
