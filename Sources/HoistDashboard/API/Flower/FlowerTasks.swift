import Foundation
import GRDB
import Hoist
import HoistMonitor
import Hummingbird
import Logging

/// Which tasks Flower's list is to have.
private struct FlowerQuery: Sendable {
    var limit = 1000
    var offset = 0
    var order = "job.seq DESC"
    var conditions = ["job.backend = ?"]
    var values: [any DatabaseValueConvertible & Sendable]

    static let largestPage = 1000
    private static let orders = [
        "name": "name.value", "state": "job.state", "received": "job.received", "started": "job.started",
    ]

    /// - Throws: ``Problem`` as Flower words it.
    init(_ given: FlowerArguments, backend: Int64) throws {
        values = [backend]
        if given.values["limit"] != nil { limit = Int(clamping: try given.integer("limit")) }
        if given.values["offset"] != nil { offset = max(0, Int(clamping: try given.integer("offset"))) }
        limit = min(limit, Self.largestPage)
        offset = min(offset, given.values["sort_by"] == nil ? 1_000_000 : 10_000)
        if let sort = given.values["sort_by"] {
            let name = sort.hasPrefix("-") ? String(sort.dropFirst()) : sort
            guard let column = Self.orders[name] else {
                throw Problem(
                    .badRequest,
                    "Invalid sort_by '\(sort.cut(to: 100))', expected one of name, received, started, state")
            }
            order = column + (sort.hasPrefix("-") ? " DESC" : "")
        }
        if let worker = given.values["workername"] { add("worker.value = ?", worker) }
        if let name = given.values["taskname"] { add("name.value = ?", name) }
        if let state = given.values["state"], state != "All" {
            let states = FlowerState.states(of: state).map { String($0.rawValue) }.joined(separator: ", ")
            conditions.append("job.state IN (\(states.isEmpty ? "-1" : states))")
            if state == "RECEIVED" { conditions.append("job.received IS NOT NULL") }
            if state == "PENDING" { conditions.append("job.received IS NULL") }
        }
        for (key, comparison) in [("received_start", ">="), ("received_end", "<=")] {
            guard let text = given.values[key] else { continue }
            guard let date = Self.date(text) else {
                throw Problem(
                    .badRequest, "Invalid received_start or received_end, expected format 'YYYY-MM-DD HH:MM'")
            }
            add("job.received \(comparison) ?", date.timeIntervalSince1970)
        }
        try search(given.values["search"] ?? "")
    }

    private static let columns = [
        "name": "name.value", "worker": "worker.value", "args": "job.positional", "kwargs": "job.keyword",
        "result": "job.result",
    ]

    /// Words that must all be there, also in one column alone: `state:FAILURE args:broke`.
    private mutating func search(_ text: String) throws {
        let words = text.split(separator: " ")
        guard words.count <= 16 else { throw SearchMistake(message: "A search has at most 16 terms here.") }
        for word in words {
            guard !word.hasPrefix("("), !word.hasSuffix(")"), word != "OR" else {
                throw SearchMistake(message: "Parentheses and OR are not understood here.")
            }
            let parts = word.split(separator: ":", maxSplits: 1).map(String.init)
            let term = { (text: String) in text.trimmingCharacters(in: CharacterSet(charactersIn: "\"")) }
            if parts.count == 2, parts[0] == "state" {
                let states = FlowerState.states(of: term(parts[1])).map { String($0.rawValue) }
                conditions.append("job.state IN (\(states.isEmpty ? "-1" : states.joined(separator: ", ")))")
            } else if parts.count == 2, let column = Self.columns[parts[0]] {
                add("instr(lower(coalesce(\(column), '')), lower(?)) > 0", term(parts[1]))
            } else {
                let term = term(String(word))
                guard term.count >= 3 else {
                    throw SearchMistake(
                        message: "Substring search terms must contain at least 3 characters at position 0.")
                }
                let all = (Array(Self.columns.values.sorted()) + ["job.id"]).map { "coalesce(\($0), '')" }
                add("instr(lower(\(all.joined(separator: " || ' ' || "))), lower(?)) > 0", term)
            }
        }
    }

    private mutating func add(_ condition: String, _ value: any DatabaseValueConvertible & Sendable) {
        conditions.append(condition)
        values.append(value)
    }

    /// The server's local time, as Flower's.
    private static func date(_ text: String) -> Date? {
        let formatter = DateFormatter()
        formatter.locale = Locale(identifier: "en_US_POSIX")
        formatter.dateFormat = "yyyy-MM-dd HH:mm"
        formatter.isLenient = false
        return formatter.date(from: text)
    }

    struct SearchMistake: Error {
        var message: String
    }
}

/// Celery's words for states.
enum FlowerState {
    static func word(_ job: HistoryJob) -> String {
        switch job.state {
        case .waiting, .scheduled: job.receivedAt == nil ? "PENDING" : "RECEIVED"
        case .running: "STARTED"
        case .succeeded: "SUCCESS"
        case .failed, .lost: "FAILURE"
        case .retrying: "RETRY"
        case .cancelled, .expired: "REVOKED"
        }
    }

    static func states(of word: String) -> [HistoryState] {
        switch word {
        case "PENDING", "RECEIVED": [.waiting, .scheduled]
        case "STARTED": [.running]
        case "SUCCESS": [.succeeded]
        case "FAILURE": [.failed, .lost]
        case "RETRY": [.retrying]
        case "REVOKED": [.cancelled, .expired]
        default: []
        }
    }

    static func word(_ state: JobState?) -> String {
        switch state {
        case nil, .waiting, .scheduled: "PENDING"
        case .running: "STARTED"
        case .retrying: "RETRY"
        case .succeeded: "SUCCESS"
        case .failed: "FAILURE"
        case .cancelled, .expired: "REVOKED"
        }
    }
}

extension Dashboard {
    func flowerTasks(_ visit: Visit) async throws -> Response {
        let collector = try collector(visit.query)
        let query: FlowerQuery
        do {
            query = try FlowerQuery(FlowerArguments(values: visit.query), backend: collector.number)
        } catch let mistake as FlowerQuery.SearchMistake {
            var response = FlowerAPI.json(["error": .string(mistake.message)])
            response.status = .badRequest
            return response
        }
        guard query.limit > 0 else { return FlowerAPI.json([:]) }
        let jobs = try await store.read { database in
            try Row.fetchAll(
                database,
                sql: """
                    SELECT \(HistoryJob.columns) FROM \(HistoryJob.source) WHERE job.seq IN (
                        SELECT job.seq FROM \(HistoryJob.source)
                        WHERE \(query.conditions.joined(separator: " AND ")) ORDER BY \(query.order) LIMIT ? OFFSET ?)
                    ORDER BY \(query.order)
                    """, arguments: StatementArguments(query.values) + [query.limit, query.offset]
            ).map(HistoryJob.init)
        }
        return FlowerAPI.json(.object(.init(jobs.map { ($0.id, Self.flowerValue($0, attempts: [], children: [])) })))
    }

    func flowerTypes(_ visit: Visit) async throws -> Response {
        let collector = try collector(visit.query)
        let names = try await store.read { database in
            try String.fetchAll(
                database,
                sql: """
                    SELECT value FROM label WHERE kind = 0
                        AND EXISTS (SELECT 1 FROM job WHERE backend = ? AND name = label.id) ORDER BY value LIMIT 10000
                    """, arguments: [collector.number])
        }
        return FlowerAPI.json(["task-types": .array(names.map { .string($0) })])
    }

    func flowerTask(_ visit: Visit) async throws -> Response {
        let collector = try collector(visit.query)
        let id = visit.identifier ?? ""
        guard let (job, attempts) = try await store.job(id, backend: collector.number) else {
            throw Problem(.notFound, "Unknown task '\(id.cut(to: 200))'")
        }
        let children = try await store.children(of: id, backend: collector.number).map(\.id)
        return FlowerAPI.json(Self.flowerValue(job, attempts: attempts, children: children))
    }

    private static func flowerValue(_ job: HistoryJob, attempts: [HistoryAttempt], children: [JobID]) -> WireValue {
        func time(_ date: Date?) -> WireValue { date.map { .double($0.timeIntervalSince1970) } ?? .null }
        func ended(_ states: HistoryState...) -> WireValue {
            states.contains(job.state)
                ? time(job.endedAt) : time(attempts.last { $0.state.map(states.contains) ?? false }?.endedAt)
        }
        let text = DashboardAPI.text
        return [
            "uuid": .string(job.id), "name": text(job.name), "state": .string(FlowerState.word(job)),
            "received": time(job.receivedAt), "sent": time(job.sentAt), "started": time(job.startedAt),
            "rejected": .null, "succeeded": ended(.succeeded), "failed": ended(.failed), "retried": ended(.retrying),
            "revoked": ended(.cancelled, .expired), "args": text(job.positionalText), "kwargs": text(job.keywordText),
            "eta": DashboardAPI.date(job.due), "expires": DashboardAPI.date(job.expires),
            "retries": .integer(Int64(job.retries)), "worker": text(job.worker), "result": text(job.result),
            "exception": text(job.error), "timestamp": time(job.touchedAt), "runtime": DashboardAPI.number(job.runTime),
            "traceback": text(job.traceback), "exchange": .null, "routing_key": text(job.queue), "clock": .null,
            "client": .null, "root": text(job.rootID), "root_id": text(job.rootID), "parent": text(job.parentID),
            "parent_id": text(job.parentID), "children": .array(children.map { .string($0) }),
        ]
    }

    // MARK: - Results

    func flowerResult(_ visit: Visit) async throws -> Response {
        let collector = try collector(visit.query)
        let id = visit.identifier ?? ""
        let patience = min(60, max(0, try FlowerArguments(values: visit.query).number("timeout") ?? 0))
        return FlowerAPI.json(try await outcome(of: id, collector, patience: patience, for: visit.identity))
    }

    /// What became of a task, waiting for its end at most some seconds.
    private func outcome(
        of id: JobID, _ collector: Collector, patience: Double, for who: Identity
    ) async throws -> WireValue {
        var record = try await collector.backend.record(of: id)
        if record?.state.hasEnded != true, patience > 0 {
            // Who waits takes a place, as a live page does.
            guard streams.enter(who) else { throw Problem(.tooManyRequests, "Too many requests wait for results.") }
            defer { streams.leave(who) }
            let deadline = ContinuousClock.now + .seconds(patience)
            var pause = Duration.milliseconds(50)
            while record?.state.hasEnded != true, ContinuousClock.now < deadline, !Task.isCancelled {
                try? await Task.sleep(for: min(pause, max(.zero, ContinuousClock.now.duration(to: deadline))))
                pause = min(pause * 1.5, .seconds(1))
                record = try await collector.backend.record(of: id)
            }
        }
        var value: WireValue.Object = ["task-id": .string(id), "state": .string(FlowerState.word(record?.state))]
        guard let record, record.state.hasEnded else { return .object(value) }
        if let failure = record.failure, record.state != .succeeded {
            value["result"] = .string(SecretMask().hide("\(failure.type)('\(failure.message)')"))
            value["traceback"] = .string(SecretMask().hide(failure.description))
        } else {
            value["result"] = SecretMask().hide(record.output ?? .null)
        }
        return .object(value)
    }

    // MARK: - Sending

    enum FlowerSending: Sendable { case apply, asyncApply, sendTask }

    func flowerSend(_ visit: Visit, _ kind: FlowerSending) async throws -> Response {
        let collector = try collector(visit.query)
        let name = visit.identifier ?? ""
        let body = try await flowerBody(visit)
        let workers = collector.view { $0.picture.liveWorkers(at: collector.clock.now) }
        let knowing = workers.first { $0.jobNames?.contains { $0 == name || $0.hasPrefix(name + " [") } ?? false }
        guard kind == .sendTask || knowing != nil else {
            throw Problem(.notFound, "Unknown task '\(name.cut(to: 200))'")
        }
        guard !name.isEmpty, name.utf8.count <= 1024 else { throw Problem(.badRequest, "Invalid task name") }
        var arguments = Arguments()
        if let positional = body["args"] {
            guard let list = positional.arrayValue else { throw Problem(.badRequest, "args must be an array") }
            arguments.positional = list
        }
        if let keyword = body["kwargs"] {
            guard let members = keyword.objectValue else { throw Problem(.badRequest, "kwargs must be an object") }
            arguments.keyword = members
        }
        var options = try Self.options(body)
        if body["queue"] == nil {
            // Where a worker looks that knows the task; else Celery's own default, or Hoist's.
            let python = workers.contains { $0.isPython == true }
            options.append(.queue(knowing?.queues?.first ?? (python ? "celery" : "default")))
        }
        let patience = min(60, max(0, body["timeout"]?.doubleValue ?? 10))
        let client = JobClient(collector.backend, logger: logger)
        var sent: JobHandle<WireValue>?
        do {
            _ = try await store.audited(
                AuditEntry(
                    at: collector.clock.now, backend: collector.name, author: visit.identity.name, action: "send",
                    target: "name " + name)
            ) {
                let handle = try await client.enqueue(named: name, arguments: arguments, options: options)
                sent = handle
                return (
                    handle.isNew ? 1 : 0,
                    (handle.isNew ? "sent as " : "there is one already: ") + handle.id.cut(to: 150)
                )
            }
        } catch let error as BackendError where error.code == .misuse {
            throw Problem(.badRequest, error.message)
        } catch let error as WireError {
            throw Problem(.badRequest, error.message)
        }
        guard let handle = sent else { throw Problem(.serviceUnavailable, "The task was not sent.") }
        guard kind == .apply else { return FlowerAPI.json(["task-id": .string(handle.id), "state": "PENDING"]) }
        return FlowerAPI.json(try await outcome(of: handle.id, collector, patience: patience, for: visit.identity))
    }

    private func flowerBody(_ visit: Visit) async throws -> WireValue.Object {
        let buffer: ByteBuffer
        do { buffer = try await visit.request.body.collect(upTo: 1 << 20) } catch {
            throw Problem(.contentTooLarge, "A request has at most 1 MB.")
        }
        guard buffer.readableBytes > 0 else { return [:] }
        do {
            guard let members = try JSONText.parse(Array(buffer.readableBytesView)).objectValue else {
                throw Problem(.badRequest, "invalid options")
            }
            return members
        } catch let error as WireError {
            throw Problem(.badRequest, error.message)
        }
    }

    private static func options(_ body: WireValue.Object) throws -> [EnqueueOption] {
        var options: [EnqueueOption] = []
        for (key, value) in body {
            switch key {
            case "args", "kwargs", "timeout": break
            case "queue": options.append(.queue(try text(value)))
            case "task_id": options.append(.id(try text(value)))
            case "priority":
                guard let number = value.integerValue else { throw invalidOption }
                options.append(.priority(Int(clamping: number)))
            case "countdown":
                guard let seconds = value.doubleValue, (0...1e9).contains(seconds) else { throw invalidOption }
                options.append(.after(.seconds(seconds)))
            case "eta": options.append(.at(try date(value)))
            case "expires":
                if let seconds = value.doubleValue, (0...1e9).contains(seconds) {
                    options.append(.expires(after: .seconds(seconds)))
                } else {
                    options.append(.expires(at: try date(value)))
                }
            // An option of Celery's that has no meaning here is refused, and not dropped in silence.
            default: throw Problem(.badRequest, "Invalid option '\(key.cut(to: 100))'")
            }
        }
        return options
    }

    private static let invalidOption = Problem(.badRequest, "Invalid option")

    private static func text(_ value: WireValue) throws -> String {
        guard let text = value.stringValue, !text.isEmpty, text.utf8.count <= 1024 else { throw invalidOption }
        return text
    }

    /// `YYYY-MM-DD HH:MM:SS.ffffff`, UTC.
    private static func date(_ value: WireValue) throws -> Date {
        guard let text = value.stringValue, text.count >= 19, text.dropFirst(10).first == " ",
            let date = WireTimestamp.date(from: text.replacing(" ", with: "T") + "+00:00")
        else { throw invalidOption }
        return date
    }

    // MARK: - Revoking

    func flowerRevoke(_ visit: Visit) async throws -> Response {
        let collector = try collector(visit.query)
        let id = visit.identifier ?? ""
        let given = try await visit.flower(self)
        let terminates = try given.flag("terminate")
        let signal = given.values["signal"] ?? "SIGTERM"
        guard !id.isEmpty, id.utf8.count <= 1024, signal.utf8.count <= 20 else {
            throw Problem(.badRequest, "Invalid task id or signal")
        }
        let target = "job \(id.cut(to: 500))" + (terminates ? " with \(signal)" : "")
        try await noting(visit, collector, "revoke", target) { fleet in
            // What waits on a backend of Hoist's is cancelled at once; one that runs goes on unless it is to be stopped.
            let state = try await collector.backend.record(of: id)?.state
            if let state, !state.hasEnded, terminates || state != .running {
                _ = try await collector.backend.cancel(id)
            }
            try await fleet.tell(
                "revoke", ["task_id": .string(id), "terminate": .bool(terminates), "signal": .string(signal)])
            return "revoked"
        }
        return FlowerAPI.json(["message": .string("Revoked '\(id)'")])
    }
}
