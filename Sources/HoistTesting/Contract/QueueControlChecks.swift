import Hoist

extension BackendContract {
    private static let failure = JobFailure(kind: .raised, type: "Oops", message: "it broke")

    /// What people and jobs say about queues, and where copies of a job go.
    static let queueControl: [Check] = [
        Check("a paused queue takes jobs and gives none, until it is resumed; others go on", parts: [.queueControl]) {
            bench in
            let control = try bench.control()
            try await bench.publish(bench.message("a"), bench.message("b", queue: "other"))
            try await bench.join("w", queues: ["default", "other"], lease: .seconds(1000))
            try await control.pause(queue: "default")
            try await control.pause(queue: "default")
            try bench.expect(try await control.pausedQueues() == ["default"], "it is listed")
            try await bench.publish(bench.message("c"))
            try bench.expect(try await bench.claim("w").isEmpty, "nothing is given")
            try bench.expect(
                try await bench.claim("w", queue: "other").map(\.jobID) == ["b"], "the other queue goes on")
            let reason = try await bench.record("a").waitingReason ?? ""
            try bench.expect(reason.contains("paused"), "the record says why: \(reason)")
            try await control.resume(queue: "default")
            try bench.expect(try await control.pausedQueues().isEmpty, "no longer listed")
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["a", "c"], "both come")
        },
        Check("jobs that run in a paused queue end as always", parts: [.queueControl]) { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("w", lease: .seconds(1000))
            let delivery = try await bench.claim("w")[0]
            try await bench.control().pause(queue: "default")
            try await bench.settle("w", delivery, .succeeded(output: Array("1".utf8), retention: nil))
            try bench.expect(try await bench.state("a") == .succeeded, "it has ended")
        },
        Check("a closed queue opens by itself; of two closures the longer one counts", parts: [.queueControl]) {
            bench in
            let control = try bench.control()
            try await bench.publish(bench.message("a"))
            try await bench.join("w", lease: .seconds(1000))
            try await control.close(queue: "default", for: .seconds(60))
            try await control.close(queue: "default", for: .seconds(10))
            let turn = try await bench.turn("w")
            try bench.expect(turn.deliveries.isEmpty, "closed")
            let opens = (turn.nextDue?.microsecondsSinceEpoch ?? 0) - bench.now.microsecondsSinceEpoch
            try bench.expect((50_000_000...61_000_000).contains(opens), "it says when it opens: \(opens)")
            let reason = try await bench.record("a").waitingReason ?? ""
            try bench.expect(reason.contains("closed"), "the record says why: \(reason)")
            try bench.expect(try await control.pausedQueues().isEmpty, "a closed queue is not paused")
            try bench.advance(by: .seconds(30))
            try bench.expect(try await bench.claim("w").isEmpty, "still closed")
            try bench.advance(by: .seconds(31))
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["a"], "open")
        },
        Check("resuming opens a closed queue at once", parts: [.queueControl]) { bench in
            let control = try bench.control()
            try await bench.publish(bench.message("a"))
            try await bench.join("w", lease: .seconds(1000))
            try await control.close(queue: "default", for: .seconds(60))
            try bench.expect(try await bench.claim("w").isEmpty, "closed")
            try await control.resume(queue: "default")
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["a"], "open")
        },
        Check("a job can close its queue as it is put off", parts: [.queueControl]) { bench in
            try await bench.publish(bench.message("a"), bench.message("b"))
            try await bench.join("w", lease: .seconds(1000))
            let first = try await bench.turn("w", limit: 1).deliveries[0]
            try await bench.settle("w", first, .snoozed(until: bench.after(30), closesQueue: true))
            try bench.expect(try await bench.claim("w").isEmpty, "nothing of the queue comes")
            try bench.advance(by: .seconds(31))
            let next = Set(try await bench.claim("w").map(\.jobID))
            try bench.expect(next == ["a", "b"], "both come afterwards: \(next)")
        },
        Check("a queue with a limit refuses what does not fit, whole calls at a time", parts: [.queueControl]) {
            bench in
            let control = try bench.control()
            try await control.limit(queue: "default", to: 3)
            try await bench.publish(bench.message("a"), bench.message("late") { $0.headers.eta = bench.after(100) })
            try bench.expect(try await bench.isRefused(bench.message("b"), bench.message("c")), "two do not fit")
            try bench.expect(try await bench.backend.record(of: "b") == nil, "and none of them is stored")
            try bench.expect(try await !bench.isRefused(bench.message("d")), "one fits")
            try bench.expect(try await bench.isRefused(bench.message("e")), "the queue is full")
            try bench.expect(try await !bench.isRefused(bench.message("f", queue: "other")), "another queue is not")
            try await bench.join("w", lease: .seconds(1000))
            _ = try await bench.claim("w", 1)
            try bench.expect(try await !bench.isRefused(bench.message("g")), "a job that runs makes room")
            try await control.limit(queue: "default", to: nil)
            try bench.expect(try await !bench.isRefused(bench.message("h"), bench.message("i")), "no limit any more")
        },
        Check("jobs that go back to a full queue are not refused", parts: [.queueControl]) { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("w", lease: .seconds(1000))
            let delivery = try await bench.claim("w")[0]
            try await bench.control().limit(queue: "default", to: 0)
            try await bench.settle("w", delivery, .retry(at: bench.after(-1), failure))
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["a"], "it is back")
        },
        Check("a job of a topic goes to every queue that is bound to it, until it is unbound", parts: [.topics]) {
            bench in
            let topics = try bench.backend.topicRouting()
            try await topics.bind(queue: "all", to: .topic("video.#", exchange: "media"))
            try await topics.bind(queue: "all", to: .topic("video.#", exchange: "media"))
            try await topics.bind(queue: "done", to: .topic("video.*.done", exchange: "media"))
            try await topics.bind(queue: "else", to: .topic("video.#", exchange: "other"))
            func queues(_ topic: String) async throws -> [String] {
                try await topics.queues(of: "media", topic: topic)
            }
            try bench.expect(try await queues("video.42.done") == ["all", "done"], "both")
            try bench.expect(try await queues("video.42.failed") == ["all"], "one")
            try bench.expect(try await queues("audio.1").isEmpty, "none")
            try await topics.unbind(queue: "all", from: .topic("video.#", exchange: "media"))
            try bench.expect(try await queues("video.42.done") == ["done"], "unbound")
            try await topics.unbind(queue: "done", from: .topic("video.*.done", exchange: "media"))
            try bench.expect(try await queues("video.42.done").isEmpty, "all unbound")
        },
        Check("bindings that are made at the same time are all made", parts: [.topics]) { bench in
            let topics = try bench.backend.topicRouting()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<8 {
                    group.addTask { try await topics.bind(queue: "q\(number)", to: .topic("t", exchange: "x")) }
                }
                try await group.waitForAll()
            }
            let queues = try await topics.queues(of: "x", topic: "t")
            try bench.expect(queues == (0..<8).map { "q\($0)" }, "all of them: \(queues)")
        },
        Check("a broadcast reaches everybody who listens on its channel, and nobody else", parts: [.broadcasts]) {
            bench in
            let broadcasts = try bench.backend.broadcasting()
            let (first, second) = try await (broadcasts.broadcasts(on: "news"), broadcasts.broadcasts(on: "news"))
            let other = try await broadcasts.broadcasts(on: "sport")
            _ = try await broadcasts.broadcast(bench.message("a"), on: "news")
            _ = try await broadcasts.broadcast(bench.message("b"), on: "sport")
            for (name, stream, id) in [("one", first, "a"), ("another", second, "a"), ("the other", other, "b")] {
                var iterator = stream.makeAsyncIterator()
                let heard = await iterator.next()?.id
                try bench.expect(heard == id, "\(name) hears \(heard ?? "nothing")")
            }
        },
    ]
}

extension ContractBench {
    func control() throws -> any QueueControl {
        guard let control = backend.queueControl else { throw ContractViolation(description: "no queue control") }
        return control
    }

    /// Whether a call is refused because its queue is full, so that it may be made again.
    fileprivate func isRefused(_ messages: Message...) async throws -> Bool {
        do {
            _ = try await backend.broker.publish(messages)
            return false
        } catch let error as BackendError {
            guard error.code == .full, error.isRetrySafe else { throw error }
            return true
        }
    }
}
