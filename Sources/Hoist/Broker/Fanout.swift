/// Sends frames to every program that listens on an exchange at this moment: events, control requests and replies are
/// such frames. Nothing is stored for a program that does not listen.
///
/// On Redis the exchanges are kombu's fanout exchanges, so that Python programs hear the frames, and are heard.
public protocol Fanout: Sendable {
    /// Sends a frame.
    /// - Parameters:
    ///   - frame: the bytes, as they are.
    ///   - exchange: the name of the exchange.
    ///   - key: the routing key; empty for none.
    /// - Returns: how many listeners heard it, as far as the backend can tell; nil where it cannot.
    /// - Throws: ``BackendError``; the frame may have been sent then, and a retry sends it a second time.
    func send(_ frame: [UInt8], exchange: String, key: String) async throws -> Int?

    /// The frames that are sent on an exchange from now on, until the stream is given up.
    ///
    /// A listener that falls 10,000 frames behind misses the oldest. A frame that is sent while the connection is lost
    /// is missed. The first frame after that says so: ``FanoutFrame/isAfterGap``.
    /// - Parameters:
    ///   - exchange: the name of the exchange.
    ///   - pattern: the routing keys to hear: words with dots between, `*` for one word, `#` for any number of words.
    /// - Throws: ``BackendError`` when the backend does not confirm the subscription; a retry is safe.
    func frames(exchange: String, pattern: String) async throws -> AsyncStream<FanoutFrame>

    /// Puts a frame into the queue that its asker has opened for replies. By default it is sent to those who listen on
    /// the address.
    /// - Returns: false when there is no such queue: nobody waits for the reply any more, and nothing is stored.
    /// - Throws: ``BackendError``; the frame may have been sent then, and a retry sends it a second time.
    func reply(_ frame: [UInt8], to address: ReplyAddress) async throws -> Bool

    /// Opens a queue for replies, until its stream is given up. By default it listens on an address of its own.
    /// - Parameter exchange: the exchange that the address is to have.
    /// - Throws: ``BackendError``; a retry is safe.
    func replies(exchange: String) async throws -> ReplyQueue
}

extension Fanout {
    public func reply(_ frame: [UInt8], to address: ReplyAddress) async throws -> Bool {
        try await send(frame, exchange: address.exchange, key: address.key) != 0
    }

    public func replies(exchange: String) async throws -> ReplyQueue {
        let address = ReplyAddress(exchange: exchange, key: JobIdentifier.make())
        let frames = try await frames(exchange: exchange, pattern: address.key)
        let replies = AsyncStream<[UInt8]>.fed(bufferingPolicy: .bufferingNewest(10_000), on: sideThread) { stream in
            for await frame in frames { stream.yield(frame.bytes) }
        }
        return ReplyQueue(address: address, frames: replies)
    }
}

/// Where the replies to a request go.
public struct ReplyAddress: Sendable, Hashable {
    public var exchange: String
    /// The routing key, which names the asker.
    public var key: String

    public init(exchange: String, key: String) {
        self.exchange = exchange
        self.key = key
    }
}

/// A queue that is open for replies.
public struct ReplyQueue: Sendable {
    public var address: ReplyAddress
    /// What comes. Giving the stream up closes the queue.
    public var frames: AsyncStream<[UInt8]>

    public init(address: ReplyAddress, frames: AsyncStream<[UInt8]>) {
        self.address = address
        self.frames = frames
    }
}

/// What a listener hears.
public struct FanoutFrame: Sendable, Hashable {
    /// The routing key that the frame was sent with.
    public var key: String
    public var bytes: [UInt8]
    /// Whether frames before this one may have been missed.
    public var isAfterGap = false

    public init(key: String, bytes: [UInt8]) {
        self.key = key
        self.bytes = bytes
    }
}
