public import Hoist
import RESP

/// A job that waits, as somebody wants to change it.
struct WaitingJob {
    var message: Message
    var record: StoredJob
    /// When it is due; nil for now.
    var due: Int64?
}

extension RedisBackend {
    /// Where a job is, and all that is known of it.
    struct Location {
        var worker: WorkerID?
        var presence: WorkerPresence?
        var held: HeldJob?
        var isCancelRequested: Bool
        var record: StoredJob?
        var due: Int64?
        /// Its message, where the job is delayed or was kept after its end.
        var envelope: [UInt8]?
        var result: StoredResult?
    }

    func locate(_ id: JobID) async throws -> Location {
        var arguments: [RESPArgument] = [.text(id), .text(resultDatabase), brokerDatabase, .text(keys.results)]
        if resultClient != nil { arguments[1] = "" }
        let reply = try await run(RedisScripts.findJob, arguments, doing: "look for the job \(id)")[0]
        guard let parts = reply.elements, parts.count == 8 else { throw unexpected(reply, "look for a job") }
        func bytes(_ index: Int) -> [UInt8]? { parts[index].bytes.flatMap { $0.isEmpty ? nil : $0 } }
        var result = bytes(7)
        if let resultClient {
            let key = keys.result(id)
            result = try await call("read a result") {
                try await resultClient.send(RESPCommand("GET", [.text(key)], key: key))
            }.bytes
        }
        var envelope = bytes(6)
        let due = parts[5].text.flatMap { Double($0) }.map { Int64(bounded: $0) }
        // In front of a delayed message is the list that it belongs to.
        if due != nil, let whole = envelope, let line = whole.firstIndex(of: UInt8(ascii: "\n")) {
            envelope = Array(whole[(line + 1)...])
        }
        return Location(
            worker: parts[0].text.flatMap { $0.isEmpty ? nil : $0 },
            presence: bytes(1).flatMap { try? JSONText.decode(WorkerPresence.self, from: $0) },
            held: bytes(2).flatMap { HeldJob($0, envelope: envelope ?? []) },
            isCancelRequested: parts[3].integer == 1, record: bytes(4).flatMap(StoredJob.init), due: due,
            envelope: envelope,
            result: result.flatMap(StoredResult.init).flatMap(isKept))
    }

    /// By a clock of the caller's own; the server's keeps time by itself.
    func isKept(_ result: StoredResult) -> StoredResult? {
        guard configuration.clock != nil, let until = result.hoist["until"]?.integerValue else { return result }
        return until > now ? result : nil
    }

    /// The element of a waiting job and the list that holds it; nil when it is in none.
    func findElement(of id: JobID, queues: [String]) async throws -> (list: String, element: [UInt8])? {
        let needle = JSONWriter.bytes(of: .string(id))
        for queue in queues {
            for list in try await allLists(queue) {
                // From the end that is served next, a slice at a time, so that nobody is held up by a long list.
                var end: Int64 = -1
                while true {
                    let slice =
                        try await send(
                            RESPCommand("LRANGE", [.text(list), .integer(end - 999), .integer(end)]),
                            doing: "look through the queue \(queue)"
                        ).elements ?? []
                    for element in slice.reversed() {
                        guard let bytes = element.bytes, bytes.firstRange(of: needle) != nil,
                            (try? Message(envelope: bytes))?.id == id
                        else { continue }
                        return (list, bytes)
                    }
                    if slice.count < 1000 { break }
                    end -= 1000
                }
            }
        }
        return nil
    }

    /// The element of a waiting job, where it is among the next of its queue: what is read does not grow with the
    /// queue.
    private func findElement(of id: JobID, nearFrontOf queue: String) async throws -> (list: String, element: [UInt8])?
    {
        let needle = JSONWriter.bytes(of: .string(id))
        let lineKey = keys.own + "lines:" + queue
        let lineCount = try await send(RESPCommand("SCARD", [.text(lineKey)]), doing: "look through the queue \(queue)")
        let lists = lineCount.integer ?? 0 <= 16 ? try await allLists(queue) : keys.lists(queue)
        for list in lists {
            var (end, bytes) = (Int64(-1), 0)
            while end > -200, bytes < Int(Self.turnByteLimit) {
                let slice =
                    try await send(
                        RESPCommand("LRANGE", [.text(list), .integer(end - 19), .integer(end)]),
                        doing: "look through the queue \(queue)"
                    ).elements ?? []
                for element in slice.reversed() {
                    guard let content = element.bytes else { continue }
                    bytes += content.count
                    if content.firstRange(of: needle) != nil, (try? Message(envelope: content))?.id == id {
                        return (list, content)
                    }
                }
                if slice.count < 20 { break }
                end -= 20
            }
        }
        return nil
    }

    /// Changes a waiting job, wherever it waits.
    /// - Returns: false when there is no such job, or it does not wait any more.
    func amend(_ id: JobID, _ change: (inout WaitingJob) throws -> Void) async throws -> Bool {
        for _ in 0..<5 {
            let location = try await locate(id)
            guard location.held == nil, let record = location.record, !record.state.hasEnded else { return false }
            let place: (list: String, element: [UInt8])
            if location.due != nil, let envelope = location.envelope {
                place = ("", envelope)
            } else {
                // Not in its list: on its way to a worker, or to another list.
                guard let found = try await findElement(of: id, queues: [record.queue]) else { continue }
                place = found
            }
            var message: Message
            do {
                message = try Message(envelope: place.element)
            } catch {
                throw BackendError(.corrupt, "the message of the job \(id) cannot be read: \(error.message)")
            }
            message.properties.priority = RedisPriority.urgency(wire: message.properties.priority)
            var waiting = WaitingJob(message: message, record: record, due: location.due)
            let priority = message.properties.priority
            try change(&waiting)
            let keepsPriority = waiting.message.properties.priority == priority
            if try await move(id, waiting, from: place, keepsPriority: keepsPriority) { return true }
        }
        return false
    }

    private func move(
        _ id: JobID, _ waiting: WaitingJob, from place: (list: String, element: [UInt8]), keepsPriority: Bool
    ) async throws
        -> Bool
    {
        let now = now
        let onWire = wireMessage(waiting.message)
        var record = waiting.record
        let isLater = (waiting.due ?? 0) > now
        record.urgency = waiting.message.properties.priority ?? record.urgency
        record.state = isLater ? (waiting.message.headers.retries > 0 ? .retrying : .scheduled) : .waiting
        record.expires = waiting.message.headers.expires?.microsecondsSinceEpoch
        record.changedAt = max(now, record.changedAt &+ 1)
        let list = keys.list(record.queue, wirePriority: onWire.properties.priority ?? 0)
        // It keeps its place, in a line as well, unless it goes elsewhere.
        let isInLine = keys.origin(ofList: place.list) != place.list
        let target = !isLater && isInLine && keepsPriority ? place.list : list
        let moved =
            try await run(
                RedisScripts.changeWaiting,
                [
                    timeArgument, brokerDatabase, .text(resultDatabase), .text(id), .text(record.queue),
                    .text(place.list),
                    .bytes(place.element),
                    "move", .text(target), .bytes(onWire.encodedEnvelope()),
                    waiting.due.map(RESPArgument.integer) ?? "",
                    .bytes(record.encoded),
                ], doing: "change the job \(id)")[0].integer == 1
        if moved {
            follower.ring(id)
            workDoorbell.ring()
        }
        return moved
    }

    public func cancel(_ id: JobID) async throws -> CancelResult {
        for attempt in 0..<5 {
            let location = try await locate(id)
            if let worker = location.worker {
                let isHeld =
                    try await run(
                        RedisScripts.requestCancel, [.text(worker), .text(id)], doing: "cancel the job \(id)")[0]
                    .integer == 1
                guard isHeld else { continue }
                workDoorbell.ring()
                return .requested
            }
            if let record = location.record, record.state.hasEnded { return .alreadyEnded }
            if let result = location.result, result.state.hasEnded { return .alreadyEnded }
            // Nobody's queue is read for an id that nobody has told of.
            guard let record = location.record else { return .unknown }
            if try await end(id, as: .cancelled, location) { return .cancelled }
            // It is further behind, on its way, or with a worker that is not ours: whoever takes it out of its list
            // finds that it was cancelled.
            if attempt > 0 {
                try await markCancelled(id, record)
                return .cancelled
            }
        }
        return .unknown
    }

    /// Ends a job that waits.
    /// - Returns: false when it was not found where it should be.
    private func end(_ id: JobID, as state: JobState, _ location: Location) async throws -> Bool {
        let place: (list: String, element: [UInt8])
        if location.due != nil, let envelope = location.envelope {
            place = ("", envelope)
        } else {
            guard let queue = location.record?.queue, let found = try await findElement(of: id, nearFrontOf: queue)
            else { return false }
            place = found
        }
        let now = now
        let list = place.list.isEmpty ? keys.list(location.record?.queue ?? "", wirePriority: 0) : place.list
        let held = HeldJob(token: 0, began: 0, list: list, record: location.record, envelope: place.element)
        var facts = JobFacts(id: id, held: held, keys: keys, worker: nil, now: now)
        facts.startedAt = nil
        facts.attempt -= 1
        let ending = ending(facts, as: state, failure: nil, at: now, now: now)
        let result = resultClient == nil ? ending.result : nil
        let isEnded =
            try await run(
                RedisScripts.changeWaiting,
                [
                    timeArgument, brokerDatabase, .text(resultDatabase), .text(id), .text(facts.queue),
                    .text(place.list),
                    .bytes(place.element),
                    "end", .text(ending.kind), .integer(ending.keepUntil), .bytes(ending.record.encoded),
                    .text(result?.key ?? ""),
                    .integer(result?.seconds ?? 0), .bytes(result?.value ?? []),
                ], doing: "cancel the job \(id)")[0].integer == 1
        if isEnded {
            if let result = ending.result { try await storeApart(result, isFinal: false) }
            // Only now: a worker may have taken the job before it could be ended, and then its own end counts.
            if let message = facts.message,
                let followUps = FollowUps(
                    of: message, endedAs: state, nil, now: JobDate(microsecondsSinceEpoch: now))
            {
                let concluded = try await conclude(followUps)
                try await store(concluded.ends)
                if !concluded.messages.isEmpty { try await publish(followUps: concluded.messages) }
                try await closeGroups(of: concluded)
            }
            follower.ring(id)
        }
        return isEnded
    }

    private func markCancelled(_ id: JobID, _ record: StoredJob) async throws {
        let now = now
        let held = HeldJob(
            token: 0, began: 0, list: keys.list(record.queue, wirePriority: 0), record: record, envelope: [])
        var facts = JobFacts(id: id, held: held, keys: keys, worker: nil, now: now)
        facts.startedAt = nil
        var ending = ending(facts, as: .cancelled, failure: nil, at: now, now: now)
        ending.record.isCancelledInPlace = true
        let result = resultClient == nil ? ending.result : nil
        _ = try await run(
            RedisScripts.cancelInPlace,
            [
                timeArgument, brokerDatabase, .text(resultDatabase), .text(id), .bytes(ending.record.encoded),
                .text(result?.key ?? ""),
                .integer(result?.seconds ?? 0), .bytes(result?.value ?? []),
            ], doing: "cancel the job \(id)")
        if let result = ending.result { try await storeApart(result, isFinal: false) }
        follower.ring(id)
    }

    public func forget(_ id: JobID) async throws -> Bool {
        let found =
            try await run(
                RedisScripts.forgetResult, [.text(resultDatabase), brokerDatabase, .text(keys.results), .text(id)],
                doing: "forget the job \(id)")[
                0
            ]
            .integer == 1
        _ = try await send(RESPCommand("DEL", [.text(keys.log(id))]), doing: "forget the log of a job")
        var foundApart = false
        if let resultClient {
            let key = keys.result(id)
            foundApart =
                try await call("forget a result") {
                    try await resultClient.send(RESPCommand("DEL", [.text(key)], key: key))
                }.integer == 1
        }
        follower.ring(id)
        return found || foundApart
    }
}
