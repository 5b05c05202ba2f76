import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// A number and its unit, apart, because the unit is shown in a quieter colour.
struct Quantity: Sendable, Hashable {
    var number: String
    /// With the thin space before it; empty where there is none.
    var unit = ""

    static let none = Quantity(number: "–")
    var text: String { number + unit }
}

/// How numbers, times and sizes are written.
enum Format {
    private static let thin = "\u{2009}"

    /// `1,204`.
    static func count(_ number: Int) -> String {
        let digits = String(number.magnitude)
        var groups: [Substring] = []
        var rest = digits[...]
        while rest.count > 3 {
            groups.append(rest.suffix(3))
            rest = rest.dropLast(3)
        }
        groups.append(rest)
        return (number < 0 ? "−" : "") + groups.reversed().joined(separator: ",")
    }

    /// `1 job`, `12 jobs`.
    static func count(_ number: Int, _ noun: String) -> String {
        count(number) + " " + noun + (number == 1 ? "" : "s")
    }

    /// `10,000+` for what was counted no further.
    static func bounded(_ number: Int) -> String {
        number > JobPageQuery.countLimit ? count(JobPageQuery.countLimit) + "+" : count(number)
    }

    /// `38 ms`, `3.2 s`, `14 min`, `5 h`, `3 d`.
    static func span(_ seconds: Double?) -> Quantity {
        guard let seconds, seconds.isFinite else { return .none }
        let value = min(abs(seconds), 1e12)
        switch value {
        case ..<0.0005: return Quantity(number: "0", unit: thin + "ms")
        case ..<1: return Quantity(number: decimal(value * 1000, digits: value < 0.01 ? 1 : 0), unit: thin + "ms")
        case ..<60: return Quantity(number: decimal(value, digits: 1), unit: thin + "s")
        case ..<5400: return Quantity(number: count(Int((value / 60).rounded())), unit: thin + "min")
        case ..<172_800: return Quantity(number: count(Int((value / 3600).rounded())), unit: thin + "h")
        default: return Quantity(number: count(Int((value / 86_400).rounded())), unit: thin + "d")
        }
    }

    /// `846 /s`, `0.4 /s`.
    static func rate(_ perSecond: Double) -> Quantity {
        let digits = perSecond == 0 || perSecond >= 10 ? 0 : perSecond >= 1 ? 1 : 2
        return Quantity(number: decimal(perSecond, digits: digits), unit: thin + "/s")
    }

    /// `4.1 %`.
    static func share(_ part: Int, of whole: Int) -> Quantity {
        guard whole > 0 else { return .none }
        let percent = Double(part) / Double(whole) * 100
        // One in a million is not none.
        if part > 0, percent < 0.1 { return Quantity(number: "<0.1", unit: thin + "%") }
        return Quantity(number: decimal(percent, digits: percent >= 10 || percent == 0 ? 0 : 1), unit: thin + "%")
    }

    /// `2.1 GB`.
    static func bytes(_ bytes: Int?) -> Quantity {
        guard let bytes else { return .none }
        var (value, unit) = (Double(bytes), "B")
        for next in ["kB", "MB", "GB", "TB"] where value >= 1000 { (value, unit) = (value / 1000, next) }
        return Quantity(number: decimal(value, digits: unit == "B" || value >= 100 ? 0 : 1), unit: thin + unit)
    }

    /// With so many digits behind the point, none of them zeros at the end.
    static func decimal(_ value: Double, digits: Int) -> String {
        guard value.isFinite, abs(value) < 1e15 else { return "–" }
        let scale = [1.0, 10, 100, 1000][min(max(digits, 0), 3)]
        let scaled = Int((abs(value) * scale).rounded())
        let (whole, rest) = scaled.quotientAndRemainder(dividingBy: Int(scale))
        var text = count(whole)
        if rest > 0 {
            var behind = String(rest)
            behind = String(repeating: "0", count: max(0, digits - behind.count)) + behind
            while behind.hasSuffix("0") { behind.removeLast() }
            text += "." + behind
        }
        return value < 0 && scaled > 0 ? "−" + text : text
    }

    /// `12 s ago`, `in 3 min`.
    static func relative(_ date: Date, to now: Date) -> String {
        let seconds = now.timeIntervalSince(date)
        if abs(seconds) < 1 { return "now" }
        let whole = span(abs(seconds) < 60 ? abs(seconds).rounded(.down) : abs(seconds)).text
        return seconds >= 0 ? whole + " ago" : "in " + whole
    }

    /// An id cut in its middle.
    static func shortID(_ id: String) -> String {
        guard id.count > 18 else { return id }
        return id.prefix(8) + "…" + id.suffix(6)
    }
}

/// A moment: relative for people, exact on hover.
struct Moment: Sendable, Hashable {
    var relative: String
    /// ISO 8601, UTC.
    var exact: String

    init(_ date: Date, _ now: Date) {
        relative = Format.relative(date, to: now)
        exact = WireTimestamp.string(from: date)
    }

    init?(_ date: Date?, _ now: Date) {
        guard let date else { return nil }
        self.init(date, now)
    }
}
