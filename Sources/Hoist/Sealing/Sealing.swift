/// Signs or encrypts the arguments and outputs of jobs, so that a compromised broker can neither read them (encryption)
/// nor add jobs of its own (both).
///
/// A client with a sealing seals arguments before they leave the process, and opens outputs. A worker opens arguments
/// where the job runs, and seals its output. HoistSealing has an implementation with keys.
///
/// Not covered: names, ids, queues, priorities, times, unique keys, partitions and custom headers; progress, errors and
/// logs, which are stored as they are. A body is bound to the name and the id of its job, so that it cannot be run by
/// another handler or under another id, and a broadcast to its channel; it is not bound to a queue or a time: who can
/// write to the broker can have a job run again under its own id once its result has expired.
public protocol Sealing: Sendable {
    /// - Parameters:
    ///   - payload: any bytes.
    ///   - purpose: the use of the bytes. A sealed payload can be opened for the same purpose only.
    /// - Throws: an error of the implementation, for instance when it has no key to seal with. An enqueue throws the
    ///   error unchanged, before the affected messages are sent to the backend.
    func seal(_ payload: [UInt8], for purpose: [UInt8]) throws -> [UInt8]

    /// - Parameters:
    ///   - sealed: the result of ``seal(_:for:)`` in any process, or bytes that an attacker put in its place.
    ///   - purpose: the expected purpose.
    /// - Throws: ``WireError`` when the payload was changed, was sealed for another purpose, or was sealed with a key
    ///   that is missing here. Its message does not contain the payload. A retry can help only after the key was added.
    func open(_ sealed: [UInt8], for purpose: [UInt8]) throws(WireError) -> [UInt8]

    /// Whether sealed payloads are unreadable. The readable text of the arguments in the headers is then hidden too.
    var hidesPayloads: Bool { get }
    /// Whether unsealed jobs are performed and unsealed outputs are trusted.
    var acceptsUnsealed: Bool { get }
}

extension Message {
    /// The content type of a sealed body.
    public static let sealedContentType = "application/x-hoist-sealed"

    public var isSealed: Bool { contentType == Self.sealedContentType }

    /// The purpose binds a sealed body to one job. A body that may replace the body of another waiting job cannot know
    /// the id of that job, and is bound to the unique key instead.
    private func purpose(onChannel channel: String?) -> [UInt8] {
        if let channel { return Array("broadcast\n\(jobName)\n\(id)\n\(channel)".utf8) }
        let unique = headers.hoist.unique
        let mayReplace = unique.map { $0.onClash == .replace || $0.onClash == .reschedule } ?? false
        let holder = mayReplace ? "key\n" + (unique?.key ?? "") : "id\n" + id
        return Array("message\n\(jobName)\n\(holder)".utf8)
    }

    /// Seals the body together with its content type, encoding and compression.
    /// - Parameter channel: where the message is broadcast; nil for a job in a queue.
    mutating func seal(with sealing: any Sealing, onChannel channel: String? = nil) throws {
        guard !isSealed else { return }
        let form: WireValue = [
            "type": .string(contentType), "encoding": .string(contentEncoding),
            "compression": headers.compression.map(WireValue.string) ?? .null,
        ]
        body = try sealing.seal(
            JSONWriter.bytes(of: form) + [UInt8(ascii: "\n")] + body, for: purpose(onChannel: channel))
        contentType = Self.sealedContentType
        contentEncoding = "binary"
        headers.compression = nil
        if sealing.hidesPayloads {
            headers.argumentsText = "()"
            headers.keywordArgumentsText = "(sealed)"
        }
    }

    /// Opens a sealed body. An unsealed message passes only where unsealed messages are accepted.
    func opened(with sealing: (any Sealing)?, onChannel channel: String? = nil) throws(WireError) -> Message {
        guard isSealed else {
            guard sealing?.acceptsUnsealed ?? true else {
                throw WireError("the message is not sealed, and this worker takes none that are not")
            }
            return self
        }
        guard let sealing else {
            throw WireError("the message is sealed, and this program has no keys: give its client a sealing")
        }
        let payload = try sealing.open(body, for: purpose(onChannel: channel))
        guard let line = payload.prefix(1024).firstIndex(of: UInt8(ascii: "\n")),
            case .object(let form) = try JSONParser.parse(Array(payload[..<line])),
            let type = form["type"]?.stringValue,
            type != Self.sealedContentType
        else { throw WireError("the sealed message does not say how to read it") }
        var message = self
        message.contentType = type
        message.contentEncoding = form["encoding"]?.stringValue ?? "utf-8"
        message.headers.compression = form["compression"]?.stringValue
        message.body = Array(payload[(line + 1)...])
        return message
    }
}

/// Outputs are JSON on the wire. A sealed output is an object with this one member.
enum SealedOutput {
    private static let member = "hoist_sealed"

    private static func purpose(_ id: JobID) -> [UInt8] { Array("output\n\(id)".utf8) }

    /// - Parameter output: JSON.
    static func seal(_ output: [UInt8], of id: JobID, with sealing: any Sealing) throws -> [UInt8] {
        var base64: [UInt8] = []
        Base64.append(try sealing.seal(output, for: purpose(id)), to: &base64)
        let text = String(decoding: base64, as: UTF8.self)
        return JSONWriter.bytes(of: [member: .string(text)])
    }

    /// The unsealed output.
    /// - Throws: ``WireError`` when the output is sealed and cannot be opened, or is not sealed and must be.
    static func open(_ output: WireValue, of id: JobID, with sealing: (any Sealing)?) throws(WireError) -> WireValue {
        guard case .object(let object) = output, object.count == 1, let text = object[member]?.stringValue else {
            // Otherwise, a party that can write results could omit the seal.
            guard sealing?.acceptsUnsealed ?? true else {
                throw WireError("the output is not sealed, and this client takes none that are not")
            }
            return output
        }
        guard let sealing else {
            throw WireError("the output is sealed, and this client has no keys: give it a sealing")
        }
        return try JSONParser.parse(try sealing.open(try Base64.decode(text.utf8), for: purpose(id)))
    }
}

/// A change to the message of a job that goes back to its queue.
public struct MessageChange: Sendable {
    let arguments: Arguments
    private let sealing: (any Sealing)?

    /// Replaces the arguments; the jobs that follow stay.
    public static func arguments(_ arguments: Arguments) -> MessageChange { .arguments(arguments, sealing: nil) }

    /// Replaces the arguments of a message that was sealed: the message is sealed again.
    static func arguments(_ arguments: Arguments, sealing: (any Sealing)?) -> MessageChange {
        MessageChange(arguments: arguments, sealing: sealing)
    }

    package func apply(_ message: inout Message) {
        let wasSealed = message.isSealed
        // A sealed message was opened before its job ran, so opening it again is not expected to fail.
        guard var changed = try? message.opened(with: wasSealed ? sealing : nil) else { return }
        changed.setArguments(arguments)
        if wasSealed, let sealing { guard (try? changed.seal(with: sealing)) != nil else { return } }
        message = changed
    }
}
