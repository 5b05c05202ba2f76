import Logging
import Synchronization

/// How a worker waits for a backend that is away: longer with each failure, 5 seconds at most.
final class Patience: Sendable {
    let logger: Logger
    private let clock: any JobClock
    /// Tells when the worker is to stop: then there is nothing to wait for.
    private let inbox: WorkerInbox
    private let failures = Mutex(0)

    init(clock: any JobClock, logger: Logger, inbox: WorkerInbox) {
        self.clock = clock
        self.logger = logger
        self.inbox = inbox
    }

    /// The backend has answered.
    func reset() { failures.withLock { $0 = 0 } }

    /// - Parameters:
    ///   - what: what the worker could not do, as a verb.
    ///   - isBrief: whether a worker that is to stop has nothing that would be worth waiting for.
    func backOff(after error: any Error, from what: String, isBrief: Bool = false) async {
        let failures = failures.withLock { failures in
            failures += 1
            return failures
        }
        logger.warning(
            "the worker could not \(what); it tries again", metadata: ["error": "\(error)", "failures": "\(failures)"])
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
                return try await body()
            } catch {
                await backOff(after: error, from: what)
            }
        }
    }
}
