import Hoist
import RESP
import Synchronization

extension RedisBackend {
    /// Does what a worker needs before its first lease.
    func prepare(_ worker: WorkerPresence) async throws {
        if !worker.queues.isEmpty { try await declare(worker.queues) }
        if !isPreparedToTake.withLock({ $0 }) {
            try await prepareToTake()
            isPreparedToTake.withLock { $0 = true }
        }
    }

    /// The client that renews leases: with connections and a thread of its own, so that no large answer, no takeover
    /// and no code of the program holds a renewal up; and with time-outs well under the lease, so that a connection on
    /// which nothing arrives any more is given up in time for another one.
    func leaseClient(for lease: Duration) throws -> RESPClient {
        try leaseClients.withLock { clients in
            if let client = clients[lease] { return client }
            var settings = client.configuration
            let limit = min(Duration.microseconds(lease.inMicroseconds / 4), settings.commandTimeout)
            settings.commandTimeout = limit
            settings.connectTimeout = min(limit, settings.connectTimeout)
            settings.keepAlive = min(limit, settings.keepAlive)
            settings.spinLimit = .zero
            do throws(RESPError) {
                let client = try RESPClient(settings, group: leaseThread.group)
                clients[lease] = client
                return client
            } catch {
                throw BackendError(.misuse, "the configuration of Redis is of no use: \(error.message)")
            }
        }
    }

    /// Waits for nothing but the renewal itself: what it finds to do is done beside it.
    func renew(_ worker: WorkerPresence, lease: Duration, over leases: RESPClient) async throws -> Bool {
        let presence = (try? JSONText.encode(worker)) ?? []
        let arguments: [RESPArgument] = [
            timeArgument, .text(worker.id), .integer(lease.inMicroseconds), .bytes(presence),
        ]
        let reply = try await call("renew the lease of worker \(worker.name)") {
            try await leases.evaluate(RedisScripts.renewLease, keys: [keys.own], arguments: arguments)
        }[0]
        guard let parts = reply.elements, parts.count == 3 else {
            leases.startOver()
            throw unexpected(reply, "renew a lease")
        }
        let isAlive = parts[0].integer == 1
        let dead = parts[1].elements?.compactMap(\.text) ?? []
        let dying = parts[2].elements?.compactMap(\.text) ?? []
        if configuration.clock != nil {
            // Who moves time wants to see at once what comes of it.
            for worker in dead + dying { try? await takeOver(worker) }
        } else if !dead.isEmpty || !dying.isEmpty {
            takeOverBesideTheRest(Set(dead + dying))
        }
        // Queues that were added since.
        if !worker.queues.isEmpty, !consumed.withLock({ $0.isSuperset(of: worker.queues) }) {
            beside { try await $0.declare(worker.queues) }
        }
        keepInOrder()
        return isAlive
    }

    /// Gives the jobs of dead workers to others, one worker after the other; one such round at a time. What fails is
    /// done by the next renewal of any worker.
    private func takeOverBesideTheRest(_ workers: Set<WorkerID>) {
        let isFirst = isTakingOver.withLock { isTakingOver in
            defer { isTakingOver = true }
            return !isTakingOver
        }
        guard isFirst else { return }
        beside { backend in
            defer { backend.isTakingOver.withLock { $0 = false } }
            for worker in workers.sorted() { try? await backend.takeOver(worker) }
        }
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
    ///
    /// By one program alone, as far as its lock reaches: what two do at the same time is done once all the same.
    func takeOver(_ worker: WorkerID) async throws {
        let lock = keys.own + "taking-over:" + worker
        if configuration.clock == nil {
            let isOurs = try await send(
                RESPCommand("SET", [.text(lock), "1", "NX", "PX", 5000]), doing: "take the jobs of a worker over")
            if isOurs.isNull { return }
        }
        try await giveBackJobs(of: worker, isResigning: false)
        if configuration.clock == nil { _ = try? await send(RESPCommand("DEL", [.text(lock)]), doing: "unlock") }
    }

    private func giveBackJobs(of worker: WorkerID, isResigning: Bool) async throws {
        // Jobs that were claimed just before the worker was taken off the list may come to light in a second round.
        for _ in 0..<3 {
            let reply = try await run(
                RedisScripts.retireWorker, [timeArgument, .text(worker), isResigning ? "1" : ""],
                doing: "give the jobs of a worker back")[0]
            // It has renewed its lease meanwhile.
            guard let parts = reply.elements, parts.count == 2 else { return }
            let name = parts[0].bytes.flatMap { try? JSONText.decode(WorkerPresence.self, from: $0) }?.name
            let jobs = Self.pairs(parts[1])
            guard !jobs.isEmpty else { return }
            let cancelled = try await cancellations(of: worker)
            let now = now
            var settled = 0
            try await readMessages(of: jobs, heldBy: worker) { jobs in
                var notices: [JobID: JobNotice] = [:]
                let steps = jobs.map { id, held in
                    let facts = JobFacts(id: id, held: held, keys: keys, worker: name, now: now)
                    let delivery = facts.ofDelivery(isCancelled: cancelled.contains(id))
                    let date = JobDate(microsecondsSinceEpoch: now)
                    let transition =
                        isResigning
                        ? Transition.resigned(delivery, at: date)
                        : .workerLost(
                            delivery, worker: name ?? "", maximum: configuration.maximumLostWorkers, at: date)
                    if !isResigning {
                        let delivery = Delivery(
                            jobID: id, jobName: facts.record.name, queue: facts.queue,
                            payload: .envelope(held.envelope), attempt: facts.attempt,
                            lostWorkers: facts.record.lostWorkers + 1, token: held.token)
                        notices[id] = JobNotice(delivery, transition, lost: worker, named: name)
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
                        step.uncounted = nil
                        return step
                    }
                    let second = try await turn(worker: worker, isForced: true, steps: again).codes
                    let ended = Dictionary(zip(again.map(\.id), second)) { first, _ in first }
                    codes = zip(steps, codes).map { $1 == 3 ? ended[$0.id] ?? 3 : $1 }
                }
                jobNotices.tell(zip(steps, codes).compactMap { $1 == 1 ? notices[$0.id] : nil })
                settled += codes.count { $0 == 1 }
            }
            workDoorbell.ring()
            // What cannot be settled is not tried for ever.
            if settled == 0 { return }
        }
    }

    /// Gives jobs back that a worker never heard of.
    func putBackJobs(of worker: WorkerID, except tokens: Set<Int64>) async throws {
        // No claims that wait may bring any more once we have looked.
        let revoke = RESPCommand("DEL", [.text(keys.own + "standing:" + worker)])
        let look = RESPCommand("HGETALL", [.text(keys.own + "held:" + worker + ":info")])
        let found = try await pipeline([revoke, look], doing: "read jobs under way")
        let strays = Self.pairs(found[1]).filter { _, line in
            HeldJob(line, envelope: []).map { !tokens.contains($0.token) } ?? false
        }
        guard !strays.isEmpty else { return }
        let cancelled = try await cancellations(of: worker)
        // The last first, for each goes in front of those that went before.
        try await readMessages(of: strays.reversed(), heldBy: worker) { strays in
            try await putBack(strays, of: worker, cancelled: cancelled)
        }
    }

    private func putBack(_ strays: [(id: JobID, held: HeldJob)], of worker: WorkerID, cancelled: Set<JobID>)
        async throws
    {
        let now = now
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

    /// Fields and values of a hash.
    private static func pairs(_ value: RESPValue) -> [(id: JobID, line: [UInt8])] {
        let flat = value.elements ?? []
        return stride(from: 0, to: flat.count - 1, by: 2).compactMap { index in
            guard let key = flat[index].text, let value = flat[index + 1].bytes else { return nil }
            return (key, value)
        }
    }

    /// Reads the messages of jobs that a worker has, as many at a time as come over a slow link in good time.
    private func readMessages(
        of jobs: [(id: JobID, line: [UInt8])], heldBy worker: WorkerID,
        _ body: ([(id: JobID, held: HeldJob)]) async throws -> Void
    ) async throws {
        let held = keys.own + "held:" + worker
        var rest = jobs[...]
        while !rest.isEmpty {
            let some = rest.prefix(200)
            let sizes = try await pipeline(
                some.map { RESPCommand("HSTRLEN", [.text(held), .text($0.id)]) }, doing: "read jobs under way")
            var (count, bytes) = (0, Int64(0))
            for size in sizes {
                bytes += size.integer ?? 0
                if count > 0, bytes > Self.turnByteLimit { break }
                count += 1
            }
            let step = rest.prefix(count)
            let elements =
                try await send(
                    RESPCommand("HMGET", [.text(held)] + step.map { .text($0.id) }), doing: "read jobs under way"
                ).elements ?? []
            try await body(
                zip(step, elements).compactMap { job, element in
                    HeldJob(job.line, envelope: element.bytes ?? []).map { (job.id, $0) }
                })
            rest = rest.dropFirst(count)
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
        try Self.checkNames(new)
        let members = new.flatMap { queue in
            let (bindings, member) = keys.binding(queue)
            return [(keys.queues, queue)] + bindings.map { ($0, member) }
        }
        _ = try await run(
            RedisScripts.addMembers, members.flatMap { [.text($0), .text($1)] },
            doing: "declare the queues \(new.sorted().joined(separator: ", "))")
        announced.withLock { $0.formUnion(new) }
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

    /// Works beside everything else: a worker that renews its lease, or takes an answer, must not wait for upkeep. What
    /// fails now is done by the next one who is due.
    func beside(_ body: @escaping @Sendable (RedisBackend) async throws -> Void) {
        runBeside { [weak self] in
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
