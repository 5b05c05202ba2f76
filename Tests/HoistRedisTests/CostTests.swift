import Foundation
import Hoist
import HoistRedis
import Logging
import RESP
import TestServers
import Testing

/// What jobs cost the server, counted by the server: a change that costs more fails here, on any machine.
@Suite("What jobs cost", .serialized, .timeLimit(.minutes(3)))
struct CostTests {
    private let server: RedisServer
    private let backend: RedisBackend
    private let probe: RESPClient
    private let quiet = Logger(label: "cost", factory: { _ in SwiftLogNoOpLogHandler() })
    private var client: JobClient { JobClient(backend, logger: quiet) }

    init() throws {
        server = try RedisServer()
        backend = try RedisBackend(url: server.url)
        probe = try RESPClient(RESPConfiguration(url: server.url))
    }

    /// What a client asked of the server: commands, those of scripts included, and reads, of which one takes all that
    /// has come: never more than round trips.
    private struct Cost: CustomStringConvertible {
        var commands = 0.0
        var reads = 0.0

        var description: String { String(format: "%.2f commands, %.2f reads", commands, reads) }

        static func / (cost: Cost, count: Int) -> Cost {
            Cost(commands: cost.commands / Double(count), reads: cost.reads / Double(count))
        }
    }

    private func total() async throws -> Cost {
        let text = try await probe.send(RESPCommand("INFO", ["everything"])).text ?? ""
        func sum(_ pattern: (Substring) -> Int?) -> Double {
            text.split(separator: "\r\n").compactMap(pattern).reduce(0) { $0 + Double($1) }
        }
        return Cost(
            commands: sum { line in
                guard line.hasPrefix("cmdstat_"), let calls = line.firstRange(of: "calls=") else { return nil }
                return Int(line[calls.upperBound...].prefix { $0.isNumber })
            },
            reads: sum { $0.hasPrefix("total_reads_processed:") ? Int($0.drop { $0 != ":" }.dropFirst()) : nil })
    }

    private func cost(_ body: () async throws -> Void) async throws -> Cost {
        let before = try await total()
        let probing = try await total()
        try await body()
        let after = try await total()
        // The first of the two has counted what it costs to look.
        return Cost(
            commands: after.commands - probing.commands - (probing.commands - before.commands),
            reads: after.reads - probing.reads - (probing.reads - before.reads))
    }

    private func runWorker() async throws {
        try await Worker(backend, lanes: [.async(64)], configuration: .init(isBurst: true), logger: quiet) {
            Handler(named: "job") { arguments, _ in .array(arguments.positional) }
        }.run()
    }

    @Test("an awaited enqueue is one round trip")
    func enqueue() async throws {
        for _ in 0..<50 { try await client.enqueue(named: "job") }
        let cost = try await cost { for _ in 0..<200 { try await client.enqueue(named: "job") } } / 200
        #expect(cost.commands <= 4.05 && cost.reads <= 1.05, "\(cost)")
    }

    @Test("a bulk enqueue costs a fraction of a command for each job")
    func bulk() async throws {
        try await client.enqueue(named: "job")
        let jobs = (0..<5000).map { Numbered(number: $0) }
        let cost = try await cost { try await client.enqueue(contentsOf: jobs) } / jobs.count
        #expect(cost.commands <= 0.05 && cost.reads <= 0.05, "\(cost)")
    }

    @Test(
        "a job that is performed costs three commands, one without a result, and a fraction of a round trip",
        arguments: [true, false])
    func process(keepsResults: Bool) async throws {
        let jobs = (0..<2000).map { Numbered(number: $0) }
        let options: [EnqueueOption] = keepsResults ? [] : [.result(.ignore)]
        try await client.enqueue(contentsOf: jobs, options)
        let cost = try await cost { try await runWorker() } / jobs.count
        // On a busy machine turns carry fewer jobs, and there are more of them.
        #expect(cost.reads <= 0.5 && cost.commands <= (keepsResults ? 3.5 : 1.5) + 16 * cost.reads, "\(cost)")
    }

    @Test("a worker that starts, finds nothing and leaves costs a few round trips")
    func idle() async throws {
        try await runWorker()
        let cost = try await cost { try await runWorker() }
        // A third of them are events and control: subscriptions, the question to all other workers, the first
        // heartbeat.
        #expect(cost.commands <= 76 && cost.reads <= 20, "\(cost)")
    }

    private struct Numbered: Job {
        static let name = "job"
        var number: Int
    }
}
