// The configuration of a client holds addresses and TLS settings: a program that sets them needs their types.
@_exported public import Endpoints

/// How to find a server, and how to talk to it.
public struct AMQPConfiguration: Sendable {
    /// How a connection logs in (AMQP 0-9-1 §4.2.2; SASL, RFC 4422).
    public enum Authentication: Sendable, Hashable {
        /// User and password (RFC 4616).
        case plain(user: String, password: String)
        /// By the client's certificate of TLS (RFC 4422, appendix A). RabbitMQ needs its plugin
        /// `rabbitmq_auth_mechanism_ssl`.
        case external

        var mechanism: String {
            switch self {
            case .plain: "PLAIN"
            case .external: "EXTERNAL"
            }
        }

        var response: [UInt8] {
            switch self {
            case .plain(let user, let password): [0] + Array(user.utf8) + [0] + Array(password.utf8)
            case .external: []
            }
        }

        /// The name of the user; nil where the certificate says it.
        public var user: String? {
            switch self {
            case .plain(let user, _): user
            case .external: nil
            }
        }
    }

    /// The servers of one cluster. The first that answers is used, and after a lost connection the search begins with
    /// the next one.
    public var servers: [ServerAddress]
    /// Asked at each connection, so that passwords may change while the program runs.
    public var authentication: @Sendable () -> Authentication
    /// `/` by default.
    public var virtualHost: String
    public var tls: TLSSettings?
    /// The name of the connection in the server's own management.
    public var connectionName: String?
    /// The time limit until a connection is ready. 3 seconds by default.
    public var connectTimeout: Duration
    /// The time limit for the answer to a method. 10 seconds by default: a cluster needs its time to make a queue.
    public var callTimeout: Duration
    /// How long a publish waits for its confirm, and for a server that takes no messages. 15 seconds by default.
    public var publishTimeout: Duration
    /// How often each side is heard from. A server that is silent for twice as long counts as dead, and it counts this
    /// client as dead after two to three times as long. Whole seconds, 0 for what the server asks for; 10 by default. The
    /// server may ask for less.
    public var heartbeat: Duration
    /// The largest frame to ask for, in bytes: 131,072 by default, 4,096 at least.
    public var frameMaximum: Int
    /// How many channels to ask for; 2,047 by default.
    public var channelMaximum: Int
    public var limits: AMQPLimits
    /// The decoded query of the URL. A library that wraps this client may define options of its own there.
    public internal(set) var options: [String: String] = [:]

    public init(
        servers: [ServerAddress],
        authentication: @escaping @Sendable () -> Authentication = { .plain(user: "guest", password: "guest") },
        virtualHost: String = "/", tls: TLSSettings? = nil, connectionName: String? = nil,
        connectTimeout: Duration = .seconds(3), callTimeout: Duration = .seconds(10),
        publishTimeout: Duration = .seconds(15), heartbeat: Duration = .seconds(10), frameMaximum: Int = 131_072,
        channelMaximum: Int = 2047, limits: AMQPLimits = AMQPLimits()
    ) {
        self.servers = servers
        self.authentication = authentication
        self.virtualHost = virtualHost
        self.tls = tls
        self.connectionName = connectionName
        self.connectTimeout = connectTimeout
        self.callTimeout = callTimeout
        self.publishTimeout = publishTimeout
        self.heartbeat = heartbeat
        self.frameMaximum = frameMaximum
        self.channelMaximum = channelMaximum
        self.limits = limits
    }

    /// The servers, without credentials.
    public var serverDescription: String { servers.map(\.description).joined(separator: ", ") }
}
