extension AMQPMethod {
    /// A method of the client and the answer to it.
    enum Exchange: Hashable {
        case channelOpen, channelClose, flow, exchangeDeclare, exchangeDelete, exchangeBind, exchangeUnbind,
            queueDeclare,
            queueBind, queuePurge, queueDelete, queueUnbind, qos, consume, cancel, get, recover, confirmSelect
    }

    /// What the method asks for; nil for one without an answer.
    var asks: Exchange? {
        switch self {
        case .channelOpen: .channelOpen
        case .channelFlow: .flow
        case .channelClose: .channelClose
        case .exchangeDeclare: .exchangeDeclare
        case .exchangeDelete: .exchangeDelete
        case .exchangeBind: .exchangeBind
        case .exchangeUnbind: .exchangeUnbind
        case .queueDeclare: .queueDeclare
        case .queueBind: .queueBind
        case .queuePurge: .queuePurge
        case .queueDelete: .queueDelete
        case .queueUnbind: .queueUnbind
        case .basicQoS: .qos
        case .basicConsume: .consume
        case .basicCancel: .cancel
        case .basicGet: .get
        case .basicRecover: .recover
        case .confirmSelect: .confirmSelect
        default: nil
        }
    }

    /// What the method is an answer to; nil for any other.
    var answers: Exchange? {
        switch self {
        case .channelOpenOK: .channelOpen
        case .channelFlowOK: .flow
        case .channelCloseOK: .channelClose
        case .exchangeDeclareOK: .exchangeDeclare
        case .exchangeDeleteOK: .exchangeDelete
        case .exchangeBindOK: .exchangeBind
        case .exchangeUnbindOK: .exchangeUnbind
        case .queueDeclareOK: .queueDeclare
        case .queueBindOK: .queueBind
        case .queuePurgeOK: .queuePurge
        case .queueDeleteOK: .queueDelete
        case .queueUnbindOK: .queueUnbind
        case .basicQoSOK: .qos
        case .basicConsumeOK: .consume
        case .basicCancelOK: .cancel
        case .basicGetOK, .basicGetEmpty: .get
        case .basicRecoverOK: .recover
        case .confirmSelectOK: .confirmSelect
        default: nil
        }
    }

    /// The name of the method, without its arguments.
    var name: String {
        let text = String(describing: self)
        return String(text.prefix { $0 != "(" })
    }
}
