import Foundation
import Testing

@testable import Timetables

@Suite("Timetables")
struct TimetableTests {
    private func runs(_ timetable: Timetable, _ count: Int, after: String, _ calendars: [String: DayCalendar] = [:])
        throws
        -> [String]
    {
        try timetable.next(count, after: Tables.date(after), calendars: calendars).map(Tables.text)
    }

    // MARK: - Intervals, dates, unions

    @Test("an interval is counted from 1970 and does not drift")
    func intervals() throws {
        #expect(
            try runs(.every(.seconds(6 * 3600)), 3, after: "2026-03-29T00:30:00Z") == [
                "2026-03-29T06:00:00Z", "2026-03-29T12:00:00Z", "2026-03-29T18:00:00Z",
            ])
        #expect(
            try runs(.every(.seconds(90), offset: .seconds(7)), 2, after: "2026-03-29T00:00:07Z") == [
                "2026-03-29T00:01:37Z", "2026-03-29T00:03:07Z",
            ])
        #expect(try runs(.cron("@every 90s"), 1, after: "2026-03-29T00:00:00Z") == ["2026-03-29T00:01:30Z"])
        let quick = Timetable.every(.milliseconds(250), allowsSubsecond: true)
        let begin = try Tables.date("2026-03-29T00:00:00Z")
        #expect(try quick.next(2, after: begin).map { $0.timeIntervalSince(begin) } == [0.25, 0.5])
        #expect(try quick.previous(before: begin).map { $0.timeIntervalSince(begin) } == -0.25)
        #expect(
            try Timetable.every(.seconds(10)).previous(before: Date(timeIntervalSince1970: -5))
                == Date(timeIntervalSince1970: -10))
    }

    static let refused: [(Timetable, String)] = [
        (.every(.zero), "interval"), (.every(.milliseconds(999)), "100 ms where subseconds are allowed"),
        (.every(.milliseconds(99), allowsSubsecond: true), "interval"), (.every(.seconds(Int64.max)), "100 years"),
        (.every(.seconds(-5)), "interval"), (.every(.seconds(5), offset: .seconds(5)), "offset"),
        (.every(.seconds(5), offset: .seconds(-1)), "offset"), (.at([]), "dates"), (.any([]), "any"),
        (.sun(.sunset, latitude: 91, longitude: 0), "latitude"),
        (.sun(.sunset, latitude: .nan, longitude: 0), "latitude"),
        (.sun(.sunset, latitude: 0, longitude: -181), "longitude"),
        (.cron("0 0 * * *", in: "Europe/Berln"), "Europe/Berlin"),
        (.cron("0 0 * * *", in: "../../etc/passwd"), "no time zone"), (.cron("0 0 * * *", in: ""), "no time zone"),
        (.cron("0 0 * * *", in: "Europe"), "no time zone"),
        (.cron("0 0 * * MONDAY"), "day of week: \"MONDAY\" is none; SUN to SAT or 0 to 7"),
        (.cron("0 25 * * *"), "hour: \"25\" is none; 0 to 23"), (.cron("@reboot"), "startsAtOnce"),
        (.cron(String(repeating: "1,", count: 128) + "1 * * * *"), "at most 256 bytes"), (.cron("0 0 31 2 *"), "never"),
        (.cron("@every 5m"), "seconds"), (.when(hour: 24), "hour"), (.when(minute: Numbers([])), "minute"),
        (.when(day: 31, weekday: 1, in: "Mars/Olympus"), "zone"),
        (.cron("0 0 * * *").excluding(""), "calendar"),
        (.any(.cron("x"), .every(.seconds(1))), "five fields"),
        ((0..<8).reduce(Timetable.every(.seconds(1))) { inner, _ in .any(inner) }, "deep"),
    ]

    @Test("what cannot be is refused, with field and reason", arguments: refused.indices)
    func refusals(_ index: Int) {
        let (timetable, reason) = Self.refused[index]
        let error = #expect(throws: TimetableError.self) { try timetable.check() }
        #expect("\(error.map { "\($0)" } ?? "")".contains(reason), "\(error.map { "\($0)" } ?? "") names \(reason)")
        #expect(throws: TimetableError.self) { try timetable.next(after: Date()) }
    }

    @Test("dates at the ends of time give no trap")
    func ends() throws {
        let tables: [Timetable] = [
            .cron("* * * * *"), .cron("0 0 29 2 MON", in: "America/New_York"), .every(.seconds(1)),
            .rrule("DTSTART:00010101T000000\nRRULE:FREQ=SECONDLY"), .sun(.sunrise, latitude: 0, longitude: 0),
            .at(Date.distantPast, .distantFuture),
        ]
        for table in tables {
            for date in [
                Date.distantPast, .distantFuture, Date(timeIntervalSince1970: .infinity),
                Date(timeIntervalSince1970: -.infinity), Date(timeIntervalSince1970: .nan),
                Date(timeIntervalSince1970: 1e300),
            ] {
                _ = try table.next(after: date)
                _ = try table.matches(date)
            }
        }
        #expect(try Timetable.cron("* * * * *").next(after: Date(timeIntervalSince1970: .infinity)) == nil)
    }

    @Test("fields as values are a cron expression whose days must both match")
    func fields() throws {
        #expect(
            try runs(.when(hour: [9, 12, 18], minute: 12), 3, after: "2026-03-29T10:00:00Z") == [
                "2026-03-29T12:12:00Z", "2026-03-29T18:12:00Z", "2026-03-30T09:12:00Z",
            ])
        // The 13th that is a Friday.
        #expect(
            try runs(.when(day: 13, weekday: 5, hour: 0), 1, after: "2026-01-01T00:00:00Z") == ["2026-02-13T00:00:00Z"])
        #expect(
            try runs(.when(minute: .each(20)), 2, after: "2026-01-01T00:01:00Z") == [
                "2026-01-01T00:20:00Z", "2026-01-01T00:40:00Z",
            ])
        #expect(
            try runs(.when(hour: 0, second: [5, 10]), 2, after: "2026-01-01T00:00:00Z") == [
                "2026-01-01T00:00:05Z", "2026-01-01T00:00:10Z",
            ])
    }

    @Test("a union runs whenever a part does, once")
    func union() throws {
        let both = Timetable.any(
            .cron("0 12 * * *"), .every(.seconds(43_200)), .at(try Tables.date("2026-03-29T13:00:00Z")))
        #expect(
            try runs(both, 4, after: "2026-03-29T00:00:00Z") == [
                "2026-03-29T12:00:00Z", "2026-03-29T13:00:00Z", "2026-03-30T00:00:00Z", "2026-03-30T12:00:00Z",
            ])
        #expect(try both.previous(before: Tables.date("2026-03-29T13:00:00Z")) == Tables.date("2026-03-29T12:00:00Z"))
        let once = Timetable.at(try Tables.date("2026-03-29T13:00:00Z"))
        #expect(try once.next(after: Tables.date("2026-03-29T13:00:00Z")) == nil)
        #expect(try once.previous(before: Tables.date("2026-03-29T13:00:00Z")) == nil)
    }

    // MARK: - Calendars

    /// Thursday 24 to Sunday 27 December 2026, and a Wednesday.
    private let holidays = [
        "h": DayCalendar(
            ["2026-12-24", "2026-12-25", "2026-12-26", "2026-12-27", "2026-12-30"].compactMap { CivilDay($0) })
    ]

    @Test("runs on excluded days are left out, or move to the next or the previous day that is none")
    func exclusions() throws {
        let noon = Timetable.cron("0 12 * * *", in: "Europe/Berlin")
        func days(_ instead: Timetable.Instead, _ base: Timetable? = nil) throws -> [String] {
            try runs((base ?? noon).excluding("h", instead: instead), 12, after: "2026-12-22T20:00:00Z", holidays)
                .filter { $0 < "2027" }.map { String($0.dropFirst(8).prefix(8)) }
        }
        #expect(try days(.skip) == ["23T11:00", "28T11:00", "29T11:00", "31T11:00"])
        // Moved to a day that has the run already, it is one.
        #expect(try days(.nextDay) == ["23T11:00", "28T11:00", "29T11:00", "31T11:00"])
        let workdays = Timetable.any(
            .cron("0 9 24 12 *", in: "Europe/Berlin"), .cron("0 8 30 12 *", in: "Europe/Berlin"))
        #expect(try days(.nextDay, workdays) == ["28T08:00", "31T07:00"])
        #expect(try days(.previousDay, workdays) == ["23T08:00", "29T07:00"])
        #expect(try days(.skip, workdays) == [])
        let everySecond = Timetable.every(.seconds(1)).excluding("h", instead: .nextDay)
        let end = try Tables.date("2026-12-28T23:59:58Z")
        #expect(try everySecond.next(after: end, calendars: holidays) == end + 1)
        #expect(throws: TimetableError.self) { try noon.excluding("other").next(after: Date(), calendars: holidays) }
        #expect(noon.excluding("h").calendars == ["h"])
    }

    @Test("a moved run keeps to its day's clocks, and what has moved is found backwards too")
    func movedRuns() throws {
        // 28 March 2026 is excluded; on the 29th 02:30 does not exist.
        let calendar = ["c": DayCalendar([CivilDay("2026-03-28")!])]
        let table = Timetable.cron("30 2 28 3 *", in: "Europe/Berlin").excluding("c", instead: .nextDay)
        let moved = try table.next(after: Tables.date("2026-03-01T00:00:00Z"), calendars: calendar)
        #expect(moved.map(Tables.text) == "2026-03-29T01:30:00Z")
        #expect(try table.previous(before: Tables.date("2026-03-30T00:00:00Z"), calendars: calendar) == moved)
        #expect(try table.matches(#require(moved), calendars: calendar))
    }

    // MARK: - Words

    static let words: [(Timetable, String)] = [
        (.cron("30 2 * * *", in: "Europe/Berlin"), "at 02:30 every day, Europe/Berlin"),
        (.cron("*/15 * * * *"), "every 15 minutes, UTC"), (.cron("* * * * *"), "every minute, UTC"),
        (.cron("0 * * * *"), "every hour, UTC"), (.cron("0 9 * * MON-FRI"), "at 09:00 on Monday to Friday, UTC"),
        (.cron("0 0 L * *"), "at 00:00 on the last day of the month, UTC"),
        (.cron("0 0 1 JAN,JUL *"), "at 00:00 on day 1 of the month in January and July, UTC"),
        (.cron("0 0 * * FRI#2"), "at 00:00 on the second Friday of the month, UTC"),
        (.cron("0 0 13 * FRI"), "at 00:00 on day 13 of the month and on Friday, UTC"),
        (.cron("0 0 13 * FRI", days: .both), "at 00:00 on day 13 of the month that is also Friday, UTC"),
        (.cron("0,30 8 * * SAT,SUN"), "at 08:00 and 08:30 on Saturday and Sunday, UTC"),
        (.cron("*/10 9-17 * * *"), "every 10 minutes of hours 9 to 17, UTC"),
        (.every(.seconds(90)), "every 90 seconds"), (.every(.seconds(86_400)), "every day"),
        (.sun(.solarNoon, latitude: 52.5, longitude: 13.4), "at noon solar at latitude 52.5, longitude 13.4"),
        (
            .cron("0 0 * * *").excluding("holidays-de", instead: .nextDay),
            "at 00:00 every day, UTC; not on the days of holidays-de, the next day instead"
        ),
    ]

    @Test("in words", arguments: words.indices)
    func described(_ index: Int) {
        let (timetable, expected) = Self.words[index]
        #expect("\(timetable)" == expected)
    }

    @Test("words tell what the next clock changes do")
    func changesInWords() throws {
        let table = Timetable.cron("30 2 * * *", in: "Europe/Berlin")
        #expect(
            try table.words(after: Tables.date("2026-01-01T00:00:00Z"))
                == "at 02:30 every day, Europe/Berlin; on 29 March 2026 at 03:00, for 02:30 does not exist; on 25 October 2026 the first time at 02:30, which comes twice"
        )
        let skipping = Timetable.cron("30 2 * * *", in: "Europe/Berlin", clockChange: .skip)
        #expect(try skipping.words(after: Tables.date("2026-01-01T00:00:00Z")).contains("not on 29 March 2026"))
        let noon = Timetable.cron("0 12 * * *", in: "Europe/Berlin")
        #expect(try noon.words(after: Tables.date("2026-01-01T00:00:00Z")) == "at 12:00 every day, Europe/Berlin")
    }

    // MARK: - Stored

    @Test("what is stored is read again, faults included")
    func coding() throws {
        let all = [
            Timetable.cron("30 2 * * *", in: "Europe/Berlin", clockChange: .both, days: .both),
            .cron("0 0 * * *", clockChange: .skip),
            .every(.seconds(30), offset: .seconds(3)), .every(.milliseconds(500), allowsSubsecond: true),
            .sun(.dawnCivil, latitude: 1.5, longitude: -2), .rrule("DTSTART:20260101T000000Z\nRRULE:FREQ=DAILY"),
            .at(Date(timeIntervalSince1970: 1.5), Date(timeIntervalSince1970: 0)),
            .any(.cron("@daily"), .every(.seconds(1)).excluding("h", instead: .previousDay, in: "Asia/Tokyo")),
            .cron("nonsense"),
        ]
        let bytes = try JSONEncoder().encode(all)
        #expect(try JSONDecoder().decode([Timetable].self, from: bytes) == all)
        #expect(throws: DecodingError.self) {
            try JSONDecoder().decode(Timetable.self, from: Data("{\"cronn\": 1}".utf8))
        }
        let deep =
            String(repeating: "{\"any\":[", count: 200) + "{\"every\":1000000}" + String(repeating: "]}", count: 200)
        #expect(throws: DecodingError.self) { try JSONDecoder().decode(Timetable.self, from: Data(deep.utf8)) }
    }

    // MARK: - Far away

    @Test("what is 40 years away is found without going through the days between")
    func farAway() throws {
        // 29 February on a Monday: after 2072 comes 2112, for 2100 is no leap year.
        let table = Timetable.cron("30 2 29 2 MON", in: "America/New_York", days: .both)
        let clock = ContinuousClock()
        var best = Duration.seconds(10)
        for _ in 0..<5 {
            var found: Date?
            best = min(best, try clock.measure { found = try table.next(after: Tables.date("2072-03-01T00:00:00Z")) })
            #expect(found.map(Tables.text) == "2112-02-29T07:30:00Z")
        }
        // Without optimization, on a busy machine.
        #expect(best < .milliseconds(40))
    }
}
