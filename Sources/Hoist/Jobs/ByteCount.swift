/// A size of memory.
///
/// ```swift
/// JobOptions(memoryLimit: .gibibytes(4))
/// ```
public struct ByteCount: Sendable, Hashable, Comparable, ExpressibleByIntegerLiteral, CustomStringConvertible {
    /// 0 or more.
    public var bytes: Int

    public init(bytes: Int) { self.bytes = max(0, bytes) }

    public init(integerLiteral value: Int) { self.init(bytes: value) }

    /// - Parameter count: of 1,024 bytes each.
    public static func kibibytes(_ count: Int) -> ByteCount { times(count, 1 << 10) }
    /// - Parameter count: of 1,048,576 bytes each.
    public static func mebibytes(_ count: Int) -> ByteCount { times(count, 1 << 20) }
    /// - Parameter count: of 1,073,741,824 bytes each.
    public static func gibibytes(_ count: Int) -> ByteCount { times(count, 1 << 30) }

    public static func < (left: ByteCount, right: ByteCount) -> Bool { left.bytes < right.bytes }

    /// In the largest unit that fits: `512 MiB`.
    public var description: String {
        switch bytes {
        case ..<(1 << 10): "\(bytes) B"
        case ..<(1 << 20): "\(bytes >> 10) KiB"
        case ..<(1 << 30): "\(bytes >> 20) MiB"
        default: "\(Double(bytes >> 20) / 1024) GiB"
        }
    }

    private static func times(_ count: Int, _ unit: Int) -> ByteCount {
        let (bytes, isTooMuch) = count.multipliedReportingOverflow(by: unit)
        return ByteCount(bytes: isTooMuch ? .max : bytes)
    }
}
