#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif
import CProcess
import Synchronization

/// The time source of backends and workers. A test controls a clock of its own, see `TestClock` in HoistTesting.
public protocol JobClock: Sendable {
    /// Wall-clock time, for ETAs and expiries.
    var now: Date { get }
    /// Microseconds that only ever grow, for waits and for the leases of backends on one machine. All processes of one
    /// machine agree on the value. Leases on Redis are measured by the server's clock.
    var uptime: Int64 { get }
    /// Calls `body` once, `delay` from now, on a thread that runs no job code.
    func schedule(after delay: Duration, _ body: @escaping @Sendable () -> Void) -> ScheduledCall
}

/// A scheduled call that can be cancelled.
public struct ScheduledCall: Sendable {
    private let onCancel: @Sendable () -> Void

    public init(onCancel: @escaping @Sendable () -> Void) { self.onCancel = onCancel }

    /// Cancels the call. Does nothing when the call has run already.
    public func cancel() { onCancel() }
}

extension JobClock {
    /// Suspends for `duration`, or until the task is cancelled.
    package func sleep(for duration: Duration) async {
        let bell = Doorbell()
        await bell.wait(after: bell.mark, for: duration, clock: self)
    }
}

/// The machine's own clocks.
public struct SystemJobClock: JobClock {
    public init() {}

    public var now: Date { Date() }

    public var uptime: Int64 { hoist_uptime() }

    public func schedule(after delay: Duration, _ body: @escaping @Sendable () -> Void) -> ScheduledCall {
        TimerThread.shared.schedule(at: uptime + max(0, delay.inMicroseconds), body)
    }
}
