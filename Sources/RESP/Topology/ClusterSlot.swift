import Endpoints

/// Where in a cluster a key lies (Redis cluster specification, "Key distribution model").
public enum ClusterSlot {
    public static let count = 16384

    private static let table: [UInt16] = (0..<256).map { byte in
        (0..<8).reduce(UInt16(byte) << 8) { crc, _ in crc & 0x8000 == 0 ? crc << 1 : crc << 1 ^ 0x1021 }
    }

    /// The slot of a key. Only the part between the first braces counts, unless there is none or it is empty.
    public static func of(_ key: [UInt8]) -> Int {
        var hashed = key[...]
        if let open = key.firstIndex(of: UInt8(ascii: "{")),
            let close = key[(open + 1)...].firstIndex(of: UInt8(ascii: "}")),
            close > open + 1
        {
            hashed = key[(open + 1)..<close]
        }
        let crc = hashed.reduce(UInt16(0)) { crc, byte in crc << 8 ^ table[Int((crc >> 8 ^ UInt16(byte)) & 0xFF)] }
        return Int(crc) % count
    }
}

/// An answer that redirects a command to another node.
struct ClusterRedirection: Equatable {
    /// True for ASK, which redirects one command while its slot moves; false for MOVED.
    var isForOnce: Bool
    var slot: Int
    var address: ServerAddress

    /// - Parameter origin: the server that answered; an address without a host means the host of that server.
    init?(_ value: RESPValue?, from origin: ServerAddress) {
        guard case .error(let error)? = value, error.code == "MOVED" || error.code == "ASK" else { return nil }
        let words = error.message.split(separator: " ")
        guard words.count == 3, let slot = Int(words[1]), (0..<ClusterSlot.count).contains(slot),
            let colon = words[2].lastIndex(of: ":"),
            let port = Int(words[2][words[2].index(after: colon)...]), (1...65535).contains(port)
        else { return nil }
        var host = String(words[2][..<colon])
        if host.isEmpty, case .host(let same, _) = origin { host = same }
        isForOnce = error.code == "ASK"
        self.slot = slot
        address = .host(host, port: port)
    }
}
