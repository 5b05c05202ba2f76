/// Text that stands for itself in JSON: ASCII without quotes, backslashes and control characters. Most of a large
/// message is such, and it is gone over eight bytes at a time.
enum PlainText {
    private static func each(_ byte: UInt8) -> UInt64 { UInt64(byte) &* 0x0101_0101_0101_0101 }

    /// - Returns: the index of a byte up to which from `start` on all is plain; what follows has to be looked at one by
    ///   one for a bit.
    static func end(in bytes: UnsafeBufferPointer<UInt8>, from start: Int) -> Int {
        guard let base = UnsafeRawPointer(bytes.baseAddress) else { return start }
        var index = start
        while index <= bytes.count - 8 {
            let word = base.loadUnaligned(fromByteOffset: index, as: UInt64.self)
            // A byte is zero, or has become negative: Bit Twiddling Hacks, "determine if a word has a byte less than
            // n".
            let quotes = word ^ each(UInt8(ascii: "\""))
            let escapes = word ^ each(UInt8(ascii: "\\"))
            let found =
                (quotes &- each(1)) & ~quotes | (escapes &- each(1)) & ~escapes | (word &- each(0x20)) & ~word | word
            if found & each(0x80) != 0 { break }
            index += 8
        }
        return index
    }
}
