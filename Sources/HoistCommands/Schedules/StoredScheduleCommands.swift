import ArgumentParser
import Hoist
import Logging

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

extension InspectionOptions {
    fileprivate var schedules: ScheduleClient {
        get throws {
            JobClient(
                try open(), logger: Logger(label: "hoist", factory: { _ in SwiftLogNoOpLogHandler() })
            ).schedules
        }
    }

    /// Prints what a change has made of a schedule.
    fileprivate func print(_ record: ScheduleRecord, _ words: String) throws {
        Swift.print(json ? try JSONText.shown(ShownSchedule(record)) : TerminalText.line("\(record.id) \(words)"))
    }
}

/// Ends a command with 1.
private struct NoSchedule: Error, CustomStringConvertible {
    var id: String
    var description: String { "there is no schedule \(TerminalText.line(id))" }
}

/// A schedule as JSON.
private struct ShownSchedule: Encodable {
    var id: String
    var state: String
    var when: String
    var job: String
    var queue: String?
    var overlap: String
    var next: Date?
    var previous: Date?
    var runs: Int
    var note: String?
    var app: String?
    var revision: Int64

    init(_ record: ScheduleRecord) {
        (id, state, job, queue) = (record.id, record.state.rawValue, record.jobName, record.queue)
        when = record.timetable.map { "\($0)" } ?? ""
        (overlap, next, previous) = (record.overlap.rawValue, record.next, record.previous)
        (runs, note, app, revision) = (record.runs, record.note, record.app, record.revision)
    }
}

struct ListSchedules: AskingCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "All schedules, by their ids.")
    @OptionGroup var options: InspectionOptions

    func perform() async throws {
        var records: [ScheduleRecord] = []
        while true {
            let page = try await options.schedules.list(after: records.last?.id ?? "")
            if page.isEmpty { break }
            records += page
        }
        if options.json { return print(try JSONText.shown(records.map(ShownSchedule.init))) }
        guard !records.isEmpty else { return print("no schedules") }
        var table = TextTable("ID", "STATE", "NEXT", "RUNS", "JOB", "WHEN")
        for record in records {
            table.add(
                record.id, record.state.rawValue, Printing.age(of: record.next), String(record.runs), record.jobName,
                record.timetable.map { "\($0)" } ?? record.note ?? "")
        }
        print(table.printed())
    }
}

struct ShowSchedule: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "One schedule, with its next runs.",
        discussion: "It ends with 1 when there is none.")
    @OptionGroup var options: InspectionOptions
    @Argument(help: "The schedule's id.") var id: String

    func perform() async throws {
        guard let record = try await options.schedules.schedule(id) else {
            throw NoSchedule(id: id)
        }
        if options.json { return print(try JSONText.shown(ShownSchedule(record))) }
        var lines = [
            ("id", record.id), ("state", record.state.rawValue), ("job", record.jobName),
            ("when", try record.timetable?.words(after: Date()) ?? ""), ("overlap", record.overlap.rawValue),
            ("runs", String(record.runs)),
        ]
        if let queue = record.queue { lines.append(("queue", queue)) }
        if let app = record.app { lines.append(("declared by", app)) }
        if let note = record.note, !note.isEmpty { lines.append(("note", note)) }
        if let previous = record.previous { lines.append(("last run", WireTimestamp.string(from: previous))) }
        for next in try await options.schedules.next(id, count: 5) {
            lines.append(("next run", WireTimestamp.string(from: next)))
        }
        let width = lines.map(\.0.count).max() ?? 0
        for (name, value) in lines {
            print(name + String(repeating: " ", count: width - name.count + 2) + TerminalText.line(value))
        }
    }
}

struct AddSchedule: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "add", abstract: "Store a schedule, or change the one with its id.",
        discussion: """
              hoist schedule add nightly "0 3 * * *" reports.make --zone Europe/Berlin --queue reports --overlap skip
              hoist schedule add poll "@every 30s" shop.poll --kwargs '{"shop": 7}'
            """)
    @OptionGroup var options: InspectionOptions
    @OptionGroup var when: TimetableOptions
    @Argument(help: "The schedule's id.") var id: String
    @Argument(help: "A cron expression, or a recurrence that begins with DTSTART.") var expression: String
    @Argument(help: "The job's wire name.") var name: String
    @Option(name: .long, help: "Positional arguments, a JSON array.") var args = "[]"
    @Option(name: .long, help: "Keyword arguments, a JSON object.") var kwargs = "{}"
    @Option(name: .long, help: "The queue.") var queue: String?
    @Option(name: .long, help: "0 to 9, 9 is the most urgent.") var priority: Int?
    @Option(name: .long, help: "Seconds after which a run that has not started is dropped.") var expires: Double?
    @Option(name: .long, help: "What becomes of a run while an earlier one has not ended.") var overlap: Overlap =
        .allow
    @Option(name: .long, help: "What becomes of runs that nobody ticked in time: skip, or once for the latest.")
    var catchUp: CatchUp = .once
    @Option(name: .long, help: "Runs start later by up to so many seconds.") var jitter: Double = 0
    @Option(name: .long, help: "No more than so many runs.") var maxRuns: Int?

    enum Overlap: String, ExpressibleByArgument, CaseIterable {
        case allow, skip, queueOne = "queue-one", queueAll = "queue-all", cancelPrevious = "cancel-previous"

        var policy: ScheduleOverlap {
            switch self {
            case .allow: .allow
            case .skip: .skip
            case .queueOne: .queueOne
            case .queueAll: .queueAll
            case .cancelPrevious: .cancelPrevious
            }
        }
    }

    enum CatchUp: String, ExpressibleByArgument, CaseIterable { case skip, once }

    func perform() async throws {
        let arguments = Arguments(
            positional: try JSONArgument.array(args, option: "--args"),
            keyword: try JSONArgument.object(kwargs, option: "--kwargs"))
        var call: [EnqueueOption] = []
        if let priority { call.append(.priority(priority)) }
        if let expires { call.append(.expires(after: try SecondsArgument.duration(expires, "--expires"))) }
        let schedule = Schedule(
            id, when.timetable(of: expression), named: name, arguments: arguments, queue: queue, options: call,
            overlap: overlap.policy, catchUp: catchUp == .skip ? .skip : .once,
            jitter: try SecondsArgument.duration(jitter, "--jitter"),
            maxRuns: maxRuns)
        do throws(ScheduleError) { try schedule.check() } catch { throw ValidationError("\(error)") }
        let record = try await options.schedules.put(schedule)
        try options.print(record, "runs \(record.timetable.map { "\($0)" } ?? "")")
    }
}

struct PauseSchedule: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "pause", abstract: "Have a schedule not run until it is resumed.")
    @OptionGroup var options: InspectionOptions
    @Argument(help: "The schedule's id.") var id: String
    @Option(name: .long, help: "Why, for people.") var note = ""

    func perform() async throws { try options.print(try await options.schedules.pause(id, note: note), "is paused") }
}

struct ResumeSchedule: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "resume", abstract: "Have a paused schedule run again.")
    @OptionGroup var options: InspectionOptions
    @Argument(help: "The schedule's id.") var id: String

    func perform() async throws { try options.print(try await options.schedules.resume(id), "is resumed") }
}

struct SkipRun: AskingCommand {
    static let configuration = CommandConfiguration(commandName: "skip", abstract: "Leave out the next run.")
    @OptionGroup var options: InspectionOptions
    @Argument(help: "The schedule's id.") var id: String

    func perform() async throws { try options.print(try await options.schedules.skipNext(id), "skips its next run") }
}

struct RunSchedule: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Start a run now. The timetable is not moved.")
    @OptionGroup var options: InspectionOptions
    @Argument(help: "The schedule's id.") var id: String

    func perform() async throws {
        let job = try await options.schedules.runNow(id)
        if options.json {
            return print(JSONText.shown(["jobs": .array(job.map { [.string($0)] } ?? [])] as WireValue))
        }
        print(TerminalText.line(job ?? "it starts when the earlier run has ended"))
    }
}

struct BackfillSchedule: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "backfill", abstract: "Start the runs of a time that has passed, 1,000 at most.")
    @OptionGroup var options: InspectionOptions
    @Argument(help: "The schedule's id.") var id: String
    @Option(name: .long, help: "Runs after this moment, in ISO 8601.") var from: String
    @Option(name: .long, help: "And not after this one; now, when it is left out.") var to: String?

    func perform() async throws {
        let jobs = try await options.schedules.backfill(
            id, from: try DateArgument.date(from, "--from"),
            to: try to.map { try DateArgument.date($0, "--to") } ?? Date())
        if options.json { return print(JSONText.shown(["jobs": .array(jobs.map { .string($0) })] as WireValue)) }
        print("\(jobs.count) runs are started")
    }
}

struct RemoveSchedule: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "remove", abstract: "Remove a schedule and its history.",
        discussion: "It ends with 1 when there is none.")
    @OptionGroup var options: InspectionOptions
    @Argument(help: "The schedule's id.") var id: String

    func perform() async throws {
        let isRemoved = try await options.schedules.remove(id)
        guard isRemoved else { throw NoSchedule(id: id) }
        print(
            options.json ? JSONText.shown(["removed": .string(id)] as WireValue) : TerminalText.line("\(id) is removed")
        )
    }
}

struct ScheduleHistory: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "history", abstract: "What became of the last 100 ticks of a schedule, the newest first.")
    @OptionGroup var options: InspectionOptions
    @Argument(help: "The schedule's id.") var id: String

    private struct Shown: Encodable {
        var number: Int
        var due: Date
        var tickedAt: Date
        var by: String
        var reason: String
        var job: String?

        enum CodingKeys: String, CodingKey { case number, due, tickedAt = "ticked_at", by, reason, job }
    }

    func perform() async throws {
        let schedules = try options.schedules
        guard try await schedules.schedule(id) != nil else { throw NoSchedule(id: id) }
        let entries = try await schedules.history(of: id)
        if options.json {
            return print(
                try JSONText.shown(
                    entries.map {
                        Shown(
                            number: $0.number, due: $0.due, tickedAt: $0.tickedAt, by: $0.by, reason: $0.reason,
                            job: $0.job)
                    }))
        }
        guard !entries.isEmpty else { return print("no ticks") }
        var table = TextTable("TICK", "DUE", "LATE", "BY", "WHY", "JOB")
        for entry in entries {
            let late = Int(entry.tickedAt.timeIntervalSince(entry.due) * 1000)
            table.add(
                String(entry.number), WireTimestamp.string(from: entry.due), "\(late) ms", entry.by, entry.reason,
                entry.job ?? "-")
        }
        print(table.printed())
    }
}

/// Lengths on the command line.
enum SecondsArgument {
    /// - Throws: `ValidationError` for what is no length, also one of more than 100 years.
    static func duration(_ seconds: Double, _ option: String) throws -> Duration {
        guard seconds >= 0, seconds <= 3_155_760_000 else {
            throw ValidationError("\(option) \(seconds): 0 seconds to 100 years are possible")
        }
        return .seconds(seconds)
    }
}

/// Dates on the command line.
enum DateArgument {
    static func date(_ text: String, _ option: String) throws -> Date {
        guard let date = WireTimestamp.date(from: text) else {
            throw ValidationError("\(option) \"\(text)\" is no date in ISO 8601, such as 2026-03-29T00:00:00Z")
        }
        return date
    }
}
