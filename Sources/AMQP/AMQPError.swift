/// Something was not done, or it is unknown whether it was.
public struct AMQPError: Error, Sendable, CustomStringConvertible {
    public struct Code: Sendable, Hashable, CustomStringConvertible {
        private enum Value: String {
            case unreachable, authentication, tls, timedOut, blocked, connectionLost, channelClosed, refused,
                protocolViolation, closed, invalidURL, misuse
        }
        private let value: Value
        public var description: String { value.rawValue }

        /// No server could be reached.
        public static let unreachable = Code(value: .unreachable)
        /// The user, the password or the virtual host was refused.
        public static let authentication = Code(value: .authentication)
        /// The server's or this client's certificate was not accepted, or the TLS configuration is unusable.
        public static let tls = Code(value: .tls)
        /// No answer came in time.
        public static let timedOut = Code(value: .timedOut)
        /// The server takes no messages at the moment, because it is short of memory or disk space.
        public static let blocked = Code(value: .blocked)
        public static let connectionLost = Code(value: .connectionLost)
        /// The server closed the channel; ``AMQPError/replyCode`` says why.
        public static let channelClosed = Code(value: .channelClosed)
        /// The server did not take a message (`basic.nack`).
        public static let refused = Code(value: .refused)
        /// The server violated the protocol.
        public static let protocolViolation = Code(value: .protocolViolation)
        /// The connection or channel was closed by this program.
        public static let closed = Code(value: .closed)
        public static let invalidURL = Code(value: .invalidURL)
        /// The call made no sense, for instance a name of more than 255 bytes.
        public static let misuse = Code(value: .misuse)
    }

    public var code: Code
    /// What failed and where. Without credentials or payloads.
    public var message: String
    /// False when nothing has happened, so that a retry is safe.
    public var mayHaveRun: Bool
    /// The server's reply code (AMQP 0-9-1 §1.2, constants), such as 404 for a queue that does not exist and 406 for
    /// one that was declared otherwise; nil where the server did not say.
    public var replyCode: Int?

    public init(_ code: Code, _ message: String, mayHaveRun: Bool = false, replyCode: Int? = nil) {
        self.code = code
        self.message = message
        self.mayHaveRun = mayHaveRun
        self.replyCode = replyCode
    }

    public var description: String { "\(message) (\(code))" }
}
