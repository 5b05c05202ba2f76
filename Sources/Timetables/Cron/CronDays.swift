/// The days of a month on which a cron expression runs.
struct CronDays: Hashable, Sendable {
    enum DayOfMonth: Hashable, Sendable {
        case days(UInt64)
        /// So many days before the last.
        case last(Int)
        case lastWorkday
        /// The workday nearest to a day, in the same month.
        case workday(Int)
    }

    enum DayOfWeek: Hashable, Sendable {
        case days(UInt64)
        /// The n-th such day of the month.
        case nth(weekday: Int, Int)
        case last(weekday: Int)
    }

    var ofMonth: [DayOfMonth]
    var ofWeek: [DayOfWeek]
    /// Whether a day must be allowed by both fields; otherwise one is enough.
    var mustMatchBoth: Bool

    /// - Returns: bit n for the n-th of the month.
    func mask(year: Int, month: Int) -> UInt64 {
        let length = CivilDay.length(ofMonth: month, in: year)
        let first = CivilDay(year: year, month: month, day: 1).weekday
        let a = ofMonth.reduce(0) { $0 | Self.mask($1, length, first) }
        let b = ofWeek.reduce(0) { $0 | Self.mask($1, length, first) }
        return (mustMatchBoth ? a & b : a | b) & (1 << UInt64(length + 1) - 2)
    }

    private static func mask(_ term: DayOfMonth, _ length: Int, _ first: Int) -> UInt64 {
        switch term {
        case .days(let days): days
        case .last(let before): before < length ? 1 << UInt64(length - before) : 0
        case .lastWorkday: 1 << UInt64(workday(nearestTo: length, length, first))
        case .workday(let day): day <= length ? 1 << UInt64(workday(nearestTo: day, length, first)) : 0
        }
    }

    private static func workday(nearestTo day: Int, _ length: Int, _ first: Int) -> Int {
        switch (first + day - 1) % 7 {
        case 6: day > 1 ? day - 1 : 3
        case 0: day < length ? day + 1 : day - 2
        default: day
        }
    }

    private static func mask(_ term: DayOfWeek, _ length: Int, _ first: Int) -> UInt64 {
        switch term {
        case .days(let weekdays):
            return (1...length).reduce(0) { mask, day in
                weekdays & 1 << UInt64((first + day - 1) % 7) != 0 ? mask | 1 << UInt64(day) : mask
            }
        case .nth(let weekday, let number):
            let day = 1 + (weekday - first + 7) % 7 + (number - 1) * 7
            return day <= length ? 1 << UInt64(day) : 0
        case .last(let weekday):
            let last = (first + length - 1) % 7
            return 1 << UInt64(length - (last - weekday + 7) % 7)
        }
    }
}
