/// Reads cron expressions: five fields, or six with seconds in front, or a name such as `@daily`.
enum CronParser {
    static let maximumLength = 256

    private static let macros = [
        "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
        "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
    ]

    enum Parsed { case expression(CronExpression), every(seconds: Int) }

    /// - Parameter days: how the two fields of days act together.
    static func parse(_ text: String, days: DayRule) throws(TimetableError) -> Parsed {
        guard text.utf8.count <= maximumLength else {
            throw .malformed("a cron expression has at most \(maximumLength) bytes; this has \(text.utf8.count)")
        }
        guard text.utf8.allSatisfy({ $0 < 0x80 }) else {
            throw .malformed("a cron expression has only ASCII characters; this is \"\(text)\"")
        }
        var fields = text.split(whereSeparator: \.isWhitespace).map { $0.uppercased() }
        if let name = fields.first?.lowercased(), name.hasPrefix("@") {
            if name == "@every" { return .every(seconds: try seconds(fields.dropFirst().joined(separator: " "))) }
            if name == "@reboot" {
                throw .malformed(
                    "\"@reboot\" is no time; a schedule with startsAtOnce runs when it is first registered")
            }
            guard fields.count == 1, let macro = macros[name] else {
                let known = macros.keys.sorted().joined(separator: ", ")
                throw .malformed("\"\(text)\" is no name of a timetable; \(known) and @every 90s are")
            }
            fields = macro.split(separator: " ").map(String.init)
        }
        guard fields.count == 5 || fields.count == 6 else {
            throw .malformed(
                "a cron expression has five fields (minute, hour, day of month, month, day of week), or six with seconds in front; \"\(text)\" has \(fields.count)"
            )
        }
        if fields.count == 5 { fields.insert("0", at: 0) }
        let expression = CronExpression(
            second: try plainField(fields[0], .second), minute: try plainField(fields[1], .minute),
            hour: try plainField(fields[2], .hour), month: try plainField(fields[4], .month),
            days: CronDays(
                ofMonth: try terms(fields[3], .day, dayOfMonth), ofWeek: try terms(fields[5], .weekday, dayOfWeek),
                mustMatchBoth: days == .both
                    || [fields[3], fields[5]].contains { $0.hasPrefix("*") || $0.hasPrefix("?") }),
            text: text)
        guard expression.everRuns else {
            throw .neverRuns("\"\(text)\" never runs: no month that it allows has a day that it allows")
        }
        return .expression(expression)
    }

    private static func seconds(_ text: String) throws(TimetableError) -> Int {
        guard text.hasSuffix("S"), let seconds = decimal(text.dropLast()), seconds > 0 else {
            throw .malformed("@every: \"\(text.lowercased())\" is no number of seconds, such as 90s; 1 or more")
        }
        return seconds
    }

    private static func terms<Term>(
        _ field: String, _ kind: CronFieldKind, _ parse: (Substring) throws(TimetableError) -> Term
    ) throws(TimetableError) -> [Term] {
        var terms: [Term] = []
        for term in field.split(separator: ",", omittingEmptySubsequences: false) { terms.append(try parse(term)) }
        return terms
    }

    private static func plainField(_ field: String, _ kind: CronFieldKind) throws(TimetableError) -> CronField {
        let masks = try terms(field, kind) { term throws(TimetableError) in try plain(term, kind) }
        return CronField(numbers: masks.reduce(0, |), isStarred: field.hasPrefix("*"))
    }

    /// `*`, a number, a range, each with a step or none.
    private static func plain(_ term: Substring, _ kind: CronFieldKind) throws(TimetableError) -> UInt64 {
        let parts = term.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count <= 2, let base = parts.first, !base.isEmpty else { throw kind.malformed(term) }
        var step: Int?
        if parts.count == 2 {
            guard let number = decimal(parts[1]), number > 0, number < 10_000 else {
                throw kind.malformed(term, "has no step; a number of 1 or more stands behind the slash")
            }
            step = number
        }
        // 7 is Sunday once more, and no further day.
        let (low, high) = (kind.range.lowerBound, kind.names.first == "SUN" ? 6 : kind.range.upperBound)
        let allowsQuestionMark = kind.range == CronFieldKind.day.range || kind.names.first == "SUN"
        var (first, last) = (low, high)
        if base == "?" {
            guard allowsQuestionMark else {
                throw kind.malformed(term, "may stand only in the fields of days")
            }
        } else if base != "*" {
            let ends = base.split(separator: "-", omittingEmptySubsequences: false)
            guard ends.count <= 2 else { throw kind.malformed(term) }
            first = try number(ends[0], kind, of: term)
            last = ends.count == 2 ? try number(ends[1], kind, of: term) : step == nil ? first : max(first, high)
        }
        // Goes round, as FRI-MON does.
        let count = high - low + 1
        if last < first { last += count }
        var mask: UInt64 = 0
        for number in stride(from: first, through: last, by: step ?? 1) {
            mask |= 1 << UInt64((number - low) % count + low)
        }
        return mask
    }

    private static func number(_ text: Substring, _ kind: CronFieldKind, of term: Substring) throws(TimetableError)
        -> Int
    {
        if let index = kind.names.firstIndex(of: String(text)) { return index + (kind.range.lowerBound) }
        guard let number = decimal(text), kind.range.contains(number) else { throw kind.malformed(term) }
        return number
    }

    private static func dayOfMonth(_ term: Substring) throws(TimetableError) -> CronDays.DayOfMonth {
        let kind = CronFieldKind.day
        if term == "L" { return .last(0) }
        if term == "LW" { return .lastWorkday }
        if term.hasPrefix("L-") {
            guard let before = decimal(term.dropFirst(2)), (1...30).contains(before) else {
                throw kind.malformed(term, "is none; L-1 to L-30 are days before the last")
            }
            return .last(before)
        }
        if term.hasSuffix("W") {
            guard let day = decimal(term.dropLast()), kind.range.contains(day) else {
                throw kind.malformed(
                    term, "is none; 1W to 31W are the workdays nearest to a day, LW is the last workday")
            }
            return .workday(day)
        }
        return .days(try plain(term, kind))
    }

    private static func dayOfWeek(_ term: Substring) throws(TimetableError) -> CronDays.DayOfWeek {
        let kind = CronFieldKind.weekday
        if let mark = term.firstIndex(of: "#") {
            guard let number = decimal(term[term.index(after: mark)...]), (1...5).contains(number),
                mark != term.startIndex
            else { throw kind.malformed(term, "is none; FRI#1 to FRI#5 are the first to the fifth Friday of a month") }
            return .nth(weekday: try self.number(term[..<mark], kind, of: term) % 7, number)
        }
        if term.hasSuffix("L") {
            guard term.count > 1 else {
                throw kind.malformed(term, "needs a day in front: 5L is the last Friday of a month")
            }
            return .last(weekday: try number(term.dropLast(), kind, of: term) % 7)
        }
        return .days(try plain(term, kind))
    }
}

/// How the day of month and the day of week of a cron expression act together.
public enum DayRule: String, Sendable, Codable, CaseIterable {
    /// One of the two is enough, unless one of the fields begins with a star or a question mark. So do Debian's cron and
    /// most others.
    case cron
    /// Both must allow the day. So does Celery.
    case both
}
