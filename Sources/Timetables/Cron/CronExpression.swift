/// The fields of a cron expression: which local times they allow. Knows no zone.
struct CronExpression: Hashable, Sendable {
    var second: CronField
    var minute: CronField
    var hour: CronField
    var month: CronField
    var days: CronDays
    /// As it was written.
    var text: String

    /// Whether it names times of the day, and not a rhythm.
    var isFixed: Bool { !minute.isStarred && !hour.isStarred }

    func allows(_ local: LocalSeconds) -> Bool { next(from: local, below: local + 1) != nil }

    /// The first local time that is allowed, from one on and before another.
    func next(from local: LocalSeconds, below limit: LocalSeconds) -> LocalSeconds? {
        guard local < limit else { return nil }
        let today = local.civilDay
        if allows(today), let second = timeOfDay(from: local.secondOfDay) {
            let found = LocalSeconds(today, secondOfDay: second)
            return found < limit ? found : nil
        }
        guard let day = nextDay(from: CivilDay(number: today.number + 1), below: limit),
            let second = timeOfDay(from: 0)
        else { return nil }
        let found = LocalSeconds(day, secondOfDay: second)
        return found < limit ? found : nil
    }

    /// Whether any date ever matches. The calendar repeats itself after 400 years.
    var everRuns: Bool {
        let start = LocalSeconds(CivilDay(year: 2000, month: 1, day: 1))
        return nextDay(from: start.civilDay, below: start + 146_097 * LocalSeconds.perDay) != nil
    }

    private func allows(_ day: CivilDay) -> Bool {
        let (year, month, dayOfMonth) = day.parts
        return self.month.contains(month) && days.mask(year: year, month: month) & 1 << UInt64(dayOfMonth) != 0
    }

    private func nextDay(from day: CivilDay, below limit: LocalSeconds) -> CivilDay? {
        var (year, month, dayOfMonth) = day.parts
        let last = (limit - 1).civilDay.parts
        while (year, month) <= (last.year, last.month) {
            if self.month.contains(month) {
                let mask = days.mask(year: year, month: month)
                let rest = mask & UInt64.max << UInt64(dayOfMonth)
                if rest != 0 { return CivilDay(year: year, month: month, day: rest.trailingZeroBitCount) }
            }
            dayOfMonth = 1
            if let next = self.month.first(from: month + 1) {
                month = next
            } else {
                (year, month) = (year + 1, self.month.first(from: 1) ?? 1)
            }
        }
        return nil
    }

    /// The first time of a day that is not before a second of it.
    private func timeOfDay(from second: Int) -> Int? {
        let (h, m, s) = (second / 3600, second / 60 % 60, second % 60)
        if hour.contains(h) {
            if minute.contains(m), let next = self.second.first(from: s) { return h * 3600 + m * 60 + next }
            if let next = minute.first(from: m + 1), let first = self.second.first(from: 0) {
                return h * 3600 + next * 60 + first
            }
        }
        guard let next = hour.first(from: h + 1), let minute = minute.first(from: 0),
            let second = self.second.first(from: 0)
        else { return nil }
        return next * 3600 + minute * 60 + second
    }
}
