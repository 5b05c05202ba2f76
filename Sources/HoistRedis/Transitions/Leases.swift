import Hoist
import RESP
import Synchronization

extension RedisBackend {
    func renew(_ worker: WorkerPresence, lease: Duration) async throws -> Bool {
        if !worker.queues.isEmpty { try await declare(worker.queues) }
        if !isPreparedToTake.withLock({ $0 }) {
            try await prepareToTake()
            isPreparedToTake.withLock { $0 = true }
        }
        let presence = (try? JSONText.encode(worker)) ?? []
        let reply = try await run(
            RedisScripts.renewLease,
            [timeArgument, .text(worker.id), .integer(lease.inMicroseconds), .bytes(presence)],
            doing: "renew the lease of worker \(worker.name)")[0]
        guard let parts = reply.elements, parts.count == 3 else { throw unexpected(reply, "renew a lease") }
        let isAlive = parts[0].integer == 1
        // The lease is renewed even if the rest fails: the next renewal of any worker tries it again.
        let dead = parts[1].elements?.compactMap(\.text) ?? []
        let dying = parts[2].elements?.compactMap(\.text) ?? []
        for worker in dead + dying { try? await giveBackJobs(of: worker, isResigning: false) }
        keepInOrder()
        return isAlive
    }

    func resign(_ worker: WorkerID) async throws {
        let queues = try await presence(of: worker)?.queues.filter(SpecialQueue.isDirect) ?? []
        try await giveBackJobs(of: worker, isResigning: true)
        try? await mendOutcomes(isLast: true)
        for queue in queues { try await forgetIfEmpty(queue) }
    }

    /// Forgets a queue that was one worker's alone, unless something is left there.
    private func forgetIfEmpty(_ queue: String) async throws {
        let (keys, bindings) = (keys, keys.binding(queue))
        let places = keys.lists(queue) + ["delayed:", "dead:", "stopped:", "lines:"].map { keys.own + $0 + queue }
        let left = try await send(
            RESPCommand("EXISTS", places.map { .text($0) }), doing: "look into the queue \(queue)")
        // In a rolling restart another one of the name may be there already.
        guard left.integer == 0, try await !workers().contains(where: { $0.queues.contains(queue) }) else { return }
        announced.withLock { _ = $0.remove(queue) }
        consumed.withLock { _ = $0.remove(queue) }
        _ = try await pipeline(
            [RESPCommand("SREM", [.text(keys.queues), .text(queue)])]
                + bindings.keys.map { RESPCommand("SREM", [.text($0), .text(bindings.member)]) },
            doing: "forget the queue \(queue)")
    }

    /// Gives the jobs of a worker whose lease has passed to others.
    func takeOver(_ worker: WorkerID) async throws { try await giveBackJobs(of: worker, isResigning: false) }

    private func giveBackJobs(of worker: WorkerID, isResigning: Bool) async throws {
        // Jobs that were claimed just before the worker was taken off the list may come to light in a second round.
        for _ in 0..<3 {
            let reply = try await run(
                RedisScripts.retireWorker, [timeArgument, .text(worker), isResigning ? "1" : ""],
                doing: "give the jobs of a worker back")[0]
            // It has renewed its lease meanwhile.
            guard let parts = reply.elements, parts.count == 3 else { return }
            let name = parts[0].bytes.flatMap { try? JSONText.decode(WorkerPresence.self, from: $0) }?.name
            let jobs = Self.heldJobs(parts[1], parts[2])
            guard !jobs.isEmpty else { return }
            let cancelled = try await cancellations(of: worker)
            let now = now
            var settled = 0
            for start in stride(from: 0, to: jobs.count, by: 200) {
                var givenUp: [JobID: GivenUpJob] = [:]
                let steps = jobs[start..<min(start + 200, jobs.count)].map { id, held in
                    let facts = JobFacts(id: id, held: held, keys: keys, worker: name, now: now)
                    let delivery = facts.ofDelivery(isCancelled: cancelled.contains(id))
                    let date = JobDate(microsecondsSinceEpoch: now)
                    let transition =
                        isResigning
                        ? Transition.resigned(delivery, at: date)
                        : .workerLost(
                            delivery, worker: name ?? "", maximum: configuration.maximumLostWorkers, at: date)
                    if !isResigning, let failure = transition.deadLetter {
                        givenUp[id] = GivenUpJob(
                            Delivery(
                                jobID: id, jobName: facts.record.name, queue: facts.queue,
                                payload: .envelope(held.envelope), attempt: facts.attempt,
                                lostWorkers: facts.record.lostWorkers + 1, token: held.token), failure,
                            lostWorker: worker)
                    }
                    return step(transition, facts, held.token, now: now)
                }
                var codes = try await turn(worker: worker, isForced: true, steps: steps).codes
                // What follows cannot be published: the job ends without it, so that it ends at all.
                let unpublished = zip(steps, codes).compactMap { $1 == 3 ? $0 : nil }
                if !unpublished.isEmpty {
                    let again = unpublished.map { step in
                        var step = step
                        step.followUps.removeAll { if case .message = $0 { true } else { false } }
                        return step
                    }
                    let second = try await turn(worker: worker, isForced: true, steps: again).codes
                    let ended = Dictionary(zip(again.map(\.id), second)) { first, _ in first }
                    codes = zip(steps, codes).map { $1 == 3 ? ended[$0.id] ?? 3 : $1 }
                }
                givenUpJobs.tell(zip(steps, codes).compactMap { $1 == 1 ? givenUp[$0.id] : nil })
                settled += codes.count { $0 == 1 }
            }
            workDoorbell.ring()
            // What cannot be settled is not tried for ever.
            if settled == 0 { return }
        }
    }

    /// Gives jobs back that a worker never heard of.
    func putBackJobs(of worker: WorkerID, except tokens: Set<Int64>) async throws {
        let held = keys.own + "held:" + worker
        // No claims that wait may bring any more once we have looked.
        let revoke = RESPCommand("DEL", [.text(keys.own + "standing:" + worker)])
        let found = try await pipeline(
            [revoke] + [held + ":info", held].map { RESPCommand("HGETALL", [.text($0)]) }, doing: "read jobs under way")
        let strays = Self.heldJobs(found[1], found[2]).filter { !tokens.contains($0.held.token) }
        guard !strays.isEmpty else { return }
        let now = now
        let cancelled = try await cancellations(of: worker)
        func steps(_ isCancelled: (JobID) -> Bool) -> [SettlingStep] {
            strays.map { id, held in
                let facts = JobFacts(id: id, held: held, keys: keys, worker: nil, now: now)
                let date = JobDate(microsecondsSinceEpoch: now)
                return step(
                    .neverBegun(facts.ofDelivery(isCancelled: isCancelled(id)), at: date), facts, held.token, now: now)
            }
        }
        let codes = try await turn(worker: worker, steps: steps(cancelled.contains)).codes
        // Cancelled since we looked.
        if codes.contains(2) { _ = try await turn(worker: worker, steps: steps { _ in true }) }
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
        let members = try await send(
            RESPCommand("SMEMBERS", [.text(keys.own + "cancel:" + worker)]), doing: "read cancellations"
        ).elements
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
                _ = try await send(
                    RESPCommand("SADD", [.text(key), .text(member)]), doing: "declare the queue \(queue)")
            }
        }
        listenForWork()
        consumed.withLock { $0.formUnion(new) }
    }

    /// Rings here whenever somebody says that there is something to do.
    func listenForWork() {
        subscriptions.subscribe(to: .channel(keys.workChannel)) { [workDoorbell] _ in workDoorbell.ring() }
    }

    /// Removes what has passed its time, and restores what workers of Celery's left behind, once in ten seconds; puts
    /// outcomes back. All beside everything else, for nobody's lease may wait for it.
    func keepInOrder() {
        let uptime = clock.uptime
        if lateRetries.withLock({ $0.isDue(at: uptime) }) { beside { try await $0.mendOutcomes() } }
        expireRecords()
        guard isDue(restoredAt) else { return }
        beside { backend in
            _ = try await backend.run(
                RedisScripts.removeExpired,
                [backend.timeArgument, .integer(Int64(backend.configuration.deadLetterLimit))],
                doing: "remove what has passed its time"
            )
        }
        beside { try await $0.restoreUnacknowledged() }
    }

    /// Has the records expire of jobs that have waited long, once in ten seconds.
    func expireRecords() {
        guard isDue(expiredAt) else { return }
        beside { backend in
            _ = try await backend.run(
                RedisScripts.expireRecords, [backend.timeArgument], doing: "have old records expire")
        }
    }

    /// Works beside everything else. A task of its own, for a worker that renews its lease, or takes an answer, must not
    /// wait for upkeep; what fails now is done by the next one who is due.
    func beside(_ body: @escaping @Sendable (RedisBackend) async throws -> Void) {
        Task { [weak self] in
            guard let self else { return }
            try? await body(self)
        }
    }

    private func isDue(_ last: borrowing Mutex<Int64>) -> Bool {
        let uptime = clock.uptime
        return last.withLock { last in
            guard uptime - last >= 10_000_000 else { return false }
            last = uptime
            return true
        }
    }
}
