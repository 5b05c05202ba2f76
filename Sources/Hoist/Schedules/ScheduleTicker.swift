import Logging

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Keeps time for schedules, in a worker and in ``UpkeepService``. Any number of programs may: none is elected that could be
/// missing, and each tick is one step of the backend.
///
/// Programs whose ticks were done by another look only after a grace, so that not all of them wake for each tick. They take
/// over when that one falls silent.
struct ScheduleTicker: Sendable {
    /// Where a change of schedules is told, see ``Fanout``.
    static let exchange = "hoist.schedules"

    let backend: Backend
    let keeping: any ScheduleKeeping
    let messages: ScheduleMessages
    /// The app whose declared schedules this program ticks; nil when it declares none.
    let app: String?
    /// The ids of the schedules that it declares.
    let declared: Set<String>
    /// Who ticks, for the history.
    let name: String
    let logger: Logger

    /// How long a program that was slower lets others go first.
    static let grace = Duration.seconds(2)
    /// How long code that nobody declares any more is waited for.
    static let orphanPatience = Duration.seconds(60)
    private static let pageSize = 1000

    /// What one look leaves for the next.
    private struct Memory {
        /// The groups of schedules of which another program was first: it goes first again.
        var goesSecond: Set<String> = []
        /// Schedules that this program cannot tick, with the revision and the uptime of the next try. Nothing is stored of
        /// that: another program may be able to.
        var setAside: [String: (revision: Int64, until: Int64)] = [:]
        /// Schedules whose queues had no room for all runs: one at a time.
        var full: Set<String> = []
        var wait: Duration = .zero

        func grace(_ group: String) -> Int64 { goesSecond.contains(group) ? ScheduleTicker.grace.inMicroseconds : 0 }
    }

    /// A thread to run on: a timetable that takes long to read, and closures that make jobs, hold up nothing else there.
    static func makeThread() -> ThreadExecutor { ThreadExecutor(name: "hoist-schedules", threadCount: 1) }

    func run() async {
        let bell = Doorbell()
        await withDiscardingTaskGroup { group in
            group.addTask { await listen(ringing: bell) }
            var memory = Memory()
            var failures = 0
            while !Task.isCancelled {
                let mark = bell.mark
                // What is waited for is counted from here: time passes while the backend answers.
                let asked = backend.clock.uptime
                do {
                    try await look(&memory)
                    failures = 0
                } catch is CancellationError {
                    break
                } catch {
                    failures += 1
                    memory.wait = .milliseconds(min(1000, 200 << min(failures, 5)))
                    // The worker itself tells of a backend that is away.
                    if (error as? BackendError)?.code != .unavailable || failures == 10 {
                        logger.warning(
                            "schedules could not be looked at; this is tried again", metadata: ["error": "\(error)"])
                    }
                }
                let wait = memory.wait - .microseconds(backend.clock.uptime - asked)
                await bell.wait(after: mark, for: max(.zero, wait), clock: backend.clock)
            }
            group.cancelAll()
        }
    }

    /// Rings when another program has changed schedules.
    private func listen(ringing bell: Doorbell) async {
        while let fanout = backend.fanout, !Task.isCancelled {
            if let frames = try? await fanout.frames(exchange: Self.exchange, pattern: "#") {
                // What happened before is missed.
                bell.ring()
                for await _ in frames { bell.ring() }
            }
            if !Task.isCancelled { await backend.clock.sleep(for: .seconds(1)) }
        }
    }

    private var groups: [String] { [""] + (app.map { [$0] } ?? []) }

    /// Does what is due, and finds out how long to wait.
    private func look(_ memory: inout Memory) async throws {
        // Without frames a change is seen after this long.
        var limit: Duration = backend.fanout == nil ? .seconds(1) : .seconds(30)
        while true {
            let found = try await keeping.dueSchedules(in: groups, limit: Self.pageSize)
            let (now, uptime) = (found.now.microsecondsSinceEpoch, backend.clock.uptime)
            var ready: [StoredSchedule] = []
            for stored in found.due {
                // Not before 1970: somebody else may have written anything.
                guard let wake = stored.wake.map({ max(0, $0.microsecondsSinceEpoch) }) else { continue }
                if let aside = memory.setAside[stored.id], aside.revision == stored.revision, uptime < aside.until {
                    limit = min(limit, .microseconds(aside.until - uptime))
                } else if now - wake < memory.grace(stored.group) {
                    limit = min(limit, .microseconds(memory.grace(stored.group) - (now - wake)))
                } else {
                    ready.append(stored)
                }
            }
            let written = try await tick(ready, now: now, &memory)
            // A full page may have more behind it.
            if written > 0, found.due.count == Self.pageSize { continue }
            if written < ready.count { limit = min(limit, .milliseconds(500)) }
            if let next = found.next?.microsecondsSinceEpoch {
                let grace = groups.map(memory.grace).min() ?? 0
                limit = min(limit, .microseconds(next - now + grace))
            }
            // What was just written may be due soon.
            if written > 0 { limit = min(limit, try await untilNext()) }
            memory.wait = max(.milliseconds(1), limit)
            return
        }
    }

    private func untilNext() async throws -> Duration {
        let found = try await keeping.dueSchedules(in: groups, limit: 1)
        if !found.due.isEmpty { return .milliseconds(1) }
        guard let next = found.next else { return .seconds(30) }
        return .microseconds(next.microsecondsSinceEpoch - found.now.microsecondsSinceEpoch)
    }

    // MARK: - Ticking

    /// - Returns: how many schedules were written by this program.
    private func tick(_ schedules: [StoredSchedule], now: Int64, _ memory: inout Memory) async throws -> Int {
        var writes: [ScheduleWrite] = []
        var cancels: [JobID] = []
        if memory.setAside.count > 10_000 { memory.setAside = [:] }
        for stored in schedules {
            do {
                guard
                    let (write, cancelled) = try await decide(stored, now: now, isFull: memory.full.contains(stored.id))
                else { continue }
                writes.append(write)
                cancels += cancelled
            } catch let error where !error.isOfConnection {
                setAside(stored.id, stored.revision, error, &memory)
            }
        }
        guard !writes.isEmpty else { return 0 }
        let results = try await write(writes, &memory)
        var first: Set<String> = []
        var second: Set<String> = []
        var written = 0
        for (write, result) in zip(writes, results) {
            let group = write.content?.group ?? ""
            switch result {
            case .written:
                written += 1
                memory.full.remove(write.id)
                first.insert(group)
            case .changed: second.insert(group)
            case .full(let queue):
                guard memory.full.insert(write.id).inserted else { continue }
                logger.warning(
                    "runs cannot be enqueued, for their queue is full; this is tried again, one run at a time",
                    metadata: ["schedule": "\(write.id)", "queue": "\(queue)"])
            case .early, nil: break
            }
        }
        memory.goesSecond.formUnion(second)
        memory.goesSecond.subtract(first)
        for job in cancels {
            do {
                _ = try await backend.cancel(job)
            } catch {
                logger.warning(
                    "an earlier run could not be cancelled; this is tried again",
                    metadata: ["job.id": "\(job)", "error": "\(error)"])
            }
        }
        return written
    }

    private func setAside(_ id: String, _ revision: Int64?, _ error: any Error, _ memory: inout Memory) {
        logger.error(
            "a schedule cannot tick here; this is tried again in a minute",
            metadata: ["schedule": "\(id)", "error": "\(error)"])
        memory.setAside[id] = (revision ?? 0, backend.clock.uptime + 60_000_000)
    }

    /// Writes all of them; one after the other where one of them makes the backend refuse the call.
    /// - Returns: for each; nil where the backend refused it.
    private func write(_ writes: [ScheduleWrite], _ memory: inout Memory) async throws -> [ScheduleWriteResult?] {
        do {
            return try await keeping.write(writes)
        } catch let error where !error.isOfConnection {
            var results: [ScheduleWriteResult?] = []
            for write in writes {
                do {
                    results.append(try await keeping.write([write])[0])
                } catch let error where !error.isOfConnection {
                    setAside(write.id, write.expected, error, &memory)
                    results.append(nil)
                }
            }
            return results
        }
    }

    private func decide(
        _ stored: StoredSchedule, now: Int64, isFull: Bool
    ) async throws -> (ScheduleWrite, cancels: [JobID])? {
        var state = try ScheduleState.read(stored)
        if state.origin != nil, !declared.contains(stored.id) {
            // Code of another revision may declare it.
            guard let wake = stored.wake, wake.microsecondsSinceEpoch + Self.orphanPatience.inMicroseconds < now else {
                return nil
            }
            state.orphanedAt = now
            return (
                ScheduleWrite(
                    id: stored.id, expected: stored.revision,
                    content: .init(group: state.group, wake: nil, body: try state.encoded())), []
            )
        }
        let ends = try await ScheduleEnds.of(state.open, in: backend)
        let decision = try ScheduleDecision(
            stored.id, state, now: now, by: name, ends: ends,
            limit: isFull ? 1 : ScheduleDecision.maximumTicks)
        var write = try decision.write(over: stored)
        write.notBefore = stored.wake
        for run in decision.runs { write.messages.append(try messages.message(of: run, decision.state, now: now)) }
        return (write, decision.cancels)
    }
}

/// Finds out how runs ended.
enum ScheduleEnds {
    /// Of the jobs those that have ended. One that nobody knows any more has.
    static func of(_ jobs: [JobID], in backend: Backend) async throws -> [JobID: ScheduleDecision.End] {
        var ends: [JobID: ScheduleDecision.End] = [:]
        for job in jobs {
            guard let record = try await backend.record(of: job) else {
                ends[job] = .unknown
                continue
            }
            if record.state.hasEnded { ends[job] = record.state == .failed ? .failed : .otherwise }
        }
        return ends
    }
}

extension Error {
    /// Whether it tells of the way to the backend, and not of what was asked.
    fileprivate var isOfConnection: Bool {
        if self is CancellationError { return true }
        guard let error = self as? BackendError else { return false }
        return [.unavailable, .timedOut, .busy, .readOnly, .full].contains(error.code)
    }
}
