#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Splits bytes into lines.
package struct LineSplitter {
    /// The longest line that is kept, in bytes. The rest of a longer line is dropped.
    package static let maximumBytes = 2048

    private var begun: [UInt8] = []

    package init() {}

    /// - Parameter limit: the largest number of lines to return; only the last lines are returned.
    package mutating func split(_ bytes: UnsafeRawBufferPointer, keeping limit: Int) -> (lines: [String], omitted: Int)
    {
        guard let base = bytes.baseAddress else { return ([], 0) }
        var ends: [Int] = []
        var position = 0
        while position < bytes.count, let end = memchr(base + position, 0x0A, bytes.count - position) {
            ends.append(end - UnsafeMutableRawPointer(mutating: base))
            position = ends[ends.count - 1] + 1
        }
        let omitted = max(0, ends.count - limit)
        var lines: [String] = []
        var start = omitted > 0 ? ends[omitted - 1] + 1 : 0
        if omitted > 0 { begun = [] }
        for end in ends.dropFirst(omitted) {
            begin(with: bytes[start..<end])
            lines.append(take())
            start = end + 1
        }
        begin(with: bytes[start...])
        return (lines, omitted)
    }

    /// The last line, if it has no line break.
    package mutating func end() -> String? { begun.isEmpty ? nil : take() }

    private mutating func begin(with bytes: Slice<UnsafeRawBufferPointer>) {
        begun.append(
            contentsOf: UnsafeRawBufferPointer(rebasing: bytes.prefix(max(0, Self.maximumBytes - begun.count))))
    }

    private mutating func take() -> String {
        defer { begun.removeAll(keepingCapacity: true) }
        return String(decoding: begun, as: UTF8.self)
    }
}
