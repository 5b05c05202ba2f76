public import Hoist
import RESP
import Synchronization

extension RedisBackend {
    public func renew(_ worker: WorkerPresence, lease: Duration) async throws -> Bool {
        if !worker.queues.isEmpty { try await declare(worker.queues) }
        let presence = (try? JSONText.encode(worker)) ?? []
        let reply = try await run(
            RedisScripts.renew, [timeArgument, .text(worker.id), .integer(lease.inMicroseconds), .bytes(presence)],
            doing: "renew the lease of worker \(worker.name)")[0]
        guard let parts = reply.elements, parts.count == 3 else { throw unexpected(reply, "renew a lease") }
        let isAlive = parts[0].integer == 1
        for dead in parts[1].elements?.compactMap(\.text) ?? [] { try await takeOver(dead) }
        for dying in parts[2].elements?.compactMap(\.text) ?? [] { try await giveBackJobs(of: dying, isResigning: false) }
        try await keepInOrder(queues: worker.queues)
        return isAlive
    }

    public func resign(_ worker: WorkerID) async throws { try await giveBackJobs(of: worker, isResigning: true) }

    /// Gives the jobs of a worker whose lease has passed to others.
    func takeOver(_ worker: WorkerID) async throws { try await giveBackJobs(of: worker, isResigning: false) }

    private func giveBackJobs(of worker: WorkerID, isResigning: Bool) async throws {
        while true {
            let reply = try await run(
                RedisScripts.bury, [timeArgument, .text(worker), isResigning ? "1" : ""], doing: "give the jobs of a worker back")[0]
            // It has renewed its lease meanwhile.
            guard let parts = reply.elements, parts.count == 3 else { return }
            let name = parts[0].bytes.flatMap { try? JSONText.decode(WorkerPresence.self, from: $0) }?.name
            let jobs = Self.heldJobs(parts[1], parts[2])
            guard !jobs.isEmpty else { return }
            let cancelled = try await cancellations(of: worker)
            let now = now
            for start in stride(from: 0, to: jobs.count, by: 200) {
                let steps = jobs[start..<min(start + 200, jobs.count)].map { id, held in
                    let facts = JobFacts(id: id, held: held, keys: keys, worker: name, now: now)
                    return isResigning
                        ? handBack(facts, held.token, isCancelled: cancelled.contains(id), at: now, now: now)
                        : lose(facts, held.token, isCancelled: cancelled.contains(id), now: now)
                }
                _ = try await exchange(worker: worker, isForced: true, steps: steps)
            }
            workDoorbell.ring()
        }
    }

    /// Gives jobs back that a worker never heard of.
    func putBackJobs(of worker: WorkerID, except tokens: Set<Int64>) async throws {
        let held = keys.own + "held:" + worker
        let found = try await pipeline([held + ":info", held].map { RESPCommand("HGETALL", [.text($0)]) }, doing: "read jobs under way")
        let strays = Self.heldJobs(found[0], found[1]).filter { !tokens.contains($0.held.token) }
        guard !strays.isEmpty else { return }
        let now = now
        let cancelled = try await cancellations(of: worker)
        let steps = strays.map { id, held in
            let facts = JobFacts(id: id, held: held, keys: keys, worker: nil, now: now)
            return handBack(facts, held.token, isCancelled: cancelled.contains(id), at: now, now: now)
        }
        _ = try await exchange(worker: worker, steps: steps)
    }

    /// The two hashes of a worker, put together.
    private static func heldJobs(_ information: RESPValue, _ elements: RESPValue) -> [(id: JobID, held: HeldJob)] {
        func pairs(_ value: RESPValue) -> [(String, [UInt8])] {
            let flat = value.elements ?? []
            return stride(from: 0, to: flat.count - 1, by: 2).compactMap { index in
                guard let key = flat[index].text, let value = flat[index + 1].bytes else { return nil }
                return (key, value)
            }
        }
        let envelopes = Dictionary(pairs(elements)) { first, _ in first }
        return pairs(information).compactMap { id, line in
            HeldJob(line, envelope: envelopes[id] ?? []).map { (id, $0) }
        }
    }

    private func cancellations(of worker: WorkerID) async throws -> Set<JobID> {
        let members = try await send(RESPCommand("SMEMBERS", [.text(keys.own + "cancel:" + worker)]), doing: "read cancellations").elements
        return Set(members?.compactMap(\.text) ?? [])
    }

    /// What a consumer of Celery's does when it begins: makes its queues known.
    private func declare(_ queues: [String]) async throws {
        let new = consumed.withLock { Set(queues).subtracting($0) }
        guard !new.isEmpty else { return }
        try await announce(new)
        for queue in new {
            let (bindings, member) = keys.binding(queue)
            for key in bindings {
                _ = try await send(RESPCommand("SADD", [.text(key), .text(member)]), doing: "declare the queue \(queue)")
            }
        }
        subscriptions.subscribe(to: .channel(keys.workChannel)) { [workDoorbell] _ in workDoorbell.ring() }
        consumed.withLock { $0.formUnion(new) }
    }

    private func keepInOrder(queues: [String]) async throws {
        _ = try await run(
            RedisScripts.sweep, [timeArgument, .integer(Int64(configuration.deadLetterLimit))], doing: "remove what has passed its time")
        let uptime = clock.uptime
        let isDue = restoredAt.withLock { last in
            guard uptime - last >= 10_000_000 else { return false }
            last = uptime
            return true
        }
        if isDue { try await restoreUnacknowledged() }
    }
}
