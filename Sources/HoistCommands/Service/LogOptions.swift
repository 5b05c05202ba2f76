public import ArgumentParser
import Hoist
public import Logging

/// How much a program logs. Where the lines go is decided by what the program bootstraps in
/// ``ServiceApp/prepare(_:)``; to standard error by default.
public struct LogOptions: ParsableArguments {
    @Option(
        name: .long,
        help:
            "trace, debug, info, notice, warning, error or critical (default: $HOIST_LOG_LEVEL, else the program's own)."
    )
    public var logLevel: String?

    public init() {}

    public func validate() throws { _ = try level }

    /// A logger of the program's logging system, with the level that was asked for.
    public func logger(_ label: String) -> Logger {
        var logger = Logger(label: label)
        // What is no level has been refused by `validate`.
        if let level = try? level { logger.logLevel = level }
        return logger
    }

    private var level: Logger.Level? {
        get throws {
            guard let text = logLevel ?? CommandEnvironment.text("log.level") else { return nil }
            guard let level = Logger.Level(rawValue: text.lowercased()) else {
                let levels = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
                throw ValidationError(
                    "\(logLevel == nil ? "$HOIST_LOG_LEVEL" : "--log-level") takes \(levels), not \(TerminalText.line(text))"
                )
            }
            return level
        }
    }
}
