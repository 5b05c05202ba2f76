/// Reads the lines of a recurrence: DTSTART, RRULE, EXDATE and RDATE of RFC 5545.
enum RecurrenceParser {
    static let maximumLength = 64 << 10
    static let maximumCount = 100_000

    static func parse(_ text: String) throws(TimetableError) -> RecurrenceRule {
        guard text.utf8.count <= maximumLength else {
            throw .malformed("a recurrence has at most \(maximumLength) bytes; this has \(text.utf8.count)")
        }
        var rule = RecurrenceRule()
        rule.text = text
        var (hasStart, hasRule) = (false, false)
        // A line that begins with a space goes on with the one before.
        let unfolded = text.replacingLineEnds.split(separator: "\n").reduce(into: [String]()) { lines, line in
            if line.first == " " || line.first == "\t", !lines.isEmpty {
                lines[lines.count - 1] += line.dropFirst()
            } else {
                lines.append(String(line))
            }
        }
        for line in unfolded {
            guard let colon = line.firstIndex(of: ":") else {
                throw .malformed(
                    "\"\(line.prefix(60))\" is no line of a recurrence: RRULE:, DTSTART:, EXDATE: or RDATE: is missing")
            }
            let (head, value) = (line[..<colon].split(separator: ";"), line[line.index(after: colon)...])
            let name = head.first.map { $0.uppercased() } ?? ""
            var zone: String?
            for parameter in head.dropFirst() {
                if parameter.uppercased().hasPrefix("TZID=") {
                    zone = String(parameter.dropFirst(5))
                } else if !parameter.uppercased().hasPrefix("VALUE=DATE") {
                    throw .malformed("\(name): \"\(parameter.prefix(60))\" is not understood; TZID and VALUE are")
                }
            }
            switch name {
            case "DTSTART":
                guard !hasStart else { throw .malformed("DTSTART: there is more than one") }
                hasStart = true
                switch try moment(value, name) {
                case .utc(let time): rule.start = time
                case .local(let local): (rule.start, rule.zone) = (local, zone ?? "UTC")
                }
            case "RRULE":
                guard !hasRule else { throw .malformed("RRULE: there is more than one") }
                hasRule = true
                try read(value, into: &rule)
            case "EXDATE", "RDATE":
                for part in value.split(separator: ",", omittingEmptySubsequences: false) {
                    let moment = try moment(part, name)
                    if let zone, case .local = moment, hasStart, zone != rule.zone {
                        throw .malformed("\(name): its zone \(zone) is not that of DTSTART, \(rule.zone)")
                    }
                    if name == "EXDATE" { rule.excluded.insert(moment) } else { rule.added.append(moment) }
                }
            default:
                throw .malformed(
                    "\"\(name.prefix(60))\" is no part of a recurrence; DTSTART, RRULE, EXDATE and RDATE are")
            }
        }
        guard hasRule else { throw .malformed("RRULE: is missing") }
        guard hasStart else { throw .malformed("DTSTART: is missing; a recurrence begins somewhere") }
        var expansion = RecurrenceExpansion(rule)
        guard expansion.next() != nil else { throw .neverRuns("the recurrence never runs: no date matches its rule") }
        return rule
    }

    private static func read(_ text: Substring, into rule: inout RecurrenceRule) throws(TimetableError) {
        var seen: Set<String> = []
        for part in text.split(separator: ";", omittingEmptySubsequences: false) {
            let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard pair.count == 2, !pair[1].isEmpty else {
                throw .malformed("RRULE: \"\(part.prefix(60))\" is no NAME=VALUE")
            }
            let (name, value) = (pair[0].uppercased(), pair[1].uppercased())
            guard seen.insert(name).inserted else { throw .malformed("RRULE: \(name) is there twice") }
            switch name {
            case "FREQ":
                guard let frequency = RecurrenceRule.Frequency(rawValue: value) else {
                    let known = RecurrenceRule.Frequency.allCases.map(\.rawValue).joined(separator: ", ")
                    throw .malformed("RRULE: FREQ: \"\(value.prefix(60))\" is none; \(known) are")
                }
                rule.frequency = frequency
            case "INTERVAL": rule.interval = try number(value, name, 1...100_000)
            case "COUNT": rule.count = try number(value, name, 1...maximumCount)
            case "UNTIL": rule.until = try moment(value[...], "RRULE: UNTIL", endsDay: true)
            case "BYMONTH": rule.months = Set(try numbers(value, name, 1...12))
            case "BYWEEKNO": rule.weeks = Set(try signed(value, name, 53))
            case "BYYEARDAY": rule.yearDays = Set(try signed(value, name, 366))
            case "BYMONTHDAY": rule.monthDays = Set(try signed(value, name, 31))
            case "BYHOUR": rule.hours = try numbers(value, name, 0...23)
            case "BYMINUTE": rule.minutes = try numbers(value, name, 0...59)
            case "BYSECOND": rule.seconds = try numbers(value, name, 0...60)
            case "BYSETPOS": rule.positions = try signed(value, name, 366)
            case "WKST": rule.weekStart = try weekday(value[...], name)
            case "BYDAY":
                for term in value.split(separator: ",", omittingEmptySubsequences: false) {
                    let digits = term.dropLast(2)
                    let number = digits.isEmpty ? 0 : try signed(String(digits), name, 53)[0]
                    rule.weekdays.insert(.init(number: number, weekday: try weekday(term.suffix(2), name)))
                }
            default: throw .malformed("RRULE: \"\(name.prefix(60))\" is no part of a rule")
            }
        }
        guard seen.contains("FREQ") else { throw .malformed("RRULE: FREQ is missing") }
        guard rule.count == nil || rule.until == nil else {
            throw .malformed("RRULE: COUNT and UNTIL exclude one another")
        }
        let frequency = rule.frequency
        if rule.weekdays.contains(where: { $0.number != 0 }), frequency != .monthly,
            frequency != .yearly || !rule.weeks.isEmpty
        {
            throw .malformed(
                "RRULE: BYDAY: a number in front of a day needs FREQ=MONTHLY or FREQ=YEARLY without BYWEEKNO")
        }
        if !rule.weeks.isEmpty, frequency != .yearly { throw .malformed("RRULE: BYWEEKNO needs FREQ=YEARLY") }
        if !rule.yearDays.isEmpty, [.daily, .weekly, .monthly].contains(frequency) {
            throw .malformed("RRULE: BYYEARDAY does not go with FREQ=\(frequency.rawValue)")
        }
        if !rule.monthDays.isEmpty, frequency == .weekly {
            throw .malformed("RRULE: BYMONTHDAY does not go with FREQ=WEEKLY")
        }
        if !rule.positions.isEmpty, !seen.contains(where: { $0.hasPrefix("BY") && $0 != "BYSETPOS" }) {
            throw .malformed("RRULE: BYSETPOS needs another part that begins with BY")
        }
    }

    private static func number(_ text: String, _ name: String, _ range: ClosedRange<Int>) throws(TimetableError) -> Int
    {
        guard let number = decimal(text), range.contains(number) else {
            throw .malformed(
                "RRULE: \(name): \"\(text.prefix(60))\" is none; \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    private static func numbers(_ text: String, _ name: String, _ range: ClosedRange<Int>) throws(TimetableError)
        -> [Int]
    {
        var numbers: Set<Int> = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            numbers.insert(try number(String(part), name, range))
        }
        return numbers.sorted()
    }

    /// Numbers that may count from the end.
    private static func signed(_ text: String, _ name: String, _ limit: Int) throws(TimetableError) -> [Int] {
        var numbers: [Int] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let digits = part.first == "-" || part.first == "+" ? part.dropFirst() : part
            guard let number = decimal(digits), (1...limit).contains(number) else {
                throw .malformed(
                    "RRULE: \(name): \"\(part.prefix(60))\" is none; 1 to \(limit), or -\(limit) to -1 from the end")
            }
            numbers.append(part.first == "-" ? -number : number)
        }
        return numbers
    }

    private static func weekday(_ text: Substring, _ name: String) throws(TimetableError) -> Int {
        guard let day = ["SU", "MO", "TU", "WE", "TH", "FR", "SA"].firstIndex(of: String(text)) else {
            throw .malformed("RRULE: \(name): \"\(text.prefix(60))\" is no day; SU to SA are")
        }
        return day
    }

    /// `20260329T023000`, with a Z behind it for UTC, or `20260329`.
    private static func moment(
        _ text: Substring, _ name: String, endsDay: Bool = false
    ) throws(TimetableError) -> RecurrenceRule.Moment {
        let isUTC = text.last == "Z" || text.last == "z"
        let digits = isUTC ? text.dropLast() : text
        let parts = digits.split(whereSeparator: { $0 == "T" || $0 == "t" })
        let day = parts.first.flatMap { day -> CivilDay? in
            guard day.utf8.count == 8 else { return nil }
            return CivilDay("\(day.prefix(4))-\(day.dropFirst(4).prefix(2))-\(day.suffix(2))")
        }
        var second: Int? = endsDay ? 86_399 : 0
        if parts.count > 1 {
            let time = parts[1]
            second = decimal(time).flatMap { number in
                let (hour, minute, second) = (number / 10_000, number / 100 % 100, number % 100)
                return time.utf8.count == 6 && hour < 24 && minute < 60 && second < 60
                    ? hour * 3600 + minute * 60 + second : nil
            }
        }
        guard parts.count <= 2, let day, let second, day.parts.year > 0, !isUTC || parts.count == 2 else {
            throw .malformed("\(name): \"\(text.prefix(60))\" is no date, such as 20260329T023000 or 20260329T003000Z")
        }
        let local = LocalSeconds(day, secondOfDay: second)
        return isUTC ? .utc(local) : .local(local)
    }
}

extension String {
    /// With CR LF, and CR alone, as LF.
    fileprivate var replacingLineEnds: String {
        split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).joined(separator: "\n")
    }
}
