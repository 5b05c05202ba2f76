#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

extension Timetable: CustomStringConvertible {
    /// In words, as "at 02:30 every day, Europe/Berlin"; of a timetable with a fault, the fault.
    public var description: String {
        switch (kind, parsed) {
        case (_, .failure(let error)): return "\(error)"
        case (.cron(_, let zone, _, _), .success(.cron(let expression))): return "\(expression.words), \(zone)"
        case (_, .success(.every(let interval, let offset))):
            let every = "every \(Self.words(microseconds: interval))"
            return offset == 0 ? every : every + ", \(Self.words(microseconds: offset)) later"
        case (.sun(let event, let latitude, let longitude), _):
            return "at \(event.words) at latitude \(latitude), longitude \(longitude)"
        case (_, .success(.recurrence(let rule))):
            let lines = rule.text.split(whereSeparator: \.isNewline)
            return lines.first { $0.uppercased().hasPrefix("RRULE:") }.map { "\($0), \(rule.zone)" } ?? rule.text
        case (.dates(let dates), _):
            let first = dates.prefix(3).map { Self.words(ofUTC: $0) }.joined(separator: ", ")
            return "on " + first + (dates.count > 3 ? " and \(dates.count - 3) more dates" : "") + ", UTC"
        case (.any(let parts), _): return parts.map(\.description).joined(separator: "; and ")
        case (.excluding(let base, let calendar, let instead, _), _):
            let moved =
                switch instead {
                case .skip: ""
                case .nextDay: ", the next day instead"
                case .previousDay: ", the day before instead"
                }
            return base.description + "; not on the days of \(calendar)" + moved
        case (.cron, _), (.recurrence, _), (.every, _): return "no timetable"
        }
    }

    /// In words, with what the next clock changes do to it: "at 02:30 every day, Europe/Berlin; on 29 March 2026 at 03:00, for
    /// 02:30 does not exist".
    ///
    /// - Parameters:
    ///   - date: changes within a year after it are told.
    ///   - zones: where time zones are read.
    /// - Throws: the ``TimetableError`` of a timetable that cannot be used.
    public func words(
        after date: Date, zones: ZoneDatabase = .system
    ) throws(TimetableError) -> String {
        try check(zones: zones)
        guard case .cron(_, let zone, let change, _) = kind, case .success(.cron(let expression)) = parsed,
            expression.isFixed
        else { return description }
        let rules = try zones.rules(of: zone)
        let begin = floorDivision(date.boundedMicroseconds, 1_000_000)
        var notes: [String] = []
        var segment = rules.segment(at: begin)
        while segment.end != .max, segment.end < begin + 366 * LocalSeconds.perDay {
            segment = rules.segment(at: segment.end)
            if let note = Self.note(expression, segment, change) { notes.append(note) }
        }
        return ([description] + notes).joined(separator: "; ")
    }

    /// What the clock change at the start of a segment does.
    private static func note(
        _ expression: CronExpression, _ segment: ZoneRules.Segment, _ change: ClockChange
    ) -> String? {
        let (shown, before) = (segment.localStart, segment.localStartBefore)
        if let local = expression.next(from: before, below: shown) {
            let (day, time) = (words(of: local.civilDay), words(ofTime: local))
            if change.gap == .skip { return "not on \(day), for \(time) does not exist" }
            let isSameDay = shown.civilDay == local.civilDay
            let moved = isSameDay ? "on \(day) at" : "for \(day) on \(words(of: shown.civilDay)) at"
            return "\(moved) \(words(ofTime: shown)), for \(time) does not exist"
        }
        if let local = expression.next(from: shown, below: before) {
            let which = change.repeated == .both ? "both times" : "the first time"
            return "on \(words(of: local.civilDay)) \(which) at \(words(ofTime: local)), which comes twice"
        }
        return nil
    }

    private static func words(of day: CivilDay) -> String {
        let (year, month, day) = day.parts
        return "\(day) \(CivilDay.monthNames[month - 1]) \(year)"
    }

    static func words(ofTime local: LocalSeconds) -> String {
        let second = local.secondOfDay
        let time = padded(second / 3600, 2) + ":" + padded(second / 60 % 60, 2)
        return second % 60 == 0 ? time : time + ":" + padded(second % 60, 2)
    }

    private static func words(ofUTC microseconds: Int64) -> String {
        let seconds = floorDivision(microseconds, 1_000_000)
        return words(of: seconds.civilDay) + " " + words(ofTime: seconds)
    }

    private static func words(microseconds: Int64) -> String {
        for (size, unit) in [
            (86_400_000_000, "day"), (3_600_000_000, "hour"), (60_000_000, "minute"), (1_000_000, "second"),
        ]
        where microseconds % Int64(size) == 0 {
            let count = microseconds / Int64(size)
            return count == 1 ? unit : "\(count) \(unit)s"
        }
        return "\(Double(microseconds) / 1_000_000) seconds"
    }
}

extension CronExpression {
    /// When it runs, without the zone.
    var words: String { [timeWords, dayWords, monthWords].filter { !$0.isEmpty }.joined(separator: " ") }

    private var timeWords: String {
        let (hours, minutes, seconds) = (hour.all, minute.all, second.all)
        if isFixed, hours.count * minutes.count * seconds.count <= 4 {
            let times = hours.flatMap { hour in
                minutes.flatMap { minute in
                    seconds.map { Timetable.words(ofTime: LocalSeconds(hour * 3600 + minute * 60 + $0)) }
                }
            }
            return "at " + Self.list(times)
        }
        var parts: [String] = []
        if seconds != [0] { parts.append(Self.rhythm(seconds, 60, "second")) }
        if minutes.count == 60 {
            if seconds == [0] { parts.append("every minute") }
        } else if minutes == [0], hours.count == 24, seconds == [0] {
            return "every hour"
        } else {
            parts.append(Self.rhythm(minutes, 60, "minute"))
        }
        if hours.count < 24 { parts.append(Self.rhythm(hours, 24, "hour")) }
        return parts.joined(separator: " of ")
    }

    /// "every 15 minutes" or "minutes 5 and 20".
    private static func rhythm(_ numbers: [Int], _ size: Int, _ unit: String) -> String {
        if numbers.count == size { return "every \(unit)" }
        if numbers.count > 1, numbers[0] == 0 {
            let step = numbers[1]
            if size % step == 0, numbers == Array(stride(from: 0, to: size, by: step)) {
                return "every \(step) \(unit)s"
            }
        }
        return unit + (numbers.count == 1 ? " " : "s ") + list(ranges(numbers))
    }

    private var dayWords: String {
        let everyDay = Set(1...31), everyWeekday = Set(0...6)
        let ofMonth = days.ofMonth.map(Self.words)
        let ofWeek = days.ofWeek.map(Self.words)
        var isEveryDay = false, isEveryWeekday = false
        if case .days(let mask) = days.ofMonth.first, days.ofMonth.count == 1 {
            isEveryDay = everyDay.allSatisfy { mask & 1 << UInt64($0) != 0 }
        }
        if case .days(let mask) = days.ofWeek.first, days.ofWeek.count == 1 {
            isEveryWeekday = everyWeekday.allSatisfy { mask & 1 << UInt64($0) != 0 }
        }
        switch (isEveryDay, isEveryWeekday) {
        case (true, true): return isFixed ? "every day" : ""
        case (true, false): return days.mustMatchBoth ? "on " + Self.list(ofWeek) : "every day"
        case (false, true): return days.mustMatchBoth ? "on " + Self.list(ofMonth) + " of the month" : "every day"
        case (false, false):
            let link = days.mustMatchBoth ? "that is also" : "and on"
            return "on \(Self.list(ofMonth)) of the month \(link) \(Self.list(ofWeek))"
        }
    }

    private var monthWords: String {
        let months = month.all
        return months.count == 12 ? "" : "in " + Self.list(months.map { CivilDay.monthNames[$0 - 1] })
    }

    private static func words(_ term: CronDays.DayOfMonth) -> String {
        switch term {
        case .days(let mask):
            let days = (1...31).filter { mask & 1 << UInt64($0) != 0 }
            return (days.count == 1 ? "day " : "days ") + list(ranges(days))
        case .last(0): return "the last day"
        case .last(let before): return before == 1 ? "the last day but one" : "the day \(before) days before the last"
        case .lastWorkday: return "the last workday"
        case .workday(let day): return "the workday nearest to day \(day)"
        }
    }

    private static func words(_ term: CronDays.DayOfWeek) -> String {
        switch term {
        case .days(let mask):
            let days = (0...6).filter { mask & 1 << UInt64($0) != 0 }
            // From Monday to Sunday, as most read a week.
            let week = days.filter { $0 > 0 } + days.filter { $0 == 0 }
            let numbers = week.map { $0 == 0 ? 7 : $0 }
            if numbers.count > 2, numbers.last! - numbers[0] == numbers.count - 1 {
                return "\(CivilDay.weekdayNames[numbers[0]]) to \(CivilDay.weekdayNames[numbers.last! % 7])"
            }
            return list(week.map { CivilDay.weekdayNames[$0] })
        case .nth(let weekday, let number):
            let ordinals = ["first", "second", "third", "fourth", "fifth"]
            return "the \(ordinals[number - 1]) \(CivilDay.weekdayNames[weekday]) of the month"
        case .last(let weekday): return "the last \(CivilDay.weekdayNames[weekday]) of the month"
        }
    }

    /// Numbers in order, three and more that follow one another as "1 to 5".
    private static func ranges(_ numbers: [Int]) -> [String] {
        var rows: [ClosedRange<Int>] = []
        for number in numbers {
            if let last = rows.last, last.upperBound == number - 1 {
                rows[rows.count - 1] = last.lowerBound...number
            } else {
                rows.append(number...number)
            }
        }
        return rows.flatMap { row in
            row.count > 2 ? ["\(row.lowerBound) to \(row.upperBound)"] : row.map(String.init)
        }
    }

    private static func list(_ parts: [String]) -> String {
        guard parts.count > 1, let last = parts.last else { return parts.first ?? "" }
        return parts.dropLast().joined(separator: ", ") + " and " + last
    }
}
