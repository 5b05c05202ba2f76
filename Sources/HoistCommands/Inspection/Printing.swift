import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// A table of text in columns as wide as their content.
struct TextTable {
    private var rows: [[String]]

    init(_ header: String...) { rows = [header] }

    /// Cells may hold whatever a payload holds.
    mutating func add(_ cells: String...) { rows.append(cells.map(TerminalText.line)) }

    func printed() -> String {
        let widths = (0..<rows[0].count).map { column in rows.map { $0[column].count }.max() ?? 0 }
        let state = rows[0].firstIndex(of: "STATE")
        return rows.enumerated().map { line, row in
            zip(row, widths).enumerated().map { column, part in
                let text = part.0 + String(repeating: " ", count: part.1 - part.0.count)
                return column == state && line > 0 ? TerminalColours.coloured(text) : text
            }
            .joined(separator: "  ").trimmingTrailingSpaces
        }.joined(separator: "\n")
    }
}

extension String {
    fileprivate var trimmingTrailingSpaces: String {
        var text = self
        while text.last == " " { text.removeLast() }
        return text
    }
}

enum Printing {
    /// How long ago, in the largest unit that fits: `3 min`.
    static func age(of date: JobDate?, now: JobDate = JobDate()) -> String {
        guard let date else { return "-" }
        let seconds = now.timeIntervalSince(date)
        let magnitude = min(abs(seconds), 1e13)
        guard seconds.isFinite else { return "-" }
        let text =
            switch magnitude {
            case ..<1: "\(Int(magnitude * 1000)) ms"
            case ..<120: "\(Int(magnitude)) s"
            case ..<7200: "\(Int(magnitude / 60)) min"
            case ..<172_800: "\(Int(magnitude / 3600)) h"
            default: "\(Int(magnitude / 86_400)) d"
            }
        return seconds < 0 ? "in \(text)" : text
    }

    static func jobs(_ records: [JobRecord]) -> String {
        guard !records.isEmpty else { return "no jobs" }
        var table = TextTable("ID", "STATE", "QUEUE", "NAME", "ATTEMPT", "AGE", "ARGUMENTS")
        for record in records {
            table.add(
                record.id, record.state.rawValue, record.queue, record.name, String(record.attempts),
                age(of: record.enqueuedAt),
                clipped(record.argumentsText))
        }
        return table.printed()
    }

    /// One line of a text that a payload holds.
    static func clipped(_ text: String, to length: Int = 60) -> String {
        let safe = TerminalText.line(String(text.prefix(length)))
        return safe.count > length || text.count > length ? safe.prefix(length - 1) + "…" : safe
    }

    static func job(_ record: JobRecord) -> String {
        var lines: [(String, String)] = [
            ("id", record.id), ("name", record.name), ("queue", record.queue), ("state", record.state.rawValue),
            ("arguments", clipped(record.argumentsText, to: 2000)), ("priority", String(record.priority)),
            ("attempts", String(record.attempts)),
        ]
        func add(_ label: String, _ value: String?) {
            if let value { lines.append((label, value)) }
        }
        add("why it waits", record.waitingReason)
        add("cancel", record.isCancelRequested ? "requested" : nil)
        add("worker", record.worker)
        add("workers lost", record.lostWorkers > 0 ? String(record.lostWorkers) : nil)
        add("enqueued", record.enqueuedAt.map { "\(WireTimestamp.string(from: $0)) (\(age(of: $0)))" })
        add("due", record.dueAt.map { "\(WireTimestamp.string(from: $0)) (\(age(of: $0)))" })
        add("started", record.startedAt.map { moment($0, "waited", since: record.enqueuedAt ?? record.dueAt) })
        add("ended", record.endedAt.map { moment($0, "ran", since: record.startedAt) })
        if let progress = record.progress {
            let percent = progress.fraction.flatMap(JobProgress.bounded).map { "\(Int($0 * 100)) %" }
            add(
                "progress",
                [percent, progress.message.map { clipped($0, to: 500) }].compactMap { $0 }.joined(separator: ", "))
        }
        add("output", record.state == .succeeded ? clipped((record.output ?? .null).description, to: 4000) : nil)
        add("failure", record.failure.map { clipped($0.description, to: 4000) })
        if let crash = record.failure?.crash {
            add(
                "it wrote last",
                crash.lastLines.isEmpty ? nil : crash.lastLines.map { clipped($0, to: 500) }.joined(separator: "\n"))
            add(
                "backtrace",
                crash.backtrace.map {
                    $0.split(separator: "\n").map { clipped(String($0), to: 300) }.joined(separator: "\n")
                })
        }
        add("used", record.usage.map(usage))
        add("parent", record.parentID)
        add("root", record.rootID == record.id ? nil : record.rootID)
        let width = lines.map(\.0.count).max() ?? 0
        let indentation = "\n" + String(repeating: " ", count: width + 2)
        var text = lines.map { label, value in
            label + String(repeating: " ", count: width - label.count + 2)
                + value.split(separator: "\n").map { TerminalText.line(String($0)) }.joined(separator: indentation)
        }.joined(separator: "\n")
        for attempt in record.history {
            let failure = attempt.failure.map { ": " + clipped($0.description, to: 400) } ?? ""
            let used = attempt.usage.map { " (\(usage($0)))" } ?? ""
            text +=
                "\nattempt \(attempt.number)  \(WireTimestamp.string(from: attempt.endedAt))  "
                + clipped("\(attempt.outcome) on \(attempt.worker ?? "-")", to: 300) + failure + used
        }
        return text
    }

    /// A time, and how long something took until then.
    private static func moment(_ date: JobDate, _ what: String, since begin: JobDate?) -> String {
        let time = WireTimestamp.string(from: date)
        guard let seconds = begin.map({ date.timeIntervalSince($0) }), seconds >= 0, seconds < 1e9 else { return time }
        return "\(time) (\(what) \(seconds < 10 ? (seconds * 1000).rounded() / 1000 : seconds.rounded()) s)"
    }

    static func usage(_ usage: ResourceUsage) -> String {
        func seconds(_ value: Double) -> String {
            value < 10 ? "\((value * 1000).rounded() / 1000) s" : "\(Int64(bounded: value)) s"
        }
        let memory = usage.peakMemory.map { ", \($0 >> 20) MiB at most" } ?? ""
        return "\(seconds(usage.cpuSeconds)) of processor time in \(seconds(usage.wallSeconds))\(memory)"
    }

    /// The lines of a log that were not printed before.
    static func log(_ log: JobLog, after printed: JobLog) -> String {
        let isSame = log.attempt == printed.attempt
        // Lines are counted from the first that the attempt wrote.
        let seen = isSame ? printed.omitted + printed.lines.count : 0
        var lines: [String] = []
        if log.omitted > seen { lines.append("… \(log.omitted - seen) lines are not kept …") }
        for line in log.lines.dropFirst(max(0, seen - log.omitted)) {
            lines.append(
                "\(WireTimestamp.string(from: line.time))  \(clipped(line.source))  \(clipped(line.text, to: LineSplitter.maximumBytes))"
            )
        }
        return lines.joined(separator: "\n")
    }

    static func queues(_ queues: [QueueStatistics]) -> String {
        guard !queues.isEmpty else { return "no queues" }
        var table = TextTable("QUEUE", "WAITING", "SCHEDULED", "RUNNING", "FAILED", "OLDEST")
        for queue in queues {
            table.add(
                queue.name, String(queue.waiting), String(queue.scheduled), String(queue.running), String(queue.failed),
                age(of: queue.oldestWaiting))
        }
        return table.printed()
    }

    /// - Parameter others: workers that are not Hoist's.
    static func workers(_ workers: [WorkerPresence], others: [OtherWorker] = []) -> String {
        guard !workers.isEmpty || !others.isEmpty else { return "no workers" }
        var table = TextTable(
            "WORKER", "LANGUAGE", "STATE", "RUNNING", "SLOTS", "QUEUES", "JOBS", "UP", "LAST TOOK OR SETTLED")
        for worker in others {
            table.add(
                worker.name, worker.isSwift ? "Swift" : "Python", "working", String(worker.running),
                worker.slots.map(String.init) ?? "-",
                worker.queues.joined(separator: ","), clipped(worker.jobNames.joined(separator: ",")),
                age(of: worker.startedAt), "-")
        }
        for worker in workers {
            table.add(
                worker.name, "Swift", worker.isDraining ? "draining" : "working", String(worker.running),
                String(worker.concurrency),
                worker.queues.joined(separator: ","), clipped(worker.jobNames.joined(separator: ",")),
                age(of: worker.startedAt),
                age(of: worker.lastConsumedAt))
        }
        return table.printed()
    }

    static func json(_ value: some Encodable) throws -> String { try JSONText.shown(value) }

    /// A value as `--json` shows it.
    static func encoded(_ value: some Encodable) throws -> WireValue {
        try JSONText.parse(Array(try JSONText.shown(value).utf8))
    }

    static func value(_ worker: WorkerPresence) throws -> WireValue {
        var members = try encoded(worker).objectValue ?? [:]
        members["language"] = "swift"
        return .object(members)
    }

    static func value(_ count: JobCount) -> WireValue {
        [
            "queue": .string(count.queue), "name": .string(count.name), "count": .integer(Int64(count.count)),
            "is_estimate": .bool(count.isEstimate),
        ]
    }

    /// Queues of Celery's that no live worker consumes.
    static func unconsumed(_ queues: [QueueStatistics]) -> String {
        var table = TextTable("NO WORKER CONSUMES", "WAITING")
        for queue in queues { table.add(clipped(queue.name), String(queue.waiting)) }
        let hint =
            queues.contains { $0.name == "celery" }
            ? "\ncelery is the queue of Python tasks that name none; Hoist's is default. A worker takes it by --queue celery."
            : ""
        return table.printed() + hint
    }

    /// Jobs whose names no live worker knows.
    static func unknown(_ counts: [JobCount]) -> String {
        var table = TextTable("NO WORKER KNOWS", "QUEUE", "WAITING")
        for count in counts.sorted(by: { ($0.queue, $0.name) < ($1.queue, $1.name) }) {
            table.add(clipped(count.name), count.queue, (count.isEstimate ? "about " : "") + String(count.count))
        }
        return table.printed()
    }
}
