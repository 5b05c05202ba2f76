import ArgumentParser
import Hoist
import Timetables

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

struct ScheduleCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "schedule", abstract: "Jobs that repeat.",
        subcommands: [
            ListSchedules.self, ShowSchedule.self, AddSchedule.self, PauseSchedule.self, ResumeSchedule.self,
            SkipRun.self, RunSchedule.self, BackfillSchedule.self, RemoveSchedule.self, ScheduleHistory.self,
            NextRunsCommand.self,
        ], defaultSubcommand: ListSchedules.self)
}

struct NextRunsCommand: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "next", abstract: "The next runs of a cron expression, an interval or a recurrence.",
        discussion: """
            Needs no backend. EXPRESSION has five fields (minute, hour, day of month, month, day of week), or six with seconds in \
            front; or it is a name such as @daily, @every 90s, or a recurrence of RFC 5545 that begins with DTSTART. It ends with 1 when \
            there is no run, and with 64 when the expression is none.
            """)
    @OptionGroup var when: TimetableOptions
    @Argument(help: "Such as \"30 2 * * *\".") var expression: String
    @Option(name: .long, help: "How many, 1 to 10,000.") var count = 10
    @Option(name: .long, help: "Runs after this moment, in ISO 8601; now, when it is left out.") var after: String?
    @Flag(name: .long, help: "Print JSON.") var json = false

    func validate() throws {
        guard (1...10_000).contains(count) else {
            throw ValidationError("--count \(count): 1 to 10,000 can be printed")
        }
        _ = try moment()
        do {
            try timetable.check()
        } catch {
            throw ValidationError("\(error)")
        }
    }

    func perform() async throws {
        let begin = try moment()
        let runs = try timetable.next(count, after: begin)
        let words = try timetable.words(after: begin)
        if json {
            print(try JSONText.shown(Answer(words: words, runs: runs)))
        } else {
            print(TerminalText.line(words))
            for run in runs {
                let utc = try ZoneDatabase.system.text(of: run, in: "UTC")
                print(when.zone == "UTC" ? utc : "\(try ZoneDatabase.system.text(of: run, in: when.zone))   \(utc)")
            }
        }
        if runs.isEmpty { throw ExitCode(1) }
    }

    private struct Answer: Encodable {
        var words: String
        var runs: [Date]
    }

    private var timetable: Timetable { when.timetable(of: expression) }

    private func moment() throws -> Date { try after.map { try DateArgument.date($0, "--after") } ?? Date() }
}

/// How an expression on the command line is read.
struct TimetableOptions: ParsableArguments {
    @Option(name: .long, help: "The time zone, such as Europe/Berlin.") var zone = "UTC"
    @Flag(name: .long, help: "The day of month and the day of week must both match, as in Celery.") var bothDays = false
    @Flag(name: .long, help: "Leave out times that do not exist because clocks are put forward.") var skipGaps = false
    @Flag(name: .long, help: "Run twice at times that come twice because clocks are put back.") var bothTimes = false

    func timetable(of expression: String) -> Timetable {
        if expression.uppercased().hasPrefix("DTSTART") { return .rrule(expression) }
        return .cron(
            expression, in: zone,
            clockChange: ClockChange(gap: skipGaps ? .skip : .after, repeated: bothTimes ? .both : .first),
            days: bothDays ? .both : .cron)
    }
}
