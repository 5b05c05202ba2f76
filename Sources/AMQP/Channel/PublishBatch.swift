import NIOCore

/// Messages that were published together, on the way to their confirms. Lives on the event loop of its connection.
final class PublishBatch {
    /// The frames of all messages.
    let bytes: ByteBuffer
    /// For each message what it is recognised by should it come back; nil where it is not mandatory.
    let routes: [ConfirmLedger<ConnectionHandler.Publication>.Route?]
    let limit: Duration
    var timeout: Scheduled<Void>?
    private var confirms: [AMQPConfirm]
    private var missing: Int
    private var completion: ((Result<[AMQPConfirm], AMQPError>) -> Void)?

    init(
        bytes: ByteBuffer, routes: [ConfirmLedger<ConnectionHandler.Publication>.Route?], limit: Duration,
        _ completion: @escaping (Result<[AMQPConfirm], AMQPError>) -> Void
    ) {
        self.bytes = bytes
        self.routes = routes
        self.limit = limit
        self.completion = completion
        confirms = Array(repeating: .confirmed, count: routes.count)
        missing = routes.count
    }

    func settle(_ index: Int, _ confirm: AMQPConfirm) {
        confirms[index] = confirm
        missing -= 1
        if missing == 0 { finish(.success(confirms)) }
    }

    /// The channel has no confirms: what was written counts as done.
    func settleAll() { finish(.success(confirms)) }

    func fail(_ error: AMQPError) { finish(.failure(error)) }

    private func finish(_ result: Result<[AMQPConfirm], AMQPError>) {
        timeout?.cancel()
        let completion = completion
        self.completion = nil
        completion?(result)
    }
}
