#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Ids of the form UUID version 7 (RFC 9562 §5.7): the time comes first, so ids made together lie together in an index,
/// and in their order.
package enum JobIdentifier {
    package static func make() -> String { make(at: ticks, number: random) }

    /// Ids that are in their order however fast they are made: each is a quarter of a microsecond later than the one
    /// before. The system is asked for a random number once, of which the standard library's keyed hash makes one for
    /// each: nobody can tell one id from another.
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

    /// 4,096 to the millisecond.
    private static var ticks: UInt64 { UInt64(Date().timeIntervalSince1970 * 1000 * 4096) }

    private static func make(at ticks: UInt64, number: UInt64) -> String {
        // What is left of the millisecond goes where twelve random bits may be (§6.2, method 3): ids of one millisecond
        // are in order as well.
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
