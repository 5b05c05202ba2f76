import ArgumentParser
import Foundation
import Hoist
import HoistSQLite
import HoistTesting
import Logging
import Testing

@testable import HoistCommands

private let quiet = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

private enum NoApp: ServiceApp {}

/// What the command line says of a worker comes before what the program says.
@Suite("Options of a worker")
struct WorkerChoicesTests {
    @Test("sizes of lanes are read, and nonsense is refused")
    func slots() throws {
        #expect(try WorkerChoices.slots("4") == .init(lane: nil, range: 4...4))
        #expect(try WorkerChoices.slots("process=2-8") == .init(lane: .process, range: 2...8))
        #expect(try WorkerChoices.slots("async=100") == .init(lane: .async, range: 100...100))
        for bad in [
            "", "0", "-1", "a", "gpu=2", "process=", "process=0", "process=8-2", "async=2-8", "4-", "1-2-3", "100001",
            "9223372036854775807", "process=99999999999999999999",
        ] {
            #expect(throws: ValidationError.self, "\(bad)") { try WorkerChoices.slots(bad) }
        }
        let error = #expect(throws: ValidationError.self) { try WorkerChoices.slots("x", of: "$HOIST_CONCURRENCY") }
        #expect(error?.message.hasPrefix("$HOIST_CONCURRENCY takes") == true, "the source is named")
    }

    @Test("named queues replace the program's, and keep what it says of them")
    func queues() throws {
        var choices = WorkerChoices()
        let own: [QueueSubscription] = [.queue("media", concurrency: 2, weight: 3), "mail"]
        #expect(choices.queues(besides: own) == own)
        choices.queues = [try WorkerChoices.subscription("media:5"), try WorkerChoices.subscription("other")]
        #expect(choices.queues(besides: own) == [.queue("media", concurrency: 5, weight: 3), "other"])
    }

    @Test("one number is for every lane, a lane's own comes after it, and the async lane has no range")
    func lanes() throws {
        var choices = WorkerChoices()
        #expect(choices.lanes(besides: [.async(3)]) == [.async(3)])
        choices.concurrency = [try WorkerChoices.slots("2-5"), try WorkerChoices.slots("process=7")]
        let lanes = choices.lanes(besides: [.async(3), .process(1)])
        #expect(lanes.last { $0.kind == .async }?.range == 5...5)
        #expect(lanes.last { $0.kind == .blocking }?.range == 2...5)
        #expect(lanes.last { $0.kind == .process }?.range == 7...7)
    }

    @Test("a worker obeys the command line whatever the program sets, and one that does not is refused")
    func obedience() throws {
        var choices = WorkerChoices()
        choices.name = "encoder"
        choices.labels = ["gpu"]
        choices.drain = .seconds(3)
        choices.isBurst = true
        choices.queues = ["media"]
        choices.concurrency = [.init(lane: .async, range: 9...9)]
        let backend = MemoryBackend()
        var setup = WorkerSetup(
            backend: backend.backend, options: NoOptions(), logger: quiet, choices: choices, probedMetrics: nil)
        setup.configuration.name = "another"
        setup.configuration.labels = []
        setup.configuration.heartbeatInterval = .seconds(7)
        let worker = setup.worker(queues: ["mail"], lanes: [.async(1)]) {}
        #expect(worker.configuration.name == "encoder" && worker.configuration.labels == ["gpu"])
        #expect(worker.configuration.drainTimeout == .seconds(3) && worker.configuration.isBurst)
        #expect(worker.configuration.heartbeatInterval == .seconds(7), "what the line does not name is the program's")
        #expect(worker.queues == ["media"] && worker.lanes.last == .async(9))
        try setup.choices.check(worker)
        for stranger in [
            Worker(backend, queues: ["media"], lanes: [.async(9)], logger: quiet) {},
            Worker(backend, queues: ["mail"], lanes: [.async(9)], configuration: worker.configuration, logger: quiet) {
            },
            Worker(backend, queues: ["media"], configuration: worker.configuration, logger: quiet) {},
        ] {
            #expect(throws: CommandFailure.self) { try setup.choices.check(stranger) }
        }
    }

    @Test("a program without a server or a worker says so")
    func missing() async throws {
        var setup = WorkerSetup(
            backend: MemoryBackend().backend, options: NoOptions(), logger: quiet, choices: WorkerChoices(),
            probedMetrics: nil)
        let noWorker = await #expect(throws: CommandFailure.self) { try await NoApp.makeWorker(&setup) }
        #expect(noWorker?.description == "this program has no worker")
    }

    @Test("each worker of up has a name and an address of its own")
    func up() {
        func arguments(_ line: String..., worker: Int) -> String {
            UpCommand<NoApp>.workerArguments(line, worker: worker).joined(separator: " ")
        }
        #expect(
            arguments("up", "--workers", "3", "--name", "media", "--logs", "x", "--burst", worker: 2)
                == "worker --name media-2 --burst")
        #expect(arguments("--name=m@host", "--workers=3", worker: 3) == "worker --name=m-3@host")
        #expect(arguments("up", "--health", "127.0.0.1:9090", worker: 3) == "worker --health 127.0.0.1:9092")
        #expect(arguments("up", "--health=/run/x.sock", worker: 1) == "worker --health=/run/x.sock-1")
        #expect(arguments("up", "--health", "127.0.0.1:0", worker: 4) == "worker --health 127.0.0.1:0")
        #expect(arguments("up", "--queue", "up", worker: 1) == "worker --queue up")
    }

    @Test("a level of the log that is none is refused")
    func levels() throws {
        #expect(try LogOptions.parse(["--log-level", "WARNING"]).logger("x").logLevel == .warning)
        #expect(throws: (any Error).self) { try LogOptions.parse(["--log-level", "verbose"]) }
    }

    @Test("a file that does not exist is an error that names the databases beside it, and is not made")
    func existing() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-look-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        func path(_ name: String) -> String { folder.appendingPathComponent(name).path }
        let nothing = #expect(throws: CommandFailure.self) { try Backends.mustExist("sqlite:" + path("typo.db")) }
        #expect(nothing?.description.contains("no database lies in \(folder.path)") == true)
        _ = try SQLiteBackend(path: path("jobs.db"))
        let error = #expect(throws: CommandFailure.self) { try Backends.mustExist("sqlite:" + path("typo.db")) }
        #expect(error?.description.contains("the folder has jobs.db") == true, "\(String(describing: error))")
        try Backends.mustExist("sqlite:" + path("jobs.db"))
        try Backends.mustExist("redis://nowhere")
        #expect(!FileManager.default.fileExists(atPath: path("typo.db")))
        let bare = #expect(throws: BackendError.self) { try Backends.open("jobs.db") }
        #expect(bare?.message.contains("sqlite:jobs.db") == true)
    }

    @Test("states have colours where they are wanted, and widths stay")
    func colours() {
        #expect(TerminalColours.coloured("failed  ", wanted: true) == "\u{1B}[31mfailed  \u{1B}[0m")
        #expect(TerminalColours.coloured("failed  ", wanted: false) == "failed  ")
        #expect(TerminalColours.coloured("mail", wanted: true) == "mail")
    }
}
