#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// When a timetable runs.
extension Timetable {
    /// Finds the faults of the timetable and of all its parts.
    /// - Parameter zones: where time zones are read.
    /// - Throws: the ``TimetableError`` of a timetable that cannot be used; ``TimetableError/noZoneDatabase(_:)`` only until the
    ///   machine has a zone database.
    public func check(zones: ZoneDatabase = .system) throws(TimetableError) {
        _ = try parsed.get()
        switch kind {
        case .any(let parts): for part in parts { try part.check(zones: zones) }
        case .excluding(let base, _, _, _): try base.check(zones: zones)
        default: break
        }
        for zone in self.zones { _ = try zones.rules(of: zone) }
    }

    /// The first run after a moment; nil when there is none.
    /// - Parameters:
    ///   - date: a run at this very moment does not count.
    ///   - calendars: those that the timetable excludes, by name.
    ///   - zones: where time zones are read.
    /// - Throws: as ``check(zones:)``; and ``TimetableError/unknownCalendar(_:)`` where a calendar that it excludes is not given.
    public func next(
        after date: Date, calendars: [String: DayCalendar] = [:], zones: ZoneDatabase = .system
    ) throws(TimetableError) -> Date? {
        try Runs(calendars: calendars, zones: zones).next(of: self, after: date.boundedMicroseconds)
            .map(Date.init(microseconds:))
    }

    /// The next runs after a moment, in order; fewer than asked for when there are no more.
    /// - Parameters:
    ///   - count: how many; 0 or more.
    ///   - date: a run at this very moment does not count.
    ///   - calendars: those that the timetable excludes, by name.
    ///   - zones: where time zones are read.
    /// - Throws: as ``check(zones:)``; and ``TimetableError/unknownCalendar(_:)`` where a calendar that it excludes is not given.
    public func next(
        _ count: Int, after date: Date, calendars: [String: DayCalendar] = [:], zones: ZoneDatabase = .system
    ) throws(TimetableError) -> [Date] {
        let runs = Runs(calendars: calendars, zones: zones)
        var (found, time): ([Date], Int64) = ([], date.boundedMicroseconds)
        while found.count < count, let next = try runs.next(of: self, after: time) {
            found.append(Date(microseconds: next))
            time = next
        }
        return found
    }

    /// The last run before a moment; nil when there is none.
    /// - Parameters:
    ///   - date: a run at this very moment does not count.
    ///   - calendars: those that the timetable excludes, by name.
    ///   - zones: where time zones are read.
    /// - Throws: as ``check(zones:)``; and ``TimetableError/unknownCalendar(_:)`` where a calendar that it excludes is not given.
    public func previous(
        before date: Date, calendars: [String: DayCalendar] = [:], zones: ZoneDatabase = .system
    ) throws(TimetableError) -> Date? {
        try Runs(calendars: calendars, zones: zones).previous(of: self, before: date.boundedMicroseconds)
            .map(Date.init(microseconds:))
    }

    /// Whether there is a run at a moment.
    /// - Parameters:
    ///   - date: compared in microseconds.
    ///   - calendars: those that the timetable excludes, by name.
    ///   - zones: where time zones are read.
    /// - Throws: as ``check(zones:)``; and ``TimetableError/unknownCalendar(_:)`` where a calendar that it excludes is not given.
    public func matches(
        _ date: Date, calendars: [String: DayCalendar] = [:], zones: ZoneDatabase = .system
    ) throws(TimetableError) -> Bool {
        let time = date.boundedMicroseconds
        return try Runs(calendars: calendars, zones: zones).next(of: self, after: time - 1) == time
    }
}

/// Finds runs, in microseconds since 1970.
struct Runs {
    var calendars: [String: DayCalendar]
    var zones: ZoneDatabase

    func next(of timetable: Timetable, after time: Int64) throws(TimetableError) -> Int64? {
        let found: Int64?
        switch (timetable.kind, try timetable.parsed.get()) {
        case (.cron(_, let zone, let clockChange, _), .cron(let expression)):
            let cron = ZonedCron(expression: expression, rules: try zones.rules(of: zone), clockChange: clockChange)
            found = cron.next(after: floorDivision(time, 1_000_000), until: TimeBounds.last).map { $0 * 1_000_000 }
        case (_, .every(let interval, let offset)):
            found = (floorDivision(time - offset, interval) + 1) * interval + offset
        case (.sun(let event, let latitude, let longitude), _):
            found = SunTimes(event: event, latitude: latitude, longitude: longitude)
                .next(after: floorDivision(time, 1_000_000)).map { $0 * 1_000_000 }
        case (_, .recurrence(let rule)):
            found = rule.next(after: floorDivision(time, 1_000_000), try zones.rules(of: rule.zone)).map {
                $0 * 1_000_000
            }
        case (.dates(let dates), _): found = dates.first { $0 > time }
        case (.any(let parts), _):
            var first: Int64?
            for part in parts {
                if let next = try next(of: part, after: time) { first = min(first ?? next, next) }
            }
            found = first
        case (.excluding(let base, let name, let instead, _), _):
            guard let calendar = calendars[name] else {
                throw .unknownCalendar("the calendar \"\(name)\" does not exist; the timetable excludes its days")
            }
            let exclusion = Exclusion(
                runs: self, base: base, calendar: calendar, rules: try zones.rules(of: timetable.dayZone))
            found = try exclusion.next(after: time, instead)
        case (.cron, _), (.recurrence, _), (.every, _): found = nil
        }
        guard let found, found <= TimeBounds.last * 1_000_000 else { return nil }
        return found
    }

    /// Searches for the latest moment that still has a run behind it: a timetable need only know what comes next.
    func previous(of timetable: Timetable, before time: Int64) throws(TimetableError) -> Int64? {
        let first = TimeBounds.first * 1_000_000
        var reach: Int64 = 3_600_000_000
        var low = time - 1
        while true {
            low = max(first, time - 1 - reach)
            if let next = try next(of: timetable, after: low), next < time { break }
            if low == first { return nil }
            reach = reach.multipliedReportingOverflow(by: 8).overflow ? time - first : min(reach * 8, time - first)
        }
        var high = time - 1
        while high - low > 1 {
            let middle = low + (high - low) / 2
            if let next = try next(of: timetable, after: middle), next < time { low = middle } else { high = middle }
        }
        return try next(of: timetable, after: low)
    }
}

/// A timetable without the days of a calendar.
private struct Exclusion {
    var runs: Runs
    var base: Timetable
    var calendar: DayCalendar
    var rules: ZoneRules

    func next(after time: Int64, _ instead: Timetable.Instead) throws(TimetableError) -> Int64? {
        let kept = try nextKept(after: time)
        guard instead != .skip else { return kept }
        let moved = try nextMoved(after: time, before: kept, isLater: instead == .nextDay)
        guard let kept, let moved else { return kept ?? moved }
        return min(kept, moved)
    }

    /// The first run after a moment on a day that is not excluded.
    private func nextKept(after time: Int64) throws(TimetableError) -> Int64? {
        var time = time
        while let run = try runs.next(of: base, after: time) {
            let day = day(of: run)
            guard calendar.contains(day) else { return run }
            // No run of this day counts.
            time = start(of: CivilDay(number: day.number + 1)) - 1
        }
        return nil
    }

    /// The first run after a moment that has come from an excluded day.
    private func nextMoved(after time: Int64, before limit: Int64?, isLater: Bool) throws(TimetableError) -> Int64? {
        let today = day(of: time)
        for row in rows {
            // All runs of a row of excluded days go to one day.
            let target = CivilDay(number: isLater ? row.upperBound + 1 : row.lowerBound - 1)
            guard target >= today else { continue }
            if let limit, start(of: target) > limit { return nil }
            var first: Int64?
            for day in row.lazy.map(CivilDay.init(number:)) {
                let end = start(of: CivilDay(number: day.number + 1))
                var from = start(of: day) - 1
                // Where clocks change, runs may move by some hours more.
                if target == today { from = max(from, move(time, to: day) - 3 * 3_600_000_000) }
                while let run = try runs.next(of: base, after: from), run < end {
                    let moved = move(run, to: target)
                    if moved > time {
                        first = min(first ?? moved, moved)
                        break
                    }
                    from = run
                }
            }
            if let first { return first }
        }
        return nil
    }

    /// The excluded days, those that follow one another together, as numbers.
    private var rows: [ClosedRange<Int>] {
        calendar.days.reduce(into: []) { rows, day in
            if let last = rows.last, last.upperBound == day.number - 1 {
                rows[rows.count - 1] = last.lowerBound...day.number
            } else {
                rows.append(day.number...day.number)
            }
        }
    }

    private func local(_ time: Int64) -> LocalSeconds {
        let seconds = floorDivision(time, 1_000_000)
        return seconds + Int64(rules.offset(at: seconds))
    }

    private func day(of time: Int64) -> CivilDay { local(time).civilDay }

    /// The moment at which a day begins.
    private func start(of day: CivilDay) -> Int64 { RecurrenceRule.moment(LocalSeconds(day), rules) * 1_000_000 }

    /// The same time of another day.
    private func move(_ time: Int64, to day: CivilDay) -> Int64 {
        let fraction = time - floorDivision(time, 1_000_000) * 1_000_000
        let moved = LocalSeconds(day, secondOfDay: local(time).secondOfDay)
        return RecurrenceRule.moment(moved, rules) * 1_000_000 + fraction
    }
}
