import Hoist
import RESP
import Synchronization

/// What a server's settings mean for the jobs that it holds.
struct ServerSettings {
    /// From INFO, by name.
    var information: [String: String]
    /// From CONFIG GET save; nil where the user may not ask.
    var save: String?
    /// How far the server's clock is ahead of this machine's, in seconds.
    var clockDifference: Double

    init(information: String, save: String?, clockDifference: Double) {
        let pairs = information.split(whereSeparator: \.isNewline).compactMap { line -> (String, String)? in
            let parts = line.split(separator: ":", maxSplits: 1)
            return parts.count == 2 ? (String(parts[0]), String(parts[1])) : nil
        }
        self.information = Dictionary(pairs) { first, _ in first }
        self.save = save
        self.clockDifference = clockDifference
    }

    private var evicts: Bool { Int(information["maxmemory"] ?? "0") ?? 0 > 0 }
    private var policy: String { information["maxmemory_policy"] ?? "noeviction" }

    /// Why no worker should trust its jobs to the server; nil when there is no such reason.
    var refusal: String? {
        guard evicts, policy.hasPrefix("allkeys-") else { return nil }
        return
            "the server's maxmemory-policy is \(policy): when its memory is full it drops queues and the jobs in them. "
            + "Set maxmemory-policy noeviction, or allow it with Configuration.allowsEviction"
    }

    /// What a person should know.
    var warnings: [String] {
        var warnings: [String] = []
        if evicts, policy.hasPrefix("volatile-") {
            warnings.append(
                "the server's maxmemory-policy is \(policy): when its memory is full it drops records of jobs, and with "
                    + "them unique keys and the count of lost workers; set maxmemory-policy noeviction")
        }
        if information["aof_enabled"] == "0", let save, save.isEmpty {
            warnings.append(
                "the server keeps nothing on disk: a restart loses every job; set appendonly yes, or save")
        }
        if abs(clockDifference) > 2 {
            let size = String(Int64(bounded: abs(clockDifference)))
            warnings.append(
                "the server's clock is \(size) s \(clockDifference > 0 ? "ahead of" : "behind") this machine's: jobs of "
                    + "producers that name a time of day start by the server's clock")
        }
        return warnings
    }
}

extension RedisBackend {
    /// Looks at the server's settings once.
    /// - Returns: what a person should know. Nothing where the user may not ask.
    /// - Throws: `BackendError` `.misuse` when the server may drop queues.
    func checkServer() async throws -> [String] {
        guard configuration.clock == nil, !hasCheckedServer.withLock({ $0 }) else { return [] }
        let start = SystemJobClock().now
        let commands = [
            RESPCommand("TIME"), RESPCommand("INFO", ["everything"]), RESPCommand("CONFIG GET", ["save"]),
        ].map { command in
            var command = command
            command.route(by: keys.own)
            return command
        }
        let replies = try await call("read the server's settings") { try await client.send(pipeline: commands) }
        let time = replies[0].elements?.compactMap { $0.text.flatMap { Double($0) } } ?? []
        let microseconds = start.microsecondsSinceEpoch + SystemJobClock().now.microsecondsSinceEpoch
        let here = Double(microseconds) / 2_000_000
        let settings = ServerSettings(
            information: replies[1].text ?? "", save: replies[2].elements?.last?.text,
            clockDifference: time.count == 2 ? time[0] + time[1] / 1_000_000 - here : 0)
        if let refusal = settings.refusal, !configuration.allowsEviction { throw BackendError(.misuse, refusal) }
        hasCheckedServer.withLock { $0 = true }
        return settings.warnings
    }
}
