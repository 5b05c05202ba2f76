extension Message {
    /// The message as one JSON object, the form in which SQLite stores it and Redis carries it.
    ///
    /// The body is base64, as Celery's producers write it. A text body of 4 KiB or more is stored as plain text
    /// (`body_encoding` null, which kombu reads as well): it is a quarter smaller and needs no coding.
    public func encodedEnvelope() -> [UInt8] {
        let isText = body.count >= 4096 && contentEncoding == "utf-8" && headers.compression == nil
        let text = isText ? String(validating: body, as: UTF8.self) : nil
        var json = JSONWriter(reserving: 1024 + body.count * 4 / 3)
        // The headers come first, in a fixed order: a script on a Redis server finds the job's name and id there
        // without reading the rest.
        json.token("{\"headers\":")
        headers.write(to: &json)
        json.token(",\"content-type\":")
        json.string(contentType)
        json.token(",\"content-encoding\":")
        json.string(contentEncoding)
        json.token(",\"properties\":")
        properties.write(to: &json, isBase64: text == nil)
        json.token(",\"body\":")
        if let text { json.string(text) } else { json.base64String(body) }
        json.token("}")
        return json.bytes
    }

    /// Reads an envelope of any producer: protocol 2, or protocol 1, whose headers are in the body.
    ///
    /// Only the members that a worker needs are required. Unknown headers and properties are kept in
    /// ``MessageHeaders/custom`` and ``MessageProperties/custom``.
    /// - Throws: ``WireError`` that says what is missing or malformed. The bytes will never decode, so a retry cannot
    ///   help.
    public init(envelope bytes: [UInt8], limits: WireLimits = .default) throws(WireError) {
        var headers = MessageHeaders()
        var properties = MessageProperties()
        var (contentType, contentEncoding, bodyText): (String?, String?, String?)
        var (isBase64, hasProperties) = (false, false)
        // Parsed directly into the fields: every job passes through here, and building a tree of values would cost as
        // much as everything else.
        try JSONParser.read(bytes, limits: limits) { (parser) throws(WireError) in
            try parser.forEachMember { (key, parser) throws(WireError) in
                switch key {
                case "headers":
                    try parser.forEachMemberIfPresent { (key, parser) throws(WireError) in
                        try headers.set(key, parser.value())
                    }
                case "properties":
                    hasProperties = true
                    try parser.forEachMemberIfPresent { (key, parser) throws(WireError) in
                        let value = try parser.value()
                        if key == "body_encoding" {
                            isBase64 = value.stringValue == "base64"
                        } else {
                            properties.set(key, value)
                        }
                    }
                case "content-type": contentType = try parser.value().stringValue
                case "content-encoding": contentEncoding = try parser.value().stringValue
                case "body": bodyText = try parser.value().stringValue
                default: _ = try parser.value()
                }
            }
        }
        guard let contentType else { throw WireError("the content-type is missing") }
        guard hasProperties else { throw WireError("the properties are missing") }
        guard var bodyText else { throw WireError("the body is missing") }
        let body: [UInt8]
        if isBase64 {
            let decoded = bodyText.withUTF8 { buffer in Result { () throws(WireError) in try Base64.decode(buffer) } }
            body = try decoded.get()
        } else {
            body = Array(bodyText.utf8)
        }
        try self.init(
            headers: headers, properties: properties, contentType: contentType,
            contentEncoding: contentEncoding ?? "utf-8", body: body, limits: limits)
    }

    /// Puts a message together from what its broker keeps apart, as AMQP does.
    /// - Throws: ``WireError`` that says what is missing or malformed.
    package init(
        headers members: WireValue.Object, properties: MessageProperties, contentType: String, contentEncoding: String,
        body: [UInt8], limits: WireLimits = .default
    ) throws(WireError) {
        guard body.count <= limits.maximumBytes else {
            throw WireError("\(body.count) bytes exceed the limit of \(limits.maximumBytes)")
        }
        var headers = MessageHeaders()
        for (key, value) in members { try headers.set(key, value) }
        try self.init(
            headers: headers, properties: properties, contentType: contentType, contentEncoding: contentEncoding,
            body: body, limits: limits)
    }

    private init(
        headers: MessageHeaders, properties: MessageProperties, contentType: String, contentEncoding: String,
        body: [UInt8], limits: WireLimits
    ) throws(WireError) {
        if headers.task.isEmpty, headers.id.isEmpty {
            try self.init(protocolOne: body, properties: properties, limits: limits)
            return
        }
        try headers.check()
        self.init(
            headers: headers, properties: properties, contentType: contentType, contentEncoding: contentEncoding,
            body: body)
    }

    /// The id under which somebody may wait for the result of a message that cannot be read; nil when there is none.
    package static func callersID(in envelope: [UInt8]) -> JobID? {
        guard case .object(let message)? = try? JSONParser.parse(envelope) else { return nil }
        let properties = message["properties"] ?? .null
        let candidates = [message["headers"]?["id"], properties["correlation_id"]]
        let id = candidates.lazy.compactMap { $0.flatMap(MessageHeaders.identifier) }.first { !$0.isEmpty }
        if let id { return id.utf8.count <= 1024 ? id : nil }
        guard let body = message["body"]?.stringValue else { return nil }
        let isBase64 = properties["body_encoding"]?.stringValue == "base64"
        guard let bytes = isBase64 ? try? Base64.decode(body.utf8) : Array(body.utf8),
            let inner = (try? JSONParser.parse(bytes))?["id"].flatMap(MessageHeaders.identifier), !inner.isEmpty
        else { return nil }
        return inner.utf8.count <= 1024 ? inner : nil
    }

    /// Converts a protocol 1 message, which keeps everything in the body object, to the equivalent protocol 2 message.
    private init(protocolOne bytes: [UInt8], properties: MessageProperties, limits: WireLimits) throws(WireError) {
        guard case .object(let fields) = try JSONParser.parse(bytes, limits: limits) else {
            throw WireError("the header task is missing, and the body is no protocol 1 task")
        }
        let arguments = fields["args"]?.arrayValue ?? []
        let keywordArguments = fields["kwargs"]?.objectValue ?? [:]
        var headers = MessageHeaders()
        let inBody: Set = ["args", "kwargs", "callbacks", "errbacks", "chord", "utc", "taskset"]
        for (key, value) in fields where !inBody.contains(key) { try headers.set(key, value) }
        try headers.check()
        let embed: WireValue = .object([
            "callbacks": fields["callbacks"] ?? .null, "errbacks": fields["errbacks"] ?? .null,
            "chain": .null, "chord": fields["chord"] ?? .null,
        ])
        self.init(
            headers: headers,
            properties: properties,
            body: JSONWriter.bytes(of: .array([.array(arguments), .object(keywordArguments), embed]))
        )
    }
}
