import Foundation
public import Hoist
import Logging

/// A job that tries one thing in a child.
public struct Probe: Job {
    public static let name = "isolation.probe"
    public static let options = JobOptions(retry: .fixed(.milliseconds(1), maxAttempts: 10))

    public enum Act: String, Codable, Sendable {
        case facts, chatter, family, tidyUp, stubborn, silent, lively, trap, exit, killSelf, killWorker, hold, burn,
            startProcess, pace
        case retryWithOthers, snooze, giveUp, undecided
        case leaveGroup, closeOutput, fanOut, share, foreignCrash
    }

    public var act: Act
    public var number: Int

    public init(_ act: Act, _ number: Int = 0) {
        self.act = act
        self.number = number
    }

    public typealias Output = [String: String]
}

/// Kills its process, and may not begin again.
public struct Once: Job {
    public static let name = "isolation.once"
    public static let options = JobOptions(retry: .fixed(.milliseconds(1), maxAttempts: 10), delivery: .atMostOnce)
    public init() {}
}

/// Performed by the worker itself.
public struct Echo: Job {
    public static let name = "isolation.echo"
    public var text: String
    public init(text: String) { self.text = text }
    public typealias Output = String
}

/// A job that takes more than one slot.
public struct Heavy: Job {
    public static let name = "isolation.heavy"
    public init() {}
}

/// The handlers, the same in the worker and in its children.
/// - Parameter hasHeavy: whether a handler that takes two slots is included.
public func isolationHandlers(hasHeavy: Bool) -> [Handler] {
    var handles = [
        Handler(Probe.self, in: .process) { job, context in try await perform(job, context) },
        Handler(Once.self, in: .process) { _, _ in kill(getpid(), SIGKILL) },
        Handler(Echo.self) { job, _ in "heard " + job.text },
    ]
    if hasHeavy {
        handles.append(
            Handler(Heavy.self, in: .process) { _, _ in try await Task.sleep(for: .milliseconds(200)) }.slots(2))
    }
    return handles
}

private struct Unfit: Error {}

private func perform(_ job: Probe, _ context: JobContext) async throws -> [String: String] {
    switch job.act {
    case .facts:
        return [
            "id": context.id, "attempt": "\(context.attempt)", "worker": context.worker, "queue": context.queue,
            "header": context.headers["tenant"]?.stringValue ?? "", "process": "\(getpid())", "parent": "\(getppid())",
            "isChild": "\(WorkerChild.isChild)", "deaths": "\(context.lostWorkers)",
            "deadline": "\(context.deadline != nil)",
        ]
    case .chatter:
        print("to standard output")
        FileHandle.standardError.write(Data("to standard error\n".utf8))
        context.logger.warning("to the logger", metadata: ["step": "\(job.number)"])
        try await context.report(progress: 0.5, "half way", details: ["frames": "12"])
        // Runs on until the test has seen it.
        try await Task.sleep(for: .seconds(3600))
    case .family:
        let handle = try await context.jobs.enqueue(Echo(text: "you"))
        let duplicate = try await context.jobs.enqueue(Echo(text: "again"), .id(handle.id))
        var states: [String] = []
        for try await update in handle.updates { states.append(update.state.rawValue) }
        let output = try await handle.output(timeout: .seconds(30))
        let failed = try? await context.jobs.enqueue(
            Echo(text: "x"), .queue(String(repeating: "x", count: 3)), .sameWorker)
        let cancelled = try await context.jobs.enqueue(Echo(text: "later"), .after(.seconds(3600))).cancel()
        return [
            "output": output, "child": handle.id, "isNew": "\(duplicate.isNew)", "last": states.last ?? "",
            "misuse": "\(failed == nil)",
            "cancelled": "\(cancelled)", "unknown": "\(try await context.jobs.handle(of: "nobody").record() == nil)",
        ]
    case .tidyUp:
        try await context.report(progress: 0)
        do { try await Task.sleep(for: .seconds(3600)) } catch {
            return [
                "reason": context.cancellationReason == .timeLimit
                    ? "time limit" : context.cancellationReason == .requested ? "requested" : "other"
            ]
        }
    case .stubborn, .silent:
        try await context.report(progress: 0)
        while true { usleep(10_000) }
    case .lively:
        for _ in 0..<job.number {
            context.heartbeat()
            try await Task.sleep(for: .milliseconds(20))
        }
    case .trap:
        print("about to fail")
        let numbers = [1, 2, 3]
        return ["never": "\(numbers[job.number])"]
    case .exit: exit(Int32(job.number))
    case .killSelf: kill(getpid(), SIGKILL)
    case .killWorker:
        kill(getppid(), SIGKILL)
        usleep(10_000_000)
    case .hold:
        var block = [UInt8](repeating: 0, count: job.number << 20)
        for index in stride(from: 0, to: block.count, by: 4096) { block[index] = 1 }
        try await Task.sleep(for: .milliseconds(300))
        return ["held": "\(block.count)"]
    case .burn:
        let end = SystemJobClock().uptime + Int64(job.number) * 1000
        var number: UInt64 = 1
        while SystemJobClock().uptime < end { number = number &* 3 | 1 }
        return ["burnt": "\(number & 1)"]
    case .startProcess:
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sleep")
        process.arguments = ["\(job.number)"]
        try process.run()
        context.logger.info("started \(process.processIdentifier)")
        process.waitUntilExit()
    case .pace: try await Task.sleep(for: .milliseconds(job.number))
    case .retryWithOthers:
        let others = Arguments(keyword: ["act": "facts", "number": 5])
        throw JobDirective.retry(after: .zero, arguments: others)
    case .snooze: if context.attempt == 1, job.number == 0 { throw JobDirective.snooze(for: .seconds(3600)) }
    case .giveUp: throw JobDirective.deadLetter("no use")
    case .undecided: throw Unfit()
    case .leaveGroup:
        // Into the process group of its worker, where no signal to its own group reaches it.
        let code = setpgid(0, getpgid(getppid()))
        try await context.report(progress: 0, "\(code)")
        while true { usleep(10_000) }
    case .closeOutput:
        close(1)
        close(2)
    case .fanOut:
        let jobs = context.jobs
        let outputs = try await withThrowingTaskGroup { group in
            for number in 0..<job.number {
                group.addTask { try await jobs.enqueue(Echo(text: "\(number)")).output(timeout: .seconds(60)) }
            }
            return try await group.reduce(into: Set<String>()) { $0.insert($1) }
        }
        return ["outputs": "\(outputs.count)"]
    case .share:
        // Shared memory: private to no process, and held all the same.
        let size = job.number << 20
        guard let block = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
            block != MAP_FAILED
        else {
            throw Unfit()
        }
        memset(block, 1, size)
        try await Task.sleep(for: .seconds(60))
    case .foreignCrash:
        // The backtrace of another program, which is no sign that this process ended.
        FileHandle.standardError.write(Data("*** Signal 11: Backtracing from 0x1 in another program ***\n".utf8))
        try await Task.sleep(for: .milliseconds(100))
        return ["lives": "yes"]
    }
    return [:]
}
