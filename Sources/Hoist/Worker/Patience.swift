import Logging
import Synchronization

/// How a worker waits for a backend that is away: longer with each failure, 5 seconds at most. It says once that the
/// backend does not answer, once a minute that it still does not, and once that it answers again.
final class Patience: Sendable {
    private struct Trouble {
        /// How often in a row each thing could not be done.
        var failures: [String: Int] = [:]
        var since: Int64 = 0
        var toldAt: Int64?
        var toldCodes: Set<BackendError.Code?> = []
    }

    /// How long it says nothing more of a trouble that it has told of.
    private static let reminder: Int64 = 60_000_000

    let logger: Logger
    private let clock: any JobClock
    /// Tells when the worker is to stop: then there is nothing to wait for.
    private let inbox: WorkerInbox
    private let trouble = Mutex(Trouble())

    init(clock: any JobClock, logger: Logger, inbox: WorkerInbox) {
        self.clock = clock
        self.logger = logger
        self.inbox = inbox
    }

    /// Whether something could not be done, and has not been done since.
    var isTroubled: Bool { trouble.withLock { !$0.failures.isEmpty } }

    /// - Parameter what: what could not be done before, perhaps: as it was named to ``failed(_:_:)``.
    func succeeded(_ what: String) {
        let duration = trouble.withLock { trouble -> Int64? in
            guard trouble.failures.removeValue(forKey: what) != nil, trouble.failures.isEmpty, trouble.toldAt != nil
            else { return nil }
            let duration = clock.uptime - trouble.since
            trouble = Trouble()
            return duration
        }
        if let duration {
            logger.info("the backend answers again", metadata: ["after": "\(duration / 1_000_000) s"])
        }
    }

    /// - Parameter what: what the worker could not do, as a verb.
    /// - Returns: how often in a row.
    @discardableResult
    func failed(_ what: String, _ error: any Error) -> Int {
        // A worker that stops, not a backend that is away.
        guard !(error is CancellationError) else { return 1 }
        let code = (error as? BackendError)?.code
        let (count, isTold, duration) = trouble.withLock { trouble in
            let now = clock.uptime
            if trouble.failures.isEmpty { trouble.since = now }
            trouble.failures[what, default: 0] += 1
            let isTold =
                trouble.toldAt.map { now - $0 >= Self.reminder || !trouble.toldCodes.contains(code) } ?? true
            if isTold {
                trouble.toldAt = now
                trouble.toldCodes.insert(code)
            }
            return (trouble.failures[what] ?? 1, isTold, now - trouble.since)
        }
        var metadata: Logger.Metadata = ["error": "\(error)"]
        if duration >= 1_000_000 { metadata["since"] = "\(duration / 1_000_000) s" }
        logger.log(
            level: isTold ? .warning : .debug, "the worker could not \(what); it tries until the backend answers",
            metadata: metadata)
        return count
    }

    /// - Parameters:
    ///   - what: what the worker could not do, as a verb.
    ///   - isBrief: whether a worker that is to stop has nothing that would be worth waiting for.
    func backOff(after error: any Error, from what: String, isBrief: Bool = false) async {
        let failures = failed(what, error)
        let wait = Duration.milliseconds(min(5000, 50 << min(failures, 7)))
        let end = clock.uptime + wait.inMicroseconds
        guard !inbox.isStopping else { return await clock.sleep(for: isBrief ? min(wait, .milliseconds(200)) : wait) }
        // A stop is heard at once; all else that rings meanwhile waits.
        while clock.uptime < end, !inbox.isStopping, !Task.isCancelled {
            let mark = inbox.stopBell.mark
            if inbox.isStopping { return }
            await inbox.stopBell.wait(after: mark, for: .microseconds(end - clock.uptime), clock: clock)
        }
    }

    /// Tries five times.
    func attempt(_ what: String, _ body: () async throws -> Void) async {
        for _ in 0..<5 {
            do {
                try await body()
                return succeeded(what)
            } catch {
                await backOff(after: error, from: what)
            }
        }
        // It is not tried any more, so that it is no sign of the backend.
        trouble.withLock { $0.failures[what] = nil }
        logger.error("the worker could not \(what), and has given up")
    }
}
