#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Ids in the form of UUID version 7 (RFC 9562 §5.7): the time comes first, so ids made together are adjacent and in
/// order in an index.
package enum JobIdentifier {
    package static func make() -> String { make(at: ticks, number: random) }

    /// Ids that stay in order however fast they are made: each id is a quarter of a microsecond later than the previous
    /// id. The system supplies one random number, from which the standard library's keyed hash derives a number for
    /// each id, so that no id can be inferred from another id.
    static func make(count: Int) -> [String] {
        let (first, secret) = (ticks, random)
        return (0..<UInt64(count)).map { index in
            var hasher = Hasher()
            hasher.combine(secret)
            hasher.combine(index)
            return make(at: first + index, number: UInt64(bitPattern: Int64(hasher.finalize())))
        }
    }

    private static var random: UInt64 {
        var generator = SystemRandomNumberGenerator()
        return generator.next()
    }

    /// The current time, in units of 1/4,096 of a millisecond.
    private static var ticks: UInt64 { UInt64(max(0, Date().timeIntervalSince1970) * 1000 * 4096) }

    private static func make(at ticks: UInt64, number: UInt64) -> String {
        // The fraction of the millisecond takes the place of twelve random bits (§6.2, method 3), so that the ids of
        // one millisecond are in order as well.
        let high = (ticks >> 12) << 16 | 0x7000 | ticks & 0x0FFF
        let low = 0x8000_0000_0000_0000 | number & 0x3FFF_FFFF_FFFF_FFFF
        return String(unsafeUninitializedCapacity: 36) { buffer in
            var position = 0
            func write(_ value: UInt64, digits: Int, shift: Int) {
                for digit in stride(from: digits - 1, through: 0, by: -1) {
                    let nibble = UInt8(truncatingIfNeeded: value >> UInt64(shift + digit * 4) & 0xF)
                    buffer[position] = nibble < 10 ? 0x30 + nibble : 0x61 + nibble - 10
                    position += 1
                }
            }
            func dash() {
                buffer[position] = UInt8(ascii: "-")
                position += 1
            }
            write(high, digits: 8, shift: 32)
            dash()
            write(high, digits: 4, shift: 16)
            dash()
            write(high, digits: 4, shift: 0)
            dash()
            write(low, digits: 4, shift: 48)
            dash()
            write(low, digits: 12, shift: 0)
            return position
        }
    }
}
