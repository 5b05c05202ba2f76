#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// The headers of a task message. A worker routes by them alone, before it reads the body.
public struct MessageHeaders: Sendable, Hashable {
    /// The language of the producer. For information only.
    public var language: String = "swift"
    /// The wire name of the job.
    public var task: String
    public var id: JobID
    /// A name to show instead of `task`.
    public var shadow: String?
    /// The earliest start.
    public var eta: Date?
    /// The latest start: a job that has not started by then is dropped and marked expired.
    public var expires: Date?
    public var group: String?
    public var groupIndex: Int64?
    /// Attempts already made.
    public var retries: Int = 0
    /// Seconds after which the job is stopped by force; nil for no limit.
    public var hardTimeLimit: Double?
    /// Seconds after which the job is cancelled and may tidy up; nil for no limit.
    public var softTimeLimit: Double?
    /// The first job of the family; the job's own id when it has no parent.
    public var rootID: JobID?
    /// The job that enqueued this one.
    public var parentID: JobID?
    /// The positional arguments, as readable text.
    public var argumentsText: String = "()"
    /// The keyword arguments, as readable text. Secret arguments are hidden.
    public var keywordArgumentsText: String = "{}"
    /// The program that enqueued the job.
    public var origin: String?
    /// True when no result is to be kept. nil leaves the choice to the job.
    public var ignoresResult: Bool?
    public var replacedTaskNesting: Int64 = 0
    public var stampedHeaders: WireValue = .null
    public var stamps: WireValue = .object([:])
    /// The content type of the compressor; nil when the body is not compressed.
    public var compression: String?
    /// Hoist's own fields. Other workers pass them on unchanged.
    public var hoist = HoistHeader()
    /// The user's own headers, and headers of other producers that have no meaning here.
    public var custom: WireValue.Object = [:]

    public init(task: String, id: JobID) {
        self.task = task
        self.id = id
    }
}

extension MessageHeaders {
    static let hoistKey = "hoist"

    /// Empty headers, to be filled with `set(_:_:)`.
    init() { self.init(task: "", id: "") }

    /// Sets one header by its wire name.
    mutating func set(_ key: String, _ value: WireValue) throws(WireError) {
        switch key {
        // A second one would decide for one reader and not for another.
        case "task":
            guard task.isEmpty else { throw WireError("the header task occurs twice") }
            task = value.stringValue ?? ""
        case "id":
            guard id.isEmpty else { throw WireError("the header id occurs twice") }
            id = Self.identifier(value) ?? ""
        case "lang": language = value.stringValue ?? language
        case "shadow": shadow = value.stringValue
        case "eta": eta = try Self.date(value, header: key)
        case "expires": expires = try Self.date(value, header: key)
        case "group": group = value.stringValue
        case "group_index": groupIndex = value.integerValue
        case "retries": retries = Int((value.integerValue ?? 0).clamped(to: 0...1_000_000_000))
        case "timelimit":
            let limits = value.arrayValue ?? []
            hardTimeLimit = limits.first?.doubleValue
            softTimeLimit = limits.count > 1 ? limits[1].doubleValue : nil
        case "root_id": rootID = value.stringValue
        case "parent_id": parentID = value.stringValue
        case "argsrepr": argumentsText = value.stringValue ?? ""
        case "kwargsrepr": keywordArgumentsText = value.stringValue ?? ""
        case "origin": origin = value.stringValue
        case "ignore_result": ignoresResult = value.boolValue
        case "replaced_task_nesting": replacedTaskNesting = value.integerValue ?? 0
        case "stamped_headers": stampedHeaders = value
        case "stamps": stamps = value.isNull ? .object([:]) : value
        case "compression": compression = value.stringValue
        case Self.hoistKey: hoist = HoistHeader(value)
        default: custom[key] = value
        }
    }

    /// Hides the secret arguments in the text of a producer that knows nothing of them: Hoist's own hide theirs.
    mutating func hideForeignSecrets() {
        guard language != "swift", keywordArgumentsText.utf8.count > 2 else { return }
        keywordArgumentsText = SecretNames.hide(in: keywordArgumentsText, SecretNames.known(of: task))
    }

    /// An id in any of the forms that producers write: text, a typed UUID, or a number.
    static func identifier(_ value: WireValue) -> JobID? {
        value.stringValue ?? TypedValue.uuid(value)?.uuidString.lowercased() ?? value.integerValue.map(String.init)
    }

    /// Refuses headers without a job name or an id, and names and ids of more than 1,024 bytes.
    func check() throws(WireError) {
        guard !task.isEmpty else { throw WireError("the header task is missing") }
        guard !id.isEmpty else { throw WireError("the header id is missing") }
        guard task.utf8.count <= 1024, id.utf8.count <= 1024 else {
            throw WireError("the header \(id.utf8.count > 1024 ? "id" : "task") is longer than 1,024 bytes")
        }
    }

    private static func date(_ value: WireValue, header: String) throws(WireError) -> Date? {
        if value.isNull { return nil }
        guard let text = value.stringValue, let date = WireTimestamp.date(from: text) else {
            throw WireError("the header \(header) is not an ISO 8601 time")
        }
        return date
    }

    /// The headers as values, by their wire names.
    package var members: WireValue.Object {
        var json = JSONWriter(reserving: 512)
        write(to: &json)
        guard case .object(let members)? = try? JSONParser.parse(json.bytes) else { return [:] }
        return members
    }

    func write(to json: inout JSONWriter) {
        func text(_ key: StaticString, _ value: String?) {
            guard let value else { return }
            json.token(key)
            json.string(value)
        }
        func number(_ value: Double?) {
            guard let value else { return json.token("null") }
            if let whole = Int64(exactly: value) { json.integer(whole) } else { json.double(value) }
        }
        // These six are always written, in this order, because a script reads them without parsing. The other headers
        // are written only when they are set: Celery treats a missing header like null.
        json.token("{\"lang\":")
        json.string(language)
        json.token(",\"task\":")
        json.string(task)
        json.token(",\"id\":")
        json.string(id)
        json.token(",\"retries\":")
        json.integer(Int64(retries))
        json.token(",\"eta\":")
        json.write(eta.map { .string(WireTimestamp.string(from: $0)) } ?? .null)
        json.token(",\"expires\":")
        json.write(expires.map { .string(WireTimestamp.string(from: $0)) } ?? .null)
        text(",\"shadow\":", shadow)
        text(",\"group\":", group)
        if let groupIndex {
            json.token(",\"group_index\":")
            json.integer(groupIndex)
        }
        if hardTimeLimit != nil || softTimeLimit != nil {
            json.token(",\"timelimit\":[")
            number(hardTimeLimit)
            json.token(",")
            number(softTimeLimit)
            json.token("]")
        }
        text(",\"root_id\":", rootID)
        text(",\"parent_id\":", parentID)
        text(",\"argsrepr\":", argumentsText)
        text(",\"kwargsrepr\":", keywordArgumentsText)
        text(",\"origin\":", origin)
        if let ignoresResult {
            json.token(",\"ignore_result\":")
            json.write(.bool(ignoresResult))
        }
        if replacedTaskNesting != 0 {
            json.token(",\"replaced_task_nesting\":")
            json.integer(replacedTaskNesting)
        }
        if !stampedHeaders.isNull {
            json.token(",\"stamped_headers\":")
            json.write(stampedHeaders)
        }
        if stamps != .object([:]) {
            json.token(",\"stamps\":")
            json.write(stamps)
        }
        if let compression {
            json.token(",\"compression\":")
            json.string(compression)
        }
        let hoist = hoist.wireValue
        if !hoist.isEmpty {
            json.token(",\"hoist\":")
            json.write(.object(hoist))
        }
        for (key, value) in custom {
            json.token(",")
            json.string(key)
            json.token(":")
            json.write(value)
        }
        json.token("}")
    }
}
