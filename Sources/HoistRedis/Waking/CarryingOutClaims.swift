import Hoist
import RESP
import Synchronization

/// Claims that found too little, and wait on the server for jobs to come.
extension RedisBackend {
    /// Has Redis wake this process when one of the lists gets something: with the job itself, where the claims of
    /// `worker` wait.
    func watch(_ answer: Answer, for session: RedisSession?) {
        if let session, session.standing.withLock({ $0.isOver }) { return }
        for (queue, list) in answer.emptyLists { watcher.arm(list, for: session.map { claimant($0, queue, list) }) }
        // Other workers may take the jobs in front and leave one for this worker: nobody rings then.
        if answer.hasStrangers, !answer.hasMore {
            watcher.lookAgainLater(clock: clock)
        } else {
            watcher.foundNoStrangers()
        }
    }

    /// Has the server know the script that is sent behind blocking commands.
    func prepareToTake() async throws {
        _ = try await call("load a script") { try await client.load(RedisScripts.claimStanding, key: keys.own) }
    }

    private func claimant(_ session: RedisSession, _ queue: String, _ list: String) -> ListWatcher.Claimant {
        let (keys, fixed) = ([keys.own], [RESPArgument.text(session.id), .text(queue), .text(list)])
        return ListWatcher.Claimant(
            worker: session.id,
            claim: { [weak session] in
                guard let epoch = session?.standing.withLock({ $0.epoch }) else { return nil }
                return RedisScripts.claimStanding.call(keys: keys, arguments: fixed + [.integer(epoch)])
            },
            answered: { [weak self, weak session] reply in
                guard let self, let session else { return .ring }
                return received(reply, session, queue)
            },
            lost: { [weak session] in session?.lostAnswer() })
    }

    /// Takes in what claim_standing.lua has handed out.
    private func received(_ reply: RESPValue, _ session: RedisSession, _ queue: String) -> ListWatcher.Verdict {
        if reply == .integer(1) { return .again }
        // The server has been started again.
        if case .error(let error) = reply, error.code == "NOSCRIPT" { beside { try await $0.prepareToTake() } }
        // It is not as simple as that.
        guard let parts = reply.elements else { return .ring }
        guard parts.count == 7, let moment = parts[0].text.flatMap(StandingClaims.Moment.init),
            let version = parts[1].text,
            let token = parts[2].integer, let id = parts[3].text, let name = parts[4].text,
            let envelope = parts[5].bytes
        else {
            session.failed(unexpected(reply, "take what was claimed"))
            return .ring
        }
        let isListEmpty = parts[6].integer == 0
        guard let isValid = session.standing.withLock({ $0.claimed(moment, nowWaiting: version) }) else { return .ring }
        var result = TurnResult()
        if isValid {
            let delivery = Delivery(
                jobID: id, jobName: name, queue: queue, payload: .envelope(envelope), attempt: 1, lostWorkers: 0,
                token: token)
            result.deliveries = [delivery]
        }
        // Claims that do not wait any more have used up their slots, of which some may be free again.
        result.hasMore = version.isEmpty || !isListEmpty
        session.sink.arrived(result)
        return isListEmpty ? .again : .taken
    }

    /// Takes back the claims of a worker that wait here. What they have brought by then has been delivered when this
    /// returns.
    func withdrawClaims(of session: RedisSession) async throws {
        guard let withdrawn = session.standing.withLock({ $0.withdraw() }) else { return }
        let key = keys.own + "standing:" + session.id
        let waiting = try await send(RESPCommand("GETDEL", [.text(key)]), doing: "take claims back").text ?? ""
        guard !withdrawn.version.isEmpty, !waiting.hasPrefix(withdrawn.version + "\n") else { return }
        // They have been carried out a moment ago.
        let deadline = ContinuousClock.now + StandingClaims.patience
        while !session.standing.withLock({ $0.hasDelivered(since: withdrawn) }), .now < deadline {
            try await Task.sleep(for: .milliseconds(2))
        }
        if !session.standing.withLock({ $0.hasDelivered(since: withdrawn) }) { session.lostAnswer() }
    }

    /// This worker takes nothing any more.
    func stopClaiming(_ session: RedisSession) {
        session.standing.withLock { $0.end() }
        watcher.drop(session.id)
    }
}
