import Synchronization

/// The wire names of a Swift type's properties.
///
/// Names are snake_case on the wire (`videoID` is `video_id`), as in a Python signature. A type with an explicit
/// `enum CodingKeys: String, CodingKey` keeps the names of its `CodingKeys`. The keys of a dictionary stay unchanged,
/// because they are data.
enum WireKeyStyle: Sendable {
    case snakeCase, verbatim

    private static let known = Mutex<[ObjectIdentifier: WireKeyStyle]>([:])

    static func of<Key: CodingKey>(_ type: Key.Type) -> WireKeyStyle {
        let identifier = ObjectIdentifier(type)
        if let style = known.withLock({ $0[identifier] }) { return style }
        let isOwnChoice =
            type is any RawRepresentable.Type || type == WireCodingKey.self
            || String(reflecting: type).hasPrefix("Swift._DictionaryCodingKey")
        let style: WireKeyStyle = isOwnChoice ? .verbatim : .snakeCase
        known.withLock { $0[identifier] = style }
        return style
    }

    func name(of key: some CodingKey) -> String {
        switch self {
        case .verbatim: key.stringValue
        case .snakeCase: Self.snakeCase(key.stringValue)
        }
    }

    /// `videoID` → `video_id`, `maxURLLength` → `max_url_length`, `x1` → `x1`.
    static func snakeCase(_ name: String) -> String {
        func isUpper(_ byte: UInt8) -> Bool { byte &- 0x41 < 26 }
        let bytes = Array(name.utf8)
        guard bytes.contains(where: isUpper) else { return name }
        var output: [UInt8] = []
        for (index, byte) in bytes.enumerated() {
            guard isUpper(byte) else {
                output.append(byte)
                continue
            }
            let beginsWord =
                index > 0 && bytes[index - 1] != UInt8(ascii: "_")
                && (!isUpper(bytes[index - 1]) || (index + 1 < bytes.count && bytes[index + 1] &- 0x61 < 26))
            if beginsWord { output.append(UInt8(ascii: "_")) }
            output.append(byte | 0x20)
        }
        return String(decoding: output, as: UTF8.self)
    }
}

/// A key for an index of an array, or for a name from the wire.
struct WireCodingKey: CodingKey {
    var stringValue: String
    var intValue: Int?

    init(_ name: String) { stringValue = name }
    init(stringValue: String) { self.stringValue = stringValue }
    init(intValue: Int) {
        stringValue = String(intValue)
        self.intValue = intValue
    }
}
