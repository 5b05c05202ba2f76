import Hoist

extension BackendContract {
    static let timing: [Check] = [
        Check(
            "a delayed job waits in the backend, for months, and is delivered once", needs: [.delays],
            parts: [.directory]
        ) { bench in
            let due = bench.after(100 * 86_400)
            let begun = SystemJobClock().uptime
            try await bench.publish(bench.message("a") { $0.headers.eta = due })
            try bench.expect(try await bench.state("a") == .scheduled, "scheduled")
            try await bench.join("w", lease: .seconds(200 * 86_400))
            let early = try await bench.turn("w")
            let nextDue = early.nextDue?.microsecondsSinceEpoch ?? 0
            // A broker that keeps time by its own clock is told how long the wait is. What it was told is off by as
            // much as the calls took, which is seconds on a machine that is busy.
            let tolerance = 1_000_000 + SystemJobClock().uptime - begun
            try bench.expect(
                early.deliveries.isEmpty && abs(nextDue - due.microsecondsSinceEpoch) < tolerance,
                "not yet, due \(due): \(String(describing: early.nextDue))")
            try bench.advance(by: .seconds(99 * 86_400))
            try bench.expect(try await bench.claim("w").isEmpty, "not a day too soon")
            try bench.advance(by: .seconds(86_401))
            try bench.expect(try await bench.claim("w").count == 1, "at its time")
            try bench.expect(try await bench.claim("w").isEmpty, "once")
        },
        Check(
            "a waiting job can be moved, made urgent and given other arguments", needs: [.delays],
            parts: [.directory, .editing]
        ) { bench in
            try await bench.publish(
                bench.message("later") { $0.headers.eta = bench.after(1000) }, bench.message("first"))
            try bench.expect(try await bench.backend.edit("later", .reschedule(bench.now)), "found")
            try bench.expect(try await bench.backend.edit("later", .priority(7)), "found")
            try bench.expect(try await bench.backend.edit("later", .arguments(Arguments(keyword: ["n": 9]))), "found")
            try bench.expect(try await !bench.backend.edit("nobody", .priority(1)), "unknown ids are told")
            try await bench.join("w")
            let order = try await bench.claim("w").map(\.jobID)
            try bench.expect(order == ["later", "first"], "now and first: \(order)")
            try bench.expect(try await bench.record("later").argumentsText == "{'n': 9}", "with new arguments")
        },
        Check("a job that is not started in time expires", needs: [.expiry], parts: [.directory]) { bench in
            let expires = bench.after(10)
            try await bench.publish(bench.message("a") { $0.headers.expires = expires })
            try bench.advance(by: .seconds(11))
            try await bench.join("w")
            try bench.expect(try await bench.claim("w").isEmpty, "not delivered")
            try bench.expect(try await bench.state("a") == .expired, "marked expired")
        },
    ]

    static let uniqueness: [Check] = [
        Check("a key is held until the job has ended, and the clash names the holder") { bench in
            func unique(_ id: JobID) -> Message { bench.message(id) { $0.headers.hoist.unique = UniqueKey("k") } }
            try bench.expect(try await bench.publish(unique("a")) == [.enqueued], "the first")
            try bench.expect(
                try await bench.publish(unique("b")) == [.keyHeld(by: "a")], "the second clashes while it waits")
            try await bench.join("w")
            let delivery = try await bench.claim("w")[0]
            try bench.expect(try await bench.publish(unique("b")) == [.keyHeld(by: "a")], "and while it runs")
            try await bench.settle("w", delivery, .succeeded(output: Array("1".utf8), retention: nil))
            try bench.expect(try await bench.publish(unique("b")) == [.enqueued], "and is free after")
        },
        Check("a key held until the start is free while the job runs") { bench in
            func unique(_ id: JobID) -> Message {
                bench.message(id) { $0.headers.hoist.unique = UniqueKey("k", scope: .untilStarted) }
            }
            try await bench.publish(unique("a"))
            try bench.expect(try await bench.publish(unique("b")) == [.keyHeld(by: "a")], "held while it waits")
            try await bench.join("w")
            _ = try await bench.claim("w")
            try bench.expect(try await bench.publish(unique("b")) == [.enqueued], "free once it runs")
        },
        Check("a remembered key gives the first job's result for its time") { bench in
            func unique(_ id: JobID) -> Message {
                bench.message(id) { $0.headers.hoist.unique = UniqueKey("k", scope: .remembered(for: .seconds(60))) }
            }
            try await bench.publish(unique("a"))
            try await bench.join("w", lease: .seconds(1000))
            try await bench.settle(
                "w", try await bench.claim("w")[0], .succeeded(output: Array("1".utf8), retention: nil))
            try bench.expect(try await bench.publish(unique("b")) == [.keyHeld(by: "a")], "remembered")
            try bench.advance(by: .seconds(61))
            try bench.expect(try await bench.publish(unique("b")) == [.enqueued], "forgotten")
        },
        Check("a window lets one job through, whatever becomes of it") { bench in
            func unique(_ id: JobID) -> Message {
                bench.message(id) { $0.headers.hoist.unique = UniqueKey("k", scope: .window(.seconds(60))) }
            }
            try await bench.publish(unique("a"))
            _ = try await bench.backend.cancel("a")
            try bench.expect(try await bench.publish(unique("b")) == [.keyHeld(by: "a")], "closed")
            try bench.advance(by: .seconds(61))
            try bench.expect(try await bench.publish(unique("b")) == [.enqueued], "open again")
        },
        Check("replace takes over how the new arguments are encoded", needs: [.uniqueKeys]) { bench in
            func unique(_ id: JobID, _ text: String, isCompressed: Bool) -> Message {
                bench.message(id) { message in
                    message.headers.hoist.unique = UniqueKey("k", onClash: .replace)
                    message.body = MessageBody(arguments: Arguments(keyword: ["text": .string(text)])).encoded()
                    if isCompressed { message.compressBody() }
                }
            }
            let long = String(repeating: "long ", count: 1000)
            for (number, isFirstLong) in [true, false].enumerated() {
                let queue = [unique("a\(number)", isFirstLong ? long : "short", isCompressed: isFirstLong)]
                _ = try await bench.backend.publish(queue)
                let next = unique("b\(number)", isFirstLong ? "short" : long, isCompressed: !isFirstLong)
                try bench.expect(try await bench.publish(next) == [.replaced("a\(number)")], "replaced")
                try await bench.join("w\(number)")
                let delivery = try await bench.claim("w\(number)").first
                let text = try delivery?.message?.decodedBody().arguments.keyword["text"]?.stringValue
                try bench.expect(text == (isFirstLong ? "short" : long), "readable: \(text?.prefix(20) ?? "nil")")
                if let delivery { try await bench.settle("w\(number)", delivery, .cancelled) }
            }
        },
        Check("replace gives the waiting job new arguments, reschedule a new time as well") { bench in
            func unique(_ id: JobID, _ policy: UniqueKey.ClashPolicy, n: Int64, after seconds: Int64) -> Message {
                bench.message(id) { message in
                    message.headers.hoist.unique = UniqueKey("k", onClash: policy)
                    message.headers.eta = bench.after(seconds)
                    message.setArguments(Arguments(keyword: ["n": .integer(n)]))
                }
            }
            try await bench.publish(unique("a", .replace, n: 1, after: 100))
            try bench.expect(
                try await bench.publish(unique("b", .replace, n: 2, after: 500)) == [.replaced("a")], "replaced")
            try bench.expect(try await bench.record("a").argumentsText == "{'n': 2}", "new arguments")
            try bench.advance(by: .seconds(50))
            try bench.expect(
                try await bench.publish(unique("c", .reschedule, n: 3, after: 100)) == [.replaced("a")], "rescheduled")
            try bench.advance(by: .seconds(60))
            try await bench.join("w", lease: .seconds(1000))
            try bench.expect(try await bench.claim("w").isEmpty, "the old time passes")
            try bench.advance(by: .seconds(41))
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["a"], "the new time holds")
        },
        Check("a job that ends does not give up a key that another holds by now") { bench in
            func unique(_ id: JobID) -> Message {
                bench.message(id) { $0.headers.hoist.unique = UniqueKey("k", scope: .untilStarted) }
            }
            try await bench.publish(unique("a"))
            try await bench.join("w")
            let delivery = try await bench.claim("w")[0]
            try await bench.publish(unique("b"))
            try await bench.settle("w", delivery, .succeeded(output: Array("1".utf8), retention: nil))
            try bench.expect(try await bench.publish(unique("c")) == [.keyHeld(by: "b")], "b still holds it")
        },
        Check("a message published again does not clash with whoever holds its key by now") { bench in
            func unique(_ id: JobID) -> Message {
                bench.message(id) { $0.headers.hoist.unique = UniqueKey("k", scope: .untilStarted, onClash: .replace) }
            }
            try await bench.publish(unique("a"))
            try await bench.join("w")
            _ = try await bench.claim("w")
            try await bench.publish(unique("b"))
            try bench.expect(try await bench.publish(unique("a")) == [.alreadyEnqueued], "a is known")
        },
        Check("a requeued job holds its key again") { bench in
            func unique(_ id: JobID) -> Message { bench.message(id) { $0.headers.hoist.unique = UniqueKey("k") } }
            try await bench.publish(unique("a"))
            _ = try await bench.backend.cancel("a")
            _ = try await bench.backend.requeue(JobFilter(ids: ["a"]), arguments: nil)
            try bench.expect(try await bench.publish(unique("b")) == [.keyHeld(by: "a")], "a holds it")
        },
        Check("a cancelled or purged job gives its key up") { bench in
            func unique(_ id: JobID) -> Message { bench.message(id) { $0.headers.hoist.unique = UniqueKey("k") } }
            try await bench.publish(unique("a"))
            _ = try await bench.backend.cancel("a")
            try bench.expect(try await bench.publish(unique("b")) == [.enqueued], "after a cancel")
            try bench.expect(try await bench.backend.purge(queue: "default") == 1, "purged")
            try bench.expect(try await bench.publish(unique("c")) == [.enqueued], "after a purge")
        },
    ]

    static let administration: [Check] = [
        Check("queues are counted by state", needs: [], parts: [.directory]) { bench in
            let began = bench.now
            try await bench.publish(
                bench.message("a"), bench.message("b"), bench.message("c") { $0.headers.eta = bench.after(100) },
                bench.message("d", queue: "other"))
            try await bench.join("w")
            _ = try await bench.claim("w", 1)
            let queues = try await bench.backend.queues()
            try bench.expect(queues.map(\.name) == ["default", "other"], "both queues")
            try bench.expect(
                queues[0].waiting == 1 && queues[0].running == 1 && queues[0].scheduled == 1, "\(queues[0])")
            try bench.expect(
                queues[0].oldestWaiting.map { $0 >= began && $0 <= bench.now } == true, "the age of the oldest")
        },
        Check("jobs are found by state, queue, name and text in their arguments", needs: [], parts: [.directory]) {
            bench in
            try await bench.publish(
                bench.message("a"), bench.message("b", name: "other"),
                bench.message("c", queue: "q") { $0.setArguments(Arguments(keyword: ["city": "Oslo"])) })
            let all = try await bench.backend.jobs(JobFilter()).map(\.id)
            try bench.expect(all == ["c", "b", "a"], "the newest first: \(all)")
            try bench.expect(try await bench.backend.jobs(JobFilter(name: "other")).map(\.id) == ["b"], "by name")
            try bench.expect(try await bench.backend.jobs(JobFilter(queue: "q")).map(\.id) == ["c"], "by queue")
            try bench.expect(
                try await bench.backend.jobs(JobFilter(argumentText: "Oslo")).map(\.id) == ["c"], "by text")
            try bench.expect(try await bench.backend.jobs(JobFilter(states: [.running])).isEmpty, "by state")
            try bench.expect(try await bench.backend.jobs(JobFilter(limit: 2)).count == 2, "at most so many")
        },
        Check("jobs are listed page by page, each once, and pages end", needs: [.delays], parts: [.directory]) {
            bench in
            for index in 0..<7 {
                try await bench.publish(
                    bench.message("a\(index)", name: index == 3 ? "other" : "job", queue: index < 5 ? "q" : "r"))
            }
            try await bench.publish(bench.message("late", queue: "q") { $0.headers.eta = bench.after(100) })
            try await bench.join("w")
            func listed(_ filter: JobFilter) async throws -> [JobID] {
                var (ids, cursor): ([JobID], JobCursor?) = ([], nil)
                for _ in 0..<50 {
                    let page = try await bench.backend.page(filter, after: cursor)
                    try bench.expect(page.jobs.count <= filter.limit, "no page is too long")
                    ids += page.jobs.map(\.id)
                    guard let next = page.next else { return ids.sorted() }
                    cursor = JobCursor(next.text)
                }
                throw ContractViolation(description: "the pages do not end")
            }
            let all = ["a0", "a1", "a2", "a3", "a4", "a5", "a6", "late"]
            try bench.expect(try await listed(JobFilter(limit: 3)) == all, "all of them")
            try bench.expect(try await listed(JobFilter(limit: 100)) == all, "at once")
            try bench.expect(try await listed(JobFilter(queue: "r", limit: 1)) == ["a5", "a6"], "of a queue")
            try bench.expect(try await listed(JobFilter(name: "other", limit: 2)) == ["a3"], "of a name")
            try bench.expect(try await listed(JobFilter(states: [.scheduled], limit: 2)) == ["late"], "of a state")
            do {
                _ = try await bench.backend.page(JobFilter(), after: JobCursor("strange"))
                throw ContractViolation(description: "a strange cursor is refused")
            } catch let error as BackendError {
                try bench.expect(error.code == .misuse, "as a misuse")
            }
        },
        Check(
            "jobs are counted by queue, name and state", needs: [.delays, .cancellation, .storesResults],
            parts: [.directory]
        ) { bench in
            for index in 0..<3 { try await bench.publish(bench.message("a\(index)", queue: "q")) }
            try await bench.publish(
                bench.message("b", name: "other", queue: "q"),
                bench.message("c", queue: "q") { $0.headers.eta = bench.after(100) }, bench.message("d", queue: "r"),
                bench.message("e", queue: "r"))
            _ = try await bench.backend.cancel("d")
            try await bench.join("w", queues: ["q"])
            let first = try await bench.turn("w", limit: 2, queue: "q").deliveries
            let failure = JobFailure(kind: .raised, type: "Broken", message: "it broke")
            try await bench.settle("w", first[0], .failed(failure))
            var counts: [String: Int] = [:]
            for count in try await bench.backend.counts() where count.count > 0 {
                try bench.expect(!count.isEstimate, "small counts are exact")
                counts["\(count.queue) \(count.name) \(count.state)"] = count.count
            }
            let expected = [
                "q job waiting": 1, "q job running": 1, "q job failed": 1, "q other waiting": 1, "q job scheduled": 1,
                "r job cancelled": 1, "r job waiting": 1,
            ]
            try bench.expect(counts == expected, "\(counts)")
        },
        Check("live workers are listed with what they do", needs: [], parts: [.directory]) { bench in
            try await bench.join("w", names: ["x", "y"])
            let workers = try await bench.backend.workers()
            try bench.expect(workers.map(\.id) == ["w"] && workers[0].jobNames == ["x", "y"], "\(workers)")
            try bench.advance(by: .seconds(11))
            try bench.expect(try await bench.backend.workers().isEmpty, "a dead one is not")
        },
        Check("drop removes ended jobs only", needs: [], parts: [.directory, .editing]) { bench in
            try await bench.publish(bench.message("a"), bench.message("b"))
            _ = try await bench.backend.cancel("a")
            try bench.expect(try await bench.backend.drop(JobFilter()) == 1, "one has ended")
            try bench.expect(try await bench.backend.jobs(JobFilter()).map(\.id) == ["b"], "the other is left")
        },
    ]
}
