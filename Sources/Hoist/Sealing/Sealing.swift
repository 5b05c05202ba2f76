/// Signs or encrypts what jobs carry, so that a broker in the wrong hands can neither read it nor slip in jobs of its
/// own.
///
/// A client with a sealing seals arguments before they leave the process and opens outputs; a worker opens arguments
/// where the job runs and seals its output. HoistSealing has one with keys. What is not covered: names, ids, queues,
/// times, progress and errors.
public protocol Sealing: Sendable {
    /// - Parameters:
    ///   - payload: any bytes.
    ///   - purpose: what they are for. They can be opened for the same purpose only.
    /// - Throws: when it has no key to do it with.
    func seal(_ payload: [UInt8], for purpose: [UInt8]) throws -> [UInt8]

    /// - Parameters:
    ///   - sealed: what ``seal(_:for:)`` made, here or elsewhere, or anything that somebody put in its place.
    ///   - purpose: what it should be for.
    /// - Throws: ``WireError`` that says what is wrong, without the payload.
    func open(_ sealed: [UInt8], for purpose: [UInt8]) throws(WireError) -> [UInt8]

    /// Whether sealed payloads are unreadable, so that arguments must not be shown to people in headers either.
    var hidesPayloads: Bool { get }
    /// Whether jobs that are not sealed are performed, and outputs that are not sealed believed, all the same.
    var acceptsUnsealed: Bool { get }
}

extension Message {
    /// The content type of a sealed body.
    public static let sealedContentType = "application/x-hoist-sealed"

    public var isSealed: Bool { contentType == Self.sealedContentType }

    /// What the seal holds fast: a body is of use for this job alone. One that may replace that of another waiting job
    /// cannot know the id it will have, and is held to the unique key instead.
    private var sealedPurpose: [UInt8] {
        let unique = headers.hoist.unique
        let mayReplace = unique.map { $0.onClash == .replace || $0.onClash == .reschedule } ?? false
        let holder = mayReplace ? "key\n" + (unique?.key ?? "") : "id\n" + id
        return Array("message\n\(jobName)\n\(holder)".utf8)
    }

    /// Seals the body, with everything that says how to read it.
    mutating func seal(with sealing: any Sealing) throws {
        guard !isSealed else { return }
        let form: WireValue = [
            "type": .string(contentType), "encoding": .string(contentEncoding),
            "compression": headers.compression.map(WireValue.string) ?? .null,
        ]
        body = try sealing.seal(JSONWriter.bytes(of: form) + [UInt8(ascii: "\n")] + body, for: sealedPurpose)
        contentType = Self.sealedContentType
        contentEncoding = "binary"
        headers.compression = nil
        if sealing.hidesPayloads {
            headers.argumentsText = "()"
            headers.keywordArgumentsText = "(sealed)"
        }
    }

    /// Opens a sealed body, and lets one that is not sealed through only where that is allowed.
    func opened(with sealing: (any Sealing)?) throws(WireError) -> Message {
        guard isSealed else {
            guard sealing?.acceptsUnsealed ?? true else {
                throw WireError("the message is not sealed, and this worker takes none that are not")
            }
            return self
        }
        guard let sealing else {
            throw WireError("the message is sealed, and this program has no keys: give its client a sealing")
        }
        let payload = try sealing.open(body, for: sealedPurpose)
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

/// Outputs travel as JSON, sealed ones as an object with this one member.
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

    /// The output itself.
    /// - Throws: ``WireError`` when it is sealed and cannot be opened.
    static func open(_ output: WireValue, of id: JobID, with sealing: (any Sealing)?) throws(WireError) -> WireValue {
        guard case .object(let object) = output, object.count == 1, let text = object[member]?.stringValue else {
            // Whoever can write results could leave the seal off.
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

    /// Other arguments; what is to follow the job stays.
    public static func arguments(_ arguments: Arguments) -> MessageChange { .arguments(arguments, sealing: nil) }

    /// The same for a message that was sealed: it is sealed again.
    static func arguments(_ arguments: Arguments, sealing: (any Sealing)?) -> MessageChange {
        MessageChange(arguments: arguments, sealing: sealing)
    }

    package func apply(_ message: inout Message) {
        let wasSealed = message.isSealed
        // Whoever changes a sealed message has opened it before.
        guard var changed = try? message.opened(with: wasSealed ? sealing : nil) else { return }
        changed.setArguments(arguments)
        if wasSealed, let sealing { guard (try? changed.seal(with: sealing)) != nil else { return } }
        message = changed
    }
}
