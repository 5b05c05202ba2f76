/// Where a broker is, for people and for tools. It holds no password.
public struct BrokerAddress: Sendable, Hashable {
    /// `redis`, `sqlite`, `memory`: the name of the kind.
    public var transport: String
    /// A URL without a password.
    public var url: String
    public var host: String?
    public var port: Int?
    /// The database of a Redis server, the virtual host of RabbitMQ, the file of SQLite; empty for none.
    public var virtualHost: String
    public var user: String?
    public var isEncrypted: Bool

    public init(
        transport: String, url: String, host: String? = nil, port: Int? = nil, virtualHost: String = "",
        user: String? = nil, isEncrypted: Bool = false
    ) {
        self.transport = transport
        self.url = url
        self.host = host
        self.port = port
        self.virtualHost = virtualHost
        self.user = user
        self.isEncrypted = isEncrypted
    }
}
