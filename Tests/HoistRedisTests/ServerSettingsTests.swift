import Foundation
import Hoist
@testable import HoistRedis
import HoistTesting
import Logging
import RESP
import TestServers
import Testing

/// What a server's settings say to a worker that starts.
@Suite("Settings of a Redis server")
struct ServerSettingsTests {
    private func settings(_ text: String, save: String? = "3600 1", difference: Double = 0) -> ServerSettings {
        ServerSettings(information: text.replacing(" ", with: "\r\n"), save: save, clockDifference: difference)
    }

    @Test(
        "a policy that may drop queues is refused, one that may drop records is told, both only where memory is limited"
    )
    func eviction() {
        let limited = "maxmemory:1000 maxmemory_policy:"
        for policy in ["allkeys-lru", "allkeys-random", "allkeys-lfu"] {
            #expect(settings(limited + policy).refusal?.contains(policy) == true)
            #expect(settings("maxmemory:0 maxmemory_policy:" + policy).refusal == nil)
        }
        #expect(settings(limited + "volatile-ttl").refusal == nil)
        #expect(settings(limited + "volatile-ttl").warnings.count == 1)
        #expect(settings(limited + "noeviction").warnings.isEmpty && settings(limited + "noeviction").refusal == nil)
    }

    @Test("a server that keeps nothing on disk, or whose clock differs, is told of")
    func warnings() {
        #expect(settings("aof_enabled:0", save: "").warnings.count == 1)
        #expect(settings("aof_enabled:1", save: "").warnings.isEmpty && settings("aof_enabled:0").warnings.isEmpty)
        #expect(settings("aof_enabled:0", save: nil).warnings.isEmpty && settings("").warnings.isEmpty)
        #expect(settings("", difference: 3600).warnings.first?.contains("3600 s ahead") == true)
        #expect(settings("", difference: -3600).warnings.first?.contains("3600 s behind") == true)
        #expect(settings("", difference: .nan).warnings.isEmpty && !settings("", difference: 1e300).warnings.isEmpty)
    }

    @Test("a worker refuses a server that drops queues, unless it is told to take it; others it warns about")
    func atStart() async throws {
        let server = try RedisServer(["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"])
        defer { server.stop() }
        let presence = WorkerPresence(
            id: "w", name: "w", queues: ["q"], jobNames: ["job"], startedAt: Date(), concurrency: 1)
        let strict = try RedisBackend(url: server.url)
        let error = await #expect(throws: BackendError.self) { _ = try await strict.join(presence) }
        #expect(error?.code == .misuse && error?.message.contains("allowsEviction") == true)
        var configuration = RedisBackend.Configuration()
        configuration.allowsEviction = true
        let lenient = try RedisBackend(url: server.url, configuration: configuration)
        let ear = Warnings()
        _ = try await lenient.join(presence, lease: .seconds(60), sink: ear)
        #expect(ear.texts.value.contains { $0.contains("nothing on disk") })
    }

    private final class Warnings: SessionSink {
        let texts = Shared<[String]>([])
        func arrived(_ result: TurnResult) {}
        func arrivalWasLost(_ error: any Error) {}
        func mayHaveWork() {}
        func warned(_ text: String) { texts.change { $0.append(text) } }
    }

    @Test("a worker that is started because the server is full announces itself, and makes room")
    func fullServer() async throws {
        let server = try RedisServer(["--maxmemory", "16mb", "--maxmemory-policy", "noeviction"])
        defer { server.stop() }
        let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        let backend = try RedisBackend(url: server.url)
        let client = JobClient(backend, logger: silent)
        let padding = WireValue.string(String(repeating: "x", count: 100_000))
        var count = 0
        do {
            while count < 1000 {
                try await client.enqueue(
                    named: "job", arguments: Arguments(keyword: ["padding": padding]), options: [.result(.ignore)])
                count += 1
            }
        } catch let error as BackendError {
            #expect(error.code == .full)
        }
        #expect(count > 10 && count < 1000)
        let worker = Worker(
            try RedisBackend(url: server.url), queues: ["default", "never.seen"], configuration: .init(isBurst: true),
            logger: silent
        ) { Handler(named: "job") { _, _ in .null } }
        try await worker.run()
        try await client.enqueue(named: "job")
        #expect(try await backend.queues().map(\.waiting) == [1])
    }
}
