/// A command was not carried out, or it is unknown whether it was.
public struct RESPError: Error, Sendable, CustomStringConvertible {
    public struct Code: Sendable, Hashable, CustomStringConvertible {
        private enum Value: String {
            case unreachable, authentication, tls, timedOut, connectionLost, protocolViolation, closed, server,
                invalidURL
        }
        private let value: Value
        public var description: String { value.rawValue }

        /// No server could be reached.
        public static let unreachable = Code(value: .unreachable)
        /// User or password were refused.
        public static let authentication = Code(value: .authentication)
        /// The server's or this client's certificate was not accepted, or the TLS configuration is unusable.
        public static let tls = Code(value: .tls)
        /// No answer came in time.
        public static let timedOut = Code(value: .timedOut)
        public static let connectionLost = Code(value: .connectionLost)
        /// The server violated the protocol.
        public static let protocolViolation = Code(value: .protocolViolation)
        /// The client was closed.
        public static let closed = Code(value: .closed)
        /// The server answered with an error.
        public static let server = Code(value: .server)
        public static let invalidURL = Code(value: .invalidURL)
    }

    public var code: Code
    /// What failed and where. Without credentials or payloads.
    public var message: String
    /// False when the command has certainly not run, so that a retry is safe.
    public var mayHaveRun: Bool

    public init(_ code: Code, _ message: String, mayHaveRun: Bool = false) {
        self.code = code
        self.message = message
        self.mayHaveRun = mayHaveRun
    }

    public var description: String { "\(message) (\(code))" }
}
