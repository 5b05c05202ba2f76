#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Why a job does not run, or what became of it: one sentence for people, a code for programs, and the facts behind.
public struct JobExplanation: Sendable, Hashable {
    public enum Code: String, Sendable, Hashable, CaseIterable {
        /// Neither the broker nor the result store knows the id.
        case unknown
        /// It succeeded, failed for good, was cancelled or expired.
        case ended
        case running
        /// Its cancellation was asked for, and it has not stopped yet.
        case cancelling
        /// It is due later.
        case delayed
        /// An attempt failed, and the next one is due later.
        case retrying
        case queuePaused = "queue_paused"
        case queueClosed = "queue_closed"
        case noWorker = "no_worker"
        /// No live worker consumes its queue.
        case noConsumer = "no_consumer"
        /// No live worker of its queue knows its name.
        case noHandler = "no_handler"
        /// No live worker has the labels that it requires.
        case labelsMissing = "labels_missing"
        /// The worker that it is for is not alive.
        case workerMissing = "worker_missing"
        /// A limit on how jobs start holds it up.
        case limited
        /// A Python worker has taken it out of its queue, and has not begun it.
        case withPythonWorker = "with_python_worker"
        /// Its message cannot be read.
        case undecodable
        /// Others are before it.
        case inLine = "in_line"
    }

    public var code: Code
    /// One sentence, without text of payloads but for names.
    public var sentence: String
    /// What the sentence was made of: dates as ISO 8601 text in UTC, durations in seconds.
    public var facts: WireValue.Object

    /// What a program finds out before it explains.
    struct Circumstances: Sendable {
        var id: JobID
        var now: Date
        /// Where was looked.
        var place: String
        var record: JobRecord?
        var workers: [WorkerPresence] = []
        /// Workers that are not Hoist's: the queues and the kinds of jobs of each.
        var others: [(node: String, queues: Set<String>, names: Set<String>)] = []
        /// The worker that has taken it, and has not begun it.
        var heldBy: String?
        var pausedQueues: Set<String> = []
        var limits: [LimitTarget: [JobLimit]] = [:]
        /// Running jobs of its kind or its queue, some of them.
        var runningBeside: [JobID] = []
        /// Jobs before it; nil when they were not counted.
        var before: Int?
        var isBeforeCountedWhole = true
        /// How many jobs of its queue start in a second.
        var rate: Double?
    }

    init(_ code: Code, _ sentence: String, _ facts: WireValue.Object = [:]) {
        self.code = code
        self.sentence = sentence
        self.facts = facts
    }

    /// The first reason that holds, in the order of ``Code``.
    init(_ found: Circumstances) {
        guard let record = found.record else {
            self.init(
                .unknown, "No job has this id; it was looked for in \(found.place).",
                ["looked_in": .string(found.place)])
            return
        }
        var facts: WireValue.Object = [
            "name": .string(record.name), "queue": .string(record.queue), "state": .string(record.state.rawValue),
        ]
        func date(_ key: String, _ date: Date?) {
            if let date { facts[key] = .string(WireTimestamp.string(from: date)) }
        }
        func age(_ date: Date?) -> String { date.map { Self.span(found.now.timeIntervalSince($0)) } ?? "some time" }
        date("enqueued_at", record.enqueuedAt)
        if record.state.hasEnded {
            date("ended_at", record.endedAt)
            let why = record.failure.map { ": \($0.type)" } ?? ""
            if record.failure?.kind == .undecodable {
                self.init(
                    .undecodable, "Its message cannot be read, so that it failed \(age(record.endedAt)) ago.", facts)
            } else {
                self.init(.ended, "It \(Self.verb(record.state)) \(age(record.endedAt)) ago\(why).", facts)
            }
            return
        }
        if record.state == .running {
            date("started_at", record.startedAt)
            if let worker = record.worker { facts["worker"] = .string(worker) }
            if let progress = record.progress?.fraction { facts["progress"] = .double(progress) }
            let place = record.worker ?? "a worker"
            if record.isCancelRequested {
                self.init(.cancelling, "It was asked to stop, and still runs on \(place).", facts)
            } else {
                let done = record.progress?.fraction.map { ", and is \(Int($0 * 100)) % done" } ?? ""
                self.init(.running, "It has run for \(age(record.startedAt)) on \(place)\(done).", facts)
            }
            return
        }
        if let due = record.dueAt, due > found.now {
            date("due_at", due)
            let wait = Self.span(due.timeIntervalSince(found.now))
            if record.state == .retrying {
                let error = record.failure?.type ?? "an error"
                facts["error"] = .string(error)
                self.init(.retrying, "It is tried again in \(wait), for the last attempt ended with \(error).", facts)
            } else {
                self.init(.delayed, "It is due in \(wait).", facts)
            }
            return
        }
        self.init(waiting: record, found, facts)
    }

    /// Why a job that is ready does not run.
    private init(waiting record: JobRecord, _ found: Circumstances, _ facts: WireValue.Object) {
        var facts = facts
        let (queue, name) = (record.queue, record.name)
        if found.pausedQueues.contains(queue) {
            self.init(.queuePaused, "Its queue \(queue) is paused: hoist resume \(queue).", facts)
            return
        }
        let reason = record.waitingReason ?? ""
        if reason.contains("closed") {
            facts["reason"] = .string(reason)
            self.init(.queueClosed, "Its queue \(queue) is closed for a while: \(reason).", facts)
            return
        }
        let live = found.workers.filter { !$0.isDraining }
        facts["live_workers"] = .integer(Int64(live.count + found.others.count))
        guard !live.isEmpty || !found.others.isEmpty else {
            self.init(.noWorker, "No worker is alive.", facts)
            return
        }
        let consuming = live.filter { $0.queues.contains(queue) }
        let others = found.others.filter { $0.queues.contains(queue) }
        guard !consuming.isEmpty || !others.isEmpty else {
            if SpecialQueue.isDirect(queue) {
                self.init(
                    .workerMissing, "It is for one worker, which is not alive: the queue \(queue) has no consumer.",
                    facts)
            } else if let labels = SpecialQueue.labels(of: queue) {
                facts["labels"] = .array(labels.map { .string($0) })
                self.init(
                    .labelsMissing,
                    "No live worker has all of the labels that it requires: \(labels.joined(separator: ", ")).",
                    facts)
            } else {
                self.init(.noConsumer, "No live worker consumes its queue \(queue).", facts)
            }
            return
        }
        guard
            consuming.contains(where: { $0.jobNames.contains(name) })
                || others.contains(where: { $0.names.contains(name) })
        else {
            self.init(.noHandler, "No live worker of the queue \(queue) knows the job \(name).", facts)
            return
        }
        let limits = (found.limits[.job(name)] ?? []) + (found.limits[.queue(queue)] ?? [])
        if !limits.isEmpty, reason.contains("limit") || !found.runningBeside.isEmpty {
            facts["limits"] = .array(limits.map { .string($0.description) })
            facts["running"] = .array(found.runningBeside.map { .string($0) })
            let beside = found.runningBeside.isEmpty ? "" : ", and \(found.runningBeside.count) such jobs run"
            let words = limits.map(\.description).joined(separator: "; ")
            self.init(.limited, "A limit may hold it up: \(words)\(beside).", facts)
            return
        }
        if let worker = found.heldBy {
            facts["worker"] = .string(worker)
            self.init(.withPythonWorker, "The worker \(worker) has taken it, and has not begun it.", facts)
            return
        }
        guard let before = found.before else {
            self.init(.inLine, "It waits behind other jobs of the queue \(queue).", facts)
            return
        }
        facts["before"] = .integer(Int64(before))
        let count = found.isBeforeCountedWhole ? "\(before)" : "more than \(before)"
        var time = ""
        if let rate = found.rate, rate > 0 {
            facts["rate"] = .double(rate)
            facts["expected_seconds"] = .double((Double(before + 1) / rate).rounded())
            time = ", and it starts in about \(Self.span(Double(before + 1) / rate))"
        }
        self.init(
            .inLine, "\(count) \(before == 1 ? "job is" : "jobs are") before it in the queue \(queue)\(time).", facts)
    }

    private static func verb(_ state: JobState) -> String {
        switch state {
        case .succeeded: "succeeded"
        case .failed: "failed for good"
        case .cancelled: "was cancelled"
        case .expired: "expired"
        case .waiting, .scheduled, .retrying, .running: state.rawValue
        }
    }

    private static func span(_ seconds: Double) -> String {
        guard seconds.isFinite else { return "some time" }
        let seconds = seconds.clamped(to: 0...1e12)
        return switch seconds {
        case ..<120: "\(Int(seconds.rounded())) s"
        case ..<7200: "\(Int(seconds / 60)) min"
        case ..<172_800: "\(Int(seconds / 3600)) h"
        default: "\(Int(seconds / 86_400)) days"
        }
    }
}

extension Fleet {
    /// Why a job does not run, or what became of it.
    /// - Parameters:
    ///   - id: of the job.
    ///   - patience: how long workers are waited for, and how long the rate of its queue is looked at where it waits.
    /// - Throws: ``BackendError``; asking again is safe.
    public func explain(_ id: JobID, patience: Duration = .seconds(2)) async throws -> JobExplanation {
        let clock = backend.clock
        var found = JobExplanation.Circumstances(id: id, now: clock.now, place: backend.broker.address.url)
        found.record = try await backend.record(of: id)
        guard let record = found.record, !record.state.hasEnded, record.state != .running,
            record.dueAt.map({ $0 <= found.now }) ?? true
        else { return JobExplanation(found) }
        found.workers = try await backend.directory?.workers() ?? []
        found.pausedQueues = try await backend.queueControl?.pausedQueues() ?? []
        found.limits = try await backend.limits?.limits() ?? [:]
        try await lookAtOthers(&found, patience)
        if found.limits[.job(record.name)] != nil || found.limits[.queue(record.queue)] != nil {
            let running = try await backend.directory?.jobs(JobFilter(states: [.running], limit: 1000)) ?? []
            found.runningBeside = running.filter { $0.name == record.name || $0.queue == record.queue }.prefix(20).map(
                \.id)
        }
        if JobExplanation(found).code == .inLine { try await lookAtLine(&found, record, patience) }
        return JobExplanation(found)
    }

    /// Asks workers that no directory lists what they consume, know and hold.
    private func lookAtOthers(_ found: inout JobExplanation.Circumstances, _ patience: Duration) async throws {
        let own = Set(found.workers.map(\.name))
        var queues: [String: Set<String>] = [:]
        for try await reply in ask(.activeQueues, timeout: min(patience, .seconds(1))) where !own.contains(reply.node) {
            queues[reply.node] = Set((reply.value.arrayValue ?? []).compactMap { $0["name"]?.stringValue })
        }
        guard !queues.isEmpty else { return }
        let names = queues.keys.sorted()
        let registered = try await replies(to: .registered, of: .nodes(names), timeout: patience)
        let held = try await replies(to: .jobs([found.id]), of: .nodes(names), timeout: patience)
        for node in names {
            let known = (registered[node]?.arrayValue ?? []).compactMap { text in
                text.stringValue.map { String($0.prefix { $0 != " " }) }
            }
            found.others.append((node, queues[node] ?? [], Set(known)))
            if held[node]?[found.id] != nil { found.heldBy = node }
        }
    }

    private static let mostCounted = 100_000

    private func lookAtLine(
        _ found: inout JobExplanation.Circumstances, _ record: JobRecord, _ patience: Duration
    ) async throws {
        guard let directory = backend.directory else { return }
        func count() async throws -> (before: Int, isWhole: Bool) {
            let end = backend.clock.uptime + 5_000_000
            var (before, seen) = (0, 0)
            var cursor: JobCursor?
            repeat {
                let page = try await directory.page(
                    JobFilter(states: [.waiting], queue: record.queue, limit: 1000), after: cursor)
                for job in page.jobs where job.id != record.id {
                    let isMoreUrgent = job.priority > record.priority
                    let isOlder =
                        job.priority == record.priority
                        && (job.enqueuedAt ?? .distantPast, job.id) < (record.enqueuedAt ?? .distantPast, record.id)
                    if isMoreUrgent || isOlder { before += 1 }
                }
                seen += page.jobs.count
                cursor = page.next
                if seen >= Self.mostCounted || backend.clock.uptime > end { return (before, cursor == nil) }
            } while cursor != nil
            return (before, true)
        }
        let first = try await count()
        let begin = backend.clock.uptime
        await backend.clock.sleep(for: patience)
        let second = try await count()
        (found.before, found.isBeforeCountedWhole) = (second.before, second.isWhole)
        let seconds = Double(backend.clock.uptime - begin) / 1_000_000
        if seconds > 0 { found.rate = max(0, Double(first.before - second.before) / seconds) }
    }
}
