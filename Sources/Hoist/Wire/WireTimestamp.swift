import Timetables

#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// Times as Celery writes them: ISO 8601 with microseconds and a numeric offset, where a time without offset is UTC.
///
/// Foundation's own style stops at milliseconds and refuses Python's naive form.
package enum WireTimestamp {
    /// `2026-11-21T01:57:06.060446+00:00`; the fraction is left out when it is zero, as Python does.
    package static func string(from date: Date) -> String {
        let microseconds = date.microsecondsSinceEpoch
        let (days, microsecondOfDay) = microseconds.flooredDivision(by: 86_400_000_000)
        let (year, month, day) = CivilDay(number: Int(days)).parts
        let second = microsecondOfDay / 1_000_000
        let fraction = microsecondOfDay % 1_000_000
        var text = "\(padded(Int64(year), 4))-\(padded(Int64(month), 2))-\(padded(Int64(day), 2))T"
        text += "\(padded(second / 3600, 2)):\(padded(second / 60 % 60, 2)):\(padded(second % 60, 2))"
        if fraction != 0 { text += ".\(padded(fraction, 6))" }
        return text + "+00:00"
    }

    /// Reads a date, or a date and time with `T` or a space between, with or without fraction and offset.
    /// - Returns: nil for anything else, numbers included.
    package static func date(from text: String) -> Date? {
        var scanner = Scanner(text)
        guard let year = scanner.digits(4), scanner.take("-"), let month = scanner.digits(2), scanner.take("-"),
            let day = scanner.digits(2), (1...12).contains(month), (1...31).contains(day)
        else { return nil }
        let civilDay = CivilDay(year: Int(year), month: Int(month), day: Int(day))
        var microseconds = Int64(civilDay.number) * 86_400_000_000
        if scanner.isAtEnd { return Date(microsecondsSinceEpoch: microseconds) }
        guard scanner.take("T") || scanner.take(" ") || scanner.take("t"), let hour = scanner.digits(2),
            scanner.take(":"),
            let minute = scanner.digits(2), (0...24).contains(hour), (0...59).contains(minute)
        else { return nil }
        microseconds += (hour * 3600 + minute * 60) * 1_000_000
        if scanner.take(":") {
            guard let second = scanner.digits(2), (0...60).contains(second) else { return nil }
            microseconds += second * 1_000_000
            if scanner.take(".") || scanner.take(",") {
                guard let fraction = scanner.fraction() else { return nil }
                microseconds += fraction
            }
        }
        if scanner.isAtEnd || scanner.take("Z") || scanner.take("z") {
            return scanner.isAtEnd ? Date(microsecondsSinceEpoch: microseconds) : nil
        }
        let sign: Int64
        if scanner.take("+") { sign = 1 } else if scanner.take("-") { sign = -1 } else { return nil }
        guard let offsetHours = scanner.digits(2) else { return nil }
        _ = scanner.take(":")
        let offsetMinutes = scanner.digits(2) ?? 0
        guard scanner.isAtEnd else { return nil }
        return Date(microsecondsSinceEpoch: microseconds - sign * (offsetHours * 3600 + offsetMinutes * 60) * 1_000_000)
    }

    private static func padded(_ value: Int64, _ width: Int) -> String {
        let digits = String(value)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }

    private struct Scanner {
        private var rest: Substring.UTF8View

        init(_ text: String) { rest = Substring(text).utf8 }

        var isAtEnd: Bool { rest.isEmpty }

        mutating func take(_ character: Character) -> Bool {
            guard rest.first == character.asciiValue else { return false }
            rest.removeFirst()
            return true
        }

        mutating func digits(_ count: Int) -> Int64? {
            guard rest.count >= count else { return nil }
            var value: Int64 = 0
            for byte in rest.prefix(count) {
                guard byte &- 0x30 < 10 else { return nil }
                value = value * 10 + Int64(byte &- 0x30)
            }
            rest.removeFirst(count)
            return value
        }

        /// Microseconds; digits past the sixth are dropped.
        mutating func fraction() -> Int64? {
            var value: Int64 = 0
            var count = 0
            while let byte = rest.first, byte &- 0x30 < 10 {
                if count < 6 { value = value * 10 + Int64(byte &- 0x30) }
                count += 1
                rest.removeFirst()
            }
            guard count > 0 else { return nil }
            for _ in count..<max(count, 6) { value *= 10 }
            return value
        }
    }
}

extension Date {
    /// Microseconds since 1970, the unit that backends store. Times outside the years 1 to 9999 are clamped to that
    /// range; a time that is not finite becomes 0.
    public var microsecondsSinceEpoch: Int64 {
        guard timeIntervalSince1970.isFinite else { return 0 }
        let seconds = timeIntervalSince1970.clamped(to: -62_135_596_800...253_402_300_799)
        return Int64((seconds * 1_000_000).rounded())
    }

    /// Seconds since 1970 from an outside source, clamped to the years 1 to 9999; nil for a number that is not finite.
    package init?(boundedSecondsSinceEpoch seconds: Double) {
        guard seconds.isFinite else { return nil }
        self.init(timeIntervalSince1970: seconds.clamped(to: -62_135_596_800...253_402_300_799))
    }

    public init(microsecondsSinceEpoch microseconds: Int64) {
        self.init(timeIntervalSince1970: Double(microseconds) / 1_000_000)
    }

    package func advanced(by duration: Duration) -> Date {
        addingTimeInterval(duration.inSeconds)
    }
}

extension Duration {
    /// The duration in seconds, for arithmetic with `Date` and for wire formats that carry a number.
    package var inSeconds: Double {
        let (seconds, attoseconds) = components
        return Double(seconds) + Double(attoseconds) / 1e18
    }

    /// Whole microseconds, clamped to about ±9,500 years, so that adding a time does not overflow.
    package var inMicroseconds: Int64 {
        let (seconds, attoseconds) = components
        return seconds.clamped(to: -300_000_000_000...300_000_000_000) * 1_000_000 + attoseconds / 1_000_000_000_000
    }

    /// Seconds from an outside source, clamped to 0...10,000,000,000 (about 317 years). What is not a number
    /// counts as 0.
    package init(boundedSeconds seconds: Double) {
        self = .seconds(seconds.isNaN ? 0 : seconds.clamped(to: 0...10_000_000_000))
    }
}

extension Int64 {
    /// A number from an outside source: clamped, 0 for one that is not finite, without its fraction.
    package init(bounded number: Double) {
        self = number.isFinite ? Int64(number.clamped(to: -9.2e18...9.2e18)) : 0
    }

    fileprivate func flooredDivision(by divisor: Int64) -> (quotient: Int64, remainder: Int64) {
        let (quotient, remainder) = quotientAndRemainder(dividingBy: divisor)
        return remainder < 0 ? (quotient - 1, remainder + divisor) : (quotient, remainder)
    }
}

extension Comparable {
    package func clamped(to range: ClosedRange<Self>) -> Self { min(max(self, range.lowerBound), range.upperBound) }
}
