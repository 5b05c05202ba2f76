/// The message of a job on the wire: Celery's task message, protocol 2.
///
/// Every broker carries the same message. Where a broker has no headers of its own (SQLite, Redis) the whole message is
/// one JSON envelope, see ``encodedEnvelope()``.
public struct Message: Sendable, Hashable {
    public var headers: MessageHeaders {
        _read { yield sharedHeaders.value }
        _modify { yield &sharedHeaders.value }
    }
    public var properties: MessageProperties {
        _read { yield sharedProperties.value }
        _modify { yield &sharedProperties.value }
    }
    private(set) var sharedHeaders: CopyOnWrite<MessageHeaders>
    private(set) var sharedProperties: CopyOnWrite<MessageProperties>
    /// The serialization of the body, `application/json` by default.
    public var contentType: String
    /// `utf-8` for text, `binary` otherwise.
    public var contentEncoding: String
    /// The serialized body, as it was on the wire: `[args, kwargs, embed]`.
    public var body: [UInt8]

    public init(
        headers: MessageHeaders,
        properties: MessageProperties,
        contentType: String = "application/json",
        contentEncoding: String = "utf-8",
        body: [UInt8]
    ) {
        sharedHeaders = CopyOnWrite(headers)
        sharedProperties = CopyOnWrite(properties)
        self.contentType = contentType
        self.contentEncoding = contentEncoding
        self.body = body
    }

    public var id: JobID { headers.id }
    public var jobName: String { headers.task }
    /// Takes over the work of another message, with all that tells how to read it, and what that message says of its
    /// unique key, to which a seal may bind its body.
    package mutating func replaceWork(by other: Message) {
        body = other.body
        contentType = other.contentType
        contentEncoding = other.contentEncoding
        headers.compression = other.headers.compression
        headers.argumentsText = other.headers.argumentsText
        headers.keywordArgumentsText = other.headers.keywordArgumentsText
        headers.hoist.unique = other.headers.hoist.unique
    }

    mutating func hideForeignSecrets() {
        if headers.language != "swift" { headers.hideForeignSecrets() }
    }

    /// The queue that the message is addressed to.
    public var queue: String {
        get { properties.routingKey }
        set { properties.routingKey = newValue }
    }
}

/// The id of a job: any text, a UUID by default. It is the key of the job's result.
public typealias JobID = String
