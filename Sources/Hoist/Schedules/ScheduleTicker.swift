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

    /// Whether this program was the first at its last tick.
    private struct Turn {
        var goesFirst = true
        var wait: Duration = .zero
    }

    func run() async {
        let bell = Doorbell()
        await withDiscardingTaskGroup { group in
            group.addTask { await listen(ringing: bell) }
            var turn = Turn()
            var failures = 0
            while !Task.isCancelled {
                let mark = bell.mark
                // What is waited for is counted from here: time passes while the backend answers.
                let asked = backend.clock.uptime
                do {
                    try await look(&turn)
                    failures = 0
                } catch {
                    failures += 1
                    turn.wait = .milliseconds(min(5000, 200 << min(failures, 5)))
                    // The worker itself tells of a backend that is away.
                    if (error as? BackendError)?.code != .unavailable || failures == 10 {
                        logger.warning(
                            "schedules could not be looked at; this is tried again", metadata: ["error": "\(error)"])
                    }
                }
                let wait = turn.wait - .microseconds(backend.clock.uptime - asked)
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
    private func look(_ turn: inout Turn) async throws {
        // Without frames a change is seen after this long.
        var limit: Duration = backend.fanout == nil ? .seconds(1) : .seconds(30)
        while true {
            let found = try await keeping.dueSchedules(in: groups, limit: Self.pageSize)
            let grace = turn.goesFirst ? Duration.zero : Self.grace
            let now = found.now.microsecondsSinceEpoch
            func isReady(_ stored: StoredSchedule) -> Bool {
                stored.wake.map { $0.microsecondsSinceEpoch + grace.inMicroseconds <= now } ?? false
            }
            let ready = found.due.filter(isReady)
            let results = try await tick(ready, now: now)
            let written = results.count { if case .written = $0 { true } else { false } }
            if written > 0 { turn.goesFirst = true } else if results.contains(.changed) { turn.goesFirst = false }
            // A full page may have more behind it, of which some can be done.
            if written > 0, found.due.count == Self.pageSize { continue }
            for stored in found.due where !isReady(stored) {
                if let wake = stored.wake {
                    limit = min(limit, .microseconds(wake.microsecondsSinceEpoch + Self.grace.inMicroseconds - now))
                }
            }
            if ready.count > written { limit = min(limit, .milliseconds(500)) }
            if let next = found.next {
                let grace = turn.goesFirst ? Duration.zero : Self.grace
                limit = min(limit, .microseconds(next.microsecondsSinceEpoch - now) + grace)
            }
            // What was just written may be due soon.
            if written > 0 { limit = min(limit, try await untilNext()) }
            turn.wait = max(.milliseconds(1), limit)
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

    private func tick(_ schedules: [StoredSchedule], now: Int64) async throws -> [ScheduleWriteResult] {
        var writes: [ScheduleWrite] = []
        var cancels: [JobID] = []
        for stored in schedules {
            do {
                guard let (write, cancelled) = try await decide(stored, now: now) else { continue }
                writes.append(write)
                cancels += cancelled
            } catch let error as BackendError {
                throw error
            } catch {
                logger.error("a schedule cannot tick", metadata: ["schedule": "\(stored.id)", "error": "\(error)"])
                writes.append(standStill(stored, now: now))
            }
        }
        guard !writes.isEmpty else { return [] }
        let results = try await keeping.write(writes)
        for (write, result) in zip(writes, results) {
            if case .full(let queue) = result {
                logger.warning(
                    "a run cannot be enqueued: its queue is full; this is tried again",
                    metadata: ["schedule": "\(write.id)", "queue": "\(queue)"])
            }
        }
        for job in cancels { _ = try await backend.cancel(job) }
        return results
    }

    private func decide(_ stored: StoredSchedule, now: Int64) async throws -> (ScheduleWrite, cancels: [JobID])? {
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
        let decision = try ScheduleDecision(stored.id, state, now: now, by: name, ends: ends)
        var write = try decision.write(over: stored)
        write.notBefore = stored.wake
        for run in decision.runs { write.messages.append(try messages.message(of: run, decision.state, now: now)) }
        return (write, decision.cancels)
    }

    /// What cannot tick is looked at again after a minute, so that it does not stand before others.
    private func standStill(_ stored: StoredSchedule, now: Int64) -> ScheduleWrite {
        ScheduleWrite(
            id: stored.id, expected: stored.revision,
            content: .init(
                group: stored.group, wake: Date(microsecondsSinceEpoch: now + 60_000_000), body: stored.body))
    }
}

/// Finds out how runs ended.
enum ScheduleEnds {
    /// Of the jobs those that have ended. One that nobody knows any more has.
    static func of(_ jobs: [JobID], in backend: Backend) async throws -> [JobID: ScheduleDecision.End] {
        var ends: [JobID: ScheduleDecision.End] = [:]
        for job in jobs {
            guard let record = try await backend.record(of: job) else {
                ends[job] = .otherwise
                continue
            }
            if record.state.hasEnded { ends[job] = record.state == .failed ? .failed : .otherwise }
        }
        return ends
    }
}
