import Foundation
import Hoist
import HoistTesting
import Logging
import Testing

struct Video: Codable, Sendable, Equatable { var path: String }
struct Piece: Codable, Sendable, Equatable {
    var path: String
    var start: Double
}
struct Report: Codable, Sendable, Equatable { var pieces: [String] }

struct Download: Job {
    static let name = "media.download"
    var url: String
    typealias Output = Video
}
struct Split: Job {
    static let name = "media.split"
    var parts = 3
    typealias Input = Video
    typealias Output = [Piece]
}
struct Transcode: Job {
    static let name = "media.transcode"
    static let options = JobOptions(retry: .none)
    var codec = "h264"
    typealias Input = Piece
    typealias Output = Piece
}
struct Join: Job {
    static let name = "media.join"
    typealias Input = [Piece]
    typealias Output = Report
}
struct Warn: Job {
    static let name = "media.warn"
    var channel = "ops"
    typealias Input = StepFailure
}
struct Tell: Job {
    static let name = "media.tell"
    typealias Input = JobID
}
struct Placeholder: Job {
    static let name = "media.placeholder"
    typealias Input = StepFailure
    typealias Output = Report
}
struct Transcribe: Job {
    static let name = "media.transcribe"
    static let options = JobOptions(retry: .none)
    var fails = false
    typealias Input = Video
    typealias Output = String
}
struct Publish: Job {
    static let name = "media.publish"
    typealias Input = Joined<Report, StepOutcome<String>>
    typealias Output = String
}
struct Both: Job {
    static let name = "media.both"
    typealias Input = Joined<Report, String>
    typealias Output = String
}
struct CleanUp: Job { static let name = "media.clean_up" }
struct AddTo: Job {
    static let name = "math.add"
    var y: Int
    typealias Input = Int
    typealias Output = Int
}
struct Start: Job {
    static let name = "math.start"
    var x = 1
    typealias Output = Int
}
struct Total: Job {
    static let name = "math.total"
    typealias Input = [Int]
    typealias Output = Int
}

/// What jobs have written down while they ran.
actor Notebook {
    private(set) var lines: [String] = []
    func write(_ line: String) { lines.append(line) }
}

/// Workflows on a backend of each kind.
@Suite("Workflows", .timeLimit(.minutes(2)))
struct WorkflowTests {
    private let notebook = Notebook()
    private let backend = MemoryBackend()
    private var jobs: JobClient { JobClient(backend, logger: Logger(label: "test")) }

    private func running<T: Sendable>(_ body: @Sendable () async throws -> T) async throws -> T {
        let worker = WorkflowTests.worker(backend, notebook)
        return try await withWorker(worker) { try await body() }
    }

    static func worker(_ backend: some BackendConvertible, _ notebook: Notebook) -> Worker {
        var configuration = Worker.Configuration()
        configuration.drainTimeout = .seconds(1)
        return Worker(backend, queues: ["default"], configuration: configuration, logger: Logger(label: "test")) {
            Handler(Download.self) { job, _ in Video(path: "/" + job.url) }
            Handler(Split.self) { job, video, _ in
                (0..<job.parts).map { Piece(path: "\(video.path)#\($0)", start: Double($0)) }
            }
            Handler(Transcode.self) { job, piece, context in
                if piece.path.contains("broken") { throw JobDirective.deadLetter("cannot read \(piece.path)") }
                await notebook.write("transcode \(context.id)")
                return Piece(path: "\(piece.path).\(job.codec)", start: piece.start)
            }
            Handler(Join.self) { _, pieces, _ in Report(pieces: pieces.map(\.path)) }
            Handler(Warn.self) { job, failure, _ in
                await notebook.write("\(job.channel): \(failure.step) \(failure.message)")
            }
            Handler(Tell.self) { _, id, _ in await notebook.write("failed \(id)") }
            Handler(Placeholder.self) { _, failure, _ in Report(pieces: ["in place of \(failure.step)"]) }
            Handler(Transcribe.self) { job, video, _ in
                if job.fails { throw JobDirective.deadLetter("deaf") }
                return "words of \(video.path)"
            }
            Handler(Publish.self) { _, input, _ in
                let (report, text) = input.values
                switch text {
                case .succeeded(let words): return "\(report.pieces.count) pieces, \(words)"
                case .failed(let failure): return "\(report.pieces.count) pieces, no words: \(failure.message)"
                }
            }
            Handler(Both.self) { _, input, _ in "\(input.values.0.pieces.count) \(input.values.1)" }
            Handler(CleanUp.self) { _, _ in await notebook.write("cleaned up") }
            Handler(AddTo.self) { job, x, _ in x + job.y }
            Handler(Start.self) { job, _ in job.x }
            Handler(Total.self) { _, numbers, _ in numbers.reduce(0, +) }
        }
    }

    @Test("a job gets its input, by place")
    func input() async throws {
        let sum = try await running { try await jobs.enqueue(AddTo(y: 2), on: 40).output(timeout: .seconds(10)) }
        #expect(sum == 42)
    }

    @Test("a chain hands outputs on, over an array known only at run time")
    func chain() async throws {
        let flow = Download(url: "film").then(Split()).then(forEach: Transcode(codec: "av1")).then(Join())
        let report = try await running {
            let handle = try await jobs.enqueue(flow)
            return try await handle.output(timeout: .seconds(10))
        }
        #expect(report == Report(pieces: (0..<3).map { "/film#\($0).av1" }))
    }

    @Test("a part of a workflow is started on a value")
    func partial() async throws {
        let flow: any Workflow<Video, Report> = Split(parts: 2).then(forEach: Transcode()).then(Join())
        let report = try await running { try await outputOfAny(flow, on: Video(path: "v")) }
        #expect(report.pieces == ["v#0.h264", "v#1.h264"])
    }

    private func outputOfAny<W: Workflow>(_ flow: W, on input: W.Input) async throws -> W.Output {
        try await jobs.enqueue(flow, on: input).output(timeout: .seconds(10))
    }

    @Test("a forEach over nothing hands on an empty array", arguments: [0, 1, 200])
    func sizes(_ count: Int) async throws {
        let report = try await running {
            try await jobs.enqueue(Split(parts: count).then(forEach: Transcode()).then(Join()), on: Video(path: "v"))
                .output(timeout: .seconds(20))
        }
        #expect(report.pieces == (0..<count).map { "v#\($0).h264" })
    }

    @Test("a forEach within a forEach keeps the order")
    func nested() async throws {
        let flow = Group([Download(url: "a").then(Split(parts: 2)), Download(url: "b").then(Split(parts: 3))])
            .then(forEach: ForEach(Transcode()).then(Join()))
        let reports = try await running { try await jobs.enqueue(flow).output(timeout: .seconds(10)) }
        #expect(reports.map(\.pieces) == [["/a#0.h264", "/a#1.h264"], ["/b#0.h264", "/b#1.h264", "/b#2.h264"]])
    }

    @Test("a group and members of different types are gathered in order")
    func groups() async throws {
        let (sum, both) = try await running {
            let group = Group((1...5).map { Start(x: $0).then(AddTo(y: 10)) })
            let all = All(Split().then(forEach: Transcode()).then(Join()), Transcribe())
            return (
                try await jobs.enqueue(group.then(Total())).output(timeout: .seconds(10)),
                try await jobs.enqueue(Download(url: "x").then(all).then(Both())).output(timeout: .seconds(10))
            )
        }
        #expect(sum == 65)
        #expect(both == "3 words of /x")
    }

    @Test(
        "a step that fails fails what hangs on it, with the step that was at fault, and runs what hangs on its failure")
    func failure() async throws {
        let id = "w"
        try await running {
            let flow = Split(parts: 2).then(forEach: Transcode()).then(Join()).onFailure(Warn()).onFailure(Tell())
            let handle = try await jobs.enqueue(flow, on: Video(path: "broken"), .id(id))
            let error = await #expect(throws: JobError.self) { try await handle.output(timeout: .seconds(10)) }
            #expect(error?.failure?.message.contains("cannot read broken#0") == true)
            _ = try await eventually { await notebook.lines.count == 2 }
            #expect(try await handle.status()?.state == .failed)
        }
        let lines = await notebook.lines.sorted()
        #expect(lines == ["failed w.1.0.0", "ops: media.transcode cannot read broken#0"])
    }

    @Test("what recovers takes the place of what failed")
    func recovery() async throws {
        let flow = Split(parts: 2).then(forEach: Transcode()).then(Join()).recover(with: Placeholder())
        let (broken, whole) = try await running {
            (
                try await jobs.enqueue(flow, on: Video(path: "broken")).output(timeout: .seconds(10)),
                try await jobs.enqueue(flow, on: Video(path: "v")).output(timeout: .seconds(10))
            )
        }
        #expect(broken.pieces == ["in place of media.transcode"])
        #expect(whole.pieces.count == 2)
    }

    @Test("a graph waits for several parents, and sees what became of them")
    func graph() async throws {
        @Sendable func flow(fails: Bool) -> Graph<String> {
            Graph { graph in
                let video = graph.add(Download(url: "u"))
                let report = graph.add(Split().then(forEach: Transcode()).then(Join()), on: video)
                let text = graph.add(Transcribe(fails: fails), on: video)
                graph.add(CleanUp(), after: report, text, if: .ended)
                return graph.add(Publish(), on: report, text.outcome)
            }
        }
        let (good, bad) = try await running {
            let outputs = (
                try await jobs.enqueue(flow(fails: false)).output(timeout: .seconds(10)),
                try await jobs.enqueue(flow(fails: true)).output(timeout: .seconds(10))
            )
            _ = try await eventually { await notebook.lines.count { $0 == "cleaned up" } == 2 }
            return outputs
        }
        #expect(good == "3 pieces, words of /u")
        #expect(bad == "3 pieces, no words: deaf")
    }

    @Test("a detached step waits and gets nothing")
    func detached() async throws {
        try await running {
            let handle = try await jobs.enqueue(Download(url: "u").followed(by: CleanUp()))
            _ = try await handle.output(timeout: .seconds(10))
        }
        #expect(await notebook.lines == ["cleaned up"])
    }

    @Test("a job on each of many inputs is one group")
    func each() async throws {
        try await running {
            let group = try await jobs.enqueue(each: AddTo(y: 1), on: Array(0..<50))
            var seen: Set<Int> = []
            for try await (index, output) in group.asTheyFinish {
                #expect(try output.get() == index + 1)
                seen.insert(index)
            }
            #expect(seen.count == 50)
            #expect(try await group.outputs(timeout: .seconds(5)) == Array(1...50))
            #expect(try await group.completedCount == 50)
        }
    }

    @Test("what makes no sense is refused with nothing stored")
    func refusals() async throws {
        let stranger = Mutexed<GraphNode<Video>?>(nil)
        _ = try await jobs.enqueue(
            Graph { graph in
                let video = graph.add(Download(url: "u"))
                stranger.set(video)
                return video
            }, .id("first"))
        let flow = Graph { graph in graph.add(Transcribe(), on: stranger.get()!) }
        await #expect(throws: WorkflowError.self) { try await jobs.enqueue(flow) }
        await #expect(throws: WorkflowError.self) { try await jobs.enqueue(Start().with(.id("own")).then(AddTo(y: 1))) }
        let many = Group((0..<100_001).map { Start(x: $0) })
        await #expect(throws: WorkflowError.self) { try await jobs.enqueue(many) }
        #expect(try await backend.workflows(limit: 10).map(\.id) == ["first"])
    }

    @Test("a cancelled workflow starts nothing more, and its waiting steps are cancelled")
    func cancellation() async throws {
        // No worker runs: the first step waits.
        let handle = try await jobs.enqueue(
            Download(url: "u").then(Split()).then(forEach: Transcode()).then(Join()), .id("w"))
        #expect(try await handle.cancel())
        #expect(try await handle.status()?.state == .cancelled)
        await #expect(throws: JobError.self) { try await handle.output(timeout: .seconds(5)) }
        #expect(try await backend.record(of: "w.0")?.state == .cancelled)
        #expect(try await handle.cancel() == false)
    }

    @Test("status shows each step with its job")
    func status() async throws {
        try await running {
            let handle = try await jobs.enqueue(
                Download(url: "u").then(Split()).then(forEach: Transcode()).then(Join().named("join")), .id("w"))
            _ = try await handle.output(timeout: .seconds(10))
            let status = try #require(try await handle.status())
            #expect(status.state == .succeeded && status.endedAt != nil && status.name == "join")
            #expect(status.steps.map(\.name) == ["media.download", "media.split", "media.transcode", "join"])
            #expect(status.steps.map(\.jobID) == ["w.0", "w.1", nil, "w"])
            #expect(status.steps.compactMap(\.state).allSatisfy { $0 == .succeeded })
            #expect(status.steps[2].elements == 3 && status.steps[2].ended == 3)
        }
    }

    @Test("a message grows by little, whatever the size of its workflow")
    func messageSize() async throws {
        let scale = Scale()
        let jobs = JobClient(
            MemoryBackend(), configuration: .init(middleware: [scale]), logger: Logger(label: "test"))
        _ = try await jobs.enqueue(Start())
        let alone = try #require(scale.sizes.get().last)
        for steps in [1, 10, 200] {
            var flow: any Workflow<NoInput, Int> = Start()
            for step in 0..<steps { flow = extended(flow, AddTo(y: step)) }
            try await begin(flow, jobs)
            #expect(try #require(scale.sizes.get().last) < alone + 600)
        }
    }

    /// Notes the size of what is enqueued.
    private struct Scale: EnqueueMiddleware {
        let sizes = Mutexed<[Int]>([])

        func enqueue(
            _ messages: [Message], next: @Sendable ([Message]) async throws -> [PublishResult]
        ) async throws -> [PublishResult] {
            sizes.set(sizes.get() + messages.map { $0.encodedEnvelope().count })
            return try await next(messages)
        }
    }

    private func extended<W: Workflow<NoInput, Int>>(_ flow: W, _ next: AddTo) -> any Workflow<NoInput, Int> {
        flow.then(next)
    }
    private func begin<W: Workflow<NoInput, Int>>(_ flow: W, _ jobs: JobClient) async throws {
        _ = try await jobs.enqueue(flow)
    }
}

/// A value that several threads may set.
final class Mutexed<Value: Sendable>: @unchecked Sendable {
    private let lock = NSLock()
    private var value: Value
    init(_ value: Value) { self.value = value }
    func set(_ new: Value) { lock.withLock { value = new } }
    func get() -> Value { lock.withLock { value } }
}
