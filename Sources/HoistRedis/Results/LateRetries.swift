import Hoist
import RESP
import Synchronization

/// Outcomes that a late RETRY may still overwrite.
///
/// A Celery worker publishes the next attempt of a job, then looks whether the job has succeeded, and then stores
/// RETRY. A worker that is held up before it stores RETRY overwrites the outcome of the attempt that it published: the
/// job has ended, but its callers would never hear of it. So the outcome of every attempt but the first is checked
/// twice more.
struct LateRetries {
    private struct Entry {
        var result: SettlingStep.StoredMeta
        var endedAt: Int64
        var looks = 0
    }

    /// Times of the two checks after the end of the attempt, in microseconds.
    static let looks: [Int64] = [1_000_000, 10_000_000]
    private static let maximumBytes = 16 << 20

    private var entries: [Entry] = []
    private var bytes = 0

    mutating func note(_ result: SettlingStep.StoredMeta, at uptime: Int64) {
        // Further outcomes go unguarded, so that the memory in use stays bounded.
        guard bytes + result.value.count <= Self.maximumBytes else { return }
        bytes += result.value.count
        entries.append(Entry(result: result, endedAt: uptime))
    }

    private func isDue(_ entry: Entry, at uptime: Int64) -> Bool { uptime >= entry.endedAt + Self.looks[entry.looks] }

    func isDue(at uptime: Int64) -> Bool { entries.contains { isDue($0, at: uptime) } }

    /// The outcomes whose next check is due.
    /// - Parameter isLast: all outcomes, because a worker ends.
    mutating func due(at uptime: Int64, isLast: Bool = false) -> [SettlingStep.StoredMeta] {
        var due: [SettlingStep.StoredMeta] = []
        for index in entries.indices where isLast || isDue(entries[index], at: uptime) {
            due.append(entries[index].result)
            entries[index].looks += 1
        }
        entries.removeAll { $0.looks == Self.looks.count }
        bytes = entries.reduce(0) { $0 + $1.result.value.count }
        return due
    }
}

extension RedisBackend {
    /// Remembers the outcomes of attempts that a Celery worker may have published.
    func noteOutcomes(of settlements: [Settlement], _ steps: [SettlingStep], except lost: [JobID]) {
        for (settlement, step) in zip(settlements, steps)
        where (settlement.facts?.attempt ?? 1) > 1 && !lost.contains(step.id) {
            guard let result = step.result, !result.isRemoval else { continue }
            if case .back = step.operation { continue }
            lateRetries.withLock { $0.note(result, at: clock.uptime) }
        }
    }

    /// Puts back outcomes that have been overwritten.
    func mendOutcomes(isLast: Bool = false) async throws {
        let due = lateRetries.withLock { $0.due(at: clock.uptime, isLast: isLast) }
        for start in stride(from: 0, to: due.count, by: 100) {
            var arguments: [RESPArgument] = [brokerDatabase, resultClient == nil ? .text(resultDatabase) : ""]
            for result in due[start..<min(start + 100, due.count)] {
                arguments += [.text(result.key), .integer(result.seconds), .bytes(result.value)]
            }
            if let resultClient {
                for at in stride(from: 2, to: arguments.count, by: 3) {
                    let key = due[start + at / 3].key
                    _ = try await call("look at a result") {
                        try await resultClient.evaluate(
                            RedisScripts.putBackOutcomes, keys: [key],
                            arguments: Array(arguments[..<2] + arguments[at..<at + 3]))
                    }
                }
            } else {
                _ = try await run(RedisScripts.putBackOutcomes, arguments, doing: "look at results")
            }
        }
    }
}
