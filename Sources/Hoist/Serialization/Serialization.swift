/// The accepted serializations of message bodies, by content type. None of them can run code.
package enum Serialization {
    package static let json = "application/json"

    /// - Throws: ``WireError`` when the content type is not accepted, or the bytes do not match it. A retry cannot
    ///   help.
    package static func parse(_ bytes: [UInt8], as contentType: String, limits: WireLimits) throws(WireError)
        -> WireValue
    {
        switch contentType {
        case json: return try JSONParser.parse(bytes, limits: limits)
        case "application/x-msgpack": return try MessagePackParser.parse(bytes, limits: limits)
        case "application/x-yaml": return try YAMLText.parse(bytes, limits: limits)
        case "application/x-python-serialize":
            throw WireError("content type \(contentType) (pickle) is refused: reading it would run code")
        default: throw WireError("content type \(contentType) is not accepted by this worker")
        }
    }
}
