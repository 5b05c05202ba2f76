import Foundation
import Hoist
import HoistTesting
import Logging
import Testing

/// Canvases in Celery's form, from a Swift client through a Swift worker.
@Suite("Canvases, begun and carried on in Swift", .timeLimit(.minutes(2)))
struct CanvasRunTests {
    private let backend = MemoryBackend()
    private var jobs: JobClient { JobClient(backend, logger: Logger(label: "test")) }

    private func add(_ arguments: WireValue...) -> Signature { .task("add", arguments) }

    private func running<T: Sendable>(_ body: @Sendable () async throws -> T) async throws -> T {
        let worker = Worker(backend, queues: ["celery"], logger: Logger(label: "test")) {
            Handler(named: "add") { arguments, _ in
                guard arguments.positional.allSatisfy({ $0.integerValue != nil }) else {
                    throw JobDirective.deadLetter("no numbers: \(arguments.positional)")
                }
                return .integer(arguments.positional.compactMap(\.integerValue).reduce(0, +))
            }
            Handler(named: "total") { arguments, _ in
                .integer((arguments.positional[0].arrayValue ?? []).compactMap(\.integerValue).reduce(0, +))
            }
            Handler(named: "replaced") { arguments, _ in
                throw JobDirective.replace(
                    by: .chain([.task("add", arguments.positional), .group([.task("add", [1]), .task("add", [2])])]))
            }
            Handler(named: "replaced by nothing") { _, _ in throw JobDirective.replace(by: .chain([])) }
            Handler(named: "replaced for ever") { _, _ in throw JobDirective.replace(by: .task("replaced for ever")) }
            Handler(named: "grows") { _, context in
                for number: Int64 in 1...3 { try await context.addToChord(.task("add", [.integer(number), 100])) }
                return 0
            }
            Handler(named: "blocks", in: .blocking) { _, _ in nil }
        }
        return try await withWorker(worker) { try await body() }
    }

    @Test("a chord runs its body on the outputs, in order, once all have ended")
    func chord() async throws {
        let total = try await running {
            try await jobs.enqueue(canvas: .chord([add(1, 2), add(3, 4), .chain([add(5), add(6)])], .task("total"))).job
                .output(timeout: .seconds(10))
        }
        #expect(total == 21)
    }

    @Test("a group in the middle of a chain is a chord, and one at its end is waited for member by member")
    func groups() async throws {
        let (middle, members) = try await running {
            let middle = try await jobs.enqueue(
                canvas: .chain([add(1, 1), .group([add(10), add(20)]), .task("total")])
            ).job
                .output(timeout: .seconds(10))
            let group = try await jobs.enqueue(canvas: .group([add(1, 1), add(2, 2)]))
            var outputs: [WireValue] = []
            for member in group.members { outputs.append(try await member.output(timeout: .seconds(10))) }
            return (middle, outputs)
        }
        #expect(middle == 34 && members == [2, 4])
    }

    @Test("a job that is replaced hands on what took its place, to the rest of its chain too")
    func replacement() async throws {
        let (alone, inChain) = try await running {
            (
                try await jobs.enqueue(
                    named: "replaced", arguments: Arguments(positional: [5]), options: [.queue("celery")]
                )
                .output(timeout: .seconds(10)),
                try await jobs.enqueue(canvas: .chain([.task("replaced", [5]), .task("total")])).job
                    .output(timeout: .seconds(10))
            )
        }
        #expect(alone == [6, 7] && inChain == 13)
    }

    @Test(
        "what cannot take the place of a job fails it with the reason",
        arguments: [("replaced by nothing", "empty chain"), ("replaced for ever", "1000 times")])
    func badReplacement(_ name: String, _ reason: String) async throws {
        let error = try await running {
            await #expect(throws: JobError.self) {
                try await jobs.enqueue(named: name, options: [.queue("celery")]).output(timeout: .seconds(60))
            }
        }
        #expect(error?.failure?.message.contains(reason) == true, "\(error as Any)")
    }

    @Test("a member adds further members to its chord, and the body waits for them")
    func growing() async throws {
        let total = try await running {
            try await jobs.enqueue(canvas: .chord([.task("grows"), add(1, 1)], .task("total"))).job
                .output(timeout: .seconds(10))
        }
        #expect(total == .integer(0 + 2 + 101 + 102 + 103))
    }

    @Test("map and starmap perform a handler for each item, and refuse one that they cannot perform")
    func maps() async throws {
        @Sendable func call(_ kind: String, _ task: String, _ items: WireValue) -> Signature {
            .task(kind, [], ["task": Signature.task(task).wireValue, "it": items], isImmutable: true)
        }
        try await running {
            let outputs = try await jobs.enqueue(canvas: call("celery.starmap", "add", [[1, 1], [2, 2]])).job
                .output(timeout: .seconds(10))
            #expect(outputs == [2, 4])
            let mapped = try await jobs.enqueue(canvas: call("celery.map", "add", [3, 4])).job.output(
                timeout: .seconds(10))
            #expect(mapped == [3, 4])
            let error = await #expect(throws: JobError.self) {
                try await jobs.enqueue(canvas: call("celery.map", "blocks", [1])).job.output(timeout: .seconds(10))
            }
            #expect(error?.failure?.message.contains("blocking lane") == true, "\(error as Any)")
            // One of a name that nobody here knows waits for a worker that knows it.
            let stranger = try await jobs.enqueue(canvas: call("celery.map", "stranger", [1])).job
            let waits = try await eventually { try await stranger.record()?.state == .scheduled }
            #expect(waits)
        }
    }

    @Test(
        "a canvas from a stranger that makes no sense fails its job, and the worker goes on",
        arguments: [
            ["subtask_type": "chord", "task": "celery.chord", "kwargs": ["header": []]],
            ["subtask_type": "group", "task": "celery.group", "kwargs": ["tasks": [["no": "task"]]]],
            ["subtask_type": "chain", "task": "celery.chain", "kwargs": ["tasks": 5]],
            ["subtask_type": "chord", "task": "celery.chord", "kwargs": ["header": [1], "body": ["task": "total"]]],
        ] as [WireValue])
    func hostile(_ signature: WireValue) async throws {
        let sum = try await running {
            let bad = try await jobs.enqueue(canvas: add(1, 1).link(try Signature(signature)))
            let error = await #expect(throws: JobError.self) { try await bad.job.output(timeout: .seconds(10)) }
            #expect(error?.failure?.kind == .undecodable, "\(error as Any)")
            return try await jobs.enqueue(canvas: add(1, 1)).job.output(timeout: .seconds(10))
        }
        #expect(sum == 2)
    }

    @Test("a canvas that is nested too deep is refused, and nothing is published")
    func depth() async throws {
        var canvas = add(1)
        for _ in 0..<80 { canvas = .group([canvas, add(1)]) }
        for _ in 0..<80 { canvas = .chord([canvas], .task("total")) }
        await #expect(throws: JobFailure.self) { try await jobs.enqueue(canvas: canvas) }
        #expect(try await backend.jobs(JobFilter()).isEmpty)
    }
}
