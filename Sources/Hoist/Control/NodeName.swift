import Synchronization

/// What a worker is called in events, in replies, in records and on the command line: `name@host`, as Celery's workers
/// are.
enum NodeName {
    /// - Parameter configured: the name that the program gives its worker. With an `@` it is the whole name, without
    ///   one the host is added; nil for `hoist-<process id>@<host>`.
    static func of(_ configured: String?) -> String {
        guard let configured, !configured.isEmpty else {
            return "hoist-\(ProcessIdentity.id)@\(ProcessIdentity.host)"
        }
        return configured.contains("@") ? configured : configured + "@" + ProcessIdentity.host
    }

    /// The name of a program that only asks, as Celery's clients have one.
    static let client = "gen\(ProcessIdentity.id)@\(ProcessIdentity.host)"
}

/// Lamport's logical clock of a node: it orders events and requests that programs with different clocks send.
///
/// Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System", 1978; carried in the events, requests
/// and replies of Celery as `clock`.
final class LamportClock: Sendable {
    private let value = Mutex<Int64>(0)

    /// The largest value that is taken over from others: whoever sends a larger one would stop the clocks of a fleet.
    private static let limit: Int64 = 1 << 53

    /// The time of something that is about to be sent.
    func tick() -> Int64 {
        value.withLock { value in
            value += 1
            return value
        }
    }

    /// Takes over the time of something that was received.
    func adjust(_ received: Int64) {
        guard received > 0, received < Self.limit else { return }
        value.withLock { $0 = max($0, received) + 1 }
    }

    var now: Int64 { value.withLock { $0 } }
}
