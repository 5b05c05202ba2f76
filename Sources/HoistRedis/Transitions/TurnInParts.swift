import Hoist

extension RedisBackend {
    /// A large turn goes to the server in parts, one behind the other on the same connection: it carries out one of
    /// them while this side writes the next and reads what the one before has brought. Otherwise each would wait for
    /// the other.
    ///
    /// Where one of them fails the turn fails, and what the others brought is put right as after any answer that got
    /// lost, see ``WorkerTurn/holding``.
    func turn(inParts parts: [WorkerTurn], of session: RedisSession) async throws -> TurnResult {
        let results = try await withThrowingTaskGroup(of: (Int, TurnResult).self) { group in
            for (index, part) in parts.enumerated() {
                group.addTask(executorPreference: thread) {
                    (index, try await self.turnAtOnce(part, of: session, part: index))
                }
                // It is written, and on its way, before the next one is begun: nothing that a part does asks the server
                // first.
                await Task.yield()
            }
            return try await group.reduce(into: [TurnResult?](repeating: nil, count: parts.count)) { $0[$1.0] = $1.1 }
        }
        var whole = TurnResult()
        for result in results.compactMap(\.self) {
            whole.deliveries += result.deliveries
            whole.lost += result.lost
            whole.copies += result.copies
            whole.cancellations = result.cancellations
            whole.nextDue = result.nextDue ?? whole.nextDue
        }
        // None of them left claims that wait, nor has anybody watch the lists: the next turn does when there is no
        // more.
        whole.hasMore = true
        return whole
    }

    /// - Returns: one part, the request itself, when that is small or has to do more than store outputs and claim.
    func parts(of request: WorkerTurn, besideStandingClaims: Bool) -> [WorkerTurn] {
        let count = min(4, request.settlements.count / 32)
        // Whatever else there is to do asks the server first, and what comes behind must see what it has done. Claims
        // that wait are taken back by those that take their place, and there must be one turn that does both.
        guard count > 1, resultClient == nil, request.holding == nil, request.progress.isEmpty, request.logs.isEmpty,
            request.settlements.allSatisfy({ $0.encoded != nil && $0.log == nil }), !request.withdrawsCredit,
            !besideStandingClaims
        else { return [request] }
        return (0..<count).map { number in
            func share(_ total: Int) -> Range<Int> { total * number / count..<total * (number + 1) / count }
            var part = WorkerTurn(
                settlements: Array(request.settlements[share(request.settlements.count)]))
            part.claims = request.claims
            part.takesSuspects = request.takesSuspects
            part.budget.kinds = request.budget.kinds.mapValues { share(max(0, $0)).count }
            part.budget.queues = request.budget.queues.mapValues { share(max(0, $0)).count }
            return part
        }
    }
}
