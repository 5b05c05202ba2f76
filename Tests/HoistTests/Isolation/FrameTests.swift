import Foundation
import HoistTesting
import Testing

@testable import Hoist

@Suite("Frames between a worker and its children")
struct FrameTests {
    private static func frames(_ bytes: [UInt8], chunk: Int) throws -> [[UInt8]] {
        var buffer = FrameBuffer()
        var found: [[UInt8]] = []
        for start in stride(from: 0, to: bytes.count, by: chunk) {
            Array(bytes[start..<min(start + chunk, bytes.count)]).withUnsafeBytes { buffer.append($0) }
            while let frame = try buffer.next() { found.append(Array(frame)) }
        }
        return found
    }

    private static let call = IsolatedCall(
        run: 7, jobID: "id", jobName: "näme", queue: "default", attempt: 2, lostWorkers: 1,
        limits: RunLimits(time: .seconds(3), heartbeat: .milliseconds(5), memory: .gibibytes(1)),
        envelope: Array("{}".utf8))

    @Test("commands come out as they went in, whole, byte by byte and glued together", arguments: [1, 3, 100_000])
    func commands(chunk: Int) throws {
        var record = JobRecord(id: "a", name: "b", queue: "c", state: .succeeded, output: ["size": [1, nil, 2.5]])
        record.headers = ["traceparent": "00-1", "someHeader": 1]
        record.history = [
            AttemptRecord(
                number: 1, worker: "w", startedAt: Date(timeIntervalSince1970: 5.25),
                endedAt: Date(timeIntervalSince1970: 6), outcome: "x",
                failure: nil)
        ]
        let commands: [ChildCommand] = [
            .perform(Self.call), .cancel(7, .noProgress),
            .reply(1, .published([.enqueued, .keyHeld(by: "x"), .replaced("y"), .alreadyEnqueued])),
            .reply(2, .record(record)), .reply(3, .failed(BackendError(.full, "no room", isRetrySafe: true))),
            .reply(4, .cancelled(.requested)),
            .update(5, record), .update(5, nil), .stop,
        ]
        let found = try Self.frames(commands.flatMap { $0.encoded() }, chunk: chunk)
        #expect(found.count == commands.count)
        for (frame, command) in zip(found, commands) {
            let decoded = "\(try ChildCommand(frame[...]))"
            #expect(decoded == "\(command)")
        }
    }

    @Test("reports come out as they went in", arguments: [1, 100_000])
    func reports(chunk: Int) throws {
        let failure = JobFailure(
            kind: .crashed, type: "T", message: "m", crash: .init(signal: 11, lastLines: ["a"], backtrace: "b"))
        var done = IsolatedResult(run: 7, outcome: .succeeded(output: Array("[1]".utf8), retention: 1.5))
        (done.children, done.cpu, done.peakMemory, done.memory, done.hasDescendants) = (["x", "y"], 5, 6, 7, true)
        let outcomes: [Outcome] = [
            .notStarted, .failed(failure), .snoozed(until: Date(timeIntervalSince1970: 1), closesQueue: true),
            .cancelled, .handedBack,
            .expired,
            .retry(
                at: Date(timeIntervalSince1970: 2), failure,
                change: .arguments(Arguments(positional: [1], keyword: ["camelCase": [:]]))),
        ]
        let reports: [ChildReport] =
            [
                .ready, .finished(done), .progress(1, JobProgress(fraction: 0.5, message: "m", details: ["aB": "c"])),
                .sign(2),
            ]
            + [.log(3, LogLine(level: "info", message: "hi", metadata: ["aB": "c"], source: "s"))]
            + [.request(9, .watch("a")), .request(10, .unwatch(9)), .request(11, .queues(exchange: "e", topic: "t"))]
            + outcomes.map { .finished(IsolatedResult(run: 8, outcome: $0)) }
        let found = try Self.frames(reports.flatMap { $0.encoded() }, chunk: chunk)
        #expect(found.count == reports.count)
        for (frame, report) in zip(found, reports) { #expect("\(try ChildReport(frame[...]))" == "\(report)") }
    }

    @Test("whatever a broken child sends is refused, and nothing traps")
    func garbage() {
        var random = SystemRandomNumberGenerator()
        let whole = ChildReport.finished(IsolatedResult(run: 7, outcome: .succeeded(output: [0x31], retention: nil)))
            .encoded()
        for round in 0..<20_000 {
            var bytes = whole
            switch round % 3 {
            case 0: bytes = (0..<Int.random(in: 1...60)).map { _ in UInt8.random(in: 0...255, using: &random) }
            case 1: bytes[Int.random(in: 4..<bytes.count)] = UInt8.random(in: 0...255, using: &random)
            default: bytes.removeLast(Int.random(in: 1..<bytes.count - 4))
            }
            _ = try? ChildReport(bytes.dropFirst(4))
            _ = try? ChildReport(bytes[...])
            var buffer = FrameBuffer()
            bytes.withUnsafeBytes { buffer.append($0) }
            _ = try? buffer.next()
        }
        var buffer = FrameBuffer(maximumBytes: 1000)
        ([0xE9, 3, 0, 0] as [UInt8]).withUnsafeBytes { buffer.append($0) }
        #expect(throws: WireError.self) { try buffer.next() }
        #expect(throws: WireError.self) { try ChildReport(whole[4...] + [0]) }
        let noJSON = ChildReport.finished(
            IsolatedResult(run: 7, outcome: .succeeded(output: Array("{".utf8), retention: nil))
        ).encoded()
        #expect(throws: WireError.self) { try ChildReport(noJSON[4...]) }
    }

    @Test("numbers that no job can have used are taken for the largest that can be reckoned with")
    func numbers() throws {
        var done = IsolatedResult(run: 7, outcome: .cancelled)
        (done.cpu, done.wall, done.peakMemory, done.memory) = (.max, -1, .max, .min)
        guard case .finished(let read) = try ChildReport(ChildReport.finished(done).encoded()[4...]) else {
            return #expect(Bool(false))
        }
        #expect(read.cpu == 1 << 50 && read.wall == 0 && read.peakMemory == 1 << 60 && read.memory == 0)
        let endless = ChildReport.finished(
            IsolatedResult(run: 7, outcome: .succeeded(output: [0x31], retention: .infinity))
        ).encoded()
        #expect(throws: WireError.self) { try ChildReport(endless[4...]) }
    }

    @Test("lines are cut, counted and put together over reads")
    func lines() {
        var splitter = LineSplitter()
        func split(_ text: String, keeping limit: Int = 10) -> ([String], Int) {
            Array(text.utf8).withUnsafeBytes { bytes in splitter.split(bytes, keeping: limit) }
        }
        #expect(split("one\ntw") == (["one"], 0))
        #expect(split("o\n\nthree") == (["two", ""], 0))
        #expect(split("\na\nb\nc\nd", keeping: 2) == (["b", "c"], 2))
        #expect(splitter.end() == "d")
        #expect(splitter.end() == nil)
        let (long, _) = split(String(repeating: "x", count: 5000) + "\n")
        #expect(long.map(\.utf8.count) == [LineSplitter.maximumBytes])
    }
}
