/// When a cron expression runs where clocks are changed.
struct ZonedCron {
    var expression: CronExpression
    var rules: ZoneRules
    var clockChange: ClockChange

    /// The first run after a moment, in seconds since 1970; nil when there is none until a moment.
    func next(after time: Int64, until limit: Int64) -> Int64? {
        var segment = rules.segment(at: time + 1)
        while segment.start <= limit {
            if let found = next(in: segment, after: time) { return found <= limit ? found : nil }
            if segment.end == .max { return nil }
            segment = rules.segment(at: segment.end)
        }
        return nil
    }

    private func next(in segment: ZoneRules.Segment, after time: Int64) -> Int64? {
        if segment.start > time, runsAfterGap(before: segment) { return segment.start }
        let (offset, end) = (Int64(segment.offset), segment.end == .max ? TimeBounds.last : segment.end)
        var from = max(time + 1, segment.start) + offset
        while let local = expression.next(from: from, below: end + offset) {
            // Clocks showed it before they were put back.
            guard expression.isFixed, clockChange.repeated == .first, local < segment.localStartBefore,
                rules.moments(showing: local).first != local - offset
            else { return local - offset }
            from = local + 1
        }
        return nil
    }

    /// Whether the expression names a time that clocks leave out when a segment begins.
    private func runsAfterGap(before segment: ZoneRules.Segment) -> Bool {
        guard expression.isFixed, clockChange.gap == .after else { return false }
        var from = segment.localStartBefore
        while let local = expression.next(from: from, below: segment.localStart) {
            if rules.moments(showing: local).isEmpty { return true }
            from = local + 1
        }
        return false
    }
}

/// The dates that timetables deal with: the years 1 to 9999.
enum TimeBounds {
    static let first = LocalSeconds(CivilDay(year: 1, month: 1, day: 1))
    static let last = LocalSeconds(CivilDay(year: 10_000, month: 1, day: 1)) - 1
}
