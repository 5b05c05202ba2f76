import Foundation
import Hoist
import HoistTesting
import Logging
import Testing

@Suite("Worker", .timeLimit(.minutes(3)))
struct WorkerTests {
    let backend = MemoryBackend()
    var client: JobClient { JobClient(backend, logger: quiet) }

    @Test("a job runs and its output reaches the handle")
    func output() async throws {
        let worker = Worker(backend, logger: quiet) { Handler(Echo.self) { job, _ in job.text + "!" } }
        try await withWorker(worker) {
            let handle = try await client.enqueue(Echo(text: "hello"))
            #expect(try await handle.output(timeout: .seconds(30)) == "hello!")
            let old = try await client.enqueue(named: "test.echo_old", arguments: Arguments(positional: ["old"]))
            #expect(try await old.output(timeout: .seconds(30)) == "old!", "an alias still runs")
            #expect(worker.health.isAlive && worker.health.isConsuming)
        }
        #expect(try await backend.workers().isEmpty, "the worker has left")
    }

    @Test("a handler knows its job, and its children inherit")
    func context() async throws {
        let seen = Shared<[String]>([])
        let worker = Worker(backend, queues: ["default"], logger: quiet) {
            Handler(Work.self) { job, context in
                seen.change {
                    $0.append("\(context.name) \(context.attempt) \(context.queue) \(context.headers["tenant"] ?? "-")")
                }
                if job.number == 0 {
                    #expect(context.rootID == context.id && context.parentID == nil)
                    try await context.jobs.enqueue(Work(number: 1), .id("child"))
                } else {
                    #expect(context.parentID == "parent" && context.rootID == "parent")
                }
            }
        }
        try await withWorker(worker) {
            try await client.enqueue(Work(), .id("parent"), .header("tenant", "acme"))
            #expect(await seen.wait { $0.count == 2 })
        }
        #expect(seen.value == ["test.work 1 default \"acme\"", "test.work 1 default \"acme\""])
    }

    @Test("wrong arguments fail at once, naming the parameter")
    func arguments() async throws {
        try await withWorker(Worker(backend, logger: quiet) { Handler(Echo.self) { job, _ in job.text } }) {
            let handle = try await client.enqueue(named: "test.echo", arguments: Arguments(keyword: ["text": 7]))
            let error = await #expect(throws: JobError.self) { try await handle.output(timeout: .seconds(30)) }
            #expect(error?.failure?.kind == .badArguments)
            #expect(error?.failure?.message.contains("argument text: expected a string") == true)
            #expect(try await handle.record()?.history.count == 1, "not retried")
        }
    }

    @Test("a message that cannot be read becomes a dead letter and holds nothing up")
    func undecodable() async throws {
        let dead = Shared<[JobFailure]>([])
        var configuration = Worker.Configuration()
        configuration.onDeadLetter = { _, failure in dead.change { $0.append(failure) } }
        try await withWorker(
            Worker(backend, configuration: configuration, logger: quiet) { Handler(Echo.self) { job, _ in job.text } }
        ) {
            for (index, (type, body)) in [("application/json", "{not json"), ("application/x-python-serialize", "x")]
                .enumerated()
            {
                let message = Message(
                    headers: MessageHeaders(task: Echo.name, id: "bad\(index)"),
                    properties: MessageProperties(routingKey: "default", deliveryTag: "t"), contentType: type,
                    body: Array(body.utf8))
                _ = try await backend.publish([message])
            }
            #expect(try await client.enqueue(Echo(text: "good")).output(timeout: .seconds(30)) == "good")
            #expect(await dead.wait { $0.count == 2 })
        }
        #expect(dead.value.allSatisfy { $0.kind == .undecodable })
        #expect(try await backend.jobs(JobFilter(states: [.failed])).count == 2)
    }

    @Test("a cancelled job is told, and marked")
    func cancel() async throws {
        let started = Shared(false)
        let reason = Shared<JobContext.CancellationReason?>(nil)
        let worker = Worker(backend, logger: quiet) {
            Handler(Work.self) { _, context in
                started.change { $0 = true }
                defer { reason.change { $0 = context.cancellationReason } }
                try await Task.sleep(for: .seconds(60))
            }
        }
        try await withWorker(worker) {
            let handle = try await client.enqueue(Work())
            #expect(await started.wait { $0 })
            #expect(try await handle.cancel() == .requested)
            let error = await #expect(throws: JobError.self) { try await handle.output(timeout: .seconds(30)) }
            #expect(error?.code == .cancelled)
            #expect(await reason.wait { $0 == .requested })
        }
    }

    @Test("a worker with no free slot hears of a cancellation as well")
    func cancelWhenFull() async throws {
        let started = Shared(false)
        let worker = Worker(backend, lanes: [.async(1)], logger: quiet) {
            Handler(Work.self) { _, _ in
                started.change { $0 = true }
                try await Task.sleep(for: .seconds(3600))
            }
        }
        try await withWorker(worker) {
            let handle = try await client.enqueue(Work())
            #expect(await started.wait { $0 })
            try await handle.cancel()
            let error = await #expect(throws: JobError.self) { try await handle.output(timeout: .seconds(30)) }
            #expect(error?.code == .cancelled)
        }
    }

    @Test("the soft time limit cancels; a handler that catches it may still succeed")
    func timeLimit() async throws {
        let worker = Worker(backend, logger: quiet) {
            Handler(Work.self) { _, _ in try await Task.sleep(for: .seconds(60)) }
            Handler(Echo.self) { job, _ in
                try? await Task.sleep(for: .seconds(60))
                return "tidied up"
            }
        }
        try await withWorker(worker) {
            let failing = try await client.enqueue(Work(), .timeLimit(.milliseconds(50)))
            let error = await #expect(throws: JobError.self) { try await failing.output(timeout: .seconds(30)) }
            #expect(error?.failure?.kind == .timedOut)
            let tidy = try await client.enqueue(Echo(text: ""), .timeLimit(.milliseconds(50)))
            #expect(try await tidy.output(timeout: .seconds(30)) == "tidied up")
            try worker.setLimits(RunLimits(time: .milliseconds(20)), forJob: Work.name)
            let changed = try await client.enqueue(Work(), .timeLimit(.seconds(600)))
            await #expect(throws: JobError.self) { try await changed.output(timeout: .seconds(30)) }
        }
    }

    @Test("a job that gives no sign of progress is stuck; one that does is not")
    func heartbeat() async throws {
        let worker = Worker(backend, logger: quiet) {
            Handler(Work.self) { job, context in
                guard job.number == 1 else { return try await Task.sleep(for: .seconds(3600)) }
                for _ in 0..<600 {
                    try await Task.sleep(for: .milliseconds(10))
                    context.heartbeat()
                }
            }
        }
        try await withWorker(worker) {
            let silent = try await client.enqueue(Work(number: 0), .heartbeatLimit(.milliseconds(100)))
            let lively = try await client.enqueue(Work(number: 1), .heartbeatLimit(.seconds(5)))
            let error = await #expect(throws: JobError.self) { try await silent.output(timeout: .seconds(30)) }
            #expect(error?.failure?.kind == .stuck)
            _ = try await lively.output(timeout: .seconds(60))
        }
    }

    @Test("progress that is reported all the time is sent now and then, the last of it")
    func progress() async throws {
        let isLastSeen = Shared(false)
        let worker = Worker(backend, logger: quiet) {
            Handler(Work.self) { _, context in
                for step in 1...2000 {
                    try await context.report(progress: Double(step) / 2000)
                    await Task.yield()
                }
                _ = await isLastSeen.wait { $0 }
            }
        }
        try await withWorker(worker) {
            let begin = ContinuousClock.now
            let handle = try await client.enqueue(Work())
            var seen: [Double] = []
            for try await record in handle.updates {
                if let fraction = record.progress?.fraction, fraction != seen.last { seen.append(fraction) }
                if seen.last == 1 { isLastSeen.change { $0 = true } }
            }
            // Twenty a second, and a few at the ends.
            let most = Int(begin.duration(to: .now) / .milliseconds(50)) + 5
            #expect(seen.last == 1 && seen == seen.sorted() && seen.count <= most, "\(seen.count) reports were sent")
        }
    }

    @Test("a worker takes no more jobs than it has slots, of a lane and of a queue")
    func slots() async throws {
        let running = Shared<[String: Int]>([:])
        let most = Shared<[String: Int]>([:])
        let go = Shared(false)
        let worker = Worker(
            backend, queues: ["wide", .queue("narrow", concurrency: 2)], lanes: [.async(5)], logger: quiet
        ) {
            Handler(Work.self) { _, context in
                running.change { $0[context.queue, default: 0] += 1 }
                most.change { $0[context.queue] = max($0[context.queue] ?? 0, running.value[context.queue] ?? 0) }
                _ = await go.wait { $0 }
                running.change { $0[context.queue, default: 0] -= 1 }
            }
        }
        for _ in 0..<20 {
            try await client.enqueue(Work(), .queue("wide"))
            try await client.enqueue(Work(), .queue("narrow"))
        }
        try await withWorker(worker) {
            #expect(await running.wait { $0.values.reduce(0, +) == 5 })
            let claimed = try await backend.queues().map(\.running).reduce(0, +)
            #expect(claimed == 5, "none is hoarded")
            go.change { $0 = true }
            #expect(try await eventually { try await backend.jobs(JobFilter(states: [.succeeded])).count == 40 })
        }
        #expect(most.value["narrow"] ?? 0 <= 2)
    }

    @Test("the blocking lane runs jobs side by side on threads of its own")
    func blocking() async throws {
        let together = Shared(0)
        let worker = Worker(backend, lanes: [.blocking(8)], logger: quiet) {
            Handler(Work.self, in: .blocking) { _, _ in
                together.change { $0 += 1 }
                // Eight at once: more than there are cooperative threads here. Each blocks its thread until all have
                // come.
                while together.value < 8 { usleep(1000) }
            }
            Handler(Echo.self) { job, _ in job.text }
        }
        try await withWorker(worker) {
            let handles = try await client.enqueue(contentsOf: (0..<8).map { Work(number: $0) })
            #expect(try await client.enqueue(Echo(text: "free")).output(timeout: .seconds(30)) == "free")
            for handle in handles { _ = try await handle.output(timeout: .seconds(30)) }
        }
    }

    @Test("strict order empties the first queue first, weighted order starves none")
    func order() async throws {
        for order in [QueueOrder.strict, .weighted] {
            let backend = MemoryBackend()
            let client = JobClient(backend, logger: quiet)
            try await client.enqueue(contentsOf: (0..<50).map { Work(number: $0) }, [.queue("low")])
            try await client.enqueue(contentsOf: (0..<50).map { Work(number: $0) }, [.queue("high")])
            let seen = Shared<[String]>([])
            var configuration = Worker.Configuration()
            configuration.order = order
            configuration.isBurst = true
            let worker = Worker(
                backend, queues: [.queue("high", weight: 3), .queue("low")], lanes: [.async(1)],
                configuration: configuration, logger: quiet
            ) {
                Handler(Work.self) { _, context in seen.change { $0.append(context.queue) } }
            }
            try await worker.run()
            #expect(seen.value.count == 100)
            let lowAmongFirst = seen.value.prefix(50).count { $0 == "low" }
            if order == .strict {
                #expect(lowAmongFirst == 0)
            } else {
                #expect((2...35).contains(lowAmongFirst), "\(lowAmongFirst)")
            }
        }
    }

    @Test("two handlers of one name, no queue, a queue twice: refused at the start")
    func mistakes() async {
        let twice = Worker(backend, logger: quiet) {
            Handler(Work.self) { _, _ in }
            Handler(Work.self) { _, _ in }
        }
        await #expect(throws: WorkerError.self) { try await twice.run() }
        await #expect(throws: WorkerError.self) {
            try await Worker(backend, queues: [], logger: quiet) { Handler(Work.self) { _, _ in } }.run()
        }
        await #expect(throws: WorkerError.self) {
            try await Worker(backend, queues: ["a", "a"], logger: quiet) { Handler(Work.self) { _, _ in } }.run()
        }
    }
}
