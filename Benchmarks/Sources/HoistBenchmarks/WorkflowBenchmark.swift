import Foundation
import Hoist
import HoistRedis
import HoistSQLite
import Logging

/// What the steps of workflows cost, and the members of chords. `HoistBenchmarks workflows URL` with a running server, or a
/// path of a database; `peers/celery_workflows.py` measures the same canvases with Celery's workers.
enum WorkflowBenchmark {
    private struct Begin: Job {
        static let name = "bench.begin"
        typealias Output = Int
    }
    private struct Next: Job {
        static let name = "bench.next"
        typealias Input = Int
        typealias Output = Int
    }
    private struct Sum: Job {
        static let name = "bench.sum"
        typealias Input = [Int]
        typealias Output = Int
    }

    static func run(_ place: String) async throws {
        let backend: Backend =
            place.hasPrefix("redis") ? try RedisBackend(url: place).backend : try SQLiteBackend(path: place).backend
        let jobs = JobClient(backend, logger: silent)
        let worker = Worker(backend, queues: ["default", "celery"], lanes: [.async(64)], logger: silent) {
            Handler(Begin.self) { _, _ in 1 }
            Handler(Next.self) { _, number, _ in number + 1 }
            Handler(Sum.self) { _, numbers, _ in numbers.reduce(0, +) }
        }
        let running = Task { try await worker.run() }
        _ = try await jobs.enqueue(Begin()).output(timeout: .seconds(30))

        for steps in [10, 100, 1000] {
            let seconds = try await measure { try await output(of: chain(steps), jobs) }
            print("own form, chain of \(steps): \(format(seconds / Double(steps) * 1000)) ms a step")
        }
        let canvas = try await measure {
            let steps = (0..<99).map { _ in Signature.task(Next.name) }
            _ = try await jobs.enqueue(canvas: .chain([.task(Begin.name)] + steps)).job.output()
        }
        print("Celery's form, chain of 100: \(format(canvas / 100 * 1000)) ms a step")

        let plain = try await measure {
            let handles = try await jobs.enqueue(contentsOf: (0..<5000).map { _ in Begin() })
            for handle in handles { try await handle.output() }
        }
        print("the jobs alone: \(Int(5000 / plain)) jobs/s")
        for (count, size) in [(200, 10), (5, 1000)] {
            let own = try await measure {
                var handles: [WorkflowHandle<Int>] = []
                for _ in 0..<count {
                    handles.append(try await jobs.enqueue(ForEach(Next()).then(Sum()), on: Array(0..<size)))
                }
                for handle in handles { _ = try await handle.output() }
            }
            print("own form, \(count) times \(size) members: \(Int(Double(count * size) / own)) jobs/s")
            let chords = try await measure {
                var handles: [JobHandle<WireValue>] = []
                for _ in 0..<count {
                    let header = (0..<size).map { Signature.task(Next.name, [.integer(Int64($0))]) }
                    handles.append(try await jobs.enqueue(canvas: .chord(header, .task(Sum.name))).job)
                }
                for handle in handles { _ = try await handle.output() }
            }
            print("Celery's form, \(count) chords of \(size): \(Int(Double(count * size) / chords)) jobs/s")
        }
        worker.stop(.immediately)
        try await running.value
    }

    private static func chain(_ steps: Int) -> any Workflow<NoInput, Int> {
        func extended<W: Workflow<NoInput, Int>>(_ flow: W) -> any Workflow<NoInput, Int> { flow.then(Next()) }
        var flow: any Workflow<NoInput, Int> = Begin()
        for _ in 1..<steps { flow = extended(flow) }
        return flow
    }

    private static func output<W: Workflow<NoInput, Int>>(of flow: W, _ jobs: JobClient) async throws {
        _ = try await jobs.enqueue(flow).output(timeout: .seconds(120))
    }

    private static func measure(_ body: () async throws -> Void) async throws -> Double {
        let begin = ContinuousClock.now
        try await body()
        let components = (ContinuousClock.now - begin).components
        return Double(components.seconds) + Double(components.attoseconds) / 1e18
    }

    private static func format(_ value: Double) -> String { String(format: "%.3f", value) }
}
