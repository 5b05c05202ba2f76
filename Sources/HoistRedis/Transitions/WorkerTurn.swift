import Hoist
import RESP
import Synchronization

extension RedisBackend {
    func turn(_ request: WorkerTurn, of session: RedisSession) async throws -> TurnResult {
        let hasClaims = session.standing.withLock { $0.hasAny(arrivalsSeen: request.arrivalsSeen) }
        let parts = parts(of: request, besideStandingClaims: hasClaims)
        return try await parts.count > 1 ? turn(inParts: parts, of: session) : turnAtOnce(request, of: session)
    }

    /// - Parameter part: its number among several, after which another turn follows; nil when it is a whole.
    func turnAtOnce(_ request: WorkerTurn, of session: RedisSession, part: Int? = nil) async throws -> TurnResult {
        let isFurtherPart = part.map { $0 > 0 } ?? false
        var result = TurnResult()
        var cancelledHere: Set<JobID> = []
        var unpublished: Set<JobID> = []
        if request.withdrawsCredit { try await withdrawClaims(of: session) }
        if let holding = request.holding {
            guard session.standing.withLock({ $0.invalidate(arrivalsSeen: request.arrivalsSeen) }) else {
                throw BackendError(.busy, "a job is on its way to the worker")
            }
            let known = holding.union(request.settlements.map(\.token))
            try await putBackJobs(of: session.id, except: known)
        }
        // First, so that a crash in between closes a queue for nothing and never leaves one open.
        for settlement in request.settlements {
            guard case .snoozed(let date, closesQueue: true) = settlement.outcome, let queue = settlement.facts?.queue
            else { continue }
            try await close(queue: queue, for: .microseconds(date.microsecondsSinceEpoch - now))
        }
        let all = try await steps(for: request.settlements, of: session.id)
        var done = all.filter(\.isPlainlyDone)
        var steps = all.filter { !$0.isPlainlyDone }
        var progress = try await progressSteps(for: request.progress, of: session.id)
        // Before the script: what a job has written is there when its end is known.
        try await storeLogs(of: request)
        var claims = request.claims
        var budget = request.budget
        var takesSuspects = request.takesSuspects && !isFurtherPart
        var rounds = 0
        while true {
            rounds += 1
            var begun: StandingClaims.Begun?
            // What waits on the server tells nobody that a job has begun.
            if request.creditLasts, configuration.clock == nil, !claims.isEmpty, !configuration.storesStarted {
                session.giveUpOverdue()
                begun = session.standing.withLock { $0.begin(arrivalsSeen: request.arrivalsSeen, now: .now) }
                if begun == nil { claims = [] }
            }
            let answer = try await turn(
                worker: session.id, done: done, steps: steps, progress: progress, claims: claims, budget: budget,
                begun: begun, session: session,
                isFurtherPart: isFurtherPart, takesSuspects: takesSuspects)
            if answer.deliveries.contains(where: { !$0.record.isEmpty && $0.lostWorkers > 0 }) { takesSuspects = false }
            result.copies += answer.copies
            // Settled by now: another round is for claims alone.
            let settled = zip(steps, answer.codes)
            result.lost += settled.compactMap { $1 == 0 ? $0.id : nil } + answer.refused
            cancelledHere.formUnion(settled.compactMap { $1 == 2 ? $0.id : nil })
            unpublished.formUnion(settled.compactMap { $1 == 3 ? $0.id : nil })
            if rounds == 1 { noteOutcomes(of: request.settlements, all, except: result.lost + unpublished) }
            (done, steps, progress) = ([], [], [])
            result.cancellations = answer.cancellations
            // By the clock here: the server's may be another.
            result.nextDue = answer.nextDue.map { due in
                JobDate(microsecondsSinceEpoch: due.microsecondsSinceEpoch &- answer.now &+ now)
            }
            result.hasMore = answer.hasMore || claims.isEmpty != request.claims.isEmpty
            let usable = try await settleCounted(
                try await setAside(answer.deliveries, worker: session.id, claims: claims, now: answer.now),
                of: session.id)
            result.deliveries += usable
            if configuration.storesStarted, resultClient != nil {
                for delivery in usable { try await storeStarted(delivery, session) }
            }
            for delivery in usable {
                if let claim = claims.first(where: {
                    $0.queue == delivery.queue && $0.jobNames.contains(delivery.jobName)
                }) {
                    budget.spend(1, on: claim)
                }
            }
            if usable.count < answer.deliveries.count { result.hasMore = true }
            if !claims.isEmpty, part == nil { watch(answer, for: request.creditLasts ? session : nil) }
            guard answer.problem.isEmpty else {
                throw BackendError(
                    .corrupt,
                    "Redis at \(client.configuration.serverDescription) cannot hand out jobs: \(answer.problem)")
            }
            // One of several parts sees to it.
            guard !answer.dead.isEmpty, !isFurtherPart, rounds < 4 else { break }
            for worker in answer.dead { try await takeOver(worker) }
            if !answer.isAlive { break }
            claims = claims.filter { budget.available(to: $0) > 0 }
            if claims.isEmpty { break }
        }
        if !cancelledHere.isEmpty {
            let again = request.settlements.filter { cancelledHere.contains($0.jobID) }
            let steps = try await self.steps(for: again, of: session.id, isCancelled: true)
            let answer = try await turn(worker: session.id, steps: steps)
            result.lost += zip(steps, answer.codes).compactMap { $1 == 0 ? $0.id : nil }
        }
        if !unpublished.isEmpty {
            let failed = request.settlements.filter { unpublished.contains($0.jobID) }.map(\.withoutFollowUps)
            let steps = try await self.steps(for: failed, of: session.id)
            // What a store of its own was told before is no success after all.
            let answer = try await turn(worker: session.id, steps: steps, overwritesResults: true)
            result.lost += zip(steps, answer.codes).compactMap { $1 == 0 ? $0.id : nil }
        }
        return result
    }

    /// Logs have a key each. They are not fenced: of two workers that both believe to have a job, the one that writes
    /// last is read.
    private func storeLogs(of request: WorkerTurn) async throws {
        var commands: [RESPCommand] = []
        func store(_ id: JobID, _ log: JobLog, keptFor retention: Duration?) {
            guard let bytes = try? JSONText.encode(log) else { return }
            let seconds = max(1, (retention ?? configuration.resultRetention ?? .seconds(86_400)).components.seconds)
            commands.append(RESPCommand("SET", [.text(keys.log(id)), .bytes(bytes), "EX", .integer(seconds)]))
        }
        for report in request.logs { store(report.jobID, report.log, keptFor: nil) }
        for settlement in request.settlements {
            guard let log = settlement.log else { continue }
            switch settlement.outcome {
            case .succeeded(_, let retention) where retention == 0:
                commands.append(RESPCommand("DEL", [.text(keys.log(settlement.jobID))]))
            case .succeeded(_, let retention):
                store(settlement.jobID, log, keptFor: retention.map(Duration.init(boundedSeconds:)))
            case .failed: store(settlement.jobID, log, keptFor: configuration.deadLetterRetention)
            default: store(settlement.jobID, log, keptFor: nil)
            }
        }
        if !commands.isEmpty { _ = try await pipeline(commands, doing: "store what jobs have written") }
    }

    // MARK: - Steps

    func steps(for settlements: [Settlement], of worker: WorkerID, isCancelled: Bool = false) async throws
        -> [SettlingStep]
    {
        guard !settlements.isEmpty else { return [] }
        let now = now
        let asked = settlements.filter { isCancelled || !isPlain($0) && $0.encoded == nil }
        let held = try await heldJobs(asked.map(\.jobID), of: worker)
        let name = try await held.isEmpty ? nil : presence(of: worker)?.name
        return settlements.map { settlement in
            if !isCancelled, let step = settlement.encoded as? SettlingStep ?? plainStep(settlement, now: now) {
                return step
            }
            var facts: JobFacts
            if let job = held[settlement.jobID], job.token == settlement.token {
                facts = JobFacts(
                    id: settlement.jobID, held: job, keys: keys, worker: settlement.facts?.worker ?? name, now: now)
                if let known = settlement.facts {
                    facts.children = known.children.map(FollowUps.child)
                    facts.ignoresResult = known.ignoresResult
                }
                // Its result is in another store.
                if settlement.leavesNoRecord { facts.ignoresResult = true }
            } else {
                // Somebody else has it; no delivery has this token.
                return SettlingStep(id: settlement.jobID, token: -1, operation: .done, result: nil, queue: "")
            }
            return step(settlement, facts, isCancelled: isCancelled, now: now)
        }
    }

    /// The step of a job that can be settled without asking what the server keeps of it; nil for any other.
    private func plainStep(_ settlement: Settlement, now: Int64) -> SettlingStep? {
        guard isPlain(settlement), let known = settlement.facts else { return nil }
        if case .succeeded(_, let retention) = settlement.outcome, retention == 0, known.ignoresResult {
            return SettlingStep(id: settlement.jobID, token: settlement.token, operation: .done, result: nil, queue: "")
        }
        let facts = JobFacts(
            known, id: settlement.jobID, startedAt: settlement.startedAt.microsecondsSinceEpoch, now: now)
        return step(settlement, facts, isCancelled: false, now: now)
    }

    func encode(_ settlement: Settlement) -> Settlement {
        guard let step = plainStep(settlement, now: now) else { return settlement }
        var settlement = settlement
        settlement.encoded = step
        // The step says all that is to be known, and memory is given back soonest where it was taken.
        settlement.facts = nil
        return settlement
    }

    struct ProgressStep {
        var report: ProgressReport
        var result: SettlingStep.StoredMeta?
    }

    private func progressSteps(for reports: [ProgressReport], of worker: WorkerID) async throws -> [ProgressStep] {
        guard !reports.isEmpty else { return [] }
        let now = now
        // The messages themselves, which may be large, only of jobs that the worker had not read when they reported.
        let unread = reports.filter { $0.facts == nil }.map(\.jobID)
        let held = try await heldJobs(unread, of: worker)
        let name = try await unread.isEmpty ? nil : presence(of: worker)?.name
        let running = try await heldFacts(reports.map(\.jobID), of: worker)
        return reports.map { report in
            let facts: JobFacts
            if let known = report.facts {
                facts = JobFacts(known, id: report.jobID, startedAt: running[report.jobID]?.began ?? now, now: now)
            } else if let job = held[report.jobID] {
                facts = JobFacts(id: report.jobID, held: job, keys: keys, worker: name, now: now)
            } else {
                return ProgressStep(report: report)
            }
            return ProgressStep(report: report, result: progressMeta(report, facts, now: now))
        }
    }

    /// What a worker knows of its jobs, without their messages.
    func heldFacts(_ ids: [JobID], of worker: WorkerID) async throws -> [JobID: HeldJob] {
        let lines = try await send(
            RESPCommand("HMGET", [.text(keys.own + "held:" + worker + ":info")] + ids.map { .text($0) }),
            doing: "read jobs under way")
        let pairs = zip(ids, lines.elements ?? []).compactMap { id, line in
            line.bytes.flatMap { HeldJob($0, envelope: []) }.map { (id, $0) }
        }
        return Dictionary(pairs) { first, _ in first }
    }

    func heldJobs(_ ids: [JobID], of worker: WorkerID) async throws -> [JobID: HeldJob] {
        guard !ids.isEmpty else { return [:] }
        let held = keys.own + "held:" + worker
        let found = try await pipeline(
            [held + ":info", held].map { RESPCommand("HMGET", [.text($0)] + ids.map { .text($0) }) },
            doing: "read jobs under way")
        var jobs: [JobID: HeldJob] = [:]
        for (id, (information, element)) in zip(ids, zip(found[0].elements ?? [], found[1].elements ?? [])) {
            if let information = information.bytes, let element = element.bytes {
                jobs[id] = HeldJob(information, envelope: element)
            }
        }
        return jobs
    }

    func presence(of worker: WorkerID) async throws -> WorkerPresence? {
        let bytes = try await send(RESPCommand("GET", [.text(keys.own + "worker:" + worker)]), doing: "read a worker")
            .bytes
        return bytes.flatMap { try? JSONText.decode(WorkerPresence.self, from: $0) }
    }

    // MARK: - The script

    /// How many bytes of messages one turn hands out, but for the last of them: an answer must arrive within the
    /// time-out of a command also on a slow link.
    static let turnByteLimit: Int64 = 4 << 20

    struct Answer {
        var isAlive: Bool
        var codes: [Int64]
        var refused: [JobID]
        var cancellations: [JobID]
        var dead: [WorkerID]
        var nextDue: JobDate?
        var hasMore: Bool
        var hasStrangers: Bool
        var emptyLists: [(queue: String, list: String)]
        var deliveries: [RawDelivery]
        /// The time there; all workers share it.
        var now: Int64
        /// Why nothing could be claimed; empty when nothing went wrong.
        var problem: String
        /// Jobs that had succeeded and were in a queue once more: these copies were dropped.
        var copies: [JobID]
        /// Of the claims that wait on the server now; empty for none.
        var standingVersion: String
    }

    /// One element of a queue that a worker has now.
    struct RawDelivery {
        enum Kind { case ready, timed, unreadable, unplaced, dropped, revoked }

        var id: JobID
        var name: String
        var list: String
        var queue: String
        var token: Int64
        var record: [UInt8]
        var retries: Int
        var kind: Kind
        var envelope: [UInt8]

        func notice(_ kind: JobNotice.Kind) -> JobNotice {
            JobNotice(kind, jobID: id, jobName: name, queue: queue, attempt: retries + 1)
        }

        /// How many workers died with it; most records are not looked into.
        var lostWorkers: Int {
            record.isEmpty ? 0 : StoredJob(record)?.lostWorkers ?? 0
        }

        var delivery: Delivery {
            Delivery(
                jobID: id, jobName: name, queue: queue, payload: .envelope(envelope), attempt: retries + 1,
                lostWorkers: lostWorkers,
                token: token)
        }
    }

    func turn(
        worker: WorkerID, isForced: Bool = false, done: [SettlingStep] = [], steps: [SettlingStep] = [],
        progress: [ProgressStep] = [],
        claims: [Claim] = [], budget: ClaimBudget = ClaimBudget(), begun: StandingClaims.Begun? = nil,
        session: RedisSession? = nil,
        isFurtherPart: Bool = false, takesSuspects: Bool = true, overwritesResults: Bool = false
    ) async throws -> Answer {
        let storesApart = resultClient != nil
        let steps = try await concluded(steps, worker: worker)
        if storesApart { try await storeApart(done + steps, progress, worker: worker, overwrites: overwritesResults) }
        let isBegun = configuration.storesStarted && !storesApart && !claims.isEmpty
        var arguments: [RESPArgument] = []
        arguments.reserveCapacity(64 + done.count * 4 + steps.count * 12)
        for place in TurnWire.Argument.allCases {
            switch place {
            case .now: arguments.append(timeArgument)
            case .worker: arguments.append(.text(worker))
            case .brokerDatabase: arguments.append(brokerDatabase)
            case .resultDatabase: arguments.append(.text(resultDatabase))
            case .resultPrefix: arguments.append(.text(keys.results))
            case .scanLimit: arguments.append(.integer(Int64(configuration.scanLimit)))
            case .isForced: arguments.append(isForced ? "1" : "")
            case .claimsNumber: arguments.append(begun.map { .integer($0.number) } ?? (isFurtherPart ? "-" : ""))
            case .claimsEpoch: arguments.append(begun.map { .integer($0.epoch) } ?? "")
            case .knownVersion: arguments.append(begun.map { .text($0.replaced) } ?? "")
            case .byteLimit: arguments.append(.integer(Self.turnByteLimit))
            case .takesSuspects: arguments.append(takesSuspects ? "1" : "")
            case .started: arguments.append(.bytes(isBegun ? startedResult(session) : []))
            case .startedSeconds: arguments.append(.integer(configuration.resultRetention?.components.seconds ?? 0))
            }
        }
        TurnWire.append(done: done, withResults: !storesApart, to: &arguments)
        arguments.append(.integer(Int64(steps.count)))
        for step in steps { TurnWire.append(step, withResult: !storesApart, to: &arguments) }
        arguments.append(.integer(Int64(progress.count)))
        for step in progress { TurnWire.append(step, withResult: !storesApart, to: &arguments) }
        append(claims, budget, to: &arguments)
        let reply = try await run(RedisScripts.workerTurn, arguments, doing: "turn jobs")[0]
        let lists = Self.queues(of: claims).flatMap { queue in keys.lists(queue).map { (queue, $0) } }
        guard let answer = Answer(reply, lists: lists) else { throw unexpected(reply, "turn jobs") }
        for (step, code) in zip(steps, answer.codes) where code == 1 { try await closeGroups(of: step.over) }
        if let begun, let session {
            session.standing.withLock { $0.note(answer.standingVersion, begun, now: .now) }
        }
        // What is on its way is not asked for over and over.
        if answer.standingVersion == "-" { try? await Task.sleep(for: .milliseconds(1)) }
        return answer
    }

    /// What Celery stores of a task that has begun.
    private func startedResult(_ session: RedisSession?) -> [UInt8] {
        JSONWriter.bytes(of: ["pid": .integer(Int64(ProcessIdentity.id)), "hostname": .string(session?.name ?? "")])
    }

    /// The queues of the claims, in their order.
    private static func queues(of claims: [Claim]) -> [String] {
        var queues: [String] = []
        for claim in claims where !queues.contains(claim.queue) { queues.append(claim.queue) }
        return queues
    }

    private func append(_ claims: [Claim], _ budget: ClaimBudget, to arguments: inout [RESPArgument]) {
        let lanes = budget.kinds.keys.sorted()
        let queues = Self.queues(of: claims)
        arguments.append(.integer(Int64(queues.count)))
        for queue in queues {
            let lists = keys.lists(queue)
            // A lane that the budget does not know has no slot.
            let mine = claims.filter { $0.queue == queue && budget.kinds[$0.kind] != nil }
            arguments.append(.text(queue))
            arguments.append(budget.queues[queue].map { .integer(Int64($0)) } ?? "")
            arguments.append(.integer(Int64(lists.count)))
            arguments += lists.map { .text($0) }
            arguments.append(.integer(Int64(mine.reduce(0) { $0 + $1.jobNames.count })))
            for claim in mine {
                let lane = RESPArgument.integer(Int64((lanes.firstIndex(of: claim.kind) ?? 0) + 1))
                for name in claim.jobNames { arguments += [.text(name), lane] }
            }
        }
        if !claims.isEmpty { arguments += lanes.map { .integer(Int64(max(0, budget.kinds[$0] ?? 0))) } }
    }

    /// Results on a server of their own are stored first: a crash between the two repeats the job and never loses its
    /// result.
    private func storeApart(
        _ steps: [SettlingStep], _ progress: [ProgressStep], worker: WorkerID, overwrites: Bool
    ) async throws {
        var stored: [(id: JobID, token: Int64, result: SettlingStep.StoredMeta, isFinal: Bool)] = []
        for step in steps {
            if let result = step.result {
                stored.append((step.id, step.token, result, step.isPlainlyDone || overwrites))
            }
        }
        // The end of a chord comes after those of all its members: a client that sees it looks then why a member failed.
        for step in steps {
            for case .result(let result) in step.followUps { stored.append((step.id, step.token, result, false)) }
        }
        for step in progress {
            if let result = step.result { stored.append((step.report.jobID, step.report.token, result, true)) }
        }
        guard !stored.isEmpty else { return }
        // Of jobs that this worker still holds: what a late one has to say must not cover what came after it.
        let held = try await heldJobs(stored.map(\.id), of: worker)
        for (id, token, result, isFinal) in stored where held[id]?.token == token {
            try await storeApart(result, isFinal: isFinal)
        }
    }

    /// Tells the separate server of results that a job begins.
    private func storeStarted(_ delivery: Delivery, _ session: RedisSession) async throws {
        guard delivery.message?.headers.ignoresResult != true else { return }
        let stored = CeleryResult(id: delivery.jobID, status: "STARTED", result: startedResult(session), hoist: [:])
        let seconds = configuration.resultRetention?.components.seconds ?? 0
        let meta = SettlingStep.StoredMeta(key: keys.result(delivery.jobID), seconds: seconds, value: stored.encoded)
        try await storeApart(meta, isFinal: false)
    }

    func storeApart(_ result: SettlingStep.StoredMeta, isFinal: Bool) async throws {
        guard let resultClient else { return }
        _ = try await call("store a result") {
            if result.isRemoval {
                return [try await resultClient.send(RESPCommand("DEL", [.text(result.key)], key: result.key))]
            }
            return try await resultClient.evaluate(
                RedisScripts.storeResult, keys: [result.key],
                arguments: [.text(result.key), .integer(result.seconds), .bytes(result.value), isFinal ? "1" : ""])
        }
    }

    // MARK: - What must be looked at before it runs

    /// Sets aside what is not to run now: delayed by a producer that is not ours, expired, unreadable, ended by a
    /// limit, or not yet known to belong to whom.
    private func setAside(
        _ deliveries: [RawDelivery], worker: WorkerID, claims: [Claim], now: Int64
    ) async throws -> [Delivery] {
        guard deliveries.contains(where: { $0.kind != .ready }) else { return deliveries.map(\.delivery) }
        var ready: [Delivery] = []
        var steps: [SettlingStep] = []
        var notices: [JobID: JobNotice] = [:]
        for delivery in deliveries {
            switch delivery.kind {
            case .ready: ready.append(delivery.delivery)
            case .timed:
                if let step = stepAside(delivery, now: now) {
                    steps.append(step)
                    if step.endsJob { notices[step.id] = delivery.notice(.expired) }
                } else {
                    ready.append(delivery.delivery)
                }
            case .unreadable: steps.append(stepForUnreadable(delivery, now: now))
            case .unplaced: steps.append(stepToPlace(delivery, claims, now: now))
            case .dropped: steps.append(cancelStep(delivery, failure: .dropped, now: now))
            case .revoked:
                steps.append(cancelStep(delivery, now: now))
                notices[delivery.id] = delivery.notice(.cancelled)
            }
        }
        // The first of those that go back in front is to come out first again.
        steps.reverse()
        if !steps.isEmpty {
            let codes = try await turn(worker: worker, steps: steps).codes
            jobNotices.tell(zip(steps, codes).compactMap { $1 == 1 ? notices[$0.id] : nil })
            // Somebody wanted it cancelled just now.
            let cancelled = zip(steps, codes).compactMap { step, code in
                code == 2 ? deliveries.first { $0.id == step.id }.map { cancelStep($0, now: now) } : nil
            }
            if !cancelled.isEmpty { _ = try await turn(worker: worker, steps: cancelled) }
        }
        return ready
    }

    private func facts(_ delivery: RawDelivery, now: Int64) -> JobFacts {
        let held = HeldJob(
            token: delivery.token, began: 0, list: delivery.list, record: StoredJob(delivery.record),
            envelope: delivery.envelope)
        var facts = JobFacts(id: delivery.id, held: held, keys: keys, worker: nil, now: now)
        facts.startedAt = nil
        return facts
    }

    /// Ends a job that was claimed and has not begun, and with it the rest of its chain.
    private func cancelStep(_ delivery: RawDelivery, failure: JobFailure? = nil, now: Int64) -> SettlingStep {
        let facts = facts(delivery, now: now)
        var step = end(facts, delivery.token, as: .cancelled, failure: failure, at: now, now: now)
        if let message = facts.message {
            let date = JobDate(microsecondsSinceEpoch: now)
            step.follow(FollowUps(of: message, endedAs: .cancelled, nil, now: date), in: self, now: now)
        }
        return step
    }

    private func stepAside(_ delivery: RawDelivery, now: Int64) -> SettlingStep? {
        // What cannot be read fails where it runs, with the reason.
        guard let message = try? Message(envelope: delivery.envelope) else { return nil }
        let facts = facts(delivery, now: now)
        if let expires = message.headers.expires?.microsecondsSinceEpoch, expires <= now {
            var step = end(facts, delivery.token, as: .expired, at: now, now: now)
            let date = JobDate(microsecondsSinceEpoch: now)
            step.follow(FollowUps(of: message, endedAs: .expired, nil, now: date), in: self, now: now)
            return step
        }
        guard let due = message.headers.eta?.microsecondsSinceEpoch, due > now else { return nil }
        var step = back(
            facts, delivery.token, as: message.headers.retries > 0 ? .retrying : .scheduled, due: due, now: now)
        step.isBegun = message.headers.retries > 0
        return step
    }

    /// Writes on a message what its job belongs to, which a limit must know and its producer did not say.
    private func stepToPlace(_ delivery: RawDelivery, _ claims: [Claim], now: Int64) -> SettlingStep {
        let claim = claims.first { $0.queue == delivery.queue && $0.jobNames.contains(delivery.name) }
        return stepBack(delivery, now: now) { message in
            message.headers.hoist.partition = claim?.partition?(message) ?? ""
        }
    }

    /// A message that looked unreadable may be readable after all, for instance one of protocol 1: it goes back in the
    /// form that the script reads.
    private func stepForUnreadable(_ delivery: RawDelivery, now: Int64) -> SettlingStep {
        stepBack(delivery, now: now) { _ in }
    }

    /// Back in front of its queue, in another form; a dead letter when it cannot be read.
    private func stepBack(_ delivery: RawDelivery, now: Int64, _ change: (inout Message) -> Void) -> SettlingStep {
        var facts = facts(delivery, now: now)
        do throws(WireError) {
            var message = try Message(envelope: delivery.envelope)
            change(&message)
            if message.queue.isEmpty { message.queue = delivery.queue }
            facts.message = message
            facts.headers = message.headers
            facts.record = StoredJob(message, state: .waiting, now: now)
            var step = back(facts, delivery.token, as: .waiting, due: nil, inFront: true, now: now)
            if case .back(let list, let due, let inFront, let record, _) = step.operation {
                step.operation = .back(
                    list: list, due: due, inFront: inFront, record: record, envelope: message.encodedEnvelope())
            }
            return step
        } catch {
            let failure = JobFailure(kind: .undecodable, type: "WireError", message: error.message)
            facts.record.name = "(unreadable)"
            facts.ignoresResult = true
            var step = end(facts, delivery.token, as: .failed, failure: failure, at: now, now: now)
            // Whoever sent it may wait for it under an id that can be made out.
            if let id = Message.callersID(in: delivery.envelope) {
                var record = JobRecord(
                    id: id, name: "(unreadable)", queue: delivery.queue, state: .failed, revision: now)
                record.failure = failure
                record.endedAt = JobDate(microsecondsSinceEpoch: now)
                step.followUps.append(.result(meta(ResultWrite(record, kept: .standard), now: now)))
            }
            return step
        }
    }
}

extension Settlement {
    /// The same end of a job whose next step could not be published: the job has failed, and nothing follows.
    fileprivate var withoutFollowUps: Settlement {
        let queues = Set(followUps?.messages.map(\.queue) ?? []).sorted().joined(separator: ", ")
        var failed = self
        failed.outcome = .failed(
            JobFailure(
                kind: .notEncodable, type: "BackendError",
                message: "what follows the job cannot be published: the key of the queue \(queues) holds no list"))
        // None, which is not the same as unknown: they would be made again from the message.
        failed.followUps = FollowUps()
        failed.encoded = nil
        return failed
    }
}
