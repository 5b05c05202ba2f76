import Foundation
import FoundationNetworking
import Hoist
import HoistTesting
import TestServers
import Testing

/// The classic stack: FastAPI, Celery's `delay`, Redis; with the worker in Swift, and the other way round.
@Suite(
    "A FastAPI service with Celery", .serialized, .timeLimit(.minutes(4)),
    .enabled(
        if: ServiceBench.hasFFmpeg && PythonPeer.interpreter != nil,
        "needs ffmpeg, and a Python with celery[redis] and fastapi"))
struct FastAPIInteropTests {
    private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("Examples/FastAPIInterop").path

    @Test("FastAPI enqueues with delay and answers at once; the Swift worker does the work; Python reads the result")
    func swiftWorker() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let bench = try ServiceBench()
        let environment = ["REDIS_URL": server.url, "VIDEO_DATA": bench.path("videos")]
        let port = try RedisServer.freePort()
        let api = try PythonPeer.start(
            ["-m", "uvicorn", "api:api", "--port", "\(port)"], in: Self.folder, environment: environment)
        defer { PythonPeer.stop(api) }
        #expect(try await eventually(.seconds(30)) { RedisServer.canConnect(port) })
        _ = try bench.start(["worker", "--backend", server.url, "--data", bench.path("videos")])

        let upload = try bench.makeVideo(seconds: 4)
        let begin = ContinuousClock.now
        let answer = try await json("POST", port, "/upload", file: upload)
        #expect(ContinuousClock.now - begin < .seconds(10), "at once")
        let task = try #require(answer["task_id"]?.stringValue)
        var states: Set<String> = []
        #expect(
            try await eventually(.seconds(90)) {
                let state = try await json("GET", port, "/tasks/\(task)")["state"]?.stringValue ?? ""
                states.insert(state)
                return state == "SUCCESS" || state == "FAILURE"
            })
        let done = try await json("GET", port, "/tasks/\(task)")
        #expect(
            done["state"] == "SUCCESS" && done["result"]?["width"] == 640 && done["result"]?["poster"] == "poster.jpg",
            "\(done)")
        #expect(states.contains("PROGRESS"), "the page could show it: \(states)")
        let video = bench.path("videos") + "/" + (answer["video_id"]?.stringValue ?? "") + "/video.mp4"
        #expect(FileManager.default.fileExists(atPath: video))
    }

    @Test("the Swift API enqueues; the Python worker does the work; Swift reads the result")
    func pythonWorker() async throws {
        let server = try RedisServer()
        defer { server.stop() }
        let bench = try ServiceBench()
        let environment = ["REDIS_URL": server.url, "VIDEO_DATA": bench.path("videos")]
        let worker = try PythonPeer.start(
            ["-m", "celery", "-A", "tasks", "worker", "-Q", "media", "-P", "solo", "-l", "warning"], in: Self.folder,
            environment: environment)
        defer { PythonPeer.stop(worker) }
        try await bench.startServer(backend: server.url)
        let answer = try await bench.http("POST", "/upload", file: try bench.makeVideo(seconds: 4))
        #expect(answer.status == 202)
        let id = try #require(answer.json["id"]?.stringValue)
        #expect(try await eventually(.seconds(90)) { try await bench.job(id)["state"] == "succeeded" })
        let record = try await bench.job(id)
        #expect(record["output"]?["width"] == 640 && record["output"]?["video"] == "video.mp4", "\(record)")
        let video = try await bench.http("GET", "/videos/\(answer.json["video_id"]?.stringValue ?? "")/video.mp4")
        #expect(video.status == 200 && video.body.count > 1000)
    }

    private func json(_ method: String, _ port: Int, _ path: String, file: String? = nil) async throws -> WireValue {
        var request = URLRequest(url: try #require(URL(string: "http://127.0.0.1:\(port)\(path)")))
        request.httpMethod = method
        if let file { request.httpBody = try Data(contentsOf: URL(fileURLWithPath: file)) }
        return try JSONText.parse(Array(try await URLSession.shared.data(for: request).0))
    }
}
