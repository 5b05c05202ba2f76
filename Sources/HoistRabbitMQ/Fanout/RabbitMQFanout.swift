import AMQP
import Hoist
import Synchronization

/// Events and control over exchanges of RabbitMQ, where Celery's programs have them.
final class RabbitMQFanout: Fanout {
    private let client: AMQPClient
    private let thread: any TaskExecutor
    private let sending: AMQPRecoveringChannel
    private let running = Mutex<Task<Void, Never>?>(nil)
    private let declared = Mutex<(channel: Int, exchanges: Set<String>)>((0, []))
    private static let limit = Duration.seconds(5)

    init(_ client: AMQPClient, on thread: any TaskExecutor) {
        self.client = client
        self.thread = thread
        sending = AMQPRecoveringChannel(client, .init(confirmsPublishes: true))
    }

    deinit {
        running.withLock { $0 }?.cancel()
        client.close()
    }

    /// As Celery declares them (`celery/events`, `kombu/pidbox.py`): events by topic, requests to all, replies to one.
    static func exchange(_ name: String) -> AMQPTopology.Exchange {
        switch name {
        case _ where name.hasPrefix("reply."): .init(name, .direct, isDurable: false)
        case _ where name.hasSuffix("pidbox"): .init(name, .fanout, isDurable: false)
        default: .init(name, .topic)
        }
    }

    func send(_ frame: [UInt8], exchange: String, key: String) async throws -> Int? {
        let confirm = try await publish(frame, exchange: exchange, key: key)
        // RabbitMQ says whether a queue took the frame, and not how many did.
        if case .returned = confirm { return 0 }
        return nil
    }

    func reply(_ frame: [UInt8], to address: ReplyAddress) async throws -> Bool {
        if case .returned = try await publish(frame, exchange: address.exchange, key: address.key) { return false }
        return true
    }

    private func publish(_ frame: [UInt8], exchange: String, key: String) async throws -> AMQPConfirm? {
        try await publish(AMQPMessage(frame: frame), to: Self.exchange(exchange), key: key)
    }

    private func publish(
        _ message: AMQPMessage, to place: AMQPTopology.Exchange, key: String
    ) async throws -> AMQPConfirm? {
        let exchange = place.name
        running.withLock { running in
            guard running == nil else { return }
            running = Task(executorPreference: thread) { [sending] in await sending.run() }
        }
        do throws(AMQPError) {
            let open = try await sending.channel(within: Self.limit)
            let number = sending.current?.number ?? 0
            let isNew = declared.withLock { declared in
                if declared.channel != number { declared = (number, []) }
                return !declared.exchanges.contains(exchange)
            }
            if isNew {
                try await AMQPTopology(exchanges: [place]).declare(on: open.connection)
                declared.withLock { if $0.channel == number { $0.exchanges.insert(exchange) } }
            }
            return try await open.publish(
                [.init(message, exchange: exchange, routingKey: key, isMandatory: true)], within: Self.limit
            ).first
        } catch {
            try Task.checkCancellation()
            throw BackendError(error, doing: "send a frame on \(exchange)")
        }
    }

    func frames(exchange: String, pattern: String) async throws -> AsyncStream<FanoutFrame> {
        // What a listener does not take in time is worth nothing to it: as Celery's own queues.
        let isRequests = exchange.hasSuffix("pidbox")
        let queue = AMQPTopology.Queue(
            (isRequests ? "hoist.pidbox." : exchange + ".") + JobIdentifier.make(), isDurable: false,
            isExclusive: true, autoDeletes: true,
            arguments: isRequests
                ? ["x-expires": 10_000, "x-message-ttl": 300_000] : ["x-expires": 60_000, "x-message-ttl": 5_000])
        return try await listen(queue, to: Self.exchange(exchange), key: pattern, limit: isRequests ? 1000 : 10_000) {
            delivery, isAfterGap in
            var frame = FanoutFrame(
                key: delivery.routingKey,
                bytes: delivery.message.frame(exchange: delivery.exchange, key: delivery.routingKey))
            frame.isAfterGap = isAfterGap
            return frame
        }
    }

    func replies(exchange: String) async throws -> ReplyQueue {
        let address = ReplyAddress(exchange: exchange, key: JobIdentifier.make())
        let queue = AMQPTopology.Queue(
            address.key + "." + exchange, isDurable: false, isExclusive: true, autoDeletes: true,
            arguments: ["x-expires": 10_000, "x-message-ttl": 300_000])
        let frames = try await listen(queue, to: Self.exchange(exchange), key: address.key, limit: 10_000) {
            delivery, _ in
            delivery.message.frame(exchange: delivery.exchange, key: delivery.routingKey)
        }
        return ReplyQueue(address: address, frames: frames)
    }

    /// A queue of this program's own, as long as the stream is read.
    private func listen<Frame: Sendable>(
        _ queue: AMQPTopology.Queue, to exchange: AMQPTopology.Exchange, key: String, limit: Int,
        _ frame: @escaping @Sendable (AMQPDelivery, _ isAfterGap: Bool) -> Frame?
    ) async throws -> AsyncStream<Frame> {
        let (stream, continuation) = AsyncStream.makeStream(of: Frame.self, bufferingPolicy: .bufferingNewest(limit))
        let hasGap = Mutex(false)
        let isFirst = Mutex(true)
        let channel = AMQPRecoveringChannel(
            client,
            .init(
                topology: AMQPTopology(
                    exchanges: [exchange], queues: [queue],
                    bindings: [.init(.queue(queue.name), to: exchange.name, key: key)]),
                consumers: [.init(queue: queue.name, tag: queue.name, acknowledges: false)]),
            events: .init(
                delivered: { deliveries, _ in
                    for delivery in deliveries where delivery.message.skippedBytes == nil {
                        let isAfterGap = hasGap.withLock { gap in
                            defer { gap = false }
                            return gap
                        }
                        guard let frame = frame(delivery, isAfterGap) else { continue }
                        if case .dropped = continuation.yield(frame) {
                            hasGap.withLock { $0 = true }
                        }
                    }
                },
                opened: { _ in
                    // What was sent while there was no channel has been missed.
                    let isAgain = isFirst.withLock { first in
                        defer { first = false }
                        return !first
                    }
                    if isAgain { hasGap.withLock { $0 = true } }
                }))
        let running = Task(executorPreference: thread) {
            await channel.run()
            continuation.finish()
        }
        continuation.onTermination = { _ in running.cancel() }
        do throws(AMQPError) {
            _ = try await channel.channel(within: Self.limit)
        } catch {
            running.cancel()
            try Task.checkCancellation()
            throw BackendError(error, doing: "listen on \(exchange.name)")
        }
        return stream
    }
}

/// Celery's broadcast queues: a fanout exchange of the channel's name, and a queue of each worker's own.
extension RabbitMQFanout: JobBroadcasting {
    func broadcast(_ message: Message, on channel: String) async throws -> Int {
        let confirm = try await publish(AMQPMessage(message), to: .init(channel, .fanout), key: "")
        // How many have heard it RabbitMQ does not say.
        if case .returned = confirm { return 0 }
        return 1
    }

    func broadcasts(on channel: String) async throws -> AsyncStream<Message> {
        let queue = AMQPTopology.Queue("bcast." + JobIdentifier.make(), isExclusive: true, autoDeletes: true)
        return try await listen(queue, to: .init(channel, .fanout), key: "", limit: 10_000) { delivery, _ in
            // There is no job that could fail for a broadcast that cannot be read.
            try? delivery.message.taskMessage(from: channel, isRedelivered: false)
        }
    }
}
