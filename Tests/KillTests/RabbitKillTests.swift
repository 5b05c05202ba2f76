import AMQP
import Foundation
import Hoist
import HoistRabbitMQ
import HoistRedis
import HoistTesting
import Logging
import Synchronization
import TestServers
import Testing

/// The guarantees on RabbitMQ with results in Redis: workers, the broker, the store and the network between them are
/// killed, stopped, cut and starved.
@Suite("Killing workers, RabbitMQ and the network", .serialized, .timeLimit(.minutes(5)))
struct RabbitKillTests {
    private let redis: RedisServer

    init() throws { redis = try RedisServer() }

    /// Enqueues jobs with ids of their own, each until RabbitMQ has confirmed it.
    private func produce(_ count: Int, on bench: KillBench, every pause: Duration) -> Task<[JobID], any Error> {
        Task {
            var confirmed: [JobID] = []
            for number in 0..<count {
                let id = "job-\(number)"
                // An enqueue whose confirm got lost is made again with the same id: it may be there twice.
                while true {
                    do {
                        try await bench.client.enqueue(Step(milliseconds: Int.random(in: 5...40)), .id(id))
                        break
                    } catch is BackendError {
                        try await Task.sleep(for: .milliseconds(50))
                    }
                }
                confirmed.append(id)
                try await Task.sleep(for: pause)
            }
            return confirmed
        }
    }

    private struct Account {
        var lost: [JobID]
        var begunTwice: Int
        var endedTwice: Int
    }

    /// Waits until every job has ended, in the journal and in the store.
    private func account(_ ids: [JobID], on bench: KillBench) async throws -> Account {
        var open = Set(ids)
        _ = try await eventually(.seconds(90)) {
            open.subtract(bench.journal().filter { $0.event == "end" }.map(\.job))
            return open.isEmpty
        }
        var states: [JobID: JobState] = [:]
        _ = try await eventually(.seconds(60)) {
            for id in ids where states[id] != .succeeded {
                states[id] = try await bench.backend.record(of: id)?.state
            }
            return ids.allSatisfy { states[$0] == .succeeded }
        }
        #expect(ids.allSatisfy { states[$0] == .succeeded }, "every job has succeeded in the store")
        let journal = bench.journal()
        let begun = Dictionary(grouping: journal.filter { $0.event == "begin" }, by: \.job)
        let ended = Dictionary(grouping: journal.filter { $0.event == "end" }, by: \.job)
        return Account(
            lost: ids.filter { ended[$0] == nil }, begunTwice: begun.values.filter { $0.count > 1 }.count,
            endedTwice: ended.values.filter { $0.count > 1 }.count)
    }

    @Test("workers killed at random during 2,000 jobs lose none")
    func storm() async throws {
        let server = try await RabbitServer.started()
        let bench = try KillBench(url: "\(server.url())|\(redis.url)")
        let ids = (0..<2000).map { "job-\($0)" }
        for step in stride(from: 0, to: 2000, by: 100) {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for id in ids[step..<step + 100] {
                    group.addTask {
                        _ = try await bench.client.enqueue(Step(milliseconds: Int.random(in: 20...80)), .id(id))
                    }
                }
                try await group.waitForAll()
            }
        }
        for _ in 0..<3 { try bench.startWorker() }
        #expect(try await eventually { !bench.journal().isEmpty })
        var kills: [(time: Int64, process: Int32)] = []
        while kills.count < 20 {
            let ended = Set(bench.journal().filter { $0.event == "end" }.map(\.job)).count
            if ended > 1800 { break }
            try await Task.sleep(for: .milliseconds(Int.random(in: 150...350)))
            guard let victim = bench.workers.filter(\.isRunning).randomElement() else { continue }
            kill(victim.processIdentifier, SIGKILL)
            victim.waitUntilExit()
            kills.append((SystemJobClock().uptime, victim.processIdentifier))
            try bench.startWorker()
        }
        let account = try await account(ids, on: bench)
        // How soon a job of a killed worker begins elsewhere.
        let begins = Dictionary(grouping: bench.journal().filter { $0.event == "begin" }, by: \.job)
        let ends = bench.journal().filter { $0.event == "end" }
        let waits = kills.flatMap { kill in
            begins.values.compactMap { starts -> Double? in
                guard let first = starts.first(where: { $0.process == kill.process && $0.time <= kill.time }),
                    !ends.contains(where: { $0.job == first.job && $0.process == kill.process }),
                    let next = starts.filter({ $0.time > kill.time }).map(\.time).min()
                else { return nil }
                return Double(next - kill.time) / 1_000_000
            }
        }.sorted()
        print(
            "RabbitMQ: \(kills.count) kills, \(account.lost.count) lost, \(account.begunTwice) begun twice, "
                + "\(account.endedTwice) finished twice, takeover median \(waits.isEmpty ? 0 : waits[waits.count / 2]) s"
        )
        #expect(kills.count > 3)
        #expect(account.lost.isEmpty)
        // A job that was killed between its end and the store runs again; the others are in flight at a kill.
        #expect(account.begunTwice <= kills.count * 8)
        #expect(waits.isEmpty || waits[waits.count / 2] < 5)
    }

    @Test("RabbitMQ killed and restarted again and again loses no job that it has confirmed")
    func serverKilled() async throws {
        let server = try await RabbitServer.started()
        let bench = try KillBench(url: "\(server.url())|\(redis.url)")
        for _ in 0..<2 { try bench.startWorker() }
        let producer = produce(400, on: bench, every: .milliseconds(60))
        var resumed: [Double] = []
        for _ in 0..<2 {
            try await Task.sleep(for: .milliseconds(1500))
            server.stop()
            try server.start()
            let back = SystemJobClock().uptime
            #expect(try await eventually { bench.journal().contains { $0.event == "end" && $0.time > back } })
            let next = bench.journal().filter { $0.event == "begin" && $0.time > back }.map(\.time).min() ?? .max
            resumed.append(Double(next - back) / 1_000_000)
        }
        let account = try await account(try await producer.value, on: bench)
        print(
            "RabbitMQ: 2 restarts, \(account.lost.count) lost, \(account.begunTwice) begun twice, resumed after \(resumed) s"
        )
        #expect(account.lost.isEmpty)
        // The machine may have paused in one of them.
        #expect(resumed.min() ?? .infinity < 5 && resumed.allSatisfy { $0 < 20 }, "\(resumed)")
    }

    @Test("connections that the server closes, and a line that is cut and half-closed, lose nothing")
    func network() async throws {
        let server = try await RabbitServer.started()
        let proxy = try TroubleProxy(to: server.port)
        let bench = try KillBench(url: "\(RabbitServer.url(proxy.port, "/"))|\(redis.url)")
        for _ in 0..<2 { try bench.startWorker() }
        let producer = produce(300, on: bench, every: .milliseconds(20))
        for round in 0..<6 {
            try await Task.sleep(for: .milliseconds(800))
            switch round % 3 {
            case 0: proxy.cut()
            case 1: try server.control("close_all_connections", "test")
            default: proxy.halfClose()
            }
            proxy.delay(by: round % 2 == 0 ? 30 : 0)
        }
        proxy.delay(by: 0)
        let account = try await account(try await producer.value, on: bench)
        print("RabbitMQ: 6 disturbances, \(account.lost.count) lost, \(account.begunTwice) begun twice")
        #expect(account.lost.isEmpty)
    }

    @Test("a memory alarm, a stopped application and a deleted queue lose nothing that was confirmed elsewhere")
    func alarms() async throws {
        let server = try await RabbitServer.started()
        let bench = try KillBench(url: "\(server.url())|\(redis.url)")
        for _ in 0..<2 { try bench.startWorker() }
        let producer = produce(200, on: bench, every: .milliseconds(40))
        #expect(try await eventually { bench.journal().count > 20 })
        try server.control("set_vm_memory_high_watermark", "0")
        try await Task.sleep(for: .seconds(1))
        try server.control("set_vm_memory_high_watermark", "0.6")
        #expect(try await eventually { bench.journal().count > 80 })
        try server.control("stop_app")
        try server.control("start_app")
        let account = try await account(try await producer.value, on: bench)
        print(
            "RabbitMQ: an alarm and a stopped application, \(account.lost.count) lost, \(account.begunTwice) begun twice"
        )
        #expect(account.lost.isEmpty)
        // Its messages are gone with the queue, and a job that is enqueued afterwards is done.
        let client = try AMQPClient(AMQPConfiguration(url: server.url()))
        let channel = try await client.connection().openChannel()
        try await channel.delete(queue: "default")
        let late = try await bench.client.enqueue(Step(milliseconds: 1))
        _ = try await late.output(timeout: .seconds(30))
    }

    @Test("while the store of results is away jobs end, and are settled when it is back")
    func storeKilled() async throws {
        let server = try await RabbitServer.started()
        let store = try RedisServer(["--appendonly", "yes", "--appendfsync", "always"])
        let bench = try KillBench(url: "\(server.url())|\(store.url)")
        for _ in 0..<2 { try bench.startWorker() }
        let producer = produce(200, on: bench, every: .milliseconds(20))
        for _ in 0..<2 {
            try await Task.sleep(for: .seconds(1))
            store.stop()
            try await Task.sleep(for: .seconds(1))
            try store.start()
        }
        let account = try await account(try await producer.value, on: bench)
        print("RabbitMQ: the store was killed twice, \(account.lost.count) lost, \(account.begunTwice) begun twice")
        #expect(account.lost.isEmpty)
        #expect(account.begunTwice == 0, "no worker died, and no connection of one was lost")
    }

    @Test("a frozen worker is taken over within its heartbeat, and its late finish changes nothing")
    func frozen() async throws {
        let server = try await RabbitServer.started()
        let bench = try KillBench(url: "\(server.url())|\(redis.url)")
        let frozen = try bench.startWorker()
        let handle = try await bench.client.enqueue(Step(milliseconds: 1500))
        #expect(try await eventually { bench.journal().contains { $0.event == "begin" } })
        try bench.startWorker()
        kill(frozen.processIdentifier, SIGSTOP)
        let stopped = SystemJobClock().uptime
        #expect(try await eventually { bench.journal().filter { $0.event == "begin" }.count == 2 })
        let seconds = Double((bench.journal().filter { $0.event == "begin" }.last?.time ?? .max) - stopped) / 1_000_000
        kill(frozen.processIdentifier, SIGCONT)
        let winner = try await handle.output(timeout: .seconds(30))
        print("RabbitMQ: a frozen worker was taken over after \(seconds) s")
        #expect(winner != Int(frozen.processIdentifier))
        #expect(seconds < 10)
        // The one that was frozen goes on as a new worker.
        #expect(try await eventually { bench.log(of: 0).contains("the lease was lost") })
    }
}
