import Logging

/// Commands that stop jobs.
extension BuiltInCommand {
    static let stoppingJobs: [BuiltInCommand] = [
        .control("revoke") { call, panel in
            try await revoke(
                call, panel, isTerminating: try call.arguments.flag("terminate"))
        },
        .control("terminate") { call, panel in try await revoke(call, panel, isTerminating: true) },
        .control("revoke_by_stamped_headers") { call, panel in try await revokeByStamps(call, panel) },
    ]

    private static let mostIDs = 10_000

    private static func signal(_ call: ControlCall) throws(ControlRefusal) -> Int32 {
        switch call.arguments.values["signal"] {
        case .null?, nil: return ProcessSignal.terminate
        case .string(let name)?:
            guard let number = ProcessSignal.number(of: name) else {
                throw ControlRefusal("\(call.arguments.command): the argument signal names no signal of this system")
            }
            return number
        case let value?:
            guard let number = value.integerValue, (1...31).contains(number) else {
                throw ControlRefusal("\(call.arguments.command): the argument signal is no signal of this system")
            }
            return Int32(number)
        }
    }

    private static func revoke(
        _ call: ControlCall, _ panel: ControlPanel, isTerminating: Bool
    ) async throws -> WireValue {
        var seen: Set<JobID> = []
        let ids = try call.arguments.texts("task_id").filter { seen.insert($0).inserted }
        guard ids.count <= mostIDs, ids.allSatisfy({ (1...1024).contains($0.utf8.count) }) else {
            throw ControlRefusal(
                "\(call.arguments.command): the argument task_id must be at most 10,000 ids of 1 to 1,024 bytes")
        }
        // Checked also where nothing is terminated, as Python's workers do not: a mistake should be heard of.
        let signal = try signal(call)
        panel.revoked.insert(ids)
        let held = await panel.engine.giveBackNotBegun(ids)
        let here = Set(held)
        do {
            for id in ids where !here.contains(id) && !Task.isCancelled { try await endIfWaiting(id, panel) }
        } catch {
            panel.logger.warning(
                "revoked jobs could not be ended in the backend; no worker that has heard of them will start them",
                metadata: ["jobs": "\(ids.count)", "error": "\(error)"])
        }
        guard isTerminating else { return ["ok": .string("tasks \(PythonText.set(ids)) flagged as revoked")] }
        var terminated: [JobID] = []
        var cooperative: Set<String> = []
        for id in ids where here.contains(id) {
            guard let lane = await panel.engine.terminate(id, signal: signal) else { continue }
            terminated.append(id)
            if lane != .process { cooperative.insert(lane.name) }
        }
        guard !terminated.isEmpty else { return ["ok": "terminate: tasks unknown"] }
        let asked =
            cooperative.isEmpty
            ? ""
            : " (asked to stop: code in the \(cooperative.sorted().joined(separator: " and ")) lane cannot be killed)"
        return ["ok": .string("terminate: \(terminated.joined(separator: ", "))\(asked)")]
    }

    /// Ends a job that this worker does not have, unless it has begun or ended elsewhere. All workers hear a
    /// revocation: one of them does it.
    private static func endIfWaiting(_ id: JobID, _ panel: ControlPanel) async throws {
        if let coordination = panel.backend.coordination, id.utf8.count <= 480 {
            let isMine = try await coordination.compareAndSet(
                "revoked:" + id, expected: nil, to: Array(panel.node.utf8.prefix(1024)), expiresAfter: .seconds(10))
            guard isMine else { return }
        }
        do {
            try await end(id, panel)
        } catch {
            // Another worker may do it, or this one when it is asked again.
            _ = try? await panel.backend.coordination?.compareAndSet(
                "revoked:" + id, expected: Array(panel.node.utf8.prefix(1024)), to: nil, expiresAfter: nil)
            throw error
        }
    }

    private static func end(_ id: JobID, _ panel: ControlPanel) async throws {
        guard let record = try await panel.backend.record(of: id) else {
            // Nobody knows it: a message of a Python producer that waits, or that is still on its way.
            var record = JobRecord(id: id, name: "", queue: "", state: .cancelled)
            record.endedAt = panel.backend.clock.now
            return try await panel.backend.results.store([ResultWrite(record, kept: .standard)])
        }
        switch record.state {
        case .waiting, .scheduled, .retrying:
            if try await panel.backend.cancel(id) == .cancelled {
                await panel.engine.tellRevoked(
                    id, record.name, queue: record.queue, attempt: record.attempts)
            }
        case .running, .succeeded, .failed, .cancelled, .expired: break
        }
    }

    private static func revokeByStamps(_ call: ControlCall, _ panel: ControlPanel) async throws -> WireValue {
        let isTerminating = try call.arguments.flag("terminate")
        let signal = try signal(call)
        let headers = try call.arguments.headers("headers")
        guard headers.reduce(0, { $0 + $1.values.count }) <= mostIDs else {
            throw ControlRefusal("revoke_by_stamped_headers: the argument headers has more than 10,000 values")
        }
        panel.revoked.insert(stamps: headers)
        let shown = shown(call.arguments.values["headers"] ?? .null, headers)
        guard isTerminating else { return ["ok": .string("headers \(shown) flagged as revoked, but not terminated")] }
        var found: [(name: String, values: Set<String>)] = []
        for job in await panel.engine.stampedJobs {
            var isMeant = false
            for (name, values) in headers {
                let matching = job.headers.stampValues(name).intersection(values)
                guard !matching.isEmpty else { continue }
                isMeant = true
                if let index = found.firstIndex(where: { $0.name == name }) {
                    found[index].values.formUnion(matching)
                } else {
                    found.append((name, matching))
                }
            }
            if isMeant { _ = await panel.engine.terminate(job.id, signal: signal) }
        }
        guard !found.isEmpty else { return ["ok": .string("headers \(shown) were not terminated")] }
        let sets = found.map { "\(PythonText.quoted($0.name)): \(PythonText.set($0.values.sorted()))" }
        return [
            "ok": .string("headers defaultdict(<class 'set'>, {\(sets.joined(separator: ", "))}) revoked")
        ]
    }

    /// The headers as Python shows them; the list form as an object.
    private static func shown(_ value: WireValue, _ headers: [(name: String, values: [String])]) -> String {
        if case .object = value { return PythonText.of(value, limit: 4096) }
        return PythonText.of(
            .object(.init(headers.map { ($0.name, .string($0.values.first ?? "")) })), limit: 4096)
    }
}
