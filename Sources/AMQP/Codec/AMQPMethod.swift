/// The methods of AMQP 0-9-1 and of RabbitMQ's extensions, in both directions. Transactions are left out: confirms do
/// the same without a round trip for each.
enum AMQPMethod: Sendable, Hashable {
    // MARK: connection (10)
    case connectionStart(major: UInt8, minor: UInt8, properties: AMQPTable, mechanisms: [UInt8], locales: [UInt8])
    case connectionStartOK(properties: AMQPTable, mechanism: String, response: [UInt8], locale: String)
    case connectionSecure(challenge: [UInt8])
    case connectionSecureOK(response: [UInt8])
    case connectionTune(Tuning)
    case connectionTuneOK(Tuning)
    case connectionOpen(virtualHost: String)
    case connectionOpenOK
    case connectionClose(Closing)
    case connectionCloseOK
    case connectionBlocked(reason: String)
    case connectionUnblocked
    case connectionUpdateSecret(secret: [UInt8], reason: String)
    case connectionUpdateSecretOK

    // MARK: channel (20)
    case channelOpen
    case channelOpenOK
    case channelFlow(isActive: Bool)
    case channelFlowOK(isActive: Bool)
    case channelClose(Closing)
    case channelCloseOK

    // MARK: exchange (40)
    case exchangeDeclare(name: String, type: String, flags: ExchangeFlags, arguments: AMQPTable)
    case exchangeDeclareOK
    case exchangeDelete(name: String, ifUnused: Bool)
    case exchangeDeleteOK
    case exchangeBind(destination: String, source: String, key: String, arguments: AMQPTable)
    case exchangeBindOK
    case exchangeUnbind(destination: String, source: String, key: String, arguments: AMQPTable)
    case exchangeUnbindOK

    // MARK: queue (50)
    case queueDeclare(name: String, flags: QueueFlags, arguments: AMQPTable)
    case queueDeclareOK(name: String, messages: UInt32, consumers: UInt32)
    case queueBind(queue: String, exchange: String, key: String, arguments: AMQPTable)
    case queueBindOK
    case queuePurge(name: String)
    case queuePurgeOK(messages: UInt32)
    case queueDelete(name: String, ifUnused: Bool, ifEmpty: Bool)
    case queueDeleteOK(messages: UInt32)
    case queueUnbind(queue: String, exchange: String, key: String, arguments: AMQPTable)
    case queueUnbindOK

    // MARK: basic (60)
    case basicQoS(count: UInt16, isShared: Bool)
    case basicQoSOK
    case basicConsume(queue: String, tag: String, flags: ConsumeFlags, arguments: AMQPTable)
    case basicConsumeOK(tag: String)
    /// `noWait`: the server cancels by itself, and expects no answer.
    case basicCancel(tag: String, noWait: Bool)
    case basicCancelOK(tag: String)
    case basicPublish(exchange: String, key: String, isMandatory: Bool)
    case basicReturn(code: UInt16, text: String, exchange: String, key: String)
    case basicDeliver(consumer: String, tag: UInt64, isRedelivered: Bool, exchange: String, key: String)
    case basicGet(queue: String, noAcknowledgement: Bool)
    case basicGetOK(tag: UInt64, isRedelivered: Bool, exchange: String, key: String, messages: UInt32)
    case basicGetEmpty
    case basicAck(tag: UInt64, multiple: Bool)
    case basicReject(tag: UInt64, requeue: Bool)
    case basicNack(tag: UInt64, multiple: Bool, requeue: Bool)
    case basicRecover(requeue: Bool)
    case basicRecoverOK

    // MARK: confirm (85)
    case confirmSelect
    case confirmSelectOK

    struct Tuning: Sendable, Hashable {
        /// 0: no limit.
        var channelMaximum: UInt16
        /// In bytes; 0: no limit.
        var frameMaximum: UInt32
        /// In seconds; 0: none.
        var heartbeat: UInt16
    }

    struct Closing: Sendable, Hashable {
        var code: UInt16
        var text: String
        /// The method that caused it; 0 for none.
        var classID: UInt16 = 0
        var methodID: UInt16 = 0
    }

    struct ExchangeFlags: OptionSet, Sendable, Hashable {
        let rawValue: UInt8
        static let passive = ExchangeFlags(rawValue: 1)
        static let durable = ExchangeFlags(rawValue: 2)
        static let autoDelete = ExchangeFlags(rawValue: 4)
        static let isInternal = ExchangeFlags(rawValue: 8)
    }

    struct QueueFlags: OptionSet, Sendable, Hashable {
        let rawValue: UInt8
        static let passive = QueueFlags(rawValue: 1)
        static let durable = QueueFlags(rawValue: 2)
        static let exclusive = QueueFlags(rawValue: 4)
        static let autoDelete = QueueFlags(rawValue: 8)
    }

    struct ConsumeFlags: OptionSet, Sendable, Hashable {
        let rawValue: UInt8
        static let noLocal = ConsumeFlags(rawValue: 1)
        static let noAcknowledgement = ConsumeFlags(rawValue: 2)
        static let exclusive = ConsumeFlags(rawValue: 4)
    }

    /// Whether a content header and a body follow.
    var hasContent: Bool {
        switch self {
        case .basicPublish, .basicReturn, .basicDeliver, .basicGetOK: true
        default: false
        }
    }
}
