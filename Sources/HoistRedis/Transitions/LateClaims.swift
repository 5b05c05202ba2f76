import Hoist
import RESP

/// Claims that found too little, and wait on the server for jobs to come.
extension RedisBackend {
    /// Has Redis wake this process when one of the lists gets something: with the job itself, where the claims of `worker` wait.
    func watch(_ answer: Answer, for worker: WorkerID?) {
        watcher.arm(answer.emptyLists, for: worker.map(claimant))
        // Others may take what is there and leave room for ours behind it: nobody rings then.
        if answer.hasStrangers, !answer.hasMore { watcher.lookAgainLater(clock: clock) } else { watcher.foundNoStrangers() }
    }

    private func claimant(_ worker: WorkerID) -> ListWatcher.Claimant {
        let call = exchangeArguments(worker: worker, mode: "w") + ["", ""]
        let keys = [keys.own]
        return ListWatcher.Claimant(
            worker: worker, claim: { RedisScripts.exchange.call(keys: keys, arguments: call) },
            answered: { [weak self] in self?.received($0, worker) ?? .ring },
            lost: { [standing] in
                standing.fail(worker, BackendError(.unavailable, "the answer to a claim got lost", isRetrySafe: false))
            })
    }

    /// Takes what claims have brought that waited.
    private func received(_ reply: RESPValue, _ worker: WorkerID) -> ListWatcher.Verdict {
        if reply == .integer(1) { return .nothing }
        // Nothing waits, or the script is not there.
        guard let parts = reply.elements, let moment = parts.last?.text.flatMap(StandingClaims.Moment.init) else { return .ring }
        let version = parts.dropLast().last?.text ?? ""
        guard let claimed = standing.claimed(moment, of: worker, nowWaiting: version),
            let answer = Answer(reply, lists: lists(of: claimed.claims))
        else {
            standing.fail(worker, unexpected(reply, "take what was claimed"))
            return .ring
        }
        var result = ExchangeResult(cancellations: answer.cancellations, nextDue: answer.nextDue.map { dueHere($0, answer) })
        // Claims that do not wait any more have used up their slots, of which some may be free again. Apart from that the next exchange takes
        // over what a dead worker has, and says what went wrong.
        result.hasMore = version.isEmpty || !answer.dead.isEmpty
        let deliveries = claimed.isValid ? answer.deliveries : []
        if deliveries.allSatisfy({ $0.kind == .ready }) {
            result.deliveries = deliveries.map(\.delivery)
            claimed.deliver(.success(result))
        } else {
            let found = result
            Task(executorPreference: executor) {
                do {
                    var result = found
                    result.deliveries = try await self.setAside(deliveries, worker: worker, claims: claimed.claims, now: answer.now)
                    result.hasMore = true
                    claimed.deliver(.success(result))
                } catch {
                    claimed.deliver(.failure(error))
                }
            }
        }
        // After the worker has begun what came.
        client.schedule(after: .zero) { [weak self] in self?.watch(answer, for: worker) }
        return .taken
    }

    /// A time of the server's, by the clock here, which may be another.
    func dueHere(_ due: JobDate, _ answer: Answer) -> JobDate {
        JobDate(microsecondsSinceEpoch: due.microsecondsSinceEpoch - answer.now + now)
    }

    /// This worker takes nothing any more.
    func stopClaiming(_ worker: WorkerID) {
        standing.forget(worker)
        watcher.drop(worker)
    }
}
