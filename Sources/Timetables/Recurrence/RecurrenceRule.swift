/// A recurrence of RFC 5545 (section 3.3.10): its start, its rule, and the dates that are added and taken away.
struct RecurrenceRule: Hashable, Sendable {
    enum Frequency: String, Sendable, CaseIterable {
        case yearly = "YEARLY"
        case monthly = "MONTHLY"
        case weekly = "WEEKLY"
        case daily = "DAILY"
        case hourly = "HOURLY"
        case minutely = "MINUTELY"
        case secondly = "SECONDLY"

        /// Of those that are shorter than a day.
        var unit: Int64? {
            switch self {
            case .hourly: 3600
            case .minutely: 60
            case .secondly: 1
            default: nil
            }
        }
    }

    /// What a date says of its zone.
    enum Moment: Hashable, Sendable {
        case utc(Int64)
        case local(LocalSeconds)
    }

    struct NthWeekday: Hashable, Sendable {
        /// 0 for every one; negative from the end.
        var number: Int
        var weekday: Int
    }

    var start = LocalSeconds(0)
    var zone = "UTC"
    var frequency = Frequency.daily
    var interval = 1
    var count: Int?
    var until: Moment?
    var months: Set<Int> = []
    var weeks: Set<Int> = []
    var yearDays: Set<Int> = []
    var monthDays: Set<Int> = []
    var weekdays: Set<NthWeekday> = []
    var hours: [Int] = []
    var minutes: [Int] = []
    var seconds: [Int] = []
    var positions: [Int] = []
    /// The first day of a week; 0 is Sunday.
    var weekStart = 1
    var excluded: Set<Moment> = []
    var added: [Moment] = []
    /// As it was written.
    var text = ""

    /// How many periods without a run are looked at before there is none.
    static let maximumEmptyPeriods = 20_000

    /// The first run after a moment, in seconds since 1970.
    func next(after time: Int64, _ rules: ZoneRules) -> Int64? {
        func moment(_ moment: Moment) -> Int64 {
            switch moment {
            case .utc(let time): time
            case .local(let local): Self.moment(local, rules)
            }
        }
        let excluded = Set(self.excluded.map(moment))
        let extra = added.map(moment).filter { $0 > time && !excluded.contains($0) }.min()
        let limit = until.map(moment) ?? TimeBounds.last
        var expansion = RecurrenceExpansion(self)
        // Runs that are counted must be gone through from the first one on.
        if count == nil { expansion.skip(to: time + Int64(rules.offset(at: time)) - 2 * LocalSeconds.perDay) }
        var found: Int64?
        var (number, gapEnd) = (0, Int64.min)
        let near = time + Int64(rules.offset(at: time)) - 2 * LocalSeconds.perDay
        while let local = expansion.next() {
            // What is long past is counted and no more.
            if local < near {
                number += 1
                continue
            }
            let run = Self.moment(local, rules)
            // A time in a gap counts later than times behind the gap do.
            if found != nil, local > gapEnd { break }
            number += 1
            if let count, number > count { break }
            if run > limit { break }
            guard run > time, !excluded.contains(run) else { continue }
            found = min(found ?? run, run)
            guard rules.moments(showing: local).isEmpty else { break }
            gapEnd = local + 3 * 3600
        }
        guard let found, let extra else { return found ?? extra }
        return min(found, extra)
    }

    /// A time that does not exist counts with the offset before the gap, one that is repeated counts the first time
    /// (section 3.3.5).
    static func moment(_ local: LocalSeconds, _ rules: ZoneRules) -> Int64 {
        if let first = rules.moments(showing: local).first { return first }
        var segment = rules.segment(at: local - 26 * 3600)
        while segment.localStart <= local, segment.end != .max { segment = rules.segment(at: segment.end) }
        return local - Int64(segment.offsetBefore)
    }
}

/// The local times of a recurrence, in order.
struct RecurrenceExpansion {
    private let rule: RecurrenceRule
    private let hours: [Int]
    private let minutes: [Int]
    private let seconds: [Int]
    private let monthDays: Set<Int>
    private let months: Set<Int>
    private let weekdays: Set<RecurrenceRule.NthWeekday>
    /// The number of the period that comes next, in periods of the frequency since the first.
    private var period: Int64 = 0
    private var waiting: ArraySlice<LocalSeconds> = []
    private var emptyPeriods = 0
    private let firstDay: CivilDay

    init(_ rule: RecurrenceRule) {
        self.rule = rule
        firstDay = rule.start.civilDay
        let (_, month, day) = firstDay.parts
        let second = rule.start.secondOfDay
        let frequency = rule.frequency
        // What the rule leaves open is as at the start.
        hours = rule.hours.isEmpty && frequency.unit == nil ? [second / 3600] : rule.hours.sorted()
        minutes =
            rule.minutes.isEmpty && (frequency.unit ?? 3600) >= 3600 ? [second / 60 % 60] : rule.minutes.sorted()
        seconds = rule.seconds.isEmpty && frequency != .secondly ? [second % 60] : rule.seconds.sorted()
        let saysDay = !rule.weeks.isEmpty || !rule.yearDays.isEmpty || !rule.monthDays.isEmpty || !rule.weekdays.isEmpty
        var (months, monthDays, weekdays) = (rule.months, rule.monthDays, rule.weekdays)
        switch frequency {
        case .yearly where !saysDay:
            if months.isEmpty { months = [month] }
            monthDays = [day]
        case .monthly where !saysDay: monthDays = [day]
        case .weekly where !saysDay: weekdays = [.init(number: 0, weekday: firstDay.weekday)]
        default: break
        }
        (self.months, self.monthDays, self.weekdays) = (months, monthDays, weekdays)
    }

    /// Leaves out periods that end before a local time.
    mutating func skip(to local: LocalSeconds) {
        guard local > rule.start else { return }
        let (year, month, _) = firstDay.parts
        let target = local.civilDay
        let passed: Int64 =
            switch rule.frequency {
            case .yearly: Int64(target.parts.year - year)
            case .monthly: Int64((target.parts.year - year) * 12 + target.parts.month - month)
            case .weekly: Int64((target.number - firstDay.number) / 7)
            case .daily: Int64(target.number - firstDay.number)
            default: (local - rule.start) / (rule.frequency.unit ?? 1)
            }
        period = max(0, passed / Int64(rule.interval) - 1)
    }

    mutating func next() -> LocalSeconds? {
        while waiting.isEmpty {
            guard emptyPeriods < RecurrenceRule.maximumEmptyPeriods, let times = nextPeriod() else { return nil }
            waiting = times.drop { $0 < rule.start }
            emptyPeriods = waiting.isEmpty ? emptyPeriods + 1 : 0
        }
        return waiting.removeFirst()
    }

    /// - Returns: nil at the end of time.
    private mutating func nextPeriod() -> ArraySlice<LocalSeconds>? {
        let (steps, overflows) = period.multipliedReportingOverflow(by: Int64(rule.interval))
        guard !overflows, steps < 400_000_000_000 else { return nil }
        period += 1
        let (year, month, _) = firstDay.parts
        var days: ClosedRange<Int>
        switch rule.frequency {
        case .yearly:
            let year = year + Int(steps)
            guard year < 10_000 else { return nil }
            days = CivilDay(year: year, month: 1, day: 1).number...CivilDay(year: year, month: 12, day: 31).number
        case .monthly:
            let index = year * 12 + month - 1 + Int(steps)
            guard index < 120_000 else { return nil }
            let first = CivilDay(year: index / 12, month: index % 12 + 1, day: 1).number
            days = first...first + CivilDay.length(ofMonth: index % 12 + 1, in: index / 12) - 1
        case .weekly:
            let first = firstDay.number - (firstDay.weekday - rule.weekStart + 7) % 7 + Int(steps) * 7
            days = first...first + 6
        case .daily:
            days = firstDay.number + Int(steps)...firstDay.number + Int(steps)
        case .hourly, .minutely, .secondly: return shortPeriod(steps)
        }
        guard LocalSeconds(CivilDay(number: days.lowerBound)) <= TimeBounds.last else { return nil }
        var times: [LocalSeconds] = []
        for day in days.lazy.map(CivilDay.init(number:)) where allows(day) {
            for hour in hours {
                for minute in minutes {
                    // A leap second counts with the second before it.
                    times += seconds.map { LocalSeconds(day, secondOfDay: hour * 3600 + minute * 60 + min($0, 59)) }
                }
            }
        }
        return atPositions(times)[...]
    }

    private mutating func shortPeriod(_ steps: Int64) -> ArraySlice<LocalSeconds>? {
        let unit = rule.frequency.unit ?? 1
        let begin = floorDivision(rule.start, unit) * unit + steps * unit
        guard begin <= TimeBounds.last else { return nil }
        // Goes on where the next time may be, for a period a second is too short a step through a year.
        func jump(to local: LocalSeconds) {
            let step = unit * Int64(rule.interval)
            period = max(period, period - 1 + (local - begin + step - 1) / step)
        }
        let second = begin.secondOfDay
        if !allows(begin.civilDay) {
            jump(to: LocalSeconds(CivilDay(number: begin.civilDay.number + 1)))
            return []
        }
        if !hours.isEmpty, !hours.contains(second / 3600) {
            jump(to: floorDivision(begin, 3600) * 3600 + 3600)
            return []
        }
        if unit < 3600, !minutes.isEmpty, !minutes.contains(second / 60 % 60) {
            jump(to: floorDivision(begin, 60) * 60 + 60)
            return []
        }
        if unit < 60, !seconds.isEmpty, !seconds.contains(second % 60) { return [] }
        let minutes = unit == 3600 ? minutes : [second / 60 % 60]
        let seconds = unit >= 60 ? seconds : [second % 60]
        let hour = LocalSeconds(begin.civilDay, secondOfDay: second / 3600 * 3600)
        let times = minutes.flatMap { minute in seconds.map { hour + Int64(minute * 60 + min($0, 59)) } }
        return atPositions(times)[...]
    }

    /// Those that BYSETPOS names, of all of a period.
    private func atPositions(_ times: [LocalSeconds]) -> [LocalSeconds] {
        guard !rule.positions.isEmpty else { return times }
        let indices = rule.positions.map { $0 > 0 ? $0 - 1 : times.count + $0 }
        return Set(indices.filter(times.indices.contains)).sorted().map { times[$0] }
    }

    private func allows(_ day: CivilDay) -> Bool {
        let (year, month, dayOfMonth) = day.parts
        if !months.isEmpty, !months.contains(month) { return false }
        let length = CivilDay.length(ofMonth: month, in: year)
        if !monthDays.isEmpty, !monthDays.contains(dayOfMonth), !monthDays.contains(dayOfMonth - length - 1) {
            return false
        }
        if !rule.yearDays.isEmpty || !rule.weeks.isEmpty {
            let first = CivilDay(year: year, month: 1, day: 1)
            let (dayOfYear, days) = (day.number - first.number + 1, CivilDay.isLeap(year) ? 366 : 365)
            if !rule.yearDays.isEmpty, !rule.yearDays.contains(dayOfYear), !rule.yearDays.contains(dayOfYear - days - 1)
            {
                return false
            }
            if !rule.weeks.isEmpty, !isInWeek(day, of: year) { return false }
        }
        return weekdays.isEmpty || weekdays.contains { matches($0, day, year, month, dayOfMonth, length) }
    }

    private func matches(
        _ wanted: RecurrenceRule.NthWeekday, _ day: CivilDay, _ year: Int, _ month: Int, _ dayOfMonth: Int,
        _ length: Int
    ) -> Bool {
        guard wanted.weekday == day.weekday else { return false }
        if wanted.number == 0 { return true }
        // Of the month, or of the year where the rule names no month.
        var (place, size) = (dayOfMonth, length)
        if rule.frequency == .yearly, rule.months.isEmpty {
            place = day.number - CivilDay(year: year, month: 1, day: 1).number + 1
            size = CivilDay.isLeap(year) ? 366 : 365
        }
        return wanted.number > 0 ? (place + 6) / 7 == wanted.number : (size - place + 7) / 7 == -wanted.number
    }

    /// Whether BYWEEKNO allows the day. Week 1 is the first with at least four days in the year.
    private func isInWeek(_ day: CivilDay, of year: Int) -> Bool {
        func firstWeek(of year: Int) -> Int {
            let first = CivilDay(year: year, month: 1, day: 1)
            let back = (first.weekday - rule.weekStart + 7) % 7
            return first.number - back + (back > 3 ? 7 : 0)
        }
        // The period is the year of the calendar, as those weeks are counted that its days belong to.
        var begin = firstWeek(of: year)
        var end = firstWeek(of: year + 1)
        if day.number < begin { (begin, end) = (firstWeek(of: year - 1), begin) }
        if day.number >= end { (begin, end) = (end, firstWeek(of: year + 2)) }
        let (week, weeks) = ((day.number - begin) / 7 + 1, (end - begin) / 7)
        return rule.weeks.contains(week) || rule.weeks.contains(week - weeks - 1)
    }
}
