import Synchronization

/// Slows down who tries passwords: after five failures each further try has to wait, twice as long every time.
///
/// From one address up to five minutes. For one name from anywhere a few seconds at most: nobody can keep the owner of a
/// name out.
final class LoginThrottle: Sendable {
    struct Attempt: Sendable {
        var name: String
        var address: String

        /// What failures are counted under, and the longest pause of each.
        fileprivate var keys: [(key: String, longest: Duration)] {
            let network = Self.network(address)
            return [
                ("both \(network) \(name)", .seconds(300)), ("address \(network)", .seconds(300)),
                ("name \(name)", .seconds(4)),
            ]
        }

        /// Who has IPv6 has 2⁶⁴ addresses.
        private static func network(_ address: String) -> String {
            guard address.contains(":"), !address.hasPrefix("::ffff:") else { return address }
            return address.split(separator: ":", omittingEmptySubsequences: false).prefix(4).joined(separator: ":")
        }
    }

    private struct Failures: Sendable {
        var count: Int
        var last: ContinuousClock.Instant
    }

    private let failures = Mutex<[String: Failures]>([:])
    private static let free = 5
    private static let forgottenAfter = Duration.seconds(900)
    private static let mostKept = 20_000

    /// How much is remembered.
    var count: Int { failures.withLock { $0.count } }

    /// Begins a try, which counts as failed until ``succeeded(_:)`` or ``takeBack(_:)`` is called.
    /// - Returns: how long to wait before the next try; nil when this one may be made now.
    func begin(_ attempt: Attempt, now: ContinuousClock.Instant = .now) -> Duration? {
        failures.withLock { failures in
            let keys = attempt.keys
            let wait = keys.compactMap { key, longest -> Duration? in
                guard let known = failures[key], known.count >= Self.free else { return nil }
                let left = min(longest, .seconds(1 << min(known.count - Self.free, 9))) - known.last.duration(to: now)
                return left > .zero ? left : nil
            }.max()
            if let wait { return wait }
            if failures.count + keys.count > Self.mostKept { Self.makeRoom(&failures, now) }
            for (key, _) in keys {
                let known = failures[key].flatMap { $0.last.duration(to: now) < Self.forgottenAfter ? $0 : nil }
                failures[key] = Failures(count: (known?.count ?? 0) + 1, last: now)
            }
            return nil
        }
    }

    /// The oldest half goes.
    private static func makeRoom(_ failures: inout [String: Failures], _ now: ContinuousClock.Instant) {
        failures = failures.filter { $0.value.last.duration(to: now) < forgottenAfter }
        guard failures.count > mostKept / 2 else { return }
        let newest = failures.sorted { $0.value.last > $1.value.last }.prefix(mostKept / 2)
        failures = Dictionary(uniqueKeysWithValues: newest.map { ($0.key, $0.value) })
    }

    /// The try was right: it does not count, and neither do those of this name from this address before it.
    func succeeded(_ attempt: Attempt) {
        takeBack(attempt)
        failures.withLock { failures in if let first = attempt.keys.first { failures[first.key] = nil } }
    }

    /// The try was not made.
    func takeBack(_ attempt: Attempt) {
        failures.withLock { failures in
            for (key, _) in attempt.keys {
                guard var known = failures[key] else { continue }
                known.count -= 1
                failures[key] = known.count > 0 ? known : nil
            }
        }
    }
}
