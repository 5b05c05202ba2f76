/// The numbers that one field of a cron expression allows.
struct CronField: Hashable, Sendable {
    /// Bit n for the number n.
    var numbers: UInt64
    /// Whether it begins with a star: it then stands for a rhythm and not for one time.
    var isStarred = false

    func contains(_ number: Int) -> Bool { numbers & 1 << UInt64(number) != 0 }

    /// The lowest allowed number that is not below this one.
    func first(from number: Int) -> Int? {
        guard number < 64 else { return nil }
        let rest = numbers & UInt64.max << UInt64(max(0, number))
        return rest == 0 ? nil : rest.trailingZeroBitCount
    }

    var all: [Int] { (0..<64).filter(contains) }
}

/// What a field is called and which numbers it may have.
struct CronFieldKind: Sendable {
    var name: String
    var range: ClosedRange<Int>
    var names: [String] = []

    static let second = CronFieldKind(name: "second", range: 0...59)
    static let minute = CronFieldKind(name: "minute", range: 0...59)
    static let hour = CronFieldKind(name: "hour", range: 0...23)
    static let day = CronFieldKind(name: "day of month", range: 1...31)
    static let month = CronFieldKind(
        name: "month", range: 1...12,
        names: ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"])
    static let weekday = CronFieldKind(
        name: "day of week", range: 0...7, names: ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])

    /// What may stand in the field.
    var allowed: String {
        let numbers = "\(range.lowerBound) to \(range.upperBound)"
        return names.isEmpty ? numbers : "\(names[0]) to \(names[names.count - 1]) or \(numbers)"
    }

    func malformed(_ term: some StringProtocol, _ hint: String? = nil) -> TimetableError {
        let hint = hint ?? (term.isEmpty ? "a term is missing; \(allowed)" : "is none; \(allowed)")
        return .malformed(term.isEmpty ? "\(name): \(hint)" : "\(name): \"\(term)\" \(hint)")
    }
}
