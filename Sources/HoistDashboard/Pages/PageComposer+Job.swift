import Hoist
import HoistMonitor

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// A name and a value in a list of facts.
struct FactView: Sendable {
    var name: String
    var value: String
    var link: String?
    /// A time, in place of the value.
    var moment: Moment?
}

/// A button for something that can be done.
struct ActionView: Sendable {
    var action: String
    var label: String
    /// Where it is sent.
    var path: String
    /// It cannot be taken back.
    var isGrave = false
    /// What is asked before.
    var confirm = ""
    /// Why it cannot be done here.
    var refusal: String?
    /// What is to be typed.
    var field: String?
}

extension PageComposer {
    /// The most characters of a text on a page.
    private static let longestText = 20_000

    func job(_ id: JobID) async throws -> PageContent {
        let backend = collector.backend
        let stored = try await store.job(id, backend: collector.number)
        // Nil: it did not answer. A nil within: it does not know the job.
        let answer: JobRecord?? = await soon { try await backend.record(of: id) }
        let record = answer ?? nil
        guard stored != nil || record != nil else {
            return PageContent(
                title: "Job", section: "jobs",
                fragments: [
                    message(
                        "job", title: "No such job",
                        answer == nil
                            ? "The history does not know this id, and the backend did not answer within a second."
                            : "Neither the history nor the backend knows this id. It may have been removed after its retention."
                    )
                ], isMissing: true)
        }
        let why: JobExplanation? =
            if let fleet = collector.fleet, let record, !record.state.hasEnded, record.state != .running {
                await soon { try await fleet.explain(id, patience: .milliseconds(500)) }
            } else {
                nil
            }
        let log = record == nil ? nil : (await soon { try await backend.log(of: id) }) ?? nil
        let children = try await store.children(of: id, backend: collector.number)
        var relatives = children
        if let parent = record?.parentID ?? stored?.job.parentID,
            let above = try await store.job(parent, backend: collector.number)
        {
            relatives.insert(above.job, at: 0)
        }
        let view = JobView(
            id: id, stored: stored?.job, attempts: stored?.attempts ?? [], record: record,
            isPartial: answer == nil, why: why, log: log, relatives: relatives,
            progress: collector.view { $0.picture[job: id]?.progress }, links: links, isReadOnly: isReadOnly, now: now)
        return PageContent(
            title: view.name, section: "jobs", fragments: [renderer.fragment("job", "job", view)])
    }

    static func cut(_ text: String) -> String { text.cut(to: longestText) }
}

/// What the template of a job is filled with.
struct JobView {
    struct Progress {
        var text: String
        var width: Int
    }

    struct Failure {
        var headline: String
        var traceback: String?
    }

    struct Attempt {
        var number: String
        var state: StateView
        var worker: String
        var run: Quantity
        var error: String
    }

    struct LogLine {
        var time: String
        var source: String
        var text: String
    }

    var id: String
    var name: String
    var state: StateView
    var why: String?
    var partial: String?
    var progress: Progress?
    var lifeLine: String
    var error: Failure?
    var arguments: String
    var output: String
    var hasLog: Bool
    var logAttempt: String
    var log: [LogLine]
    var facts: [FactView]
    var hasAttempts: Bool
    var attempts: [Attempt]
    var hasRelatives: Bool
    var rows: [JobRowView]
    var canAct: Bool
    var actions: [ActionView]

    init(
        id: JobID, stored: HistoryJob?, attempts known: [HistoryAttempt], record: JobRecord?, isPartial: Bool,
        why: JobExplanation?, log: JobLog?, relatives: [HistoryJob], progress heard: JobProgress?, links: Links,
        isReadOnly: Bool, now: Date
    ) {
        self.id = id
        name = record?.name ?? stored?.name ?? "unknown"
        // The backend's own record is the truth; without one it is what events told.
        let word = record?.state.rawValue ?? stored?.state.word ?? "waiting"
        state = StateView(word)
        self.why = why?.sentence
        partial =
            isPartial ? "The backend did not answer within a second. This is what events told." : nil
        let progress = record?.progress ?? heard
        self.progress =
            word == "running"
            ? progress.map { progress in
                let share = progress.fraction.map { Int($0 * 100) }
                return Progress(
                    text: [share.map { "\($0)\u{2009}%" }, progress.message?.cut(to: 200)].compactMap { $0 }
                        .joined(separator: " · "),
                    width: (progress.fraction.map { Int($0 * 64) } ?? 0))
            } : nil
        let attempts = Self.attempts(known, record)
        lifeLine = LifeLine(job: stored, record: record, attempts: attempts, now: now).svg
        if let failure = record?.failure, word != "succeeded" {
            error = Failure(
                headline: PageComposer.cut(SecretMask().hide("\(failure.type): \(failure.message)")),
                traceback: failure.crash.map(Self.crash) ?? stored?.traceback.map(PageComposer.cut))
        } else if let text = stored?.error, word != "succeeded" {
            error = Failure(headline: PageComposer.cut(text), traceback: stored?.traceback.map(PageComposer.cut))
        }
        arguments = PageComposer.cut(record?.argumentsText ?? stored?.argumentsText ?? "")
        if arguments.isEmpty { arguments = "not known" }
        output = PageComposer.cut(
            SecretMask().hide(
                record?.output.map(JSONText.shown) ?? stored?.result
                    ?? (HistoryState(word: word)?.hasEnded == true ? "none" : "none yet")))
        self.log = (log?.lines ?? []).suffix(500).map {
            LogLine(
                time: String(WireTimestamp.string(from: $0.time).dropFirst(11).prefix(12)), source: $0.source,
                text: $0.text)
        }
        hasLog = !self.log.isEmpty
        logAttempt = log.map { String($0.attempt) } ?? ""
        facts = Self.facts(stored, record, links, now)
        self.attempts = attempts.map { attempt in
            let run = attempt.startedAt.flatMap { start in attempt.endedAt.map { $0.timeIntervalSince(start) } }
            return Attempt(
                number: String(attempt.number), state: StateView(attempt.state ?? .running),
                worker: attempt.worker ?? "–", run: Format.span(run), error: attempt.error?.cut(to: 300) ?? "")
        }
        hasAttempts = self.attempts.count > 1
        rows = relatives.map { JobRowView($0, links, now) }
        hasRelatives = !rows.isEmpty
        canAct = !isReadOnly
        actions = Self.actions(id, word, record, links)
    }

    /// What an attempt that ended in this way is shown as; nil for one that did not end the job and is no failure.
    private static func state(after outcome: String) -> HistoryState? {
        switch outcome {
        case Outcome.retriedLabel: .retrying
        case Outcome.cancelledLabel: .cancelled
        case Outcome.failedLabel, Outcome.workerLostLabel: .failed
        // Snoozed, refused, handed back: it waits.
        default: .scheduled
        }
    }

    private static func attempts(_ known: [HistoryAttempt], _ record: JobRecord?) -> [HistoryAttempt] {
        guard let record, !record.history.isEmpty, known.count <= record.history.count else { return known }
        var attempts = record.history.map { entry in
            var attempt = HistoryAttempt(number: entry.number)
            attempt.worker = entry.worker
            (attempt.startedAt, attempt.endedAt) = (entry.startedAt, entry.endedAt)
            attempt.state = state(after: entry.outcome)
            attempt.error = entry.failure.map { "\($0.type): \($0.message)" } ?? entry.outcome
            return attempt
        }
        if record.state == .running || record.state == .succeeded, let start = record.startedAt {
            var last = HistoryAttempt(number: max(record.attempts, (attempts.last?.number ?? 0) + 1))
            (last.worker, last.startedAt, last.endedAt) = (record.worker, start, record.endedAt)
            last.state = record.state == .succeeded ? .succeeded : nil
            attempts.append(last)
        }
        return attempts
    }

    private static func crash(_ crash: JobFailure.Crash) -> String {
        var lines: [String] = []
        if let signal = crash.signal { lines.append("killed by signal \(signal)") }
        if let status = crash.status { lines.append("exited with status \(status)") }
        lines += crash.lastLines
        if let backtrace = crash.backtrace { lines.append(backtrace) }
        return PageComposer.cut(lines.joined(separator: "\n"))
    }

    private static func facts(_ stored: HistoryJob?, _ record: JobRecord?, _ links: Links, _ now: Date) -> [FactView] {
        var facts: [FactView] = []
        func add(_ name: String, _ value: String?, _ link: String? = nil) {
            if let value, !value.isEmpty { facts.append(FactView(name: name, value: value.cut(to: 300), link: link)) }
        }
        func add(_ name: String, _ date: Date?) {
            if let date { facts.append(FactView(name: name, value: "", moment: Moment(date, now))) }
        }
        let queue = record?.queue ?? stored?.queue
        add("Queue", queue, queue.map(links.queue))
        add("Worker", stored?.worker ?? record?.worker, stored?.worker.map(links.worker))
        add("Lane", stored?.lane)
        if let record {
            add("Priority", String(record.priority))
            if record.lostWorkers > 0 { add("Workers that died with it", String(record.lostWorkers)) }
        }
        add("Attempts", (record.map { max(1, $0.attempts) } ?? stored.map { $0.retries + 1 }).map(String.init))
        add("Enqueued", record?.enqueuedAt ?? stored?.sentAt)
        add("Due", record?.dueAt ?? stored?.due)
        add("Expires", stored?.expires)
        add("Claimed", stored?.receivedAt)
        add("Started", record?.startedAt ?? stored?.startedAt)
        add("Ended", record?.endedAt ?? stored?.endedAt)
        add("Ran", (stored?.runTime).map { Format.span($0).text })
        if let usage = record?.usage, let memory = usage.peakMemory { add("Peak memory", Format.bytes(memory).text) }
        let (parent, root) = (record?.parentID ?? stored?.parentID, record?.rootID ?? stored?.rootID)
        add("Started by", parent, parent.map(links.job))
        if root != parent, root != (record?.id ?? stored?.id) { add("Root", root, root.map(links.job)) }
        let headers = record?.headers ?? [:]
        let mask = SecretMask()
        for (name, value) in headers.prefix(30) {
            add(name.cut(to: 60), mask.isSecret(name) ? SecretMask.hidden : JSONText.shown(value))
        }
        return facts
    }

    private static func actions(_ id: JobID, _ state: String, _ record: JobRecord?, _ links: Links) -> [ActionView] {
        let path = links.job(id)
        switch state {
        case "waiting", "running":
            return [ActionView(action: "cancel", label: "Cancel", path: path)]
        case "scheduled", "retrying":
            return [
                ActionView(
                    action: "run-now", label: "Run now", path: path,
                    refusal: record == nil ? "the backend has no record of a Python task" : nil),
                ActionView(action: "cancel", label: "Cancel", path: path),
            ]
        case "failed", "cancelled", "expired":
            let refusal =
                record == nil ? "the backend keeps no message of a Python task that has ended" : nil
            return [
                ActionView(action: "retry", label: "Retry", path: path, refusal: refusal),
                ActionView(
                    action: "drop", label: "Drop", path: path, isGrave: true,
                    confirm: "Remove this job for good? It cannot be retried afterwards.", refusal: refusal),
            ]
        default: return []
        }
    }
}
