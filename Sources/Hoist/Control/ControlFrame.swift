/// A message that is no job: events, a request or a reply, in the envelope that kombu gives every message.
struct ControlFrame {
    var headers: WireValue.Object
    var body: WireValue

    init(headers: WireValue.Object, body: WireValue) {
        self.headers = headers
        self.body = body
    }

    /// Reads a frame of any program.
    /// - Parameter limits: of the frame and, again, of the body in it.
    /// - Throws: ``WireError`` for what is no JSON, exceeds the limits, or has a body in another serialization than
    ///   JSON.
    init(_ bytes: [UInt8], limits: WireLimits) throws(WireError) {
        guard case .object(let envelope) = try JSONParser.parse(bytes, limits: limits) else {
            throw WireError("the frame is no object")
        }
        guard let content = envelope["body"]?.stringValue else { throw WireError("the frame has no body") }
        let type = envelope["content-type"]?.stringValue ?? "application/json"
        guard type == "application/json" else { throw WireError("the body of the frame is not JSON") }
        headers = envelope["headers"]?.objectValue ?? [:]
        guard headers["compression"]?.stringValue == nil else { throw WireError("the body of the frame is compressed") }
        let isBase64 = envelope["properties"]?["body_encoding"]?.stringValue == "base64"
        body = try JSONParser.parse(isBase64 ? try Base64.decode(content.utf8) : Array(content.utf8), limits: limits)
    }

    /// - Parameters:
    ///   - body: JSON.
    ///   - isLasting: whether a broker that can keeps it through a restart, as kombu marks requests.
    static func encode(
        headers: WireValue.Object, body: [UInt8], exchange: String, key: String, isLasting: Bool
    ) -> [UInt8] {
        var json = JSONWriter(reserving: 512 + body.count * 4 / 3)
        json.token("{\"body\":")
        json.base64String(body)
        json.token(",\"content-encoding\":\"utf-8\",\"content-type\":\"application/json\",\"headers\":")
        json.write(.object(headers))
        json.token(",\"properties\":{\"delivery_mode\":")
        json.integer(isLasting ? 2 : 1)
        json.token(",\"delivery_info\":{\"exchange\":")
        json.string(exchange)
        json.token(",\"routing_key\":")
        json.string(key)
        json.token("},\"priority\":0,\"body_encoding\":\"base64\",\"delivery_tag\":")
        json.string(JobIdentifier.make())
        json.token("}}")
        return json.bytes
    }
}

extension WireLimits {
    /// Of requests: whoever reaches the broker can send them.
    static let request = WireLimits(maximumBytes: 256 << 10, maximumDepth: 32, maximumValues: 60_000)
    /// Of replies: a worker may list many jobs.
    static let reply = WireLimits(maximumBytes: 16 << 20, maximumDepth: 64, maximumValues: 1_000_000)
    /// Of events: an array holds any number of them.
    static let events = WireLimits(maximumBytes: 8 << 20, maximumDepth: 32, maximumValues: 500_000)
}
