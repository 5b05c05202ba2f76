#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// When something is to run, again and again: a cron expression, an interval, single dates, a recurrence of RFC 5545, an event
/// of the sun, or several of these together.
///
/// A timetable is a value that needs no backend. Making one never throws; a fault in it is thrown by ``check(zones:)``, by every
/// question that is asked of it, and by whatever takes it in.
///
/// ```swift
/// let nightly = Timetable.cron("30 2 * * *", in: "Europe/Berlin")
/// let next = try nightly.next(after: .now)
/// ```
///
/// Dates are those of the years 1 to 9999. Expressions know seconds; intervals know tenths of a second.
public struct Timetable: Sendable {
    indirect enum Kind: Hashable, Sendable {
        case cron(String, zone: String, ClockChange, DayRule)
        case every(microseconds: Int64, offset: Int64, allowsSubsecond: Bool)
        case sun(SunEvent, latitude: Double, longitude: Double)
        case recurrence(String)
        /// Microseconds since 1970, in order.
        case dates([Int64])
        case any([Timetable])
        case excluding(Timetable, calendar: String, Instead, zone: String?)
    }

    /// What has been read of the text.
    indirect enum Parsed: Sendable {
        case cron(CronExpression)
        case recurrence(RecurrenceRule)
        case every(microseconds: Int64, offset: Int64)
        case asItIs
    }

    let kind: Kind
    let parsed: Result<Parsed, TimetableError>

    /// The largest number of parts of a union, and of single dates.
    public static let maximumParts = 10_000
    /// How deep timetables can be nested.
    public static let maximumDepth = 8

    /// What becomes of a run on a day that a calendar excludes.
    public enum Instead: String, Sendable, Codable, CaseIterable {
        /// It does not take place.
        case skip
        /// It takes place at the same time of the next day that is not excluded.
        case nextDay
        /// It takes place at the same time of the last day before that is not excluded.
        case previousDay
    }

    init(_ kind: Kind) {
        self.kind = kind
        do throws(TimetableError) {
            parsed = .success(try Self.parse(kind))
        } catch {
            parsed = .failure(error)
        }
    }

    // MARK: - Making one

    /// A cron expression: minute, hour, day of month, month, day of week; with six fields seconds come first.
    ///
    /// Names of months and days in any case; 0 and 7 for Sunday; lists, ranges that go round (`FRI-MON`, `22-2`), steps, `?`,
    /// `L`, `L-3`, `LW`, `15W`, `5L`, `FRI#2`; `@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily`, `@midnight`, `@hourly`,
    /// `@every 90s`.
    ///
    /// - Parameters:
    ///   - expression: of at most 256 bytes.
    ///   - zone: the name of a time zone, as `Europe/Berlin`.
    ///   - clockChange: what becomes of a fixed time of day where clocks are changed.
    ///   - days: how the two fields of days act together.
    public static func cron(
        _ expression: String, in zone: String = "UTC", clockChange: ClockChange = .cron, days: DayRule = .cron
    ) -> Timetable {
        Timetable(.cron(expression, zone: zone, clockChange, days))
    }

    /// Every so often, counted from 1 January 1970, 00:00 UTC, and not from the run before: it does not drift, and clock
    /// changes do not touch it.
    ///
    /// - Parameters:
    ///   - interval: 1 second to 100 years, in microseconds that are whole.
    ///   - offset: moves all runs; from zero to less than the interval.
    ///   - allowsSubsecond: allows intervals from 100 ms on. Each run costs its worker and the backend a round trip, so that
    ///     ten a second are a load of their own.
    public static func every(
        _ interval: Duration, offset: Duration = .zero, allowsSubsecond: Bool = false
    ) -> Timetable {
        Timetable(
            .every(
                microseconds: interval.boundedMicroseconds, offset: offset.boundedMicroseconds,
                allowsSubsecond: allowsSubsecond))
    }

    /// The fields of a cron expression as values. What is not said is any, but for minute and second, which are 0.
    ///
    /// - Parameters:
    ///   - month: 1 to 12.
    ///   - day: of the month, 1 to 31.
    ///   - weekday: 0 to 6, from Sunday on. Where day and weekday are both limited, both must allow a day.
    ///   - hour: 0 to 23.
    ///   - minute: 0 to 59.
    ///   - second: 0 to 59.
    ///   - zone: the name of a time zone.
    ///   - clockChange: what becomes of a fixed time of day where clocks are changed.
    public static func when(
        month: Numbers = .any, day: Numbers = .any, weekday: Numbers = .any, hour: Numbers = .any, minute: Numbers = 0,
        second: Numbers = 0, in zone: String = "UTC", clockChange: ClockChange = .cron
    ) -> Timetable {
        let fields = [second, minute, hour, day, month, weekday].map(\.text).joined(separator: " ")
        return .cron(fields, in: zone, clockChange: clockChange, days: .both)
    }

    /// An event of the sun at a place. A day on which it does not happen has no run.
    ///
    /// - Parameters:
    ///   - event: which.
    ///   - latitude: degrees, -90 to 90, north positive.
    ///   - longitude: degrees, -180 to 180, east positive.
    public static func sun(_ event: SunEvent, latitude: Double, longitude: Double) -> Timetable {
        Timetable(.sun(event, latitude: latitude, longitude: longitude))
    }

    /// A recurrence of RFC 5545: `DTSTART`, `RRULE`, and `EXDATE` and `RDATE` where there are any, a line each. A time that
    /// clocks leave out counts with the offset before the gap, one that they repeat counts the first time, as section 3.3.5
    /// has it.
    public static func rrule(_ text: String) -> Timetable { Timetable(.recurrence(text)) }

    /// Single dates, 1 to 10,000.
    public static func at(_ dates: [Date]) -> Timetable {
        Timetable(.dates(Array(Set(dates.map(\.boundedMicroseconds))).sorted()))
    }

    /// Single dates, 1 to 10,000.
    public static func at(_ dates: Date...) -> Timetable { at(dates) }

    /// All runs of several timetables. Runs at the same moment are one.
    public static func any(_ timetables: [Timetable]) -> Timetable { Timetable(.any(timetables)) }

    /// All runs of several timetables. Runs at the same moment are one.
    public static func any(_ timetables: Timetable...) -> Timetable { any(timetables) }

    /// This one without the days that a calendar names.
    ///
    /// - Parameters:
    ///   - calendar: the name under which the calendar is stored, 1 to 200 bytes.
    ///   - instead: what becomes of the runs on its days.
    ///   - zone: the time zone whose days they are; nil for the timetable's own, or UTC where it has none.
    public func excluding(_ calendar: String, instead: Instead = .skip, in zone: String? = nil) -> Timetable {
        Timetable(.excluding(self, calendar: calendar, instead, zone: zone))
    }

    // MARK: - What it needs

    /// The names of the calendars that it excludes.
    public var calendars: Set<String> {
        switch kind {
        case .excluding(let base, let calendar, _, _): base.calendars.union([calendar])
        case .any(let parts): parts.reduce(into: []) { $0.formUnion($1.calendars) }
        default: []
        }
    }

    /// The time zones that it names.
    public var zones: Set<String> {
        switch kind {
        case .cron(_, let zone, _, _): [zone]
        case .recurrence: if case .success(.recurrence(let rule)) = parsed { [rule.zone] } else { [] }
        case .excluding(let base, _, _, let zone): base.zones.union(zone.map { [$0] } ?? [])
        case .any(let parts): parts.reduce(into: []) { $0.formUnion($1.zones) }
        default: []
        }
    }

    /// The zone of its days.
    var dayZone: String {
        switch kind {
        case .cron(_, let zone, _, _): zone
        case .recurrence: if case .success(.recurrence(let rule)) = parsed { rule.zone } else { "UTC" }
        case .excluding(let base, _, _, let zone): zone ?? base.dayZone
        case .any(let parts): parts.first?.dayZone ?? "UTC"
        default: "UTC"
        }
    }

    private var depth: Int {
        switch kind {
        case .any(let parts): 1 + (parts.map(\.depth).max() ?? 0)
        case .excluding(let base, _, _, _): 1 + base.depth
        default: 1
        }
    }

    // MARK: - Reading it

    private static func parse(_ kind: Kind) throws(TimetableError) -> Parsed {
        switch kind {
        case .cron(let text, _, _, let days):
            switch try CronParser.parse(text, days: days) {
            case .expression(let expression): return .cron(expression)
            case .every(let seconds): return .every(microseconds: Int64(seconds) * 1_000_000, offset: 0)
            }
        case .every(let interval, let offset, let allowsSubsecond):
            let floor: Int64 = allowsSubsecond ? 100_000 : 1_000_000
            guard (floor...3_155_760_000_000_000).contains(interval) else {
                let least = allowsSubsecond ? "100 ms" : "1 s (100 ms where subseconds are allowed)"
                throw .outOfRange("interval: \(Duration.microseconds(interval)) is none; \(least) to 100 years")
            }
            guard (0..<interval).contains(offset) else {
                throw .outOfRange(
                    "offset: \(Duration.microseconds(offset)) is none; zero to less than the interval, \(Duration.microseconds(interval))"
                )
            }
            return .every(microseconds: interval, offset: offset)
        case .sun(_, let latitude, let longitude):
            guard latitude >= -90, latitude <= 90 else { throw .outOfRange("latitude: \(latitude) is none; -90 to 90") }
            guard longitude >= -180, longitude <= 180 else {
                throw .outOfRange("longitude: \(longitude) is none; -180 to 180")
            }
            return .asItIs
        case .recurrence(let text): return .recurrence(try RecurrenceParser.parse(text))
        case .dates(let dates):
            guard (1...maximumParts).contains(dates.count) else {
                throw .outOfRange("dates: there are \(dates.count); 1 to \(maximumParts) can be given")
            }
            return .asItIs
        case .any(let parts):
            guard (1...maximumParts).contains(parts.count) else {
                throw .outOfRange("any: there are \(parts.count) timetables; 1 to \(maximumParts) can be given")
            }
            guard parts.allSatisfy({ $0.depth < maximumDepth }) else { throw tooDeep }
            return .asItIs
        case .excluding(let base, let calendar, _, _):
            guard (1...200).contains(calendar.utf8.count) else {
                throw .outOfRange("calendar: its name has \(calendar.utf8.count) bytes; 1 to 200 are allowed")
            }
            guard base.depth < maximumDepth else { throw tooDeep }
            return .asItIs
        }
    }

    private static var tooDeep: TimetableError {
        .outOfRange("timetables are nested more than \(maximumDepth) deep")
    }
}

extension Timetable: Hashable {
    public static func == (a: Self, b: Self) -> Bool { a.kind == b.kind }
    public func hash(into hasher: inout Hasher) { hasher.combine(kind) }
}

/// Days on which nothing is to run, such as the holidays of a country.
public struct DayCalendar: Hashable, Sendable {
    /// In order.
    public let days: [CivilDay]

    public init(_ days: some Sequence<CivilDay>) { self.days = Set(days).sorted() }

    public func contains(_ day: CivilDay) -> Bool {
        let index = days.firstIndex(notBefore: day)
        return index < days.count && days[index] == day
    }
}

extension [CivilDay] {
    /// Of an array in order.
    func firstIndex(notBefore day: CivilDay) -> Int {
        var (low, high) = (0, count)
        while low < high {
            let middle = (low + high) / 2
            if self[middle] < day { low = middle + 1 } else { high = middle }
        }
        return low
    }
}

extension Duration {
    /// Bounded to some 290,000 years.
    var boundedMicroseconds: Int64 {
        let (seconds, attoseconds) = components
        let (product, overflows) = seconds.multipliedReportingOverflow(by: 1_000_000)
        let (sum, overflowsToo) = product.addingReportingOverflow(attoseconds / 1_000_000_000_000)
        return overflows || overflowsToo ? (seconds < 0 ? .min : .max) : sum
    }
}

extension Date {
    /// Since 1970, bounded to the years 1 to 9999.
    var boundedMicroseconds: Int64 {
        let (first, last) = (TimeBounds.first * 1_000_000, TimeBounds.last * 1_000_000)
        let microseconds = (timeIntervalSince1970 * 1_000_000).rounded()
        if microseconds.isNaN { return first }
        return microseconds <= Double(first) ? first : microseconds >= Double(last) ? last : Int64(microseconds)
    }

    init(microseconds: Int64) {
        // Whole seconds are exact so.
        let seconds = floorDivision(microseconds, 1_000_000)
        self.init(timeIntervalSince1970: Double(seconds) + Double(microseconds - seconds * 1_000_000) / 1_000_000)
    }
}
