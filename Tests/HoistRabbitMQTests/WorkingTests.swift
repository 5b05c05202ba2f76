import AMQP
import Foundation
import Hoist
import HoistRabbitMQ
import HoistTesting
import Synchronization
import TestServers
import Testing

@Suite("Jobs on RabbitMQ", .timeLimit(.minutes(3)))
struct WorkingTests {
    private struct Double: Job {
        static let name = "double"
        var number: Int
        typealias Output = Int
    }

    private struct Fail: Job {
        static let name = "fail"
        static let options = JobOptions(retry: .fixed(.milliseconds(10), maxAttempts: 3))
        var reason: String
    }

    private func worker(_ bench: RabbitBench, slots: Int = 8, _ change: (inout Worker.Configuration) -> Void = { _ in })
        -> Worker
    {
        var configuration = Worker.Configuration()
        change(&configuration)
        return Worker(
            bench.backend, queues: ["default"], lanes: [.async(slots)], configuration: configuration,
            logger: RabbitBench.silent
        ) {
            Handler(Double.self) { job, _ in job.number * 2 }
            Handler(Fail.self) { job, _ in throw Oops(description: job.reason) }
        }
    }

    private struct Oops: Error, CustomStringConvertible {
        var description: String
    }

    @Test("outputs and failures come back, retries are counted, and the queue is empty in the end")
    func endToEnd() async throws {
        let bench = try await RabbitBench()
        try await withWorker(worker(bench)) {
            let handles = try await bench.client.enqueue(contentsOf: (0..<300).map(Double.init))
            for (number, handle) in handles.enumerated() {
                #expect(try await handle.output(timeout: .seconds(30)) == number * 2)
            }
            let failed = try await bench.client.enqueue(Fail(reason: "no"))
            let error = await #expect(throws: JobError.self) { try await failed.output(timeout: .seconds(30)) }
            #expect(error?.failure?.message == "no")
            let record = try await failed.record()
            #expect(record?.attempts == 3, "\(String(describing: record))")
        }
        let probe = try await bench.probe()
        #expect(try await probe.state(of: "default").messages == 0)
        // The dead letter has the bytes it came with, and the reason.
        let dead = try #require(try await probe.get("hoist.dead.default"))
        let reason = dead.delivery.message.properties.headers?["x-hoist-reason"]?.textValue
        #expect(reason?.contains("Oops") == true)
        #expect(dead.delivery.message.properties.headers?["retries"]?.integerValue == 2)
    }

    @Test(
        "a delayed job waits with the broker, less than a second as well as more",
        arguments: [
            Duration.milliseconds(300), .milliseconds(2500),
        ])
    func delays(_ delay: Duration) async throws {
        let bench = try await RabbitBench(.init(delayQueues: .classic, workerHeartbeat: .seconds(2)))
        let begun = Date()
        let handle = try await bench.client.enqueue(Double(number: 4), .after(delay))
        try await withWorker(worker(bench)) {
            let output = try await handle.output(timeout: .seconds(30))
            #expect(output == 8)
        }
        let record = try #require(try await handle.record())
        let waited = try #require(record.startedAt).timeIntervalSince(begun)
        #expect(waited >= Swift.Double(delay.components.seconds) + 0.25)
    }

    @Test("a job whose name this worker does not know goes to one that does, and blocks nothing")
    func unknownNames() async throws {
        let bench = try await RabbitBench(.init(workerHeartbeat: .seconds(2), unknownNamePause: .milliseconds(300)))
        let strange = try await bench.client.enqueue(named: "strange", arguments: Arguments(positional: [1]))
        try await withWorker(worker(bench, slots: 1)) {
            #expect(try await bench.client.enqueue(Double(number: 1)).output(timeout: .seconds(30)) == 2)
            let other = Worker(bench.backend, queues: ["default"], logger: RabbitBench.silent) {
                Handler(named: "strange") { arguments, _ in .array(arguments.positional) }
            }
            try await withWorker(other) {
                let output = try await strange.output(timeout: .seconds(30))
                #expect(output == [1])
            }
        }
    }

    @Test("bad messages become dead letters with their bytes, and the good ones between them are done")
    func badMessages() async throws {
        let bench = try await RabbitBench()
        let probe = try await bench.probe()
        try await probe.confirmPublishes()
        try await withWorker(worker(bench)) {
            _ = try await bench.client.enqueue(Double(number: 0)).output(timeout: .seconds(30))
            var generator = Fuzzing.Generator(seed: 7)
            var handles: [JobHandle<Int>] = []
            for round in 0..<20 {
                let bad = (0..<50).map { index -> AMQPChannel.Publication in
                    let bytes = (0..<Int.random(in: 0...200, using: &generator)).map { _ in
                        UInt8.random(in: 0...255, using: &generator)
                    }
                    var message = AMQPMessage(body: bytes)
                    message.properties.contentType =
                        index % 3 == 0 ? "application/json" : "application/x-python-serialize"
                    if index % 2 == 0 {
                        message.properties.headers = [
                            "task": index % 4 == 0 ? "double" : 5, "id": .array([1, .void]), "eta": "never",
                            "timelimit": .table(["a": .bytes([255])]),
                        ]
                    }
                    message.properties.correlationID = "bad \(round) \(index)"
                    return .init(message, routingKey: "default")
                }
                try await probe.publish(bad)
                handles.append(try await bench.client.enqueue(Double(number: round)))
            }
            for (round, handle) in handles.enumerated() {
                #expect(try await handle.output(timeout: .seconds(30)) == round * 2)
            }
            var dead = 0
            _ = try await eventually {
                dead = try await probe.state(of: "hoist.dead.default").messages
                return dead == 1000
            }
            #expect(dead == 1000)
            let first = try #require(try await probe.get("hoist.dead.default")).delivery.message
            #expect(first.properties.headers?["x-hoist-reason"] != nil)
            #expect(first.properties.correlationID?.hasPrefix("bad") == true)
        }
    }

    @Test("a job that is running is cancelled, and one that waits when it comes to a worker")
    func cancelling() async throws {
        let bench = try await RabbitBench()
        let begun = Atomic(0)
        let worker = Worker(bench.backend, queues: ["default"], lanes: [.async(1)], logger: RabbitBench.silent) {
            Handler(Double.self) { job, _ in
                begun.add(1, ordering: .relaxed)
                try await Task.sleep(for: .seconds(60))
                return job.number
            }
        }
        try await withWorker(worker) {
            let running = try await bench.client.enqueue(Double(number: 1))
            let waiting = try await bench.client.enqueue(Double(number: 2))
            #expect(try await eventually { begun.load(ordering: .relaxed) == 1 })
            // A worker that has begun to work may not listen to requests yet.
            let fleet = try Fleet(bench.backend)
            #expect(try await eventually { try await fleet.replies(to: .ping).count == 1 })
            #expect(try await waiting.cancel() == .requested)
            #expect(try await running.cancel() == .requested)
            for handle in [running, waiting] {
                let error = await #expect(throws: JobError.self) { try await handle.output(timeout: .seconds(30)) }
                #expect(error?.code == .cancelled)
            }
            #expect(begun.load(ordering: .relaxed) == 1)
        }
    }

    @Test("a worker that is sent nothing by itself hears of a job of another program all the same")
    func fetching() async throws {
        let bench = try await RabbitBench()
        // Kinds that share slots: RabbitMQ cannot choose among them, so that the worker asks.
        let worker = Worker(bench.backend, queues: ["default"], lanes: [.async(4)], logger: RabbitBench.silent) {
            Handler(Double.self) { job, _ in job.number * 2 }
            Handler(Fail.self) { _, _ in }.slots(3)
        }
        let other = JobClient(
            Backend(try RabbitMQBackend(url: bench.url), results: bench.backend), logger: RabbitBench.silent)
        try await withWorker(worker) {
            for round in 0..<3 {
                let output = try await other.enqueue(Double(number: round)).output(timeout: .seconds(30))
                #expect(output == round * 2)
            }
        }
    }

    @Test("a job that has expired while it was delayed ends as expired, and is not run")
    func expiry() async throws {
        let bench = try await RabbitBench(.init(delayQueues: .classic))
        let handle = try await bench.client.enqueue(
            Double(number: 1), .after(.seconds(2)), .expires(after: .seconds(1)))
        try await withWorker(worker(bench)) {
            let ended = try await eventually { try await bench.backend.record(of: handle.id)?.state == .expired }
            #expect(ended)
        }
    }

    @Test("a delayed job comes to its own queue, and to none whose name is the end of that queue's")
    func similarNames() async throws {
        let bench = try await RabbitBench(.init(delayQueues: .classic))
        _ = try await bench.client.enqueue(Double(number: 1), .queue("high"), .after(.seconds(1)))
        _ = try await bench.client.enqueue(Double(number: 2), .queue("video.high"), .after(.seconds(1)))
        let probe = try await bench.probe()
        let came = try await eventually {
            let states = (try await probe.state(of: "high"), try await probe.state(of: "video.high"))
            return states.0.messages == 1 && states.1.messages >= 1
        }
        #expect(came)
        #expect(try await probe.state(of: "high").messages == 1)
        #expect(try await probe.state(of: "video.high").messages == 1)
    }

    @Test("headers that nobody can read cost their message, and no worker")
    func hostileHeaders() async throws {
        let bench = try await RabbitBench()
        let probe = try await bench.probe()
        try await probe.confirmPublishes()
        try await withWorker(worker(bench)) {
            _ = try await bench.client.enqueue(Double(number: 0)).output(timeout: .seconds(30))
            var deep = AMQPFieldValue.table([:])
            for _ in 0..<60 { deep = .table(["n": deep]) }
            let wide = AMQPTable((0..<11_000).map { .init("f\($0)", .void) })
            var messages: [AMQPMessage] = []
            for headers in [["n": deep], wide] as [AMQPTable] {
                var message = AMQPMessage(body: [1])
                message.properties.headers = headers
                messages.append(message)
            }
            var counted = AMQPMessage(body: Array("[[1],{},{}]".utf8))
            counted.properties.contentType = "application/json"
            counted.properties.headers = ["task": "double", "id": "counted", "x-delivery-count": .int64(.max)]
            messages.append(counted)
            try await probe.publish(messages.map { .init($0, routingKey: "default") })
            let output = try await bench.client.enqueue(Double(number: 5)).output(timeout: .seconds(30))
            #expect(output == 10)
            let counts = try await eventually { try await probe.state(of: "hoist.dead.default").messages == 2 }
            #expect(counts)
            let isDone = try await eventually { try await bench.backend.record(of: "counted")?.state == .succeeded }
            #expect(isDone)
        }
    }

    @Test("a queue that is full stops no worker: what goes back to it waits until there is room")
    func fullQueue() async throws {
        let bench = try await RabbitBench(.init(defaultQueue: QueueSettings(maximumLength: 3)))
        var configuration = JobClient.Configuration()
        configuration.waitsWhenFull = .seconds(60)
        let client = JobClient(bench.backend, configuration: configuration, logger: RabbitBench.silent)
        try await withWorker(worker(bench, slots: 2)) {
            let failing = try await client.enqueue(Fail(reason: "no"))
            try await withThrowingTaskGroup(of: Int.self) { group in
                for number in 0..<60 {
                    group.addTask { try await client.enqueue(Double(number: number)).output(timeout: .seconds(60)) }
                }
                var sum = 0
                for try await output in group { sum += output }
                #expect(sum == 60 * 59)
            }
            let error = await #expect(throws: JobError.self) { try await failing.output(timeout: .seconds(60)) }
            #expect(error?.failure?.message == "no")
        }
    }

    @Test("a message that is too large is set aside, and takes no slot from the others")
    func tooLarge() async throws {
        let bench = try await RabbitBench()
        let probe = try await bench.probe()
        try await probe.confirmPublishes()
        var server = try AMQPConfiguration(url: bench.url)
        server.limits.maximumBodyBytes = 10_000
        let backend = Backend(try RabbitMQBackend(server), results: bench.backend)
        let worker = Worker(backend, queues: ["default"], lanes: [.async(1)], logger: RabbitBench.silent) {
            Handler(Double.self) { job, _ in job.number * 2 }
        }
        try await probe.declare(exchange: "default", .direct)
        try await probe.declare(queue: "default")
        try await probe.publish([.init(AMQPMessage(body: Array(repeating: 1, count: 50_000)), routingKey: "default")])
        try await withWorker(worker) {
            for number in 0..<3 {
                let output = try await bench.client.enqueue(Double(number: number)).output(timeout: .seconds(30))
                #expect(output == number * 2)
            }
        }
        // It is there for a person to see, and comes back when the worker leaves.
        let isBack = try await eventually { try await probe.state(of: "default").messages == 1 }
        #expect(isBack)
    }
}
