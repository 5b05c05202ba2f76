import Synchronization

/// The accepted serializations of message bodies, by content type. None of them can run code.
package enum Serialization {
    package static let json = "application/json"
    package static let yaml = "application/x-yaml"

    /// Reads the bytes of one content type.
    package typealias Parser = @Sendable (_ bytes: [UInt8], _ limits: WireLimits) throws(WireError) -> WireValue

    private static let added = Mutex<[String: Parser]>([:])

    /// Accepts a content type more in this process. A module that needs a library for it adds it, so that programs
    /// without that module need no such library.
    package static func accept(_ contentType: String, _ parser: @escaping Parser) {
        added.withLock { $0[contentType] = parser }
    }

    /// - Throws: ``WireError`` when the content type is not accepted, or the bytes do not match it. A retry cannot
    ///   help.
    package static func parse(_ bytes: [UInt8], as contentType: String, limits: WireLimits) throws(WireError)
        -> WireValue
    {
        switch contentType {
        case json: return try JSONParser.parse(bytes, limits: limits)
        case "application/x-msgpack": return try MessagePackParser.parse(bytes, limits: limits)
        case "application/x-python-serialize":
            throw WireError("content type \(contentType) (pickle) is refused: reading it would run code")
        default:
            if let parser = added.withLock({ $0[contentType] }) { return try parser(bytes, limits) }
            let hint = contentType == yaml ? ": only programs with HoistRedis read YAML" : ""
            throw WireError("content type \(contentType) is not accepted by this worker" + hint)
        }
    }
}
