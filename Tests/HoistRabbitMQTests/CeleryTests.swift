import AMQP
import Foundation
import Hoist
import HoistRabbitMQ
import HoistTesting
import Synchronization
import TestServers
import Testing

/// Swift and real Python Celery on one RabbitMQ, with results in Redis.
@Suite(
    "With real Celery on RabbitMQ", .serialized, .timeLimit(.minutes(4)),
    .enabled(if: PythonPeer.interpreter != nil, "\(PythonPeer.isMissing)"))
struct CeleryTests {
    private struct Add: Job {
        static let name = "mixed.add"
        var x: Int
        var y: Int
        typealias Output = Int
    }

    private struct NoLuck: CrossLanguageError, CustomStringConvertible {
        var description: String
        var typeName: String { "ValueError" }
        var module: String? { "builtins" }
        var arguments: [WireValue] { [.string(description)] }
    }

    private struct NotYet: Error {}

    private func worker(
        _ bench: RabbitBench, named name: String = "swift@test"
    ) -> Worker {
        var configuration = Worker.Configuration()
        configuration.name = name
        configuration.celeryQueue = "mixed"
        return Worker(
            bench.backend, queues: ["mixed"], lanes: [.async(4)], configuration: configuration,
            logger: RabbitBench.silent
        ) {
            Handler(Add.self) { job, _ in job.x + job.y }
            Handler(named: "mixed.fail") { arguments, _ in
                throw NoLuck(description: arguments.positional.first?.stringValue ?? "")
            }
            Handler(named: "mixed.work", options: JobOptions(retry: .fixed(.seconds(1), maxAttempts: 6))) {
                arguments, context in
                if context.attempt <= arguments.keyword["fails"]?.integerValue ?? 0 { throw NotYet() }
                return [
                    "number": arguments.positional.first ?? .null, "by": "swift",
                    "retries": .integer(Int64(context.attempt - 1)),
                ]
            }
        }
    }

    @Test("Python enqueues, Swift works, Python reads: values, errors, serializers, compression, delays")
    func pythonToSwift() async throws {
        let bench = try await RabbitBench()
        let found = try await withWorker(worker(bench)) { try await bench.python("results") }
        #expect(found["good"] == 5 && found["packed"] == 9 && found["written"] == 13 && found["squeezed"] == 17)
        #expect(found["later"] == 42 && found["state"] == "SUCCESS")
        #expect(found["error"] == ["ValueError", "no luck"] && found["bad_state"] == "FAILURE")
    }

    @Test("Swift enqueues, Python works, Swift reads; on classic and on quorum queues", arguments: [false, true])
    func swiftToPython(_ isQuorum: Bool) async throws {
        var configuration = RabbitMQBackend.Configuration(workerHeartbeat: .seconds(2))
        if isQuorum { configuration.defaultQueue = QueueSettings(.quorum) }
        let bench = try await RabbitBench(configuration)
        let python = try bench.startPythonWorker(environment: isQuorum ? ["PEER_QUORUM": "1"] : [:])
        defer { PythonPeer.stop(python) }
        let handle = try await bench.client.enqueue(Add(x: 20, y: 22), .queue("mixed"))
        #expect(try await handle.output(timeout: .seconds(60)) == 42)
        let failing = try await bench.client.enqueue(
            named: "mixed.fail", arguments: Arguments(positional: ["no luck"]), options: [.queue("mixed")])
        let failure = await #expect(throws: JobError.self) { try await failing.output(timeout: .seconds(30)) }
        #expect(failure?.failure?.type == "ValueError" && failure?.failure?.message == "no luck")
        let delayed = try await bench.client.enqueue(Add(x: 1, y: 2), .queue("mixed"), .after(.seconds(2)))
        #expect(try await delayed.output(timeout: .seconds(30)) == 3)
    }

    @Test("a queue that Python has declared with other arguments is used as it is, and the worker says so")
    func foreignArguments() async throws {
        let bench = try await RabbitBench()
        let python = try bench.startPythonWorker(environment: ["PEER_PRIORITIES": "1"])
        defer { PythonPeer.stop(python) }
        #expect(
            try await eventually(.seconds(60)) {
                try bench.server.manage("/api/queues/\(bench.virtualHost)?columns=name").contains("\"mixed\"")
            })
        let handle = try await bench.client.enqueue(Add(x: 1, y: 1), .queue("mixed"))
        #expect(try await handle.output(timeout: .seconds(60)) == 2)
        PythonPeer.stop(python)
        try await withWorker(worker(bench)) {
            let output = try await bench.client.enqueue(Add(x: 2, y: 2), .queue("mixed")).output(timeout: .seconds(30))
            #expect(output == 4)
        }
    }

    @Test("Celery's client asks a Swift worker, a Swift client asks a Python worker, and a chain goes through both")
    func control() async throws {
        let bench = try await RabbitBench()
        let python = try bench.startPythonWorker(["--hostname", "python@test"])
        defer { PythonPeer.stop(python) }
        try await withWorker(worker(bench)) {
            let fleet = try Fleet(bench.backend)
            var nodes: Set<String> = []
            let both = try await eventually(.seconds(60)) {
                nodes = Set(try await fleet.replies(to: .ping).keys)
                return nodes.isSuperset(of: ["swift@test", "python@test"])
            }
            #expect(both, "\(nodes)")
            let found = try await bench.python("control", "swift@test")
            #expect(found["ping"]?["swift@test"]?["ok"] == "pong")
            #expect(found["queues"] == ["mixed"])
            #expect(found["stats"]?.arrayValue?.isEmpty == false)
            let chain = try await bench.python("chain")
            #expect(chain["value"] == 113)
        }
    }

    @Test("Celery's receiver hears the events of a Swift worker")
    func events() async throws {
        let bench = try await RabbitBench()
        var configuration = Worker.Configuration()
        configuration.name = "swift@test"
        configuration.events = .always
        let worker = Worker(
            bench.backend, queues: ["mixed"], configuration: configuration, logger: RabbitBench.silent
        ) {
            Handler(Add.self) { job, _ in job.x + job.y }
        }
        let found = try await withWorker(worker) { try await bench.python("events") }
        let types = found["types"]?.arrayValue?.compactMap(\.stringValue) ?? []
        #expect(Set(types).isSuperset(of: ["task-received", "task-started", "task-succeeded", "worker-heartbeat"]))
        #expect(found["nodes"]?.arrayValue?.contains("swift@test") == true)
    }

    @Test(
        "a mixed fleet of two Swift and two Python workers does every job once, with priorities, delays and retries",
        arguments: [false, true])
    func mixedFleet(_ isQuorum: Bool) async throws {
        var configuration = RabbitMQBackend.Configuration(workerHeartbeat: .seconds(2))
        configuration.defaultQueue = isQuorum ? QueueSettings(.quorum) : QueueSettings(priorities: 10)
        let bench = try await RabbitBench(configuration)
        let environment = isQuorum ? ["PEER_QUORUM": "1"] : ["PEER_PRIORITIES": "1"]
        let pythons = try (0..<2).map {
            try bench.startPythonWorker(["--hostname", "python\($0)@test"], environment: environment)
        }
        defer { for python in pythons { PythonPeer.stop(python) } }
        try await withWorker(worker(bench, named: "one@test")) {
            try await withWorker(worker(bench, named: "two@test")) {
                let count = 1000
                let ids = try await bench.lines("many", "\(count)", environment: environment)
                #expect(ids.count == count)
                var numbers: Set<Int64> = []
                var by: [String: Int] = [:]
                for id in ids {
                    let value = try await bench.client.handle(of: id).output(timeout: .seconds(90))
                    numbers.insert(value["number"]?.integerValue ?? -1)
                    by[value["by"]?.stringValue ?? "", default: 0] += 1
                }
                #expect(numbers.count == count)
                #expect(by["swift"] ?? 0 > 0 && by["python"] ?? 0 > 0, "\(by)")
            }
        }
    }
}
