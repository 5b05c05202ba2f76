import Histogram
import Hoist

/// Times, counted by how long they took, to two digits: 1 ms to a day. Stored as the pairs that are there, and merged by
/// adding.
struct Durations: Sendable, Hashable {
    /// Counts by the lowest value, in milliseconds, that cannot be told from the one that was measured.
    private(set) var counts: [UInt32: UInt32] = [:]

    private static let longest: UInt64 = 86_400_000
    /// Knows which values are equivalent. It records nothing.
    private static let scale = Histogram<UInt32>(
        lowestDiscernibleValue: 1, highestTrackableValue: longest, numberOfSignificantValueDigits: .two)

    var isEmpty: Bool { counts.isEmpty }
    var count: Int { counts.values.reduce(0) { $0 + Int($1) } }

    /// - Parameter seconds: below 1 ms counts as 1 ms, above a day as a day; what is no number is left out.
    mutating func add(_ seconds: Double) {
        guard seconds.isFinite else { return }
        let milliseconds = UInt64((seconds * 1000).rounded().clamped(to: 1...Double(Self.longest)))
        add(UInt32(Self.scale.lowestEquivalentForValue(milliseconds)), 1)
    }

    mutating func merge(_ other: Durations) { for (value, count) in other.counts { add(value, count) } }

    private mutating func add(_ value: UInt32, _ count: UInt32) {
        counts[value] = (counts[value] ?? 0).addingReportingOverflow(count).partialValue
    }

    /// - Parameter percentiles: 0...100.
    /// - Returns: seconds for each; nil where nothing was measured.
    func seconds(at percentiles: [Double]) -> [Double]? {
        guard !counts.isEmpty else { return nil }
        let sorted = counts.sorted { $0.key < $1.key }
        let total = Double(count)
        return percentiles.map { percentile in
            let rank = (percentile / 100 * total).rounded(.up)
            var seen = 0.0
            for (value, count) in sorted {
                seen += Double(count)
                if seen >= rank { return Double(Self.scale.highestEquivalentForValue(UInt64(value))) / 1000 }
            }
            return Double(sorted[sorted.count - 1].key) / 1000
        }
    }

    // MARK: - Stored form

    /// Pairs of variable-length integers, by value.
    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        var last: UInt32 = 0
        for (value, count) in counts.sorted(by: { $0.key < $1.key }) {
            Self.write(value - last, to: &bytes)
            Self.write(count, to: &bytes)
            last = value
        }
        return bytes
    }

    init() {}

    /// - Parameter bytes: as ``bytes``; what is not of that form is left out.
    init(bytes: [UInt8]) {
        var index = 0
        var value: UInt32 = 0
        while let step = Self.read(bytes, &index), let count = Self.read(bytes, &index) {
            let (next, overflow) = value.addingReportingOverflow(step)
            guard !overflow, UInt64(next) <= Self.longest else { return }
            value = next
            add(value, count)
        }
    }

    private static func write(_ value: UInt32, to bytes: inout [UInt8]) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    private static func read(_ bytes: [UInt8], _ index: inout Int) -> UInt32? {
        var (value, shift): (UInt64, UInt64) = (0, 0)
        while index < bytes.count, shift < 35 {
            let byte = bytes[index]
            index += 1
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { return UInt32(exactly: value) }
            shift += 7
        }
        return nil
    }
}
