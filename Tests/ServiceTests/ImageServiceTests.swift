import Foundation
import Hoist
import HoistTesting
import TestServers
import Testing

/// ImageService as its visitors use it: processes, a real browser, workers in Swift and in Python.
@Suite("ImageService", .serialized, .timeLimit(.minutes(5)))
struct ImageServiceTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    private static var python: String? { ProcessInfo.processInfo.environment["HOIST_TEST_PYTHON"] }

    /// The SHA-256 of the pixels that the painter in Python paints.
    private func paintedInPython(_ prompt: String, seed: Int, size: Int) async throws -> String {
        let code = """
            import sys, hashlib
            sys.path.insert(0, sys.argv[1])
            import painter
            print(hashlib.sha256(painter.paint(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))).hexdigest())
            """
        let folder = Self.root.appendingPathComponent("Examples/ImageService/Python").path
        let python = try #require(Self.python)
        let result = try await BuiltProgram.output(
            of: python, ["-B", "-c", code, folder, prompt, String(seed), String(size)])
        #expect(result.status == 0)
        return result.text.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    private func order(_ bench: ServiceBench, _ prompt: String, seed: Int, size: Int) async throws -> String {
        let body: WireValue = [
            "prompt": .string(prompt), "seed": .integer(Int64(seed)), "size": .integer(Int64(size)),
        ]
        let answer = try await bench.http(
            "POST", "/generate", headers: ["Content-Type": "application/json"], body: Data(body.description.utf8))
        #expect(answer.status == 202)
        return try #require(answer.json["id"]?.stringValue)
    }

    /// What a picture's job says when it has ended.
    private func painting(_ bench: ServiceBench, _ id: String) async throws -> WireValue? {
        #expect(
            try await eventually(.seconds(60)) {
                let state = try await bench.job("picture-\(id)")["state"]?.stringValue
                return state == "succeeded" || state == "failed"
            })
        let record = try await bench.job("picture-\(id)")
        #expect(record["state"] == "succeeded", "\(record)")
        return record["output"]
    }

    @Test("a prompt that makes no sense is refused, and nothing is enqueued")
    func refusals() async throws {
        let bench = try ServiceBench("ImageService")
        try await bench.startServer()
        let json = ["Content-Type": "application/json"]
        for body in [
            "{", "[]", "{}", #"{"prompt": ""}"#, #"{"prompt": "a", "size": 1}"#, #"{"prompt": "a", "size": 100000}"#,
            #"{"prompt": "a", "mode": "elsewhere"}"#, "{\"prompt\": \"\(String(repeating: "a", count: 501))\"}",
        ] {
            #expect(
                try await bench.http("POST", "/generate", headers: json, body: Data(body.utf8)).status == 400, "\(body)"
            )
        }
        let foreign = json.merging(["Sec-Fetch-Site": "cross-site"]) { $1 }
        let body = Data(#"{"prompt": "a"}"#.utf8)
        #expect(try await bench.http("POST", "/generate", headers: foreign, body: body).status == 403)
        for path in ["/pictures/..%2f..%2fjobs.db/image.png", "/pictures/nobody/image.png", "/demo/kill-server"] {
            #expect(try await bench.http("GET", path).status == 404, "\(path)")
        }
        let state = try await bench.http("GET", "/state").json
        #expect(state["pictures"] == [] && state["demo"] == false && state["queue"]?["waiting"] == 0)
        #expect(try await bench.http("POST", "/demo/kill-server").status == 404, "only the demo may be killed")
    }

    @Test(
        "Swift and Python paint the same picture, byte for byte, from one queue on Redis",
        .enabled(if: python != nil, "run by scripts/test, which installs numpy"))
    func sameBytes() async throws {
        let redis = try RedisServer()
        defer { redis.stop() }
        let bench = try ServiceBench("ImageService")
        try await bench.startServer(backend: redis.url)
        let swift = try bench.start(["worker", "--backend", redis.url, "--data", bench.path("videos")])
        let prompts = [("a harbour at night", 7), ("Nordlicht über Ålesund 🎨", -3), ("x", 0)]
        for (prompt, seed) in prompts {
            let output = try await painting(bench, try await order(bench, prompt, seed: seed, size: 96))
            #expect(output?["painter"] == "swift")
            let expected = try await paintedInPython(prompt, seed: seed, size: 96)
            #expect(output?["pixels"]?.stringValue == expected, "\(prompt)")
        }
        swift.terminate()
        #expect(try await eventually(.seconds(30)) { !swift.isRunning })

        let folder = Self.root.appendingPathComponent("Examples/ImageService/Python").path
        let environment = ["REDIS_URL": redis.url, "IMAGE_DATA": bench.path("videos"), "PYTHONDONTWRITEBYTECODE": "1"]
        let worker = try PythonPeer.start(
            ["-m", "celery", "-A", "tasks", "worker", "-c", "1", "-l", "error"], in: folder, environment: environment)
        defer { PythonPeer.stop(worker) }
        let id = try await order(bench, "a harbour at night", seed: 7, size: 96)
        let output = try await painting(bench, id)
        #expect(output?["painter"] == "python")
        let expected = try await paintedInPython("a harbour at night", seed: 7, size: 96)
        #expect(output?["pixels"]?.stringValue == expected)
        let picture = try await bench.http("GET", "/pictures/\(id)/image.png")
        #expect(picture.status == 200 && picture.body.starts(with: [0x89, 0x50, 0x4E, 0x47]))
    }

    @Test(
        "in Chromium: pictures appear, a killed server loses background tasks alone, a killed worker is replaced",
        .enabled(if: python != nil, "run by scripts/test, which installs Chromium"))
    func browser() async throws {
        let bench = try ServiceBench("ImageService")
        let options = ["--backend", bench.backendURL, "--data", bench.path("videos")]
        try await bench.keepServing(options + ["--demo"])
        _ = try bench.start(["up", "--workers", "2"] + options)
        let script = Self.root.appendingPathComponent("Tests/ServiceTests/Browser/image_service.py").path
        let shots = ProcessInfo.processInfo.environment["HOIST_SCREENSHOTS"] ?? bench.path("shots")
        try FileManager.default.createDirectory(atPath: shots, withIntermediateDirectories: true)
        let result = try await BuiltProgram.output(
            of: "/bin/sh", ["-c", "exec \"$0\" \"$@\" 2>&1", try #require(Self.python), "-B", script, bench.url, shots])
        #expect(result.status == 0, "\(result.text)")
    }
}
