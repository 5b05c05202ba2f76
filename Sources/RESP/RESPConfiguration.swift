// The configuration of a client holds addresses and TLS settings: a program that sets them needs their types.
@_exported public import Endpoints

/// How to find a server, and how to talk to it.
public struct RESPConfiguration: Sendable {
    public struct Credentials: Sendable, Hashable {
        /// nil for the user `default`.
        public var username: String?
        public var password: String

        public init(username: String? = nil, password: String) {
            self.username = username
            self.password = password
        }
    }

    public enum Topology: Sendable, Hashable {
        /// The first of these that answers.
        case servers([ServerAddress])
        /// The primary of this name, as these sentinels know it.
        case sentinels([ServerAddress], primary: String)
        /// A cluster that these are part of.
        case cluster([ServerAddress])
    }

    public typealias TLS = TLSSettings

    public var topology: Topology
    /// Asked at each connection, so that passwords may change while the program runs.
    public var credentials: @Sendable () -> Credentials?
    /// The credentials for the sentinels themselves.
    public var sentinelCredentials: Credentials?
    /// The database number, 0 by default. A cluster has only 0.
    public var database: Int
    public var tls: TLS?
    /// The name of this client on the server (CLIENT SETNAME).
    public var clientName: String?
    /// The time limit until a connection is ready for commands. 3 seconds by default.
    public var connectTimeout: Duration
    /// The time limit for the answer to a command. 5 seconds by default.
    public var commandTimeout: Duration
    /// A connection that was silent for this time is asked with PING whether it still lives, and counts as dead when
    /// the answer takes as long again. 3 seconds by default.
    public var keepAlive: Duration
    /// The longest round trip for which a caller keeps its thread while it waits, instead of giving the thread up and
    /// being woken. This holds for a caller that awaits one command after the other. 250 microseconds by default, which
    /// a server on the same machine keeps to; a millisecond at most; zero for callers that never keep their thread.
    ///
    /// Such a caller takes processor time, as far as no other thread has work for the processor, and lets other tasks
    /// have its thread every two milliseconds. Callers that do other work between their commands, callers that use the
    /// connection at the same time, and callers on the thread of an event loop never keep their thread.
    public var spinLimit: Duration
    /// The limits for replies of the server.
    public var limits: RESPParser.Limits
    /// The decoded query of the URL. A library that wraps this client may define options of its own there.
    public internal(set) var options: [String: String] = [:]

    public init(
        topology: Topology, credentials: @escaping @Sendable () -> Credentials? = { nil },
        sentinelCredentials: Credentials? = nil,
        database: Int = 0, tls: TLS? = nil, clientName: String? = nil, connectTimeout: Duration = .seconds(3),
        commandTimeout: Duration = .seconds(5), keepAlive: Duration = .seconds(3),
        spinLimit: Duration = .microseconds(250),
        limits: RESPParser.Limits = .init()
    ) {
        self.topology = topology
        self.credentials = credentials
        self.sentinelCredentials = sentinelCredentials
        self.database = database
        self.tls = tls
        self.clientName = clientName
        self.connectTimeout = connectTimeout
        self.commandTimeout = commandTimeout
        self.keepAlive = keepAlive
        self.spinLimit = spinLimit
        self.limits = limits
    }

    /// The servers, without credentials.
    public var serverDescription: String {
        switch topology {
        case .servers(let addresses): addresses.map(\.description).joined(separator: ", ")
        case .sentinels(let addresses, let primary):
            "\(primary) of the sentinels \(addresses.map(\.description).joined(separator: ", "))"
        case .cluster(let addresses): "the cluster of \(addresses.map(\.description).joined(separator: ", "))"
        }
    }
}
