import Hoist

extension BackendContract {
    static let followUps: [Check] = [
        Check("what follows from a job is there when the job has ended, and in its queue") { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("w", lease: .seconds(1000))
            let delivery = try await bench.claim("w")[0]
            try await bench.settle("w", delivery, .succeeded(output: Array("1".utf8), retention: nil), bench.next("b"))
            try bench.expect(try await bench.state("a") == .succeeded, "the job has ended")
            try bench.expect(try await bench.state("b") == .waiting, "the next one waits")
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["b"], "and is delivered")
        },
        Check("a refused settlement starts nothing", needs: [.fencing, .leases]) { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("slow")
            try await bench.join("other", lease: .seconds(1000))
            let stale = try await bench.claim("slow")[0]
            try bench.advance(by: .seconds(11))
            _ = try await bench.claim("other")
            let outcome = Outcome.succeeded(output: Array("1".utf8), retention: nil)
            let result = try await bench.settle("slow", stale, outcome, bench.next("b"))
            try bench.expect(result.lost == ["a"], "refused")
            try bench.expect(try await bench.backend.record(of: "b") == nil, "and nothing follows")
        },
        Check("a job that waits already is not started again", needs: [.knownIDs]) { bench in
            try await bench.publish(bench.message("a"), bench.message("b"))
            try await bench.join("w", lease: .seconds(1000))
            let first = try await bench.claim("w", 1)
            try await bench.settle(
                "w", first[0], .succeeded(output: Array("1".utf8), retention: nil), bench.next("b"))
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["b"], "it comes once")
        },
        Check("a job that has succeeded already is not started again", needs: [.knownIDs, .storesResults]) { bench in
            try await bench.publish(bench.message("a"), bench.message("b"))
            try await bench.join("w", lease: .seconds(1000))
            let deliveries = try await bench.claim("w")
            let outcome = Outcome.succeeded(output: Array("1".utf8), retention: nil)
            try await bench.settle("w", deliveries[0], outcome)
            try await bench.settle("w", deliveries[1], outcome, bench.next("a"))
            try bench.expect(try await bench.claim("w").isEmpty, "it is known to have ended")
        },
        Check("a later job may follow", needs: [.delays]) { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("w", lease: .seconds(1000))
            let delivery = try await bench.claim("w")[0]
            var next = bench.next("b")
            next.messages[0].headers.eta = bench.after(30)
            try await bench.settle("w", delivery, .succeeded(output: Array("1".utf8), retention: 0), next)
            try bench.expect(try await bench.state("b") == .scheduled, "it is due later")
            try bench.expect(try await bench.claim("w").isEmpty, "not yet")
            try bench.advance(by: .seconds(31))
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["b"], "now")
        },
        Check("jobs that will never be published end with the one that failed, and a success stays") { bench in
            try await bench.publish(bench.message("a"), bench.message("done"))
            try await bench.join("w", lease: .seconds(1000))
            let deliveries = try await bench.claim("w")
            try await bench.settle("w", deliveries[1], .succeeded(output: Array("1".utf8), retention: nil))
            let failure = JobFailure(kind: .raised, type: "Oops", message: "it broke")
            var followUps = FollowUps()
            followUps.ends = ["rest", "done"].map { id in
                var record = JobRecord(id: id, name: "job", queue: "", state: .failed, endedAt: bench.now)
                record.failure = failure
                return ResultWrite(record, kept: .standard)
            }
            try await bench.settle("w", deliveries[0], .failed(failure), followUps)
            let rest = try await bench.record("rest")
            try bench.expect(rest.state == .failed && rest.failure?.message == "it broke", "failed with it: \(rest)")
            try bench.expect(try await bench.state("done") == .succeeded, "a success is not written over")
            try bench.expect(try await bench.backend.forget("rest"), "it can be forgotten")
            try bench.expect(try await bench.backend.record(of: "rest") == nil, "and is gone")
        },
        Check("an errback that the worker names runs once, and not again by the message") { bench in
            let errback: WireValue = [
                "task": "rescue", "args": [], "kwargs": [:], "options": ["queue": "default"], "subtask_type": nil,
            ]
            try await bench.publish(
                bench.message("a") { message in
                    message.body = MessageBody(arguments: Arguments(), embed: ["errbacks": [errback]]).encoded()
                })
            try await bench.join("w", names: ["job", "rescue"], lease: .seconds(1000))
            let delivery = try await bench.claim("w")[0]
            var next = bench.next("b")
            next.messages[0].headers.task = "rescue"
            let failure = JobFailure(kind: .raised, type: "Oops", message: "it broke")
            try await bench.settle("w", delivery, .failed(failure), next)
            let rescues = try await bench.claim("w", names: ["job", "rescue"])
            try bench.expect(rescues.map(\.jobID) == ["b"], "once: \(rescues.map(\.jobID))")
        },
        Check(
            "the rest of a chain ends with a step that is cancelled or expires while it waits", needs: [.cancellation]
        ) {
            bench in
            try await bench.publish(firstOfTwo(bench))
            try bench.expect(try await bench.backend.cancel("a") == .cancelled, "it waits")
            try bench.expect(try await bench.state("next") == .cancelled, "and so is the rest")
        },
        Check("the rest of a chain ends with a step that is cancelled in place of a retry", needs: [.cancellation]) {
            bench in
            try await bench.publish(firstOfTwo(bench))
            try await bench.join("w", lease: .seconds(1000))
            let delivery = try await bench.claim("w")[0]
            _ = try await bench.backend.cancel("a")
            let failure = JobFailure(kind: .raised, type: "Oops", message: "it broke")
            try await bench.settle("w", delivery, .retry(at: bench.after(30), failure))
            try bench.expect(try await bench.state("a") == .cancelled, "it was asked for")
            try bench.expect(try await bench.state("next") == .cancelled, "and the rest ends with it")
        },
        Check("errbacks run also for a job that was given up because its worker died", needs: [.leases]) { bench in
            let errback: WireValue = [
                "task": "rescue", "args": [], "kwargs": [:], "options": ["queue": "default"], "subtask_type": nil,
            ]
            let step: WireValue = [
                "task": "job", "args": [], "kwargs": [:], "options": ["task_id": "next"], "subtask_type": nil,
            ]
            try await bench.publish(
                bench.message("a") { message in
                    message.headers.hoist.isAtMostOnce = true
                    let body = MessageBody(arguments: Arguments(), embed: ["errbacks": [errback], "chain": [step]])
                    message.body = body.encoded()
                })
            try await bench.join("dead")
            _ = try await bench.claim("dead")
            try bench.advance(by: .seconds(11))
            try await bench.join("w", names: ["job", "rescue"])
            let rescue = try await bench.claim("w", names: ["job", "rescue"])
            try bench.expect(rescue.map(\.jobName) == ["rescue"], "the errback is there: \(rescue.map(\.jobName))")
            try bench.expect(try await bench.state("a") == .failed, "the job is given up")
            try bench.expect(try await bench.state("next") == .failed, "and what follows it")
        },
    ]
}

extension ContractBench {
    /// One more job behind another.
    func next(_ id: JobID) -> FollowUps {
        var followUps = FollowUps()
        followUps.messages = [message(id)]
        return followUps
    }

    @discardableResult
    func settle(
        _ worker: WorkerID, _ delivery: Delivery, _ outcome: Outcome, _ followUps: FollowUps
    ) async throws -> TurnResult {
        var settlement = settlement(delivery, outcome)
        settlement.followUps = followUps
        return try await settle(worker, settlement)
    }
}

/// The message of the job `a`, the first step of a chain whose second is `next`.
private func firstOfTwo(_ bench: ContractBench) -> Message {
    let next: WireValue = [
        "task": "job", "args": [], "kwargs": [:], "options": ["task_id": "next"], "subtask_type": nil,
    ]
    return bench.message("a") { message in
        message.body = MessageBody(arguments: Arguments(), embed: ["chain": [next]]).encoded()
    }
}
