#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Writes the events of one node as Celery's monitors read them.
struct EventWriter {
    let node: String
    /// What every event says of its sender, behind its type.
    private let sender: [UInt8]

    init(node: String) {
        self.node = node
        var json = JSONWriter()
        json.token("\",\"hostname\":")
        json.string(node)
        json.token(",\"pid\":")
        json.integer(Int64(ProcessIdentity.id))
        json.token(",\"timestamp\":")
        sender = json.bytes
    }

    /// How much of an output, an exception or a traceback is shown, in characters.
    private static let resultLength = 1024
    private static let tracebackLength = 8192

    /// Begins an event with the members that all have. `utcoffset` is left out: with it a receiver in another time zone
    /// would move the time of the event.
    private func open(_ json: inout JSONWriter, _ type: StaticString, at: Date, clock: Int64) {
        json.token("{\"type\":\"")
        json.token(type)
        json.encoded(sender)
        json.double(at.timeIntervalSince1970)
        json.token(",\"clock\":")
        json.integer(clock)
    }

    private func text(_ json: inout JSONWriter, _ key: StaticString, _ value: String?) {
        json.token(key)
        if let value { json.string(value) } else { json.token("null") }
    }

    /// Writes who a job is that was not told of when it was claimed.
    func writeReceived(_ event: JobEvent, clock: Int64, to json: inout JSONWriter) {
        open(&json, "task-received", event, clock)
        if let headers = event.end?.facts?.headers {
            describe(headers, queue: event.queue, to: &json)
        } else {
            text(&json, ",\"name\":", event.jobName)
        }
        json.token("}")
    }

    func write(_ event: JobEvent, clock: Int64, to json: inout JSONWriter) {
        switch event.kind {
        case .sent(var message):
            message.hideForeignSecrets()
            open(&json, "task-sent", event, clock)
            describe(message.headers, queue: event.queue, to: &json)
            text(&json, ",\"exchange\":", message.properties.exchange)
            text(&json, ",\"routing_key\":", message.properties.routingKey)
        case .received(let delivery):
            open(&json, "task-received", event, clock)
            // What cannot be read fails in a moment, and that is told.
            if var message = delivery.message {
                message.hideForeignSecrets()
                describe(message.headers, queue: event.queue, to: &json)
            }
        case .started:
            open(&json, "task-started", event, clock)
            text(&json, ",\"lane\":", event.lane)
        case .progressed(let progress):
            open(&json, "hoist-progress", event, clock)
            json.token(",\"fraction\":")
            if let fraction = progress.fraction { json.double(fraction) } else { json.token("null") }
            text(&json, ",\"message\":", progress.message.map { String($0.prefix(Self.resultLength)) })
        case .retried(let end), .putBack(let end), .ended(let end): write(end, of: event, clock, to: &json)
        case .wrote(let lines):
            open(&json, "hoist-log", event, clock)
            json.token(",\"lines\":[")
            for (index, line) in lines.enumerated() {
                json.token(index == 0 ? "{\"at\":" : ",{\"at\":")
                json.double(line.time.timeIntervalSince1970)
                text(&json, ",\"source\":", line.source)
                text(&json, ",\"text\":", String(line.text.prefix(Self.resultLength)))
                json.token("}")
            }
            json.token("]")
        case .takenOver(let worker):
            open(&json, "hoist-taken-over", event, clock)
            text(&json, ",\"name\":", event.jobName)
            text(&json, ",\"lost_worker\":", worker)
        case .cancelAsked(let result):
            open(&json, "hoist-cancel", event, clock)
            text(&json, ",\"result\":", result.label)
        case .givenUp(let failure, let worker):
            open(&json, "task-failed", event, clock)
            write(failure, to: &json)
            text(&json, ",\"lost_worker\":", worker)
        }
        json.token("}")
    }

    private func open(_ json: inout JSONWriter, _ type: StaticString, _ event: JobEvent, _ clock: Int64) {
        open(&json, type, at: event.at, clock: clock)
        json.token(",\"uuid\":")
        json.string(event.jobID)
    }

    private func write(_ end: JobEvent.End, of event: JobEvent, _ clock: Int64, to json: inout JSONWriter) {
        switch end.outcome {
        case .succeeded(let output, _):
            open(&json, "task-succeeded", event, clock)
            // An output that is large was given up before.
            let value = try? JSONParser.parse(output)
            text(&json, ",\"result\":", value.map { PythonText.of($0, limit: Self.resultLength) } ?? "…")
            json.token(",\"runtime\":")
            json.double(end.runTime.inSeconds)
        case .failed(let failure):
            open(&json, "task-failed", event, clock)
            write(failure, to: &json)
        case .retry(let date, let failure, _):
            open(&json, "task-retried", event, clock)
            write(failure, to: &json)
            text(&json, ",\"eta\":", WireTimestamp.string(from: date))
        case .cancelled, .expired:
            let isExpired = if case .expired = end.outcome { true } else { false }
            let hasRun = !isExpired && end.facts != nil
            open(&json, "task-revoked", event, clock)
            json.token(isExpired ? ",\"expired\":true" : ",\"expired\":false")
            json.token(hasRun ? ",\"terminated\":true,\"signum\":" : ",\"terminated\":false,\"signum\":")
            if hasRun { json.integer(Int64(end.signal ?? ProcessSignal.terminate)) } else { json.token("null") }
        case .snoozed(let date, _), .refused(let date, _):
            open(&json, "hoist-snoozed", event, clock)
            text(&json, ",\"eta\":", WireTimestamp.string(from: date))
        case .handedBack, .notStarted:
            open(&json, "hoist-returned", event, clock)
        }
    }

    private func describe(_ headers: MessageHeaders, queue: String, to json: inout JSONWriter) {
        text(&json, ",\"name\":", headers.task)
        text(&json, ",\"args\":", headers.argumentsText)
        text(&json, ",\"kwargs\":", headers.keywordArgumentsText)
        text(&json, ",\"root_id\":", headers.rootID ?? headers.id)
        text(&json, ",\"parent_id\":", headers.parentID)
        json.token(",\"retries\":")
        json.integer(Int64(headers.retries))
        text(&json, ",\"eta\":", headers.eta.map(WireTimestamp.string))
        text(&json, ",\"expires\":", headers.expires.map(WireTimestamp.string))
        text(&json, ",\"queue\":", queue)
    }

    private func write(_ failure: JobFailure, to json: inout JSONWriter) {
        text(&json, ",\"exception\":", PythonText.exception(failure, limit: Self.resultLength))
        text(&json, ",\"traceback\":", String(failure.trace.prefix(Self.tracebackLength)))
    }

    func writeElectionAck(_ id: String, at: Date, clock: Int64, to json: inout JSONWriter) {
        open(&json, "worker-elect-ack", at: at, clock: clock)
        text(&json, ",\"id\":", id)
        json.token("}")
    }

    /// An event of the node itself.
    func write(
        _ type: StaticString, _ pulse: WorkerPulse, frequency: Duration, at: Date, clock: Int64,
        to json: inout JSONWriter
    ) {
        open(&json, type, at: at, clock: clock)
        json.token(",\"freq\":")
        json.double(frequency.inSeconds)
        json.token(",\"active\":")
        json.integer(Int64(pulse.active))
        json.token(",\"processed\":")
        json.integer(Int64(clamping: pulse.processed))
        json.token(",\"loadavg\":")
        json.write(.array(MachineLoad.average.map { .double(($0 * 100).rounded() / 100) }))
        json.token(",\"sw_ident\":\"hoist\",\"sw_ver\":\"")
        json.token(HoistVersion.text)
        json.token("\",\"sw_sys\":")
        json.string(MachineLoad.system)
        json.token(",\"hoist\":")
        json.write(pulse.hoist)
        json.token("}")
    }
}

/// What a worker tells of itself in a heartbeat.
struct WorkerPulse: Sendable {
    var active: Int
    /// All jobs that were accepted since the worker started.
    var processed: UInt64
    /// What other Hoist programs want to know.
    var hoist: WireValue
}

/// Values as Python's `repr` writes them.
enum PythonText {
    /// - Parameter limit: characters after which the text is cut.
    static func of(_ value: WireValue, limit: Int) -> String {
        let text = ArgumentsText.text(of: value)
        return text.count > limit ? String(text.prefix(limit - 3)) + "..." : text
    }

    /// `Type('message')`.
    static func exception(_ failure: JobFailure, limit: Int) -> String {
        let message = failure.message.prefix(limit)
        let quoted = quoted(String(message))
        return "\(failure.type)(\(quoted))"
    }

    static func quoted(_ text: String) -> String {
        let quote = text.contains("'") && !text.contains("\"") ? "\"" : "'"
        var result = quote
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            case "'" where quote == "'": result += "\\'"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + quote
    }

    /// A set of texts, `{'a', 'b'}`.
    static func set(_ texts: [String]) -> String { "{" + texts.map(quoted).joined(separator: ", ") + "}" }
}
