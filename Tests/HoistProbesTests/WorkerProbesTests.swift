import Foundation
import Hoist
import HoistProbes
import HoistTesting
import Logging
import PrometheusText
import ServiceLifecycle
import Testing

#if canImport(FoundationNetworking)
import FoundationNetworking
#endif

/// A worker with probes, in memory.
private struct ProbedWorker {
    let backend = MemoryBackend()
    let metrics = PrometheusFactory()
    private let silent = Logger(label: "probes") { _ in SwiftLogNoOpLogHandler() }

    var jobs: JobClient { JobClient(backend, logger: silent) }

    func run(_ body: (Worker, _ base: String) async throws -> Void) async throws {
        let worker = Worker(backend, lanes: [.async(64)], configuration: .init(metrics: metrics), logger: silent) {
            Handler(named: "spin") { arguments, _ in
                let end = ContinuousClock.now + .milliseconds(arguments.positional.first?.integerValue ?? 0)
                while .now < end {}
                return .null
            }
        }
        let port = Shared<Int?>(nil)
        let probes = WorkerProbes(worker, at: .tcp(host: "127.0.0.1", port: 0), metrics: metrics, logger: silent) {
            given in
            port.change { $0 = given }
        }
        let answering = Task { try await probes.run() }
        let running = Task { try await worker.run() }
        #expect(await port.wait { $0 != nil })
        let result: Result<Void, any Error>
        do { result = .success(try await body(worker, "http://127.0.0.1:\(port.value ?? 0)")) } catch {
            result = .failure(error)
        }
        worker.stop(.immediately)
        try await running.value
        answering.cancel()
        try await answering.value
        try result.get()
    }
}

/// Probes of a real worker, over HTTP.
@Suite("Probes", .timeLimit(.minutes(3)))
struct WorkerProbesTests {
    private func get(_ url: String, method: String = "GET") async throws -> (status: Int, text: String) {
        var request = URLRequest(url: try #require(URL(string: url)))
        request.httpMethod = method
        let (data, response) = try await URLSession.shared.data(for: request)
        return ((response as? HTTPURLResponse)?.statusCode ?? 0, String(decoding: data, as: UTF8.self))
    }

    @Test("live and ready follow the worker, metrics are those of the worker, and nothing else is there")
    func paths() async throws {
        let probed = ProbedWorker()
        try await probed.run { worker, base in
            let isReady = try await eventually { try await get(base + "/ready").status == 200 }
            #expect(isReady)
            #expect(try await get(base + "/live?x=1").status == 200)
            let job = try await probed.jobs.enqueue(named: "spin")
            _ = try await job.output(timeout: .seconds(30))
            let text = try await get(base + "/metrics").text
            #expect(text.contains(#"hoist_jobs_total{job="spin",outcome="succeeded",queue="default"} 1"#), "\(text)")
            #expect(text.contains("# TYPE hoist_job_run_seconds histogram"))
            #expect(try await get(base + "/other").status == 404)
            #expect(try await get(base + "/live", method: "POST").status == 405)
            #expect(try await get(base + "/live", method: "HEAD").status == 200)
            worker.stop(.quiet)
            let isQuiet = try await eventually { try await get(base + "/ready").status == 503 }
            #expect(isQuiet, "a worker that stops is not ready")
        }
    }

    @Test("an address is read, and nothing else")
    func addresses() {
        #expect(WorkerProbes.Address("127.0.0.1:90") == .tcp(host: "127.0.0.1", port: 90))
        #expect(WorkerProbes.Address("[::1]:90") == .tcp(host: "::1", port: 90))
        #expect(WorkerProbes.Address("/run/w.sock") == .unix("/run/w.sock"))
        for text in ["", "90", ":90", "host", "host:", "host:x", "host:70000", "host:-1"] {
            #expect(WorkerProbes.Address(text) == nil, "\(text)")
        }
    }
}

/// Apart from other tests: it occupies the threads that all tests of a process share.
@Suite("Probes of a worker that spins", .timeLimit(.minutes(3)))
struct SpinningWorkerTests {
    @Test("probes are answered within 50 ms while every thread of the pool spins")
    func spinning() async throws {
        let probed = ProbedWorker()
        try await probed.run { worker, base in
            #expect(try await eventually { worker.health.isReady })
            // The spinning jobs outlast the probes.
            for _ in 0..<max(16, 2 * ProcessInfo.processInfo.activeProcessorCount) {
                try await probed.jobs.enqueue(named: "spin", arguments: Arguments(positional: [1000]))
            }
            let answers = Shared<String?>(nil)
            Thread.detachNewThread {
                let (process, pipe) = (Process(), Pipe())
                process.executableURL = URL(fileURLWithPath: "/usr/bin/curl")
                process.arguments = [
                    "-s", "-o", "/dev/null", "-w", "%{http_code} %{time_total}\n", base + "/live?[1-100]",
                ]
                process.standardOutput = pipe
                try? process.run()
                let bytes = pipe.fileHandleForReading.readDataToEndOfFile()
                process.waitUntilExit()
                answers.change { $0 = String(decoding: bytes, as: UTF8.self) }
            }
            #expect(await answers.wait(.seconds(40)) { $0 != nil })
            let lines = (answers.value ?? "").split(separator: "\n").map { $0.split(separator: " ") }
            let seconds = lines.compactMap { Double($0.last ?? "") }.sorted()
            #expect(lines.count == 100 && lines.allSatisfy { $0.first == "200" }, "\(answers.value ?? "")")
            // Some may have met another program of this machine. On the jobs' threads each would have waited a second.
            #expect(seconds.count == 100 && seconds[79] < 0.05, "\(seconds)")
        }
    }
}
