/// Reads a zone file: TZif, RFC 8536.
enum ZoneFile {
    /// The largest in the database has about 3,500 bytes.
    static let maximumBytes = 1 << 20

    /// - Returns: nil when the bytes are no zone file.
    static func read(_ bytes: [UInt8]) -> ZoneRules? {
        guard bytes.count <= maximumBytes, let first = Header(bytes, at: 0) else { return nil }
        if first.version < 2 { return rules(bytes, first, timeSize: 4, closingRule: nil) }
        // The block of 32-bit times is there for old readers.
        guard let second = Header(bytes, at: first.end(timeSize: 4)) else { return nil }
        let footer = bytes[second.end(timeSize: 8)...]
        guard footer.first == 0x0A, let end = footer.dropFirst().firstIndex(of: 0x0A) else { return nil }
        let text = String(decoding: footer[(footer.startIndex + 1)..<end], as: UTF8.self)
        if text.isEmpty { return rules(bytes, second, timeSize: 8, closingRule: nil) }
        guard let rule = PosixZoneRule(text) else { return nil }
        return rules(bytes, second, timeSize: 8, closingRule: rule)
    }

    private struct Header {
        var start: Int
        var version: Int
        /// Of UT flags, standard flags, leap seconds, times, types, characters.
        var counts: [Int]

        init?(_ bytes: [UInt8], at start: Int) {
            guard start >= 0, bytes.count - start >= 44, bytes[start..<start + 4].elementsEqual("TZif".utf8) else {
                return nil
            }
            self.start = start
            version = bytes[start + 4] == 0 ? 1 : Int(bytes[start + 4]) - 0x30
            counts = (0..<6).map { Int(ZoneFile.integer(bytes, start + 20 + $0 * 4, 4)) }
            let size = end(timeSize: version == 1 || start == 0 ? 4 : 8)
            guard counts.allSatisfy({ (0...ZoneFile.maximumBytes).contains($0) }), counts[4] > 0, size <= bytes.count
            else {
                return nil
            }
        }

        func end(timeSize: Int) -> Int {
            start + 44 + counts[3] * (timeSize + 1) + counts[4] * 6 + counts[5] + counts[2] * (timeSize + 4) + counts[1]
                + counts[0]
        }
    }

    private static func rules(
        _ bytes: [UInt8], _ header: Header, timeSize: Int, closingRule: PosixZoneRule?
    ) -> ZoneRules? {
        let times = header.start + 44
        let indices = times + header.counts[3] * timeSize
        let types = indices + header.counts[3]
        func offset(ofType type: Int) -> Int? {
            guard type < header.counts[4] else { return nil }
            let offset = Int(integer(bytes, types + type * 6, 4))
            return abs(offset) <= 26 * 3600 ? offset : nil
        }
        guard let firstOffset = offset(ofType: 0) else { return nil }
        var changes: [ZoneRules.Change] = []
        var (last, current) = (Int64.min, firstOffset)
        for number in 0..<header.counts[3] {
            let time = integer(bytes, times + number * timeSize, timeSize)
            guard let offset = offset(ofType: Int(bytes[indices + number])), time > last || number == 0 else {
                return nil
            }
            last = time
            if offset != current {
                // Some files say of the beginning of time what held then.
                if time > -1 << 40 { changes.append(.init(at: time, offset: offset)) }
                current = offset
            }
        }
        return ZoneRules(firstOffset: firstOffset, changes: changes, rule: closingRule)
    }

    fileprivate static func integer(_ bytes: [UInt8], _ start: Int, _ size: Int) -> Int64 {
        let value = bytes[start..<start + size].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        return size == 4 ? Int64(Int32(truncatingIfNeeded: value)) : Int64(bitPattern: value)
    }
}
