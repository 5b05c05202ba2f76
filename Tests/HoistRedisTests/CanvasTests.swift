import Foundation
import Hoist
import HoistRedis
import TestServers
import Testing

/// Celery's workflows, started by a Python client, through Swift workers alone and through Swift and Python workers
/// together.
@Suite(
    "Celery's workflows", .serialized, .timeLimit(.minutes(4)),
    .enabled(if: PythonPeer.interpreter != nil, "\(PythonPeer.isMissing)"))
struct CanvasTests {
    @Test("a chain goes on, by a Swift worker alone and beside a Python worker", arguments: [false, true])
    func chains(_ hasPythonWorker: Bool) async throws {
        let bench = try MixedBench()
        let python = hasPythonWorker ? try bench.startPythonWorker() : nil
        defer { if let python { PythonPeer.stop(python) } }
        let found = try await bench.withWorker { try await bench.python("steps", "40", in: "canvas.py") }
        #expect(found["value"] == 820)
        let family = found["family"]?.arrayValue ?? []
        #expect(family.count == 40)
        // Each step has started the next one, but for the last.
        let sums = (1...40).map { Int64($0 * ($0 + 1) / 2) }
        for (index, step) in family.enumerated() {
            #expect(step == ["SUCCESS", .integer(sums[index]), .integer(index < 39 ? 1 : 0)], "step \(index + 1)")
        }
    }

    @Test("a chain goes on with results in another database")
    func otherDatabase() async throws {
        let bench = try MixedBench(resultDatabase: 5)
        let found = try await bench.withWorker { try await bench.python("steps", "10", in: "canvas.py") }
        #expect(found["value"] == 55)
    }

    @Test("callbacks run: one, several, an immutable one, a chain")
    func links() async throws {
        let bench = try MixedBench()
        let found = try await bench.withWorker { try await bench.python("links", UUID().uuidString, in: "canvas.py") }
        #expect(found["one"] == 13 && found["first"] == 13 && found["second"] == 11 && found["end"] == 113)
        #expect(found["children"] == [13] && found["group"] == ["GroupResult"], "\(found)")
        #expect(found["tree"] == 3, "the client finds all that was started: \(found)")
    }

    @Test("a chain fails as a whole, and its errback gets the id of the step that failed")
    func errors() async throws {
        let bench = try MixedBench()
        let found = try await bench.withWorker { try await bench.python("errors", UUID().uuidString, in: "canvas.py") }
        #expect(found["error"] == ["ValueError", "no luck"])
        #expect(found["states"] == ["FAILURE", "FAILURE", "FAILURE"] && found["rescued"] == true, "\(found)")
    }

    @Test(
        "chords complete, and fail with the reason, by a Swift worker alone and beside a Python worker",
        arguments: [false, true])
    func chords(_ hasPythonWorker: Bool) async throws {
        let bench = try MixedBench()
        let python = hasPythonWorker ? try bench.startPythonWorker() : nil
        defer { if let python { PythonPeer.stop(python) } }
        let found = try await bench.withWorker { try await bench.python("chords", in: "canvas.py") }
        #expect(found["chord"] == 6 && found["chain"] == 37, "\(found)")
        #expect(found["group"] == [2, 4] && found["map"] == [2, 4], "\(found)")
        // The client reads the header first.
        #expect(found["error"] == ["ValueError", true], "\(found)")
        // Between Python workers alone this one hangs.
        if !hasPythonWorker { #expect(found["nested"]?.stringValue?.hasSuffix("Error") == true, "\(found)") }
    }

    @Test("canvases at random have the result of plain evaluation, beside a Python worker and with results elsewhere")
    func random() async throws {
        let bench = try MixedBench(resultDatabase: 5)
        let python = try bench.startPythonWorker()
        defer { PythonPeer.stop(python) }
        let seed = Int.random(in: 0..<1_000_000)
        let found = try await bench.withWorker { try await bench.python("at_random", "60", "\(seed)", in: "canvas.py") }
        #expect(found["count"] == 60 && found["wrong"] == [] && found["left"] == 0, "seed \(seed): \(found)")
    }

    @Test("a chain may end in a group")
    func group() async throws {
        let bench = try MixedBench()
        let found = try await bench.withWorker { try await bench.python("ends_with_group", in: "canvas.py") }
        #expect(found["values"] == [12, 22])
    }

    @Test("a step that cannot be published, for its queue's key holds no list, fails the job and loses nothing")
    func wrongKey() async throws {
        let bench = try MixedBench()
        _ = try await bench.command("SET", bench.prefix + "broken", "x")
        var message = try bench.message("mixed.add", [1, 2])
        message.body = MessageBody(
            arguments: Arguments(positional: [1, 2]),
            embed: ["callbacks": [["task": "t", "args": [], "kwargs": [:], "options": ["queue": "broken"]]]]
        ).encoded()
        let message2 = message
        _ = try await bench.backend.publish([message2])
        let record = try await bench.withWorker {
            try await bench.client.handle(of: message2.id).finalRecord(within: .seconds(20))
        }
        #expect(
            record?.state == .failed && record?.failure?.message.contains("broken") == true,
            "\(String(describing: record))")
    }
}
