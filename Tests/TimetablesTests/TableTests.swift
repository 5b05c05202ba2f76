import Crypto
import Foundation
import Testing

@testable import Timetables

/// Every row of the tables.
@Suite("Timetables by tables")
struct TableTests {
    struct PlainRow: Decodable {
        var expression: String
        var after: String
        var runs: [String]
    }

    @Test("cron expressions in UTC")
    func plain() throws {
        let rows: [PlainRow] = try Tables.read("cron-plain")
        #expect(rows.count > 150)
        for row in rows {
            let found = try Timetable.cron(row.expression).next(row.runs.count, after: Tables.date(row.after))
            #expect(found.map(Tables.text) == row.runs, "\(row.expression) after \(row.after)")
        }
    }

    @Test("the last run before each run of the table is the one before it")
    func previous() throws {
        let rows: [PlainRow] = try Tables.read("cron-plain")
        for row in rows where row.runs.count > 1 {
            let timetable = Timetable.cron(row.expression)
            let last = try Tables.date(row.runs[row.runs.count - 1])
            #expect(
                try timetable.previous(before: last).map(Tables.text) == row.runs[row.runs.count - 2],
                "\(row.expression)")
            #expect(try timetable.matches(last))
            #expect(try !timetable.matches(last + 0.5))
        }
    }

    @Test("what is no cron expression, and what never runs")
    func bad() throws {
        struct Row: Decodable {
            var expression: String
            var why: String
        }
        let rows: [Row] = try Tables.read("cron-bad")
        #expect(rows.count > 40)
        for row in rows {
            do throws(TimetableError) {
                try Timetable.cron(row.expression).check()
                Issue.record("\(row.expression) is taken")
            } catch {
                switch error {
                case .malformed: #expect(row.why == "malformed", "\(row.expression): \(error)")
                case .neverRuns: #expect(row.why == "never", "\(row.expression): \(error)")
                default: Issue.record("\(row.expression): \(error)")
                }
                #expect("\(error)".count > 10)
            }
        }
    }

    @Test("cron expressions where clocks are changed, with each rule")
    func clockChanges() throws {
        struct Row: Decodable {
            var zone: String
            var after: String
            var until: String
            var runs: [String: [String]]
            var both: [String: [String]]
            var skip: [String: [String]]
        }
        let rows: [Row] = try Tables.read("cron-dst")
        #expect(rows.count == 33)
        for row in rows {
            let (begin, end) = (try Tables.seconds(row.after), try Tables.seconds(row.until))
            for (expression, runs) in row.runs {
                for (change, expected) in [
                    (ClockChange.cron, runs), (.both, row.both[expression] ?? runs),
                    (.skip, row.skip[expression] ?? runs),
                ] {
                    let found = try Timetable.cron(expression, in: row.zone, clockChange: change)
                        .runs(after: begin, until: end)
                    #expect(found == (try expected.map(Tables.seconds)), "\(expression) in \(row.zone), \(change)")
                }
            }
        }
    }

    @Test("every clock change of every zone, 2016 to 2036")
    func zones() throws {
        struct Table: Decodable {
            struct Zone: Decodable {
                var offset: Int
                var changes: [[Int64]]
                var digests: [String: Digest]
            }
            struct Digest: Decodable {
                var count: Int
                var hash: String
                init(from decoder: any Decoder) throws {
                    var values = try decoder.unkeyedContainer()
                    (count, hash) = (try values.decode(Int.self), try values.decode(String.self))
                }
            }
            var from: String
            var until: String
            var zones: [String: Zone]
        }
        let table: Table = try Tables.read("zones")
        let (begin, end) = (try Tables.seconds(table.from), try Tables.seconds(table.until))
        var leftOut: [String] = []
        for (name, zone) in table.zones {
            guard let rules = try? ZoneDatabase.system.rules(of: name) else {
                leftOut.append(name)
                continue
            }
            var changes: [[Int64]] = []
            var segment = rules.segment(at: begin)
            let isSameAtStart = segment.offset == zone.offset
            while segment.end < end {
                let next = rules.segment(at: segment.end)
                changes.append([next.start, Int64(segment.offset), Int64(next.offset)])
                segment = next
            }
            // Another edition of the database.
            guard isSameAtStart, changes == zone.changes else {
                leftOut.append(name)
                continue
            }
            for (expression, digest) in zone.digests {
                let timetable = Timetable.cron(expression, in: name)
                var runs: Set<Int64> = []
                for change in changes {
                    runs.formUnion(try timetable.runs(after: change[0] - 30 * 3600, until: change[0] + 30 * 3600))
                }
                let lines = runs.sorted().map(String.init).joined(separator: "\n")
                let hash = SHA256.hash(data: Data(lines.utf8)).prefix(8).map { padded(String($0, radix: 16)) }.joined()
                #expect(runs.count == digest.count && hash == digest.hash, "\(expression) in \(name)")
            }
        }
        #expect(leftOut.count * 10 <= table.zones.count, "the machine's zones differ: \(leftOut)")
    }

    private func padded(_ hex: String) -> String { hex.count == 1 ? "0" + hex : hex }

    @Test("recurrences of RFC 5545")
    func recurrences() throws {
        struct Table: Decodable {
            struct Rule: Decodable {
                var rule: String
                var runs: [String]
            }
            var rules: [Rule]
            var bad: [String]
        }
        let table: Table = try Tables.read("rrule")
        for rule in table.rules {
            let timetable = Timetable.rrule(rule.rule)
            let begin = try Tables.date(rule.runs[0]) - 1
            let found = try timetable.next(rule.runs.count, after: begin)
            #expect(found.map(Tables.text) == rule.runs, "\(rule.rule)")
            // Wherever one begins, the same runs follow.
            for (index, run) in rule.runs.enumerated().dropLast() {
                #expect(
                    try timetable.next(after: Tables.date(run)).map(Tables.text) == rule.runs[index + 1], "\(rule.rule)"
                )
            }
            if rule.rule.contains("COUNT"), rule.runs.count < 13 {
                #expect(try timetable.next(after: found[found.count - 1]) == nil, "\(rule.rule)")
            }
        }
        for rule in table.bad {
            // The fault is that of the rule, and not of a start that is missing.
            for text in [rule, "DTSTART:20260101T000000Z\n" + rule] {
                #expect(throws: TimetableError.self, "\(text)") { try Timetable.rrule(text).check() }
            }
        }
    }

    @Test("the sun, beside an ephemeris")
    func sun() throws {
        struct Row: Decodable {
            var place: String
            var latitude: Double
            var longitude: Double
            var event: String
            var after: String
            var runs: [String]
            init(from decoder: any Decoder) throws {
                var values = try decoder.unkeyedContainer()
                place = try values.decode(String.self)
                latitude = try values.decode(Double.self)
                longitude = try values.decode(Double.self)
                event = try values.decode(String.self)
                after = try values.decode(String.self)
                runs = try values.decode([String].self)
            }
        }
        let rows: [Row] = try Tables.read("solar")
        #expect(rows.count > 200)
        for row in rows {
            let event = try #require(SunEvent(rawValue: row.event))
            let timetable = Timetable.sun(event, latitude: row.latitude, longitude: row.longitude)
            var after = try Tables.date(row.after)
            for run in row.runs {
                let found = try #require(try timetable.next(after: after), "\(row)")
                let distance = abs(found.timeIntervalSince(try Tables.date(run)))
                #expect(distance <= (abs(row.latitude) <= 65 ? 60 : 180), "\(row): \(Tables.text(found)), not \(run)")
                after = try Tables.date(run) + 600
            }
            if row.runs.isEmpty { #expect(try timetable.next(after: after) == nil, "\(row)") }
        }
    }

    @Test("Celery's crontab: both fields of days must match")
    func celery() throws {
        struct Field: Decodable {
            var text: String
            init(from decoder: any Decoder) throws {
                let value = try decoder.singleValueContainer()
                text = try (try? value.decode(Int.self)).map(String.init) ?? value.decode(String.self)
            }
        }
        struct Table: Decodable {
            struct Row: Decodable {
                var crontab: [String: Field]
                var after: String
                var runs: [String]
            }
            var rows: [Row]
        }
        let table: Table = try Tables.read("celery-crontab")
        for row in table.rows {
            let names = ["minute", "hour", "day_of_month", "month_of_year", "day_of_week"]
            let expression = names.map { row.crontab[$0]?.text ?? "*" }.joined(separator: " ")
            let found = try Timetable.cron(expression, days: .both).next(row.runs.count, after: Tables.date(row.after))
            #expect(found.map(Tables.text) == row.runs, "\(expression)")
        }
    }
}
