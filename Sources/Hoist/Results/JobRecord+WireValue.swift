extension JobRecord {
    /// The record as JSON for pages and programs: names in snake_case, times in ISO 8601, unknown values left out.
    public var wireValue: WireValue {
        var object: WireObject = [
            "id": .string(id), "name": .string(name), "queue": .string(queue), "state": .string(state.rawValue),
            "priority": .integer(Int64(priority)), "attempts": .integer(Int64(attempts)),
            "lost_workers": .integer(Int64(lostWorkers)),
            "arguments": .string(argumentsText), "revision": .integer(revision),
        ]
        if let arguments {
            object["args"] = .array(arguments.positional)
            object["kwargs"] = .object(arguments.keyword)
        }
        func set(_ key: String, _ text: String?) { object[key] = text.map(WireValue.string) }
        func set(_ key: String, _ date: JobDate?) { object[key] = date.map { .string(WireTimestamp.string(from: $0)) } }
        set("enqueued_at", enqueuedAt)
        set("due_at", dueAt)
        set("started_at", startedAt)
        set("ended_at", endedAt)
        set("worker", worker)
        set("waiting_reason", waitingReason)
        set("parent_id", parentID)
        set("root_id", rootID)
        if isCancelRequested { object["is_cancel_requested"] = true }
        if let progress {
            var shown: WireObject = [:]
            shown["fraction"] = progress.fraction.map(WireValue.double)
            shown["message"] = progress.message.map(WireValue.string)
            shown["details"] = progress.details.map {
                .object(WireObject($0.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) }))
            }
            object["progress"] = .object(shown)
        }
        if state == .succeeded { object["output"] = output ?? .null }
        if let failure { object["failure"] = Self.wireValue(failure) }
        if let usage { object["usage"] = Self.wireValue(usage) }
        if !headers.isEmpty { object["headers"] = .object(headers) }
        if !history.isEmpty { object["history"] = .array(history.map(Self.wireValue)) }
        return .object(object)
    }

    private static func wireValue(_ failure: JobFailure) -> WireValue {
        var object: WireObject = [
            "kind": .string("\(failure.kind)"), "type": .string(failure.type), "message": .string(failure.message),
        ]
        if let crash = failure.crash {
            var shown: WireObject = ["last_lines": .array(crash.lastLines.map(WireValue.string))]
            shown["signal"] = crash.signal.map { .integer(Int64($0)) }
            shown["status"] = crash.status.map { .integer(Int64($0)) }
            shown["backtrace"] = crash.backtrace.map(WireValue.string)
            object["crash"] = .object(shown)
        }
        return .object(object)
    }

    private static func wireValue(_ usage: ResourceUsage) -> WireValue {
        var object: WireObject = ["cpu_seconds": .double(usage.cpuSeconds), "wall_seconds": .double(usage.wallSeconds)]
        object["peak_memory"] = usage.peakMemory.map { .integer(Int64($0)) }
        return .object(object)
    }

    private static func wireValue(_ attempt: AttemptRecord) -> WireValue {
        var object: WireObject = ["number": .integer(Int64(attempt.number)), "outcome": .string(attempt.outcome)]
        object["worker"] = attempt.worker.map(WireValue.string)
        object["started_at"] = attempt.startedAt.map { .string(WireTimestamp.string(from: $0)) }
        object["ended_at"] = .string(WireTimestamp.string(from: attempt.endedAt))
        object["failure"] = attempt.failure.map(wireValue)
        object["usage"] = attempt.usage.map(wireValue)
        return .object(object)
    }
}
