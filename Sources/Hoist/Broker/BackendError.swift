/// A backend could not do what it was asked.
public struct BackendError: Error, Sendable, CustomStringConvertible {
    public struct Code: Sendable, Hashable, CustomStringConvertible {
        private enum Value: String { case unavailable, full, readOnly, corrupt, incompatible, busy, timedOut, misuse }
        private let value: Value
        public var description: String { value.rawValue }

        private init(value: Value) { self.value = value }

        /// The code with this description; ``unavailable`` when there is none.
        init(named name: String) { value = Value(rawValue: name) ?? .unavailable }

        /// The backend cannot be reached or opened.
        public static let unavailable = Code(value: .unavailable)
        /// No space is left for more jobs.
        public static let full = Code(value: .full)
        public static let readOnly = Code(value: .readOnly)
        /// Stored data is damaged.
        public static let corrupt = Code(value: .corrupt)
        /// The data was written by a version that this one does not know.
        public static let incompatible = Code(value: .incompatible)
        /// Somebody else held the backend for longer than this program waits.
        public static let busy = Code(value: .busy)
        public static let timedOut = Code(value: .timedOut)
        /// The call made no sense, for instance an URL that names no backend.
        public static let misuse = Code(value: .misuse)
    }

    public var code: Code
    /// What failed, on what, and what to do. Without credentials or payloads.
    public var message: String
    /// True when nothing has happened and the same call may simply be made again. When false, it may have happened.
    public var isRetrySafe: Bool
    public var cause: (any Error)?

    public init(_ code: Code, _ message: String, isRetrySafe: Bool = true, cause: (any Error)? = nil) {
        self.code = code
        self.message = message
        self.isRetrySafe = isRetrySafe
        self.cause = cause
    }

    public var description: String { cause.map { "\(message) (\(code): \($0))" } ?? "\(message) (\(code))" }
}
