/// Text that needs no escapes in JSON: ASCII without quotes, backslashes and control characters. Most of a large
/// message is plain text, so the scan takes eight bytes at a time.
enum PlainText {
    private static func each(_ byte: UInt8) -> UInt64 { UInt64(byte) &* 0x0101_0101_0101_0101 }

    /// - Returns: an index up to which every byte from `start` is plain. Some bytes after the index may be plain too:
    ///   the caller checks them one by one.
    static func end(in bytes: UnsafeBufferPointer<UInt8>, from start: Int) -> Int {
        guard let base = UnsafeRawPointer(bytes.baseAddress) else { return start }
        var index = start
        while index <= bytes.count - 8 {
            let word = base.loadUnaligned(fromByteOffset: index, as: UInt64.self)
            // A high bit is set where the word holds a quote, a backslash, a control character or a byte that is not
            // ASCII: Bit Twiddling Hacks, "determine if a word has a byte less than n".
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
