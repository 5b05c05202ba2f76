extension Message {
    /// The message as one JSON object, the form in which SQLite stores it and Redis carries it.
    public func encodedEnvelope() -> [UInt8] {
        var json = JSONWriter(reserving: 1024 + body.count * 4 / 3)
        json.token("{\"body\":")
        json.base64String(body)
        json.token(",\"content-encoding\":")
        json.string(contentEncoding)
        json.token(",\"content-type\":")
        json.string(contentType)
        json.token(",\"headers\":")
        headers.write(to: &json)
        json.token(",\"properties\":")
        properties.write(to: &json)
        json.token("}")
        return json.bytes
    }

    /// Reads an envelope of any producer: protocol 2, or protocol 1, whose headers lie in the body.
    ///
    /// Only what a worker needs is asked for; unknown members are kept in ``MessageHeaders/custom`` and
    /// ``MessageProperties/custom``.
    /// - Throws: ``WireError`` that says what is missing or malformed. The bytes will never decode, so a retry cannot help.
    public init(envelope bytes: [UInt8], limits: WireLimits = .default) throws(WireError) {
        guard case .object(let envelope) = try JSONParser.parse(bytes, limits: limits) else {
            throw WireError("the envelope is not an object")
        }
        guard let contentType = envelope["content-type"]?.stringValue else { throw WireError("the content-type is missing") }
        guard let propertyObject = envelope["properties"]?.objectValue else { throw WireError("the properties are missing") }
        let properties = try MessageProperties(propertyObject)
        let body: [UInt8]
        switch envelope["body"] {
        case .string(let text) where propertyObject["body_encoding"]?.stringValue == "base64":
            body = try Base64.decode(text.utf8)
        case .string(let text):
            body = Array(text.utf8)
        default:
            throw WireError("the body is missing")
        }
        let headers = envelope["headers"]?.objectValue ?? [:]
        if headers["task"] == nil, headers["id"] == nil {
            try self.init(protocolOne: body, properties: properties, limits: limits)
            return
        }
        self.init(
            headers: try MessageHeaders(headers),
            properties: properties,
            contentType: contentType,
            contentEncoding: envelope["content-encoding"]?.stringValue ?? "utf-8",
            body: body
        )
    }

    /// Protocol 1 keeps everything in the body, an object; it becomes the protocol 2 message that says the same.
    private init(protocolOne bytes: [UInt8], properties: MessageProperties, limits: WireLimits) throws(WireError) {
        guard case .object(let fields) = try JSONParser.parse(bytes, limits: limits) else {
            throw WireError("the header task is missing, and the body is no protocol 1 task")
        }
        let arguments = fields["args"]?.arrayValue ?? []
        let keywordArguments = fields["kwargs"]?.objectValue ?? [:]
        var headerFields = fields
        for key in ["args", "kwargs", "callbacks", "errbacks", "chord", "utc", "taskset"] { headerFields[key] = nil }
        let embed: WireValue = .object([
            "callbacks": fields["callbacks"] ?? .null, "errbacks": fields["errbacks"] ?? .null,
            "chain": .null, "chord": fields["chord"] ?? .null,
        ])
        self.init(
            headers: try MessageHeaders(headerFields),
            properties: properties,
            body: JSONWriter.bytes(of: .array([.array(arguments), .object(keywordArguments), embed]))
        )
    }
}
