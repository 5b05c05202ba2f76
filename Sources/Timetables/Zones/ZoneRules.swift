/// When the clocks of a zone show what: its changes, as recorded, and the rule that goes on after the last of them.
struct ZoneRules: Sendable, Hashable {
    struct Change: Sendable, Hashable {
        /// Seconds since 1970.
        var at: Int64
        /// Seconds that clocks are ahead of UTC from then on.
        var offset: Int
    }

    /// A time in which clocks do not change.
    struct Segment: Sendable, Hashable {
        /// Seconds since 1970; `Int64.min` for all time before.
        var start: Int64
        /// The first moment after it; `Int64.max` for all time to come.
        var end: Int64
        var offset: Int
        /// The offset before the start.
        var offsetBefore: Int

        /// What clocks show at the start.
        var localStart: LocalSeconds { start == .min ? .min : start + Int64(offset) }
        var localEnd: LocalSeconds { end == .max ? .max : end + Int64(offset) }
        /// What clocks would show at the start had they not changed.
        var localStartBefore: LocalSeconds { start == .min ? .min : start + Int64(offsetBefore) }
    }

    static let utc = ZoneRules(firstOffset: 0, changes: [], rule: nil)

    var firstOffset: Int
    /// In order of time, each of them to another offset.
    var changes: [Change]
    /// What holds after the last change.
    var rule: PosixZoneRule?

    func segment(at time: Int64) -> Segment {
        let (before, after) = neighbours(of: time)
        let offset = before?.offset ?? firstOffset
        let earlier = before.map { neighbours(of: $0.at - 1).before?.offset ?? firstOffset }
        return Segment(
            start: before?.at ?? .min, end: after?.at ?? .max, offset: offset, offsetBefore: earlier ?? offset)
    }

    func offset(at time: Int64) -> Int { neighbours(of: time).before?.offset ?? firstOffset }

    /// The moments at which clocks show a local time: none in a gap, two where it is repeated.
    func moments(showing local: LocalSeconds) -> [Int64] {
        var found: [Int64] = []
        // No clock is further from UTC than 26 hours, as far as zone files go.
        var segment = segment(at: local - 26 * 3600)
        while true {
            if segment.localStart <= local, local < segment.localEnd { found.append(local - Int64(segment.offset)) }
            guard segment.end <= local + 26 * 3600 else { return found }
            segment = self.segment(at: segment.end)
        }
    }

    /// The last change that is not after a moment, and the first that is.
    private func neighbours(of time: Int64) -> (before: Change?, after: Change?) {
        var (low, high) = (0, changes.count)
        while low < high {
            let middle = (low + high) / 2
            if changes[middle].at <= time { low = middle + 1 } else { high = middle }
        }
        let before = low > 0 ? changes[low - 1] : nil
        if low < changes.count { return (before, changes[low]) }
        guard let rule else { return (before, nil) }
        let last = before?.at ?? .min
        let year = CivilDay(number: Int(floorDivision(time, LocalSeconds.perDay))).parts.year
        var (latest, next): (Change?, Change?)
        for change in (year - 1...year + 1).flatMap(rule.changes(in:)).sorted(by: { $0.at < $1.at })
        where change.at > last {
            // What changes nothing is no change, as where the rule repeats what is recorded.
            guard change.offset != (latest ?? before)?.offset ?? firstOffset else { continue }
            if change.at <= time {
                latest = change
            } else {
                next = change
                break
            }
        }
        return (latest ?? before, next)
    }
}

/// How a zone's clocks change every year: the closing rule of a zone file, in the form of POSIX's TZ (RFC 8536, section
/// 3.3).
struct PosixZoneRule: Sendable, Hashable {
    enum Day: Sendable, Hashable {
        /// The n-th weekday of a month; the fifth is the last.
        case weekday(month: Int, week: Int, weekday: Int)
        /// 1 to 365, without the leap day.
        case julian(Int)
        /// 0 to 365, with it.
        case ofYear(Int)

        func civilDay(in year: Int) -> CivilDay {
            switch self {
            case .julian(let day):
                return CivilDay(
                    number: CivilDay(year: year, month: 1, day: day).number
                        + (day > 59 && CivilDay.isLeap(year) ? 1 : 0))
            case .ofYear(let day): return CivilDay(year: year, month: 1, day: day + 1)
            case .weekday(let month, let week, let weekday):
                let first = CivilDay(year: year, month: month, day: 1)
                var day = 1 + (weekday - first.weekday + 7) % 7 + (week - 1) * 7
                while day > CivilDay.length(ofMonth: month, in: year) { day -= 7 }
                return CivilDay(year: year, month: month, day: day)
            }
        }
    }

    struct Switch: Sendable, Hashable {
        var day: Day
        /// Of that day, by the clocks that are changed; may be negative or beyond the day.
        var secondOfDay: Int
    }

    var standardOffset: Int
    /// Nil for none.
    var summer: Summer?

    struct Summer: Sendable, Hashable {
        var offset: Int
        var begins: Switch
        var ends: Switch
    }

    func changes(in year: Int) -> [ZoneRules.Change] {
        guard let summer else { return [] }
        func moment(_ change: Switch, _ offset: Int) -> Int64 {
            LocalSeconds(change.day.civilDay(in: year)) + Int64(change.secondOfDay - offset)
        }
        return [
            .init(at: moment(summer.begins, standardOffset), offset: summer.offset),
            .init(at: moment(summer.ends, summer.offset), offset: standardOffset),
        ]
    }

    /// - Returns: nil when the text is no such rule.
    init?(_ text: some StringProtocol) {
        var reader = Reader(rest: Array(text.utf8)[...])
        guard reader.name(), let offset = reader.offset() else { return nil }
        standardOffset = -offset
        if reader.rest.isEmpty { return }
        guard reader.name() else { return nil }
        let summerOffset: Int
        if reader.rest.first == UInt8(ascii: ",") {
            summerOffset = standardOffset + 3600
        } else {
            guard let offset = reader.offset() else { return nil }
            summerOffset = -offset
        }
        guard let begins = reader.change(), let ends = reader.change(), reader.rest.isEmpty else { return nil }
        summer = Summer(offset: summerOffset, begins: begins, ends: ends)
    }

    private struct Reader {
        var rest: ArraySlice<UInt8>

        mutating func take(_ byte: Character) -> Bool {
            guard let ascii = byte.asciiValue, rest.first == ascii else { return false }
            rest.removeFirst()
            return true
        }

        /// Three letters or more, or anything between angle brackets.
        mutating func name() -> Bool {
            if take("<") {
                guard let end = rest.firstIndex(of: UInt8(ascii: ">")) else { return false }
                rest = rest[(end + 1)...]
                return true
            }
            let letters = rest.prefix { (0x41...0x5A).contains($0 & 0xDF) }
            rest = rest.dropFirst(letters.count)
            return letters.count >= 3
        }

        mutating func number(_ range: ClosedRange<Int>) -> Int? {
            let digits = rest.prefix { (0x30...0x39).contains($0) }.prefix(4)
            rest = rest.dropFirst(digits.count)
            guard let number = decimal(String(decoding: digits, as: UTF8.self)), range.contains(number) else {
                return nil
            }
            return number
        }

        /// `[+-]hh[:mm[:ss]]` in seconds.
        mutating func offset() -> Int? {
            let isNegative = take("-")
            if !isNegative { _ = take("+") }
            guard let hours = number(0...167) else { return nil }
            var seconds = hours * 3600
            for unit in [60, 1] where take(":") {
                guard let more = number(0...59) else { return nil }
                seconds += more * unit
            }
            return isNegative ? -seconds : seconds
        }

        /// `,date[/time]`.
        mutating func change() -> Switch? {
            guard take(","), let day = day() else { return nil }
            guard take("/") else { return Switch(day: day, secondOfDay: 7200) }
            return offset().map { Switch(day: day, secondOfDay: $0) }
        }

        private mutating func day() -> Day? {
            if take("J") { return number(1...365).map(Day.julian) }
            guard take("M") else { return number(0...365).map(Day.ofYear) }
            guard let month = number(1...12), take("."), let week = number(1...5), take("."),
                let weekday = number(0...6)
            else { return nil }
            return .weekday(month: month, week: week, weekday: weekday)
        }
    }
}
