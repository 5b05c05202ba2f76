#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// What limits have counted in memory.
struct MemoryCounts: StartCounts, Sendable {
    private struct Permit {
        var number: Int64
        var keepsPlace: Bool
    }

    private var permits: [String: [JobID: Permit]] = [:]
    private var scopesOfJob: [JobID: Set<String>] = [:]
    private var rates: [String: Int64] = [:]
    private var turns: [String: Int64] = [:]
    private var last: Int64 = 0

    func running(_ scope: String) -> Int { permits[scope]?.count ?? 0 }
    func isCounted(_ job: JobID, _ scope: String) -> Bool { permits[scope]?[job] != nil }
    func oldest(_ scope: String) -> JobID? { permits[scope]?.min { $0.value.number < $1.value.number }?.key }
    func rateUsed(until scope: String) -> Int64 { rates[scope] ?? 0 }
    func turn(_ partition: String) -> Int64 { turns[partition] ?? 0 }

    mutating func tookTurn(_ partition: String) {
        last += 1
        turns[partition] = last
        // Partitions that come and go must not accumulate.
        if turns.count > 100_000 { turns = turns.filter { $0.value > last - 50_000 } }
    }

    mutating func started(_ job: JobID, _ scopes: [StartRules.Scope], cost: Int, now: Int64) {
        for scope in scopes {
            if let until = StartRules.used(scope.limit, until: rateUsed(until: scope.id), cost: cost, now: now) {
                rates[scope.id] = until
                if rates.count > 100_000 { rates = rates.filter { $0.value > now } }
            } else {
                last += 1
                let number = permits[scope.id]?[job]?.number ?? last
                permits[scope.id, default: [:]][job] = Permit(number: number, keepsPlace: scope.keepsPlace)
                scopesOfJob[job, default: []].insert(scope.id)
            }
        }
    }

    mutating func gaveBack(_ scopes: [StartRules.Scope], cost: Int) {
        for scope in scopes {
            guard let until = rates[scope.id] else { continue }
            rates[scope.id] = StartRules.given(back: scope.limit, until: until, cost: cost)
        }
    }

    /// - Returns: whether anything was counted.
    mutating func released(_ job: JobID, goesBack: Bool) -> Bool {
        guard let scopes = scopesOfJob[job] else { return false }
        var kept: Set<String> = []
        for scope in scopes {
            if goesBack, permits[scope]?[job]?.keepsPlace == true {
                kept.insert(scope)
            } else {
                permits[scope]?[job] = nil
                if permits[scope]?.isEmpty == true { permits[scope] = nil }
            }
        }
        scopesOfJob[job] = kept.isEmpty ? nil : kept
        return kept.count < scopes.count
    }
}

extension MemoryStore {
    /// The limits in force.
    var startRules: StartRules {
        StartRules(declaredLimits.merging(setLimits) { _, set in set }, aliases: limitAliases)
    }

    /// The jobs among `ready` that a worker may have, as many as it has room for, in their order.
    mutating func admit(
        _ ready: [Job], _ claim: Claim, limit: Int, worker: WorkerID, takesSuspects: inout Bool,
        into result: inout TurnResult, now: Date
    ) -> [Job] {
        let (rules, time) = (startRules, now.microsecondsSinceEpoch)
        func turn(_ partition: String) -> String { claim.queue + "\n" + partition }
        var partitions: [JobID: String] = [:]
        for job in ready where rules.asksForPartition(queue: claim.queue, name: job.record.name) {
            partitions[job.record.id] = job.message.headers.hoist.partition ?? claim.partition?(job.message) ?? ""
        }
        let arranged = StartRules.inTurns(
            ready,
            partition: { job in
                rules.takesTurns(queue: claim.queue, name: job.record.name) ? partitions[job.record.id] : nil
            }, lastTurn: { startCounts.turn(turn($0)) })
        var admitted: [Job] = []
        for job in arranged {
            if admitted.count >= limit { break }
            let (id, name) = (job.record.id, job.record.name)
            // Of the jobs whose worker has died one at a time.
            if job.record.lostWorkers > 0, !takesSuspects { continue }
            let partition = partitions[id] ?? ""
            let scopes = rules.scopes(queue: claim.queue, name: name, partition: partition, worker: worker)
            let cost = job.message.headers.hoist.cost ?? 1
            let verdict = rules.verdict(
                on: id, scopes, cost: cost, now: time,
                newer: { scope in
                    ready.count {
                        $0.sequence > job.sequence
                            && rules.scopes(
                                queue: claim.queue, name: $0.record.name, partition: partitions[$0.record.id] ?? "",
                                worker: worker
                            ).contains(scope)
                    }
                }, startCounts)
            switch verdict {
            case .starts:
                if isBehindOthers(job, partition, scopes, claim) { continue }
                if job.record.lostWorkers > 0 { takesSuspects = false }
                if job.message.headers.hoist.partition == nil, !partition.isEmpty {
                    jobs[id]?.message.headers.hoist.partition = partition
                }
                startCounts.started(id, scopes, cost: cost, now: time)
                startCounts.tookTurn(turn(partition))
                admitted.append(job)
            case .waits(let until?):
                let date = Date(microsecondsSinceEpoch: until)
                result.nextDue = min(result.nextDue ?? date, date)
            case .waits(nil): continue
            case .waitsForEnd(let oldest): askToStop(oldest)
            case .drops:
                drop(id, now: now)
                result.hasMore = true
            }
        }
        return admitted
    }

    /// Whether a job of another kind comes before in an ordered queue: this worker may not even know its kind.
    private func isBehindOthers(_ job: Job, _ partition: String, _ scopes: [StartRules.Scope], _ claim: Claim) -> Bool {
        let isOrdered = scopes.contains { $0.keepsPlace && $0.target.kind == .queue }
        guard isOrdered, !scopes.contains(where: { startCounts.isCounted(job.record.id, $0.id) }) else { return false }
        return jobs.values.contains { other in
            other.record.state == .waiting && other.record.queue == claim.queue
                && !claim.jobNames.contains(other.record.name) && other.message.headers.hoist.partition == partition
                && (job.record.priority, other.sequence) < (other.record.priority, job.sequence)
        }
    }

    /// Where only the newest job counts, the oldest that runs is asked to stop as a newer one comes.
    mutating func stopOlder(for message: Message) {
        let (rules, name) = (startRules, message.jobName)
        guard rules.replacesOld(queue: message.queue, name: name), message.headers.eta == nil else { return }
        let partition = message.headers.hoist.partition ?? ""
        for scope in rules.scopes(queue: message.queue, name: name, partition: partition, worker: "") {
            guard case .running(let most, .cancelOld) = scope.limit.kind, startCounts.running(scope.id) >= most else {
                continue
            }
            if let oldest = startCounts.oldest(scope.id) { askToStop(oldest) }
        }
    }
}
