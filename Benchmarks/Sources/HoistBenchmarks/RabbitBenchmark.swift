import Foundation
import Hoist
import HoistRabbitMQ
import Synchronization

/// What RabbitMQ and a worker do together: `HoistBenchmarks rabbit URL [JOBS]` prints rates of confirmed enqueues and of
/// processing with late acknowledgement, without results on either side.
enum RabbitBenchmark {
    static func run(_ url: String, jobs: Int) async throws {
        let backend = try RabbitMQBackend(url: url)
        let client = JobClient(backend, logger: silent)
        print("| RabbitMQ, no results | jobs/s |")
        print("|---|---|")
        // Many tasks that enqueue one job after another, each awaited.
        let tasks = 256
        let concurrent = try await rate(jobs) {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for task in 0..<tasks {
                    group.addTask {
                        for number in stride(from: task, to: jobs, by: tasks) {
                            _ = try await client.enqueue(NoOp(text: "x", number: number))
                        }
                    }
                }
                try await group.waitForAll()
            }
        }
        print("| enqueue, \(tasks) tasks, each confirmed | \(concurrent) |")
        let bulk = try await rate(jobs) {
            _ = try await client.enqueue(contentsOf: (0..<jobs).map { NoOp(text: "x", number: $0) })
        }
        print("| enqueue, `contentsOf:` | \(bulk) |")
        let done = Atomic(0)
        let worker = Worker(backend, lanes: [.async(256)], logger: silent) {
            Handler(NoOp.self) { job, _ in
                done.add(1, ordering: .relaxed)
                return job.number
            }
        }
        let running = Task { try await worker.run() }
        while done.load(ordering: .relaxed) == 0 { try await Task.sleep(for: .milliseconds(1)) }
        let first = done.load(ordering: .relaxed)
        let processed = try await rate(2 * jobs - first) {
            while done.load(ordering: .relaxed) < 2 * jobs { try await Task.sleep(for: .milliseconds(2)) }
        }
        print("| process, one worker, 256 slots | \(processed) |")
        // One at a time on an idle worker.
        var waits: [Double] = []
        for number in 0..<500 {
            let begun = ContinuousClock.now
            let before = done.load(ordering: .relaxed)
            _ = try await client.enqueue(NoOp(text: "x", number: number))
            while done.load(ordering: .relaxed) == before { await Task.yield() }
            waits.append((ContinuousClock.now - begun) / .milliseconds(1))
        }
        waits.sort()
        print("| enqueue to start, median and 99th percentile | \(waits[250]) ms, \(waits[495]) ms |")
        worker.stop()
        try await running.value
    }

    private static func rate(_ jobs: Int, _ body: () async throws -> Void) async throws -> Int {
        let begun = ContinuousClock.now
        try await body()
        return Int(Double(jobs) / ((ContinuousClock.now - begun) / .seconds(1)))
    }
}
