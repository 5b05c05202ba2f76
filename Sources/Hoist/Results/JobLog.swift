#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// The last lines that an attempt wrote: with ``JobContext/logger`` in every lane, and to standard output and error in
/// the process lane.
public struct JobLog: Sendable, Hashable, Codable {
    public struct Line: Sendable, Hashable, Codable {
        public var time: Date
        /// `output`, `error`, or the level of a logger's line: `info`, `warning`.
        public var source: String
        /// Cut at 2,048 bytes.
        public var text: String

        public init(time: Date, source: String, text: String) {
            self.time = time
            self.source = source
            self.text = text
        }
    }

    /// The number of the attempt that wrote the log.
    public var attempt: Int
    /// The oldest first.
    public var lines: [Line]
    /// The number of lines that are missing: older lines, and lines that arrived faster than they are accepted.
    public var omitted: Int

    public init(attempt: Int, lines: [Line] = [], omitted: Int = 0) {
        self.attempt = attempt
        self.lines = lines
        self.omitted = omitted
    }
}
