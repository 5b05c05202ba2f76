import Hoist

extension SQLiteBackend {
    func renew(_ worker: WorkerPresence, lease: Duration) async throws -> Bool {
        let (isAlive, tookOver, notices) = try await leases.transaction("renew the lease of worker \(worker.name)") {
            [clock] store in
            // The clocks are read once the file is ours: waiting for it must not count against the lease.
            let (now, uptime) = (clock.now.microsecondsSinceEpoch, clock.uptime)
            try store.giveTimeAfterStall(uptime: uptime)
            // This worker first: while its lease is here it has not been taken over, however late the renewal comes.
            let isAlive = try store.renew(worker, lease: lease.inMicroseconds, now: now, uptime: uptime)
            let tookOver = try store.takeOver(now: now, uptime: uptime)
            return (isAlive, tookOver, store.takeNotices())
        }
        jobNotices.tell(notices)
        try await sweepBesideTheRest()
        if tookOver {
            ringReady()
            ringChanged()
        } else {
            // A process may have died between its commit and its ring: this ring replaces it.
            workDoorbell.ring()
        }
        return isAlive
    }

    func resign(_ worker: WorkerID) async throws {
        let now = clock.now.microsecondsSinceEpoch
        try await writer.transaction("take a worker off the list") { try $0.resign(worker, now: now) }
        ringReady()
        ringChanged()
    }
}

extension JobStore {
    /// When no worker of this machine has renewed its lease for longer than workers take to renew one, the file was
    /// locked, or the disk or the machine stood still: workers whose lease passed meanwhile are not dead, and each gets
    /// its own lease once more, and only once: until it renews that, nothing more is known of it. Not for tests, which
    /// move their own time.
    func giveTimeAfterStall(uptime: Int64) throws {
        guard rules.keepsRealTime else { return }
        let last = try sql(
            """
            SELECT max(lease_until - lease), max(lease) FROM worker WHERE lease_until > 0 AND boot = ? AND lease > 0
            """
        ).bind(BootIdentity.current)
        defer { last.end() }
        guard try last.step(), let renewed = last.optionalInt(0), uptime - renewed > last.int(1) * 2 / 5 else { return }
        last.end()
        try sql(
            """
            UPDATE worker SET lease_until = ?1 + lease, lease = 0
            WHERE lease_until > 0 AND lease_until <= ?1 AND boot = ?2 AND lease > 0
            """
        ).bind(uptime).bind(BootIdentity.current).run()
    }

    func renew(_ worker: WorkerPresence, lease: Int64, now: Int64, uptime: Int64) throws -> Bool {
        let until = uptime + lease
        let presence = StoredJSON.encode(worker) ?? []
        let update = try sql(
            "UPDATE worker SET lease_until = ?, seen = ?, presence = ?, lease = ? WHERE session = ? AND lease_until > 0"
        )
        update.bind(until).bind(now).bind(presence).bind(lease).bind(worker.id)
        if try update.run() == 1 { return true }
        let insert = try sql(
            """
            INSERT INTO worker (session, name, boot, lease_until, seen, presence, lease) VALUES (?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT DO NOTHING
            """)
        insert.bind(worker.id).bind(worker.name).bind(BootIdentity.current).bind(until).bind(now).bind(presence)
        return try insert.bind(lease).run() == 1
    }

    func resign(_ session: WorkerID, now: Int64) throws {
        guard let worker = try workerNumber(session) else { return }
        try putBackJobs(of: worker, except: [], now: now, Transition.resigned)
        try sql("UPDATE worker SET lease_until = 0, seen = ? WHERE id = ?").bind(now).bind(worker).run()
    }

    /// Gives the jobs of workers whose lease has passed, or who ran before the machine was last started, to others.
    /// - Returns: whether a job became ready.
    func takeOver(now: Int64, uptime: Int64) throws -> Bool {
        if try expiredWorkers(uptime: uptime).isEmpty { return false }
        try giveTimeAfterStall(uptime: uptime)
        return try takeOver(try expiredWorkers(uptime: uptime), now: now)
    }

    private func expiredWorkers(uptime: Int64) throws -> [(id: Int64, name: String, session: WorkerID)] {
        let expired = try sql(
            """
            SELECT id, name, session FROM worker WHERE lease_until > 0 AND lease_until <= ?1
            UNION ALL SELECT id, name, session FROM worker WHERE lease_until > ?1 AND boot <> ?2
            """)
        expired.bind(uptime).bind(BootIdentity.current)
        var dead: [(id: Int64, name: String, session: WorkerID)] = []
        while try expired.step() { dead.append((expired.int(0), expired.text(1) ?? "", expired.text(2) ?? "")) }
        return dead
    }

    private func takeOver(
        _ dead: [(id: Int64, name: String, session: WorkerID)], now: Int64
    ) throws -> Bool {
        var madeReady = false
        for worker in dead {
            try sql("UPDATE worker SET lease_until = 0 WHERE id = ?").bind(worker.id).run()
            for job in try runningJobs(of: worker.id) {
                let transition = Transition.workerLost(
                    job.facts, worker: worker.name, maximum: rules.maximumLostWorkers,
                    at: JobDate(microsecondsSinceEpoch: now))
                if try apply(transition, to: job.sequence, now: now) { madeReady = true }
                try note(job, transition, of: worker.session, named: worker.name)
            }
        }
        return madeReady
    }

    private func note(
        _ job: RunningJob, _ transition: Transition, of worker: WorkerID, named name: String
    ) throws {
        let sequence = job.sequence
        let select = try sql("SELECT id, line, retries, lost FROM job WHERE seq = ?").bind(sequence)
        guard try select.step() else { return }
        let line = try knownLine(select.int(1))
        let (id, attempt, lost) = (select.text(0) ?? "", Int(select.int(2)) + 1, Int(select.int(3)))
        select.end()
        var delivery = Delivery(
            jobID: id, jobName: line.name, queue: line.queue, payload: .envelope([]), attempt: attempt,
            lostWorkers: lost, token: job.token)
        // Only who is told of a dead letter reads it.
        if transition.deadLetter != nil, let message = try message(of: sequence) {
            delivery.payload = .message(message)
        }
        if let notice = JobNotice(delivery, transition, lost: worker, named: name) { notices.append(notice) }
    }

    /// Gives the jobs of a worker back that it does not hold any more, or never heard of.
    /// - Parameters:
    ///   - worker: its number.
    ///   - tokens: the deliveries that the worker knows.
    ///   - transition: what becomes of each of the others.
    /// - Returns: whether a job became ready.
    @discardableResult
    func putBackJobs(
        of worker: Int64, except tokens: Set<Int64>, now: Int64, _ transition: (DeliveryFacts, JobDate) -> Transition
    ) throws -> Bool {
        var madeReady = false
        for job in try runningJobs(of: worker) where !tokens.contains(job.token) {
            let transition = transition(job.facts, JobDate(microsecondsSinceEpoch: now))
            if try apply(transition, to: job.sequence, now: now) { madeReady = true }
        }
        return madeReady
    }

    private struct RunningJob {
        var sequence: Int64
        var token: Int64
        var facts: DeliveryFacts
    }

    private func runningJobs(of worker: Int64) throws -> [RunningJob] {
        let select = try sql(
            "SELECT seq, retries, lost, at_most_once, cancel, started, token FROM job WHERE state = 3 AND worker = ?")
        select.bind(worker)
        var jobs: [RunningJob] = []
        while try select.step() {
            let facts = DeliveryFacts(
                attempt: Int(select.int(1)) + 1,
                claimedAt: select.optionalInt(5).map(JobDate.init(microsecondsSinceEpoch:)),
                lostWorkers: Int(select.int(2)), isAtMostOnce: select.int(3) == 1, isCancelRequested: select.int(4) == 1
            )
            let token = DeliveryToken.make(sequence: select.int(0), delivery: select.int(6))
            jobs.append(RunningJob(sequence: select.int(0), token: token, facts: facts))
        }
        return jobs
    }

    /// Ends a job that was not started in time.
    func expire(_ sequence: Int64, now: Int64) throws {
        let select = try sql("SELECT id, line, retries FROM job WHERE seq = ?").bind(sequence)
        guard try select.step() else { return }
        let (id, lineID, retries) = (select.text(0) ?? "", select.int(1), select.int(2))
        select.end()
        let line = try knownLine(lineID)
        _ = try apply(.waitedInVain(.expired, at: JobDate(microsecondsSinceEpoch: now)), to: sequence, now: now)
        notices.append(
            JobNotice(.expired, jobID: id, jobName: line.name, queue: line.queue, attempt: Int(retries) + 1))
    }

    /// Ends jobs that were not started in time, and removes what has passed its own. A little at a time.
    /// - Returns: whether there may be more to do.
    func sweep(now: Int64) throws -> Bool {
        let late = try sql(
            """
            SELECT seq FROM job WHERE expires IS NOT NULL AND state IN (0, 1, 2) AND expires <= ?
            ORDER BY expires LIMIT 500
            """)
        let lateOnes = try sequences(late.bind(now))
        for sequence in lateOnes { try expire(sequence, now: now) }
        let old = try sql("SELECT seq FROM job WHERE purge IS NOT NULL AND purge <= ? ORDER BY purge LIMIT 500")
        let oldOnes = try sequences(old.bind(now))
        for sequence in oldOnes { try delete(sequence) }
        try sql("DELETE FROM unique_key WHERE until <= ?").bind(now).run()
        try sweepForeignResults(now: now)
        try sql("DELETE FROM start_rate WHERE used_until < ?").bind(now - 60_000_000).run()
        // Partitions whose turn was long ago, and who may never come again.
        try sql(
            """
            DELETE FROM partition_turn WHERE turn < (
                SELECT max(newest.turn) FROM partition_turn newest WHERE newest.queue = partition_turn.queue) - 50000
            """
        ).run()
        try sweepValues(now: now)
        try sweepGroups(now: now)
        try sweepWorkflows(now: now)
        try sql(
            "DELETE FROM worker WHERE lease_until = 0 AND seen < ? AND NOT EXISTS (SELECT 1 FROM job WHERE worker = worker.id AND state = 3)"
        )
        .bind(now - 7 * 86_400_000_000).run()
        let trimmed = try trimDeadLetters()
        return lateOnes.count == 500 || oldOnes.count == 500 || trimmed
    }

    private func sequences(_ select: PreparedStatement) throws -> [Int64] {
        var found: [Int64] = []
        while try select.step() { found.append(select.int(0)) }
        return found
    }

    private func trimDeadLetters() throws -> Bool {
        var isFull = false
        let surplus = try sql(
            "SELECT seq FROM job WHERE state = 5 AND line = ? ORDER BY ended DESC, seq DESC LIMIT 500 OFFSET ?")
        for line in try allLines() {
            let found = try sequences(surplus.begin().bind(line).bind(Int64(rules.deadLetterLimit)))
            for sequence in found { try delete(sequence) }
            if found.count == 500 { isFull = true }
        }
        return isFull
    }

    private func allLines() throws -> [Int64] {
        try sequences(try sql("SELECT DISTINCT line FROM job WHERE state = 5"))
    }
}
