/// The body of a task message: the arguments of the call, and the jobs that follow it.
public struct MessageBody: Sendable, Equatable {
    public var arguments: Arguments
    /// Callbacks, error callbacks, the rest of a chain and a chord, in Celery's form.
    public var embed: WireValue

    /// The empty object. Celery's workers treat it like an object whose members are all null.
    public static let nothingFollows: WireValue = [:]

    public init(arguments: Arguments, embed: WireValue = MessageBody.nothingFollows) {
        self.arguments = arguments
        self.embed = embed
    }

    /// The body as JSON: `[args, kwargs, embed]`.
    public func encoded() -> [UInt8] {
        JSONWriter.bytes(of: .array([.array(arguments.positional), .object(arguments.keyword), embed]))
    }
}

extension Message {
    /// The decoded body.
    /// - Throws: ``WireError`` when the body is sealed, does not match its content type, has another shape, or uses a
    ///   serialization or compression that is not accepted. Pickle is never accepted: reading it would run code. A
    ///   retry cannot help.
    public func decodedBody(limits: WireLimits = .default) throws(WireError) -> MessageBody {
        try decodedBodyAndSize(limits: limits).body
    }

    /// The decoded body, and how many bytes it had once decompressed.
    func decodedBodyAndSize(limits: WireLimits = .default) throws(WireError) -> (body: MessageBody, size: Int) {
        guard !isSealed else { throw WireError("the message is sealed; only workers with the key can read it") }
        var bytes = body
        if let compression = headers.compression {
            bytes = try Compression.decompress(bytes, as: compression, limits: limits)
        }
        guard case .array(let parts) = try Serialization.parse(bytes, as: contentType, limits: limits), parts.count == 3
        else {
            throw WireError("the body is not an array of args, kwargs and embed")
        }
        guard case .array(let positional) = parts[0] else { throw WireError("args is not an array") }
        guard case .object(let keyword) = parts[1] else { throw WireError("kwargs is not an object") }
        let content = MessageBody(arguments: Arguments(positional: positional, keyword: keyword), embed: parts[2])
        return (content, bytes.count)
    }
}

extension Message {
    /// Compresses the body with zlib, unless it is compressed already.
    package mutating func compressBody() {
        guard headers.compression == nil else { return }
        body = Compression.deflated(body)
        headers.compression = Compression.zlib
    }

    /// Replaces the arguments, for an operator who edits a job in a queue.
    /// - Throws: ``BackendError`` `.misuse` when the message is sealed: workers would refuse the unsealed replacement
    ///   or, worse, accept it. The message is unchanged.
    package mutating func replaceArguments(_ arguments: Arguments) throws(BackendError) {
        guard !isSealed else {
            throw BackendError(
                .misuse,
                "the arguments of the job \(id) are sealed; enqueue it again with others in place of changing them")
        }
        setArguments(arguments)
    }

    /// Replaces the arguments; the jobs that follow stay. A body that cannot be read is replaced as a whole.
    package mutating func setArguments(_ arguments: Arguments) {
        // Only the job's type knows which arguments are secret, so an argument hidden in the old text stays hidden.
        let hidden = headers.keywordArgumentsText
        let secret = Set(arguments.keyword.keys.filter { hidden.contains("'\($0)': \(ArgumentsText.hidden)") })
        let embed = (try? decodedBody())?.embed ?? MessageBody.nothingFollows
        headers.compression = nil
        contentType = "application/json"
        contentEncoding = "utf-8"
        body = MessageBody(arguments: arguments, embed: embed).encoded()
        headers.argumentsText = ArgumentsText.positional(arguments.positional)
        headers.keywordArgumentsText = ArgumentsText.keyword(arguments.keyword, secret: secret)
    }
}
