import Hoist

/// A result as Celery stores it under `celery-task-meta-<id>`. Data that only Hoist knows lies in the member `hoist`,
/// which Celery ignores.
struct CeleryResult: Sendable {
    var id: JobID
    var status: String
    /// JSON.
    var result: [UInt8]
    var traceback: String?
    /// Each a tree of ids, as ``FollowUps/children``.
    var children: [WireValue] = []
    var groupID: String?
    var parentID: JobID?
    var doneAt: JobDate?
    /// Celery's `result_extended`.
    var extended: WireValue.Object?
    var hoist: WireValue.Object

    var encoded: [UInt8] {
        var json = JSONWriter(reserving: 320 + result.count)
        json.token("{\"status\": ")
        json.string(status)
        json.token(",\"result\":")
        json.encoded(result)
        json.token(",\"traceback\":")
        json.write(traceback.map(WireValue.string) ?? .null)
        json.token(",\"children\":[")
        for (index, child) in children.enumerated() {
            if index > 0 { json.token(",") }
            json.write(child)
        }
        json.token("],\"date_done\":")
        json.write(doneAt.map { .string(WireTimestamp.string(from: $0)) } ?? .null)
        if let groupID {
            json.token(",\"group_id\":")
            json.string(groupID)
        }
        if let parentID {
            json.token(",\"parent_id\":")
            json.string(parentID)
        }
        for (key, value) in extended ?? [:] {
            json.token(",")
            json.string(key)
            json.token(":")
            json.write(value)
        }
        json.token(",\"task_id\":")
        json.string(id)
        json.token(",\"hoist\":")
        json.write(.object(hoist))
        json.token("}")
        return json.bytes
    }

    static let null: [UInt8] = Array("null".utf8)

    /// An exception in Celery's form.
    static func exception(_ type: String, _ module: String?, _ arguments: [WireValue]) -> [UInt8] {
        JSONWriter.bytes(
            of: [
                "exc_type": .string(type), "exc_message": .array(arguments),
                "exc_module": module.map(WireValue.string) ?? .null,
            ])
    }

    static func exception(_ failure: JobFailure) -> [UInt8] {
        let message: WireValue = .string(failure.message)
        switch failure.kind {
        case .badArguments: return exception("TypeError", "builtins", [message])
        case .timedOut, .stuck: return exception("TimeLimitExceeded", "billiard.exceptions", [message])
        case .memoryExceeded: return exception("MemoryError", "builtins", [message])
        case .workerLost, .crashed: return exception("WorkerLostError", "billiard.exceptions", [message])
        case .deadLettered: return exception("Reject", "celery.exceptions", [message, false])
        default: return exception(failure.type, failure.module, failure.arguments ?? [message])
        }
    }

    static func revoked(_ why: String) -> [UInt8] { exception("TaskRevokedError", "celery.exceptions", [.string(why)]) }

    static func progress(_ progress: JobProgress) -> [UInt8] {
        var object: WireObject = [:]
        object["fraction"] = progress.fraction.map(WireValue.double)
        object["message"] = progress.message.map(WireValue.string)
        for (key, value) in (progress.details ?? [:]).sorted(by: { $0.key < $1.key }) { object[key] = .string(value) }
        return JSONWriter.bytes(of: .object(object))
    }
}

/// A result as it is read, from Hoist or from a worker of Celery's.
struct StoredResult: Sendable {
    let value: WireValue

    init(value: WireValue) { self.value = value }

    init?(_ bytes: [UInt8]) {
        guard !bytes.isEmpty, let value = Self.parse(bytes), value["status"]?.stringValue != nil else { return nil }
        self.value = value
    }

    /// Reads JSON, MessagePack or YAML; a compressed result begins with Celery's marker.
    static func parse(_ bytes: [UInt8]) -> WireValue? {
        guard !bytes.isEmpty else { return nil }
        let marker = [0] + Array("celery-compressed".utf8) + [0]
        if bytes.starts(with: marker), let end = bytes[marker.count...].firstIndex(of: 0) {
            let type = String(decoding: bytes[marker.count..<end], as: UTF8.self)
            return (try? Compression.decompress(Array(bytes[(end + 1)...]), as: type)).flatMap(parse)
        }
        // Nothing in the value says which serializer wrote it; a map begins differently in each.
        switch bytes[0] {
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            return (try? JSONParser.parse(bytes))
                ?? (try? Serialization.parse(bytes, as: Serialization.yaml, limits: .default))
        case 0x80...0x9F, 0xDC...0xDF:
            return try? Serialization.parse(bytes, as: "application/x-msgpack", limits: .default)
        default: return try? Serialization.parse(bytes, as: Serialization.yaml, limits: .default)
        }
    }

    var status: String { value["status"]?.stringValue ?? "PENDING" }
    var hoist: WireValue { value["hoist"] ?? .null }
    /// When a Hoist worker stored it; 0 for a result of any other worker.
    var changedAt: Int64 { hoist["t"]?.integerValue ?? 0 }

    var state: JobState {
        switch status {
        case "SUCCESS": .succeeded
        case "FAILURE": .failed
        case "REVOKED": revokedReason == "expired" ? .expired : .cancelled
        case "RETRY": .retrying
        case "PENDING", "RECEIVED": .waiting
        default: .running
        }
    }

    private var revokedReason: String? { value["result"]?["exc_message"]?.arrayValue?.first?.stringValue }

    var failure: JobFailure? {
        if let own = hoist["failure"], let failure = try? WireDecoder.decode(JobFailure.self, from: own) {
            return failure
        }
        guard status == "FAILURE" || status == "RETRY", let result = value["result"] else { return nil }
        let arguments = result["exc_message"]?.arrayValue ?? result["exc_message"].map { [$0] } ?? []
        let message = arguments.map { $0.stringValue ?? $0.description }.joined(separator: ", ")
        return JobFailure(
            kind: .raised, type: result["exc_type"]?.stringValue ?? "Exception", message: message,
            module: result["exc_module"]?.stringValue,
            arguments: arguments)
    }

    /// The progress that `update_state` stored under a state of the job's own.
    var progress: JobProgress? {
        guard state == .running, status != "STARTED", let result = value["result"]?.objectValue else { return nil }
        var progress = JobProgress()
        var details: [String: String] = [:]
        for (key, value) in result {
            switch key {
            case "fraction": progress.fraction = value.doubleValue.flatMap(JobProgress.bounded)
            case "message": progress.message = value.stringValue
            default: details[key] = value.stringValue ?? value.description
            }
        }
        if progress.fraction == nil, let current = result["current"]?.doubleValue,
            let total = result["total"]?.doubleValue, total > 0
        {
            progress.fraction = JobProgress.bounded(current / total)
        }
        progress.details = details.isEmpty ? nil : details
        return progress
    }
}
