/// The body of a task message: the arguments of the call, and what is to follow it.
public struct MessageBody: Sendable, Equatable {
    public var arguments: Arguments
    /// Callbacks, error callbacks, the rest of a chain and a chord, in Celery's form.
    public var embed: WireValue

    /// Celery's workers read the empty object as they read one full of nulls.
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
    /// - Throws: ``WireError`` when the body is not what its content type says, has another shape, or comes in a
    ///   serialization or compression that is not accepted. Pickle never is: reading it would run code.
    public func decodedBody(limits: WireLimits = .default) throws(WireError) -> MessageBody {
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
        return MessageBody(arguments: Arguments(positional: positional, keyword: keyword), embed: parts[2])
    }
}

extension Message {
    /// Compresses the body as zlib does, unless it is compressed already.
    mutating func compressBody() {
        guard headers.compression == nil else { return }
        body = Compression.deflated(body)
        headers.compression = Compression.zlib
    }

    /// Gives the message other arguments, as a person does it who looks into a queue.
    /// - Throws: ``BackendError`` `.misuse` when the message is sealed: what came in its place would be refused by
    ///   workers, or worse, not.
    package mutating func replaceArguments(_ arguments: Arguments) throws(BackendError) {
        guard !isSealed else {
            throw BackendError(
                .misuse,
                "the arguments of the job \(id) are sealed; enqueue it again with others in place of changing them")
        }
        setArguments(arguments)
    }

    /// Gives the message other arguments; what is to follow the job stays. An unreadable body is replaced whole.
    package mutating func setArguments(_ arguments: Arguments) {
        // Which arguments are secret is the job's knowledge, not ours: what was hidden stays hidden.
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
