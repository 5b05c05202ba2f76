import Hoist
import HoistTesting
import Testing

@Suite("Asking and telling a live worker", .timeLimit(.minutes(3)))
struct WorkerCommandTests {
    private struct Slow: Job { static let name = "test.slow" }

    private func refusal(_ reply: WorkerReply) -> String? {
        if case .refused(let reason) = reply { reason } else { nil }
    }

    private func status(of worker: Worker) async -> WorkerStatus? {
        if case .status(let status) = await worker.perform(.status) { status } else { nil }
    }

    @Test("queues are added and taken away while it runs, and others can see that", arguments: [true, false])
    func queues(pushes: Bool) async throws {
        let backend: Backend = pushes ? Backend(PushBroker(), results: MemoryBackend()) : MemoryBackend().backend
        let client = JobClient(backend, logger: quiet)
        let worker = Worker(backend, queues: ["one"], logger: quiet) { Handler(Echo.self) { job, _ in job.text } }
        #expect(refusal(await worker.perform(.status)) != nil, "it does not run yet")
        try await withWorker(worker) {
            let isConsuming = try await eventually { worker.health.isConsuming }
            #expect(isConsuming)
            let waiting = try await client.enqueue(Echo(text: "two"), .queue("two"))
            guard case .done = await worker.perform(.addQueue("two")) else { Issue.record("refused"); return }
            #expect(refusal(await worker.perform(.addQueue("two"))) != nil)
            #expect(try await waiting.output() == "two")
            #expect(await status(of: worker)?.worker.queues == ["one", "two"])
            if let directory = backend.directory {
                #expect(try await directory.workers().first?.queues == ["one", "two"])
            }
            guard case .done = await worker.perform(.removeQueue("one")),
                case .done = await worker.perform(.removeQueue("two"))
            else { Issue.record("refused"); return }
            #expect(refusal(await worker.perform(.removeQueue("two"))) != nil)
            #expect(await status(of: worker)?.worker.queues == [])
            let left = try await client.enqueue(Echo(text: "nobody"), .queue("two"))
            guard case .done = await worker.perform(.addQueue("one")) else { Issue.record("refused"); return }
            let served = try await client.enqueue(Echo(text: "one"), .queue("one"))
            #expect(try await served.output() == "one")
            #expect(try await left.record()?.state != .succeeded)
        }
        #expect(refusal(await worker.perform(.status)) != nil, "it does not run any more")
    }

    @Test("a queue whose limits or topics the backend cannot keep is refused with the reason")
    func unsupported() async throws {
        var backend = MemoryBackend().backend
        (backend.topics, backend.limits) = (nil, nil)
        let worker = Worker(backend, logger: quiet) { Handler(Echo.self) { job, _ in job.text } }
        try await withWorker(worker) {
            let isConsuming = try await eventually { worker.health.isConsuming }
            #expect(isConsuming)
            let limited = QueueSubscription("x", limits: [.running(1)])
            #expect(refusal(await worker.perform(.addQueue(limited)))?.contains("limits") == true)
            let bound = QueueSubscription("x", topics: [.topic("a.*", exchange: "e")])
            #expect(refusal(await worker.perform(.addQueue(bound)))?.contains("topics") == true)
            #expect(await status(of: worker)?.worker.queues == ["default"])
        }
    }

    @Test("it tells what runs in which lane, stops one job, and gives a lane another size")
    func jobs() async throws {
        let backend = MemoryBackend()
        let client = JobClient(backend, logger: quiet)
        let worker = Worker(backend, lanes: [.async(2)], logger: quiet) {
            Handler(Slow.self) { _, _ in try await Task.sleep(for: .seconds(60)) }
        }
        try await withWorker(worker) {
            let first = try await client.enqueue(Slow())
            #expect(try await eventually { await status(of: worker)?.jobs.first?.hasBegun == true })
            let told = try #require(await status(of: worker))
            #expect(told.jobs.map(\.jobID) == [first.id] && told.jobs.map(\.jobName) == ["test.slow"])
            #expect(told.lanes.map(\.kind) == [.async] && told.health.isConsuming)
            #expect(told.lanes.map(\.slots) == [2] && told.lanes.map(\.used) == [1])
            guard case .done = await worker.perform(.resize(.async(5))) else { Issue.record("refused"); return }
            #expect(await status(of: worker)?.lanes.first?.slots == 5)
            #expect(refusal(await worker.perform(.resize(.blocking(5)))) != nil, "it has no such lane")
            #expect(refusal(await worker.perform(.cancel("nobody"))) != nil)
            guard case .done = await worker.perform(.cancel(first.id)) else { Issue.record("refused"); return }
            #expect(try await eventually { try await first.state() == .cancelled })
        }
    }
}
