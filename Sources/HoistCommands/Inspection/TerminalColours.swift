import Hoist

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Colours for the states of jobs, where the output is a terminal that has them and the person has not set `NO_COLOR`
/// (no-color.org).
enum TerminalColours {
    static let areWanted: Bool = {
        func value(_ name: String) -> String { getenv(name).map { String(cString: $0) } ?? "" }
        return isatty(STDOUT_FILENO) == 1 && value("NO_COLOR").isEmpty && !["", "dumb"].contains(value("TERM"))
    }()

    private static let codes: [JobState: Int] = [
        .running: 36, .succeeded: 32, .failed: 31, .retrying: 33, .cancelled: 35, .expired: 35,
    ]

    /// - Parameter text: perhaps the name of a state, perhaps with spaces behind it.
    static func coloured(_ text: String, wanted: Bool = areWanted) -> String {
        guard wanted, let state = JobState(rawValue: String(text.prefix { $0 != " " })), let code = codes[state] else {
            return text
        }
        return "\u{1B}[\(code)m\(text)\u{1B}[0m"
    }
}
