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
    /// is missed.
    /// - Parameters:
    ///   - exchange: the name of the exchange.
    ///   - pattern: the routing keys to hear: words with dots between, `*` for one word, `#` for any number of words.
    /// - Throws: ``BackendError`` when the backend does not confirm the subscription; a retry is safe.
    func frames(exchange: String, pattern: String) async throws -> AsyncStream<FanoutFrame>
}

/// What a listener hears.
public struct FanoutFrame: Sendable, Hashable {
    /// The routing key that the frame was sent with.
    public var key: String
    public var bytes: [UInt8]

    public init(key: String, bytes: [UInt8]) {
        self.key = key
        self.bytes = bytes
    }
}
