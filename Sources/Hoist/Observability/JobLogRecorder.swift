#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
import Logging
import Synchronization

/// Keeps the last lines of one attempt, limited in number and rate.
final class JobLogRecorder: Sendable {
    private struct State {
        var lines: [JobLog.Line] = []
        var omitted = 0
        var allowance = LineAllowance()
        /// How many lines were taken in; how many of them by the last look at the log; how many monitors were told of.
        var (accepted, shown, told) = (0, 0, 0)
        /// Whether new lines have been announced since the log was last taken.
        var isNoted = false
    }

    /// The number of lines that are kept with the job; 0 for none.
    private let shown: Int
    /// The number of lines in memory, which also serve to report the last lines of a process that died.
    let limit: Int
    private let attempt: Int
    private let onChange: @Sendable () -> Void
    private let state = Mutex(State())

    /// - Parameters:
    ///   - limit: the number of lines that are kept.
    ///   - remembersLastWords: whether the last lines are held in memory, at least 100, even when none are kept.
    ///   - onChange: called when there are new lines, once until the log is taken.
    init(attempt: Int, limit: Int, remembersLastWords: Bool = false, onChange: @escaping @Sendable () -> Void) {
        self.attempt = attempt
        shown = limit
        self.limit = remembersLastWords ? max(limit, 100) : limit
        self.onChange = onChange
    }

    /// - Parameter isUrgent: whether the rate limit is ignored: a process says where it crashed.
    /// - Returns: whether any line was taken.
    @discardableResult
    func add(_ texts: [String], omitted: Int = 0, source: String, isUrgent: Bool = false) -> Bool {
        guard limit > 0, !texts.isEmpty || omitted > 0 else { return limit > 0 }
        let now = Date()
        let (isNews, isTaken) = state.withLock { state in
            // The last lines say the most.
            let taken = isUrgent ? texts[...] : texts.suffix(state.allowance.take(texts.count))
            state.omitted += omitted + texts.count - taken.count
            state.accepted += taken.count
            state.lines += taken.map { JobLog.Line(time: now, source: source, text: $0) }
            if state.lines.count > 2 * limit { cut(&state) }
            defer { state.isNoted = true }
            return (!state.isNoted, !taken.isEmpty)
        }
        if isNews, shown > 0 { onChange() }
        return isTaken
    }

    private func cut(_ state: inout State) {
        let surplus = max(0, state.lines.count - limit)
        state.lines.removeFirst(surplus)
        state.omitted += surplus
    }

    /// The log now; nil while nothing was written.
    func take() -> JobLog? {
        state.withLock { state in
            state.isNoted = false
            state.shown = state.accepted
            cut(&state)
            guard shown > 0, !state.lines.isEmpty || state.omitted > 0 else { return nil }
            let lines = Array(state.lines.suffix(shown))
            return JobLog(attempt: attempt, lines: lines, omitted: state.omitted + state.lines.count - lines.count)
        }
    }

    /// So many lines are told to monitors in one event.
    private static let mostTold = 50

    /// The lines of a log that was taken which monitors have not been told of, the last of them where there are many.
    func untold(of log: JobLog) -> [JobLog.Line] {
        state.withLock { state in
            defer { state.told = state.shown }
            return log.lines.suffix(min(state.shown - state.told, Self.mostTold))
        }
    }

    /// The last lines of what a process printed, and the backtrace that Swift's runtime put among them.
    func lastWords() -> (lines: [String], backtrace: String?) {
        let all = state.withLock { $0.lines.map(\.text) }
        // The first line of the runtime announces the backtrace, the last line says how long it took.
        guard let start = all.lastIndex(where: { $0.hasPrefix("*** Signal") && $0.contains("Backtracing") }) else {
            return (all.suffix(20), nil)
        }
        let trace = all[(start + 1)...].prefix { !$0.hasPrefix("Backtrace took") }.filter { !$0.isEmpty }
        return (all[..<start].filter { !$0.isEmpty }.suffix(20), trace.joined(separator: "\n").cut(to: 8192))
    }
}

/// Limits the lines that are taken of a job in each second.
struct LineAllowance {
    private static let perSecond = 1000
    private var second: Int64 = -1
    private var left = 0

    /// - Returns: how many of `count` lines may be taken now.
    mutating func take(_ count: Int) -> Int {
        let now = SystemJobClock().uptime / 1_000_000
        if now != second { (second, left) = (now, Self.perSecond) }
        let taken = min(count, left)
        left -= taken
        return taken
    }
}

/// Passes the log entries of a handler to the worker's logger, and keeps them with the job.
struct RecordingLogHandler: LogHandler {
    private var base: any LogHandler
    private let recorder: JobLogRecorder

    init(_ base: any LogHandler, _ recorder: JobLogRecorder) {
        self.base = base
        self.recorder = recorder
    }

    var logLevel: Logger.Level {
        get { base.logLevel }
        set { base.logLevel = newValue }
    }

    var metadata: Logger.Metadata {
        get { base.metadata }
        set { base.metadata = newValue }
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { base[metadataKey: key] }
        set { base[metadataKey: key] = newValue }
    }

    func log(event: LogEvent) {
        base.log(event: event)
        let details = (event.metadata ?? [:]).mapValues { "\($0)" }
        recorder.add([LogLine.text("\(event.message)", details)], source: event.level.rawValue)
    }
}

extension LogLine {
    /// One readable line. Metadata that every line of a job carries is left out.
    static func text(_ message: String, _ metadata: [String: String]) -> String {
        let details = metadata.sorted { $0.key < $1.key }.map { " \($0.key)=\($0.value)" }.joined()
        return (message + details).cut(to: LineSplitter.maximumBytes)
    }
}

extension String {
    /// The text cut after `bytes` bytes, because one character may have any number of bytes. A character that is cut
    /// becomes U+FFFD.
    package func cut(to bytes: Int) -> String {
        utf8.count <= bytes ? self : String(decoding: utf8.prefix(bytes), as: UTF8.self)
    }
}
