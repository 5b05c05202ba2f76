import Foundation
import HoistTesting
import Testing

@testable import Timetables

/// Mutated texts and files: no trap, and no run outside the rules.
@Suite("Mutated timetables", .timeLimit(.minutes(10)))
struct FuzzTests {
    @Test("cron expressions: what is taken runs when its fields allow")
    func cron() throws {
        let rows: [TableTests.PlainRow] = try Tables.read("cron-plain")
        let corpus = Set(rows.map(\.expression)).sorted().map { Array($0.utf8) }
        let begin = try Tables.date("2026-01-01T00:00:00Z")
        Fuzzing.run(
            "cron expressions", corpus: corpus,
            tokens: ["*", "/", "-", ",", "L", "W", "#", "?", "@", " ", "7", "31", "FRI"]
        ) {
            let text = String(decoding: $0, as: UTF8.self)
            let table = Timetable.cron(text, in: "Europe/Berlin")
            _ = table.description
            guard let runs = try? table.next(3, after: begin), case .success(.cron(let expression)) = table.parsed
            else { return }
            for run in runs {
                let time = Int64(run.timeIntervalSince1970)
                let rules = try? ZoneDatabase.system.rules(of: "Europe/Berlin")
                let isAfterGap = rules?.segment(at: time).start == time
                if !isAfterGap { #expect(expression.allows(time + Int64(rules?.offset(at: time) ?? 0)), "\(text)") }
            }
            #expect(zip(runs, runs.dropFirst()).allSatisfy(<), "\(text)")
        }
    }

    @Test("recurrences")
    func recurrences() throws {
        let corpus = [
            "DTSTART;TZID=Europe/Berlin:20260101T090000\nRRULE:FREQ=DAILY;COUNT=10",
            "DTSTART:20260904T090000Z\nRRULE:FREQ=MONTHLY;COUNT=3;BYDAY=TU,WE,TH;BYSETPOS=3",
            "DTSTART:20260902T090000Z\nRRULE:FREQ=SECONDLY;INTERVAL=45;BYHOUR=9\nEXDATE:20260902T090045Z",
            "DTSTART:20260512T090000\nRRULE:FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO;UNTIL=20301224T000000Z",
        ].map { Array($0.utf8) }
        let begin = try Tables.date("2026-01-01T00:00:00Z")
        Fuzzing.run(
            "recurrences", corpus: corpus,
            tokens: ["BYDAY=-1FR", "BYMONTHDAY=30", "BYMONTH=2", ";", "=", ",", "-", "YEARLY", "HOURLY", "99"]
        ) {
            let table = Timetable.rrule(String(decoding: $0, as: UTF8.self))
            _ = table.description
            if let runs = try? table.next(2, after: begin) { #expect(zip(runs, runs.dropFirst()).allSatisfy(<)) }
        }
    }

    @Test("zone files")
    func zoneFiles() throws {
        let corpus = try ["Europe/Berlin", "Africa/Casablanca", "UTC"].map {
            Array(try Data(contentsOf: URL(fileURLWithPath: "/usr/share/zoneinfo/" + $0)))
        }
        Fuzzing.run(
            "zone files", corpus: corpus, tokens: ["TZif2", "\n<+01>-1\n", "\u{FF}\u{FF}\u{FF}\u{FF}", "M10.5.0/3"]
        ) {
            guard let rules = ZoneFile.read($0) else { return }
            for time in [Int64(-4_000_000_000), 0, 1_790_000_000, 200_000_000_000] {
                let segment = rules.segment(at: time)
                #expect(segment.start <= time && time < segment.end)
                _ = rules.moments(showing: time)
            }
        }
    }
}
