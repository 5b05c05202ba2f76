/// Exchanges, queues and bindings as one description, to be declared at every connection.
public struct AMQPTopology: Sendable, Hashable {
    public struct Exchange: Sendable, Hashable {
        public var name: String
        public var type: AMQPChannel.ExchangeType
        public var isDurable: Bool
        public var autoDeletes: Bool
        public var arguments: AMQPTable

        public init(
            _ name: String, _ type: AMQPChannel.ExchangeType, isDurable: Bool = true, autoDeletes: Bool = false,
            arguments: AMQPTable = [:]
        ) {
            self.name = name
            self.type = type
            self.isDurable = isDurable
            self.autoDeletes = autoDeletes
            self.arguments = arguments
        }
    }

    public struct Queue: Sendable, Hashable {
        public var name: String
        public var isDurable: Bool
        public var isExclusive: Bool
        public var autoDeletes: Bool
        public var arguments: AMQPTable

        public init(
            _ name: String, isDurable: Bool = true, isExclusive: Bool = false, autoDeletes: Bool = false,
            arguments: AMQPTable = [:]
        ) {
            self.name = name
            self.isDurable = isDurable
            self.isExclusive = isExclusive
            self.autoDeletes = autoDeletes
            self.arguments = arguments
        }
    }

    public struct Binding: Sendable, Hashable {
        public enum Destination: Sendable, Hashable {
            case queue(String)
            case exchange(String)
        }

        public var destination: Destination
        public var exchange: String
        public var key: String
        public var arguments: AMQPTable

        public init(_ destination: Destination, to exchange: String, key: String, arguments: AMQPTable = [:]) {
            self.destination = destination
            self.exchange = exchange
            self.key = key
            self.arguments = arguments
        }
    }

    public var exchanges: [Exchange]
    public var queues: [Queue]
    public var bindings: [Binding]

    public init(exchanges: [Exchange] = [], queues: [Queue] = [], bindings: [Binding] = []) {
        self.exchanges = exchanges
        self.queues = queues
        self.bindings = bindings
    }

    public var isEmpty: Bool { exchanges.isEmpty && queues.isEmpty && bindings.isEmpty }

    /// Adds what is not in this description yet.
    public mutating func merge(_ other: AMQPTopology) {
        exchanges += other.exchanges.filter { !exchanges.contains($0) }
        queues += other.queues.filter { !queues.contains($0) }
        bindings += other.bindings.filter { !bindings.contains($0) }
    }

    /// Declares everything, in the order in which it needs each other.
    ///
    /// What was declared otherwise by somebody else is used as it is.
    /// - Parameter connection: the channels that declarations need are opened and closed on it.
    /// - Returns: for each that was declared otherwise, how the server tells the difference.
    /// - Throws: ``AMQPError``; some of it may be declared then, and a retry is safe.
    @discardableResult
    public func declare(on connection: AMQPConnection) async throws(AMQPError) -> [String] {
        var differences: [String] = []
        var channel = try await connection.openChannel()
        for exchange in exchanges {
            do throws(AMQPError) {
                try await channel.declare(
                    exchange: exchange.name, exchange.type, isDurable: exchange.isDurable,
                    autoDeletes: exchange.autoDeletes, arguments: exchange.arguments)
            } catch {
                channel.abandon()
                differences.append(try Self.difference(error))
                channel = try await connection.openChannel()
            }
        }
        for queue in queues {
            do throws(AMQPError) {
                try await channel.declare(
                    queue: queue.name, isDurable: queue.isDurable, isExclusive: queue.isExclusive,
                    autoDeletes: queue.autoDeletes, arguments: queue.arguments)
            } catch {
                channel.abandon()
                differences.append(try Self.difference(error))
                channel = try await connection.openChannel()
            }
        }
        do throws(AMQPError) {
            try await bind(on: channel)
        } catch {
            channel.abandon()
            throw error
        }
        try await channel.close()
        return differences
    }

    private func bind(on channel: AMQPChannel) async throws(AMQPError) {
        for binding in bindings {
            switch binding.destination {
            case .queue(let queue):
                try await channel.bind(
                    queue: queue, to: binding.exchange, key: binding.key, arguments: binding.arguments)
            case .exchange(let exchange):
                try await channel.bind(
                    exchange: exchange, to: binding.exchange, key: binding.key, arguments: binding.arguments)
            }
        }
    }

    /// 406 PRECONDITION_FAILED: there is one already, with other properties.
    private static func difference(_ error: AMQPError) throws(AMQPError) -> String {
        guard error.replyCode == 406 else { throw error }
        return error.message
    }
}
