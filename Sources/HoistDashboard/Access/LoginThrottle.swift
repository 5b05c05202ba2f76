import Synchronization

/// Slows down who tries passwords: after five failures of a name, or from an address, each further try has to wait,
/// twice as long every time.
final class LoginThrottle: Sendable {
    private struct Failures: Sendable {
        var count: Int
        var last: ContinuousClock.Instant
    }

    private let failures = Mutex<[String: Failures]>([:])
    private static let free = 5
    private static let longest = Duration.seconds(300)
    private static let forgottenAfter = Duration.seconds(900)
    private static let mostKept = 10_000

    /// - Returns: how long to wait before the next try; nil when it may be made now.
    func wait(_ keys: [String], now: ContinuousClock.Instant = .now) -> Duration? {
        failures.withLock { failures in
            keys.compactMap { key -> Duration? in
                guard let known = failures[key], known.count >= Self.free else { return nil }
                let pause = min(Self.longest, .seconds(1 << min(known.count - Self.free, 9)))
                let left = pause - known.last.duration(to: now)
                return left > .zero ? left : nil
            }.max()
        }
    }

    func failed(_ keys: [String], now: ContinuousClock.Instant = .now) {
        failures.withLock { failures in
            if failures.count >= Self.mostKept {
                failures = failures.filter { $0.value.last.duration(to: now) < Self.forgottenAfter }
            }
            for key in keys where failures.count < 2 * Self.mostKept || failures[key] != nil {
                let known = failures[key].flatMap { $0.last.duration(to: now) < Self.forgottenAfter ? $0 : nil }
                failures[key] = Failures(count: (known?.count ?? 0) + 1, last: now)
            }
        }
    }

    func succeeded(_ keys: [String]) {
        failures.withLock { failures in for key in keys { failures[key] = nil } }
    }
}
