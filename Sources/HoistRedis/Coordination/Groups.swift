public import Hoist
import RESP

extension RedisBackend: GroupCounting {
    public func open(_ groups: [GroupOpening]) async throws {
        for group in groups {
            _ = try await onGroup(
                group.group, "open",
                [
                    .integer(Int64(group.size)),
                    .bytes(group.tree.map { JSONWriter.bytes(of: ["result": $0]) } ?? []), seconds(group.lifetime),
                ])
        }
    }

    public func grow(_ group: String, by count: Int) async throws {
        _ = try await onGroup(group, "grow", [.integer(Int64(count)), seconds(nil)])
    }

    public func count(_ arrival: Arrival) async throws -> ArrivalResult { try await count(arrival, settling: nil) }

    /// - Parameter outcome: of the job that is about to be settled. Where it completes the group it is kept, so that the
    ///   job need not run again when its worker dies before it is settled.
    private func count(_ arrival: Arrival, settling outcome: GroupPart?) async throws -> ArrivalResult {
        let part = arrival.part
        let reply = try await onGroup(
            arrival.group, "count",
            [
                .text(part.member), place(part.index), .bytes(part.entry), seconds(arrival.lifetime),
                .text(Self.claim(part.member)), .text(outcome.map { keys.counted($0.member) } ?? ""),
                .bytes(outcome?.entry ?? []),
            ])
        guard let answer = reply.elements, answer.count == 2, let entries = answer[0].elements else { return .counted }
        let parts = try entries.map { entry -> GroupPart in
            guard let part = entry.bytes.flatMap(GroupPart.init(entry:)) else {
                throw unexpected(entry, "read a member of the group \(arrival.group)")
            }
            return part
        }
        guard let tree = answer[1].bytes.flatMap({ try? JSONParser.parse($0) })?["result"] else {
            return .completes(parts: parts, outputs: parts.map(\.output))
        }
        // The result of the member that comes last is not stored yet; that of a job which is no member is.
        let known = Set(parts.map(\.member))
        var others: [JobID: WireValue] = [:]
        for id in GroupOpening.members(of: tree) where !known.contains(id) {
            others[id] = try await record(of: id)?.output
        }
        return .completes(parts: parts, outputs: parts.outputs(in: tree, others: others))
    }

    public func close(_ groups: [GroupClosing]) async throws {
        for group in groups {
            _ = try await onGroup(group.group, "close", [.text(Self.claim(group.member)), group.hasFailed ? "1" : ""])
        }
    }

    public func progress(of group: String) async throws -> GroupProgress? {
        let reply = try await onGroup(group, "progress", [])
        guard let answer = reply.elements, let ended = answer.first?.integer else { return nil }
        return GroupProgress(ended: Int(ended), size: answer.count > 1 ? answer[1].integer.map { Int($0) } : nil)
    }

    public func part(of member: JobID, index: Int64?, in group: String) async throws -> GroupPart? {
        let reply = try await onGroup(group, "part", [place(index)])
        return (reply.elements ?? []).lazy.compactMap { $0.bytes.flatMap(GroupPart.init(entry:)) }
            .first { $0.member == member }
    }

    /// Names the member, so that its next delivery finds its own claim again.
    private static func claim(_ member: JobID) -> String { "hoist:" + member }

    private func place(_ index: Int64?) -> RESPArgument { index.map { .integer($0) } ?? "" }

    private func seconds(_ lifetime: Duration?) -> RESPArgument {
        .integer((lifetime ?? configuration.resultRetention)?.components.seconds ?? 0)
    }

    private func onGroup(_ group: String, _ action: String, _ more: [RESPArgument]) async throws -> RESPValue {
        try await onKey(keys.group(group), action, more)
    }

    private func onKey(_ key: String, _ action: String, _ more: [RESPArgument]) async throws -> RESPValue {
        let what = "count the members of a group under \(key)"
        if let resultClient {
            let arguments: [RESPArgument] = ["", "", .text(action), .text(key)] + more
            return try await call(what) {
                try await resultClient.evaluate(RedisScripts.countGroup, keys: [key], arguments: arguments)
            }[0]
        }
        return try await run(
            RedisScripts.countGroup, [brokerDatabase, .text(resultDatabase), .text(action), .text(key)] + more,
            doing: what)[0]
    }

    /// What follows from the ends of jobs, with all that completed groups and workflows start.
    func concluded(_ steps: [SettlingStep], worker: WorkerID) async throws -> [SettlingStep] {
        guard steps.contains(where: { $0.uncounted != nil }) else { return steps }
        // What a worker says that has lost its job counts for nothing.
        let held = try await heldFacts(steps.filter { $0.uncounted != nil }.map(\.id), of: worker)
        let now = now
        var steps = steps
        // Beside each other, so that their commands go to the server together.
        try await withThrowingTaskGroup(of: (Int, FollowUps).self) { group in
            for index in steps.indices {
                guard let uncounted = steps[index].uncounted, held[steps[index].id]?.token == steps[index].token
                else { continue }
                group.addTask { [self] in
                    let followUps = try await conclude(uncounted)
                    // Before the job is settled, for afterwards nobody may come to it any more.
                    for end in followUps.workflowEnds { try await self.end(end) }
                    return (index, followUps)
                }
            }
            for try await (index, followUps) in group {
                steps[index].followUps = self.followUps(followUps, now: now)
                steps[index].over = followUps
            }
        }
        return steps
    }

    func conclude(_ followUps: FollowUps) async throws -> FollowUps {
        var followUps = followUps
        let outcome = followUps.outcome
        try await followUps.conclude(
            now: JobDate(microsecondsSinceEpoch: now), plan: { try await cachedWorkflow($0) },
            open: { try await open([$0]) }, count: { try await count($0, settling: outcome) })
        return followUps
    }

    /// Settles jobs whose end was counted before their worker died.
    /// - Returns: the others, which are to run.
    func settleCounted(_ deliveries: [Delivery], of worker: WorkerID) async throws -> [Delivery] {
        guard deliveries.contains(where: { $0.lostWorkers > 0 }) else { return deliveries }
        var (left, settlements): ([Delivery], [Settlement]) = ([], [])
        for delivery in deliveries {
            guard delivery.lostWorkers > 0, delivery.message?.mayContinue == true,
                let counted = try await onKey(keys.counted(delivery.jobID), "recall", []).bytes
                    .flatMap(GroupPart.init(entry:)),
                let settlement = Settlement(
                    again: delivery, counted, at: JobDate(microsecondsSinceEpoch: now))
            else {
                left.append(delivery)
                continue
            }
            settlements.append(settlement)
        }
        if !settlements.isEmpty {
            _ = try await turn(worker: worker, steps: try await steps(for: settlements, of: worker))
        }
        return left
    }

    /// Notes what is over once a script has published what follows.
    func closeGroups(of followUps: FollowUps?) async throws {
        guard let followUps else { return }
        if !followUps.closings.isEmpty {
            try await close(followUps.closings)
            // The job is settled: its next life is another matter.
            if let outcome = followUps.outcome { _ = try await onKey(keys.counted(outcome.member), "forget", []) }
        }
        for end in followUps.workflowEnds { try await self.end(end) }
    }
}

extension GroupPart {
    /// The member as Celery stores it.
    fileprivate var entry: [UInt8] {
        let status =
            switch state {
            case .succeeded: "SUCCESS"
            case .failed: "FAILURE"
            default: "REVOKED"
            }
        let value: WireValue =
            if !output.isNull || state == .succeeded { output } else {
                (try? JSONParser.parse(
                    failure.map { CeleryResult.exception($0) }
                        ?? CeleryResult.revoked(state == .expired ? "expired" : "revoked"))) ?? .null
            }
        return JSONWriter.bytes(of: [1, .string(member), .string(status), value])
    }

    /// Nil for what is no member of a group.
    fileprivate init?(entry: [UInt8]) {
        guard let value = StoredResult.parse(entry)?.arrayValue, value.count >= 4, let member = value[1].stringValue,
            let status = value[2].stringValue
        else { return nil }
        let stored = StoredResult(value: ["status": .string(status), "result": value[3]])
        self.init(member: member, index: nil, state: stored.state, output: value[3], failure: stored.failure)
    }
}
