/// A day of the Gregorian calendar, in no zone.
public struct CivilDay: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// Days since 1 January 1970.
    public let number: Int

    /// - Parameter number: days since 1 January 1970; negative before.
    public init(number: Int) { self.number = number }

    /// - Parameters:
    ///   - year: any; 0 is the year before 1.
    ///   - month: 1 to 12.
    ///   - day: 1 for the first of the month. Days beyond the month's end count into the next.
    public init(year: Int, month: Int, day: Int) {
        // The year begins in March, so that the leap day is its last.
        let year = month <= 2 ? year - 1 : year
        let era = floorDivision(year, 400)
        let yearOfEra = year - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        number = era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    /// Reads `2026-03-29`.
    /// - Returns: nil when the text is no day that the calendar has.
    public init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0].utf8.count == 4, parts[1].utf8.count == 2, parts[2].utf8.count == 2,
            let year = decimal(parts[0]), let month = decimal(parts[1]), let day = decimal(parts[2]),
            (1...12).contains(month), day >= 1, day <= Self.length(ofMonth: month, in: year)
        else { return nil }
        self.init(year: year, month: month, day: day)
    }

    /// Year, month and day of the month.
    public var parts: (year: Int, month: Int, day: Int) {
        let shifted = number + 719_468
        let era = floorDivision(shifted, 146_097)
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * shiftedMonth + 2) / 5 + 1)
    }

    /// 0 is Sunday, 6 is Saturday.
    public var weekday: Int { (number % 7 + 11) % 7 }

    /// As `2026-03-29`.
    public var description: String {
        let (year, month, day) = parts
        return "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))"
    }

    public static func < (a: Self, b: Self) -> Bool { a.number < b.number }

    static func length(ofMonth month: Int, in year: Int) -> Int {
        switch month {
        case 2: isLeap(year) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }

    static func isLeap(_ year: Int) -> Bool { year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) }

    static let monthNames = [
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
        "December",
    ]
    static let weekdayNames = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]
}

/// What clocks show, as seconds since they showed midnight of 1 January 1970.
typealias LocalSeconds = Int64

extension LocalSeconds {
    static let perDay: Int64 = 86_400

    init(_ day: CivilDay, secondOfDay: Int = 0) { self = Int64(day.number) * Self.perDay + Int64(secondOfDay) }

    var civilDay: CivilDay { CivilDay(number: Int(floorDivision(self, Self.perDay))) }
    var secondOfDay: Int { Int(self - floorDivision(self, Self.perDay) * Self.perDay) }
}

func floorDivision<T: BinaryInteger>(_ a: T, _ b: T) -> T {
    let quotient = a / b
    return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient
}

/// A number of up to nine ASCII digits; nil for anything else, also with a sign.
func decimal(_ text: some StringProtocol) -> Int? {
    let bytes = text.utf8
    guard !bytes.isEmpty, bytes.count <= 9, bytes.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
    return bytes.reduce(0) { $0 * 10 + Int($1 - 0x30) }
}

func padded(_ number: Int, _ width: Int) -> String {
    let digits = String(number.magnitude)
    return (number < 0 ? "-" : "") + String(repeating: "0", count: max(0, width - digits.count)) + digits
}
