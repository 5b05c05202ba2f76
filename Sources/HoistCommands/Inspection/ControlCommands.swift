import ArgumentParser
import Hoist

/// The queue control of the backend, which pauses and limits queues. Not every backend has one.
private func control(_ options: InspectionOptions) throws -> any QueueControl {
    guard let control = try options.open().queueControl else {
        throw CommandFailure("this backend cannot pause queues or limit their length")
    }
    return control
}

/// The limits of the backend. Not every backend keeps any.
private func limitKeeping(_ options: InspectionOptions) throws -> any LimitKeeping {
    guard let limits = try options.open().limits else {
        throw CommandFailure("this backend keeps no limits on how jobs start; Redis does")
    }
    return limits
}

struct PauseCommand: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "pause", abstract: "Have all workers leave a queue alone until it is resumed.")
    @OptionGroup var options: InspectionOptions
    @Argument(help: "The queue.") var queue: String

    func perform() async throws {
        try await control(options).pause(queue: queue)
        print(options.json ? JSONText.shown(["paused": .string(queue)] as WireValue) : "\(queue) is paused")
    }
}

struct ResumeCommand: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "resume", abstract: "Have workers take jobs of a paused queue again.")
    @OptionGroup var options: InspectionOptions
    @Argument(help: "The queue.") var queue: String

    func perform() async throws {
        try await control(options).resume(queue: queue)
        print(options.json ? JSONText.shown(["resumed": .string(queue)] as WireValue) : "\(queue) is resumed")
    }
}

struct LimitsCommand: AskingCommand {
    static let configuration = CommandConfiguration(commandName: "limits", abstract: "The limits on how jobs start.")
    @OptionGroup var options: InspectionOptions

    func perform() async throws {
        let limits = try await limitKeeping(options).limits().sorted { $0.key.description < $1.key.description }
        if options.json {
            let lines = limits.map { target, limits -> WireValue in
                ["target": .string(target.description), "limits": .array(limits.map { .string($0.description) })]
            }
            return print(JSONText.shown(WireValue.array(lines)))
        }
        guard !limits.isEmpty else { return print("no limits") }
        var table = TextTable("OF", "LIMIT")
        for (target, limits) in limits { for limit in limits { table.add(target.description, limit.description) } }
        print(table.printed())
    }
}

struct LimitCommand: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "limit", abstract: "Limit how jobs start, on all workers, at once and until it is taken back.",
        discussion: """
            Several limits may be named together; they replace those that were set before, and stand over those of the workers' code. \
            --each applies to all of them.
              hoist limit queue:mail --rate 100/min --running 4
              hoist limit job:mail.send --running 1 --each partition
              hoist limit job:mail.send --none
              hoist limit job:mail.send --as-declared
              hoist limit queue:mail --waiting 10000
            """)
    @OptionGroup var options: InspectionOptions
    @Argument(help: "queue:NAME or job:NAME.") var target: String
    @Option(help: "Starts in a time, as in 10/s, 100/min, 5/h, 1000/d.") var rate: String?
    @Option(help: "How many of a rate may start at once after a pause.") var burst: Int?
    @Option(help: "How many run at a time.") var running: Int?
    @Option(help: "What is counted apart: partition or worker.") var each: Each?
    @Option(help: "What becomes of a job that finds so many running: wait, drop (the new one) or cancel (the old one).")
    var full: Full =
        .wait
    @Flag(help: "One after the other in each partition.") var ordered = false
    @Flag(help: "Partitions take turns.") var fair = false
    @Flag(help: "No limits, whatever the code says.") var none = false
    @Flag(help: "Back to what the code says.") var asDeclared = false
    @Option(help: "How many may wait in a queue before an enqueue is refused; none for any number.") var waiting:
        String?

    enum Each: String, ExpressibleByArgument, CaseIterable { case partition, worker }
    enum Full: String, ExpressibleByArgument, CaseIterable { case wait, drop, cancel }

    func perform() async throws {
        let target = try parsedTarget()
        if let waiting {
            guard target.kind == .queue, waiting == "none" || Int(waiting).map({ $0 >= 0 }) == true
            else {
                throw ValidationError("--waiting takes a number or none, and is for queues")
            }
            try await control(options).limit(queue: target.name, to: Int(waiting))
        }
        let limits = try parsedLimits()
        guard waiting != nil || !limits.isEmpty || none || asDeclared else {
            throw ValidationError("name a limit, or --none, or --as-declared")
        }
        let keeping = try limitKeeping(options)
        if !limits.isEmpty || none || asDeclared { try await keeping.setLimits(asDeclared ? nil : limits, for: target) }
        let now = try await keeping.limits()[target] ?? []
        let words = now.isEmpty ? "no limits" : now.map(\.description).joined(separator: "; ")
        print(
            options.json
                ? (["limits": .array(now.map { .string($0.description) })] as WireValue).description
                : "\(target): \(words)")
    }

    private func parsedTarget() throws -> LimitTarget {
        let parts = target.split(separator: ":", maxSplits: 1)
        guard parts.count == 2, ["queue", "job"].contains(parts[0]) else {
            throw ValidationError("name queue:NAME or job:NAME")
        }
        return parts[0] == "queue" ? .queue(String(parts[1])) : .job(String(parts[1]))
    }

    private func parsedLimits() throws -> [JobLimit] {
        let scope: JobLimit.Scope = each == .partition ? .partition : each == .worker ? .worker : .cluster
        var limits: [JobLimit] = []
        if let rate {
            let parts = rate.split(separator: "/")
            let units: [Substring: Duration] = [
                "s": .seconds(1), "m": .seconds(60), "min": .seconds(60), "h": .seconds(3600), "d": .seconds(86_400),
            ]
            guard parts.count == 2, let count = Int(parts[0]), count > 0, let period = units[parts[1]] else {
                throw ValidationError("--rate takes a number and a time, as in 100/min")
            }
            limits.append(.rate(count, per: period, scope: scope, burst: burst))
        }
        if let running {
            guard running > 0, each != .worker else {
                throw ValidationError("--running takes 1 or more, and is not for single workers")
            }
            limits.append(
                .running(
                    running, scope: scope, whenFull: full == .drop ? .dropNew : full == .cancel ? .cancelOld : .wait))
        }
        if ordered { limits.append(.ordered) }
        if fair { limits.append(.fair) }
        return limits
    }
}
