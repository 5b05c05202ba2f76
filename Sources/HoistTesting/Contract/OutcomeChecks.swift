import Hoist
import Logging

extension BackendContract {
    private static let failure = JobFailure(kind: .raised, type: "Oops", message: "it broke")

    static let outcomes: [Check] = [
        Check("a success keeps its output for as long as was asked") { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("w")
            let delivery = try await bench.claim("w")[0]
            try await bench.settle("w", delivery, .succeeded(output: Array("{\"size\":7}".utf8), retention: 60))
            let record = try await bench.record("a")
            try bench.expect(
                record.state == .succeeded && record.output == ["size": 7] && record.attempts == 1, "kept: \(record)")
            try bench.advance(by: .seconds(61))
            try await bench.join("sweeper")
            try bench.expect(try await bench.backend.record(of: "a") == nil, "gone after its time")
        },
        Check("what an attempt used and wrote is kept with the job") { bench in
            try await bench.publish(bench.message("a"), bench.message("b"))
            try await bench.join("w", lease: .seconds(1000))
            let deliveries = try await bench.claim("w")
            let line = JobLog.Line(time: bench.now, source: "output", text: "half way")
            let early = LogReport(jobID: "a", token: deliveries[0].token, log: JobLog(attempt: 1, lines: [line]))
            var report = WorkerTurn()
            report.logs = [early]
            _ = try await bench.sessions.turn("w", report)
            try bench.expect(try await bench.backend.log(of: "a") == early.log, "readable while the job runs")
            try bench.expect(try await bench.backend.log(of: "b") == nil, "the other wrote nothing")
            let usage = ResourceUsage(cpuSeconds: 1.5, wallSeconds: 2, peakMemory: 1000)
            let outcomes: [Outcome] = [.succeeded(output: Array("1".utf8), retention: nil), .failed(failure)]
            for (delivery, outcome) in zip(deliveries, outcomes) {
                var settlement = bench.settlement(delivery, outcome)
                settlement.usage = usage
                settlement.log = JobLog(attempt: 1, lines: [line, line], omitted: 3)
                _ = try await bench.settle("w", settlement)
                let log = try await bench.backend.log(of: delivery.jobID)
                try bench.expect(log == settlement.log, "readable afterwards: \(String(describing: log))")
                let record = try await bench.record(delivery.jobID)
                try bench.expect(record.usage == usage, "what it used: \(String(describing: record.usage))")
            }
            try bench.expect(
                try await bench.record("b").history.last?.usage == usage, "and in the history of what failed")
            try bench.expect(try await bench.backend.forget("a"), "forgotten")
            try bench.expect(try await bench.backend.log(of: "a") == nil, "with what it wrote")
        },
        Check("a job given back before it began is as it was, also one that may begin only once") { bench in
            try await bench.publish(bench.message("a") { $0.headers.hoist.isAtMostOnce = true })
            try await bench.join("w")
            try await bench.settle("w", try await bench.claim("w")[0], .notStarted)
            let record = try await bench.record("a")
            try bench.expect(
                record.state == .waiting && record.attempts == 0 && record.history.isEmpty, "untouched: \(record)")
            try bench.expect(try await bench.claim("w").first?.attempt == 1, "its first attempt")
        },
        Check("deaths of processes count with those of workers") { bench in
            let death = JobFailure(
                kind: .crashed, type: "Crashed", message: "killed by SIGSEGV",
                crash: .init(signal: 11, lastLines: ["x"]))
            try await bench.publish(bench.message("a"))
            try await bench.join("first", lease: .seconds(1000))
            try await bench.settle("first", try await bench.claim("first")[0], .retry(at: bench.now, death))
            let second = try await bench.claim("first")
            try bench.expect(second.first?.lostWorkers == 1 && second.first?.attempt == 2, "one death: \(second)")
            try await bench.settle("first", second[0], .retry(at: bench.now, failure))
            try await bench.join("dying")
            let third = try await bench.claim("dying")
            try bench.expect(third.first?.lostWorkers == 1, "a failure is no death")
            try bench.advance(by: .seconds(11))
            let fourth = try await bench.claim("first")
            try bench.expect(
                fourth.first?.lostWorkers == 2 && fourth.first?.attempt == 3, "a worker died too: \(fourth)")
            try await bench.settle("first", fourth[0], .failed(death))
            let record = try await bench.record("a")
            try bench.expect(record.state == .failed && record.lostWorkers == 3, "three deaths: \(record)")
            try bench.expect(record.failure == death && record.history.first?.failure == death, "and how: \(record)")
        },
        Check("an ignored result leaves nothing") { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("w")
            try await bench.settle(
                "w", try await bench.claim("w")[0], .succeeded(output: Array("1".utf8), retention: 0))
            try bench.expect(try await bench.backend.record(of: "a") == nil, "no record")
        },
        Check("a retry waits for its time, spends an attempt and keeps its history") { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("w", lease: .seconds(1000))
            let delivery = try await bench.claim("w")[0]
            try await bench.settle("w", delivery, .retry(at: bench.after(30), failure))
            try bench.expect(try await bench.state("a") == .retrying, "it waits")
            let early = try await bench.turn("w")
            try bench.expect(early.deliveries.isEmpty && early.nextDue != nil, "not yet, and the worker knows when")
            try bench.advance(by: .seconds(31))
            let again = try await bench.claim("w")
            try bench.expect(again.count == 1 && again[0].attempt == 2, "the second attempt")
            let record = try await bench.record("a")
            try bench.expect(
                record.history.count == 1 && record.history[0].failure == failure, "history: \(record.history)")
            try bench.expect(record.attempts == 2, "two attempts begun")
        },
        Check("a retry may come with other arguments") { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("w")
            let delivery = try await bench.claim("w")[0]
            try await bench.settle(
                "w", delivery, .retry(at: bench.now, failure, change: .arguments(Arguments(keyword: ["n": 5]))))
            let arguments = try await bench.backend.arguments(of: "a")
            try bench.expect(arguments?.keyword == ["n": 5], "the new ones: \(String(describing: arguments))")
            try bench.expect(try await bench.claim("w").first?.attempt == 2, "the second attempt")
        },
        Check("a snooze waits without spending an attempt") { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("w", lease: .seconds(1000))
            try await bench.settle("w", try await bench.claim("w")[0], .snoozed(until: bench.after(30)))
            try bench.expect(try await bench.state("a") == .scheduled, "it waits")
            try bench.advance(by: .seconds(31))
            try bench.expect(try await bench.claim("w").first?.attempt == 1, "still the first attempt")
        },
        Check("a job that a worker refuses waits for another, and its history says who refused it", needs: [.history]) {
            bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("w", lease: .seconds(1000))
            try await bench.settle("w", try await bench.claim("w")[0], .refused(until: bench.after(30), failure))
            let record = try await bench.record("a")
            try bench.expect(record.state == .scheduled && record.attempts == 0, "it waits, no attempt spent")
            try bench.expect(record.history.map(\.outcome) == ["refused"], "the history tells: \(record.history)")
            try bench.expect(record.history.first?.failure == failure, "and why")
            try bench.advance(by: .seconds(31))
            try bench.expect(try await bench.claim("w").first?.attempt == 1, "still the first attempt")
        },
        Check("a job that has succeeded is done, and has no failure", needs: [.storesResults]) { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("w", lease: .seconds(1000))
            try await bench.settle("w", try await bench.claim("w")[0], .retry(at: bench.now, failure))
            try await bench.settle(
                "w", try await bench.claim("w")[0], .succeeded(output: Array("1".utf8), retention: nil))
            let record = try await bench.record("a")
            try bench.expect(record.state == .succeeded && record.attempts == 2, "succeeded at the second attempt")
            try bench.expect(record.failure == nil, "without a failure: \(String(describing: record.failure))")
            try bench.expect(record.progress?.fraction == 1, "and complete")
        },
        Check("a job handed back is ready at once without spending an attempt") { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("w")
            try await bench.settle("w", try await bench.claim("w")[0], .handedBack)
            let again = try await bench.claim("w")
            try bench.expect(again.first?.attempt == 1 && again.first?.lostWorkers == 0, "the first attempt again")
        },
        Check("a failure becomes a dead letter, which is kept and can be requeued with other arguments") { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("w", lease: .seconds(10_000_000))
            try await bench.settle("w", try await bench.claim("w")[0], .failed(failure))
            try bench.advance(by: .seconds(3 * 86_400))
            let dead = try await bench.backend.jobs(JobFilter(states: [.failed]))
            try bench.expect(dead.map(\.id) == ["a"] && dead[0].failure == failure, "kept with its reason")
            let count = try await bench.backend.requeue(JobFilter(ids: ["a"]), arguments: Arguments(keyword: ["n": 2]))
            try bench.expect(count == 1, "one requeued")
            let again = try await bench.claim("w")
            try bench.expect(again.first?.attempt == 1, "attempts count anew")
            guard let delivery = again.first else { return }
            let message: Message
            switch delivery.payload {
            case .message(let decoded): message = decoded
            case .envelope(let bytes): message = try Message(envelope: bytes)
            }
            try bench.expect(try message.decodedBody().arguments.keyword == ["n": 2], "with the new arguments")
        },
        Check("a waiting job is cancelled at once, a running one is told") { bench in
            try await bench.publish(bench.message("waiting"))
            try bench.expect(try await bench.backend.cancel("waiting") == .cancelled, "cancelled")
            try bench.expect(try await bench.state("waiting") == .cancelled, "and marked")
            try bench.expect(try await bench.backend.cancel("waiting") == .alreadyEnded, "once")
            try bench.expect(try await bench.backend.cancel("nobody") == .unknown, "unknown ids are told apart")
            try await bench.publish(bench.message("running"))
            try await bench.join("w")
            let delivery = try await bench.claim("w")[0]
            try bench.expect(try await bench.backend.cancel("running") == .requested, "requested")
            try bench.expect(try await bench.turn("w").cancellations == ["running"], "the worker is told")
            try await bench.settle("w", delivery, .cancelled)
            try bench.expect(try await bench.state("running") == .cancelled, "cancelled")
        },
        Check("a job that was asked to stop does not come back by a retry or a death") { bench in
            try await bench.publish(bench.message("a"), bench.message("b"))
            try await bench.join("w")
            let deliveries = try await bench.claim("w")
            _ = try await bench.backend.cancel("a")
            _ = try await bench.backend.cancel("b")
            try await bench.settle("w", deliveries[0], .retry(at: bench.now, failure))
            try bench.advance(by: .seconds(11))
            try await bench.join("v")
            try bench.expect(try await bench.claim("v").isEmpty, "neither is delivered")
            let states = try await [bench.state("a"), bench.state("b")]
            try bench.expect(states == [.cancelled, .cancelled], "both cancelled: \(states)")
        },
        Check("progress is stored and seen by those who follow") { bench in
            try await bench.publish(bench.message("a"))
            try await bench.join("w")
            let delivery = try await bench.claim("w")[0]
            var updates = bench.backend.updates(of: "a").makeAsyncIterator()
            try bench.expect(try await updates.next()?.state == .running, "it runs")
            let progress = JobProgress(fraction: 0.5, message: "half", details: ["frame": "7"])
            _ = try await bench.sessions.turn(
                "w", WorkerTurn(progress: [ProgressReport(jobID: "a", token: delivery.token, progress: progress)]))
            try bench.expect(try await updates.next()?.progress == progress, "the progress arrives")
            try await bench.settle("w", delivery, .succeeded(output: Array("1".utf8), retention: nil))
            try bench.expect(try await updates.next()?.state == .succeeded, "and the end")
            try bench.expect(try await updates.next() == nil, "and then nothing")
        },
        Check("of many who follow a job each, every one hears of the end of theirs") { bench in
            let ids = (0..<60).map { "j\($0)" }
            for id in ids { try await bench.publish(bench.message(id)) }
            try await bench.join("w")
            let deliveries = try await bench.claim("w", 100)
            let ends = try await withThrowingTaskGroup { group in
                for id in ids {
                    group.addTask {
                        var last: JobRecord?
                        for try await record in bench.backend.updates(of: id) { last = record }
                        return last
                    }
                }
                for delivery in deliveries {
                    try await bench.settle(
                        "w", delivery, .succeeded(output: Array(#""\#(delivery.jobID)""#.utf8), retention: nil))
                    await Task.yield()
                }
                return try await group.reduce(into: [JobID: WireValue?]()) { $0[$1?.id ?? ""] = $1?.output }
            }
            try bench.expect(ends.count == 60 && ends.allSatisfy { $1 == .string($0) }, "all of them: \(ends)")
        },
        Check("an id that nobody knows has the same answers everywhere") { bench in
            try bench.expect(try await bench.backend.cancel("nobody") == .unknown, "there is nothing to cancel")
            try bench.expect(try await bench.backend.record(of: "nobody") == nil, "no record")
            try bench.expect(try await bench.backend.log(of: "nobody") == nil, "no log")
            try bench.expect(try await !bench.backend.forget("nobody"), "nothing to forget")
            var count = 0
            for try await _ in bench.backend.updates(of: "nobody") { count += 1 }
            try bench.expect(count == 0, "no updates")
            let client = JobClient(
                bench.backend, configuration: bench.impatient,
                logger: Logger(label: "contract") { _ in SwiftLogNoOpLogHandler() })
            do {
                _ = try await client.handle(of: "nobody").output()
                try bench.expect(false, "an output")
            } catch let error as JobError {
                try bench.expect(error.code == .unknown, "unknown: \(error)")
                try bench.expect(error.description.contains("Python"), "and it says what looks the same: \(error)")
            }
        },
        Check("forget removes an ended job and leaves others alone") { bench in
            try await bench.publish(bench.message("a"))
            try bench.expect(try await !bench.backend.forget("a"), "a waiting job is not forgotten")
            _ = try await bench.backend.cancel("a")
            try bench.expect(try await bench.backend.forget("a"), "an ended one is")
            try bench.expect(try await bench.backend.record(of: "a") == nil, "gone")
        },
    ]
}
