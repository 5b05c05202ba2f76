import Hoist

extension BackendContract {
    static let leases: [Check] = [
        Check("a job comes back when the lease of its worker ends, and the death is counted") { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("dead")
            try await bench.join("alive", lease: .seconds(1000))
            let first = try await bench.claim("dead")[0]
            try bench.advance(by: .seconds(11))
            let again = try await bench.claim("alive")
            try bench.expect(again.count == 1 && again[0].jobID == "a", "it is delivered again")
            try bench.expect(again[0].attempt == 1 && again[0].lostWorkers == 1, "no attempt spent, one worker lost")
            try bench.expect(again[0].token != first.token, "another delivery")
            try bench.expect(try await bench.record("a").history.map(\.outcome) == ["worker lost"], "history tells")
        },
        Check("a worker that renews keeps its jobs for ever") { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("w")
            try await bench.join("other", lease: .seconds(100_000))
            _ = try await bench.claim("w")
            for _ in 0..<20 {
                try bench.advance(by: .seconds(9))
                try bench.expect(try await bench.renews("w"), "the lease is renewed")
                try bench.expect(try await bench.claim("other").isEmpty, "nobody else gets the job")
            }
        },
        Check("a late finish by a worker that lost its lease is refused", needs: [.fencing]) { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("slow")
            try await bench.join("next", lease: .seconds(1000))
            let stale = try await bench.claim("slow")[0]
            try bench.advance(by: .seconds(11))
            let fresh = try await bench.claim("next")[0]
            let late = try await bench.settle("slow", stale, .succeeded(output: Array("\"late\"".utf8), retention: nil))
            try bench.expect(late.lost == ["a"], "the finish is refused")
            try bench.expect(try await !bench.renews("slow"), "the lost lease cannot be renewed")
            try bench.expect(try await bench.state("a") == .running, "the new worker is not disturbed")
            let finish = try await bench.settle(
                "next", fresh, .succeeded(output: Array("\"good\"".utf8), retention: nil))
            try bench.expect(finish.lost.isEmpty, "its finish counts")
            try bench.expect(try await bench.record("a").output == "good", "and its output")
        },
        Check("late progress is refused as well", needs: [.fencing]) { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("slow")
            let stale = try await bench.claim("slow")[0]
            try bench.advance(by: .seconds(11))
            let result = try await bench.sessions.turn(
                "slow",
                WorkerTurn(progress: [
                    ProgressReport(jobID: "a", token: stale.token, progress: JobProgress(fraction: 0.5))
                ]))
            try bench.expect(result.lost == ["a"], "refused")
        },
        Check("a finish is accepted once", needs: [.fencing]) { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("w")
            let delivery = try await bench.claim("w")[0]
            try bench.expect(
                try await bench.settle("w", delivery, .succeeded(output: Array("1".utf8), retention: nil)).lost.isEmpty,
                "the first counts")
            try bench.expect(try await bench.settle("w", delivery, .cancelled).lost == ["a"], "the second is refused")
            try bench.expect(try await bench.state("a") == .succeeded, "nothing has changed")
        },
        Check("a job that kills worker after worker becomes a dead letter, never a loop") { bench in
            try await bench.publish(bench.message("a"))
            for round in 1...3 {
                try await bench.join("w\(round)")
                try bench.expect(try await bench.claim("w\(round)").count == 1, "round \(round): delivered")
                try bench.advance(by: .seconds(11))
            }
            try await bench.join("last")
            try bench.expect(try await bench.claim("last").isEmpty, "not a fourth time")
            let record = try await bench.record("a")
            try bench.expect(
                record.state == .failed && record.failure?.kind == .workerLost, "a dead letter: \(record.state)")
            try bench.expect(record.history.count == 3, "with its history")
        },
        Check(
            "of the jobs whose worker died a worker has one at a time, so that the one that kills workers kills no other job",
            needs: [.fencing, .selectsByName]
        ) { bench in
            try await bench.publish(bench.message("a"), bench.message("b"), bench.message("c"))
            try await bench.join("dead")
            _ = try await bench.claim("dead")
            try await bench.publish(bench.message("new"))
            try bench.advance(by: .seconds(11))
            try await bench.join("w")
            var order: [JobID] = []
            for round in 1...3 {
                let deliveries = try await bench.claim("w")
                let suspects = deliveries.filter { $0.lostWorkers > 0 }
                try bench.expect(suspects.count == 1, "round \(round): one of them, not \(suspects.count)")
                order += deliveries.map(\.jobID)
                var besides = WorkerTurn(
                    claims: [Claim(queue: "default", kind: "async", jobNames: ["job"])],
                    budget: ClaimBudget(kinds: ["async": 10]))
                besides.takesSuspects = false
                let more = try await bench.sessions.turn("w", besides).deliveries
                try bench.expect(more.isEmpty, "none while it has one: \(more.map(\.jobID))")
                for delivery in deliveries {
                    try await bench.settle("w", delivery, .succeeded(output: Array("1".utf8), retention: nil))
                }
            }
            try bench.expect(Set(order) == ["a", "b", "c", "new"] && order.count == 4, "all run: \(order)")
        },
        Check("an at-most-once job is not run again after its worker died") { bench in
            try await bench.publish(bench.message("a") { $0.headers.hoist.isAtMostOnce = true })
            try await bench.join("dead")
            _ = try await bench.claim("dead")
            try bench.advance(by: .seconds(11))
            try await bench.join("w")
            try bench.expect(try await bench.claim("w").isEmpty, "not delivered again")
            try bench.expect(try await bench.state("a") == .failed, "a dead letter instead")
        },
        Check("a worker that resigns gives its jobs back at once, with no attempt or death counted") { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("going")
            _ = try await bench.claim("going")
            try await bench.sessions.leave("going")
            try await bench.join("w")
            let again = try await bench.claim("w")
            try bench.expect(
                again.count == 1 && again[0].attempt == 1 && again[0].lostWorkers == 0, "as if nothing had been")
            try bench.expect(try await bench.backend.workers().map(\.id) == ["w"], "it is off the list")
        },
        Check("jobs that a worker never heard of go back when it says what it holds") { bench in
            try await bench.publish(bench.message("a"), bench.message("b"))
            try await bench.join("w")
            let deliveries = try await bench.claim("w")
            var request = WorkerTurn()
            request.holding = [deliveries[0].token]
            _ = try await bench.sessions.turn("w", request)
            let states = try await [bench.state("a"), bench.state("b")]
            try bench.expect(states == [.running, .waiting], "b is ready again: \(states)")
        },
        Check("an at-most-once job that its worker hands back is not run again") { bench in
            try await bench.publish(
                bench.message("a") { $0.headers.hoist.isAtMostOnce = true },
                bench.message("b") { $0.headers.hoist.isAtMostOnce = true })
            try await bench.join("w")
            let deliveries = try await bench.claim("w")
            try await bench.settle("w", deliveries[0], .handedBack)
            try await bench.sessions.leave("w")
            let states = try await [bench.state("a"), bench.state("b")]
            try bench.expect(states == [.failed, .failed], "dead letters: \(states)")
        },
        Check("a job that its worker never heard of goes back untouched, also one that may begin only once") { bench in
            try await bench.publish(bench.message("a") { $0.headers.hoist.isAtMostOnce = true })
            try await bench.join("w")
            _ = try await bench.claim("w")
            var request = WorkerTurn()
            request.holding = []
            _ = try await bench.sessions.turn("w", request)
            let record = try await bench.record("a")
            try bench.expect(record.state == .waiting && record.history.isEmpty, "untouched: \(record)")
            try bench.expect(try await bench.claim("w").first?.attempt == 1, "its first attempt")
        },
        Check("a job that its worker hands back after a cancellation is cancelled, also one that may begin only once") {
            bench in
            for (id, isAtMostOnce) in [("a", false), ("b", true)] {
                try await bench.publish(bench.message(id) { $0.headers.hoist.isAtMostOnce = isAtMostOnce })
            }
            try await bench.join("w")
            let deliveries = try await bench.claim("w")
            for delivery in deliveries {
                try bench.expect(try await bench.backend.cancel(delivery.jobID) == .requested, "it runs")
                try await bench.settle("w", delivery, .handedBack)
                let state = try await bench.state(delivery.jobID)
                try bench.expect(state == .cancelled, "\(delivery.jobID) is cancelled: \(state)")
            }
        },
        Check("a live worker hears of a job that was given up because its worker died, once") { bench in
            try await bench.publish(bench.message("a") { $0.headers.hoist.isAtMostOnce = true })
            let ear = ArrivalEar()
            try await bench.join("alive", names: ["job"], lease: .seconds(1000), sink: ear)
            try await bench.join("dead")
            _ = try await bench.claim("dead")
            try bench.advance(by: .seconds(11))
            try bench.expect(try await bench.renews("alive", lease: .seconds(1000)), "it renews")
            _ = try await bench.claim("alive")
            try bench.expect(ear.notices.count == 1, "it hears once: \(ear.notices)")
            let notice = ear.notices[0]
            guard case .gaveUp(let delivery, let failure) = notice.kind else {
                throw ContractViolation(description: "it hears of a dead letter: \(notice)")
            }
            try bench.expect(notice.jobID == "a" && failure.kind == .workerLost, "of which, and why")
            try bench.expect(
                notice.lostWorker == "dead" && notice.lostWorkerName == "worker dead", "and of which worker: \(notice)")
            try bench.expect(delivery.message?.id == "a", "with its message")
        },
        Check("a live worker hears of a job that was taken over from a dead one, once") { bench in
            for id in ["a", "b"] { try await bench.publish(bench.message(id)) }
            let ear = ArrivalEar()
            try await bench.join("alive", names: ["job"], lease: .seconds(1000), sink: ear)
            try await bench.join("dead")
            _ = try await bench.claim("dead")
            try bench.advance(by: .seconds(11))
            try bench.expect(try await bench.renews("alive", lease: .seconds(1000)), "it renews")
            _ = try await bench.claim("alive")
            let heard = ear.notices.filter { if case .tookOver = $0.kind { true } else { false } }
            try bench.expect(heard.map(\.jobID).sorted() == ["a", "b"], "of each job once: \(ear.notices)")
            try bench.expect(heard.count == ear.notices.count, "and of nothing else: \(ear.notices)")
            try bench.expect(
                heard.allSatisfy { $0.lostWorkerName == "worker dead" && $0.jobName == "job" && $0.queue == "default" },
                "with its names: \(heard)")
        },
        Check("a worker hears of a job that has expired, once, and knows its names", needs: [.expiry]) { bench in
            let ear = ArrivalEar()
            try await bench.join("w", names: ["job"], lease: .seconds(1000), sink: ear)
            let expires = bench.after(10)
            try await bench.publish(bench.message("a") { $0.headers.expires = expires })
            try await bench.publish(bench.message("b"))
            try bench.advance(by: .seconds(11))
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["b"], "it is not handed out")
            _ = try await bench.claim("w")
            let expired = ear.notices.filter { if case .expired = $0.kind { true } else { false } }
            try bench.expect(
                expired.map(\.jobID) == ["a"] && expired[0].jobName == "job" && expired[0].queue == "default",
                "\(ear.notices)")
        },
        Check("a worker without a lease gets no jobs") { bench in
            try await bench.publish(bench.message("a"))
            try bench.expect(try await bench.claim("nobody").isEmpty, "nothing")
        },
    ]
}
